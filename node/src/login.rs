//! Logins: from kubelet's credential providers, else from the AWS CLI, else none.

pub mod environment;
pub mod helper;
pub mod matching;
pub mod providers;

use std::fmt;

/// A user and a password for one registry. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Nothing for none.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// What came of asking for a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A login.
    Given(Login),
    /// No helper is for this image: it is asked for without.
    None,
    /// A helper is for it, and failed: the cause.
    Failed(String),
}

/// Gets logins on one node.
#[derive(Clone, Debug)]
pub struct Logins {
    host: crate::host::Host,
}

impl Logins {
    /// Reads how kubelet gets logins on this node; nothing is asked yet.
    #[must_use]
    pub fn on(host: &crate::host::Host) -> Self {
        todo!()
    }

    /// Gets the login for an image, `registry/repository`, anew: whoever asks keeps it. A helper has so long at most, and
    /// nothing of it outlives that.
    pub async fn get(&self, registry: &str, repository: &str, within: std::time::Duration) -> Answer {
        todo!()
    }
}

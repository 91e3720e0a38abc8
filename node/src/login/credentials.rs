//! The login for a registry.

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

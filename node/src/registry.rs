//! Registries: manifests and configurations by digest, asked as containerd would ask, and nothing believed that its digest
//! does not stand for.

pub mod authorization;
pub mod client;
pub mod hosts;

use std::{path::PathBuf, time::Duration};

use crate::{failure::Failure, host::Host, login::Login};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A manifest or an index.
    Manifest,
    /// A configuration.
    Blob,
}

/// Asks registries from one node; cheap to clone. Connections are kept and shared.
#[derive(Clone)]
pub struct Registries {}

impl Registries {
    /// Reads the node's certificates and proxies (of the units of kubelet and containerd) when they are first needed.
    /// `hosts_folders` are containerd's.
    #[must_use]
    pub fn on(host: &Host, hosts_folders: Vec<PathBuf>) -> Self {
        todo!()
    }

    /// Gets what a digest stands for: at most 8 MiB, verified against the digest. Mirrors of the node are asked first, as by
    /// containerd; the login goes to the registry alone.
    ///
    /// # Errors
    /// `not-found`, `denied`, `registry` or `timeout`, naming the host that said so.
    pub async fn get(
        &self,
        registry: &str,
        repository: &str,
        kind: Kind,
        digest: &str,
        login: Option<&Login>,
        within: Duration,
    ) -> Result<Vec<u8>, Failure> {
        todo!()
    }

    /// Asks which digest a tag stands for now; none where there is no such tag.
    ///
    /// # Errors
    /// As [`Registries::get`].
    pub async fn digest_of_tag(
        &self,
        registry: &str,
        repository: &str,
        tag: &str,
        login: Option<&Login>,
        within: Duration,
    ) -> Result<Option<String>, Failure> {
        todo!()
    }
}

//! The settings of one host.

use std::{path::PathBuf, time::Duration};

use http::HeaderMap;

use super::url::Url;

/// One host that is asked for a registry's images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostConfig {
    /// Its address; none for the registry itself, at its usual one.
    pub url: Option<Url>,
    /// True where it serves what is asked for by digest.
    pub can_pull: bool,
    /// True where it tells which digest a tag stands for.
    pub can_resolve: bool,
    /// Files with certificates that are trusted beside the node's own, paths of the host.
    pub certificates: Vec<PathBuf>,
    /// Files with certificates of ours and their keys; a key may stand in the certificate's file.
    pub client_pairs: Vec<(PathBuf, Option<PathBuf>)>,
    /// True where its certificate is not verified, if that is set.
    pub skip_verify: Option<bool>,
    /// Headers that it is sent.
    pub header: HeaderMap,
    /// The time within which it connects, where that is set.
    pub dial_timeout: Option<Duration>,
}

impl HostConfig {
    /// Makes the registry itself, at its usual address.
    #[must_use]
    pub fn registry() -> Self {
        Self {
            can_pull: true,
            can_resolve: true,
            ..Self::default()
        }
    }

    /// Tells whether its settings of TLS are its own.
    #[must_use]
    pub fn has_own_tls(&self) -> bool {
        self.skip_verify.is_some() || !self.certificates.is_empty() || !self.client_pairs.is_empty()
    }
}

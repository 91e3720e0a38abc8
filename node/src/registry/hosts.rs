//! Settings of registries on a node: `hosts.toml` below containerd's `config_path`, read as containerd reads it
//! (`core/remotes/docker/config`), and Docker's certificate files in its place.

pub mod url;
mod written;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::HeaderMap;

use self::url::Url;
use crate::host::Host;

/// One host that is asked for a registry's images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostConfig {
    /// Where it is; none for the registry itself, where it always is.
    pub url: Option<Url>,
    /// Whether it serves what is asked for by digest.
    pub can_pull: bool,
    /// Whether it tells which digest a tag stands for.
    pub can_resolve: bool,
    /// Files with certificates that are trusted beside the node's own, paths of the host.
    pub certificates: Vec<PathBuf>,
    /// Files with certificates of ours and their keys; a key may stand in the certificate's file.
    pub client_pairs: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether its certificate is not verified, where that is set.
    pub skip_verify: Option<bool>,
    /// Headers that it is sent.
    pub header: HeaderMap,
    /// How long a connection may take, where that is set.
    pub dial_timeout: Option<Duration>,
}

impl HostConfig {
    /// Makes the registry itself, where it always is.
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

/// Reads the hosts that are asked for a registry's images, in the order in which they are asked.
#[must_use]
pub fn of_registry(host: &Host, folders: &[PathBuf], registry: &str) -> Vec<HostConfig> {
    let Some(folder) = folder_of(host, folders, registry) else {
        return vec![HostConfig::registry()];
    };
    let text = host.read(folder.join("hosts.toml")).unwrap_or_default();
    // A file that containerd cannot read is one that is not there.
    match parse(&text, &folder) {
        Some(hosts) if !text.is_empty() => hosts,
        _ => vec![certificates_in(host, &folder)],
    }
}

/// Parses a `hosts.toml`; nothing where containerd refuses it. Paths in it are below its folder.
#[must_use]
pub fn parse(text: &str, folder: &Path) -> Option<Vec<HostConfig>> {
    let file = written::File::parse(text)?;
    let mut hosts = Vec::new();
    for (url, settings) in file.hosts {
        let url = Url::parse(&url, settings.override_path)?;
        hosts.push(settings.into_config(Some(url), folder)?);
    }
    let is_registry = file.server.is_empty();
    let url = match file.server.as_str() {
        "" => None,
        server => Some(Url::parse(server, file.settings.override_path)?),
    };
    let mut server = file.settings.into_config(url, folder)?;
    if is_registry {
        (server.can_pull, server.can_resolve) = (true, true);
    }
    hosts.push(server);
    Some(hosts)
}

/// Finds the folder of a registry in the first of containerd's folders that has one.
fn folder_of(host: &Host, folders: &[PathBuf], registry: &str) -> Option<PathBuf> {
    let with_port = registry.rsplit_once(':').map(|(name, port)| format!("{name}_{port}_"));
    let names: Vec<&str> = with_port.as_deref().into_iter().chain([registry, "_default"]).collect();
    let paths = folders
        .iter()
        .flat_map(|folder| names.iter().map(|name| folder.join(name)));
    paths.into_iter().find(|path| host.path(path).exists())
}

/// Reads Docker's layout: `*.crt` are certificates that are trusted, `*.cert` and `*.key` ours.
fn certificates_in(host: &Host, folder: &Path) -> HostConfig {
    let mut config = HostConfig::registry();
    for name in host.list(folder) {
        let path = folder.join(&name);
        if name.strip_suffix(".crt").is_some() {
            config.certificates.push(path);
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = folder.join(format!("{stem}.key"));
            let key = Some(key).filter(|key| host.path(key).exists());
            config.client_pairs.push((path, key));
        }
    }
    config
}

#[cfg(test)]
mod tests;

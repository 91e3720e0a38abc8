//! Settings of registries on a node: `hosts.toml` below containerd's `config_path`, read as containerd reads it
//! (`core/remotes/docker/config`), and Docker's certificate files in its place.

mod config;
pub mod url;
mod written;

use std::path::{Path, PathBuf};

pub use self::config::HostConfig;
use self::url::Url;
use crate::host::Host;

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

//! Addresses of registries.

use std::fmt;

use http::{Uri, uri::Authority};

/// Names the address of a registry's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// True where it is spoken to by TLS.
    pub is_https: bool,
    /// The host and, where it is not the scheme's own, the port.
    pub authority: String,
    /// The path before the repository: `/v2`, mostly.
    pub path: String,
}

impl Url {
    /// Parses an address as containerd does: https where no scheme is given, `/v2` behind it unless the path is overridden.
    #[must_use]
    pub fn parse(text: &str, override_path: bool) -> Option<Self> {
        let with_scheme = if text.starts_with("http") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        let uri: Uri = with_scheme.parse().ok()?;
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let path = clean(uri.path());
        let path = if override_path || path.ends_with("/v2") {
            path
        } else {
            path + "/v2"
        };
        Some(Self {
            is_https,
            authority: without_default_port(uri.authority()?, is_https),
            path,
        })
    }

    /// Returns the address of a host's API at its usual place.
    #[must_use]
    pub fn of_host(is_https: bool, host: &str) -> Option<Self> {
        let authority: Authority = host.parse().ok()?;
        Some(Self {
            is_https,
            authority: without_default_port(&authority, is_https),
            path: "/v2".to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// Names host and port in lower case, without a login, and without the port that the scheme has anyway.
#[must_use]
pub fn without_default_port(authority: &Authority, is_https: bool) -> String {
    let host = authority.host().to_ascii_lowercase();
    let default = if is_https { 443 } else { 80 };
    match authority.port_u16() {
        Some(port) if port != default => format!("{host}:{port}"),
        _ => host,
    }
}

/// Cleans a path as Go's `path.Clean` does; nothing for the root.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.iter().fold(String::new(), |path, part| path + "/" + part)
}

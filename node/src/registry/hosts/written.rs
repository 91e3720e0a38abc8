//! `hosts.toml` as it is written.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{config::HostConfig, url::Url};
use crate::toml;

/// Bounds the hosts that are read of one file.
const MAX_HOSTS: usize = 64;

pub struct File {
    pub server: String,
    pub hosts: Vec<(String, Settings)>,
    pub settings: Settings,
}

impl File {
    /// Reads a file; nothing where containerd cannot.
    pub fn parse(text: &str) -> Option<Self> {
        let mut file = toml::read(text).ok()?;
        let server = file.remove("server").unwrap_or_default();
        let server = if server.is_null() {
            String::new()
        } else {
            server.as_str()?.to_owned()
        };
        let mut hosts = match file.remove("host") {
            None => Map::new(),
            Some(Value::Object(hosts)) => hosts,
            Some(_) => return None,
        };
        let in_order = toml::keys_in_order(text, "host").into_iter();
        let hosts = in_order.map(|url| {
            let settings = hosts.remove(&url)?;
            Some((url, serde_json::from_value(settings).ok()?))
        });
        let mut hosts = hosts.collect::<Option<Vec<_>>>()?;
        hosts.truncate(MAX_HOSTS);
        Some(Self {
            server,
            hosts,
            settings: serde_json::from_value(Value::Object(file)).ok()?,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Settings {
    capabilities: Vec<String>,
    ca: Option<Value>,
    client: Option<Value>,
    skip_verify: Option<bool>,
    header: Map<String, Value>,
    pub override_path: bool,
    dial_timeout: String,
}

impl Settings {
    /// Takes the settings of one host; nothing where containerd refuses them.
    pub fn into_config(self, url: Option<Url>, folder: &Path) -> Option<HostConfig> {
        let capabilities: Vec<String> = self.capabilities.iter().map(|word| word.to_lowercase()).collect();
        let is_known = |word: &String| ["pull", "resolve", "push", "referrers"].contains(&word.as_str());
        if !capabilities.iter().all(is_known) {
            return None;
        }
        let can = |what: &str| capabilities.is_empty() || capabilities.iter().any(|word| word == what);
        Some(HostConfig {
            url,
            can_pull: can("pull"),
            can_resolve: can("resolve"),
            certificates: self.ca.as_ref().map_or(Some(Vec::new()), |ca| paths(ca, folder))?,
            client_pairs: self
                .client
                .as_ref()
                .map_or(Some(Vec::new()), |client| pairs(client, folder))?,
            skip_verify: self.skip_verify,
            header: header(&self.header)?,
            dial_timeout: match self.dial_timeout.as_str() {
                "" => None,
                text => Some(duration(text)?),
            },
        })
    }
}

/// Reads one path, or several.
fn paths(value: &Value, folder: &Path) -> Option<Vec<PathBuf>> {
    match value {
        Value::String(path) => Some(vec![folder.join(path)]),
        Value::Array(paths) => paths.iter().map(|path| Some(folder.join(path.as_str()?))).collect(),
        _ => None,
    }
}

/// Reads one file with certificate and key, several, or pairs of both.
fn pairs(value: &Value, folder: &Path) -> Option<Vec<(PathBuf, Option<PathBuf>)>> {
    let pair = |value: &Value| match value {
        Value::String(path) => Some((folder.join(path), None)),
        Value::Array(pair) => match pair.as_slice() {
            [certificate, key] => Some((folder.join(certificate.as_str()?), Some(folder.join(key.as_str()?)))),
            _ => None,
        },
        _ => None,
    };
    match value {
        Value::Array(values) => values.iter().map(pair).collect(),
        value => pair(value).map(|pair| vec![pair]),
    }
}

/// Reads headers with a value or several; none of them is ever printed.
fn header(table: &Map<String, Value>) -> Option<HeaderMap> {
    let mut header = HeaderMap::new();
    for (name, value) in table {
        let values: Vec<&str> = match value {
            Value::String(value) => vec![value],
            Value::Array(values) => values.iter().map(Value::as_str).collect::<Option<_>>()?,
            _ => return None,
        };
        let name: HeaderName = name.parse().ok()?;
        for value in values {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            // A file has not as many headers as a map can hold.
            header.try_append(name.clone(), value).ok()?;
        }
    }
    Some(header)
}

/// Parses a duration as Go does: `200ms`, `1m30s`, `1.5s`.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let next = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.');
        let end = next.map_or(rest.len(), |length| number + length);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == &rest[number..end])?;
        seconds += rest[..number].parse::<f64>().ok()? * scale;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

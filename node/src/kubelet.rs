//! Kubelet's own settings, as far as they decide what becomes of an image.

use std::{fs, path::PathBuf};

use serde_json::{Map, Value};

use crate::{file_system::Usage, glob, host::Host, systemd::ServiceUnit, yaml};

mod quantity;

pub use quantity::Threshold;

/// Names kubelet's configuration on EKS' images: AL2023, Bottlerocket, AL2. The first that is there is meant.
const CONFIGS: [&str; 3] = [
    "/etc/kubernetes/kubelet/config.json",
    "/etc/kubernetes/kubelet/config",
    "/etc/kubernetes/kubelet/kubelet-config.json",
];

/// Names the folder of the files that are merged into it.
const DROP_INS: &str = "/etc/kubernetes/kubelet/config.json.d";

/// Names the folder of kubelet's own files, unless `--root-dir` names another.
const ROOT: &str = "/var/lib/kubelet";

/// Holds `evictionHard` where nothing is set (`DefaultEvictionHard` of kubelet's pkg/kubelet/eviction).
const DEFAULT_EVICTION: [(&str, &str); 4] = [
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
];

const CONTAINERD: [&str; 2] = ["/run/containerd/containerd.sock", "/var/run/containerd/containerd.sock"];

/// Tells whether a process is called kubelet, which may be a pod's as well.
#[must_use]
pub fn is_running() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names = processes.filter_map(|process| fs::read(process.path().join("comm")).ok());
    names.any(|name| name == b"kubelet\n")
}

/// Holds the settings by which kubelet removes images; those that are not set have kubelet's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `imageGCHighThresholdPercent`, by default 85: images go once the disk is at or above it. 100 switches it off.
    pub image_gc_high_threshold_percent: u8,
    /// `imageGCLowThresholdPercent`, by default 80: down to which they go.
    pub image_gc_low_threshold_percent: u8,
    /// `imagefs.available` of `evictionHard` and `evictionSoft`, by default 15 %.
    pub image_fs_available: Threshold,
    /// The same of its inodes, `imagefs.inodesFree`, by default 5 %.
    pub image_fs_inodes_free: Threshold,
    /// `nodefs.available`, by default 10 %, which counts where images lie on the file system of kubelet's own files.
    pub node_fs_available: Threshold,
    /// `nodefs.inodesFree`, by default 5 %.
    pub node_fs_inodes_free: Threshold,
    /// The device of that file system, where it is known.
    pub node_fs: Option<u64>,
    /// True where `imageMaximumGCAge` is set: unused images go by age, however free the disk is.
    pub has_maximum_age: bool,
    /// `imageServiceEndpoint`, a path of the host: where kubelet asks for images, where that is not containerd's socket.
    pub image_service: Option<PathBuf>,
    /// The files that cannot be read, for people.
    pub unreadable: Vec<String>,
}

impl Settings {
    /// Reads kubelet's configuration where kubelet does: its file (JSON or YAML), then `*.conf` of its folder in the order of
    /// names; flags on its command line win. A node without any kubelet removes no images.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let service = ServiceUnit::of(host, "kubelet.service");
        let there = CONFIGS.into_iter().find(|file| host.path(file).exists());
        let config = service.flag("config").or(there);
        if config.is_none() && service.command_line.is_empty() {
            return Self::without_kubelet();
        }
        let mut unreadable = Vec::new();
        let mut read = |file: &str| {
            let found = host.read(file).as_deref().map(yaml::read);
            match found {
                Some(Some(Value::Object(settings))) => settings,
                Some(_) => {
                    unreadable.push(file.to_owned());
                    Map::new()
                }
                None => Map::new(),
            }
        };
        let mut settings = with_defaults(config.map(&mut read).unwrap_or_default());
        for file in drop_ins(host, &service) {
            merge(&mut settings, read(&file));
        }
        let root = service.flag("root-dir").unwrap_or(ROOT);
        Self {
            unreadable,
            node_fs: Usage::of(&host.path(root)).ok().map(|usage| usage.device),
            ..Self::from(&settings, &service)
        }
    }

    /// Returns the settings of a node on which nothing removes images.
    #[must_use]
    pub fn without_kubelet() -> Self {
        Self {
            image_gc_high_threshold_percent: 100,
            image_gc_low_threshold_percent: 100,
            image_fs_available: Threshold::default(),
            image_fs_inodes_free: Threshold::default(),
            node_fs_available: Threshold::default(),
            node_fs_inodes_free: Threshold::default(),
            node_fs: None,
            has_maximum_age: false,
            image_service: None,
            unreadable: Vec::new(),
        }
    }

    fn from(settings: &Map<String, Value>, service: &ServiceUnit) -> Self {
        let percent = |flag: &str, key: &str, default: u8| {
            let flag = service.flag(flag).and_then(|value| value.parse().ok());
            let set = settings.get(key).and_then(Value::as_u64);
            let set = set.and_then(|value| u8::try_from(value).ok());
            flag.or(set).filter(|percent| *percent <= 100).unwrap_or(default)
        };
        let threshold = |signal: &str| {
            let of = |flag, key| threshold(settings, service.flag(flag), key, signal);
            of("eviction-hard", "evictionHard").stricter(of("eviction-soft", "evictionSoft"))
        };
        let image_service = service.flag("image-service-endpoint");
        Self {
            image_gc_high_threshold_percent: percent("image-gc-high-threshold", "imageGCHighThresholdPercent", 85),
            image_gc_low_threshold_percent: percent("image-gc-low-threshold", "imageGCLowThresholdPercent", 80),
            image_fs_available: threshold("imagefs.available"),
            image_fs_inodes_free: threshold("imagefs.inodesFree"),
            node_fs_available: threshold("nodefs.available"),
            node_fs_inodes_free: threshold("nodefs.inodesFree"),
            node_fs: None,
            has_maximum_age: text(settings, "imageMaximumGCAge").is_some_and(is_some_time),
            image_service: image_service
                .or_else(|| text(settings, "imageServiceEndpoint"))
                .and_then(other_socket),
            unreadable: Vec::new(),
        }
    }
}

/// Returns a signal's threshold: by the flag, which replaces all of the setting, or by that.
fn threshold(settings: &Map<String, Value>, flag: Option<&str>, key: &str, signal: &str) -> Threshold {
    let signals = flag.map_or_else(|| signals(settings.get(key)), signals_of_flag);
    let threshold = signals.get(signal).and_then(Value::as_str);
    threshold.map_or_else(Threshold::default, Threshold::parse)
}

/// Returns the files that kubelet merges into its configuration. It has no folder of its own accord: where its command line is
/// known, that names it.
fn drop_ins(host: &Host, service: &ServiceUnit) -> Vec<String> {
    let default = Some(DROP_INS).filter(|_| service.command_line.is_empty());
    let Some(folder) = service.flag("config-dir").or(default) else {
        return Vec::new();
    };
    let names = host
        .list(folder)
        .into_iter()
        .filter(|name| glob::matches("*.conf", name));
    names.map(|name| format!("{folder}/{name}")).collect()
}

/// Adds kubelet's defaults: all of `evictionHard` where it is not set, else none of it unless they are to be merged.
fn with_defaults(mut settings: Map<String, Value>) -> Map<String, Value> {
    let is_merged = settings.get("mergeDefaultEvictionSettings").and_then(Value::as_bool) == Some(true);
    let hard = settings.entry("evictionHard").or_insert(Value::Null);
    if hard.is_null() || is_merged {
        let mut signals = signals(Some(hard));
        for (signal, value) in DEFAULT_EVICTION {
            signals.entry(signal).or_insert_with(|| value.into());
        }
        *hard = Value::Object(signals);
    }
    settings
}

/// Merges as RFC 7396 has it: objects key by key, null removes, and everything else is replaced.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (value, into.get_mut(&key)) {
            (Value::Null, _) => drop(into.remove(&key)),
            (Value::Object(new), Some(Value::Object(old))) => merge(old, new),
            (value, _) => drop(into.insert(key, value)),
        }
    }
}

fn text<'a>(settings: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    settings.get(key).and_then(Value::as_str)
}

fn signals(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Reads a flag such as `nodefs.available<10%,imagefs.available<2Gi`.
fn signals_of_flag(flag: &str) -> Map<String, Value> {
    let statements = flag.split(',').filter_map(|statement| statement.split_once('<'));
    statements
        .map(|(signal, value)| (signal.trim().to_owned(), value.trim().into()))
        .collect()
}

/// Tells a duration of Go's that is not zero, such as `168h` or `0h1m`, from `0s`.
fn is_some_time(duration: &str) -> bool {
    duration.contains(|character: char| ('1'..='9').contains(&character))
}

fn other_socket(endpoint: &str) -> Option<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    (path.starts_with('/') && !CONTAINERD.contains(&path)).then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests;

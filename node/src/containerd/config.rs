//! containerd's settings, by `containerd config dump`, kept for the next commands while the same containerd runs.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use prefetch::outcome::NodeReason;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::{io::AsyncReadExt, process::Command};

use super::{
    client::{Containerd, LOOK_UP, SOCKET},
    start::Start,
};
use crate::{
    failure::Failure,
    host::{Host, RUN},
    toml,
};

/// Bounds what is read of the settings, in bytes: EKS's are 8,000.
const MAX_DUMP: u64 = 4 << 20;
/// Bounds what is read of an earlier command's file, in bytes.
const MAX_KEPT: u64 = 1 << 20;
/// Names the file of the settings that are kept.
const KEPT: &str = "config";

/// The settings that matter here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The folder in which containerd stores, a path of the host.
    pub root: PathBuf,
    /// The snapshotter that CRI unpacks into.
    pub snapshotter: String,
    /// The folder in which that one stores: its own for one outside containerd (`proxy_plugins.<name>.exports.root`), or that
    /// of a plugin with a `root_path`; else below `root`.
    pub snapshotter_root: PathBuf,
    /// The snapshotters that run outside containerd.
    pub outside: Vec<String>,
    /// The folders with settings of registries (`config_path`, one or several), paths of the host.
    pub hosts_folders: Vec<PathBuf>,
    /// True where layers go once they are unpacked.
    pub discards_layers: bool,
    /// Runtime handlers for which CRI pulls into another snapshotter than its own: name, snapshotter.
    pub other_snapshotters: Vec<(String, String)>,
    /// Runtime handlers with another snapshotter into which CRI pulls nothing: name, snapshotter.
    pub unreached_snapshotters: Vec<(String, String)>,
    /// The folder with programs that may refuse an image before it is pulled, a path of the host.
    pub image_verifiers: PathBuf,
    /// True where CRI is switched off, as where kubelet uses Docker.
    pub is_cri_disabled: bool,
}

/// Holds the settings that are kept, and of which containerd they are.
#[derive(Serialize, Deserialize)]
struct Kept {
    start: String,
    config: Config,
}

impl Config {
    /// Reads what `containerd config dump` prints; what cannot be read has containerd's defaults.
    #[must_use]
    pub fn parse(dump: &str) -> Self {
        let dump = Dump(toml::read(dump).unwrap_or_default());
        let root = PathBuf::from(dump.text(&["root"]).unwrap_or("/var/lib/containerd"));
        let snapshotter = dump
            .text(&["plugins", IMAGES, "snapshotter"])
            .or_else(|| dump.text(&["plugins", CRI, "containerd", "snapshotter"]))
            .unwrap_or("overlayfs");
        Self {
            snapshotter_root: dump
                .snapshotter_root(snapshotter)
                .unwrap_or_else(|| root.join(format!("{SNAPSHOTTER}.{snapshotter}"))),
            outside: dump.names(&["proxy_plugins"]),
            hosts_folders: dump.hosts_folders(),
            discards_layers: dump.is_set(&["plugins", IMAGES, "discard_unpacked_layers"])
                || dump.is_set(&["plugins", CRI, "containerd", "discard_unpacked_layers"]),
            image_verifiers: PathBuf::from(dump.text(&["plugins", VERIFIERS, "bin_dir"]).unwrap_or_default()),
            unreached_snapshotters: dump.unreached_snapshotters(snapshotter),
            other_snapshotters: dump.other_snapshotters(snapshotter),
            is_cri_disabled: dump.is_cri_disabled(),
            snapshotter: snapshotter.to_owned(),
            root,
        }
    }

    /// Returns true where a snapshotter runs outside containerd.
    #[must_use]
    pub fn runs_outside(&self, snapshotter: &str) -> bool {
        self.outside.iter().any(|name| name == snapshotter)
    }

    /// Tells whether programs decide which images may be pulled.
    #[must_use]
    pub fn has_image_verifiers(&self, host: &Host) -> bool {
        !self.image_verifiers.as_os_str().is_empty() && !host.list(&self.image_verifiers).is_empty()
    }

    /// Refuses a node whose containerd serves no kubelet.
    ///
    /// # Errors
    /// That its CRI is disabled.
    pub fn refuse_disabled(&self) -> Result<(), String> {
        if self.is_cri_disabled {
            Err(
                "containerd's CRI is disabled: kubelet uses another runtime, such as Docker, which is not supported"
                    .to_owned(),
            )
        } else {
            Ok(())
        }
    }

    /// Gives the settings of the containerd that runs, and keeps them for the next commands.
    ///
    /// # Errors
    /// As [`Config::look`].
    pub async fn of(host: &Host, deadline: Instant) -> Result<Self, Failure> {
        let start = Start::of(host);
        let (config, is_to_be_kept) = Self::look(host, start, deadline).await?;
        if let (Some(start), true) = (start, is_to_be_kept) {
            keep(host, start, &config).ok(); // the next command asks anew
        }
        Ok(config)
    }

    /// Gives the settings of the containerd that runs: kept by an earlier command where the socket is the same, else asked;
    /// and true where they may be kept.
    ///
    /// # Errors
    /// `interrupted` where the containerd's own program cannot be asked in time.
    pub async fn look(host: &Host, start: Option<Start>, deadline: Instant) -> Result<(Self, bool), Failure> {
        if let Some(config) = start.and_then(|start| kept(host, start)) {
            return Ok((config, false));
        }
        let (dump, is_whole) = dump(host, deadline).await?;
        if let Err(error) = toml::read(&dump) {
            let detail = format!("what containerd config dump prints is no TOML: {}", error.message());
            return Err(Failure::new(NodeReason::Interrupted, detail));
        }
        let mut config = Self::parse(&dump);
        let is_sure = config.ask_for_root(host).await;
        Ok((config, is_whole && is_sure))
    }

    /// Asks containerd where a snapshotter outside of it stores, if its settings do not say; false where nobody answers.
    async fn ask_for_root(&mut self, host: &Host) -> bool {
        if !self.runs_outside(&self.snapshotter)
            || self.snapshotter_root != self.root.join(format!("{SNAPSHOTTER}.{}", self.snapshotter))
        {
            return true;
        }
        let containerd = Containerd::at(&host.path(SOCKET));
        let answer = containerd.snapshotter_root(&self.snapshotter).await;
        let is_answered = answer.is_ok();
        self.snapshotter_root = answer.ok().flatten().map_or_else(|| self.root.clone(), PathBuf::from);
        is_answered
    }
}

/// Names CRI's plugin in the settings of version 2.
const CRI: &str = "io.containerd.grpc.v1.cri";
/// Names CRI's plugins in the settings of version 3.
const IMAGES: &str = "io.containerd.cri.v1.images";
const RUNTIME: &str = "io.containerd.cri.v1.runtime";
/// Names the plugin that asks programs whether an image may be pulled.
const VERIFIERS: &str = "io.containerd.image-verifier.v1.bindir";
/// Begins the name of a snapshotter's plugin.
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";

/// The settings as they are printed.
struct Dump(Map<String, Value>);

impl Dump {
    fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, key| value.get(key))
    }

    /// Returns a text that is not empty.
    fn text(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.as_str().filter(|text| !text.is_empty())
    }

    /// Returns the names of the tables in a table.
    fn names(&self, path: &[&str]) -> Vec<String> {
        let table = self.at(path).and_then(Value::as_object);
        table.into_iter().flat_map(Map::keys).cloned().collect()
    }

    fn is_set(&self, path: &[&str]) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or_default()
    }

    fn snapshotter_root(&self, snapshotter: &str) -> Option<PathBuf> {
        let plugin = format!("{SNAPSHOTTER}.{snapshotter}");
        self.text(&["proxy_plugins", snapshotter, "exports", "root"])
            .or_else(|| self.text(&["plugins", &plugin, "root_path"]))
            .map(PathBuf::from)
    }

    fn hosts_folders(&self) -> Vec<PathBuf> {
        let paths = self
            .text(&["plugins", IMAGES, "registry", "config_path"])
            .or_else(|| self.text(&["plugins", CRI, "registry", "config_path"]));
        let folders = paths.unwrap_or_default().split(':').filter(|path| !path.is_empty());
        folders.map(PathBuf::from).collect()
    }

    /// Returns the runtimes for which a pull unpacks into another snapshotter: containerd 2 looks at `runtime_platforms` alone
    /// (internal/cri/server/images, `snapshotterFromPodSandboxConfig`; seen on 2.1).
    fn other_snapshotters(&self, own: &str) -> Vec<(String, String)> {
        self.snapshotters(
            own,
            &[
                &["plugins", IMAGES, "runtime_platforms"],
                &["plugins", CRI, "containerd", "runtimes"],
            ],
        )
    }

    fn unreached_snapshotters(&self, own: &str) -> Vec<(String, String)> {
        let reached = self.other_snapshotters(own);
        let mut all = self.snapshotters(own, &[&["plugins", RUNTIME, "containerd", "runtimes"]]);
        all.retain(|runtime| !reached.contains(runtime));
        all
    }

    fn snapshotters(&self, own: &str, tables: &[&[&str]]) -> Vec<(String, String)> {
        let tables = tables.iter().map(|path| self.at(path));
        let mut others: Vec<_> = tables
            .flatten()
            .filter_map(Value::as_object)
            .flatten()
            .filter_map(|(runtime, settings)| {
                Some((runtime.clone(), settings.get("snapshotter")?.as_str()?.to_owned()))
            })
            .filter(|(_, snapshotter)| !snapshotter.is_empty() && snapshotter != own)
            .collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    fn is_cri_disabled(&self) -> bool {
        let disabled = self.at(&["disabled_plugins"]).and_then(Value::as_array);
        disabled
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|plugin| ["cri", CRI, IMAGES, RUNTIME].contains(&plugin))
    }
}

/// Prints the settings by containerd's own program; false where that fails at it.
async fn dump(host: &Host, deadline: Instant) -> Result<(String, bool), Failure> {
    let failure = |error: &dyn std::fmt::Display| {
        Failure::new(NodeReason::Interrupted, format!("containerd config dump: {error}"))
    };
    let left = deadline.saturating_duration_since(Instant::now()).min(LOOK_UP);
    let answer = tokio::time::timeout(left, run(host)).await;
    match answer {
        Err(_) => Err(failure(&format!("no end after {} seconds", left.as_secs()))),
        Ok(Err(error)) => Err(failure(&error)),
        Ok(Ok(answer)) => Ok(answer),
    }
}

async fn run(host: &Host) -> io::Result<(String, bool)> {
    let words = host.program("containerd");
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .args(["config", "dump"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut text = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(MAX_DUMP).read_to_end(&mut text).await?;
    }
    let status = child.wait().await?;
    Ok((String::from_utf8_lossy(&text).into_owned(), status.success()))
}

fn kept(host: &Host, start: Start) -> Option<Config> {
    let mut text = Vec::new();
    let file = fs::File::open(host.path(RUN).join(KEPT)).ok()?;
    file.take(MAX_KEPT).read_to_end(&mut text).ok()?;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    (kept.start == start.to_string()).then_some(kept.config)
}

fn keep(host: &Host, start: Start, config: &Config) -> io::Result<()> {
    let kept = Kept {
        start: start.to_string(),
        config: config.clone(),
    };
    write(&host.path(RUN), KEPT, &serde_json::to_vec(&kept)?)
}

/// Writes a file of root's alone, of which others see all or nothing.
pub(super) fn write(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = folder.join(format!("{name}.{}", std::process::id()));
    let options = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new);
    let written = options
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&new, folder.join(name)));
    if written.is_err() {
        fs::remove_file(&new).ok();
    }
    written
}

#[cfg(test)]
mod tests;

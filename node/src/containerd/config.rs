//! What containerd is set to, by `containerd config dump`, kept for the next commands while the same containerd runs.

use std::{path::PathBuf, time::Instant};

use crate::{failure::Failure, host::Host};

/// The settings that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where containerd stores, a path of the host.
    pub root: PathBuf,
    /// The snapshotter that CRI unpacks into.
    pub snapshotter: String,
    /// The folder in which that one stores: its own for one outside containerd (`proxy_plugins.<name>.exports.root`), or that
    /// of a plugin with a `root_path`; else below `root`.
    pub snapshotter_root: PathBuf,
    /// Whether that one runs outside containerd.
    pub is_outside: bool,
    /// The folders with settings of registries (`config_path`, one or several), paths of the host.
    pub hosts_folders: Vec<PathBuf>,
    /// Whether layers go once they are unpacked.
    pub discards_layers: bool,
    /// Runtime handlers with a snapshotter other than CRI's own: name, snapshotter.
    pub other_snapshotters: Vec<(String, String)>,
    /// Whether CRI is switched off, as where kubelet uses Docker.
    pub is_cri_disabled: bool,
}

impl Config {
    /// Reads what `containerd config dump` prints; what cannot be read has containerd's defaults.
    #[must_use]
    pub fn parse(dump: &str) -> Self {
        todo!()
    }

    /// Gives the settings of the containerd that runs: kept by an earlier command where the socket is the same, else asked.
    ///
    /// # Errors
    /// `interrupted` where the containerd's own program cannot be asked in time.
    pub async fn of(host: &Host, deadline: Instant) -> Result<Self, Failure> {
        todo!()
    }
}

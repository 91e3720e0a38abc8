//! Kubelet's own settings, as far as they decide what becomes of an image.

use std::path::PathBuf;

use crate::host::Host;

/// When kubelet removes images; what it is not told has kubelet's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `imageGCHighThresholdPercent`, by default 85: images go once the disk is at or above it. 100 switches it off.
    pub image_gc_high_threshold_percent: u8,
    /// `evictionHard` and `evictionSoft`, `imagefs.available` and `nodefs.available`, whichever comes first; by default 15 % and 10 %.
    pub image_fs_available: Threshold,
    /// The same of `nodefs.available`, which counts where images lie on the node's own file system.
    pub node_fs_available: Threshold,
    /// `imagefs.inodesFree`, by default 5 %.
    pub image_fs_inodes_free: Threshold,
    /// Whether `imageMaximumGCAge` is set: unused images go by age, however free the disk is.
    pub has_maximum_age: bool,
    /// `imageServiceEndpoint`, a path of the host: where kubelet asks for images, where that is not containerd's socket.
    pub image_service: Option<PathBuf>,
}

/// How little may be left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// A percentage of all.
    Percent(f64),
    /// So many bytes, or inodes.
    Quantity(u64),
}

impl Settings {
    /// Reads kubelet's configuration where kubelet does: `config.json` or `config` (YAML or JSON), then `config.json.d` in
    /// the order of names. What cannot be read is left out and told.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        todo!()
    }
}

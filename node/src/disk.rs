//! Whether there is room for an image, counted as kubelet counts.

use std::path::Path;

use crate::kubelet::Settings;

/// What a file system has, in bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All bytes.
    pub capacity: u64,
    /// Bytes that are free for others than root.
    pub available: u64,
    /// All inodes; 0 where the file system does not count them.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
}

/// What an image takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes, compressed and unpacked.
    pub bytes: u64,
    /// Inodes, as far as anybody can tell before it is unpacked.
    pub inodes: u64,
}

/// The limits below which a node stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Strictly below so many percent used, as kubelet rounds: `100 - floor(available * 100 / capacity)`.
    pub percent: u8,
    /// Kubelet's own.
    pub kubelet: Settings,
}

impl Usage {
    /// Reads the file system on which a folder lies.
    ///
    /// # Errors
    /// The operating system's.
    pub fn of(folder: &Path) -> std::io::Result<Self> {
        todo!()
    }
}

impl Limits {
    /// Tells why so much more does not fit, in words for people; none where it does. `pinned` are bytes that kubelet can never
    /// get back.
    #[must_use]
    pub fn refusal(&self, usage: Usage, need: Need, pinned: u64) -> Option<String> {
        todo!()
    }
}

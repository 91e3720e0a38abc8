//! File systems: the bytes and inodes that they have, and what something takes of them.

use std::{io, os::unix::fs::MetadataExt, path::Path};

/// Bytes for each inode that an image is taken to need: what ext4 makes an inode for (mke2fs.conf, `inode_ratio`). An image of
/// smaller files than that is known only while it is unpacked.
const BYTES_PER_INODE: u64 = 16 << 10;

/// Counts the bytes and inodes of a file system; nothing where that cannot be told.
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
    /// The device's number, by which it is told from others.
    pub device: u64,
}

/// Counts the bytes and inodes that something takes on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes.
    pub bytes: u64,
    /// Inodes, as far as anybody can tell before it is unpacked.
    pub inodes: u64,
}

impl Usage {
    /// Reads the file system on which a folder lies, or will lie where it is not there yet.
    ///
    /// # Errors
    /// The operating system's.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let folder = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
        let found = rustix::fs::statvfs(folder)?;
        Ok(Self {
            capacity: found.f_blocks.saturating_mul(found.f_frsize),
            available: found.f_bavail.saturating_mul(found.f_frsize),
            inodes: found.f_files,
            free_inodes: found.f_ffree,
            device: folder.metadata()?.dev(),
        })
    }

    /// Returns the percentage that is used, as kubelet rounds it; none where the capacity is unknown.
    #[must_use]
    pub fn percent(self) -> Option<u8> {
        let available = u128::from(self.available.min(self.capacity));
        let free = (available * 100).checked_div(u128::from(self.capacity))?;
        Some(100_u8.saturating_sub(u8::try_from(free).unwrap_or(100)))
    }

    /// Gives back what something takes, as far as it takes anything yet.
    #[must_use]
    pub fn without(self, need: Need) -> Self {
        Self {
            available: self.available.saturating_add(need.bytes).min(self.capacity),
            free_inodes: self.free_inodes.saturating_add(need.inodes).min(self.inodes),
            ..self
        }
    }

    /// Takes off what something is going to take.
    #[must_use]
    pub fn after(self, need: Need) -> Self {
        Self {
            available: self.available.saturating_sub(need.bytes),
            free_inodes: self.free_inodes.saturating_sub(need.inodes),
            ..self
        }
    }
}

impl Need {
    /// Takes what is unpacked to so many bytes.
    #[must_use]
    pub fn unpacked(bytes: u64) -> Self {
        Self {
            bytes,
            inodes: bytes / BYTES_PER_INODE,
        }
    }

    /// Adds what something else takes.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

//! Whether there is room for an image, counted as kubelet counts.

use std::{io, os::unix::fs::MetadataExt, path::Path};

use crate::kubelet::{Settings, Threshold};

pub mod pinned;

/// Bytes for each inode that an image is taken to need: what ext4 makes an inode for (mke2fs.conf, `inode_ratio`). An image of
/// smaller files than that is known only while it is unpacked.
const BYTES_PER_INODE: u64 = 16 << 10;

/// What a file system has, in bytes and inodes; nothing where that cannot be told.
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

/// What something takes on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes.
    pub bytes: u64,
    /// Inodes, as far as anybody can tell before it is unpacked.
    pub inodes: u64,
}

/// The limits below which a node stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Strictly below so many percent used, as kubelet rounds: `100 - floor(available * 100 / capacity)`. 100 is no limit.
    pub percent: u8,
    /// Kubelet's own.
    pub kubelet: Settings,
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

    fn after(self, need: Need) -> Self {
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

impl Limits {
    /// Tells why so much more does not fit on a file system, in words for people; none where it does. `pinned` are the bytes of
    /// images there that kubelet can never get back, with those that are to be pinned.
    #[must_use]
    pub fn refusal(&self, usage: Usage, need: Need, pinned: u64) -> Option<String> {
        let used = usage.capacity.saturating_sub(usage.available);
        let limit = self
            .refusal_by_bytes(usage, need)
            .or_else(|| self.refusal_by_pins(usage, pinned));
        let refusal = limit.map(|limit| {
            let pinned = match pinned {
                0 => String::new(),
                pinned => format!(", {pinned} of them by pinned images, which never come back"),
            };
            match need.bytes {
                0 => format!("{used} of {} bytes are used{pinned}; {limit}", usage.capacity),
                bytes => format!(
                    "it needs {bytes} bytes, and {used} of {} are used{pinned}; {limit}",
                    usage.capacity
                ),
            }
        });
        refusal.or_else(|| self.refusal_by_inodes(usage, need))
    }

    fn refusal_by_bytes(&self, usage: Usage, need: Need) -> Option<String> {
        let after = usage.after(need);
        let percent = after.percent()?;
        let threshold = self.percent.min(self.kubelet.image_gc_high_threshold_percent);
        if threshold < 100 && percent >= threshold {
            return Some(format!("the threshold is {threshold} %"));
        }
        let kubelet = &self.kubelet;
        let evictions = [
            ("imagefs.available", kubelet.image_fs_available, true),
            ("nodefs.available", kubelet.node_fs_available, self.is_nodes_own(usage)),
        ];
        for (signal, threshold, counts) in evictions {
            let left = threshold.of(usage.capacity);
            if counts && after.available < left {
                return Some(format!("kubelet evicts pods below {left} bytes ({signal})"));
            }
        }
        (need.bytes > usage.available).then(|| "that is more than there is".to_owned())
    }

    fn is_nodes_own(&self, usage: Usage) -> bool {
        self.kubelet.node_fs == Some(usage.device)
    }

    /// Refuses where pinned images alone come to what kubelet's collection goes down to: from then on it would fail for good.
    fn refusal_by_pins(&self, usage: Usage, pinned: u64) -> Option<String> {
        let low = self.kubelet.image_gc_low_threshold_percent;
        let collects = self.kubelet.image_gc_high_threshold_percent < 100;
        let is_too_much = u128::from(pinned) * 100 >= u128::from(usage.capacity) * u128::from(low);
        (pinned > 0 && usage.capacity > 0 && collects && is_too_much)
            .then(|| format!("kubelet's garbage collection goes down to {low} %, and would never get there"))
    }

    fn refusal_by_inodes(&self, usage: Usage, need: Need) -> Option<String> {
        let kubelet = &self.kubelet;
        let node = if self.is_nodes_own(usage) {
            kubelet.node_fs_inodes_free
        } else {
            Threshold::default()
        };
        let left = kubelet.image_fs_inodes_free.stricter(node).of(usage.inodes);
        let after = usage.after(need);
        let is_short = usage.inodes > 0 && (after.free_inodes < left || need.inodes > usage.free_inodes);
        is_short.then(|| {
            let (free, all) = (usage.free_inodes, usage.inodes);
            format!(
                "{free} of {all} inodes are free, and it may need {}; kubelet evicts pods below {left}",
                need.inodes
            )
        })
    }
}

#[cfg(test)]
mod tests;

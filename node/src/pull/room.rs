//! Room for images on the file systems that they fill, shared among those that are pulled beside each other.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use prefetch::manifest::{Configuration, Content, chain_ids, missing_bytes};
use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    containerd::{config::Config, inventory::Inventory},
    disk::{Limits, Need, Usage},
    host::Host,
};

/// What containerd needs in order to clean up on a full disk, in bytes.
const BALLAST: u64 = 4 << 20;
/// Where less than so much is going to be left, that much is held back.
const LITTLE: u64 = 16 * BALLAST;

/// What a file system has of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What is downloaded, and what is unpacked.
    All,
    /// What is downloaded.
    Compressed,
    /// What is unpacked.
    Unpacked,
}

/// What an image takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Downloaded.
    pub compressed: u64,
    /// Unpacked.
    pub unpacked: u64,
}

/// Whether an image may be pulled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may, and its room is reserved.
    Reserved,
    /// It may once others are done that are pulled beside it.
    Wait,
    /// It may not, for this reason.
    Refused(String),
}

/// The file systems that images fill, and what of them is reserved.
#[derive(Debug)]
pub struct Room {
    stores: Vec<(PathBuf, Part)>,
    limits: Limits,
    /// Bytes that kubelet can never get back.
    pinned: Cell<u64>,
    /// Whether what is pulled is to be pinned as well.
    pins: bool,
    reserved: RefCell<HashMap<usize, Size>>,
}

impl Size {
    /// Returns what a whole image takes.
    #[must_use]
    pub fn of(content: &Content) -> Self {
        let compressed = content.bytes();
        Self {
            compressed,
            unpacked: content.bytes_with_unpacked().saturating_sub(compressed),
        }
    }

    /// Returns what an image takes where containerd holds some of its layers: nothing of those that are unpacked, the
    /// unpacked bytes alone of those that are downloaded.
    #[must_use]
    pub fn missing(content: &Content, configuration: Option<&Configuration>, inventory: &Inventory) -> Self {
        let chains = configuration.map_or_else(Vec::new, |configuration| chain_ids(&configuration.diff_ids));
        let has_snapshot = |chain: &str| inventory.snapshots.contains_key(chain);
        let has_blob = |digest: &str| inventory.blobs.contains_key(digest);
        let unpacked = missing_bytes(content, &chains, has_snapshot, |_| true);
        let all = missing_bytes(content, &chains, has_snapshot, has_blob);
        Self {
            compressed: all.saturating_sub(unpacked),
            unpacked,
        }
    }

    /// Returns what an image takes that is unpacked into so many snapshotters.
    #[must_use]
    pub fn unpacked_times(self, times: u64) -> Self {
        Self {
            unpacked: self.unpacked.saturating_mul(times),
            ..self
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            compressed: self.compressed.saturating_add(other.compressed),
            unpacked: self.unpacked.saturating_add(other.unpacked),
        }
    }

    fn on(self, part: Part) -> Need {
        let compressed = Need {
            bytes: self.compressed,
            inodes: 0,
        };
        match part {
            Part::All => compressed.and(Need::unpacked(self.unpacked)),
            Part::Compressed => compressed,
            Part::Unpacked => Need::unpacked(self.unpacked),
        }
    }
}

impl Room {
    /// Finds the file systems: containerd's own and, where that is another, the snapshotter's. A snapshotter outside containerd
    /// may download by itself.
    #[must_use]
    pub fn on(host: &Host, config: &Config, limits: Limits, pinned: u64, pins: bool) -> Self {
        let (root, snapshots) = (host.path(&config.root), host.path(&config.snapshotter_root));
        let device = |folder: &Path| Usage::of(folder).ok().map(|usage| usage.device);
        let is_same = device(&root) == device(&snapshots);
        let stores = match (is_same, config.runs_outside(&config.snapshotter)) {
            (true, _) => vec![(root, Part::All)],
            (false, true) => vec![(root, Part::Compressed), (snapshots, Part::All)],
            (false, false) => vec![(root, Part::Compressed), (snapshots, Part::Unpacked)],
        };
        Self {
            stores,
            limits,
            pinned: Cell::new(pinned),
            pins,
            reserved: RefCell::default(),
        }
    }

    /// Reserves room for an image, beside what others have reserved; some of that they may have taken already.
    pub fn reserve(&self, number: usize, size: Size) -> Answer {
        let others = self.reserved_by_others(number);
        let Some(refusal) = self.refusal(size.plus(others), Size::default()) else {
            self.reserved.borrow_mut().insert(number, size);
            return Answer::Reserved;
        };
        match self.refusal(size, others) {
            None if others != Size::default() => Answer::Wait,
            alone => Answer::Refused(alone.unwrap_or(refusal)),
        }
    }

    /// Gives an image's room back.
    pub fn release(&self, number: usize) {
        self.reserved.borrow_mut().remove(&number);
    }

    /// Gives back the room of an image that has come: where it is to be pinned, it counts among those that never go.
    pub fn settle(&self, number: usize) {
        let come = self.reserved.borrow_mut().remove(&number).unwrap_or_default();
        if self.pins {
            self.pinned.set(self.pinned.get().saturating_add(come.unpacked));
        }
    }

    /// Tells why a pull cannot go on: others have filled a disk up to a limit.
    #[must_use]
    pub fn is_full(&self) -> Option<String> {
        self.refusal(Size::default(), Size::default())
    }

    /// Holds back some room for a containerd that is going to have little: without any it cannot even remove what filled the
    /// disk. The file has no name: it goes with whoever holds it.
    #[must_use]
    pub fn ballast(&self, size: Size) -> Option<File> {
        let (root, _) = self.stores.first()?;
        let usage = Usage::of(root).ok()?;
        let left = usage
            .available
            .saturating_sub(size.compressed.saturating_add(size.unpacked));
        if left > LITTLE {
            return None;
        }
        let path = root.join(format!("prefetch-images.{}", std::process::id()));
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .ok()?;
        std::fs::remove_file(&path).ok()?;
        fallocate(&file, FallocateFlags::empty(), 0, BALLAST).ok()?;
        Some(file)
    }

    fn reserved_by_others(&self, number: usize) -> Size {
        let reserved = self.reserved.borrow();
        let others = reserved.iter().filter(|(other, _)| **other != number);
        others.fold(Size::default(), |sum, (_, size)| sum.plus(*size))
    }

    /// Tells why so much more does not fit once others have gone; none where it does, or where a disk cannot be read.
    fn refusal(&self, size: Size, others: Size) -> Option<String> {
        self.stores.iter().find_map(|(folder, part)| {
            let usage = Usage::of(folder).ok()?.without(others.on(*part));
            let need = size.on(*part);
            let pinned = match part {
                Part::Compressed => 0,
                Part::All | Part::Unpacked if self.pins => self.pinned.get().saturating_add(need.bytes),
                Part::All | Part::Unpacked => self.pinned.get(),
            };
            self.limits.refusal(usage, need, pinned)
        })
    }
}

#[cfg(test)]
mod tests {
    use prefetch::manifest::Layer;

    use super::*;
    use crate::containerd::content::Blob;

    #[test]
    fn layers_that_are_here_take_no_room() {
        let layer = |digest: &str| Layer {
            digest: digest.to_owned(),
            bytes: 100,
            unpacked: 200,
            ..Layer::default()
        };
        let content = Content {
            layers: vec![layer("a"), layer("b")],
            ..Content::default()
        };
        let whole = Size {
            compressed: 200,
            unpacked: 400,
        };
        assert_eq!(Size::of(&content), whole);
        let mut inventory = Inventory::default();
        assert_eq!(Size::missing(&content, None, &inventory), whole);
        inventory.blobs.insert("a".to_owned(), Blob::default());
        let compressed = 100;
        assert_eq!(Size::missing(&content, None, &inventory), Size { compressed, ..whole });
    }
}

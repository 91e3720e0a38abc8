//! Room for images on the file systems that they fill, shared among those that are pulled beside each other.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};

use super::{limits::Limits, size::Size};
use crate::{
    containerd::config::Config,
    file_system::{Need, Usage},
    host::Host,
};

/// Bounds what containerd needs in order to clean up on a full disk, in bytes.
const BALLAST: u64 = 4 << 20;
/// Bounds the room below which the ballast is held back.
const LITTLE: u64 = 16 * BALLAST;

/// Tells which part of an image a file system takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// Blobs and unpacked layers.
    All,
    /// Blobs.
    Compressed,
    /// Unpacked layers.
    Unpacked,
}

/// Tells if an image may be pulled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
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
    stores: Vec<(PathBuf, Share)>,
    limits: Limits,
    /// Bytes that kubelet can never get back.
    pinned: Cell<u64>,
    /// True where images are pinned once they are pulled.
    pins: bool,
    reserved: RefCell<HashMap<usize, Size>>,
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
            (true, _) => vec![(root, Share::All)],
            (false, true) => vec![(root, Share::Compressed), (snapshots, Share::All)],
            (false, false) => vec![(root, Share::Compressed), (snapshots, Share::Unpacked)],
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
    pub fn reserve(&self, number: usize, size: Size) -> Reservation {
        let others = self.reserved_by_others(number);
        let Some(refusal) = self.refusal(size.plus(others), Size::default()) else {
            self.reserved.borrow_mut().insert(number, size);
            return Reservation::Reserved;
        };
        match self.refusal(size, others) {
            None if others != Size::default() => Reservation::Wait,
            alone => Reservation::Refused(alone.unwrap_or(refusal)),
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
        self.stores.iter().find_map(|(folder, share)| {
            let usage = Usage::of(folder).ok()?.without(need(others, *share));
            let need = need(size, *share);
            let pinned = match share {
                Share::Compressed => 0,
                Share::All | Share::Unpacked if self.pins => self.pinned.get().saturating_add(need.bytes),
                Share::All | Share::Unpacked => self.pinned.get(),
            };
            self.limits.refusal(usage, need, pinned)
        })
    }
}

/// Returns what an image takes of a file system that has this share of it.
fn need(size: Size, share: Share) -> Need {
    let compressed = Need {
        bytes: size.compressed,
        inodes: 0,
    };
    match share {
        Share::All => compressed.and(Need::unpacked(size.unpacked)),
        Share::Compressed => compressed,
        Share::Unpacked => Need::unpacked(size.unpacked),
    }
}

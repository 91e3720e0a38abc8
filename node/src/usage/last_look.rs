//! The record of the node's last look: up to which container it has counted what pods found.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::host::{Host, RUN};

/// Names the file, in the folder that a boot empties.
const FILE: &str = "usage";

/// The record, for one look at a time.
#[derive(Debug)]
pub struct LastLook {
    file: File,
    newest: Option<i64>,
}

impl LastLook {
    /// Opens the record; none while another look has it open.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(host: &Host) -> io::Result<Option<Self>> {
        let folder = host.path(RUN);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(folder.join(FILE))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self {
                file,
                newest: Self::read(host),
            })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the record: when the newest container was made, in nanoseconds since 1970; none before the first look.
    #[must_use]
    pub fn read(host: &Host) -> Option<i64> {
        host.read(Path::new(RUN).join(FILE))?.trim().parse().ok()
    }

    /// Returns when the newest container was made that the last look has seen.
    #[must_use]
    pub const fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// Notes another, in one write of always the same length.
    ///
    /// # Errors
    /// The operating system's.
    pub fn note(&mut self, newest: i64) -> io::Result<()> {
        if self.newest != Some(newest) {
            self.file.write_all_at(format!("{newest:020}\n").as_bytes(), 0)?;
            self.newest = Some(newest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Folder;

    #[test]
    fn what_a_look_notes_is_read_by_the_next_and_two_are_never_at_it() {
        let folder = Folder::new();
        let host = folder.host();
        assert_eq!(LastLook::read(&host), None);
        let mut first = LastLook::open(&host).unwrap().unwrap();
        assert!(LastLook::open(&host).unwrap().is_none());
        assert_eq!(first.newest(), None);
        for newest in [1_764_527_000_000_000_001, 7] {
            first.note(newest).unwrap();
            assert_eq!(LastLook::read(&host), Some(newest));
        }
        drop(first);
        assert_eq!(LastLook::open(&host).unwrap().unwrap().newest(), Some(7));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_none() {
        let folder = Folder::new().with("run/prefetch-images/usage", "yesterday\n");
        assert_eq!(LastLook::open(&folder.host()).unwrap().unwrap().newest(), None);
    }
}

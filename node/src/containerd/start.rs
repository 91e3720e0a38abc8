//! The start of the containerd that runs: it made the socket that is there.

use std::{fmt, fs, os::unix::fs::MetadataExt};

use chrono::{DateTime, Utc};

use super::client::SOCKET;
use crate::host::Host;

/// Names the folders of containerd's program.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/bin"];

/// Refuses a node without a containerd, or anybody who listens as it does.
///
/// # Errors
/// That there is none.
pub fn refuse_missing(host: &Host) -> Result<(), String> {
    let mut folders = PROGRAM_FOLDERS.iter().map(|folder| host.path(folder));
    if folders.any(|folder| folder.join("containerd").exists()) || host.path(SOCKET).exists() {
        Ok(())
    } else {
        Err("there is no containerd on this node; it cannot be prefetched to".to_owned())
    }
}

/// One start of containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Start {
    /// Returns the start of the containerd that runs; none where there is no socket.
    #[must_use]
    pub fn of(host: &Host) -> Option<Self> {
        let socket = fs::metadata(host.path(SOCKET)).ok()?;
        Some(Self {
            inode: socket.ino(),
            seconds: socket.mtime(),
            nanoseconds: socket.mtime_nsec(),
        })
    }

    /// Returns when that was.
    #[must_use]
    pub fn moment(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.seconds, u32::try_from(self.nanoseconds).ok()?)
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{:09}", self.inode, self.seconds, self.nanoseconds)
    }
}

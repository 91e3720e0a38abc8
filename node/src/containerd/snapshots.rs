//! containerd's Snapshots service: unpacked layers, and what containers stand on.

use tonic::Status;

use super::Containerd;

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An unpacked layer.
    Committed,
    /// Written to: by a container, or by an unpacking (its key begins with `extract-`).
    Active,
    /// Read only.
    View,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// A committed one is named by its chain, `sha256:…`.
    pub key: String,
    /// The one below it, or nothing.
    pub parent: String,
    /// What it is.
    pub kind: Kind,
}

impl Containerd {
    /// Lists the snapshots of a snapshotter; fails with `InvalidArgument`, `NotFound` or `Unavailable` where it does not run
    /// (see `is_missing`).
    pub async fn snapshots(&self, snapshotter: &str) -> Result<Vec<Snapshot>, Status> {
        todo!()
    }

    /// Makes an empty one, for its removal makes a snapshotter clean up.
    pub async fn prepare_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), Status> {
        todo!()
    }

    /// Removes one; one that is not there is no failure.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), Status> {
        todo!()
    }
}

//! The record of a sweep: what was removed, what stays, and what could not be removed.

use prefetch::bake::Architecture;
use serde::Serialize;
use tracing::{error, info};

use crate::snapshot::Snapshot;

/// Records what was removed, and what stays.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// The builders that were terminated.
    pub terminated: Vec<String>,
    /// The snapshots that were deleted.
    pub deleted: Vec<String>,
    /// The snapshots that stay, of those that there was reason to look at.
    pub kept: Vec<Kept>,
    /// The snapshots that are no longer restored fast.
    pub fast_restore_disabled: Vec<String>,
    /// Each thing that could not be removed, and why.
    #[serde(skip)]
    pub failures: Vec<String>,
}

/// A snapshot that stays.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    snapshot_id: String,
    architecture: Option<Architecture>,
    because: String,
}

impl Swept {
    /// Notes that something could not be removed.
    pub fn fail(&mut self, id: &str, why: &str) {
        error!(resource.id = id, "{id} is left: {why}");
        self.failures.push(format!("{id}: {why}"));
    }

    /// Notes that a snapshot stays.
    pub fn keep(&mut self, snapshot: &Snapshot, because: impl Into<String>) {
        let because = because.into();
        info!(snapshot.id = snapshot.id, "snapshot {} stays: {because}", snapshot.id);
        self.kept.push(Kept {
            snapshot_id: snapshot.id.clone(),
            architecture: snapshot.architecture,
            because,
        });
    }
}

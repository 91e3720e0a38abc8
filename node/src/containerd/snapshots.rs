//! containerd's Snapshots service: unpacked layers, and what containers stand on (api/services/snapshots/v1/snapshots.proto).

use std::collections::BTreeMap;

use tonic::{Code, Status};

use super::client::{Containerd, Nothing, unless_gone};

/// Tells unpacked layers from what containers write to or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
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
    /// Its kind.
    pub kind: SnapshotKind,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    info: Vec<Info>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Info {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    parent: String,
    #[prost(int32, tag = "3")]
    kind: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UsageRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct UsageResponse {
    #[prost(int64, tag = "1")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PrepareRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RemoveRequest {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
}

impl Containerd {
    /// Lists the snapshots of a snapshotter.
    ///
    /// # Errors
    /// containerd's; see [`is_missing`].
    pub async fn snapshots(&self, snapshotter: &str) -> Result<Vec<Snapshot>, Status> {
        let snapshotter = snapshotter.to_owned();
        let parts: Vec<ListResponse> = self
            .list(
                "/containerd.services.snapshots.v1.Snapshots/List",
                ListRequest { snapshotter },
            )
            .await?;
        Ok(parts.into_iter().flat_map(|part| part.info).map(snapshot).collect())
    }

    /// Returns the bytes that one takes, without those below it; of a committed one containerd remembers them.
    ///
    /// # Errors
    /// containerd's.
    pub async fn snapshot_bytes(&self, snapshotter: &str, key: &str) -> Result<u64, Status> {
        let request = UsageRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        };
        let answer: UsageResponse = self
            .ask("/containerd.services.snapshots.v1.Snapshots/Usage", request)
            .await?;
        Ok(u64::try_from(answer.size).unwrap_or(0))
    }

    /// Makes an empty one, for its removal makes a snapshotter clean up. Garbage collection takes it where it stays behind.
    ///
    /// # Errors
    /// containerd's.
    pub async fn prepare_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), Status> {
        let request = PrepareRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            labels: BTreeMap::new(),
        };
        self.ask("/containerd.services.snapshots.v1.Snapshots/Prepare", request)
            .await
            .map(|Nothing {}| ())
    }

    /// Removes one; one that is not there is no failure.
    ///
    /// # Errors
    /// containerd's.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), Status> {
        let request = RemoveRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        };
        unless_gone(
            self.ask("/containerd.services.snapshots.v1.Snapshots/Remove", request)
                .await,
        )
    }
}

/// Returns true where a list of snapshots failed because the snapshotter does not run: containerd does not know it, or says
/// itself that it does not reach it. Up to 2.1 it passes that on without a code of its own, and Go's words alone tell.
#[must_use]
pub fn is_missing(status: &Status) -> bool {
    let is_of_containerd = std::error::Error::source(status).is_none();
    match status.code() {
        Code::InvalidArgument | Code::NotFound => true,
        Code::Unavailable => is_of_containerd,
        Code::Unknown => is_of_containerd && status.message().contains("dial unix"),
        _ => false,
    }
}

fn snapshot(info: Info) -> Snapshot {
    Snapshot {
        key: info.name,
        parent: info.parent,
        kind: match info.kind {
            1 => SnapshotKind::View,
            2 => SnapshotKind::Active,
            _ => SnapshotKind::Committed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshotter_is_missing_where_containerd_says_so() {
        let dial =
            "connection error: desc = \"transport: Error while dialing: dial unix /run/soci.sock: connect: refused\"";
        for status in [
            Status::invalid_argument("snapshotter not loaded: soci: invalid argument"),
            Status::unavailable(dial),
            Status::unknown(dial),
        ] {
            assert!(is_missing(&status), "{status:?}");
        }
    }

    #[test]
    fn a_containerd_that_does_not_answer_says_nothing_of_its_snapshotter() {
        let gone = Status::from_error(Box::new(tonic::ConnectError(Box::from("connection refused"))));
        assert_eq!(gone.code(), Code::Unavailable);
        for status in [
            gone,
            Status::deadline_exceeded(""),
            Status::unknown("bucket does not exist: not found"),
        ] {
            assert!(!is_missing(&status), "{status:?}");
        }
    }
}

//! containerd's Content service: blobs, and what is being written of them.

use std::collections::{BTreeMap, HashMap};

use tonic::Status;

use super::Containerd;

/// A blob that containerd holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob {
    /// In bytes.
    pub size: u64,
    /// Its labels: garbage collection follows those of them that begin with `containerd.io/gc.ref`.
    pub labels: BTreeMap<String, String>,
}

/// A blob that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    /// The writer's own word for it, which ends with `-sha256:…` for a layer.
    pub reference: String,
    /// Bytes that are there.
    pub offset: u64,
    /// Bytes that are expected; 0 where nobody knows.
    pub total: u64,
}

impl Containerd {
    /// Lists all blobs by digest.
    pub async fn blobs(&self) -> Result<HashMap<String, Blob>, Status> {
        todo!()
    }

    /// Reads a blob of at most so many bytes; fails with `OutOfRange` for a longer one.
    pub async fn read_blob(&self, digest: &str, at_most: usize) -> Result<Vec<u8>, Status> {
        todo!()
    }

    /// Lists what is being written.
    pub async fn ingests(&self) -> Result<Vec<Ingest>, Status> {
        todo!()
    }
}

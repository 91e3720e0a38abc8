//! containerd's Images service: names, what they stand for, and their labels.

use std::collections::BTreeMap;

use tonic::Status;

use super::Containerd;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The media type that containerd was given with it: it may be wrong, even `text/html`.
    pub media_type: String,
    /// `sha256:…`
    pub digest: String,
    /// In bytes.
    pub size: i64,
}

/// A name in containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `registry/repository:tag`, `registry/repository@sha256:…`, or `sha256:…` by which CRI alone knows the image.
    pub name: String,
    /// What it stands for.
    pub target: Descriptor,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Containerd {
    /// Lists names that match any of the filters (containerd's syntax), all for none.
    pub async fn names(&self, filters: &[String]) -> Result<Vec<Name>, Status> {
        todo!()
    }

    /// Makes a name; fails with `AlreadyExists` where there is one.
    pub async fn create_name(&self, name: &Name) -> Result<(), Status> {
        todo!()
    }

    /// Sets labels of a name, or removes those with an empty value, and nothing else of it; `target` has to be what it stands
    /// for, for containerd panics without one (2.1.9).
    pub async fn label_name(&self, name: &Name, labels: &BTreeMap<String, String>) -> Result<(), Status> {
        todo!()
    }

    /// Makes a name stand for another target, with these labels.
    pub async fn move_name(&self, name: &Name) -> Result<(), Status> {
        todo!()
    }

    /// Removes a name; with `sync` what it alone held is gone afterwards. A name that is not there is no failure.
    pub async fn remove_name(&self, name: &str, sync: bool) -> Result<(), Status> {
        todo!()
    }
}

//! What containerd holds, seen at one moment: which images are there, completely, and under which names.

use std::collections::{HashMap, HashSet};

use prefetch::image::Image;

use super::{Containerd, content::Blob, images::Name, snapshots::Snapshot};
use crate::failure::Failure;

/// Names, blobs and snapshots at one moment.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// All names by name.
    pub names: HashMap<String, Name>,
    /// All blobs by digest.
    pub blobs: HashMap<String, Blob>,
    /// The snapshots of the snapshotter, by key.
    pub snapshots: HashMap<String, Snapshot>,
    /// The snapshotter that was asked.
    pub snapshotter: String,
    /// Whether the snapshotter does not run.
    pub is_snapshotter_missing: bool,
}

impl Inventory {
    /// Asks for names, blobs and snapshots at once.
    ///
    /// # Errors
    /// `interrupted` where containerd does not answer.
    pub async fn look(containerd: &Containerd, snapshotter: &str) -> Result<Self, Failure> {
        todo!()
    }

    /// Tells whether an image's content is there and unpacked under any right name, whichever names it has.
    ///
    /// A name is right where it stands for the image's digest with the media type of a manifest or an index: a mirror's page
    /// of HTML makes a name that CRI does not find.
    #[must_use]
    pub fn has_content(&self, image: &Image) -> bool {
        todo!()
    }

    /// Tells whether kubelet finds the image by its digest and, where it has one, by its tag.
    #[must_use]
    pub fn is_complete(&self, image: &Image) -> bool {
        todo!()
    }

    /// Returns the topmost snapshots of an image, one for each platform that is here, by the labels that lead from the
    /// manifest to its configuration and from that to the snapshot.
    #[must_use]
    pub fn chains(&self, digest: &str) -> Vec<String> {
        todo!()
    }

    /// Returns the snapshots that a container, or a person's view, stands on.
    #[must_use]
    pub fn used_snapshots(&self) -> HashSet<&str> {
        todo!()
    }
}

//! An inventory of containerd at one moment: its names, blobs and snapshots, and which images are complete.

use std::collections::{HashMap, HashSet};

use prefetch::image::Image;
use tonic::Status;

use super::{
    client::Containerd,
    content::Blob,
    cri::CriImage,
    images::Name,
    snapshots::{Snapshot, SnapshotKind, is_missing},
};
use crate::failure::Failure;

/// Names the labels by which garbage collection gets from an index to its manifests, and from a manifest to its configuration
/// (containerd, docs/garbage-collection.md); `m.` stands before the number of a manifest since containerd 1.3.
const CONTENT: &str = "containerd.io/gc.ref.content.";
/// Names the label by which it gets from a configuration to the topmost snapshot; the snapshotter follows.
const SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
/// Begins the key of a snapshot that is being unpacked into.
const UNPACKING: &str = "extract-";

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
    /// True where the snapshotter does not run.
    pub is_snapshotter_missing: bool,
}

impl Inventory {
    /// Asks for names, blobs and snapshots at once.
    ///
    /// # Errors
    /// `interrupted` where containerd does not answer.
    pub async fn look(containerd: &Containerd, snapshotter: &str) -> Result<Self, Failure> {
        let (names, blobs, snapshots) = tokio::join!(
            containerd.names(&[]),
            containerd.blobs(),
            containerd.snapshots(snapshotter)
        );
        let is_snapshotter_missing = snapshots.as_ref().is_err_and(is_missing);
        let snapshots = match snapshots {
            Err(_) if is_snapshotter_missing => Vec::new(),
            answer => answer.map_err(|status| unanswered(&status))?,
        };
        let names = names.map_err(|status| unanswered(&status))?;
        Ok(Self {
            names: names.into_iter().map(|name| (name.name.clone(), name)).collect(),
            blobs: blobs.map_err(|status| unanswered(&status))?,
            snapshots: snapshots.into_iter().map(|it| (it.key.clone(), it)).collect(),
            snapshotter: snapshotter.to_owned(),
            is_snapshotter_missing,
        })
    }

    /// Asks for names and blobs alone: snapshots are what takes longest.
    ///
    /// # Errors
    /// `interrupted` where containerd does not answer.
    pub async fn look_at_names(containerd: &Containerd) -> Result<Self, Failure> {
        let (names, blobs) =
            tokio::try_join!(containerd.names(&[]), containerd.blobs()).map_err(|status| unanswered(&status))?;
        Ok(Self {
            names: names.into_iter().map(|name| (name.name.clone(), name)).collect(),
            blobs,
            ..Self::default()
        })
    }

    /// Tells whether a name is there and stands for a digest as kubelet finds it.
    #[must_use]
    pub fn is_right(&self, name: &str, digest: &str) -> bool {
        self.names.get(name).is_some_and(|name| name.is_right(digest))
    }

    /// Tells whether an image's content is there and unpacked, under the right name by digest or by tag.
    #[must_use]
    pub fn has_content(&self, image: &Image) -> bool {
        let names = [Some(image.name_by_digest()), image.name_by_tag()];
        names.iter().flatten().any(|name| self.is_right(name, image.digest())) && self.is_unpacked(image.digest())
    }

    /// Tells whether kubelet finds the image by its digest and, where it has one, by its tag.
    #[must_use]
    pub fn is_complete(&self, image: &Image) -> bool {
        let names = [Some(image.name_by_digest()), image.name_by_tag()];
        names.iter().flatten().all(|name| self.is_right(name, image.digest())) && self.is_unpacked(image.digest())
    }

    /// Tells whether a digest leads to an unpacked image, of any platform.
    #[must_use]
    pub fn is_unpacked(&self, digest: &str) -> bool {
        self.chains(digest).iter().any(|chain| {
            let snapshot = self.snapshots.get(chain);
            snapshot.is_some_and(|snapshot| snapshot.kind == SnapshotKind::Committed)
        })
    }

    /// Returns the topmost snapshots of an image, one for each platform that is here, by the labels that lead from the
    /// manifest to its configuration and from that to the snapshot.
    #[must_use]
    pub fn chains(&self, digest: &str) -> Vec<String> {
        let (mut chains, mut seen, mut left) = (Vec::new(), HashSet::new(), vec![digest]);
        while let Some(digest) = left.pop() {
            let Some(blob) = self.blobs.get(digest).filter(|_| seen.insert(digest)) else {
                continue;
            };
            match blob.labels.iter().find(|(label, _)| self.is_of_snapshot(label)) {
                Some((_, chain)) => chains.push(chain.clone()),
                None => left.extend(
                    blob.labels
                        .iter()
                        .rev()
                        .filter(|(label, _)| leads_on(label))
                        .map(|(_, digest)| digest.as_str()),
                ),
            }
        }
        chains
    }

    /// Returns the snapshots that a container, or a person's view, stands on.
    #[must_use]
    pub fn used_snapshots(&self) -> HashSet<&str> {
        self.snapshots
            .values()
            .filter(|snapshot| snapshot.kind != SnapshotKind::Committed && !snapshot.key.starts_with(UNPACKING))
            .map(|snapshot| snapshot.parent.as_str())
            .filter(|parent| !parent.is_empty())
            .collect()
    }

    fn is_of_snapshot(&self, label: &str) -> bool {
        let snapshotter = label.strip_prefix(SNAPSHOT).and_then(|rest| rest.split('/').next());
        snapshotter == Some(self.snapshotter.as_str())
    }
}

/// Tells whether a label leads to a manifest or a configuration: layers, `l.` before their numbers, lead nowhere.
fn leads_on(label: &str) -> bool {
    label.strip_prefix(CONTENT).is_some_and(|of| {
        let number = of.strip_prefix("m.").unwrap_or(of);
        of == "config" || (!number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    })
}

/// Tells whether kubelet finds an image now: by its digest and, where it has one, by its tag, and the same one.
///
/// CRI knows a name that others make some 0.3 s after it was made.
///
/// # Errors
/// `interrupted` where CRI does not answer.
pub async fn confirm(containerd: &Containerd, image: &Image) -> Result<bool, Failure> {
    let (by_digest, by_tag) = (image.name_by_digest(), image.name_by_tag());
    let by_tag = async {
        match &by_tag {
            Some(name) => containerd.image_status(name).await.map(Some),
            None => Ok(None),
        }
    };
    let (by_digest, by_tag) =
        tokio::try_join!(containerd.image_status(&by_digest), by_tag).map_err(|status| unanswered(&status))?;
    let is_same = |other: Option<_>| {
        other.is_some_and(|other: CriImage| by_digest.as_ref().is_some_and(|one| one.id == other.id))
    };
    Ok(by_digest.is_some() && by_tag.is_none_or(is_same))
}

/// Tells of each image whether kubelet finds it now: as [`confirm`] does, but of any number by one list.
///
/// # Errors
/// `interrupted` where CRI does not answer.
pub async fn confirm_all(containerd: &Containerd, images: &[&Image]) -> Result<Vec<bool>, Failure> {
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let found = containerd.cri_images().await.map_err(|status| unanswered(&status))?;
    let names: HashSet<_> = found.iter().flat_map(names_of).collect();
    Ok(images.iter().map(|image| is_among(&names, image)).collect())
}

/// Returns the names by which kubelet finds an image, each with the image's id.
fn names_of(image: &CriImage) -> impl Iterator<Item = (&str, &str)> {
    let names = image.tags.iter().chain(&image.digests);
    names.map(|name| (image.id.as_str(), name.as_str()))
}

fn is_among(names: &HashSet<(&str, &str)>, image: &Image) -> bool {
    let (by_digest, by_tag) = (image.name_by_digest(), image.name_by_tag());
    let mut ids = names.iter().filter(|(_, name)| *name == by_digest).map(|(id, _)| *id);
    ids.any(|id| by_tag.as_deref().is_none_or(|by_tag| names.contains(&(id, by_tag))))
}

/// Makes a failure of what containerd did not answer to.
#[must_use]
pub fn unanswered(status: &Status) -> Failure {
    let detail = format!("containerd does not answer: {}", status.message());
    Failure::new(prefetch::outcome::NodeReason::Interrupted, detail)
}

#[cfg(test)]
mod tests;

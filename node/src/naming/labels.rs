//! The labels of ours on names, and the names by which CRI alone knows an image.

use crate::containerd::images::Name;

/// Labels every name that a pull of ours made with the moment of the pull (RFC 3339, to the microsecond).
pub const PULLED_AT: &str = "prefetch-images/pulled-at";
/// Labels the manifest of an image of ours with the moment when a container of it was first seen; the blob keeps it, whoever
/// writes a name anew.
pub const USED: &str = "prefetch-images/used";
/// Spares an image from kubelet's garbage collection.
pub const PINNED: &str = "io.cri-containerd.pinned";
/// Labels a name by which CRI alone knows an image as pinned by us. The repository follows; the value is the digest.
pub const PINNED_FOR: &str = "prefetch-images/pinned-for/";

/// Tells whether a name is one by which CRI alone knows an image: its configuration's digest.
#[must_use]
pub fn is_id(name: &str) -> bool {
    name.starts_with("sha256:")
}

/// Tells whether a name was pinned by us for an image in a repository, whatever it stands for by now.
#[must_use]
pub fn is_pinned_for(name: &Name, repository: &str, digest: &str) -> bool {
    is_id(&name.name)
        && name.labels.contains_key(PINNED)
        && name
            .labels
            .get(&pinned_for(repository))
            .is_some_and(|pinned| pinned == digest)
}

/// Returns the name of the label that pins a name for an image in a repository.
#[must_use]
pub fn pinned_for(repository: &str) -> String {
    format!("{PINNED_FOR}{repository}")
}

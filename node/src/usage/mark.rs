//! First uses of images of ours: each is counted once on a node, by a label on its manifest.

use std::collections::BTreeMap;

use chrono::{SecondsFormat, Utc};
use futures_util::future::join_all;
use tonic::Status;

use super::in_use::InUse;
use crate::{
    containerd::{Containerd, inventory::Inventory},
    naming::labels::USED,
};

/// Images of ours that are in use, and were not when somebody looked before: the compressed bytes by digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstUses<'a>(BTreeMap<&'a str, u64>);

impl FirstUses<'_> {
    /// Returns the bytes of all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Returns the images of ours that are in use and carry no label of that yet.
#[must_use]
pub fn first_uses<'a>(inventory: &Inventory, in_use: &'a [InUse]) -> FirstUses<'a> {
    let is_marked = |digest: &str| {
        inventory
            .blobs
            .get(digest)
            .is_some_and(|blob| blob.labels.contains_key(USED))
    };
    let ours = in_use.iter().filter(|image| image.is_used && image.line.prefetched);
    let ours = ours.map(|image| (image.line.image.digest(), image.line.bytes));
    FirstUses(ours.filter(|(digest, _)| !is_marked(digest)).collect())
}

/// Labels images as used and returns the bytes of those that nobody has labelled meanwhile; tells what it could not.
pub async fn mark(containerd: &Containerd, first: &FirstUses<'_>, say: impl Fn(&str)) -> u64 {
    let labelled = first.0.keys().map(|digest| mark_one(containerd, digest));
    let mut sum = 0;
    for ((digest, bytes), labelled) in first.0.iter().zip(join_all(labelled).await) {
        match labelled {
            Ok(true) => sum += bytes,
            Ok(false) => {}
            Err(status) => say(&format!("could not label {digest} as used: {}", status.message())),
        }
    }
    sum
}

/// Returns false where the label was there.
async fn mark_one(containerd: &Containerd, digest: &str) -> Result<bool, Status> {
    if containerd.blob(digest).await?.labels.contains_key(USED) {
        return Ok(false);
    }
    let moment = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    containerd
        .label_blob(digest, &BTreeMap::from([(USED.to_owned(), moment)]))
        .await?;
    Ok(true)
}

//! The bytes of pinned images, which kubelet never gets back.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};

use crate::{
    containerd::{Containerd, inventory::Inventory},
    naming::labels::PINNED,
};

/// Bounds the snapshots that are asked about at once.
const ASKED_AT_ONCE: usize = 16;

/// Returns the bytes of all pinned images, layers that they share once; what containerd does not tell is left out.
pub async fn bytes(containerd: &Containerd, inventory: &Inventory) -> u64 {
    let pinned = Pinned::of(inventory);
    let blobs = pinned.blobs.iter().filter_map(|digest| inventory.blobs.get(*digest));
    let blobs: u64 = blobs.map(|blob| blob.size).sum();
    let snapshots = stream::iter(&pinned.snapshots)
        .map(|key| containerd.snapshot_bytes(&inventory.snapshotter, key))
        .buffer_unordered(ASKED_AT_ONCE);
    snapshots
        .fold(blobs, async |sum, bytes| sum.saturating_add(bytes.unwrap_or(0)))
        .await
}

/// Holds the blobs and snapshots of pinned images.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pinned<'a> {
    blobs: HashSet<&'a str>,
    snapshots: HashSet<&'a str>,
}

impl<'a> Pinned<'a> {
    fn of(inventory: &'a Inventory) -> Self {
        let names = inventory.names.values().filter(|name| name.labels.contains_key(PINNED));
        let mut pinned = Self::default();
        for name in names {
            pinned.add_blobs(inventory, &name.target.digest);
            for chain in inventory.chains(&name.target.digest) {
                pinned.add_snapshots(inventory, &chain);
            }
        }
        pinned
    }

    /// Adds a blob and all that garbage collection gets to from there.
    fn add_blobs(&mut self, inventory: &'a Inventory, digest: &'a str) {
        let mut left = vec![digest];
        while let Some(digest) = left.pop() {
            let Some(blob) = inventory.blobs.get(digest).filter(|_| self.blobs.insert(digest)) else {
                continue;
            };
            let leads_on = |label: &str| label.starts_with("containerd.io/gc.ref.content");
            left.extend(
                blob.labels
                    .iter()
                    .filter(|(label, _)| leads_on(label))
                    .map(|(_, digest)| digest.as_str()),
            );
        }
    }

    /// Adds a snapshot and those below it.
    fn add_snapshots(&mut self, inventory: &'a Inventory, key: &str) {
        let mut next = inventory.snapshots.get(key);
        while let Some(snapshot) = next.filter(|snapshot| self.snapshots.insert(&snapshot.key)) {
            next = inventory.snapshots.get(&snapshot.parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::containerd::{
        content::Blob,
        images::{Descriptor, Name},
        snapshots::{Snapshot, SnapshotKind},
    };

    fn inventory(pinned: &[&str]) -> Inventory {
        let mut inventory = Inventory {
            snapshotter: "overlayfs".to_owned(),
            ..Inventory::default()
        };
        for number in ["1", "2"] {
            let name = Name {
                name: format!("name{number}"),
                target: Descriptor {
                    digest: format!("manifest{number}"),
                    ..Descriptor::default()
                },
                labels: pinned
                    .iter()
                    .filter(|of| **of == number)
                    .map(|_| (PINNED.to_owned(), "pinned".to_owned()))
                    .collect(),
                ..Name::default()
            };
            inventory.names.insert(name.name.clone(), name);
            let labels = |labels: &[(&str, String)]| Blob {
                size: 1,
                labels: labels
                    .iter()
                    .map(|(label, value)| ((*label).to_owned(), value.clone()))
                    .collect::<BTreeMap<_, _>>(),
            };
            let config = ("containerd.io/gc.ref.content.config", format!("config{number}"));
            let layer = ("containerd.io/gc.ref.content.l.0", "layer".to_owned());
            let snapshot = ("containerd.io/gc.ref.snapshot.overlayfs", format!("top{number}"));
            inventory
                .blobs
                .insert(format!("manifest{number}"), labels(&[config, layer]));
            inventory.blobs.insert(format!("config{number}"), labels(&[snapshot]));
            snapshots(&mut inventory, &format!("top{number}"), "base");
        }
        inventory.blobs.insert("layer".to_owned(), Blob::default());
        snapshots(&mut inventory, "base", "");
        inventory
    }

    fn snapshots(inventory: &mut Inventory, key: &str, parent: &str) {
        let snapshot = Snapshot {
            key: key.to_owned(),
            parent: parent.to_owned(),
            kind: SnapshotKind::Committed,
        };
        inventory.snapshots.insert(key.to_owned(), snapshot);
    }

    #[test]
    fn what_pinned_images_share_counts_once_and_others_not_at_all() {
        assert_eq!(Pinned::of(&inventory(&[])), Pinned::default());
        let one = inventory(&["1"]);
        let pinned = Pinned::of(&one);
        assert_eq!(pinned.blobs, HashSet::from(["manifest1", "config1", "layer"]));
        assert_eq!(pinned.snapshots, HashSet::from(["top1", "base"]));
        assert_eq!(
            Pinned::of(&inventory(&["1", "2"])).snapshots,
            HashSet::from(["top1", "top2", "base"])
        );
    }

    #[test]
    fn circles_among_snapshots_and_blobs_end() {
        let mut circle = inventory(&["1"]);
        snapshots(&mut circle, "base", "top1");
        let label = ("containerd.io/gc.ref.content.m.0".to_owned(), "manifest1".to_owned());
        circle.blobs.insert(
            "layer".to_owned(),
            Blob {
                size: 1,
                labels: BTreeMap::from([label]),
            },
        );
        assert_eq!(Pinned::of(&circle).snapshots.len(), 2);
    }
}

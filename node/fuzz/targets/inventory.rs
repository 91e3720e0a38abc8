//! Describes what containerd answers: names, blobs and snapshots with any labels, a line each.
#![no_main]

use std::{collections::BTreeMap, hint::black_box};

use libfuzzer_sys::fuzz_target;
use prefetch_images::containerd::{
    content::Blob,
    images::{Descriptor, Name},
    inventory::Inventory,
    snapshots::{Snapshot, SnapshotKind},
};

const IMAGE: &str = "reg.example/app:v1@sha256:1111111111111111111111111111111111111111111111111111111111111111";

fuzz_target!(|text: &str| {
    let mut inventory = Inventory {
        snapshotter: "overlayfs".to_owned(),
        ..Inventory::default()
    };
    for line in text.lines() {
        add(
            &mut inventory,
            &line.replace(
                '@',
                "sha256:1111111111111111111111111111111111111111111111111111111111111111",
            ),
        );
    }
    let image = IMAGE.parse().unwrap();
    if inventory.is_complete(&image) {
        assert!(inventory.has_content(&image));
    }
    black_box(inventory.chains("sha256:1111111111111111111111111111111111111111111111111111111111111111"));
    black_box(inventory.used_snapshots());
});

/// Adds a name (`n`), a blob (`b`) or a snapshot (`s`) with what follows it.
fn add(inventory: &mut Inventory, line: &str) {
    let mut words = line.split(' ').map(str::to_owned);
    let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let other = words.next().unwrap_or_default();
    let labels: BTreeMap<String, String> = words
        .filter_map(|word| {
            word.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    match kind.as_str() {
        "n" => {
            let name = name_of(key.clone(), other, labels);
            inventory.names.insert(key, name);
        }
        "b" => {
            let size = other.parse().unwrap_or(u64::MAX);
            inventory.blobs.insert(key, Blob { size, labels });
        }
        _ => {
            let kind = [SnapshotKind::Committed, SnapshotKind::Active, SnapshotKind::View][labels.len() % 3];
            let parent = other;
            inventory.snapshots.insert(key.clone(), Snapshot { key, parent, kind });
        }
    }
}

fn name_of(name: String, digest: String, labels: BTreeMap<String, String>) -> Name {
    let target = Descriptor {
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        digest,
        size: 1,
    };
    Name {
        name,
        target,
        labels,
        created_at: None,
    }
}

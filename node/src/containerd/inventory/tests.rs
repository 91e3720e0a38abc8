use proptest::{collection, prelude::*};

use super::*;
use crate::containerd::images::Descriptor;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn digest(number: usize) -> String {
    format!("sha256:{number:064x}")
}

fn image() -> Image {
    Image::new("r.io", "app", Some("v1"), &digest(1)).expect("an image")
}

fn name(name: &str, media_type: &str, digest: &str) -> (String, Name) {
    let target = Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size: 1,
    };
    let name = Name {
        name: name.to_owned(),
        target,
        ..Name::default()
    };
    (name.name.clone(), name)
}

fn blob(labels: &[(&str, String)]) -> Blob {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    Blob {
        size: 1,
        labels: labels.collect(),
    }
}

fn snapshot(key: &str, parent: &str, kind: SnapshotKind) -> (String, Snapshot) {
    let (key, parent) = (key.to_owned(), parent.to_owned());
    (key.clone(), Snapshot { key, parent, kind })
}

/// Makes an index of two platforms, of which the second is here and unpacked, under both names.
fn inventory() -> Inventory {
    let label = |name: &str| format!("{CONTENT}{name}");
    Inventory {
        names: HashMap::from([
            name("r.io/app:v1", INDEX, &digest(1)),
            name(&format!("r.io/app@{}", digest(1)), INDEX, &digest(1)),
        ]),
        blobs: HashMap::from([
            (
                digest(1),
                blob(&[(&label("m.0"), digest(2)), (&label("m.1"), digest(3))]),
            ),
            (
                digest(3),
                blob(&[(&label("config"), digest(4)), (&label("l.0"), digest(5))]),
            ),
            (digest(4), blob(&[(&format!("{SNAPSHOT}overlayfs"), digest(6))])),
        ]),
        snapshots: HashMap::from([snapshot(&digest(6), "", SnapshotKind::Committed)]),
        snapshotter: "overlayfs".to_owned(),
        is_snapshotter_missing: false,
    }
}

#[test]
fn an_image_is_complete_with_both_names_and_one_platform_unpacked() {
    assert!(inventory().is_complete(&image()));
    assert_eq!(inventory().chains(&digest(1)), [digest(6)]);
}

#[test]
fn an_image_without_one_of_its_names_has_its_content_and_is_not_complete() {
    for name in ["r.io/app:v1".to_owned(), format!("r.io/app@{}", digest(1))] {
        let mut inventory = inventory();
        inventory.names.remove(&name);
        assert!(inventory.has_content(&image()));
        assert!(!inventory.is_complete(&image()));
    }
}

#[test]
fn content_without_a_name_of_the_image_is_not_the_image() {
    let mut inventory = inventory();
    inventory.names = HashMap::from([name(&format!("r.io/other@{}", digest(1)), INDEX, &digest(1))]);
    assert!(!inventory.has_content(&image()));
}

#[test]
fn a_name_with_the_media_type_of_a_page_is_not_right() {
    let mut inventory = inventory();
    let by_digest = image().name_by_digest();
    inventory.names.extend([name(&by_digest, "text/html", &digest(1))]);
    assert!(!inventory.is_complete(&image()));
    inventory.names.extend([name("r.io/app:v1", "text/html", &digest(1))]);
    assert!(!inventory.has_content(&image()));
}

#[test]
fn an_image_that_another_snapshotter_unpacked_is_not_here() {
    let mut inventory = inventory();
    inventory.snapshotter = "native".to_owned();
    assert!(!inventory.has_content(&image()));
    inventory.snapshotter = "overlay".to_owned();
    assert!(!inventory.has_content(&image()));
}

#[test]
fn an_image_whose_snapshot_is_gone_is_not_here() {
    let mut inventory = inventory();
    inventory.snapshots.clear();
    assert!(!inventory.has_content(&image()));
}

#[test]
fn containers_and_views_use_snapshots_and_unpacking_does_not() {
    let mut inventory = inventory();
    inventory.snapshots = HashMap::from([
        snapshot("container", "a", SnapshotKind::Active),
        snapshot("view", "b", SnapshotKind::View),
        snapshot("extract-1-x sha256:2", "c", SnapshotKind::Active),
        snapshot("d", "e", SnapshotKind::Committed),
        snapshot("scratch", "", SnapshotKind::Active),
    ]);
    assert_eq!(inventory.used_snapshots(), HashSet::from(["a", "b"]));
}

#[test]
fn labels_of_layers_and_of_others_lead_nowhere() {
    for label in ["config", "m.0", "m.12", "0", "7"] {
        assert!(leads_on(&format!("{CONTENT}{label}")), "{label}");
    }
    for label in ["l.0", "m.", "", "m.x", "config.0", "configs", "m.1.2", "m.m.1"] {
        assert!(!leads_on(&format!("{CONTENT}{label}")), "{label}");
    }
    assert!(!leads_on("containerd.io/distribution.source.r.io"));
}

#[test]
fn an_image_is_among_those_that_kubelet_finds_by_both_names_of_one_image() {
    let found = |id: &str, tags: &[&str], digests: &[String]| CriImage {
        id: id.to_owned(),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        digests: digests.to_vec(),
        ..CriImage::default()
    };
    let is_found = |images: &[CriImage], image: &Image| is_among(&images.iter().flat_map(names_of).collect(), image);
    let by_digest = [image().name_by_digest()];
    let untagged = Image::new("r.io", "app", None, &digest(1)).expect("an image");

    assert!(is_found(
        &[found("1", &["r.io/app:v1", "r.io/app:v2"], &by_digest)],
        &image()
    ));
    assert!(!is_found(&[found("1", &["r.io/app:v1"], &[])], &image()));
    let moved = [found("1", &[], &by_digest), found("2", &["r.io/app:v1"], &[])];
    assert!(!is_found(&moved, &image()) && is_found(&moved, &untagged));
}

proptest! {
    #[test]
    fn labels_that_lead_in_circles_end(
        edges in collection::vec((0..6_usize, 0..6_usize, "(config|m\\.[0-9]|l\\.0|x)"), 0..30),
        unpacked in collection::vec(0..6_usize, 0..3),
    ) {
        let mut inventory = Inventory { snapshotter: "overlayfs".to_owned(), ..Inventory::default() };
        for (from, to, label) in edges {
            let blob = inventory.blobs.entry(digest(from)).or_default();
            blob.labels.insert(format!("{CONTENT}{label}"), digest(to));
        }
        for number in unpacked {
            let blob = inventory.blobs.entry(digest(number)).or_default();
            blob.labels.insert(format!("{SNAPSHOT}overlayfs"), digest(number + 100));
        }
        prop_assert!(inventory.chains(&digest(0)).len() <= 3);
    }

    #[test]
    fn any_labels_are_read(labels in collection::btree_map("\\PC{0,80}", "\\PC{0,80}", 0..20), snapshotter in "\\PC{0,10}") {
        let blobs = HashMap::from([(digest(1), Blob { size: 0, labels })]);
        let inventory = Inventory { blobs, snapshotter, ..Inventory::default() };
        prop_assert!(!inventory.has_content(&image()));
        prop_assert!(inventory.chains(&digest(1)).len() <= 1);
    }
}

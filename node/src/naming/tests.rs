use std::collections::BTreeMap;

use chrono::DateTime;
use proptest::{collection, prelude::*};

use super::{
    labels::PINNED,
    ours::{Ours, ours, repository_of},
    pins::{stray, to_pin, to_unpin},
    *,
};
use crate::containerd::{content::Blob, images::Descriptor};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const REPOSITORY: &str = "r.io:5000/team/app";
const ID: &str = "sha256:configuration";

fn digest(number: u8) -> String {
    format!("sha256:{number:064x}")
}

fn image(number: u8, tag: &str) -> Image {
    Image::new("r.io:5000", "team/app", Some(tag), &digest(number)).expect("an image")
}

fn name(name: &str, number: u8, made_at: i64, labels: &[(&str, &str)]) -> Name {
    let labels = labels
        .iter()
        .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
    Name {
        name: name.to_owned(),
        target: Descriptor {
            media_type: MANIFEST.to_owned(),
            digest: digest(number),
            size: 1,
        },
        labels: labels.collect(),
        created_at: DateTime::from_timestamp(made_at, 5),
    }
}

fn inventory(names: Vec<Name>) -> Inventory {
    Inventory {
        names: names.into_iter().map(|name| (name.name.clone(), name)).collect(),
        ..Inventory::default()
    }
}

/// Writes on the blobs that these names are ours, as they are now.
fn record(inventory: &mut Inventory, names: &[&str], pulled_at: &str) {
    for name in names {
        let name = &inventory.names[*name];
        let labels = ours::records(&[name], pulled_at);
        let blob = inventory.blobs.entry(name.target.digest.clone()).or_default();
        blob.labels.extend(labels);
    }
}

fn by_digest(number: u8) -> String {
    format!("{REPOSITORY}@{}", digest(number))
}

fn by_tag(tag: &str) -> String {
    format!("{REPOSITORY}:{tag}")
}

/// Makes an image of ours with two tags, of which kubelet gave the second.
fn pulled() -> Inventory {
    let label = [(PULLED_AT, "2026-01-01T00:00:00.000000Z")];
    let mut inventory = inventory(vec![
        name(&by_digest(1), 1, 10, &label),
        name(&by_tag("v1"), 1, 11, &label),
        name(&by_tag("kubelets"), 1, 12, &[]),
        name(ID, 1, 10, &[]),
    ]);
    record(
        &mut inventory,
        &[&by_digest(1), &by_tag("v1")],
        "2026-01-01T00:00:00.000000Z",
    );
    inventory
}

fn without_labels(mut inventory: Inventory) -> Inventory {
    for name in inventory.names.values_mut().filter(|name| !is_id(&name.name)) {
        name.labels.clear();
    }
    inventory
}

fn only(inventory: &Inventory) -> Ours {
    let [only] = <[Ours; 1]>::try_from(ours(inventory)).expect("one image of ours");
    only
}

/// Sets labels as containerd does.
fn set(inventory: &mut Inventory, labels: Vec<(String, BTreeMap<String, String>)>) {
    for (name, labels) in labels {
        let name = inventory.names.get_mut(&name).expect("a name");
        name.labels.extend(labels);
        name.labels.retain(|_, value| !value.is_empty());
    }
}

fn owned(labels: Vec<(&Name, BTreeMap<String, String>)>) -> Vec<(String, BTreeMap<String, String>)> {
    let owned = labels.into_iter().map(|(name, labels)| (name.name.clone(), labels));
    owned.collect()
}

fn pin_all(inventory: &mut Inventory) {
    for ours in ours(inventory) {
        let labels = owned(to_pin(inventory, &ours));
        set(inventory, labels);
    }
}

fn unpin(inventory: &mut Inventory, ours: &Ours) {
    let labels = owned(to_unpin(inventory, ours));
    set(inventory, labels);
}

fn is_pinned(inventory: &Inventory) -> bool {
    inventory.names.values().any(|name| name.labels.contains_key(PINNED))
}

#[test]
fn what_a_pull_of_ours_made_is_ours_and_what_kubelet_named_is_not() {
    let ours = only(&pulled());
    assert_eq!((ours.repository.as_str(), ours.digest), (REPOSITORY, digest(1)));
    assert_eq!(ours.names, [by_tag("v1"), by_digest(1)]);
    assert_eq!(ours.pulled_at, "2026-01-01T00:00:00.000000Z");
    assert!(!ours.is_pinned);
}

#[test]
fn it_is_ours_when_every_name_was_written_anew() {
    assert_eq!(only(&without_labels(pulled())), only(&pulled()));
}

#[test]
fn what_an_earlier_version_labelled_is_ours() {
    let mut inventory = pulled();
    inventory.blobs.clear();
    assert_eq!(only(&inventory), only(&pulled()));
}

#[test]
fn what_somebody_else_made_under_a_name_of_ours_is_not() {
    let mut inventory = without_labels(pulled());
    inventory
        .names
        .extend([(by_tag("v1"), name(&by_tag("v1"), 1, 90, &[]))]);
    assert_eq!(only(&inventory).names, [by_digest(1)]);
    inventory
        .names
        .extend([(by_digest(1), name(&by_digest(1), 1, 90, &[]))]);
    assert_eq!(ours(&inventory), []);
}

#[test]
fn a_tag_of_ours_that_moved_is_not_the_images() {
    let mut inventory = pulled();
    inventory
        .names
        .extend([(by_tag("v1"), name(&by_tag("v1"), 2, 11, &[]))]);
    assert_eq!(only(&inventory).names, [by_digest(1)]);
}

#[test]
fn a_name_to_which_a_person_copied_our_labels_is_not_ours() {
    let mut inventory = pulled();
    let copied = [(PULLED_AT, "2026-01-01T00:00:00.000000Z")];
    for person in [
        by_tag("mine"),
        "docker.io/mine/own:v1".to_owned(),
        format!("docker.io/mine/own@{}", digest(2)),
    ] {
        inventory
            .names
            .extend([(person.clone(), name(&person, 1, 20, &copied))]);
    }
    assert_eq!(only(&inventory), only(&pulled()));
}

#[test]
fn the_newest_come_first_in_each_repository() {
    let labelled = |moment| [(PULLED_AT, moment)];
    let inventory = inventory(vec![
        name(&by_digest(1), 1, 10, &labelled("2026-01-01T00:00:00.000000Z")),
        name(&by_digest(2), 2, 10, &labelled("2026-01-01T00:00:00.000002Z")),
        name(
            &format!("a.io/app@{}", digest(3)),
            3,
            10,
            &labelled("2025-01-01T00:00:00.000000Z"),
        ),
    ]);
    let digests: Vec<_> = ours(&inventory).into_iter().map(|ours| ours.digest).collect();
    assert_eq!(digests, [digest(3), digest(2), digest(1)]);
}

#[test]
fn what_was_written_anew_lacks_its_label_and_what_an_earlier_version_made_its_record() {
    let (legacy, anew) = (
        Inventory {
            blobs: std::collections::HashMap::default(),
            ..pulled()
        },
        without_labels(pulled()),
    );
    let lacking = |inventory: &Inventory, tag: &str| {
        let (moment, lacking) = ours::lacking(inventory, &image(1, tag)).expect("an image of ours");
        assert_eq!(moment, "2026-01-01T00:00:00.000000Z");
        let names = |names: Vec<&Name>| names.into_iter().map(|name| name.name.clone()).collect::<Vec<_>>();
        (names(lacking.labels), names(lacking.records))
    };
    let both = vec![by_digest(1), by_tag("v1")];
    assert_eq!(lacking(&pulled(), "v1"), (vec![], vec![]));
    assert_eq!(lacking(&anew, "v1"), (both.clone(), vec![]));
    assert_eq!(lacking(&legacy, "v1"), (vec![], both));
    assert_eq!(lacking(&anew, "kubelets"), (vec![by_digest(1)], vec![]));
    assert_eq!(ours::lacking(&pulled(), &image(2, "v1")), None);
}

#[test]
fn a_pin_holds_when_every_name_was_written_anew() {
    let mut inventory = pulled();
    pin_all(&mut inventory);
    let mut inventory = without_labels(inventory);
    assert!(only(&inventory).is_pinned);
    pin_all(&mut inventory);
    assert!(to_pin(&inventory, &only(&inventory)).is_empty(), "nothing is lacking");
    unpin(&mut inventory, &only(&pulled()));
    assert!(!is_pinned(&inventory));
}

#[test]
fn a_pin_of_an_earlier_version_is_taken_off() {
    let mut inventory = pulled();
    set(
        &mut inventory,
        vec![(by_digest(1), BTreeMap::from([(PINNED.to_owned(), "pinned".to_owned())]))],
    );
    assert!(only(&inventory).is_pinned);
    let ours = only(&inventory);
    unpin(&mut inventory, &ours);
    assert!(!is_pinned(&inventory));
}

#[test]
fn an_image_that_is_pinned_for_two_repositories_is_so_until_the_last_lets_go() {
    let mut inventory = pulled();
    let elsewhere = format!("r.io/elsewhere@{}", digest(1));
    let labels = [(PULLED_AT, "2026-01-01T00:00:00.000000Z")];
    inventory
        .names
        .extend([(elsewhere.clone(), name(&elsewhere, 1, 30, &labels))]);
    pin_all(&mut inventory);
    let all = ours(&inventory);
    unpin(&mut inventory, &all[0]);
    assert!(is_pinned(&inventory));
    assert_eq!(
        ours(&inventory).iter().map(|ours| ours.is_pinned).collect::<Vec<_>>(),
        [false, true]
    );
    unpin(&mut inventory, &all[1]);
    assert!(!is_pinned(&inventory));
}

#[test]
fn what_others_pinned_stays_pinned() {
    let mut inventory = pulled();
    set(
        &mut inventory,
        vec![(
            ID.to_owned(),
            BTreeMap::from([(PINNED.to_owned(), "pinned".to_owned())]),
        )],
    );
    pin_all(&mut inventory);
    let ours = only(&inventory);
    unpin(&mut inventory, &ours);
    assert!(inventory.names[ID].labels.contains_key(PINNED));
}

#[test]
fn a_pin_of_ours_that_nothing_of_ours_is_left_for_is_stray() {
    let mut inventory = pulled();
    pin_all(&mut inventory);
    assert!(stray(&inventory, &ours(&inventory)).is_empty());
    inventory.names.retain(|name, _| name == ID);
    let labels = owned(stray(&inventory, &ours(&inventory)));
    set(&mut inventory, labels);
    assert_eq!(inventory.names[ID].labels, BTreeMap::new());
}

#[test]
fn names_that_were_there_before_stay_and_the_id_goes_before_the_last() {
    let names = [
        name(&by_digest(1), 1, 0, &[]),
        name(&by_tag("v1"), 1, 0, &[]),
        name(ID, 1, 0, &[]),
    ];
    let new = |before: &[String]| -> Vec<String> {
        let before = Before(before.iter().cloned().collect());
        new_names(&names, &image(1, "v1"), &before)
            .into_iter()
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(new(&[]), [ID.to_owned(), by_digest(1), by_tag("v1")]);
    assert_eq!(new(&[by_tag("v1")]), [by_digest(1)]);
    assert_eq!(new(&[by_tag("v1"), by_digest(1)]), Vec::<String>::new());
}

#[test]
fn a_pull_has_the_moment_of_its_tag_only_where_a_killed_command_gave_that_for_it() {
    let earlier = "2026-01-01T00:00:00.000000Z";
    let moment = |stands_for: u8, before: &[String]| {
        let tag = name(&by_tag("latest"), stands_for, 10, &[(PULLED_AT, earlier)]);
        let names = Names {
            by_digest: None,
            by_tag: Some(tag),
        };
        names.moment(&image(1, "latest"), &Before(before.iter().cloned().collect()))
    };
    assert_eq!(moment(1, &[]), earlier);
    assert!(moment(2, &[]).as_str() > earlier, "it is another image's");
    assert!(moment(1, &[by_tag("latest")]).as_str() > earlier, "it was there before");
}

#[test]
fn the_name_that_tells_that_an_image_is_ours_goes_last() {
    let mut inventory = pulled();
    let ours = only(&inventory);
    assert_eq!(removal::to_remove(&inventory, &ours), [by_tag("v1"), by_digest(1)]);
    inventory.names.remove(&by_tag("kubelets"));
    assert_eq!(
        removal::to_remove(&inventory, &ours),
        [ID.to_owned(), by_tag("v1"), by_digest(1)]
    );
}

#[test]
fn names_of_others_keep_the_id() {
    let names = [
        name(&by_digest(1), 1, 0, &[]),
        name("a.io/b:c", 1, 0, &[]),
        name(ID, 1, 0, &[]),
    ];
    assert_eq!(new_names(&names, &image(1, "v1"), &Before::default()), [by_digest(1)]);
}

#[test]
fn a_repository_ends_before_digest_and_tag_and_not_before_a_port() {
    for name in [
        "r.io:5000/a/b:v1",
        "r.io:5000/a/b@sha256:0",
        "r.io:5000/a/b",
        "r.io:5000/a/b:v1@sha256:0",
    ] {
        assert_eq!(repository_of(name), "r.io:5000/a/b");
    }
}

proptest! {
    #[test]
    fn any_names_and_labels_are_read(
        names in collection::vec("[a-c:/@.]{0,12}|sha256:[0-9]|r.io/a(@sha256:0{64}|:v[12])", 0..8),
        labels in collection::btree_map(
            "prefetch-images/(pulled-at|pinned-for)(/r.io/a(:v1)?)?|io.cri-containerd.pinned",
            "\\PC{0,4}|2026 2026-01-01T00:00:00Z|sha256:0{64}",
            0..5,
        ),
    ) {
        let mut inventory = inventory(names.iter().map(|text| Name { labels: labels.clone(), ..name(text, 0, 0, &[]) }).collect());
        inventory.blobs.insert(digest(0), Blob { size: 0, labels });
        let all = ours(&inventory);
        for ours in &all {
            prop_assert!(ours.names.iter().all(|name| repository_of(name) == ours.repository));
            unpin(&mut inventory, ours);
        }
        let strays = owned(stray(&inventory, &[]));
        set(&mut inventory, strays);
        prop_assert!(stray(&inventory, &[]).is_empty());
    }
}

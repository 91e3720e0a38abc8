use std::{
    collections::{BTreeMap, HashSet},
    rc::Rc,
};

use chrono::DateTime;
use proptest::{collection, prelude::*};

use super::*;
use crate::{
    containerd::{
        content::Blob,
        cri::{CriContainer, CriImage, Sandbox},
        images::{Descriptor, Name},
        inventory::Inventory,
    },
    naming::labels::{PULLED_AT, USED},
};

const REGISTRY: &str = "r.io:5000";
/// Marks a container's image that CRI names by its id alone.
const BY_ID: &str = "";

fn digest(number: u8) -> String {
    format!("sha256:{number:064x}")
}

fn id(number: u8) -> String {
    format!("sha256:id{number}")
}

/// A node with images of which each came at its minute, under a tag, in a repository of its own.
fn node(images: &[Image]) -> Look {
    let mut inventory = Inventory::default();
    for image in images {
        let labels = BTreeMap::from([(PULLED_AT.to_owned(), "2026".to_owned())]);
        let labels = if image.is_ours { labels } else { BTreeMap::new() };
        for name in image.tags().chain([image.by_digest()]) {
            let name = Name {
                name,
                target: Descriptor {
                    digest: digest(image.number),
                    ..Descriptor::default()
                },
                labels: labels.clone(),
                created_at: DateTime::from_timestamp(60 * i64::from(image.number), 0),
            };
            inventory.names.insert(name.name.clone(), name);
        }
        let chain = BTreeMap::from([(
            "containerd.io/gc.ref.snapshot.overlayfs".to_owned(),
            format!("chain{}", image.number),
        )]);
        inventory
            .blobs
            .insert(digest(image.number), Blob { size: 1, labels: chain });
    }
    Look {
        inventory: Rc::new(inventory),
        images: images.iter().map(Image::cri).collect(),
        ..Look::default()
    }
}

#[derive(Clone, Copy)]
struct Image {
    number: u8,
    tags: &'static [&'static str],
    is_ours: bool,
    pinned: bool,
}

impl Image {
    fn repository(&self) -> String {
        format!("{REGISTRY}/app{}", self.number)
    }

    fn tags(&self) -> impl Iterator<Item = String> {
        self.tags.iter().map(|tag| format!("{}:{tag}", self.repository()))
    }

    fn by_digest(&self) -> String {
        format!("{}@{}", self.repository(), digest(self.number))
    }

    fn cri(&self) -> CriImage {
        CriImage {
            id: id(self.number),
            tags: self.tags().collect(),
            digests: vec![self.by_digest()],
            size: 1000 + u64::from(self.number),
            pinned: self.pinned,
        }
    }
}

fn image(number: u8, tags: &'static [&'static str]) -> Image {
    Image {
        number,
        tags,
        is_ours: false,
        pinned: false,
    }
}

fn ours(number: u8) -> Image {
    Image {
        is_ours: true,
        ..image(number, &["v1"])
    }
}

/// A container of a pod that was made at a minute, itself a second later.
fn container(of: u8, named: &str, pod: i64, is_running: bool) -> CriContainer {
    CriContainer {
        image: if named == BY_ID { id(of) } else { named.to_owned() },
        image_ref: id(of),
        sandbox: pod.to_string(),
        is_alive: is_running,
        is_running,
        is_restart: false,
        created_at: (60 * pod + 1) * 1_000_000_000,
    }
}

fn with(look: Look, containers: Vec<CriContainer>) -> Look {
    let pod = |container: &CriContainer| Sandbox {
        id: container.sandbox.clone(),
        is_ready: true,
        created_at: 60_000_000_000 * container.sandbox.parse::<i64>().unwrap(),
    };
    Look {
        sandboxes: containers.iter().map(pod).collect(),
        containers,
        ..look
    }
}

/// Returns the lines without registry and digest: `app1:v1 2`, and what prefetch brought with a star.
fn lines(look: &Look) -> Vec<String> {
    let line = |InUse { line, .. }: InUse| {
        let name = line.image.name_by_tag().unwrap_or_else(|| line.image.name_by_digest());
        let (_, name) = name.split_once('/').unwrap();
        let name = name
            .split_once('@')
            .map_or(name.to_owned(), |(repository, _)| format!("{repository}@"));
        format!("{name} {}{}", line.running, if line.prefetched { "*" } else { "" })
    };
    in_use(look).into_iter().map(line).collect()
}

#[test]
fn images_are_told_as_pods_name_them_most_containers_first_and_then_what_kubelet_pulled() {
    let images = [
        image(1, &["v1", "latest"]),
        ours(2),
        image(3, &["v1", "v2"]),
        image(4, &[]),
        image(5, &["v1"]),
        image(6, &["v1"]),
    ];
    let look = with(
        node(&images),
        vec![
            container(1, "r.io:5000/app1:latest", 10, true),
            container(2, "r.io:5000/app2:v1", 10, true),
            container(2, "r.io:5000/app2:v1", 11, true),
            container(3, BY_ID, 11, true),
            container(4, "r.io:5000/app4", 11, true),
            container(5, BY_ID, 11, false),
        ],
    );
    let expected = [
        "app2:v1 2*",
        "app1:latest 1",
        "app3:v1 1",
        "app3:v2 1",
        "app4@ 1",
        "app5:v1 0",
        "app6:v1 0",
    ];
    assert_eq!(lines(&look), expected);
}

#[test]
fn what_nothing_uses_and_kubelet_did_not_pull_is_not_told() {
    let pause = Image {
        pinned: true,
        ..image(2, &["v1"])
    };
    let mut look = node(&[ours(1), pause, image(3, &["v1"]), image(4, &["v1"])]);
    look.images[2].digests.clear(); // as of an image that was imported
    look.images[3].digests = vec![format!("localhost/app4@{}", digest(4))];
    assert_eq!(lines(&look), Vec::<String>::new());
    let look = with(look, vec![container(1, BY_ID, 1, false), container(2, BY_ID, 1, true)]);
    assert_eq!(lines(&look), ["app2:v1 1", "app1:v1 0*"]);
}

#[test]
fn of_what_nothing_uses_it_is_told_when_kubelet_pulled_it() {
    let look = with(
        node(&[image(1, &["v1"]), image(2, &["v1"])]),
        vec![container(1, BY_ID, 1, false)],
    );
    let pulled = in_use(&look)
        .into_iter()
        .map(|InUse { line, .. }| line.pulled_at.is_some());
    assert_eq!(pulled.collect::<Vec<_>>(), [false, true]);
}

#[test]
fn an_image_is_named_by_a_tag_only_while_the_tag_stands_for_it() {
    let mut look = node(&[image(1, &["v1"])]);
    look.images[0].tags.clear(); // another image has it
    let digest = digest(1);
    for named in [
        "r.io:5000/app1:v1",
        &format!("r.io:5000/app1:v1@{digest}"),
        &format!("r.io:5000/app1@{digest}"),
    ] {
        let mut moved = with(look.clone(), vec![container(1, named, 1, true)]);
        Rc::make_mut(&mut moved.inventory).names.remove("r.io:5000/app1:v1");
        assert_eq!(lines(&moved), ["app1@ 1"], "{named}");
    }
    let both = with(
        node(&[image(1, &["v1"])]),
        vec![container(1, &format!("r.io:5000/app1:v1@{digest}"), 1, true)],
    );
    assert_eq!(lines(&both), ["app1:v1 1"]);
}

#[test]
fn of_several_digests_in_a_repository_the_one_that_the_pod_names_counts_else_the_newest() {
    let mut look = node(&[image(1, &[])]);
    let other = Image {
        number: 2,
        ..image(1, &[])
    };
    let newer = format!("r.io:5000/app1@{}", digest(2));
    let mut name = node(&[other]).inventory.names[&other.by_digest()].clone();
    name.name.clone_from(&newer);
    Rc::make_mut(&mut look.inventory).names.insert(newer.clone(), name);
    look.images[0].digests.push(newer.clone());
    let told = |named: &str| {
        in_use(&with(look.clone(), vec![container(1, named, 1, true)]))[0]
            .line
            .image
            .to_string()
    };
    assert_eq!(told("r.io:5000/app1:gone"), newer);
    let older = format!("r.io:5000/app1@{}", digest(1));
    assert_eq!(told(&older), older);
}

#[test]
fn what_a_pod_has_mounted_is_used() {
    let mut look = node(&[ours(1), ours(2), image(3, &["v1"])]);
    look.volumes = HashSet::from([digest(1), digest(3)]);
    assert_eq!(lines(&look), ["app1:v1 0*", "app3:v1 0"]);
    assert_eq!(first_uses(&look.inventory, &in_use(&look)).bytes(), 1001);
}

#[test]
fn a_container_whose_image_is_gone_is_not_told() {
    assert_eq!(
        lines(&with(node(&[]), vec![container(1, "r.io:5000/app1:v1", 1, true)])),
        Vec::<String>::new()
    );
}

#[test]
fn an_image_that_came_after_its_pod_is_one_that_the_pod_waited_for() {
    let look = with(
        node(&[image(5, &["v1"]), ours(9)]),
        vec![
            container(5, BY_ID, 4, true),
            container(5, BY_ID, 5, true),
            container(9, BY_ID, 8, true),
            container(9, BY_ID, 10, false),
            container(9, BY_ID, 10, true),
        ],
    );
    let PodImages { all, present, newest } = pod_images(&look, None);
    assert_eq!((all, present, newest), (4, 2, 601_000_000_000));
    assert_eq!(pod_images(&look, Some(301_000_000_000)).all, 2);
    assert_eq!(
        pod_images(&look, Some(newest)),
        PodImages {
            newest,
            ..PodImages::default()
        }
    );
}

#[test]
fn a_container_that_is_started_anew_is_counted_once() {
    let mut again = container(1, BY_ID, 2, true);
    again.is_restart = true;
    again.created_at += 60_000_000_000;
    let look = with(
        node(&[image(1, &["v1"])]),
        vec![container(1, BY_ID, 2, false), again.clone()],
    );
    let counted = pod_images(&look, None);
    assert_eq!((counted.all, counted.present), (1, 1));
    let first_is_gone = with(node(&[image(1, &["v1"])]), vec![again]);
    assert_eq!(pod_images(&first_is_gone, Some(121_000_000_000)).all, 0);
    assert_eq!(pod_images(&look, Some(121_000_000_000)).all, 0);
}

#[test]
fn only_what_prefetch_brought_and_is_used_and_carries_no_label_is_used_for_the_first_time() {
    let mut look = with(
        node(&[ours(1), ours(2), ours(3), image(4, &["v1"])]),
        vec![
            container(1, BY_ID, 5, true),
            container(2, BY_ID, 5, false),
            container(4, BY_ID, 5, true),
        ],
    );
    let bytes = |look: &Look| first_uses(&look.inventory, &in_use(look)).bytes();
    assert_eq!(bytes(&look), 1001 + 1002);
    let blobs = &mut Rc::make_mut(&mut look.inventory).blobs;
    let marked = blobs.get_mut(&digest(1)).unwrap();
    marked.labels.insert(USED.to_owned(), "2026".to_owned());
    assert_eq!(bytes(&look), 1002);
}

proptest! {
    #[test]
    fn however_a_node_is_used_each_name_has_one_line_and_no_container_is_lost_or_counted_twice(
        kinds in collection::vec((any::<bool>(), any::<bool>(), 0..3_usize), 1..6),
        uses in collection::vec((0..6_u8, 0..4_usize, 1..20_i64, any::<bool>()), 0..12),
    ) {
        const TAGS: [&[&str]; 3] = [&[], &["v1"], &["v1", "v2"]];
        let images = kinds.iter().zip(0..).map(|(&(is_ours, pinned, tags), number)| Image {
            number, tags: TAGS[tags], is_ours, pinned,
        });
        let look = node(&images.collect::<Vec<_>>());
        let containers = uses.into_iter().map(|(of, named, pod, is_running)| {
            let named = ["", "v1", "v9", "v2"][named];
            container(of, &if named.is_empty() { String::new() } else { format!("{REGISTRY}/app{of}:{named}") }, pod, is_running)
        });
        let look = with(look, containers.collect());
        let all = in_use(&look);
        let mut names: Vec<_> = all.iter().map(|image| &image.line.image).collect();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), all.len());
        prop_assert!(all.is_sorted_by_key(|image| std::cmp::Reverse((image.line.running, image.is_used))));
        let is_here = |container: &&CriContainer| container.is_running && look.image_of(container).is_some();
        let running = look.containers.iter().filter(is_here).count();
        let told: u32 = all.iter().map(|image| image.line.running).sum();
        prop_assert!(told as usize >= running);
        let counted = pod_images(&look, None);
        prop_assert!(counted.present <= counted.all);
        prop_assert_eq!(pod_images(&look, Some(counted.newest)).all, 0);
    }
}

#[test]
fn lines_of_which_some_find_no_room_are_others_each_hour_and_within_three_days_all_are_told() {
    let lines: Vec<String> = (0..200).map(|number| format!("line {number:03}")).collect();
    let (length, room) = ("line 000".len() + 1, 50);
    let told = |hour: u64| {
        let lines = in_turn(lines.clone(), room * length, hour);
        lines.into_iter().take(room).collect::<HashSet<String>>()
    };
    let of_hours: HashSet<String> = (495_000..495_072).flat_map(told).collect();
    let of_days: HashSet<String> = (0..28).flat_map(|day| told(495_000 + 24 * day)).collect();
    assert_eq!((of_hours.len(), of_days.len()), (lines.len(), lines.len()));
    assert_eq!(in_turn(lines.clone(), 200 * length, 495_000), lines);
}

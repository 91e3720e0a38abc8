use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::containerd::{
    content::Blob,
    cri::{CriContainer, Sandbox},
    images::{Descriptor, Name},
    snapshots::{Snapshot, SnapshotKind},
};

const HERE: &str = "registry.example.com/here";
const THERE: &str = "registry.example.com/there";

fn digest(number: u8) -> String {
    format!("sha256:{number:064x}")
}

fn image(repository: &str, number: u8) -> Image {
    format!("{repository}:v{number}@{}", digest(number)).parse().unwrap()
}

/// Holds a node: images of ours, of others, and containers.
#[derive(Clone, Debug, Default)]
struct Node {
    ours: Vec<Ours>,
    inventory: Inventory,
}

impl Node {
    fn with(mut self, repository: &str, number: u8) -> Self {
        let names = vec![
            format!("{repository}:v{number}"),
            format!("{repository}@{}", digest(number)),
        ];
        for name in &names {
            self = self.named(name, number);
        }
        self.ours.push(Ours {
            repository: repository.to_owned(),
            digest: digest(number),
            pulled_at: format!("2026-01-01T00:00:{number:02}.000000Z"),
            names,
            is_pinned: true,
        });
        let id = format!("sha256:id{number}");
        let chain = format!("chain{number}");
        let snapshot = (
            format!("containerd.io/gc.ref.snapshot.{}", self.inventory.snapshotter),
            chain.clone(),
        );
        let blob = Blob {
            size: 1,
            labels: BTreeMap::from([snapshot]),
        };
        self.inventory.blobs.insert(digest(number), blob);
        self.snapshot(&chain, "", SnapshotKind::Committed).named(&id, number)
    }

    fn named(mut self, name: &str, number: u8) -> Self {
        let target = Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: digest(number),
            size: 1,
        };
        let named = Name {
            name: name.to_owned(),
            target,
            ..Name::default()
        };
        self.inventory.names.insert(name.to_owned(), named);
        self
    }

    fn snapshot(mut self, key: &str, parent: &str, kind: SnapshotKind) -> Self {
        let snapshot = Snapshot {
            key: key.to_owned(),
            parent: parent.to_owned(),
            kind,
        };
        self.inventory.snapshots.insert(key.to_owned(), snapshot);
        self
    }

    fn decide(&self, images: &[(Image, Presence)], keep: usize, claims: &Claims) -> BTreeMap<String, Decision> {
        let images: Vec<_> = images.iter().map(|(image, presence)| (image, *presence)).collect();
        let policy = KeepPolicy {
            images: &images,
            keep,
            pin: false,
            report_only: false,
        };
        let decided = decide(&policy, &self.ours, &self.inventory, claims);
        decided
            .into_iter()
            .map(|(ours, decision)| (name_by_digest(ours), decision))
            .collect()
    }
}

fn gone(decided: &BTreeMap<String, Decision>) -> Vec<&str> {
    let gone = decided.iter().filter(|(_, decision)| **decision == Decision::LetGo);
    gone.map(|(name, _)| name.as_str()).collect()
}

fn here(number: u8) -> String {
    format!("{HERE}@{}", digest(number))
}

fn four() -> Node {
    (1..=4)
        .fold(Node::default(), |node, number| node.with(HERE, number))
        .with(THERE, 5)
}

#[test]
fn of_several_releases_the_newest_stay_and_other_repositories_are_left_alone() {
    let decided = four().decide(&[(image(HERE, 4), Presence::There)], 2, &Claims::default());
    assert_eq!(gone(&decided), [here(1), here(2)]);
    assert!(
        four()
            .decide(&[(image(HERE, 4), Presence::There)], 0, &Claims::default())
            .is_empty()
    );
    assert!(
        four()
            .decide(&[(image(HERE, 4), Presence::Missing)], 2, &Claims::default())
            .is_empty()
    );
}

#[test]
fn what_the_command_named_stays_and_displaces_nothing_that_came_later() {
    let decided = four().decide(&[(image(HERE, 1), Presence::There)], 1, &Claims::default());
    assert_eq!(gone(&decided), [here(2), here(3)]);
}

#[test]
fn what_would_be_pulled_counts_once_as_the_newest() {
    let would_be = (image(HERE, 9), Presence::WouldBe);
    let decided = four().decide(&[would_be.clone(), would_be], 3, &Claims::default());
    assert_eq!(gone(&decided), [here(1), here(2)]);
}

#[test]
fn what_a_person_has_named_stays_without_a_pin() {
    let node = four().named("docker.io/mine/own:v1", 1);
    let decided = node.decide(&[(image(HERE, 4), Presence::There)], 3, &Claims::default());
    assert_eq!(
        decided[&here(1)],
        Decision::Unpin("it is also named docker.io/mine/own:v1".to_owned())
    );
}

#[test]
fn an_image_of_ours_in_two_repositories_goes_from_the_one() {
    let node = four().with(THERE, 1);
    let decided = node.decide(&[(image(HERE, 4), Presence::There)], 3, &Claims::default());
    assert_eq!(gone(&decided), [here(1)]);
}

#[test]
fn what_a_container_stands_on_or_cannot_be_told_about_stays_without_a_pin() {
    let node = four().snapshot("web", "chain1", SnapshotKind::Active);
    let command = [(image(HERE, 4), Presence::There)];
    let used = Decision::Unpin("a container uses it".to_owned());
    assert_eq!(node.decide(&command, 3, &Claims::default())[&here(1)], used);
    for name in [digest(1), format!("{HERE}:v1"), "sha256:id1".to_owned(), here(1)] {
        let claims = Claims {
            of_containers: HashSet::from([name]),
            ..Claims::default()
        };
        assert_eq!(four().decide(&command, 3, &claims)[&here(1)], used);
    }
    let mut unknown = four();
    unknown.inventory.blobs.clear();
    assert!(
        matches!(&unknown.decide(&command, 3, &Claims::default())[&here(1)], Decision::Unpin(why) if why.contains("cannot be told"))
    );
}

#[test]
fn what_a_command_named_a_moment_ago_stays_as_it_is() {
    let claims = Claims {
        recently_named: HashSet::from([here(1)]),
        ..Claims::default()
    };
    let decided = four().decide(&[(image(HERE, 4), Presence::There)], 2, &claims);
    assert_eq!(
        (gone(&decided), &decided[&here(1)]),
        (vec![here(2).as_str()], &Decision::Stays)
    );
}

#[test]
fn while_a_pod_is_starting_nothing_goes() {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let pod = |id: &str, is_ready, minute| Sandbox {
        id: id.to_owned(),
        is_ready,
        created_at: i64::try_from(minutes(minute).as_nanos()).unwrap(),
    };
    let container = |sandbox: &str, is_alive| CriContainer {
        image: format!("of {sandbox}"),
        image_ref: "sha256:id1".to_owned(),
        sandbox: sandbox.to_owned(),
        is_alive,
        ..CriContainer::default()
    };
    let now = minutes(100);
    let is_starting = |containers: &[CriContainer], pod| Claims::of_pods(containers, &[pod], now).is_pod_starting;
    assert!(
        is_starting(&[], pod("a", true, 99))
            && is_starting(&[], pod("a", true, 50))
            && is_starting(&[], pod("a", true, 101))
    );
    assert!(
        is_starting(&[container("a", true)], pod("a", true, 96)),
        "its second image may still be pulled"
    );
    assert!(!is_starting(&[container("a", true)], pod("a", true, 95)));
    assert!(!is_starting(&[], pod("a", true, 40)), "an hour without any container");
    assert!(!is_starting(&[], pod("a", false, 99)), "it has ended");

    let of = |containers: &[CriContainer], pod| Claims::of_pods(containers, &[pod], now).of_containers;
    let both = HashSet::from(["of a".to_owned(), "sha256:id1".to_owned()]);
    assert_eq!(
        of(&[container("a", false)], pod("a", true, 0)),
        both,
        "it may be started again"
    );
    assert_eq!(of(&[container("a", true)], pod("a", false, 0)), both);
    assert_eq!(of(&[container("a", false)], pod("a", false, 0)), HashSet::new());

    let claims = Claims::of_pods(&[], &[pod("a", true, 99)], now);
    let decided = four().decide(&[(image(HERE, 4), Presence::There)], 1, &claims);
    assert!(gone(&decided).is_empty());
    assert_eq!(decided[&here(1)], Decision::Stays, "with its pin");

    let later = Claims {
        long_ago: "9999".to_owned(),
        ..claims
    };
    let decided = four().decide(&[(image(HERE, 4), Presence::There)], 1, &later);
    assert!(
        gone(&decided).contains(&here(1).as_str()),
        "the newer one is there for long, and pods start all the time"
    );
}

#[test]
fn what_stays_is_pinned_where_that_is_wished() {
    let node = four();
    let images = [(&image(HERE, 4), Presence::There)];
    let policy = KeepPolicy {
        images: &images,
        keep: 2,
        pin: true,
        report_only: false,
    };
    let decided = decide(&policy, &node.ours, &node.inventory, &Claims::default());
    let pinned: Vec<_> = decided
        .iter()
        .filter(|(_, it)| *it == Decision::Pin)
        .map(|(ours, _)| ours.digest.clone())
        .collect();
    assert_eq!(pinned, [digest(4), digest(3)]);
}

#[test]
fn where_kubelet_removes_by_age_images_are_pinned_or_not_brought() {
    let mut kubelet = Settings::without_kubelet();
    assert_eq!((Age::of(&kubelet, 0), Age::Unlimited.words()), (Age::Unlimited, None));
    kubelet.has_maximum_age = true;
    assert_eq!(
        (Age::of(&kubelet, 0), Age::of(&kubelet, 1)),
        (Age::NotBrought, Age::Pinned)
    );
    for age in [Age::Pinned, Age::NotBrought] {
        assert!(age.words().unwrap().contains("imageMaximumGCAge"));
    }
}

/// Makes a node with images of ours in two repositories, of which some are used, named by others, or were named lately.
fn any_node() -> impl Strategy<Value = (Node, Claims, HashSet<String>)> {
    let any_image = (any::<bool>(), 0_u8..12, any::<[bool; 4]>(), 0_u8..60);
    prop::collection::vec(any_image, 0..12).prop_map(|images| {
        let (mut node, mut claims, mut protected) = (Node::default(), Claims::default(), HashSet::new());
        for (is_here, number, [is_used, is_run, is_others, is_named], second) in images {
            let repository = if is_here { HERE } else { THERE };
            let name = format!("{repository}@{}", digest(number));
            if node.ours.iter().any(|ours| name_by_digest(ours) == name) {
                continue;
            }
            node = node.with(repository, number);
            if let Some(ours) = node.ours.last_mut() {
                ours.pulled_at = format!("2026-01-01T00:00:{second:02}.000000Z");
            }
            if is_used {
                node = node.snapshot(&format!("web{number}"), &format!("chain{number}"), SnapshotKind::Active);
            }
            if is_others {
                node = node.named(&format!("docker.io/mine/{number}:v1"), number);
            }
            if is_run {
                claims.of_containers.insert(format!("sha256:id{number}"));
            }
            if is_named {
                claims.recently_named.insert(name.clone());
                protected.insert(name.clone());
            }
            if is_used || is_others || is_run {
                protected.extend([HERE, THERE].map(|repository| format!("{repository}@{}", digest(number))));
            }
        }
        (node, claims, protected)
    })
}

fn any_command() -> impl Strategy<Value = Vec<(Image, Presence)>> {
    let presence = prop_oneof![Just(Presence::There), Just(Presence::WouldBe), Just(Presence::Missing)];
    let one = (any::<bool>(), 0_u8..12, presence);
    prop::collection::vec(one, 1..6).prop_map(|images| {
        let of = |(is_here, number, presence)| (image(if is_here { HERE } else { THERE }, number), presence);
        images.into_iter().map(of).collect()
    })
}

proptest! {
    #[test]
    fn nothing_goes_that_anybody_has_a_claim_on_and_no_more_than_keep_stay_without_one(
        (node, claims, protected) in any_node(), command in any_command(), keep in 1_usize..5,
    ) {
        let decided = node.decide(&command, keep, &claims);
        let named: HashSet<_> = command.iter().map(|(image, _)| image.name_by_digest()).collect();
        for (name, decision) in &decided {
            prop_assert!(*decision != Decision::LetGo || !(protected.contains(name) || named.contains(name)), "{}", name);
        }
        for repository in [HERE, THERE] {
            let of_it = |name: &&String| name.starts_with(&format!("{repository}@"));
            let stay = decided.iter().filter(|(_, decision)| **decision != Decision::LetGo).map(|(name, _)| name);
            let stay = stay.filter(of_it).filter(|name| !protected.contains(*name) && !named.contains(*name));
            prop_assert!(stay.count() <= keep);
        }
    }

    #[test]
    fn the_order_of_a_commands_images_and_of_what_is_found_changes_nothing(
        (node, claims, _) in any_node(), command in any_command(), keep in 1_usize..5,
    ) {
        let mut turned = node.clone();
        turned.ours.reverse();
        let mut reversed = command.clone();
        reversed.reverse();
        prop_assert_eq!(node.decide(&command, keep, &claims), turned.decide(&reversed, keep, &claims));
    }

    #[test]
    fn commands_in_any_order_let_nothing_go_that_has_a_claim(
        (mut node, claims, protected) in any_node(), commands in prop::collection::vec((any_command(), 1_usize..5), 1..5),
    ) {
        for (command, keep) in commands {
            let decided = node.decide(&command, keep, &claims);
            prop_assert!(gone(&decided).iter().all(|name| !protected.contains(*name)));
            node.ours.retain(|ours| decided.get(&name_by_digest(ours)) != Some(&Decision::LetGo));
            for (name, decision) in &decided {
                if *decision == Decision::LetGo {
                    let (repository, digest) = name.split_once('@').unwrap();
                    let names = &mut node.inventory.names;
                    names.retain(|_, named| named.target.digest != digest || !named.name.starts_with(repository));
                }
            }
        }
    }

    #[test]
    fn with_more_kept_nothing_more_goes((node, claims, _) in any_node(), command in any_command(), keep in 1_usize..5) {
        let fewer = node.decide(&command, keep, &claims);
        let more = node.decide(&command, keep + 1, &claims);
        prop_assert!(gone(&more).iter().all(|name| gone(&fewer).contains(name)));
    }
}

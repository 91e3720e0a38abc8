//! Snapshots: which of ours stay.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::Tag;
use prefetch::bake::{ARCHITECTURE_TAG, Architecture, EXECUTION_TAG, KEEP_TAG, PUBLISHED_TAG};

/// A snapshot of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// The architecture it is for; none where its tag is gone.
    pub architecture: Option<Architecture>,
    /// The ARN of the execution that made it; none where its tag is gone.
    pub execution: Option<String>,
    /// The moment of its publication, in UTC and ISO 8601; none where it is half-made.
    pub published: Option<String>,
    /// True where somebody keeps it by its tag.
    pub is_kept: bool,
}

impl Snapshot {
    /// Reads what EC2 says of a snapshot.
    pub fn of(snapshot: &aws_sdk_ec2::types::Snapshot) -> Option<Self> {
        let tag = |key: &str| value(snapshot.tags(), key).map(str::to_owned);
        Some(Self {
            id: snapshot.snapshot_id()?.to_owned(),
            architecture: tag(ARCHITECTURE_TAG).and_then(|text| text.parse().ok()),
            execution: tag(EXECUTION_TAG),
            published: tag(PUBLISHED_TAG),
            is_kept: tag(KEEP_TAG).is_some(),
        })
    }
}

/// Gives the value of a tag.
pub fn value<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key)).and_then(Tag::value)
}

/// A key of a tag, and its value.
pub type KeyValue = (&'static str, String);

/// Returns true where something carries tags.
pub fn carries(tags: &[Tag], wanted: &[KeyValue]) -> bool {
    wanted.iter().all(|(key, text)| value(tags, key) == Some(text.as_str()))
}

/// Tells of each published snapshot why it stays, by its id: the newest so many of each architecture do, those that are
/// named or kept by their tag, and those of no architecture; others are not told of.
pub fn staying(snapshots: &[Snapshot], keep: usize, named: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut of_each: BTreeMap<Option<Architecture>, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.published.is_some()) {
        of_each.entry(snapshot.architecture).or_default().push(snapshot);
    }
    let mut staying = BTreeMap::new();
    for (architecture, mut snapshots) in of_each {
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse((&snapshot.published, &snapshot.id)));
        for (place, snapshot) in snapshots.into_iter().enumerate() {
            let because = if named.contains(&snapshot.id) {
                "it is the published one".to_owned()
            } else if snapshot.is_kept {
                format!("it has the tag {KEEP_TAG}")
            } else if architecture.is_none() {
                format!("its tag {ARCHITECTURE_TAG} names no architecture")
            } else if place < keep {
                format!("it is one of the {keep} newest")
            } else {
                continue;
            };
            staying.insert(snapshot.id.clone(), because);
        }
    }
    staying
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(id: &str, published: Option<u8>) -> Snapshot {
        Snapshot {
            id: id.to_owned(),
            architecture: Some(Architecture::X86),
            execution: None,
            published: published.map(|hour| format!("2026-11-21T{hour:02}:00:00.000Z")),
            is_kept: false,
        }
    }

    #[test]
    fn the_newest_of_each_architecture_stay_whatever_order_they_are_listed_in() {
        let arm = |id: &str, hour| Snapshot {
            architecture: Some(Architecture::Arm),
            ..snapshot(id, Some(hour))
        };
        let snapshots = [
            snapshot("snap-2", Some(2)),
            snapshot("snap-3", Some(3)),
            snapshot("snap-1", Some(1)),
            arm("snap-4", 0),
        ];
        let stay: Vec<String> = staying(&snapshots, 2, &BTreeSet::new()).into_keys().collect();
        assert_eq!(stay, ["snap-2", "snap-3", "snap-4"]);
    }

    #[test]
    fn the_published_one_stays_however_old_it_is_and_so_do_one_that_is_kept_and_one_of_no_architecture() {
        let nowhere = Snapshot {
            architecture: None,
            ..snapshot("snap-0", Some(0))
        };
        let kept = Snapshot {
            is_kept: true,
            ..snapshot("snap-4", Some(0))
        };
        let snapshots = [
            nowhere,
            snapshot("snap-1", Some(1)),
            snapshot("snap-2", Some(2)),
            snapshot("snap-3", Some(3)),
            kept,
        ];
        let stay = staying(&snapshots, 1, &["snap-1".to_owned()].into());
        assert_eq!(stay["snap-1"], "it is the published one");
        assert_eq!(stay["snap-3"], "it is one of the 1 newest");
        assert_eq!(
            stay["snap-0"],
            "its tag bake-snapshot/architecture names no architecture"
        );
        assert_eq!(stay["snap-4"], "it has the tag bake-snapshot/keep");
        assert_eq!(stay.len(), 4);
    }

    proptest! {
        #[test]
        fn whoever_goes_is_older_than_as_many_as_are_kept(
            hours in prop::collection::vec(prop::option::of(0..24_u8), 0..12),
            keep in 1..6_usize,
            named in 0..12_usize,
        ) {
            let snapshots: Vec<Snapshot> =
                hours.iter().enumerate().map(|(k, hour)| snapshot(&format!("snap-{k}"), *hour)).collect();
            let named: BTreeSet<String> = [format!("snap-{named}")].into();
            let stay = staying(&snapshots, keep, &named);
            let published = snapshots.iter().filter(|snapshot| snapshot.published.is_some());
            for snapshot in published {
                let newer = snapshots.iter().filter(|other| other.published > snapshot.published).count();
                if !stay.contains_key(&snapshot.id) {
                    prop_assert!(!named.contains(&snapshot.id));
                    let not_older = snapshots.iter().filter(|other| other.published >= snapshot.published).count();
                    prop_assert!(not_older > keep);
                } else if newer >= keep {
                    prop_assert!(named.contains(&snapshot.id));
                }
            }
        }
    }
}

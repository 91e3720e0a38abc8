//! A rule's use of an image: when its nodes were last seen to run it, and how many of them.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc, serde::ts_seconds_option};
use serde::{Deserialize, Serialize};

use super::node_set::NodeSet;
use crate::image::Image;

/// Limits for how many days a row keeps its nodes: the last whole one, and the one that goes on.
const MAX_DAYS: usize = 2;
/// Sets how long after the first node the others are waited for: an inventory takes milliseconds, on a tenth of them at once.
const OTHERS: TimeDelta = TimeDelta::minutes(15);

/// Holds what is known of a rule's use of an image.
///
/// Is the same in whatever order, and however often, reports come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// The image, as pods name it.
    #[serde(rename = "sk")]
    pub image: Image,
    /// Tells how often the row was written.
    #[serde(default)]
    pub version: u32,
    /// The image's size on a node, in bytes; 0 where no node has told.
    #[serde(default)]
    pub bytes: u64,
    /// The day on which it was first seen.
    pub first: NaiveDate,
    /// Tells when a node first told of it; not there where none has, and in rows of older versions.
    #[serde(default, with = "ts_seconds_option", skip_serializing_if = "Option::is_none")]
    pub told_at: Option<DateTime<Utc>>,
    /// The last two days on which it was seen, with its nodes.
    pub days: BTreeMap<NaiveDate, UsageDay>,
}

/// Holds on which nodes an image was seen on one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageDay {
    /// Those where containers ran it.
    pub running: NodeSet,
    /// Those of them to which prefetch had brought it.
    pub prefetched: NodeSet,
}

impl UsageRow {
    /// Begins with an image that was seen on a day, on no node yet.
    #[must_use]
    pub fn new(image: Image, day: NaiveDate, bytes: u64) -> Self {
        Self {
            image,
            version: 0,
            bytes,
            first: day,
            told_at: None,
            days: [(day, UsageDay::default())].into(),
        }
    }

    /// Takes in what is known from elsewhere of the same image; the version stays.
    pub fn merge(&mut self, other: &Self) {
        self.bytes = self.bytes.max(other.bytes);
        self.first = self.first.min(other.first);
        self.told_at = [self.told_at, other.told_at].into_iter().flatten().min();
        for (day, seen) in &other.days {
            let known = self.days.entry(*day).or_default();
            known.running.merge(&seen.running);
            known.prefetched.merge(&seen.prefetched);
        }
        while self.days.len() > MAX_DAYS {
            self.days.pop_first();
        }
    }

    /// Returns the last day on which it was seen.
    #[must_use]
    pub fn last(&self) -> NaiveDate {
        self.days.keys().next_back().copied().unwrap_or(self.first)
    }

    /// Returns true where it was seen within so many days before today.
    #[must_use]
    pub fn is_within(&self, days: u32, today: NaiveDate) -> bool {
        self.last() + Days::new(days.into()) >= today
    }

    /// Returns true where a node has told of it, and not only a job brought it, so long ago that the others have told as well.
    #[must_use]
    pub fn is_told_by_nodes(&self, now: DateTime<Utc>) -> bool {
        let is_told = self.bytes > 0 || self.nodes() > 0;
        is_told && self.told_at.is_none_or(|told_at| told_at + OTHERS <= now)
    }

    /// Returns on how many nodes it ran lately: the larger number of its last two days, for one of them goes on.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        self.days.values().map(|day| day.running.count()).max().unwrap_or(0)
    }

    /// Returns on how many of these prefetch had brought it.
    #[must_use]
    pub fn prefetched_nodes(&self) -> u64 {
        let of_days = self.days.values().map(|day| day.prefetched.count());
        of_days.max().unwrap_or(0)
    }

    /// Returns true where these numbers are estimates.
    #[must_use]
    pub fn is_estimated(&self) -> bool {
        self.days.values().any(|day| day.running.is_estimated())
    }

    /// Returns on how many nodes it runs as far as is known: those of today or of the day before.
    #[must_use]
    pub fn running_nodes(&self, today: NaiveDate) -> u64 {
        let lately = self.days.iter().filter(|(day, _)| **day + Days::new(1) >= today);
        lately.map(|(_, day)| day.running.count()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image() -> Image {
        let text = format!("public.ecr.aws/eks/coredns:v1@sha256:{}", "0".repeat(64));
        text.parse().unwrap()
    }

    fn day(day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 12, 1 + day).unwrap()
    }

    fn seen(on: u32, nodes: &[usize]) -> UsageRow {
        let mut row = UsageRow::new(image(), day(on), u64::from(on));
        row.told_at = Some(
            day(on)
                .and_hms_opt(0, 0, u32::try_from(nodes.len()).unwrap())
                .unwrap()
                .and_utc(),
        );
        let seen = row.days.get_mut(&day(on)).unwrap();
        for node in nodes {
            seen.running.add(&node.to_string());
        }
        row
    }

    #[test]
    fn the_nodes_of_today_are_no_fewer_than_those_of_the_day_before() {
        let mut row = seen(3, &[1, 2, 3]);
        row.merge(&seen(4, &[1]));
        assert_eq!((row.nodes(), row.last(), row.first), (3, day(4), day(3)));
        assert_eq!([4, 5, 6].map(|today| row.running_nodes(day(today))), [3, 1, 0]);
        assert!(row.is_within(14, day(18)) && !row.is_within(14, day(19)));
    }

    #[test]
    fn what_ran_days_ago_and_was_only_seen_today_runs_nowhere() {
        let mut row = seen(0, &[1, 2, 3]);
        row.merge(&seen(9, &[]));
        assert_eq!((row.last(), row.running_nodes(day(9))), (day(9), 0));
    }

    #[test]
    fn a_row_of_an_older_or_newer_version_is_read() {
        let item = |text: &str| -> UsageRow { serde_json::from_str(text).unwrap() };
        let row = item(&format!(
            r#"{{"pk": "usage#gpu", "sk": "{}", "first": "2026-12-01", "days": {{}}, "expires_at": 5, "color": "blue"}}"#,
            image()
        ));
        assert_eq!((row.last(), row.nodes(), row.version), (day(0), 0, 0));
    }

    proptest! {
        #[test]
        fn a_row_is_the_same_in_whatever_order_and_repetition_it_is_told(
            (told, shuffled) in prop::collection::vec((0..6_u32, prop::collection::vec(0..200_usize, 0..5)), 1..12)
                .prop_flat_map(|told| {
                    let twice = [told.clone(), told.clone()].concat();
                    (Just(told), Just(twice).prop_shuffle())
                }),
        ) {
            let folded = |told: &[(u32, Vec<usize>)]| {
                let mut rows = told.iter().map(|(day, nodes)| seen(*day, nodes));
                let mut row = rows.next().unwrap();
                rows.for_each(|other| row.merge(&other));
                row
            };
            let row = folded(&told);
            prop_assert_eq!(&folded(&shuffled), &row);
            let last = told.iter().map(|(day, _)| *day).max().unwrap();
            prop_assert_eq!(row.last(), day(last));
            prop_assert!(row.days.len() <= MAX_DAYS);
            let item: crate::rows::Item = serde_dynamo::to_item(&row).unwrap();
            prop_assert_eq!(serde_dynamo::from_item::<_, UsageRow>(item).unwrap(), row);
        }
    }
}

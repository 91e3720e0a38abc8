//! What is known of a node, and how a report changes it: in whatever order reports come, and however often.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ops::{Add, AddAssign, Sub},
};

use chrono::{DateTime, Utc};
use prefetch::{
    image::Image,
    outcome::{Status, is_retryable},
};
use serde::{Deserialize, Serialize};

use crate::finding::Report;

/// What became of an image on a node, by the last try that tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub status: Status,
    pub reason: String,
    pub seconds: f64,
    pub bytes: u64,
    /// How often the node tried to pull within the command.
    pub attempts: u32,
    /// The number of the command among the job's tries.
    pub attempt: u8,
    /// Whether the node said so itself.
    pub reported: bool,
}

impl Outcome {
    /// Whether this outcome counts where another is known of the same image and node.
    ///
    /// The later try counts; of one try what the node said itself, then that the image is there, then the worse. Outcomes are
    /// totally ordered by it, and that is what makes the fold free of order and repetition.
    fn beats(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    fn rank(&self) -> impl PartialOrd {
        // The bits of floats that are not negative are ordered as these are.
        let seconds = self.seconds.to_bits();
        let said = (self.reason.as_str(), seconds, self.bytes, self.attempts);
        let status = (self.status.is_warm(), Reverse(self.status));
        (self.attempt, self.reported, status, said)
    }

    /// Whether a further try is worth it.
    pub fn wants_retry(&self, max_retries: u8) -> bool {
        self.status == Status::Failed && is_retryable(&self.reason) && self.attempt <= max_retries
    }
}

/// What is known of a node in a job: a row of the table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Node {
    /// How often the row was written.
    pub version: u32,
    /// The number of the last try that is known.
    pub attempt: u8,
    /// What became of each image.
    pub images: BTreeMap<Image, Outcome>,
    /// When the last command that is known ended.
    pub ended_at: DateTime<Utc>,
    /// The last command that is known.
    pub command: String,
    /// When the last command ended that left all its images there.
    pub warm_at: Option<DateTime<Utc>>,
    /// The outbox row that was written with the row, where there was one.
    pub outbox: Option<String>,
}

impl Node {
    /// Takes in what a command's report says.
    pub fn fold(&mut self, command: &str, report: &Report) {
        for (image, outcome) in &report.outcomes {
            if self.images.get(image).is_none_or(|known| outcome.beats(known)) {
                self.images.insert(image.clone(), outcome.clone());
            }
        }
        if report.outcomes.values().all(|outcome| outcome.status.is_warm()) {
            self.warm_at = self.warm_at.max(Some(report.ended_at));
        }
        if (report.attempt, report.ended_at, command) > (self.attempt, self.ended_at, self.command.as_str()) {
            self.attempt = report.attempt;
            self.ended_at = report.ended_at;
            command.clone_into(&mut self.command);
        }
    }

    /// The worst that became of an image; of no image at all nothing bad did.
    pub fn status(&self) -> Status {
        let statuses = self.images.values().map(|outcome| outcome.status);
        statuses.min().unwrap_or(Status::Cached)
    }

    /// Whether a further try is queued.
    pub fn is_retrying(&self, max_retries: u8) -> bool {
        self.images.values().any(|outcome| outcome.wants_retry(max_retries))
    }

    /// What the node adds to the counters of its job.
    pub fn counters(&self) -> Counters {
        let count = |status| i64::from(self.status() == status);
        let pulled = self.images.values().filter(|outcome| outcome.status == Status::Pulled);
        Counters {
            pulled: count(Status::Pulled),
            cached: count(Status::Cached),
            skipped: count(Status::Skipped),
            failed: count(Status::Failed),
            retried: i64::from(self.attempt.saturating_sub(1)),
            bytes: pulled.map(|outcome| outcome.bytes.cast_signed()).sum(),
        }
    }
}

/// A job's counters: nodes by status, further tries, and the bytes that were pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Counters {
    pub pulled: i64,
    pub cached: i64,
    pub skipped: i64,
    pub failed: i64,
    pub retried: i64,
    pub bytes: i64,
}

impl Counters {
    /// Gives each counter with its name.
    pub fn named(self) -> [(&'static str, i64); 6] {
        [
            ("pulled", self.pulled),
            ("cached", self.cached),
            ("skipped", self.skipped),
            ("failed", self.failed),
            ("retried", self.retried),
            ("bytes", self.bytes),
        ]
    }

    /// How many nodes were counted.
    pub fn nodes(self) -> i64 {
        self.pulled + self.cached + self.skipped + self.failed
    }

    fn zip(self, other: Self, of: impl Fn(i64, i64) -> i64) -> Self {
        Self {
            pulled: of(self.pulled, other.pulled),
            cached: of(self.cached, other.cached),
            skipped: of(self.skipped, other.skipped),
            failed: of(self.failed, other.failed),
            retried: of(self.retried, other.retried),
            bytes: of(self.bytes, other.bytes),
        }
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, i64::add)
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, i64::sub)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cloud::image;

    fn outcome(attempt: u8) -> impl Strategy<Value = Outcome> {
        let status = prop::sample::select(vec![Status::Failed, Status::Skipped, Status::Cached, Status::Pulled]);
        let reason = prop::sample::select(vec!["", "registry", "denied"]);
        (status, reason, 0..3_u64, any::<bool>()).prop_map(move |(status, reason, bytes, reported)| Outcome {
            status,
            reason: reason.to_owned(),
            seconds: 0.0,
            bytes,
            attempts: 1,
            attempt,
            reported,
        })
    }

    fn command_and_report() -> impl Strategy<Value = (String, Report)> {
        (1..=3_u8, 0..3_i64, "[a-c]").prop_flat_map(|(attempt, seconds, command)| {
            let outcomes = prop::collection::btree_map(
                (1..=3_usize).prop_map(|k| image(k).parse().unwrap()),
                outcome(attempt),
                1..4,
            );
            outcomes.prop_map(move |outcomes| {
                let report = Report {
                    node: "i-0abc0000000000001".to_owned(),
                    attempt,
                    ended_at: DateTime::from_timestamp_secs(seconds).unwrap(),
                    outcomes,
                };
                (command.clone(), report)
            })
        })
    }

    fn folded<'a>(reports: impl IntoIterator<Item = &'a (String, Report)>) -> Node {
        let mut node = Node::default();
        for (command, report) in reports {
            node.fold(command, report);
        }
        node
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_of_reports_gives_the_same_node(
            (reports, shuffled) in prop::collection::vec(command_and_report(), 1..6).prop_flat_map(|reports| {
                let twice = [reports.clone(), reports.clone()].concat();
                (Just(reports), Just(twice).prop_shuffle())
            }),
        ) {
            let node = folded(&reports);
            let otherwise = folded(&shuffled);
            prop_assert_eq!(node.counters(), otherwise.counters());
            prop_assert_eq!(node.counters().nodes(), 1);
            prop_assert_eq!(node, otherwise);
        }

        #[test]
        fn a_later_try_counts_and_of_one_try_what_the_node_says_itself(reports in prop::collection::vec(command_and_report(), 1..6)) {
            let node = folded(&reports);
            for (image, known) in &node.images {
                for (_, report) in &reports {
                    let Some(said) = report.outcomes.get(image) else { continue };
                    prop_assert!((known.attempt, known.reported) >= (said.attempt, said.reported));
                }
            }
        }
    }
}

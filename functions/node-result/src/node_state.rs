//! Node states: what is known of a node in a job, and how a report changes it, in whatever order reports come, and however
//! often.

use std::{cmp::Reverse, collections::BTreeMap};

use chrono::{DateTime, Utc};
use prefetch::{
    image::Image,
    outcome::Status,
    rows::{Counters, Outcome},
};
use serde::Deserialize;

use crate::observation::{Job, NodeOutcomes};

/// Ranks the outcomes of an image on a node: the one that ranks higher counts.
///
/// The later attempt counts; of one attempt what the node said itself, then that the image is there, then that it never will
/// be, then the worse. Outcomes are totally ordered by it, and that is what makes the fold free of order and repetition.
fn rank(outcome: &Outcome) -> impl PartialOrd {
    // The bits of floats that are not negative are ordered as these are.
    let seconds = outcome.seconds.to_bits();
    let said = (outcome.reason.as_str(), seconds, outcome.bytes, outcome.attempts);
    let status = (
        outcome.status.is_warm(),
        outcome.is_not_applicable(),
        Reverse(outcome.status),
    );
    (outcome.attempt, outcome.reported, status, said)
}

/// Holds what is known of a node in a job: a row of the table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct NodeState {
    /// Tells how often the row was written.
    pub version: u32,
    /// The number of the last attempt that is known.
    pub attempt: u8,
    /// The outcome of each image.
    pub images: BTreeMap<Image, Outcome>,
    /// Tells when the last command that is known ended.
    pub ended_at: DateTime<Utc>,
    /// The last command that is known.
    pub command: String,
    /// Tells when the last command ended that left all its images there that the node can hold.
    pub warm_at: Option<DateTime<Utc>>,
    /// True where a retry was queued when the row was written.
    #[serde(default)]
    pub retrying: bool,
    /// The outbox row that was written with the row, where there was one.
    pub outbox: Option<String>,
}

/// Tells how a node's state changes.
#[derive(Debug)]
pub struct NodeChange {
    pub job: Job,
    pub node: String,
    pub before: Option<NodeState>,
    pub after: NodeState,
}

impl NodeState {
    /// Takes in what a command did on the node.
    pub fn fold(&mut self, command: &str, report: &NodeOutcomes) {
        for (image, outcome) in &report.outcomes {
            if self.images.get(image).is_none_or(|known| rank(outcome) > rank(known)) {
                self.images.insert(image.clone(), outcome.clone());
            }
        }
        let mut applicable = applicable(&report.outcomes).peekable();
        if applicable.peek().is_some() && applicable.all(|outcome| outcome.status.is_warm()) {
            self.warm_at = self.warm_at.max(Some(report.ended_at));
        }
        if (report.attempt, report.ended_at, command) > (self.attempt, self.ended_at, self.command.as_str()) {
            self.attempt = report.attempt;
            self.ended_at = report.ended_at;
            command.clone_into(&mut self.command);
        }
    }

    /// Gives the worst that became of an image that the node can hold; of no image at all nothing bad did.
    pub fn status(&self) -> Status {
        let worst = applicable(&self.images).map(|outcome| outcome.status).min();
        let skipped = self.is_not_applicable().then_some(Status::Skipped);
        worst.or(skipped).unwrap_or(Status::Cached)
    }

    /// Returns true where the node can hold none of the images: it is none of the job.
    pub fn is_not_applicable(&self) -> bool {
        !self.images.is_empty() && self.images.values().all(Outcome::is_not_applicable)
    }

    /// Counts the node, as it adds to the counters of its job.
    pub fn counters(&self) -> Counters {
        let is_of_the_job = !self.is_not_applicable();
        let count = |status| i64::from(is_of_the_job && self.status() == status);
        let pulled = self.images.values().filter(|outcome| outcome.status == Status::Pulled);
        Counters {
            pulled: count(Status::Pulled),
            cached: count(Status::Cached),
            skipped: count(Status::Skipped),
            failed: count(Status::Failed),
            not_applicable: i64::from(!is_of_the_job),
            retrying: i64::from(self.retrying),
            retried: i64::from(self.attempt.saturating_sub(1)),
            bytes: pulled.map(|outcome| outcome.bytes.cast_signed()).sum(),
        }
    }
}

impl NodeChange {
    /// Returns true where nothing changes.
    pub fn is_none(&self) -> bool {
        self.before.as_ref() == Some(&self.after)
    }

    /// Lists the images of which something else is known than before.
    pub fn changed(&self) -> impl Iterator<Item = (&Image, &Outcome)> {
        let images = self.after.images.iter();
        images.filter(|(image, outcome)| self.known(image) != Some(outcome))
    }

    /// Gives what was known of an image before.
    pub fn known(&self, image: &Image) -> Option<&Outcome> {
        self.before.as_ref().and_then(|before| before.images.get(image))
    }

    /// Tells how the counters of the job move.
    pub fn counters(&self) -> Counters {
        let before = self.before.as_ref().map(NodeState::counters);
        self.after.counters() - before.unwrap_or_default()
    }
}

/// Lists the outcomes of those images that the node can hold.
pub fn applicable(images: &BTreeMap<Image, Outcome>) -> impl Iterator<Item = &Outcome> {
    images.values().filter(|outcome| !outcome.is_not_applicable())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cloud::image;

    fn outcome(attempt: u8) -> impl Strategy<Value = Outcome> {
        let status = prop::sample::select(vec![Status::Failed, Status::Skipped, Status::Cached, Status::Pulled]);
        let reason = prop::sample::select(vec!["", "registry", "denied", "platform"]);
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

    fn command_and_report() -> impl Strategy<Value = (String, NodeOutcomes)> {
        (1..=3_u8, 0..3_i64, "[a-c]").prop_flat_map(|(attempt, seconds, command)| {
            let outcomes = prop::collection::btree_map(
                (1..=3_usize).prop_map(|k| image(k).parse().unwrap()),
                outcome(attempt),
                1..4,
            );
            outcomes.prop_map(move |outcomes| {
                let report = NodeOutcomes {
                    node: "i-0abc0000000000001".to_owned(),
                    attempt,
                    ended_at: DateTime::from_timestamp_secs(seconds).unwrap(),
                    outcomes,
                    totals: None,
                };
                (command.clone(), report)
            })
        })
    }

    fn folded<'a>(reports: impl IntoIterator<Item = &'a (String, NodeOutcomes)>) -> NodeState {
        let mut node = NodeState::default();
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
        fn a_later_attempt_counts_and_of_one_attempt_what_the_node_says_itself(reports in prop::collection::vec(command_and_report(), 1..6)) {
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

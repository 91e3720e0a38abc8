//! The table's rows: their keys, and what they say of a job, of an image on a node, and of what a node holds.

mod held;
mod more;
mod observed;

use std::{
    collections::HashMap,
    ops::{Add, AddAssign, Sub},
};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    command::Trigger,
    outcome::{Status, is_not_applicable},
};

pub use held::{Failure, Held, Holding};
pub use more::{Brief, More, Presence};
pub use observed::{OBSERVED, Observed};

/// A row as DynamoDB has it.
pub type Item = HashMap<String, AttributeValue>;

/// A row's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The partition.
    pub pk: String,
    /// The row within it.
    pub sk: String,
}

impl Key {
    fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        let (pk, sk) = (pk.into(), sk.into());
        Self { pk, sk }
    }

    /// A job: what it is of, and its counters.
    #[must_use]
    pub fn job(job: &str) -> Self {
        Self::new(format!("job#{job}"), "job")
    }

    /// A node in a job: what became of its images.
    #[must_use]
    pub fn node(job: &str, node: &str) -> Self {
        Self::new(format!("job#{job}"), format!("node#{node}"))
    }

    /// That a job was cancelled.
    #[must_use]
    pub fn cancelled(job: &str) -> Self {
        Self::new(format!("job#{job}"), "cancelled")
    }

    /// That a job was observed, in the order in which that happened.
    #[must_use]
    pub fn observed(job: &str, at: DateTime<Utc>) -> Self {
        let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
        Self::new(OBSERVED, format!("{at}#{job}"))
    }

    /// A request that may come again, by the hash of its idempotency key.
    #[must_use]
    pub fn request(hash: &str) -> Self {
        Self::new(format!("request#{hash}"), "request")
    }

    /// A rule's last reconcile.
    #[must_use]
    pub fn reconcile(rule: &str) -> Self {
        Self::new(format!("reconcile#{rule}"), "reconcile")
    }

    /// A node, whatever the job: what it holds.
    #[must_use]
    pub fn held(node: &str) -> Self {
        Self::new(format!("node#{node}"), "node")
    }

    /// A launch of an instance, by when EC2 says it was: an instance that is started again is launched again.
    #[must_use]
    pub fn launch(node: &str, launched_at: Option<DateTime<Utc>>) -> Self {
        let at = launched_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        Self::new(format!("launch#{node}"), at.unwrap_or_else(|| "launch".to_owned()))
    }

    /// The counters of all jobs of a trigger: a row for each, for every transaction moves one.
    #[must_use]
    pub fn totals(trigger: Trigger) -> Self {
        Self::new("totals", trigger.to_string())
    }

    /// What has still to be done of a transaction.
    #[must_use]
    pub fn outbox(id: &str) -> Self {
        Self::new(outbox_partition(id.chars().next().unwrap_or('0')), id)
    }

    /// A command that the sweep is done with.
    #[must_use]
    pub fn swept(command: &str) -> Self {
        Self::new(format!("command#{command}"), "swept")
    }

    /// The key as attributes.
    #[must_use]
    pub fn item(&self) -> Item {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        [("pk", &self.pk), ("sk", &self.sk)]
            .map(|(name, value)| (name.to_owned(), text(value)))
            .into()
    }

    /// Reads the key of a row.
    #[must_use]
    pub fn of(item: &Item) -> Option<Self> {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
        Some(Self::new(text("pk")?, text("sk")?))
    }
}

/// The first characters of outbox rows' ids, which begin with a job's: as many partitions share the writes.
pub const OUTBOX_PARTITIONS: &str = "0123456789abcdef";

/// The partition of the outbox rows whose ids begin so.
#[must_use]
pub fn outbox_partition(first: char) -> String {
    format!("outbox#{first}")
}

/// What became of an image on a node, by the last try that tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it is there.
    pub status: Status,
    /// Why not, as one word; empty where it is.
    pub reason: String,
    /// How long the node took over it, in seconds.
    pub seconds: f64,
    /// How many bytes were pulled, compressed.
    pub bytes: u64,
    /// How often the node tried to pull within the command.
    pub attempts: u32,
    /// The number of the command among the job's tries.
    pub attempt: u8,
    /// Whether the node said so itself.
    pub reported: bool,
}

impl Outcome {
    /// Tells if the node can never hold the image.
    #[must_use]
    pub fn is_not_applicable(&self) -> bool {
        is_not_applicable(self.status, &self.reason)
    }
}

/// A job's counters: nodes by status, further tries, and the bytes that were pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Nodes that pulled.
    pub pulled: i64,
    /// Nodes that had all.
    pub cached: i64,
    /// Nodes that left something out.
    pub skipped: i64,
    /// Nodes where something failed.
    pub failed: i64,
    /// Nodes that can hold none of the images: they are none of the job, and in no share of its nodes.
    pub not_applicable: i64,
    /// Nodes that wait for a further try.
    pub retrying: i64,
    /// Further tries.
    pub retried: i64,
    /// Bytes that were pulled, compressed.
    pub bytes: i64,
}

impl Counters {
    /// Gives each counter with its name.
    #[must_use]
    pub fn named(self) -> [(&'static str, i64); 8] {
        [
            ("pulled", self.pulled),
            ("cached", self.cached),
            ("skipped", self.skipped),
            ("failed", self.failed),
            ("not_applicable", self.not_applicable),
            ("retrying", self.retrying),
            ("retried", self.retried),
            ("bytes", self.bytes),
        ]
    }

    /// How many nodes were counted, those that are none of the job included.
    #[must_use]
    pub fn nodes(self) -> i64 {
        self.pulled + self.cached + self.skipped + self.failed + self.not_applicable
    }

    fn zip(self, other: Self, of: impl Fn(i64, i64) -> i64) -> Self {
        Self {
            pulled: of(self.pulled, other.pulled),
            cached: of(self.cached, other.cached),
            skipped: of(self.skipped, other.skipped),
            failed: of(self.failed, other.failed),
            not_applicable: of(self.not_applicable, other.not_applicable),
            retrying: of(self.retrying, other.retrying),
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

//! The keys of all rows of the table.
//!
//! Those of bakes, `bake#lock` and `bake#push` with `execution`, are written by the state machine alone
//! (`statemachine/bake-snapshot.asl.json`).

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::{command::Trigger, image::Image};

/// The partition whose rows name the observed jobs in their order.
pub const OBSERVED: &str = "observed";

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

    /// Names the row of a job: what it is of, and its counters.
    #[must_use]
    pub fn job(job: &str) -> Self {
        Self::new(format!("job#{job}"), "job")
    }

    /// Names the row of a node in a job: what became of its images.
    #[must_use]
    pub fn node(job: &str, node: &str) -> Self {
        Self::new(format!("job#{job}"), format!("node#{node}"))
    }

    /// Names the row that says that a job was cancelled.
    #[must_use]
    pub fn cancelled(job: &str) -> Self {
        Self::new(format!("job#{job}"), "cancelled")
    }

    /// Names the row that lists a job as observed, in the order in which that happened.
    #[must_use]
    pub fn observed(job: &str, at: DateTime<Utc>) -> Self {
        let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
        Self::new(OBSERVED, format!("{at}#{job}"))
    }

    /// Names the row of a request that may come again, by the hash of its idempotency key.
    #[must_use]
    pub fn request(hash: &str) -> Self {
        Self::new(format!("request#{hash}"), "request")
    }

    /// Names the row of a rule's last reconcile.
    #[must_use]
    pub fn reconcile(rule: &str) -> Self {
        Self::new(format!("reconcile#{rule}"), "reconcile")
    }

    /// Names the row of a node's inventory, whatever the job.
    #[must_use]
    pub fn inventory(node: &str) -> Self {
        Self::new(format!("node#{node}"), "node")
    }

    /// Names the row of a launch of an instance, by when EC2 says it was: an instance that is started again is launched again.
    #[must_use]
    pub fn launch(node: &str, launched_at: Option<DateTime<Utc>>) -> Self {
        let at = launched_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        Self::new(format!("launch#{node}"), at.unwrap_or_else(|| "launch".to_owned()))
    }

    /// Names the row of the counters of all jobs of a trigger: a row for each, for every transaction moves one.
    #[must_use]
    pub fn totals(trigger: Trigger) -> Self {
        Self::new("totals", trigger.to_string())
    }

    /// Names the row of a rule's use of an image.
    #[must_use]
    pub fn usage(rule: &str, image: &Image) -> Self {
        Self::new(usage_partition(rule), image.to_string())
    }

    /// Names the row of the images that a rule names itself.
    #[must_use]
    pub fn named_images(rule: &str) -> Self {
        Self::new(format!("images#{rule}"), "images")
    }

    /// Names the row of what has still to be done after a transaction.
    #[must_use]
    pub fn outbox(id: &str) -> Self {
        Self::new(outbox_partition(id.chars().next().unwrap_or('0')), id)
    }

    /// Names the row of a command that the sweep is done with.
    #[must_use]
    pub fn swept(command: &str) -> Self {
        Self::new(format!("command#{command}"), "swept")
    }

    /// Returns the key as attributes.
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

/// Names the partition of the outbox rows whose ids begin so.
#[must_use]
pub fn outbox_partition(first: char) -> String {
    format!("outbox#{first}")
}

/// Names the partition of what a rule's nodes run.
#[must_use]
pub fn usage_partition(rule: &str) -> String {
    format!("usage#{rule}")
}

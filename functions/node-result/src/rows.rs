//! Rows of the table: their keys, and what is read of them.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use prefetch::command::Trigger;
use serde::{Deserialize, de::DeserializeOwned};

use crate::fold::Counters;

/// A row as DynamoDB has it.
pub type Item = HashMap<String, AttributeValue>;

/// A row's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub pk: String,
    pub sk: String,
}

impl Key {
    fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        let (pk, sk) = (pk.into(), sk.into());
        Self { pk, sk }
    }

    /// A job: what it is of, and its counters.
    pub fn job(job: &str) -> Self {
        Self::new(format!("job#{job}"), "job")
    }

    /// A node in a job: what became of its images.
    pub fn node(job: &str, node: &str) -> Self {
        Self::new(format!("job#{job}"), format!("node#{node}"))
    }

    /// The counters of all jobs of a trigger: a row for each, for every transaction moves one.
    pub fn totals(trigger: Trigger) -> Self {
        Self::new("totals", trigger.to_string())
    }

    /// What has still to be done of a transaction.
    pub fn outbox(id: &str) -> Self {
        Self::new(outbox_partition(id.chars().next().unwrap_or('0')), id)
    }

    /// A command that the sweep is done with.
    pub fn swept(command: &str) -> Self {
        Self::new(format!("command#{command}"), "swept")
    }

    /// The key as attributes.
    pub fn item(&self) -> Item {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        [("pk", &self.pk), ("sk", &self.sk)]
            .map(|(name, value)| (name.to_owned(), text(value)))
            .into()
    }

    /// Reads the key of a row.
    pub fn of(item: &Item) -> Option<Self> {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
        Some(Self::new(text("pk")?, text("sk")?))
    }
}

/// The first characters of outbox rows' ids, which begin with a job's: as many partitions share the writes.
pub const OUTBOX_PARTITIONS: &str = "0123456789abcdef";

/// The partition of the outbox rows whose ids begin so.
pub fn outbox_partition(first: char) -> String {
    format!("outbox#{first}")
}

/// What is read of a job's row.
#[derive(Debug, Deserialize)]
pub struct JobRow {
    pub requested_at: DateTime<Utc>,
    /// To how many nodes its first command went, once that is known.
    pub targets: Option<u32>,
    /// How long its slowest node took from the request on.
    pub slowest_seconds: Option<f64>,
    #[serde(flatten)]
    pub counters: Counters,
}

/// Rows that were read, by their keys; one that is not there has no entry.
#[derive(Debug, Default)]
pub struct Rows(BTreeMap<Key, Item>);

impl Rows {
    /// Reads a row as what it is of.
    pub fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, serde_dynamo::Error> {
        let item = self.0.get(key).cloned();
        item.map(serde_dynamo::from_item).transpose()
    }

    /// Whether the row is there.
    pub fn contains(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }
}

impl Extend<Item> for Rows {
    fn extend<I: IntoIterator<Item = Item>>(&mut self, items: I) {
        let keyed = items.into_iter().filter_map(|item| Some((Key::of(&item)?, item)));
        self.0.extend(keyed);
    }
}

//! Transactions: changes that are written together, with what has to be done after it in the outbox.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::TransactWriteItem;
use chrono::{DateTime, NaiveDate, Utc};
use prefetch::{
    command::Trigger,
    image::Image,
    outcome::Status,
    rows::{Counters, Key, Outcome},
    table::Rows,
    usage_line::UsageTotals,
};
use serde::{Deserialize, Serialize};

use crate::{
    changes::{Change, JobChange},
    decision::Settled,
    inventory::{Inventories, InventoryChange},
    metrics,
    node_state::NodeChange,
    observation::{Job, Observation},
    queue::QueueMessage,
    records::records,
    retry::RetryPolicy,
    settings::Settings,
    table::{Expression, Table, TableError, Writer, number, text, value},
};

/// Limits the nodes that change in one transaction, which takes 100 rows and 4 MB (DynamoDB API reference,
/// TransactWriteItems): each has two, and beside them stand up to as many jobs, the totals and the outbox.
const MAX_NODES: usize = 32;
/// Limits the bytes of one outbox row; DynamoDB takes 400 KB, names and keys included (DynamoDB, constraints).
const MAX_OUTBOX: usize = 350 * 1024;

/// Holds what changes in one transaction: rows of jobs of one trigger and date, which share one object of records.
#[derive(Debug)]
pub struct Transaction {
    trigger: Trigger,
    /// The day of the jobs' requests, in UTC.
    date: NaiveDate,
    pub jobs: BTreeMap<String, JobChange>,
    nodes: Vec<NodeChange>,
    inventories: BTreeMap<String, InventoryChange>,
    pub outbox: Outbox,
    /// The observations that are settled by it.
    pub observations: Vec<(Observation, Settled)>,
}

/// Holds what has to be done after a transaction; its row is written within it, and goes once all is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    /// The row's sort key.
    #[serde(rename = "sk")]
    pub id: String,
    /// The key of the object of records.
    pub key: String,
    /// The records.
    pub body: String,
    /// The retries, which wait in the result queue until they are due.
    pub retries: Vec<QueueMessage>,
    /// The metrics, for the log.
    pub metrics: String,
    /// Nodes that may go on from the hook of their launch, where the stack has one.
    #[serde(default)]
    pub launched: BTreeSet<String>,
    /// Tells when the transaction was written.
    pub created_at: DateTime<Utc>,
}

/// Puts changes together in transactions, in the order in which these are to be written.
///
/// # Errors
/// A row that cannot be read.
pub fn transactions(
    changes: Vec<Change>,
    rows: &Rows,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Result<Vec<Transaction>, serde_dynamo::Error> {
    let mut transactions: Vec<Transaction> = Vec::new();
    for change in changes {
        let outbox = Outbox::of(&change, settings, now);
        let has_room = |transaction: &Transaction| transaction.has_room(&change.job.job, outbox.size());
        let place = transactions.iter().position(has_room).unwrap_or_else(|| {
            transactions.push(Transaction::new(&change, now));
            transactions.len() - 1
        });
        transactions[place].take(change, outbox);
    }
    let mut inventories = Inventories::new(rows);
    for transaction in &mut transactions {
        let observations = transaction.observations.iter().map(|(observation, _)| observation);
        transaction.inventories = inventories.take(observations)?;
    }
    Ok(transactions)
}

/// Lists the totals of usage in a node's reports.
fn totals(observations: &[Observation]) -> Vec<UsageTotals> {
    let reports = observations.iter().filter_map(Observation::of_node);
    reports.filter_map(|(_, report)| report.totals).collect()
}

impl Outbox {
    fn of(change: &Change, settings: &Settings, now: DateTime<Utc>) -> Self {
        match (&change.node, &change.targets) {
            (Some(node), _) => Self::of_node(node, &totals(&change.observations), settings, now),
            (None, Some(targets)) => Self {
                metrics: metrics::of_targets(&change.job.job, targets.count, settings, now),
                ..Self::default()
            },
            (None, None) => Self::default(),
        }
    }

    fn of_node(change: &NodeChange, totals: &[UsageTotals], settings: &Settings, now: DateTime<Utc>) -> Self {
        let trigger = change.job.trigger;
        let policy = RetryPolicy {
            trigger,
            max_retries: settings.max_retries,
        };
        let retries = policy.retries_of(change);
        let has_hook = settings.launch_hook.is_some();
        let is_launched = has_hook && trigger.is_of_launch() && !change.after.retrying;
        Self {
            launched: is_launched.then(|| change.node.clone()).into_iter().collect(),
            body: records(change, policy, settings),
            metrics: metrics::of_node(change, !retries.is_empty(), totals, settings, now),
            retries,
            ..Self::default()
        }
    }

    /// Returns true where there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.size() == 0
    }

    /// Counts the bytes that there are to keep, but for names and keys.
    fn size(&self) -> usize {
        let retries: usize = self.retries.iter().map(|retry| retry.body.len()).sum();
        let launched: usize = self.launched.iter().map(String::len).sum();
        self.body.len() + retries + self.metrics.len() + launched
    }

    /// Adds what has to be done besides.
    fn append(&mut self, other: Self) {
        self.body += &other.body;
        self.retries.extend(other.retries);
        self.metrics += &other.metrics;
        self.launched.extend(other.launched);
    }
}

impl Transaction {
    fn new(change: &Change, now: DateTime<Utc>) -> Self {
        let Job {
            id,
            trigger,
            requested_at,
            ..
        } = &change.job.job;
        let date = requested_at.date_naive();
        let id = match &change.node {
            None => format!("{id}-targets"),
            Some(change) => format!("{id}-{}-{}", change.node, change.after.version + 1),
        };
        Self {
            trigger: *trigger,
            date,
            jobs: BTreeMap::new(),
            nodes: Vec::new(),
            inventories: BTreeMap::new(),
            outbox: Outbox {
                key: format!("records/trigger={trigger}/date={date}/{id}.jsonl"),
                id,
                created_at: now,
                ..Outbox::default()
            },
            observations: Vec::new(),
        }
    }

    fn has_room(&self, job: &Job, bytes: usize) -> bool {
        self.trigger == job.trigger
            && self.date == job.requested_at.date_naive()
            && self.nodes.len() < MAX_NODES
            && self.jobs.len() < MAX_NODES
            && self.outbox.size() + bytes <= MAX_OUTBOX
    }

    fn take(&mut self, change: Change, outbox: Outbox) {
        let id = change.job.job.id.clone();
        let job = self.jobs.entry(id).or_insert_with(|| JobChange::new(&change.job));
        job.take(&change);
        self.outbox.append(outbox);
        self.nodes.extend(change.node);
        let observations = change.observations.into_iter();
        self.observations
            .extend(observations.map(|observation| (observation, change.settled.clone())));
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`TableError::Contended`] where rows have to be read again, [`TableError::Write`] for everything else.
    pub async fn write(&self, table: &Table, now: DateTime<Utc>) -> Result<(), TableError> {
        table.write(self.items(&table.writer(now))).await
    }

    /// Builds the items: nodes, their inventories, jobs, totals, and the outbox where something has to be done after it.
    fn items(&self, writer: &Writer<'_>) -> Vec<TransactWriteItem> {
        let outbox = (!self.outbox.is_empty()).then_some(self.outbox.id.as_str());
        let nodes = self.nodes.iter().map(|change| node(writer, change, outbox));
        let inventories = self.inventories.iter().map(|(node, change)| {
            let InventoryChange { before, after } = change;
            writer.replace(&Key::inventory(node), *before, after)
        });
        let jobs = self.jobs.values().map(|change| job(writer, change));
        let outbox = outbox.map(|id| writer.put(&Key::outbox(id), &self.outbox));
        let changes = nodes.chain(inventories).chain(jobs);
        changes.chain([self.totals(writer)]).chain(outbox).collect()
    }

    /// Moves the counters of all jobs with the transaction's trigger.
    fn totals(&self, writer: &Writer<'_>) -> TransactWriteItem {
        let jobs = self.jobs.values();
        let new = jobs.clone().filter(|change| change.is_new).count();
        let mut delta = Counters::default();
        jobs.for_each(|change| delta += change.delta);
        let mut update = Expression::default();
        let new = ("jobs", i64::try_from(new).expect("a transaction has few jobs"));
        for (name, delta) in delta.named().into_iter().chain([new]) {
            update.add(name, delta);
        }
        writer.update(&Key::totals(self.trigger), update)
    }
}

/// Is a node's row as it is written.
#[derive(Serialize)]
struct NodeRow<'a> {
    version: u32,
    attempt: u8,
    status: Status,
    retrying: bool,
    images: &'a BTreeMap<Image, Outcome>,
    ended_at: DateTime<Utc>,
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbox: Option<&'a str>,
}

/// Puts a node's row in the place of the version that was read.
fn node(writer: &Writer<'_>, change: &NodeChange, outbox: Option<&str>) -> TransactWriteItem {
    let node = &change.after;
    let row = NodeRow {
        version: node.version + 1,
        attempt: node.attempt,
        status: node.status(),
        retrying: node.retrying,
        images: &node.images,
        ended_at: node.ended_at,
        command: &node.command,
        warm_at: node.warm_at,
        outbox: outbox.or(node.outbox.as_deref()),
    };
    let before = change.before.as_ref().map(|before| before.version);
    writer.replace(&Key::node(&change.job.id, &change.node), before, &row)
}

/// Moves a job's counters, and says once what it is of.
fn job(writer: &Writer<'_>, change: &JobChange) -> TransactWriteItem {
    let job = &change.job;
    let mut update = Expression::default();
    update.set_once("trigger", text(&job.trigger));
    update.set_once("rule", text(&job.rule));
    if let Some(before) = &change.requested_before {
        update.set("requested_at", value(&job.requested_at));
        update.require_value("requested_at", "requested_before", value(before));
    } else {
        update.set_once("requested_at", value(&job.requested_at));
    }
    update.set("expires_at", writer.expires_at.clone());
    if let Some(targets) = &change.targets {
        update.set("targets", number(&targets.count));
        update.set("images", value(&targets.images));
        update.require("attribute_not_exists(#targets)");
    }
    if let Some((seconds, node)) = &change.slowest {
        update.set("slowest_seconds", number(seconds));
        update.set("slowest_node", text(node));
        update.require("(attribute_not_exists(#slowest_seconds) OR #slowest_seconds < :slowest_seconds)");
    }
    if change.is_new {
        update.require("attribute_not_exists(#requested_at)");
    }
    for (name, delta) in change.delta.named() {
        update.add(name, delta);
    }
    writer.update(&Key::job(&job.id), update)
}

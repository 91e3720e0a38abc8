//! Retries: which outcomes are worth one, after how long, and what becomes of one that is due.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use aws_sdk_sqs::Client;
use prefetch::{
    command::Trigger,
    image::Image,
    outcome::{Status, is_retryable},
    retry::Retry,
    rows::{Key, Outcome},
};

use crate::{
    decision::{Decision, DecisionReason, Explanation},
    event::RetryDue,
    node_state::{NodeChange, NodeState},
    queue::{self, MAX_MESSAGES, QueueMessage},
    table::Table,
};

/// Limits how long SQS delays a message, in seconds (SQS service model, `DelaySeconds`).
const MAX_DELAY: u32 = 900;

/// Decides which outcomes of a trigger's jobs are retried.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    pub trigger: Trigger,
    /// Tells how many retries a node gets.
    pub max_retries: u8,
}

impl RetryPolicy {
    /// Returns true where an outcome is worth a retry.
    ///
    /// A node that a reconcile does not reach is left to the next one: the queue would fill with nodes that nobody reaches.
    /// Images that a boot did not bring are brought by the node's launch, and what only neighbours run is brought if it can be.
    pub fn allows(self, outcome: &Outcome) -> bool {
        (outcome.reported || self.trigger != Trigger::Reconcile)
            && self.trigger != Trigger::Boot
            && !self.trigger.is_best_effort()
            && outcome.status == Status::Failed
            && is_retryable(&outcome.reason)
            && outcome.attempt <= self.max_retries
    }

    /// Returns true where any outcome of a node is worth a retry.
    pub fn allows_any(self, node: &NodeState) -> bool {
        node.images.values().any(|outcome| self.allows(outcome))
    }

    /// Gives the retries of the images that need one since this change.
    ///
    /// Images that needed it before have been queued with the change that said so.
    pub fn retries_of(self, change: &NodeChange) -> Vec<QueueMessage> {
        let mut images_of: BTreeMap<u8, Vec<Image>> = BTreeMap::new();
        for (image, outcome) in change.changed() {
            let known = change.known(image);
            let is_queued = known.is_some_and(|known| known.attempt == outcome.attempt && self.allows(known));
            if self.allows(outcome) && !is_queued {
                images_of.entry(outcome.attempt + 1).or_default().push(image.clone());
            }
        }
        let of_attempt = |(attempt, images)| Retry {
            job: change.job.id.clone(),
            node: change.node.clone(),
            rule: change.job.rule.clone(),
            trigger: change.job.trigger,
            attempt,
            images,
        };
        images_of.into_iter().map(of_attempt).map(waiting).collect()
    }
}

/// Writes the message of a retry that waits in the result queue.
fn waiting(retry: Retry) -> QueueMessage {
    QueueMessage {
        seconds: delay(&retry).cast_signed(),
        body: serde_json::to_string(&RetryDue { retry }).expect("a retry is JSON"),
    }
}

/// Tells how long a retry waits: about a minute before the second attempt, five before the third, a quarter of an hour before
/// others.
///
/// A fifth more or less, by node and job, so that nodes that failed together do not retry together.
fn delay(retry: &Retry) -> u32 {
    let about = match retry.attempt {
        ..=2 => 60,
        3 => 300,
        _ => MAX_DELAY,
    };
    let mut hasher = DefaultHasher::new();
    (&retry.job, &retry.node, retry.attempt).hash(&mut hasher);
    let percent = 80 + u32::from(hasher.finish().to_le_bytes()[0]) * 40 / 255;
    (about * percent / 100).min(MAX_DELAY)
}

/// Sends retries that are due to the node queue, each to be seen at once, unless its job was cancelled.
///
/// It costs one BatchGetItem for each 100 jobs, and one SendMessageBatch for each ten retries. A retry that is sent twice
/// finds the images there.
pub async fn queue_due(
    table: &Table,
    sqs: &Client,
    node_queue: &str,
    retries: &BTreeSet<Retry>,
) -> BTreeMap<Retry, Decision> {
    let key = |retry: &Retry| Key::cancelled(&retry.job);
    let rows = match table.read(&retries.iter().map(key).collect()).await {
        Ok(rows) => rows,
        Err(error) => return of_all(retries, |_| Decision::aws_error(&error)),
    };
    let (cancelled, due): (Vec<&Retry>, Vec<&Retry>) = retries.iter().partition(|retry| rows.contains(&key(retry)));
    let mut decisions = of_all(cancelled, |retry| {
        let message = format!("job {} was cancelled", retry.job);
        Decision::Dropped(Explanation::new(DecisionReason::Cancelled, message))
    });
    for due in due.chunks(MAX_MESSAGES) {
        let messages: Vec<QueueMessage> = due.iter().map(|retry| at_once(retry)).collect();
        let sent = queue::send(sqs, node_queue, &messages).await;
        decisions.extend(of_all(due.iter().copied(), |retry| match &sent {
            Ok(()) => Decision::queued(retry),
            Err(error) => Decision::aws_error(error),
        }));
    }
    decisions
}

/// Writes the message of a retry that is to be seen at once.
fn at_once(retry: &Retry) -> QueueMessage {
    QueueMessage {
        seconds: 0,
        body: serde_json::to_string(retry).expect("a retry is JSON"),
    }
}

fn of_all<'a>(
    retries: impl IntoIterator<Item = &'a Retry>,
    decision: impl Fn(&Retry) -> Decision,
) -> BTreeMap<Retry, Decision> {
    let decided = retries.into_iter().map(|retry| (retry.clone(), decision(retry)));
    decided.collect()
}

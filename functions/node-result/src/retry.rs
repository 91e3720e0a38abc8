//! Retries: the further tries that a node's outcomes are worth.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use prefetch::{image::Image, retry::Retry};
use serde::{Deserialize, Serialize};

use crate::changes::NodeChange;

/// The longest that SQS delays a message, in seconds (SQS service model, `DelaySeconds`).
const MAX_DELAY: u32 = 900;

/// A further try as it stands in the result queue while it waits.
#[derive(Debug, Serialize, Deserialize)]
pub struct Waiting {
    pub retry: Retry,
}

/// A message for a queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delayed {
    /// After how many seconds it is to be seen.
    pub seconds: i32,
    /// The message, as JSON.
    pub body: String,
}

impl Delayed {
    /// A further try that is to be seen at once.
    pub fn now(retry: &Retry) -> Self {
        Self {
            seconds: 0,
            body: serde_json::to_string(retry).expect("a retry is JSON"),
        }
    }

    /// A further try that has to wait.
    fn later(retry: Retry) -> Self {
        Self {
            seconds: delay(&retry).cast_signed(),
            body: serde_json::to_string(&Waiting { retry }).expect("a retry is JSON"),
        }
    }
}

/// Gives the further tries of the images that need one since this change.
///
/// Images that needed it before have been queued with the change that said so.
pub fn retries(change: &NodeChange, max_retries: u8) -> Vec<Delayed> {
    let trigger = change.job.trigger;
    let mut images_of: BTreeMap<u8, Vec<Image>> = BTreeMap::new();
    for (image, outcome) in change.changed() {
        let known = change.known(image);
        let is_queued =
            known.is_some_and(|known| known.attempt == outcome.attempt && known.wants_retry(trigger, max_retries));
        if outcome.wants_retry(trigger, max_retries) && !is_queued {
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
    images_of.into_iter().map(of_attempt).map(Delayed::later).collect()
}

/// Tells how long a try waits: about a minute before the second, five before the third, a quarter of an hour before others.
///
/// A fifth more or less, by node and job, so that nodes that failed together do not try together.
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

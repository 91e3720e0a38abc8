//! Records: one line of JSON for each outcome of an image, for whoever queries them later.

use chrono::{DateTime, Utc};
use prefetch::outcome::Status;
use serde::Serialize;

use crate::{node_state::NodeChange, retry::RetryPolicy, settings::Settings};

/// Is one record; trigger and date are not in it: they are in the object's key, as partitions.
#[derive(Serialize)]
struct Record<'a> {
    time: DateTime<Utc>,
    cluster: &'a str,
    job: &'a str,
    command: &'a str,
    rule: &'a str,
    requested_by: Option<&'a str>,
    node: &'a str,
    attempt: u8,
    image: String,
    repository: &'a str,
    tag: Option<&'a str>,
    digest: &'a str,
    status: Status,
    reason: &'a str,
    seconds: f64,
    bytes: u64,
    pull_attempts: u32,
    retrying: bool,
}

/// Writes the outcomes that changed on a node, each as a line.
pub fn records(change: &NodeChange, policy: RetryPolicy, settings: &Settings) -> String {
    let mut lines = String::new();
    for (image, outcome) in change.changed() {
        let record = Record {
            time: change.after.ended_at,
            cluster: &settings.cluster,
            job: &change.job.id,
            command: &change.after.command,
            rule: &change.job.rule,
            requested_by: change.job.requested_by.as_deref(),
            node: &change.node,
            attempt: outcome.attempt,
            image: image.to_string(),
            repository: image.repository(),
            tag: image.tag(),
            digest: image.digest(),
            status: outcome.status,
            reason: &outcome.reason,
            seconds: outcome.seconds,
            bytes: outcome.bytes,
            pull_attempts: outcome.attempts,
            retrying: policy.allows(outcome),
        };
        lines += &serde_json::to_string(&record).expect("a record is JSON");
        lines.push('\n');
    }
    lines
}

//! A job: what its row, and SSM of its first command, say of it together.

use std::collections::HashSet;

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{command::Trigger, image::Image, rows::Counters, settings::Mode, ssm};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    settings::Settings,
    status::command::{first_comment, images, requested_at},
};

/// The longest wait before a retry (SQS service model, `DelaySeconds`).
const RETRY_DELAY: TimeDelta = TimeDelta::minutes(15);

/// Holds what is known of a job.
#[derive(Debug)]
pub struct Job {
    /// The id of its first command.
    pub id: String,
    /// Says what made it necessary.
    pub trigger: Trigger,
    /// The rule's name.
    pub rule: String,
    /// Tells when it was requested.
    pub requested_at: DateTime<Utc>,
    /// Tells how far it is.
    pub state: JobState,
    /// Is true where its first command has ended at SSM, or is forgotten there.
    pub has_ended: bool,
    /// The same job once more: commands that SSM took because answers got lost.
    pub duplicates: Vec<String>,
    images: Option<Vec<Image>>,
    targets: Option<i64>,
    row: JobRow,
    /// Nodes that wait for a retry and are gone.
    gone: HashSet<String>,
}

/// Tells how far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Nodes have still to report, or to retry.
    Running,
    /// Every node has reported, and none retries; or it is too late for that.
    Done,
    /// Somebody cancelled it.
    Cancelled,
    /// The stack observed: nothing was sent.
    Observed,
}

/// Holds what is read of a job's row.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct JobRow {
    trigger: Option<Trigger>,
    rule: Option<String>,
    requested_at: Option<DateTime<Utc>>,
    targets: Option<i64>,
    images: Option<Vec<Image>>,
    slowest_seconds: Option<f64>,
    slowest_node: Option<String>,
    /// Who requested it: an ARN, or a schedule's name.
    requested_by: Option<String>,
    #[serde(default)]
    duplicates: Vec<String>,
    /// Where it was observed, whose retry it is, and which nodes would have been sent it.
    mode: Option<Mode>,
    retry_of: Option<String>,
    destination: Option<Value>,
    #[serde(flatten)]
    counters: Counters,
}

impl JobRow {
    /// Returns true once every node is known to have reported, and none to retry, whatever SSM says.
    pub fn is_settled(&self) -> bool {
        self.is_settled_of(self.targets)
    }

    fn is_settled_of(&self, targets: Option<i64>) -> bool {
        targets.is_some_and(|targets| self.counters.nodes() >= targets) && self.counters.retrying <= 0
    }
}

/// Holds what is known of a job, before it is judged.
#[derive(Default)]
pub struct JobFacts {
    /// Its first command, where SSM has been asked.
    pub command: Option<Command>,
    /// Its row, where there is one.
    pub row: Option<JobRow>,
    /// Is true where a row says so.
    pub is_cancelled: bool,
}

impl JobFacts {
    /// Judges what is known of a job; none where neither SSM nor the table knows of such a one.
    pub fn job(self, id: &str, settings: &Settings, now: DateTime<Utc>) -> Option<Job> {
        let command = self.command.as_ref();
        let comment = command.and_then(first_comment);
        if self.row.is_none() && comment.is_none() {
            return None;
        }
        let has_ended = command.is_none_or(ssm::has_ended);
        let row = self.row.unwrap_or_default();
        let requested_at = row.requested_at.or(command.and_then(requested_at))?;
        // Before it is known to have ended, SSM may not have found all of its nodes.
        let known_by_ssm = command.map(|command| i64::from(command.target_count()));
        let targets = row.targets.or(known_by_ssm);
        let is_settled = (row.targets.is_some() || has_ended) && row.is_settled_of(targets);
        let is_over = is_settled || requested_at + longest(settings) < now;
        Some(Job {
            id: id.to_owned(),
            trigger: row.trigger.or(comment.as_ref().map(|comment| comment.trigger))?,
            rule: row.rule.clone().or(comment.map(|comment| comment.rule))?,
            requested_at,
            state: state(row.mode, self.is_cancelled, is_over),
            has_ended,
            duplicates: row.duplicates.clone(),
            images: row.images.clone().or(command.map(images)),
            targets,
            row,
            gone: HashSet::new(),
        })
    }
}

fn state(mode: Option<Mode>, is_cancelled: bool, is_over: bool) -> JobState {
    if mode == Some(Mode::Observe) {
        JobState::Observed
    } else if is_cancelled {
        JobState::Cancelled
    } else if is_over {
        JobState::Done
    } else {
        JobState::Running
    }
}

/// Gives the time after which nothing more can be heard of a job: every attempt takes and waits as
/// long as it may, and its end is known at the next sweep at last.
fn longest(settings: &Settings) -> TimeDelta {
    let shared = &settings.shared;
    let deadline = TimeDelta::seconds((shared.delivery_timeout + shared.execution_timeout).into());
    (deadline + settings.sweep_interval + RETRY_DELAY) * (i32::from(settings.max_retries) + 1)
}

impl Job {
    /// Returns true once nothing more is to come of it, whatever its rows say: retries that never came, or were dropped
    /// because it was cancelled, are written down nowhere.
    fn is_over(&self) -> bool {
        self.state != JobState::Running
    }

    /// Gives how many nodes it waits for, once all others are done.
    pub fn waits_only_for_retries(&self) -> Option<i64> {
        let have_all_reported =
            self.has_ended && self.targets.is_some_and(|targets| self.row.counters.nodes() >= targets);
        (!self.is_over() && have_all_reported).then_some(self.row.counters.retrying)
    }

    /// Leaves out nodes that are gone, and ends with the last that is waited for.
    pub fn leave_out(&mut self, gone: HashSet<String>) {
        self.gone = gone;
        if i64::try_from(self.gone.len()).is_ok_and(|gone| gone >= self.row.counters.retrying) {
            self.state = JobState::Done;
        }
    }

    /// Returns true where a node that is to retry may still do so.
    pub fn waits_for(&self, node: &str) -> bool {
        !self.is_over() && !self.gone.contains(node)
    }

    /// Writes the job as answers have it.
    pub fn to_json(&self) -> Value {
        let mut job = json!({
            "id": self.id, "trigger": self.trigger, "rule": self.rule, "requestedAt": self.requested_at,
            "state": self.state, "bytes": count(self.row.counters.bytes), "nodes": self.nodes(),
        });
        if let Some(images) = &self.images {
            job["images"] = json!(images);
        }
        if let (Some(seconds), Some(node)) = (self.row.slowest_seconds, &self.row.slowest_node) {
            job["slowestSeconds"] = json!(seconds);
            job["slowestNode"] = json!(node);
        }
        if self.state == JobState::Observed {
            job["mode"] = json!(Mode::Observe);
            job["targets"] = json!(self.row.destination);
        }
        if let Some(who) = &self.row.requested_by {
            job["requestedBy"] = json!(who);
        }
        if let Some(first) = &self.row.retry_of {
            job["retryOf"] = json!(first);
        }
        job
    }

    fn nodes(&self) -> Value {
        let Counters {
            pulled,
            cached,
            skipped,
            failed,
            not_applicable,
            retried,
            retrying,
            ..
        } = self.row.counters;
        // A job that was running while its stack learnt to count them may have counted one too few.
        let gone = i64::try_from(self.gone.len()).unwrap_or(i64::MAX);
        let retrying = if self.is_over() { 0 } else { (retrying - gone).max(0) };
        let mut nodes = json!({
            "done": count(self.row.counters.nodes() - retrying),
            "pulled": count(pulled), "cached": count(cached), "skipped": count(skipped), "failed": count(failed),
            "notApplicable": count(not_applicable), "retrying": count(retrying), "retried": count(retried),
        });
        if let Some(targets) = self.targets {
            nodes["total"] = count(targets);
        }
        nodes
    }
}

/// Writes a number as answers have it: DynamoDB's numbers are never negative here but by a fault of ours.
pub fn count(number: i64) -> Value {
    Value::from(number.max(0))
}

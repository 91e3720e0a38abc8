//! GET /jobs/{id}: what has become of a job.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{
    command::{Comment, Trigger, is_command_id, is_unsent_id},
    image::Image,
    instance::{instances, is_up, node_name},
    node::{is_instance_id, is_managed_id},
    outcome::Status,
    report::report,
    rows::{Counters, Item, Key, Outcome},
    settings::Mode,
    ssm::{self, SsmError},
    table,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;

use crate::{
    answer::Answer,
    handler::Jobs,
    problem::Problem,
    query::{Query, stale, token},
    settings::Settings,
    store::{self, NODE, StoreError, count},
};

/// How long after its deadline a try's end is known at last: the sweep runs every quarter of an hour.
const SWEEP: TimeDelta = TimeDelta::minutes(15);
/// The longest wait before a further try (SQS service model, `DelaySeconds`).
const RETRY_DELAY: TimeDelta = TimeDelta::minutes(15);

/// Of how many nodes at most it is asked whether they are there still.
const MAX_ASKED: i64 = 200;
/// Of how many nodes of a page at most the names are told: of as many as one DescribeInstances is asked for.
const MAX_NAMED: usize = 200;

/// What is known of a job.
#[derive(Debug)]
pub struct Job {
    /// The id of its first command.
    pub id: String,
    /// What made it necessary.
    pub trigger: Trigger,
    /// The rule's name.
    pub rule: String,
    /// When it was requested.
    pub requested_at: DateTime<Utc>,
    /// How far it is.
    pub state: State,
    /// Whether its first command has ended at SSM, or is forgotten there.
    pub has_ended: bool,
    /// The same job once more: commands that SSM took because answers got lost.
    pub duplicates: Vec<String>,
    images: Option<Vec<Image>>,
    targets: Option<i64>,
    row: JobRow,
    /// Nodes that wait for a further try and are gone.
    gone: HashSet<String>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nodes have still to report, or are to try again.
    Running,
    /// Every node has reported, and none tries again; or it is too late for that.
    Done,
    /// Somebody cancelled it.
    Cancelled,
    /// The stack observed: nothing was sent.
    Observed,
}

/// What is read of a job's row.
#[derive(Clone, Debug, Default, Deserialize)]
struct JobRow {
    trigger: Option<Trigger>,
    rule: Option<String>,
    requested_at: Option<DateTime<Utc>>,
    targets: Option<i64>,
    images: Option<Vec<Image>>,
    slowest_seconds: Option<f64>,
    slowest_node: Option<String>,
    /// Who asked for it: an ARN, or a schedule's name.
    requested_by: Option<String>,
    #[serde(default)]
    duplicates: Vec<String>,
    /// Where it was observed, whose further try it is, and which nodes would have been sent it.
    mode: Option<Mode>,
    retry_of: Option<String>,
    destination: Option<Value>,
    #[serde(flatten)]
    counters: Counters,
}

impl JobRow {
    /// Whether every node is known to have reported, and none to try again.
    fn is_settled(&self, targets: Option<i64>) -> bool {
        targets.is_some_and(|targets| self.counters.nodes() >= targets) && self.counters.retrying <= 0
    }
}

/// What is read of a node's row.
#[derive(Debug, Deserialize)]
struct NodeRow {
    sk: String,
    attempt: u8,
    status: Status,
    retrying: bool,
    images: BTreeMap<Image, Outcome>,
    ended_at: DateTime<Utc>,
    warm_at: Option<DateTime<Utc>>,
}

/// What is known of a job, before it is judged.
#[derive(Default)]
pub struct Known {
    command: Option<Command>,
    row: Option<JobRow>,
    is_cancelled: bool,
}

impl Known {
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
        let is_settled = (row.targets.is_some() || has_ended) && row.is_settled(targets);
        let state = if row.mode == Some(Mode::Observe) {
            State::Observed
        } else if self.is_cancelled {
            State::Cancelled
        } else if is_settled || requested_at + longest(settings) < now {
            State::Done
        } else {
            State::Running
        };
        Some(Job {
            id: id.to_owned(),
            trigger: row.trigger.or(comment.as_ref().map(|comment| comment.trigger))?,
            rule: row.rule.clone().or(comment.map(|comment| comment.rule))?,
            requested_at,
            state,
            has_ended,
            duplicates: row.duplicates.clone(),
            images: row.images.clone().or(command.map(images)),
            targets,
            row,
            gone: HashSet::new(),
        })
    }
}

impl Job {
    /// Whether nothing more is to come of it, whatever its rows say: further tries that never came, or were dropped because
    /// it was cancelled, are written down nowhere.
    fn is_over(&self) -> bool {
        self.state != State::Running
    }

    /// The job as answers have it.
    pub fn told(&self) -> Value {
        let Counters {
            pulled,
            cached,
            skipped,
            failed,
            not_applicable,
            retried,
            retrying,
            bytes,
        } = self.row.counters;
        // A job that was running while its stack learnt to count them may have counted one too few.
        let gone = i64::try_from(self.gone.len()).unwrap_or(i64::MAX);
        let retrying = if self.is_over() { 0 } else { (retrying - gone).max(0) };
        let mut nodes = json!({
            "done": count(self.row.counters.nodes() - retrying),
            "pulled": count(pulled), "cached": count(cached), "skipped": count(skipped), "failed": count(failed),
            "notApplicable": count(not_applicable), "retrying": count(retrying), "retried": count(retried),
        });
        let mut told = json!({
            "id": self.id, "trigger": self.trigger, "rule": self.rule, "requestedAt": self.requested_at,
            "state": self.state, "bytes": count(bytes),
        });
        if let Some(targets) = self.targets {
            nodes["total"] = count(targets);
        }
        told["nodes"] = nodes;
        if let Some(images) = &self.images {
            told["images"] = json!(images);
        }
        if let (Some(seconds), Some(node)) = (self.row.slowest_seconds, &self.row.slowest_node) {
            told["slowestSeconds"] = json!(seconds);
            told["slowestNode"] = json!(node);
        }
        if self.state == State::Observed {
            told["mode"] = json!(Mode::Observe);
            told["targets"] = json!(self.row.destination);
        }
        if let Some(who) = &self.row.requested_by {
            told["requestedBy"] = json!(who);
        }
        if let Some(job) = &self.row.retry_of {
            told["retryOf"] = json!(job);
        }
        told
    }
}

/// After which time nothing more can be heard of a job: every try takes as long as it may, and waits as long as it may.
fn longest(settings: &Settings) -> TimeDelta {
    let shared = &settings.shared;
    let deadline = TimeDelta::seconds((shared.delivery_timeout + shared.execution_timeout).into());
    (deadline + SWEEP + RETRY_DELAY) * (i32::from(settings.max_retries) + 1)
}

/// Tells what has become of a job, with a page of its nodes: one Query, one ListCommands while SSM has to be asked, and one
/// DescribeInstances where nodes of the page are not warm, which are told by their names too.
///
/// # Errors
/// A 400 where id or query is not accepted, a 404 where there is no such job, a 503 where AWS cannot be asked.
pub async fn get(jobs: &Jobs, id: &str, query: &Query, now: DateTime<Utc>) -> Result<Answer, Problem> {
    check_id(id)?;
    let page = query.page::<String>(1..=1000, 100)?;
    if page.next.as_ref().is_some_and(|next| !is_managed_id(next)) {
        return Err(stale());
    }
    let is_first = page.next.is_none();
    let after = page.next.map(|node| Key::node(id, &node).item());
    // The first page begins with the job's own rows.
    let limit = page.limit + if is_first { 2 } else { 0 };
    let partition = Key::job(id).pk;
    let (items, last) = store::page(jobs, &partition, Some(limit), after)
        .await
        .map_err(|error| Problem::unavailable(&error))?;
    let rows = if is_first {
        let mut rows = table::Rows::default();
        rows.extend(items.iter().filter(|item| !is_node(item)).cloned());
        rows
    } else {
        rows(jobs, &BTreeSet::from([id]))
            .await
            .map_err(|error| Problem::unavailable(&error))?
    };
    let job = without_gone(jobs, judged(jobs, id, &rows, now).await?).await?;
    let mut nodes: Vec<Item> = items.into_iter().filter(is_node).collect();
    let has_more = last.is_some() || nodes.len() > page.limit;
    nodes.truncate(page.limit);
    let nodes: Vec<NodeRow> = serde_dynamo::from_items(nodes)
        .map_err(StoreError::Row)
        .map_err(|error| Problem::unavailable(&error))?;
    let mut told = job.told();
    if let Some(last) = nodes.last().filter(|_| has_more) {
        told["next"] = json!(token(&node_id(last)));
    }
    let names = names(jobs, &nodes).await;
    told["outcomes"] = nodes.iter().map(|row| outcome(row, &job, &names)).collect();
    Ok(Answer::ok(&told))
}

/// Names the nodes of a page that are not warm as Kubernetes does, by their ids; what EC2 does not tell is left out.
async fn names(jobs: &Jobs, nodes: &[NodeRow]) -> HashMap<String, String> {
    let cold = nodes.iter().filter(|row| !row.status.is_warm()).map(node_id);
    let cold = cold.filter(|id| is_instance_id(id)).take(MAX_NAMED);
    let ids: Vec<String> = cold.map(str::to_owned).collect();
    let instances = instances(&jobs.ec2, &ids).await.unwrap_or_else(|error| {
        warn!("nodes are told without their names: {}", report(&error));
        HashMap::new()
    });
    let named = |(id, instance)| Some((id, node_name(&instance)?.to_owned()));
    instances.into_iter().filter_map(named).collect()
}

/// Finds out which of the nodes that a job still waits for are gone, once all others are done: their further tries are
/// dropped, which is written down nowhere.
async fn without_gone(jobs: &Jobs, mut job: Job) -> Result<Job, Problem> {
    let retrying = job.row.counters.retrying;
    let have_all_reported = job.has_ended && job.targets.is_some_and(|targets| job.row.counters.nodes() >= targets);
    if job.state != State::Running || !have_all_reported || !(1..=MAX_ASKED).contains(&retrying) {
        return Ok(job);
    }
    let waiting = store::waiting(jobs, &job.id).await;
    let waiting = waiting.map_err(|error| Problem::unavailable(&error))?;
    let instances = instances(&jobs.ec2, &waiting).await;
    let instances = instances.map_err(|error| Problem::unavailable(&error))?;
    let is_there = |id: &String| instances.get(id).is_some_and(is_up);
    job.gone = waiting.into_iter().filter(|id| !is_there(id)).collect();
    if i64::try_from(job.gone.len()).is_ok_and(|gone| gone >= retrying) {
        job.state = State::Done;
    }
    Ok(job)
}

/// Reads and judges a job without its nodes.
///
/// # Errors
/// A 400 where the id is none, a 404 where there is no such job, a 503 where AWS cannot be asked.
pub async fn job(jobs: &Jobs, id: &str, now: DateTime<Utc>) -> Result<Job, Problem> {
    check_id(id)?;
    let rows = rows(jobs, &BTreeSet::from([id])).await;
    judged(jobs, id, &rows.map_err(|error| Problem::unavailable(&error))?, now).await
}

/// Judges a job by its rows, and by what SSM says of its first command where they do not tell that all is over.
async fn judged(jobs: &Jobs, id: &str, rows: &table::Rows, now: DateTime<Utc>) -> Result<Job, Problem> {
    let mut known = known(rows, id, None).map_err(|error| Problem::unavailable(&error))?;
    let is_over = known.row.as_ref().is_some_and(|row| row.is_settled(row.targets));
    if !is_over && !is_unsent_id(id) {
        let command = match ssm::command(&jobs.ssm, id).await {
            Ok(command) => Some(command),
            Err(SsmError::NoCommand) => None,
            Err(error) => return Err(Problem::unavailable(&error)),
        };
        let of_ours = |command: &Command| command.document_name() == Some(&jobs.settings.shared.document);
        known.command = command.filter(of_ours);
    }
    let job = known.job(id, &jobs.settings, now);
    job.ok_or_else(|| Problem::not_found(format!("there is no job {id}, or it is long over")))
}

/// Checks that a path names a job.
fn check_id(id: &str) -> Result<(), Problem> {
    if is_command_id(id) {
        return Ok(());
    }
    let accepted = "a job's id: 32 lower-case hexadecimal digits in groups of 8, 4, 4, 4 and 12";
    Err(Problem::field("id", Some(json!(id)), accepted))
}

/// Reads the rows of jobs, and whether they were cancelled: one BatchGetItem for each 50.
pub async fn rows(jobs: &Jobs, ids: &BTreeSet<&str>) -> Result<table::Rows, StoreError> {
    let keys = ids.iter().flat_map(|id| [Key::job(id), Key::cancelled(id)]).collect();
    Ok(table::read(&jobs.dynamodb, &jobs.settings.table, &keys).await?)
}

/// Gathers what rows and SSM say of a job.
///
/// # Errors
/// [`StoreError`] where a row cannot be understood.
pub fn known(rows: &table::Rows, id: &str, command: Option<Command>) -> Result<Known, StoreError> {
    Ok(Known {
        command,
        row: rows.get(&Key::job(id))?,
        is_cancelled: rows.contains(&Key::cancelled(id)),
    })
}

/// Reads the comment of a command that is a job's first.
pub fn first_comment(command: &Command) -> Option<Comment> {
    let comment: Comment = command.comment()?.parse().ok()?;
    (comment.attempt == 1 && comment.job.is_none()).then_some(comment)
}

/// When SSM was asked for a command.
pub fn requested_at(command: &Command) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(command.requested_date_time()?.to_millis().ok()?)
}

fn images(command: &Command) -> Vec<Image> {
    let images = command.parameters().and_then(|parameters| parameters.get("images"));
    let images = images.into_iter().flatten().flat_map(|list| list.split(' '));
    images.filter_map(|image| image.parse().ok()).collect()
}

fn is_node(item: &Item) -> bool {
    Key::of(item).is_some_and(|key| key.sk.starts_with(NODE))
}

fn node_id(row: &NodeRow) -> &str {
    row.sk.trim_start_matches(NODE)
}

fn outcome(row: &NodeRow, job: &Job, names: &HashMap<String, String>) -> Value {
    let is_waiting = row.retrying && !job.is_over() && !job.gone.contains(node_id(row));
    let images = row.images.iter().map(|(image, outcome)| {
        json!({
            "image": image, "status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds,
            "bytes": outcome.bytes, "attempts": outcome.attempts,
        })
    });
    let mut told = json!({
        "node": node_id(row), "status": row.status, "attempt": row.attempt, "retrying": is_waiting,
        "endedAt": row.ended_at, "images": images.collect::<Value>(),
    });
    if let Some(name) = names.get(node_id(row)) {
        told["name"] = json!(name);
    }
    if let Some(warm_at) = row.warm_at {
        told["warmAt"] = json!(warm_at);
    }
    told
}

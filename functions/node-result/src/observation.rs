//! Observations: what SSM says of commands that ended, as it concerns their nodes and jobs.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ssm::{Client, types::Command};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use prefetch::{
    command::{Comment, Trigger, unsent_id},
    error_text::error_text,
    image::Image,
    outcome::Boot,
    rows::Outcome,
    ssm::{self, SsmError},
    usage_line::{UsageLine, UsageTotals},
};

use crate::{
    decision::{Decision, DecisionReason, Explanation, Noted},
    event::CommandEnded,
    report::{Report, comment},
};

/// Limits the calls to SSM at a time.
const AT_ONCE: usize = 10;
/// Limits how long before the command that brings it a boot is believed to have been: a node's clock may be wrong until it
/// is set.
const BELIEVED: TimeDelta = TimeDelta::days(7);

/// Maps events to what becomes of them.
pub type Decisions = BTreeMap<CommandEnded, Decision>;

/// Holds what SSM says of events.
#[derive(Debug)]
pub struct Observed {
    pub observations: Vec<Observation>,
    pub usage: Vec<NodeUsage>,
    /// Decides of those events that have no observation.
    pub decisions: Decisions,
}

/// Tells what is known of a job since an event.
#[derive(Clone, Debug)]
pub struct Observation {
    pub event: CommandEnded,
    /// The job that the command belongs to.
    pub job: Job,
    pub kind: ObservationKind,
}

/// Tells the observations apart.
#[derive(Clone, Debug)]
pub enum ObservationKind {
    /// A command ended on a node.
    Node(NodeOutcomes),
    /// The job's first command ended as a whole.
    Targets(Targets),
}

/// Names a job: its first command and the retries that followed.
#[derive(Clone, Debug)]
pub struct Job {
    /// The id of the job's first command.
    pub id: String,
    pub trigger: Trigger,
    /// The rule's name.
    pub rule: String,
    /// Tells when the command was sent; the job where the command is its first.
    pub requested_at: DateTime<Utc>,
    /// Who requested it, where its row says so.
    pub requested_by: Option<String>,
}

/// Tells what a command did on a node.
#[derive(Clone, Debug)]
pub struct NodeOutcomes {
    /// The node's instance id.
    pub node: String,
    /// The attempt's number.
    pub attempt: u8,
    /// Tells when the command ended there.
    pub ended_at: DateTime<Utc>,
    /// The outcome of each image.
    pub outcomes: BTreeMap<Image, Outcome>,
    /// The totals of the node's usage, where it said any.
    pub totals: Option<UsageTotals>,
}

/// Tells what a node runs, as it says with its report.
#[derive(Clone, Debug)]
pub struct NodeUsage {
    pub event: CommandEnded,
    /// The job that the command belongs to; an inventory is none, and stands for itself.
    pub job: Job,
    /// The node's instance id.
    pub node: String,
    /// Tells when the command ended there.
    pub ended_at: DateTime<Utc>,
    pub lines: Vec<UsageLine>,
    pub totals: Option<UsageTotals>,
}

/// Tells to how many nodes a job's first command went, and with which images.
#[derive(Clone, Debug)]
pub struct Targets {
    pub count: u32,
    pub images: Vec<Image>,
}

impl Observation {
    /// Returns true where it is of a boot, whose report an event's command only brings along.
    pub fn is_of_boot(&self) -> bool {
        self.job.trigger == Trigger::Boot
    }

    /// Gives the outcomes on the node with their event, where the observation is of a node.
    pub fn of_node(&self) -> Option<(&CommandEnded, &NodeOutcomes)> {
        match &self.kind {
            ObservationKind::Node(outcomes) => Some((&self.event, outcomes)),
            ObservationKind::Targets(_) => None,
        }
    }
}

impl Job {
    fn of(event: &CommandEnded, comment: Comment) -> Self {
        Self {
            id: comment.job.unwrap_or_else(|| event.command.clone()),
            trigger: comment.trigger,
            rule: comment.rule,
            requested_at: event.requested_at,
            requested_by: None,
        }
    }

    /// Counts the seconds from the request to a moment, to the millisecond; clocks may differ, they are never negative.
    pub fn seconds_until(&self, moment: DateTime<Utc>) -> f64 {
        let passed = moment.signed_duration_since(self.requested_at).num_milliseconds();
        f64::from(u32::try_from(passed.max(0)).unwrap_or(u32::MAX)) / 1000.0
    }
}

/// Asks SSM about commands that ended.
///
/// It costs one GetCommandInvocation per event of a node, and one ListCommands per command that ended as a whole or whose
/// nodes did not report fully.
pub async fn observe(client: &Client, events: &BTreeSet<CommandEnded>) -> Observed {
    let mut decisions = Decisions::new();
    let mut reports = answered(reports_of(client, events).await, &mut decisions);
    let boots: Vec<Observation> = reports.iter_mut().flat_map(of_boots).collect();
    let usage = reports.iter().filter_map(usage_of).collect();
    let wholes = events.iter().filter(|event| event.node.is_none());
    let of_wholes = wholes.clone().map(|event| event.command.as_str());
    let commands = reports.iter().filter_map(Report::unsure_command).chain(of_wholes);
    let commands = commands_of(client, commands.collect()).await;
    let command = |id: &str| commands[id].as_ref().map_err(Explanation::clone);
    let of_nodes = reports.into_iter().map(|report| {
        let named = report.unsure_command().map(|id| command(id).map(images)).transpose();
        let event = report.event.clone();
        (event, named.and_then(|named| of_node(report, named.as_deref())))
    });
    let of_wholes = wholes.map(|event| {
        let observed = command(&event.command).map(|command| targets(event, command));
        (event.clone(), observed)
    });
    let observed = answered(of_nodes.chain(of_wholes), &mut decisions);
    let mut observations = kept(observed, &mut decisions);
    observations.extend(boots);
    Observed {
        observations,
        usage,
        decisions,
    }
}

/// Asks how commands went on their nodes.
async fn reports_of(
    client: &Client,
    events: &BTreeSet<CommandEnded>,
) -> Vec<(CommandEnded, Result<Report, Explanation>)> {
    let of_nodes = events.iter().filter_map(|event| Some((event, event.node.as_deref()?)));
    let answers = stream::iter(of_nodes).map(async |(event, node)| {
        let answer = ssm::invocation(client, &event.command, node).await;
        let answer = answer.map_err(|error| not_answered(&error));
        let report = answer.and_then(|answer| Report::read(event, node, &answer));
        (event.clone(), report)
    });
    answers.buffer_unordered(AT_ONCE).collect().await
}

/// Asks for commands, each once.
async fn commands_of(client: &Client, ids: BTreeSet<&str>) -> BTreeMap<String, Result<Command, Explanation>> {
    let answers = stream::iter(ids).map(async |id| {
        let command = ssm::command(client, id).await;
        (id.to_owned(), command.map_err(|error| not_answered(&error)))
    });
    answers.buffer_unordered(AT_ONCE).collect().await
}

/// Keeps what SSM answered, and hands back the events of the rest.
fn answered<T>(
    answers: impl IntoIterator<Item = (CommandEnded, Result<T, Explanation>)>,
    decisions: &mut Decisions,
) -> Vec<T> {
    let mut answered = Vec::new();
    for (event, answer) in answers {
        match answer {
            Ok(answer) => answered.push(answer),
            Err(explanation) => {
                decisions.insert(event, Decision::HandedBack(explanation));
            }
        }
    }
    answered
}

/// Keeps the observations, and the decisions of the rest.
fn kept(of_events: Vec<OfEvent>, decisions: &mut Decisions) -> Vec<Observation> {
    let mut kept = Vec::new();
    for of_event in of_events {
        match of_event {
            OfEvent::Observation(observation) => kept.push(observation),
            OfEvent::Decided(event, decision) => {
                decisions.insert(event, decision);
            }
        }
    }
    kept
}

fn not_answered(error: &SsmError) -> Explanation {
    match error {
        SsmError::NoInvocation(_) => Explanation::new(DecisionReason::NoInvocation, error_text(error)),
        error => Explanation::aws_error(error),
    }
}

/// Tells an observation from an event of which there is no job to observe.
enum OfEvent {
    Observation(Observation),
    Decided(CommandEnded, Decision),
}

impl OfEvent {
    fn ignored(event: CommandEnded, explanation: Explanation) -> Self {
        Self::Decided(event, Decision::Ignored(explanation))
    }
}

/// Reads what a report says of what its node runs; one of a command that was sent by hand is of no rule.
fn usage_of(report: &Report) -> Option<NodeUsage> {
    let comment = report.comment.as_ref().ok()?;
    let says_something = report.totals().is_some() || !report.usage().is_empty();
    says_something.then(|| NodeUsage {
        event: report.event.clone(),
        job: Job::of(&report.event, comment.clone()),
        node: report.node.clone(),
        ended_at: report.ended_at,
        lines: report.usage().to_vec(),
        totals: report.totals(),
    })
}

/// Decides what becomes of the event of an inventory on a node, which is no job.
fn of_inventory(report: Report, rule: String) -> OfEvent {
    if usage_of(&report).is_none() {
        let message = "the node says nothing of what it runs";
        return OfEvent::ignored(report.event, Explanation::new(DecisionReason::Inventory, message));
    }
    let node = report.node;
    OfEvent::Decided(report.event, Decision::Noted(Noted { rule, node }))
}

/// Takes the observations of a node's boots out of its report: each is a job of its own, which is the same whichever command
/// of the node brings it.
fn of_boots(report: &mut Report) -> Vec<Observation> {
    let boots = report.take_boots().into_iter();
    boots.map(|(boot, outcomes)| of_boot(report, boot, outcomes)).collect()
}

fn of_boot(report: &Report, boot: Boot, outcomes: BTreeMap<Image, Outcome>) -> Observation {
    let Report { node, ended_at, .. } = report;
    let within = |moment: DateTime<Utc>| moment.clamp(*ended_at - BELIEVED, *ended_at);
    let moments = [boot.began, boot.ended].map(|moment| moment.timestamp().to_string());
    Observation {
        event: report.event.clone(),
        job: Job {
            id: unsent_id(&["boot", node, &boot.rule, &moments[0], &moments[1]]),
            trigger: Trigger::Boot,
            rule: boot.rule,
            requested_at: within(boot.began),
            requested_by: None,
        },
        kind: ObservationKind::Node(NodeOutcomes {
            node: node.clone(),
            attempt: 1,
            ended_at: within(boot.ended),
            outcomes,
            totals: None,
        }),
    }
}

/// Observes a node, given the images that the command names where they were looked up.
///
/// # Errors
/// Where the command names no image: it is none of ours, whatever its comment.
fn of_node(mut report: Report, named: Option<&[Image]>) -> Result<OfEvent, Explanation> {
    let comment = match report.comment {
        Ok(ref comment) => comment.clone(),
        Err(explanation) => return Ok(OfEvent::ignored(report.event, explanation)),
    };
    if comment.trigger == Trigger::Inventory {
        return Ok(of_inventory(report, comment.rule));
    }
    let (attempt, totals) = (comment.attempt, report.totals());
    let outcomes = report.take_outcomes(named, attempt);
    if outcomes.is_empty() {
        let message = "the command names no image";
        return Err(Explanation::new(DecisionReason::Malformed, message));
    }
    Ok(OfEvent::Observation(Observation {
        job: Job::of(&report.event, comment),
        kind: ObservationKind::Node(NodeOutcomes {
            node: report.node,
            attempt,
            ended_at: report.ended_at,
            outcomes,
            totals,
        }),
        event: report.event,
    }))
}

/// Observes to how many nodes a command went, where it is a job's first.
fn targets(event: &CommandEnded, command: &Command) -> OfEvent {
    let event = event.clone();
    let comment = match comment(command.comment()) {
        Ok(comment) => comment,
        Err(explanation) => return OfEvent::ignored(event, explanation),
    };
    if comment.trigger == Trigger::Inventory {
        let message = "the command is an inventory: its nodes say what they run";
        return OfEvent::ignored(event, Explanation::new(DecisionReason::Inventory, message));
    }
    if let Some(job) = &comment.job {
        let message = format!("it is a further try of job {job}");
        return OfEvent::ignored(event, Explanation::new(DecisionReason::Retry, message));
    }
    OfEvent::Observation(Observation {
        job: Job::of(&event, comment),
        kind: ObservationKind::Targets(Targets {
            count: command.target_count().unsigned_abs(),
            images: images(command),
        }),
        event,
    })
}

/// Lists the images that a command names.
fn images(command: &Command) -> Vec<Image> {
    let images = command.parameters().and_then(|parameters| parameters.get("images"));
    images
        .into_iter()
        .flatten()
        .flat_map(|list| list.split(' '))
        .filter_map(|image| image.parse().ok())
        .collect()
}

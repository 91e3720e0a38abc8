//! From commands that ended to what is known of them, and from further tries that have waited to the node queue.

use std::collections::{BTreeMap, BTreeSet};

use aws_lambda_events::sqs::SqsBatchResponse;
use aws_sdk_ssm::types::Command;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use prefetch::{
    node::is_instance_id,
    report::{report, word},
    rows::Key,
    ssm::{self, SsmError},
};
use serde::Serialize;
use serde_json::Value;
use tracing::{error, info, warn};

use crate::{
    changes::{Unit, plan},
    decision::{Decision, Queued, Reason, Settled, Why},
    event::{Call, Ended, Message, Said, call},
    launch_hook::LaunchHook,
    observation::{Finding, Report, images, targets},
    report::Invocation,
    settings::Settings,
    sweep::Swept,
    table::{Store, StoreError},
};

/// How many questions are put to SSM at once.
const AT_ONCE: usize = 10;
/// How often rows are read and written that others write at the same time.
const WRITES: usize = 4;

/// What the function works with.
pub struct NodeResult {
    pub ssm: aws_sdk_ssm::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub s3: aws_sdk_s3::Client,
    /// The hook in which instances wait for their launch, where there is one.
    pub hook: Option<LaunchHook>,
    pub store: Store,
    pub settings: Settings,
}

/// What the function answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To SQS: the messages that are handed back, and nothing else, for SQS reads no more.
    Batch(SqsBatchResponse),
    /// To whoever sent an event as it is: what was decided, and why.
    Event(Decision),
    /// To the schedule: what was looked for.
    Swept(Swept),
}

/// The decision of each event.
type Decisions = BTreeMap<Ended, Decision>;
/// Events, each with whether somebody may have begun to settle it.
type Events = BTreeMap<Ended, bool>;

impl NodeResult {
    /// Settles what has ended: stores what is new of it, writes records and metrics, and asks for further tries.
    ///
    /// Further tries that have waited are let through unless their job was cancelled.
    ///
    /// A batch costs one GetCommandInvocation per event, one ListCommands per command that ended as a whole or did not
    /// report fully, and, where something is new, one BatchGetItem, and per trigger and day of the requests one
    /// TransactWriteItems, PutObject and DeleteItem; for its further tries one BatchGetItem and one SendMessageBatch. Where
    /// the stack has a launch hook, launches cost what [`LaunchHook::release`] says.
    pub async fn handle(&self, payload: Value) -> Answer {
        self.handle_at(payload, std::time::SystemTime::now().into()).await
    }

    /// Does so at this moment.
    pub async fn handle_at(&self, payload: Value, now: DateTime<Utc>) -> Answer {
        match call(payload, &self.settings.document) {
            Call::Sweep => Answer::Swept(self.sweep(now).await),
            Call::Event(message) => {
                let (_, decision) = self.decide(vec![message], now).await.remove(0);
                Answer::Event(decision)
            }
            Call::Batch(messages) => {
                let mut response = SqsBatchResponse::default();
                for (message, decision) in self.decide(messages, now).await {
                    if let Decision::HandedBack(_) = decision {
                        response.add_failure(message);
                    }
                }
                Answer::Batch(response)
            }
        }
    }

    /// Decides of each of these messages, by its id.
    async fn decide(&self, messages: Vec<Message>, now: DateTime<Utc>) -> Vec<(String, Decision)> {
        let mut events = Events::new();
        let mut retries = BTreeSet::new();
        for message in &messages {
            match &message.said {
                Ok(Said::Ended(ended)) => *events.entry(ended.clone()).or_default() |= message.redelivered,
                Ok(Said::Due(retry)) => {
                    retries.insert(retry.clone());
                }
                Err(_) => {}
            }
        }
        let settled = self.settle(&events, now).await;
        let passed = self.pass(&retries).await;
        let decision_of = |message: Message| {
            let decision = match &message.said {
                Ok(Said::Ended(ended)) => settled[ended].clone(),
                Ok(Said::Due(retry)) => passed[retry].clone(),
                Err(decision) => decision.clone(),
            };
            log(&message, &decision);
            (message.id, decision)
        };
        messages.into_iter().map(decision_of).collect()
    }

    async fn settle(&self, events: &Events, now: DateTime<Utc>) -> Decisions {
        let mut decisions = Decisions::new();
        let mut findings = self.findings(events, &mut decisions).await;
        for _ in 0..WRITES {
            findings = self.write(findings, events, now, &mut decisions).await;
        }
        let contended = Decision::handed_back(Reason::Contended, "others kept writing its rows");
        for finding in findings {
            note(finding, contended.clone(), &mut decisions);
        }
        decisions
    }

    /// Finds out what the events are of.
    async fn findings(&self, events: &Events, decisions: &mut Decisions) -> Vec<Finding> {
        let mut invocations = self.invocations(events, decisions).await;
        let of_boots: Vec<Finding> = invocations.iter_mut().flat_map(Invocation::take_boots).collect();
        let unsure = invocations.iter().filter_map(Invocation::unsure_command);
        let wholes = events.keys().filter(|ended| ended.node.is_none());
        let commands = unsure.chain(wholes.clone().map(|ended| ended.command.as_str()));
        let commands = self.commands(commands.collect()).await;
        let command = |id: &str| commands[id].as_ref().map_err(Decision::clone);
        let of_nodes = invocations.into_iter().map(|invocation| {
            let ended = invocation.ended().clone();
            let named = invocation
                .unsure_command()
                .map(|id| command(id).map(images))
                .transpose();
            (ended, named.and_then(|named| invocation.finding(named.as_deref())))
        });
        let of_wholes = wholes.map(|ended| {
            let finding = command(&ended.command).and_then(|command| targets(ended.clone(), command));
            (ended.clone(), finding)
        });
        let mut findings = undecided(of_nodes.chain(of_wholes), decisions);
        findings.extend(of_boots);
        findings
    }

    /// Asks how the commands went on their nodes.
    async fn invocations(&self, events: &Events, decisions: &mut Decisions) -> Vec<Invocation> {
        let of_nodes = events.keys().filter_map(|ended| Some((ended, ended.node.as_deref()?)));
        let answers = stream::iter(of_nodes).map(async |(ended, node)| {
            let answer = ssm::invocation(&self.ssm, &ended.command, node).await;
            let invocation = answer
                .map_err(|error| of_ssm(&error))
                .and_then(|answer| Invocation::read(ended.clone(), node.to_owned(), &answer));
            (ended.clone(), invocation)
        });
        let invocations: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        undecided(invocations, decisions)
    }

    /// Asks what the commands are, each once.
    async fn commands(&self, ids: BTreeSet<&str>) -> BTreeMap<String, Result<Command, Decision>> {
        let answers = stream::iter(ids).map(async |id| {
            let command = ssm::command(&self.ssm, id).await;
            (id.to_owned(), command.map_err(|error| of_ssm(&error)))
        });
        answers.buffer_unordered(AT_ONCE).collect().await
    }

    /// Writes what is new of findings, and does what is to be done then; gives back those whose rows others wrote meanwhile.
    async fn write(
        &self,
        findings: Vec<Finding>,
        events: &Events,
        now: DateTime<Utc>,
        decisions: &mut Decisions,
    ) -> Vec<Finding> {
        if findings.is_empty() {
            return findings;
        }
        let all = findings.clone();
        let rows = self.store.read(&keys(&findings)).await;
        let planned = rows.and_then(|rows| Ok(plan(findings, &rows, &self.settings, now)?));
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                let decision = aws_error(&error);
                for finding in all {
                    note(finding, decision.clone(), decisions);
                }
                return Vec::new();
            }
        };
        self.finish_unchanged(plan.unchanged, events, decisions).await;
        let mut contended = Vec::new();
        for unit in plan.units {
            match self.store.write(&unit, now).await {
                Err(StoreError::Contended) => contended.extend(unit.findings.into_iter().map(|(finding, _)| finding)),
                written => self.finish_unit(unit, written, decisions).await,
            }
        }
        contended
    }

    async fn finish_unit(&self, unit: Unit, written: Result<(), StoreError>, decisions: &mut Decisions) {
        let failure = match written {
            Ok(()) => {
                warn_of_no_nodes(&unit);
                self.finish(&unit.outbox).await.err().map(|error| aws_error(&error))
            }
            Err(error) => Some(aws_error(&error)),
        };
        for (finding, settled) in unit.findings {
            let decision = failure.clone().unwrap_or(Decision::Settled(settled));
            note(finding, decision, decisions);
        }
    }

    /// Finishes what somebody left undone who had these events before; of an event that comes for the first time somebody
    /// else has them, and is still at it.
    async fn finish_unchanged(
        &self,
        unchanged: Vec<(Finding, Settled, Option<String>)>,
        events: &Events,
        decisions: &mut Decisions,
    ) {
        let left = unchanged.iter().filter(|(finding, _, _)| events[&finding.ended]);
        let ids: BTreeSet<String> = left.filter_map(|(_, _, outbox)| outbox.clone()).collect();
        let failed = self.finish_left(&ids).await;
        for (finding, settled, outbox) in unchanged {
            let failure = outbox.and_then(|outbox| failed.get(&outbox));
            let decision = failure.cloned().unwrap_or(Decision::Settled(settled));
            note(finding, decision, decisions);
        }
    }

    /// Finishes what is left of these outbox rows; gives those that could not be finished.
    async fn finish_left(&self, ids: &BTreeSet<String>) -> BTreeMap<String, Decision> {
        let mut failed = BTreeMap::new();
        match self.store.outboxes(ids).await {
            Ok(outboxes) => {
                for outbox in outboxes {
                    if let Err(error) = self.finish(&outbox).await {
                        failed.insert(outbox.id, aws_error(&error));
                    }
                }
            }
            Err(error) => failed.extend(ids.iter().map(|id| (id.clone(), aws_error(&error)))),
        }
        failed
    }
}

/// Keeps what is known of events that are not decided of yet, and the decisions of the others.
fn undecided<T>(found: impl IntoIterator<Item = (Ended, Result<T, Decision>)>, decisions: &mut Decisions) -> Vec<T> {
    let mut undecided = Vec::new();
    for (ended, found) in found {
        match found {
            Ok(found) => undecided.push(found),
            Err(decision) => {
                decisions.insert(ended, decision);
            }
        }
    }
    undecided
}

/// Notes what is decided of a finding's event: what is to be handed back stays so, and that a boot is settled says nothing of
/// the command that brought its report.
fn note(finding: Finding, decision: Decision, decisions: &mut Decisions) {
    let is_handed_back = |decision: &Decision| matches!(decision, Decision::HandedBack(_));
    if finding.is_of_boot() && !is_handed_back(&decision) {
        return;
    }
    let known = decisions.entry(finding.ended).or_insert_with(|| decision.clone());
    if !is_handed_back(known) {
        *known = decision;
    }
}

/// The rows that findings concern.
fn keys(findings: &[Finding]) -> BTreeSet<Key> {
    let of_finding = |finding: &Finding| {
        let job = &finding.job.id;
        let of_node = |(_, report): (_, &Report)| [Key::node(job, &report.node), Key::held(&report.node)];
        let of_node = finding.report().map(of_node);
        std::iter::once(Key::job(job)).chain(of_node.into_iter().flatten())
    };
    findings.iter().flat_map(of_finding).collect()
}

fn of_ssm(error: &SsmError) -> Decision {
    match error {
        SsmError::NoInvocation(_) => Decision::handed_back(Reason::NoInvocation, report(error)),
        error => aws_error(error),
    }
}

/// Hands back what AWS stands in the way of.
pub fn aws_error(error: &dyn std::error::Error) -> Decision {
    Decision::handed_back(Reason::AwsError, report(error))
}

fn warn_of_no_nodes(unit: &Unit) {
    for change in unit.jobs.values() {
        if change.targets.as_ref().is_some_and(|targets| targets.count == 0) {
            warn!(
                job.id = change.job.id,
                rule = change.job.rule,
                "job {} matched no node: no node that SSM knows carries the tags of rule {}",
                change.job.id,
                change.job.rule
            );
        }
    }
}

fn log(message: &Message, decision: &Decision) {
    let (command, node) = match &message.said {
        Ok(Said::Ended(ended)) => (ended.command.as_str(), ended.node.as_deref()),
        Ok(Said::Due(retry)) => (retry.job.as_str(), Some(retry.node.as_str())),
        Err(_) => ("unknown", None),
    };
    let id = &message.id;
    match decision {
        Decision::Settled(settled) if node.is_some_and(|node| !is_instance_id(node)) => {
            let job = &settled.job;
            info!(
                command.id = command,
                instance.id = node,
                "node {} is no EC2 instance: it is none of job {job}, whatever it reports",
                node.unwrap_or_default()
            );
        }
        Decision::Settled(settled) => {
            let status = settled.node.as_ref().map(|node| word(&node.status));
            info!(
                command.id = command,
                instance.id = node,
                status,
                "command {command} is settled"
            );
        }
        Decision::Ignored(Why { reason, message }) => info!(
            command.id = command,
            reason = word(reason),
            "message {id} is ignored: {message}"
        ),
        Decision::Queued(Queued { job, node, attempt }) => info!(
            job.id = job,
            instance.id = node,
            "try {attempt} of job {job} is queued for node {node}"
        ),
        Decision::Dropped(Why { reason, message }) => info!(
            job.id = command,
            instance.id = node,
            reason = word(reason),
            "message {id} is dropped: {message}"
        ),
        Decision::HandedBack(Why { reason, message }) => match reason {
            Reason::AwsError => error!(
                command.id = command,
                instance.id = node,
                reason = word(reason),
                "message {id} is handed back: {message}"
            ),
            Reason::Malformed | Reason::NotAResult => {
                warn!(reason = word(reason), "message {id} is handed back: {message}");
            }
            _ => info!(
                command.id = command,
                instance.id = node,
                reason = word(reason),
                "message {id} is handed back: {message}"
            ),
        },
    }
}

#[cfg(test)]
mod tests;

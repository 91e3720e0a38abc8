//! The handler: events become what is known of jobs and nodes, retries that are due go to the node queue, and the schedule's
//! event is a sweep.

use std::collections::BTreeSet;

use aws_lambda_events::sqs::SqsBatchResponse;
use chrono::{DateTime, Utc};
use prefetch::{error_text::word, node::is_instance_id};
use serde::Serialize;
use serde_json::Value;
use tracing::{error, info, warn};

use crate::{
    changes::{Changes, Unchanged},
    context::NodeResult,
    decision::{Decision, DecisionReason, Explanation, Noted, QueuedRetry, Settled},
    event::{Body, CommandEnded, Message, Payload},
    metrics,
    observation::{Decisions, NodeUsage, Observation, Observed, observe},
    retry,
    sweep::Swept,
    table::TableError,
    transaction::{Transaction, transactions},
    usage::{Said, said},
};

/// Limits how often rows are read and written that others write at the same time.
const WRITES: usize = 4;

/// Is the function's answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To SQS: the messages that are handed back, and nothing else, for SQS reads no more.
    Batch(SqsBatchResponse),
    /// To whoever sent an event as it is: the decision, and why.
    Event(Decision),
    /// To the schedule: how far the sweep came.
    Swept(Swept),
}

/// Holds the events of a call.
#[derive(Default)]
struct Events {
    all: BTreeSet<CommandEnded>,
    /// Those that somebody may have begun to settle.
    redelivered: BTreeSet<CommandEnded>,
}

/// Settles events: stores what is new, writes records and metrics, and queues retries; those that are due are sent unless
/// their job was cancelled.
///
/// A batch costs one GetCommandInvocation per event, one ListCommands per command that ended as a whole or did not report
/// fully, and, where something is new, one BatchGetItem, and per trigger and day of the requests one TransactWriteItems,
/// PutObject and DeleteItem; for its retries one BatchGetItem and one SendMessageBatch. What nodes run costs what
/// [`crate::usage_rows::UsageRows::take`] says, and where the stack has a launch hook, launches cost what
/// [`crate::launch_hook::LaunchHook::release`] says.
pub async fn handle(context: &NodeResult, payload: Value) -> Answer {
    handle_at(context, payload, std::time::SystemTime::now().into()).await
}

/// Handles a call of this moment.
pub async fn handle_at(context: &NodeResult, payload: Value, now: DateTime<Utc>) -> Answer {
    match Payload::read(payload, &context.settings.document) {
        Payload::Schedule => Answer::Swept(context.sweep(now).run().await),
        Payload::Message(message) => {
            let (_, decision) = decide(context, vec![message], now).await.remove(0);
            Answer::Event(decision)
        }
        Payload::Batch(messages) => {
            let mut response = SqsBatchResponse::default();
            for (message, decision) in decide(context, messages, now).await {
                if decision.is_handed_back() {
                    response.add_failure(message);
                }
            }
            Answer::Batch(response)
        }
    }
}

/// Decides each of these messages, by its id.
async fn decide(context: &NodeResult, messages: Vec<Message>, now: DateTime<Utc>) -> Vec<(String, Decision)> {
    let mut events = Events::default();
    let mut retries = BTreeSet::new();
    for message in &messages {
        match &message.body {
            Body::CommandEnded(event) => {
                events.all.insert(event.clone());
                if message.redelivered {
                    events.redelivered.insert(event.clone());
                }
            }
            Body::RetryDue(retry) => {
                retries.insert(retry.clone());
            }
            Body::Decided(_) => {}
        }
    }
    let settled = settle(context, &events, now).await;
    let queued = retry::queue_due(&context.table, &context.sqs, &context.settings.node_queue, &retries).await;
    let decision_of = |message: Message| {
        let decision = match &message.body {
            Body::CommandEnded(event) => settled[event].clone(),
            Body::RetryDue(retry) => queued[retry].clone(),
            Body::Decided(decision) => decision.clone(),
        };
        log(&message, &decision);
        (message.id, decision)
    };
    messages.into_iter().map(decision_of).collect()
}

async fn settle(context: &NodeResult, events: &Events, now: DateTime<Utc>) -> Decisions {
    let Observed {
        mut observations,
        usage,
        mut decisions,
    } = observe(&context.ssm, &events.all).await;
    let said = said(&observations, &usage, context.settings.used_within, now);
    for _ in 0..WRITES {
        if observations.is_empty() {
            break;
        }
        observations = store(context, observations, &events.redelivered, now, &mut decisions).await;
    }
    let contended = Explanation::new(DecisionReason::Contended, "others kept writing its rows");
    let contended = Decision::HandedBack(contended);
    for observation in observations {
        note(observation, contended.clone(), &mut decisions);
    }
    take_usage(context, &said, &usage, now, &mut decisions).await;
    decisions
}

/// Takes in what nodes run, whatever became of their jobs; what could not be taken in is handed back.
async fn take_usage(
    context: &NodeResult,
    said: &[Said],
    usage: &[NodeUsage],
    now: DateTime<Utc>,
    decisions: &mut Decisions,
) {
    decisions.extend(context.usage.take(said, &context.table).await);
    for (said, left_out) in usage.iter().filter_map(|usage| Some((usage, usage.totals?.left_out))) {
        if left_out > 0 {
            let node = &said.node;
            warn!(
                instance.id = node,
                left_out, "of what node {node} runs its report has no room for {left_out} images"
            );
        }
    }
    let is_noted = |usage: &&NodeUsage| matches!(decisions.get(&usage.event), Some(Decision::Noted(_)));
    for inventory in usage.iter().filter(is_noted) {
        // Lambda takes stdout to the log, where CloudWatch counts; an event that comes again is counted again.
        print!("{}", metrics::of_inventory(inventory, &context.settings, now));
    }
}

/// Stores what is new of observations, and does what is to be done then; gives back those whose rows others wrote meanwhile.
async fn store(
    context: &NodeResult,
    observations: Vec<Observation>,
    redelivered: &BTreeSet<CommandEnded>,
    now: DateTime<Utc>,
    decisions: &mut Decisions,
) -> Vec<Observation> {
    let all = observations.clone();
    let (transactions, unchanged) = match plan(context, observations, now).await {
        Ok(planned) => planned,
        Err(error) => {
            let decision = Decision::aws_error(&error);
            for observation in all {
                note(observation, decision.clone(), decisions);
            }
            return Vec::new();
        }
    };
    finish_unchanged(context, unchanged, redelivered, decisions).await;
    let mut contended = Vec::new();
    for transaction in transactions {
        match transaction.write(&context.table, now).await {
            Err(TableError::Contended) => contended.extend(transaction.observations.into_iter().map(|(seen, _)| seen)),
            written => finish(context, transaction, written, decisions).await,
        }
    }
    contended
}

/// Plans the transactions that observations are worth, and gives the observations that change nothing.
async fn plan(
    context: &NodeResult,
    observations: Vec<Observation>,
    now: DateTime<Utc>,
) -> Result<(Vec<Transaction>, Vec<Unchanged>), TableError> {
    let settings = &context.settings;
    let rows = context.table.read(&Changes::keys(&observations)).await?;
    let Changes { changed, unchanged } = Changes::of(observations, &rows, settings.max_retries)?;
    Ok((transactions(changed, &rows, settings, now)?, unchanged))
}

async fn finish(
    context: &NodeResult,
    transaction: Transaction,
    written: Result<(), TableError>,
    decisions: &mut Decisions,
) {
    let failure = match written {
        Ok(()) => {
            warn_of_no_nodes(&transaction);
            let finished = context.effects().finish(&transaction.outbox).await;
            finished.err().map(|error| Decision::aws_error(&error))
        }
        Err(error) => Some(Decision::aws_error(&error)),
    };
    for (observation, settled) in transaction.observations {
        let decision = failure.clone().unwrap_or(Decision::Settled(settled));
        note(observation, decision, decisions);
    }
}

/// Finishes what somebody left undone who had these events before; of an event that comes for the first time somebody else
/// has them, and is still at it.
async fn finish_unchanged(
    context: &NodeResult,
    unchanged: Vec<Unchanged>,
    redelivered: &BTreeSet<CommandEnded>,
    decisions: &mut Decisions,
) {
    let left = unchanged
        .iter()
        .filter(|unchanged| redelivered.contains(&unchanged.observation.event));
    let outboxes: BTreeSet<String> = left.filter_map(|unchanged| unchanged.outbox.clone()).collect();
    let failed = context.effects().finish_left(&outboxes).await;
    for unchanged in unchanged {
        let failure = unchanged.outbox.and_then(|outbox| failed.get(&outbox));
        let decision = failure.cloned().unwrap_or(Decision::Settled(unchanged.settled));
        note(unchanged.observation, decision, decisions);
    }
}

/// Notes the decision of an observation's event: what is to be handed back stays so, and that a boot is settled says nothing
/// of the command that brought its report.
fn note(observation: Observation, decision: Decision, decisions: &mut Decisions) {
    if observation.is_of_boot() && !decision.is_handed_back() {
        return;
    }
    let known = decisions.entry(observation.event).or_insert_with(|| decision.clone());
    if !known.is_handed_back() {
        *known = decision;
    }
}

fn warn_of_no_nodes(transaction: &Transaction) {
    for change in transaction.jobs.values() {
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
    let (command, node) = match &message.body {
        Body::CommandEnded(event) => (event.command.as_str(), event.node.as_deref()),
        Body::RetryDue(retry) => (retry.job.as_str(), Some(retry.node.as_str())),
        Body::Decided(_) => ("unknown", None),
    };
    let id = &message.id;
    match decision {
        Decision::Settled(settled) => log_settled(command, node, settled),
        Decision::Noted(noted) => log_noted(command, noted),
        Decision::Ignored(Explanation { reason, message }) => info!(
            command.id = command,
            reason = word(reason),
            "message {id} is ignored: {message}"
        ),
        Decision::Queued(QueuedRetry { job, node, attempt }) => info!(
            job.id = job,
            instance.id = node,
            "try {attempt} of job {job} is queued for node {node}"
        ),
        Decision::Dropped(Explanation { reason, message }) => info!(
            job.id = command,
            instance.id = node,
            reason = word(reason),
            "message {id} is dropped: {message}"
        ),
        Decision::HandedBack(explanation) => log_handed_back(id, command, node, explanation),
    }
}

fn log_noted(command: &str, Noted { rule, node }: &Noted) {
    info!(
        command.id = command,
        instance.id = node,
        rule,
        "what node {node} runs is noted"
    );
}

fn log_settled(command: &str, node: Option<&str>, settled: &Settled) {
    if let Some(node) = node.filter(|node| !is_instance_id(node)) {
        let job = &settled.job;
        info!(
            command.id = command,
            instance.id = node,
            "node {node} is no EC2 instance: it is none of job {job}, whatever it reports"
        );
        return;
    }
    let status = settled.node.as_ref().map(|node| word(&node.status));
    info!(
        command.id = command,
        instance.id = node,
        status,
        "command {command} is settled"
    );
}

fn log_handed_back(id: &str, command: &str, node: Option<&str>, explanation: &Explanation) {
    let Explanation { reason, message } = explanation;
    let (instance, word) = (node, word(reason));
    match reason {
        DecisionReason::AwsError => error!(
            command.id = command,
            instance.id = instance,
            reason = word,
            "message {id} is handed back: {message}"
        ),
        DecisionReason::Malformed | DecisionReason::NotAResult => {
            warn!(reason = word, "message {id} is handed back: {message}");
        }
        _ => info!(
            command.id = command,
            instance.id = instance,
            reason = word,
            "message {id} is handed back: {message}"
        ),
    }
}

#[cfg(test)]
mod tests;

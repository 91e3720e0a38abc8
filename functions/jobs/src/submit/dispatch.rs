//! Dispatch: what is left of a plan is sent, one command after the other.

use std::time::{Duration, Instant};

use prefetch::{
    aws,
    command::{Comment, Trigger},
    error_text::error_text,
    sender::Order,
};
use thiserror::Error;
use tokio::time::timeout;
use tracing::warn;

use crate::{
    http::problem::Problem,
    log::log_sent,
    submit::{
        idempotency::lease::problem,
        plan::{Plan, PlannedCommand, SentCommand, SentCommands},
        search::find_sent,
        send_context::SendContext,
    },
};

/// Sets how long commands are sent: API Gateway gives up after 30 seconds (quotas of HTTP APIs), and whoever requested it
/// would not know what was sent. Nobody waits for a schedule's, which are sent as long as the function runs.
const SENDING: Duration = Duration::from_secs(20);
/// Names what is left of a request's time to look for a command whose answer got lost, and to note and to tell what was
/// sent.
const NOTING: Duration = Duration::from_secs(6);
/// Names what is left beside when no further command is sent: SSM answers in less, and one that it had no time to answer
/// would be in doubt.
const ANSWERING: Duration = Duration::from_secs(2);
/// Sets how long such a command is looked for.
const LOOKING: Duration = Duration::from_secs(4);

/// Tells that SSM took longer for some commands than there is time for all.
#[derive(Debug, Error)]
#[error("SSM takes long, and not all was sent")]
struct TooSlow;

/// Sends what is left of a plan, one command after the other, and notes each with the request's lease, where there is one.
///
/// # Errors
/// A 503 where AWS fails or the time is up, which tells what was sent before; a 400 where a rule is no more.
pub async fn send_all(context: &SendContext<'_>, plan: &Plan, mut sent: SentCommands) -> Result<SentCommands, Problem> {
    let began = Instant::now();
    let commands = plan.commands();
    for (place, command) in commands.iter().enumerate() {
        let Some(left) = command.left(sent.get(&place)) else {
            continue;
        };
        let is_late = aws::left().is_some_and(|left| left <= NOTING + ANSWERING);
        if is_late || context.origin.trigger != Trigger::Schedule && began.elapsed() > SENDING {
            return Err(Problem::unavailable(TooSlow).with_jobs(plan.sent_jobs(&sent)));
        }
        let outcome = send_one(context, &commands, place, &left, &mut sent).await;
        outcome.map_err(|problem| problem.with_jobs(plan.sent_jobs(&sent)))?;
    }
    Ok(sent)
}

/// Sends what is left of one command, notes what became of it, and looks for it where its answer got lost.
async fn send_one(
    context: &SendContext<'_>,
    commands: &[PlannedCommand],
    place: usize,
    left: &PlannedCommand,
    sent: &mut SentCommands,
) -> Result<(), Problem> {
    let command = &commands[place];
    let mut one = sent.remove(&place).unwrap_or_else(|| SentCommand::begin(command));
    let outcome = deliver(context, left, &mut one).await;
    let is_in_doubt = outcome
        .as_ref()
        .map_or_else(Problem::is_in_doubt, |is_in_doubt| *is_in_doubt);
    let mut failed = outcome.err();
    if !one.is_untouched() {
        note_request(context, [&one]).await;
        let noted = match context.lease {
            Some(lease) => lease.sent(place, &one).await,
            None => Ok(()),
        };
        sent.insert(place, one);
        failed = failed.or(noted.err().map(problem));
    }
    if is_in_doubt {
        look(context, commands, place, sent).await;
    }
    if let Some(problem) = failed.take_if(|problem| problem.is_in_doubt()) {
        let left = command.left(sent.get(&place));
        failed = left.map(|left| problem.with_unknown(left.as_jobs(None), context.advice()));
    }
    failed.map_or(Ok(()), Err)
}

/// Sends one command, without the nodes that SSM refuses, and notes what became of it; returns true where SSM may have taken
/// more than it has said.
async fn deliver(context: &SendContext<'_>, command: &PlannedCommand, sent: &mut SentCommand) -> Result<bool, Problem> {
    let SendContext {
        sender,
        settings,
        origin,
        ..
    } = context;
    let rule = context.rule(&command.rule)?;
    let order = Order {
        rule,
        comment: &Comment::first(origin.trigger, rule),
        images: &command.images,
        destination: command.destination(&settings.cluster),
        occasion: &origin.occasion,
    };
    let delivery = aws::sparing(NOTING, sender.deliver(settings, order, origin.now)).await;
    for (id, nodes) in delivery.sent {
        if !sender.observes() {
            log_sent(&id, &rule.name, command.images.len());
        }
        sent.went(id, nodes.ids());
    }
    for (node, refusal) in delivery.refused {
        sent.refuse(node, refusal);
    }
    match delivery.failed.into_iter().next() {
        Some((_, error)) => Err(Problem::unavailable(error).in_doubt(delivery.is_in_doubt)),
        None => Ok(delivery.is_in_doubt),
    }
}

/// Looks once for a command that SSM may have taken without saying so; where SSM cannot be asked, that stays unknown.
async fn look(context: &SendContext<'_>, commands: &[PlannedCommand], place: usize, sent: &mut SentCommands) {
    if context.sender.observes() {
        return;
    }
    let found = find_sent(context, &commands[..=place], Some(place), sent, context.origin.now);
    match timeout(LOOKING, found).await {
        Ok(Ok(())) => note_request(context, sent.get(&place)).await,
        Ok(Err(problem)) => warn!("a command whose answer got lost is not found: {}", problem.line()),
        Err(_) => warn!("a command whose answer got lost is not found in time"),
    }
}

/// Writes into the rows of jobs by which request they were made, who requested it, and which are the same once more.
///
/// A job whose row does not say so is as good a job: it is logged and goes on.
pub async fn note_request(context: &SendContext<'_>, sent: impl IntoIterator<Item = &SentCommand>) {
    let origin = &context.origin;
    let who = origin.requested_by.as_deref();
    if who.is_none() && context.sender.observes() {
        // What is only observed nobody looks for.
        return;
    }
    for sent in sent {
        for id in sent.ids() {
            let is_first = sent.id.as_ref() == Some(id);
            let duplicates = if is_first { &sent.duplicates[..] } else { &[] };
            let put = context
                .store
                .put_request(id, &origin.occasion, who, duplicates, origin.now);
            if let Err(error) = put.await {
                warn!(
                    command.id = id,
                    "job {id}: who asked for it is not noted: {}",
                    error_text(&error)
                );
            }
        }
    }
}

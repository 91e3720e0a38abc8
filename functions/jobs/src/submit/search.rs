//! The search for commands that SSM took without saying so, by what they are.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::rows::Key;
use serde::Deserialize;
use tracing::warn;

use crate::{
    http::problem::Problem,
    status::command::{each_since, requested_at},
    store::StoreError,
    submit::{
        idempotency::lease::problem,
        plan::{PlannedCommand, SentCommand, SentCommands},
        send_context::SendContext,
    },
};

/// Sets by how much SSM's clock may be behind ours.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);
/// Sets within which time the same command is the same sending, and not another's: the SDK's tries end before.
const SENDING: TimeDelta = TimeDelta::seconds(60);

/// Holds the commands of SSM that a planned one may be, by its place in the plan, each with when it was requested.
type Candidates = BTreeMap<usize, Vec<(DateTime<Utc>, Command)>>;

/// Finds commands that SSM has taken since then without saying so: those that are not known as sent to all their nodes, and the
/// one in doubt.
///
/// Where SSM has one several times, the first counts and the others are its duplicates; one that another request made is left
/// out. What is found is noted with the request's lease, where there is one. A command behind those that are looked through is
/// sent again: a node that has its images answers in milliseconds.
///
/// Costs one ListCommands for each 50 commands since then, and one BatchGetItem for each 100 that are the same.
///
/// # Errors
/// A 503 where SSM or DynamoDB cannot be asked, a 409 where another works on the request now.
pub async fn find_sent(
    context: &SendContext<'_>,
    commands: &[PlannedCommand],
    in_doubt: Option<usize>,
    sent: &mut SentCommands,
    since: DateTime<Utc>,
) -> Result<(), Problem> {
    let is_left = |place: usize, sent: &SentCommands| commands[place].left(sent.get(&place)).is_some();
    let sought = (0..commands.len()).filter(|place| in_doubt == Some(*place) || is_left(*place, sent));
    let sought: Vec<usize> = sought.collect();
    if sought.is_empty() {
        return Ok(());
    }
    let (candidates, is_whole) = candidates(context, commands, &sought, sent, since).await?;
    let others = others(context, &candidates).await?;
    for (place, mut same) in candidates {
        same.retain(|(_, command)| command.command_id().is_some_and(|id| !others.contains(id)));
        if same.is_empty() {
            continue;
        }
        let one = sent
            .entry(place)
            .or_insert_with(|| SentCommand::begin(&commands[place]));
        note_found(one, same);
        if let Some(lease) = context.lease {
            lease.sent(place, one).await.map_err(problem)?;
        }
    }
    if !is_whole && sought.iter().any(|place| is_left(*place, sent)) {
        warn!("SSM has more commands than are looked through: one whose answer got lost may be among the others");
    }
    Ok(())
}

/// Notes the commands that are the same as one of the plan, without those of a later sending.
fn note_found(sent: &mut SentCommand, mut same: Vec<(DateTime<Utc>, Command)>) {
    same.sort_by(|(a, one), (b, other)| (a, one.command_id()).cmp(&(b, other.command_id())));
    let first = same[0].0;
    for (_, command) in same.iter().filter(|(at, _)| *at - first < SENDING) {
        let id = command.command_id().unwrap_or_default();
        sent.found(id.to_owned(), command.instance_ids());
    }
}

/// Gives the commands of SSM since then that are those sought and not yet known as sent; true where all were looked at.
async fn candidates(
    context: &SendContext<'_>,
    commands: &[PlannedCommand],
    sought: &[usize],
    sent: &SentCommands,
    since: DateTime<Utc>,
) -> Result<(Candidates, bool), Problem> {
    let mut listed = Vec::new();
    let listing = each_since(context.ssm, &context.settings.document, since - CLOCK_SKEW, |command| {
        listed.push(command);
    });
    let is_whole = listing.await.map_err(Problem::unavailable)?;
    let known: BTreeSet<&String> = sent.values().flat_map(SentCommand::ids).collect();
    let mut found = Candidates::new();
    for command in listed {
        let (Some(at), Some(id)) = (requested_at(&command), &command.command_id) else {
            continue;
        };
        if known.contains(id) {
            continue;
        }
        for place in sought {
            // To whichever of its nodes: a node may have been refused since.
            let planned = &commands[*place];
            let rule = context.rule(&planned.rule)?;
            if planned.is(&command, context.origin.trigger, rule, &context.settings.cluster) {
                found.entry(*place).or_default().push((at, command.clone()));
            }
        }
    }
    Ok((found, is_whole))
}

/// Tells which of these commands another request has made, by their rows.
async fn others(context: &SendContext<'_>, candidates: &Candidates) -> Result<BTreeSet<String>, Problem> {
    #[derive(Deserialize)]
    struct Row {
        request: Option<String>,
    }
    let commands = candidates.values().flatten();
    let ids = commands.filter_map(|(_, command)| command.command_id());
    let keys: BTreeMap<&str, Key> = ids.map(|id| (id, Key::job(id))).collect();
    let read = async || -> Result<BTreeSet<String>, StoreError> {
        let rows = context.store.read(&keys.values().cloned().collect()).await?;
        let mut others = BTreeSet::new();
        for (id, key) in &keys {
            let row: Option<Row> = rows.get(key)?;
            let request = row.and_then(|row| row.request);
            let is_others = request.is_some_and(|request| request != context.origin.occasion);
            others.extend(is_others.then(|| (*id).to_owned()));
        }
        Ok(others)
    };
    read().await.map_err(Problem::unavailable)
}

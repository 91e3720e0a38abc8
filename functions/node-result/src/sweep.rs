//! The sweep: what SSM's events, which are best effort, did not tell is looked for once.

use std::{
    collections::BTreeSet,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use prefetch::{
    command::{Comment, Trigger},
    error_text::error_text,
    rows::{Key, OUTBOX_PARTITIONS},
    ssm::{self, SsmError},
};
use serde::Serialize;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::{
    changes::JobRow,
    effects::Effects,
    event::CommandEnded,
    node_state::NodeState,
    queue::{self, QueueMessage, SendError},
    table::TableError,
};

/// Limits how far back from its deadline a command is looked for: as many sweeps fail in a row before one is missed.
const WINDOW: Duration = Duration::from_hours(24);
/// Limits how long one sweep takes, of the function's 60 seconds; the next one goes on.
const TIME: Duration = Duration::from_secs(50);
/// Limits how much of it what was left undone takes: a call that never answers there leaves time for the commands.
const OUTBOX_TIME: Duration = Duration::from_secs(25);
/// Is the time after which what was left undone is done: long after whoever began it had to end.
const LEFT: TimeDelta = TimeDelta::minutes(15);

/// Sweeps once, and counts what it does.
pub struct Sweep<'a> {
    ssm: &'a aws_sdk_ssm::Client,
    effects: Effects<'a>,
    now: DateTime<Utc>,
    swept: Swept,
}

/// Tells what a sweep did.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Tells how many commands past their deadline it is done with now.
    pub commands: usize,
    /// Tells how many events of nodes, and of commands as wholes, it made up for those that did not come.
    #[serde(rename = "asked")]
    pub events: usize,
    /// Tells how many outbox rows it finished.
    pub finished: usize,
    /// True where the time was too short, or AWS answered with an error: the next sweep goes on.
    pub unfinished: bool,
    /// The partitions of the outbox that it did not look through, by their characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub left: String,
}

/// Says that a sweep may take no longer.
#[derive(Debug, Error)]
#[error("the time is over")]
struct TimeOver;

/// Tells why a sweep ends early.
#[derive(Debug, Error)]
enum SweepError {
    #[error(transparent)]
    Time(#[from] TimeOver),
    #[error(transparent)]
    Ssm(#[from] SsmError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Messages(#[from] SendError),
}

/// Names a command of ours whose deadline is over.
struct Expired {
    id: String,
    comment: Comment,
    requested_at: DateTime<Utc>,
    targets: i64,
}

impl Expired {
    fn job(&self) -> &str {
        self.comment.job.as_ref().unwrap_or(&self.id)
    }

    /// Makes up the event of the command on a node, or as a whole, as if it came now.
    fn ended(&self, node: Option<String>, now: DateTime<Utc>) -> CommandEnded {
        CommandEnded {
            command: self.id.clone(),
            node,
            requested_at: self.requested_at,
            time: now,
            overdue: true,
        }
    }
}

impl<'a> Sweep<'a> {
    pub fn new(ssm: &'a aws_sdk_ssm::Client, effects: Effects<'a>, now: DateTime<Utc>) -> Self {
        Self {
            ssm,
            effects,
            now,
            swept: Swept::default(),
        }
    }

    /// Finishes what was left undone, and makes up events of commands past their deadline that no event told.
    ///
    /// They go through the result queue: what is put there is settled as SSM's events are. A sweep that ends early, be it for
    /// time or for throttling, leaves no mark on what it did not look at, and the next one does.
    pub async fn run(mut self) -> Swept {
        let begun = Instant::now();
        let until = begun + OUTBOX_TIME;
        let outbox = within(until, Box::pin(self.outbox(until))).await;
        let until = begun + TIME;
        let commands = within(until, Box::pin(self.commands(until))).await;
        for (what, ended) in [("the outbox", outbox), ("commands", commands)] {
            if let Err(error) = ended {
                warn!("the sweep of {what} ends early: {}", error_text(&error));
                self.swept.unfinished = true;
            }
        }
        let swept = self.swept;
        info!(
            commands = swept.commands,
            asked = swept.events,
            finished = swept.finished,
            left = swept.left,
            "swept {} commands",
            swept.commands
        );
        swept
    }

    /// Finishes what was left undone; what cannot be read or finished holds up nothing else.
    async fn outbox(&mut self, until: Instant) -> Result<(), SweepError> {
        let partitions = partitions(self.now);
        self.swept.left.clone_from(&partitions);
        for partition in partitions.chars() {
            in_time(until)?;
            match self.partition(partition, until).await {
                Ok(()) => self.swept.left.retain(|left| left != partition),
                Err(SweepError::Time(over)) => return Err(over.into()),
                Err(error) => {
                    warn!("outbox partition {partition}: {}", error_text(&error));
                    self.swept.unfinished = true;
                }
            }
        }
        Ok(())
    }

    async fn partition(&mut self, partition: char, until: Instant) -> Result<(), SweepError> {
        let mut after = None;
        loop {
            in_time(until)?;
            let (page, last) = self.effects.page(partition, after).await?;
            for left in page.iter().filter(|outbox| outbox.created_at < self.now - LEFT) {
                in_time(until)?;
                match self.effects.finish(left).await {
                    Ok(()) => self.swept.finished += 1,
                    Err(error) => {
                        warn!("outbox row {}: {}", left.id, error_text(&error));
                        self.swept.unfinished = true;
                    }
                }
            }
            after = last;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Goes through all commands that may be past their deadline, page by page.
    async fn commands(&mut self, until: Instant) -> Result<(), SweepError> {
        let settings = self.effects.settings;
        let after = self.now - WINDOW - settings.deadline;
        let after = after.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut page = None;
        loop {
            in_time(until)?;
            let answer = ssm::commands(self.ssm, &settings.document, &after, page).await?;
            let commands = answer.commands.unwrap_or_default();
            let expired = commands.iter().filter_map(|command| expired(command, self.now));
            self.page(expired.collect(), until).await?;
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks at those commands of a page that have no mark: one BatchGetItem for their marks and jobs.
    async fn page(&mut self, expired: Vec<Expired>, until: Instant) -> Result<(), SweepError> {
        let keys_of = |command: &Expired| [Key::swept(&command.id), Key::job(command.job())];
        let keys = expired.iter().flat_map(keys_of).collect();
        let rows = self.effects.table.read(&keys).await?;
        let is_marked = |command: &&Expired| rows.contains(&Key::swept(&command.id));
        for command in expired.iter().filter(|command| !is_marked(command)) {
            in_time(until)?;
            let job: Option<JobRow> = rows.get(&Key::job(command.job())).map_err(TableError::Row)?;
            self.command(command, job.as_ref(), until).await?;
            self.swept.commands += 1;
        }
        Ok(())
    }

    /// Makes up the events of a command of which nothing is known, and marks it.
    async fn command(&mut self, command: &Expired, job: Option<&JobRow>, until: Instant) -> Result<(), SweepError> {
        let is_first = command.comment.job.is_none();
        if is_first && job.is_none_or(|job| job.targets.is_none()) {
            self.tell(&[command.ended(None, self.now)]).await?;
        }
        let settled = job.map_or(0, |job| job.counters.nodes());
        if !is_first || settled < command.targets {
            self.nodes(command, until).await?;
        }
        let mark = Key::swept(&command.id);
        Ok(self.effects.table.mark(&mark, self.now).await?)
    }

    /// Makes up the events of those nodes of a command of which nothing is known, page by page.
    async fn nodes(&mut self, command: &Expired, until: Instant) -> Result<(), SweepError> {
        let mut page = None;
        loop {
            in_time(until)?;
            let answer = ssm::invocations(self.ssm, &command.id, page).await?;
            let invocations = answer.command_invocations.into_iter().flatten();
            let nodes: BTreeSet<String> = invocations.filter_map(|invocation| invocation.instance_id).collect();
            let missing = self.missing(command, nodes).await?.into_iter();
            let events: Vec<CommandEnded> = missing.map(|node| command.ended(Some(node), self.now)).collect();
            self.tell(&events).await?;
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(());
            }
        }
    }

    /// Keeps the nodes of which the command's attempt, or a later one, is not known.
    async fn missing(&self, command: &Expired, nodes: BTreeSet<String>) -> Result<Vec<String>, TableError> {
        let key = |node: &String| Key::node(command.job(), node);
        let rows = self.effects.table.read(&nodes.iter().map(key).collect()).await?;
        let mut missing = Vec::new();
        for node in nodes {
            let known: Option<NodeState> = rows.get(&key(&node))?;
            if known.is_none_or(|known| known.attempt < command.comment.attempt) {
                missing.push(node);
            }
        }
        Ok(missing)
    }

    /// Puts events into the result queue.
    async fn tell(&mut self, events: &[CommandEnded]) -> Result<(), SendError> {
        let Effects { sqs, settings, .. } = &self.effects;
        let message = |event: &CommandEnded| QueueMessage {
            seconds: 0,
            body: event.to_event(&settings.document),
        };
        let messages: Vec<QueueMessage> = events.iter().map(message).collect();
        queue::send(sqs, &settings.result_queue, &messages).await?;
        self.swept.events += messages.len();
        Ok(())
    }
}

/// Gives the partitions of the outbox in the order of the sweep of this moment: where sweeps end early, whatever their
/// interval, each begins elsewhere.
fn partitions(now: DateTime<Utc>) -> String {
    let mut hasher = DefaultHasher::new();
    now.timestamp().hash(&mut hasher);
    let number = OUTBOX_PARTITIONS.len();
    let first = hasher.finish() % number as u64;
    let first = usize::try_from(first).expect("a remainder is a place");
    OUTBOX_PARTITIONS.chars().cycle().skip(first).take(number).collect()
}

/// Works for as long as there is time, be it that a call never answers.
async fn within<T>(until: Instant, work: impl Future<Output = Result<T, SweepError>>) -> Result<T, SweepError> {
    match timeout_at(until, work).await {
        Ok(ended) => ended,
        Err(_) => Err(TimeOver.into()),
    }
}

fn in_time(until: Instant) -> Result<(), TimeOver> {
    if Instant::now() < until { Ok(()) } else { Err(TimeOver) }
}

/// Reads a command of ours whose deadline is over; of an inventory nothing is made up, for the next one is due soon.
fn expired(command: &Command, now: DateTime<Utc>) -> Option<Expired> {
    let moment = |time: &aws_sdk_ssm::primitives::DateTime| DateTime::from_timestamp_millis(time.to_millis().ok()?);
    if command.expires_after().and_then(moment)? >= now {
        return None;
    }
    let comment: Comment = command.comment()?.parse().ok()?;
    if comment.trigger == Trigger::Inventory {
        return None;
    }
    Some(Expired {
        id: command.command_id()?.to_owned(),
        comment,
        requested_at: command.requested_date_time().and_then(moment)?,
        targets: command.target_count().into(),
    })
}

#[cfg(test)]
mod tests;

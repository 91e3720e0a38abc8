//! Whose turn it is: one command works on a node, one waits, and what others ask for is queued.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use prefetch::outcome::NodeReason;
use tokio::time::Instant;

use super::{Command, Stop, work::Work};
use crate::{
    boots,
    context::Context,
    failure::Failure,
    host::RUN,
    lock::{Lock, Locks},
    queue::Queue,
};

/// The least time in which something of the queue is begun.
const WORTHWHILE: Duration = Duration::from_secs(5);
/// How long a command goes on with the queue: what it says itself is known once it has ended. What is left then is done by the
/// next, the hourly reconcile's at the latest.
const SERVE: Duration = Duration::from_mins(5);

/// What became of a command's wish to work.
pub(super) enum Turn {
    /// It works at once; it has the lock, which one that only reports does not take.
    Work(Option<Lock>),
    /// It works after another, which may have brought what it asks for.
    WorkAfterAnother(Lock),
    /// It does not: the reason has been said.
    GivenUp(NodeReason),
}

impl Command<'_> {
    /// Waits for the command's turn. Where one waits already, what is asked for goes to the queue.
    pub(super) async fn wait_for_turn(&self) -> Turn {
        if self.parameters.report_only {
            return Turn::Work(None);
        }
        match self.take_lock().await {
            Ok(turn) => turn,
            Err(error) => {
                self.speech.say(&format!("the lock in {RUN} cannot be taken: {error}"));
                Turn::GivenUp(NodeReason::Interrupted)
            }
        }
    }

    async fn take_lock(&self) -> io::Result<Turn> {
        let folder = folder(self.context)?;
        let (locks, queue) = (Locks::in_folder(&folder), Queue::in_folder(&folder));
        if let Some(lock) = locks.try_work()? {
            return Ok(Turn::Work(Some(lock)));
        }
        if let Some(turn) = self.wait(&locks).await? {
            return Ok(turn);
        }
        let is_queued = queue.add(self.parameters)?;
        // Whoever was there may have gone meanwhile, and not have seen it.
        if let Some(turn) = self.wait(&locks).await? {
            queue.remove(self.parameters)?;
            return Ok(turn);
        }
        let queued = if is_queued {
            "what this one asks for is done after them"
        } else {
            "and the queue is full"
        };
        self.speech
            .say(&format!("one command works on this node and one waits; {queued}"));
        Ok(Turn::GivenUp(NodeReason::Busy))
    }

    /// Waits, where no other command does.
    async fn wait(&self, locks: &Locks) -> io::Result<Option<Turn>> {
        let Some(waiting) = locks.try_wait()? else {
            return Ok(None);
        };
        let lock = if let Some(lock) = locks.try_work()? {
            Ok(Ok(lock))
        } else {
            self.speech.say("waiting for another command on this node");
            self.context.time.until_deadline(locks.work()).await
        };
        drop(waiting);
        Ok(Some(match lock {
            Ok(lock) => Turn::WorkAfterAnother(lock?),
            Err(Failure { reason, .. }) => Turn::GivenUp(reason),
        }))
    }
}

/// Does what other commands asked for that found no place, while time allows and nobody waits who could do it. Nothing of it
/// is printed: it is asked for again by those who sent it, and is there by then.
pub(super) async fn serve_queue(own: &Command<'_>, stop: &Stop) {
    if let Err(error) = try_serve_queue(own, stop).await {
        own.speech.say(&format!("the queue in {RUN} cannot be read: {error}"));
    }
}

async fn try_serve_queue(own: &Command<'_>, stop: &Stop) -> io::Result<()> {
    let context = own.context;
    let folder = folder(context)?;
    let (locks, queue) = (Locks::in_folder(&folder), Queue::in_folder(&folder));
    queue.clear_unfinished()?;
    let mut served: Vec<PathBuf> = Vec::new();
    let began = Instant::now();
    let may_go_on = || context.time.left() > WORTHWHILE && began.elapsed() < SERVE && !stop.has_happened();
    while may_go_on() && !locks.is_waited_for() {
        let Some(entry) = queue.next(&served, SystemTime::now())? else {
            break;
        };
        let images = entry.parameters.images.len();
        own.speech
            .say(&format!("doing what another command asked for: images: {images}"));
        let command = Command::new(context, &entry.parameters, own.speech.without_lines(), stop);
        command.run(command.bring_all()).await;
        own.speech.go_on_from(&command.speech);
        served.push(entry.file().to_owned());
        let is_cut_off = stop.has_happened() || context.time.is_over();
        if !is_cut_off && !command.works.iter().any(Work::was_interrupted) {
            entry.remove()?; // else it stays for the next command, and keeps no other entry from its turn
        }
    }
    Ok(())
}

/// Brings along what the node's boot reported, where no other command is at work.
pub(super) fn bring_boots_along(own: &Command<'_>) {
    let host = &own.context.host;
    let rules = boots::left(host);
    if rules.is_empty() || own.parameters.report_only {
        return;
    }
    let take = || Locks::in_folder(&folder(own.context).ok()?).try_work().ok()?;
    let lock = own.lock.take().or_else(take);
    if lock.is_some() {
        boots::bring_along(&rules, host, &own.speech);
    }
}

/// Returns the folder that commands keep, which is for root alone.
fn folder(context: &Context) -> io::Result<PathBuf> {
    let folder = context.host.path(RUN);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    Ok(folder)
}

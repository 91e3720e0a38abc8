//! The turn of a command: one command works on a node, one waits, and what others ask for is queued.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::PathBuf};

use prefetch::outcome::NodeReason;

use crate::{
    boots,
    command::Command,
    context::Context,
    failure::Failure,
    host::RUN,
    lock::{Lock, Locks},
    queue::Queue,
};

/// Tells what became of a command's wish to work.
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
                self.reporter
                    .say(&format!("the lock in {RUN} cannot be taken: {error}"));
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
        self.reporter
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
            self.reporter.say("waiting for another command on this node");
            self.context.time.until_deadline(locks.work()).await
        };
        drop(waiting);
        Ok(Some(match lock {
            Ok(lock) => Turn::WorkAfterAnother(lock?),
            Err(Failure { reason, .. }) => Turn::GivenUp(reason),
        }))
    }
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
        boots::bring_along(&rules, host, &own.reporter);
    }
}

/// Returns the folder that commands keep, which is for root alone.
pub(super) fn folder(context: &Context) -> io::Result<PathBuf> {
    let folder = context.host.path(RUN);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    Ok(folder)
}

//! The queue: what other commands asked for that found no place, done by a command that has its turn.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::turn;
use crate::{
    command::{Command, work::Work},
    host::RUN,
    lock::Locks,
    queue::Queue,
};

/// Bounds the time that is left where something of the queue is begun.
const WORTHWHILE: Duration = Duration::from_secs(5);
/// Bounds the time of a command for the queue: its own report is known once it has ended. The rest is done by the
/// next, the hourly reconcile's at the latest.
const SERVE: Duration = Duration::from_mins(5);

/// Does what other commands asked for that found no place, while time allows and nobody waits who could do it. Nothing of it
/// is printed: it is asked for again by those who sent it, and is there by then.
pub(super) async fn serve(own: &Command<'_>) {
    if let Err(error) = try_serve(own).await {
        own.reporter.say(&format!("the queue in {RUN} cannot be read: {error}"));
    }
}

async fn try_serve(own: &Command<'_>) -> io::Result<()> {
    let (context, stop) = (own.context, own.stop);
    let folder = turn::folder(context)?;
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
        own.reporter
            .say(&format!("doing what another command asked for: images: {images}"));
        let command = Command::new(context, &entry.parameters, own.reporter.without_lines(), stop);
        command.run(command.bring_all()).await;
        own.reporter.go_on_from(&command.reporter);
        served.push(entry.file().to_owned());
        let is_cut_off = stop.has_happened() || context.time.is_over();
        if !is_cut_off && !command.works.iter().any(Work::was_interrupted) {
            entry.remove()?; // else it stays for the next command, and keeps no other entry from its turn
        }
    }
    Ok(())
}

//! A pull while it goes on: it is cut off where it makes no progress, where a disk fills, and at the command's deadline.

use std::{collections::HashMap, io, time::Duration};

use prefetch::outcome::NodeReason;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::{
    download::{self, Handover},
    marker::PullMarker,
    progress::{self, Look, Progress},
    reason,
};
use crate::{
    command::{Command, work::Work},
    containerd::{inventory::Inventory, snapshots::Snapshot},
    context::Context,
    description::Description,
    failure::Failure,
    login::Login,
};

/// Separates two looks at the disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Counts the looks at the progress within its limit.
const LOOKS_WITHIN_LIMIT: u32 = 6;

/// An attempt to pull an image.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The command.
    pub command: &'a Command<'a>,
    /// The image.
    pub work: &'a Work,
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The image's description.
    pub description: &'a Description,
    /// The login for its registry.
    pub login: Option<&'a Login>,
    /// The inventory of containerd before the attempt.
    pub inventory: &'a Inventory,
    /// The note that the pull was begun.
    pub marker: Option<&'a PullMarker>,
}

/// Pulls an image through CRI, as kubelet does, by its digest.
///
/// A pull has no time limit of its own: what moves may take as long as it likes, up to the deadline.
pub async fn pull(attempt: Attempt<'_>) -> Result<(), Failure> {
    let Attempt {
        command,
        work,
        description,
        ..
    } = attempt;
    let handover = Handover::default();
    let request = async {
        tokio::select! {
            pulled = pull_after_layers(attempt, &handover) => pulled,
            never = download_layers(attempt, &handover) => never,
        }
    };
    let _at_work = command.layers_at_work.note(work.number, description);
    let progress = begin(description, attempt.inventory);
    let watched = async {
        tokio::select! {
            biased;
            answer = request => answer,
            failure = watch_disk(command, attempt.marker) => Err(failure),
            failure = watch_progress(command, progress, progress::limit(attempt.number), &handover) => Err(failure),
        }
    };
    match command.context.time.until_deadline(Box::pin(watched)).await {
        Ok(ended) => ended,
        Err(failure) => Err(failure),
    }
}

/// Downloads the image's layers, lets the pull begin, and never returns.
async fn download_layers(attempt: Attempt<'_>, handover: &Handover) -> Result<(), Failure> {
    let Attempt {
        command,
        work,
        number,
        login,
        inventory,
        ..
    } = attempt;
    if let Some(content) = &attempt.description.content {
        let layers = download::layers(command, &work.image, content, login, inventory, handover);
        if let Err(Failure { reason, detail }) = Box::pin(layers).await {
            let words = format!("containerd is left what is missing: {detail}");
            command.reporter.tell(&work.budget, &work.image, number, reason, &words);
        }
    }
    handover.begin_to_pull();
    std::future::pending().await
}

/// Pulls the image once its layers are there, or as many of them as are going to be.
async fn pull_after_layers(attempt: Attempt<'_>, handover: &Handover) -> Result<(), Failure> {
    let Attempt {
        command, work, login, ..
    } = attempt;
    let (context, image) = (command.context, work.image.name_by_digest());
    handover.may_pull().await;
    // An image counts as there once it is unpacked for CRI's own snapshotter, so that comes last.
    pull_for_other_runtimes(command, work, &image, login).await?;
    let answer = ask(context, &image, login).await;
    answer.map_err(|status| reason::of_status(&work.image, &status))?;
    if let Some(words) = handover.words_of_unpacking(&context.host) {
        command.reporter.say(&format!("{image}: {words}"));
    }
    Ok(())
}

/// Asks the server that kubelet asks, and containerd itself where that is none or does not know the call.
async fn ask(context: &Context, image: &str, login: Option<&Login>) -> Result<(), Status> {
    const DEFAULT_RUNTIME: &str = "";
    if let Some(other) = context.other_image_service() {
        match Box::pin(other.pull_image(image, login, DEFAULT_RUNTIME)).await {
            Err(status) if is_none(&status) => context.give_up_other_image_service(),
            answer => return answer,
        }
    }
    Box::pin(context.containerd.pull_image(image, login, DEFAULT_RUNTIME)).await
}

/// Pulls an image for each runtime class that unpacks into another snapshotter: where layers are discarded, its pods would
/// find the image there and fail to start from it (containerd#11390). One whose snapshotter does not run can have no pods.
async fn pull_for_other_runtimes(
    command: &Command<'_>,
    work: &Work,
    image: &str,
    login: Option<&Login>,
) -> Result<(), Failure> {
    for (handler, snapshotter) in command.context.other_runtimes() {
        let pulled = Box::pin(command.context.containerd.pull_image(image, login, handler)).await;
        let Err(status) = pulled else {
            continue;
        };
        let Failure { reason, detail } = reason::of_status(&work.image, &status);
        let detail = format!("runtime class {handler}, which unpacks into {snapshotter}: {detail}");
        match reason {
            NodeReason::Snapshotter => command.reporter.say(&format!("left out: {detail}")),
            reason if reason.is_retryable() => return Err(Failure::new(reason, detail)),
            _ => return Err(Failure::new(NodeReason::RuntimeClass, detail)),
        }
    }
    Ok(())
}

/// Tells whether an image service does not run, or is none; one that breaks off is one.
fn is_none(status: &Status) -> bool {
    let causes = std::iter::successors(std::error::Error::source(status), |error| error.source());
    let kinds = causes
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    let is_unreachable = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    status.code() == Code::Unimplemented || kinds.into_iter().any(is_unreachable)
}

fn begin(description: &Description, inventory: &Inventory) -> Progress {
    let mut layers = HashMap::new();
    let mut has_begun = false;
    if let Some(content) = &description.content {
        layers.extend(content.layers.iter().map(|layer| (layer.digest.clone(), layer.bytes)));
        has_begun = inventory.blobs.contains_key(&content.config);
    }
    Progress::new(layers, has_begun, Instant::now())
}

/// Returns once a disk is full by the limits that the node has; notes meanwhile that the pull goes on.
async fn watch_disk(command: &Command<'_>, marker: Option<&PullMarker>) -> Failure {
    let room = command.room().await;
    loop {
        sleep(LOOK_EVERY).await;
        if let Some(marker) = marker {
            marker.touch();
        }
        if let Some(why) = room.is_full() {
            return Failure::new(NodeReason::NoSpace, why);
        }
    }
}

/// Returns once nothing has moved for as long as that may be.
///
/// A snapshotter outside containerd may do all the work by itself, of which containerd shows nothing (SOCI's parallel mode
/// blocks while it fetches): only the deadline ends that.
async fn watch_progress(
    command: &Command<'_>,
    mut progress: Progress,
    limit: Duration,
    handover: &Handover,
) -> Failure {
    let context = command.context;
    let config = &context.config;
    let others = context.other_runtimes().map(|(_, other)| other);
    if others
        .chain([&config.snapshotter])
        .any(|name| config.runs_outside(name))
    {
        return std::future::pending().await;
    }
    let seconds = limit.as_secs();
    loop {
        sleep(limit / LOOKS_WITHIN_LIMIT).await;
        let look = Box::pin(look(context));
        let look = timeout(limit, look).await;
        if handover.excuses_quiet() {
            progress.wait(Instant::now());
        } else if let Ok(Ok(look)) = look {
            progress.see(&look, Instant::now());
        }
        if progress.quiet_for(Instant::now()) >= limit {
            return Failure::new(NodeReason::Timeout, format!("no progress for {seconds} seconds"));
        }
    }
}

async fn look(context: &Context) -> Result<Look, Status> {
    let Context { containerd, config, .. } = context;
    let is_unpacking = |snapshots: Vec<Snapshot>| snapshots.iter().any(|snapshot| snapshot.key.starts_with("extract-"));
    let (ingests, snapshots) = tokio::try_join!(containerd.ingests(), containerd.snapshots(&config.snapshotter))?;
    let mut look = Look {
        ingests,
        is_unpacking: is_unpacking(snapshots),
    };
    for (_, other) in context.other_runtimes() {
        look.is_unpacking |= containerd.snapshots(other).await.is_ok_and(is_unpacking);
    }
    Ok(look)
}

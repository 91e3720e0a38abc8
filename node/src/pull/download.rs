//! Layers that are in containerd's store before its pull: downloaded in parts over several connections, none of which takes
//! one of the few places that containerd has for the downloads of all pulls of a node.
//!
//! Whatever goes wrong here, the pull is asked afterwards, goes on where this ended, and tells what is the matter.

mod bring;
mod buffer;
mod chunks;
mod fetch;
mod handover;
mod transfer;
mod write;

use prefetch::{
    image::Image,
    manifest::{Configuration, Content, Layer},
};
use tokio::time::Instant;
use tonic::{Code, Status};

pub use self::handover::Handover;
use self::{
    buffer::{Files, KEPT, of_file},
    chunks::missing,
    transfer::{Source, Transfer},
};
use super::reason;
use crate::{
    command::Command,
    containerd::{inventory::Inventory, leases},
    context::Context,
    disk::size::Size,
    failure::Failure,
    login::Login,
    queue::name_of,
    registry::DocumentKind,
};

/// Downloads the layers that a pull of an image would, where that is worth it and possible, and holds them by a lease of its
/// own until [`forget`].
///
/// The pull begins once they are all there. Where no pod can be, whose own pull would wait behind it, it begins once the
/// lowest is: containerd unpacks what is there, and waits for what is being written.
///
/// # Errors
/// That they are not all there, and why; the pull brings the others.
pub async fn layers(
    command: &Command<'_>,
    image: &Image,
    content: &Content,
    login: Option<&Login>,
    inventory: &Inventory,
    handover: &Handover,
) -> Result<(), Failure> {
    let Command { context, pace, .. } = command;
    if !is_possible(command, content) {
        return Ok(());
    }
    handover.is_waiting.set(true);
    let _one_at_a_time = command.downloading.lock().await;
    handover.is_waiting.set(false);
    let configuration = configuration(context, image, &content.config, login, inventory).await?;
    let wanted = missing(content, configuration.as_ref(), inventory);
    let may_have_pods = command.may_have_pods().await;
    let lease = lease(context, image).await?;
    let files = Files::on(&context.host).map_err(|error| of_file(&error))?;
    let source = Source {
        context,
        image,
        login,
        pace,
        may_have_pods,
        lease: &lease,
        files: &files,
    };
    bring(command, content, source, &wanted, handover).await
}

/// Downloads layers, and gives way to what containerd downloads for others meanwhile.
async fn bring(
    command: &Command<'_>,
    content: &Content,
    source: Source<'_>,
    wanted: &[&Layer],
    handover: &Handover,
) -> Result<(), Failure> {
    let Source {
        context, image, pace, ..
    } = source;
    let is_own = |digest: &str| command.layers_at_work.has(digest);
    let began = Instant::now();
    pace.begin();
    loop {
        let transfer = Transfer::of(source, handover);
        let brought = tokio::select! {
            brought = transfer.bring(wanted) => Some(brought),
            () = pace.others_come(&context.containerd, is_own) => None,
        };
        if transfer.is_wrong() {
            forget(context, image, content, true).await.ok(); // it ends by itself
        }
        if let Some(brought) = brought {
            handover.end(brought.is_ok() && !transfer.has_left(), began);
            return brought;
        }
        // Nothing is held meanwhile: others take over what they want of it.
        drop(transfer);
        handover.is_waiting.set(true);
        pace.others_go(&context.containerd, is_own).await;
        handover.is_waiting.set(false);
    }
}

/// Makes the lease by which an image's layers are held.
async fn lease(context: &Context, image: &Image) -> Result<String, Failure> {
    let lease = format!("{}.{}", lease_of(image), std::process::id());
    let held_for = context.time.left() + KEPT;
    match context.containerd.create_lease(&lease, held_for).await {
        Err(status) if status.code() != Code::AlreadyExists => Err(reason::of_status(image, &status)),
        _ => Ok(lease),
    }
}

/// Lets go of the layers of an image: it has come, or never will. With `at_once` what is unpacked takes no room twice
/// afterwards; else containerd collects it within seconds, as it does after a pull of its own.
///
/// # Errors
/// containerd's; the lease ends by itself.
pub async fn forget(node: &Context, image: &Image, content: &Content, at_once: bool) -> Result<(), Status> {
    if Size::of(content).is_small() {
        return Ok(());
    }
    let lease = lease_of(image);
    for found in node.containerd.leases().await? {
        if found.id.strip_prefix(&lease).is_some_and(|rest| rest.starts_with('.')) {
            node.containerd.remove_lease(&found.id, at_once).await?;
        }
    }
    if let Ok(files) = Files::on(&node.host) {
        let named = content.layers.iter().filter(|layer| !layer.digest.is_empty());
        named.for_each(|layer| files.remove(&layer.digest));
    }
    Ok(())
}

/// Returns what the names of the leases of an image begin with; a dot and the process follow.
fn lease_of(image: &Image) -> String {
    let name = name_of(image.name_by_digest().as_bytes());
    format!("{}layers-{name}", leases::OURS)
}

/// Tells whether the layers of an image are written by us: not those of a small one, nor those that containerd may fetch from
/// elsewhere, or a snapshotter or an image service outside containerd by itself.
fn is_possible(command: &Command<'_>, content: &Content) -> bool {
    let Command { context, pace, .. } = command;
    let config = &context.config;
    let is_outside = config.runs_outside(&config.snapshotter)
        || context.other_runtimes().any(|(_, other)| config.runs_outside(other))
        || context.other_image_service().is_some();
    let is_plain = |layer: &Layer| !layer.digest.is_empty() && layer.bytes > 0 && !layer.is_elsewhere;
    pace.max_connections() > 0
        && !is_outside
        && !config.has_image_verifiers(&context.host)
        && !Size::of(content).is_small()
        && content.layers.iter().all(is_plain)
}

/// Reads the configuration where some of the image's layers may be unpacked already.
async fn configuration(
    context: &Context,
    image: &Image,
    digest: &str,
    login: Option<&Login>,
    inventory: &Inventory,
) -> Result<Option<Configuration>, Failure> {
    if inventory.snapshots.is_empty() {
        return Ok(None);
    }
    let text = context.ask_registry(image, DocumentKind::Blob, digest, login).await?;
    Ok(Configuration::parse(&text).ok())
}

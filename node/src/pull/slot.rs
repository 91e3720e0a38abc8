//! An image's place among those that are pulled at once; a few small ones share one.

use std::time::Duration;

use prefetch::manifest::Content;
use tokio::{sync::SemaphorePermit, time::timeout};

use super::room::Size;
use crate::{
    command::{Command, work::Work},
    failure::Failure,
};

/// How many small images take the place of one: what takes longest of them is the way to the registry and back, not bytes.
pub const SMALL_AT_ONCE: u32 = 4;
/// Up to which compressed size, in bytes, an image is small: a few of them take containerd no longer than one larger image does,
/// whose layers stand before a pod's own pull all together.
const SMALL: u64 = 8 << 20;
/// How long an image waits for its size to be known before it counts as large.
const SIZE_IS_KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Tells whether an image is small.
#[must_use]
pub fn is_small(content: &Content) -> bool {
    Size::of(content).compressed <= SMALL
}

/// Waits until an image has its place, which it gives back with what is returned.
///
/// # Errors
/// `timeout` where the command's time is over before.
pub async fn take<'a>(command: &'a Command<'_>, work: &Work) -> Result<Option<SemaphorePermit<'a>>, Failure> {
    let described = timeout(SIZE_IS_KNOWN_WITHIN, command.described(work)).await;
    let content = described.ok().flatten().and_then(|described| described.content);
    let is_small = content.is_some_and(|content| is_small(&content));
    let places = command.slots.acquire_many(if is_small { 1 } else { SMALL_AT_ONCE });
    Ok(command.context.time.until_deadline(places).await?.ok()) // they are never taken away
}

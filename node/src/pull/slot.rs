//! An image's place among those that are pulled at once; a few small ones share one.

use std::time::Duration;

use tokio::{sync::SemaphorePermit, time::timeout};

use crate::{
    command::{Command, work::Work},
    disk::size::{SMALL_AT_ONCE, Size},
    failure::Failure,
};

/// Bounds the time in which an image's size is to be known; after it the image counts as large.
const SIZE_IS_KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Waits until an image has its place, which it gives back with what is returned.
///
/// # Errors
/// `timeout` where the command's time is over before.
pub async fn take<'a>(command: &'a Command<'_>, work: &Work) -> Result<Option<SemaphorePermit<'a>>, Failure> {
    let described = timeout(SIZE_IS_KNOWN_WITHIN, command.described(work)).await;
    let content = described.ok().flatten().and_then(|described| described.content);
    let is_small = content.is_some_and(|content| Size::of(&content).is_small());
    let places = command.slots.acquire_many(if is_small { 1 } else { SMALL_AT_ONCE });
    Ok(command.context.time.until_deadline(places).await?.ok()) // they are never taken away
}

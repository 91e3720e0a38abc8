//! Stands for what is still being written: names, what is left over, what is kept.

use std::collections::HashSet;

use prefetch::{image::Image, outcome::NodeReason};

use super::Command;
use crate::{
    containerd::{
        Containerd,
        images::Name,
        inventory::{Inventory, unanswered},
    },
    failure::Failure,
};

/// The names that an image had before.
#[derive(Clone, Debug, Default)]
pub struct Before(HashSet<String>);

impl Before {
    /// Sees them.
    #[must_use]
    pub fn of(inventory: &Inventory, image: &Image) -> Self {
        let names = [Some(image.name_by_digest()), image.name_by_tag()]
            .into_iter()
            .flatten();
        Self(names.filter(|name| inventory.is_right(name, image.digest())).collect())
    }
}

/// Gives an image the names that it lacks.
///
/// # Errors
/// containerd's.
pub async fn complete(
    containerd: &Containerd,
    image: &Image,
    inventory: &Inventory,
    is_pulled: bool,
    ask: impl AsyncFn() -> Result<Option<String>, Failure>,
) -> Result<Option<NodeReason>, Failure> {
    let filter = format!("name=={}", image.name_by_digest());
    let names = containerd
        .names(&[filter])
        .await
        .map_err(|status| unanswered(&status))?;
    if let (Some(name), Some(tag)) = (names.first(), image.name_by_tag()) {
        let new = Name {
            name: tag,
            ..name.clone()
        };
        if containerd.create_name(&new).await.is_err() {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Removes the names that an image did not have before.
///
/// # Errors
/// containerd's.
pub async fn remove_new_names(
    containerd: &Containerd,
    inventory: &Inventory,
    image: &Image,
    before: &Before,
) -> Result<(), Failure> {
    Ok(())
}

/// Removes what commands that were killed left behind.
///
/// # Errors
/// containerd's.
pub async fn remove_leftovers(command: &Command<'_>) -> Result<(), Failure> {
    Ok(())
}

/// Makes containerd collect what nothing holds.
///
/// # Errors
/// containerd's.
pub async fn collect_garbage(containerd: &Containerd, snapshotter: &str, is_full: bool) -> Result<(), Failure> {
    Ok(())
}

/// Keeps the newest images of ours.
pub async fn keep(command: &Command<'_>) {}

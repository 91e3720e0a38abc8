//! The removal of an image of ours.

use tonic::{Code, Status};

use super::{
    labels::is_id,
    ours::{Ours, key},
    pins,
};
use crate::containerd::{Containerd, inventory::Inventory};

/// Removes an image of ours: its pin, its names, those by which CRI alone knows it where nothing else names it, and what says
/// that it was ours. What nothing holds any more is gone afterwards.
///
/// # Errors
/// containerd's.
pub async fn remove(containerd: &Containerd, inventory: &Inventory, ours: &Ours) -> Result<(), Status> {
    let names = to_remove(inventory, ours);
    if !names.iter().any(|name| is_id(name)) {
        pins::unpin(containerd, inventory, ours).await?; // of those by which CRI knows it, which stay
    }
    for (index, name) in names.iter().enumerate() {
        containerd.remove_name(name, index + 1 == names.len()).await?;
    }
    let labels = ours.names.iter().map(|name| (key(name), String::new())).collect();
    match containerd.label_blob(&ours.digest, &labels).await {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

/// Returns the names that go, in their order. The one by digest goes last: by that an image is known for ours, so that the next
/// command goes on where this one is killed.
pub(super) fn to_remove<'a>(inventory: &'a Inventory, ours: &'a Ours) -> Vec<&'a str> {
    let all = inventory.names.values();
    let (mut names, others): (Vec<_>, Vec<_>) = all
        .filter(|name| name.target.digest == ours.digest)
        .map(|name| name.name.as_str())
        .filter(|name| !ours.names.iter().any(|of_ours| of_ours == name))
        .partition(|name| is_id(name));
    if !others.is_empty() {
        names.clear();
    }
    names.extend(ours.names.iter().map(String::as_str));
    names.sort_by_key(|name| name.ends_with(&ours.digest));
    names
}

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
    let all = inventory.names.values();
    let (ids, others): (Vec<_>, Vec<_>) = all
        .filter(|name| name.target.digest == ours.digest)
        .map(|name| name.name.as_str())
        .filter(|name| !ours.names.iter().any(|of_ours| of_ours == name))
        .partition(|name| is_id(name));
    let ids = if others.is_empty() {
        ids
    } else {
        pins::unpin(containerd, inventory, ours).await?; // of the ids, which stay
        Vec::new()
    };
    let names: Vec<_> = ours.names.iter().map(String::as_str).chain(ids).collect();
    for (index, name) in names.iter().enumerate() {
        containerd.remove_name(name, index + 1 == names.len()).await?;
    }
    let labels = ours.names.iter().map(|name| (key(name), String::new())).collect();
    match containerd.label_blob(&ours.digest, &labels).await {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

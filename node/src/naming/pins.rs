//! Pins: what spares an image from kubelet's garbage collection.
//!
//! One pinned name pins the image for CRI. A pull writes the name that it goes by anew, without its pin; the name by which CRI
//! alone knows the image keeps it (seen on containerd 1.7 and 2.1). So both that one and the name by digest are pinned.

use std::collections::BTreeMap;

use tonic::{Code, Status};

use super::{
    labels::{PINNED, PINNED_FOR, is_id, is_pinned_for, pinned_for},
    ours::Ours,
};
use crate::containerd::{Containerd, images::Name, inventory::Inventory};

/// Labels to be set on names; those with an empty value are removed.
pub(super) type Labels<'a> = Vec<(&'a Name, BTreeMap<String, String>)>;

/// Pins an image of ours; where it is pinned already, nothing is asked.
///
/// # Errors
/// containerd's.
pub async fn pin(containerd: &Containerd, inventory: &Inventory, ours: &Ours) -> Result<(), Status> {
    set(containerd, to_pin(inventory, ours)).await
}

/// Takes off the pin that we gave an image of ours, but not what others pinned, nor for another repository.
///
/// # Errors
/// containerd's.
pub async fn unpin(containerd: &Containerd, inventory: &Inventory, ours: &Ours) -> Result<(), Status> {
    set(containerd, to_unpin(inventory, ours)).await
}

/// Takes off pins of ours that nothing of ours is left for: a person may have removed its names, or another image may have
/// taken them over.
///
/// # Errors
/// containerd's.
pub async fn remove_stray_pins(containerd: &Containerd, inventory: &Inventory, all: &[Ours]) -> Result<(), Status> {
    set(containerd, stray(inventory, all)).await
}

pub(super) fn to_pin<'a>(inventory: &'a Inventory, ours: &Ours) -> Labels<'a> {
    let pinned = (PINNED.to_owned(), "pinned".to_owned());
    let by_digest = format!("{}@{}", ours.repository, ours.digest);
    let of_digest = inventory
        .names
        .values()
        .filter(|name| name.target.digest == ours.digest);
    let labels = of_digest.filter_map(|name| {
        let is_pinned = name.labels.contains_key(PINNED);
        let is_others = is_pinned && !name.labels.keys().any(|label| label.starts_with(PINNED_FOR));
        if name.name == by_digest && !is_pinned {
            Some((name, BTreeMap::from([pinned.clone()])))
        } else if is_id(&name.name) && !is_others && !is_pinned_for(name, &ours.repository, &ours.digest) {
            let mark = (pinned_for(&ours.repository), ours.digest.clone());
            Some((name, BTreeMap::from([pinned.clone(), mark])))
        } else {
            None
        }
    });
    labels.collect()
}

pub(super) fn to_unpin<'a>(inventory: &'a Inventory, ours: &Ours) -> Labels<'a> {
    let names = ours.names.iter().filter_map(|name| inventory.names.get(name));
    let by_name = names
        .filter(|name| name.labels.contains_key(PINNED))
        .map(|name| (name, BTreeMap::from([(PINNED.to_owned(), String::new())])));
    let ids = inventory
        .names
        .values()
        .filter(|name| is_pinned_for(name, &ours.repository, &ours.digest));
    let by_id = ids.map(|name| (name, without(name, &[&pinned_for(&ours.repository)])));
    by_name.chain(by_id).collect()
}

pub(super) fn stray<'a>(inventory: &'a Inventory, all: &[Ours]) -> Labels<'a> {
    let is_left = |repository: &str, digest: &str| {
        all.iter()
            .any(|ours| ours.repository == repository && ours.digest == digest)
    };
    let strays = inventory.names.values().filter_map(|name| {
        let marks = name.labels.iter().filter(|(label, digest)| {
            label
                .strip_prefix(PINNED_FOR)
                .is_some_and(|repository| !is_left(repository, digest))
        });
        let marks: Vec<_> = marks.map(|(label, _)| label.as_str()).collect();
        (is_id(&name.name) && !marks.is_empty()).then(|| (name, without(name, &marks)))
    });
    strays.collect()
}

/// Returns what removes marks from a name, and with the last of them its pin.
fn without(name: &Name, marks: &[&str]) -> BTreeMap<String, String> {
    let mut left = name.labels.keys().filter(|label| label.starts_with(PINNED_FOR));
    let is_last = left.all(|label| marks.contains(&label.as_str()));
    let pin = is_last.then_some(PINNED);
    let labels = marks.iter().copied().chain(pin);
    labels.map(|label| (label.to_owned(), String::new())).collect()
}

async fn set(containerd: &Containerd, labels: Labels<'_>) -> Result<(), Status> {
    for (name, labels) in labels {
        match containerd.label_name(name, &labels).await {
            Err(status) if status.code() != Code::NotFound => return Err(status),
            _ => {} // a name that is gone pins nothing
        }
    }
    Ok(())
}

//! The images in use on a node, the most important first: a decision.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
};

use prefetch::{image::Image, usage_line::UsageLine};

use super::{look::Look, reference};
use crate::{
    containerd::{
        cri::{CriContainer, CriImage},
        inventory::Inventory,
    },
    naming::ours,
};

/// An image in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Its line.
    pub line: UsageLine,
    /// True where something on the node uses it, or has used it: a container, if only an ended one, or a volume.
    pub is_used: bool,
}

/// Returns the images that containers use, most running ones first, and then those that kubelet pulled.
///
/// An image of ours that nothing uses is in no use; neither is one that containerd or a person pinned, as the pause image is.
#[must_use]
pub fn in_use(look: &Look) -> Vec<InUse> {
    let inventory = &look.inventory;
    let by_image = look.containers_by_image();
    let mut found = Found::default();
    for image in &look.images {
        match by_image.get(image.id.as_str()) {
            Some(containers) => found.add_containers(inventory, image, containers),
            None => found.add_without_containers(inventory, image, &look.volumes),
        }
    }
    let mut all: Vec<_> = found.0.into_values().collect(); // by name
    all.sort_by_key(|image| (Reverse(image.line.running), !image.is_used));
    all
}

/// The images that were found so far.
#[derive(Default)]
struct Found(BTreeMap<Image, InUse>);

impl Found {
    fn add_containers(&mut self, inventory: &Inventory, image: &CriImage, containers: &[&CriContainer]) {
        for container in containers {
            for reference in reference::of_container(inventory, image, &container.image) {
                let found = self.add(inventory, image, reference);
                found.line.running += u32::from(container.is_running);
                found.is_used = true;
            }
        }
    }

    fn add_without_containers(&mut self, inventory: &Inventory, image: &CriImage, volumes: &HashSet<String>) {
        for reference in reference::all(inventory, image) {
            let is_ours = ours::pulled_at(inventory, &reference).is_some();
            let is_used = volumes.contains(reference.digest());
            if is_used || !is_ours && !image.pinned {
                let pulled_at = reference::came_at(inventory, &reference).filter(|_| !is_used);
                let found = self.add(inventory, image, reference);
                found.is_used = is_used;
                found.line.pulled_at = pulled_at;
            }
        }
    }

    fn add(&mut self, inventory: &Inventory, image: &CriImage, reference: Image) -> &mut InUse {
        self.0.entry(reference).or_insert_with_key(|reference| InUse {
            line: UsageLine {
                image: reference.clone(),
                running: 0,
                prefetched: ours::pulled_at(inventory, reference).is_some(),
                bytes: image.size,
                pulled_at: None,
            },
            is_used: false,
        })
    }
}

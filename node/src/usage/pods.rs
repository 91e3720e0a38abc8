//! Counts what pods have found on the node: images that were there before them, or for which they waited.

use std::collections::BTreeMap;

use super::{look::Look, reference};
use crate::containerd::cri::{CriContainer, Sandbox};

/// Holds what a look has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodImages {
    /// The number of images of pods, each image of a pod once.
    pub all: u32,
    /// The number of those that were on the node before their pod.
    pub present: u32,
    /// The moment when the newest container was made, in nanoseconds since 1970; 0 where there has been none.
    pub newest: i64,
}

/// Counts the images of pods of which no container was made until the newest that the last look has seen, without one those of
/// all pods that there are. A container that takes the place of an ended one found its image long ago.
#[must_use]
pub fn pod_images(look: &Look, newest: Option<i64>) -> PodImages {
    let last = newest.unwrap_or(0);
    let mut first: BTreeMap<(&str, &str), &CriContainer> = BTreeMap::new();
    for container in &look.containers {
        let of_pod = first
            .entry((&container.sandbox, &container.image_ref))
            .or_insert(container);
        if container.created_at < of_pod.created_at {
            *of_pod = container;
        }
    }
    let is_new =
        |container: &&CriContainer| newest.is_none_or(|newest| container.created_at > newest && !container.is_restart);
    let found = first
        .into_values()
        .filter(is_new)
        .filter_map(|container| was_present(look, container));
    let count = |sum: PodImages, was_present| PodImages {
        all: sum.all + 1,
        present: sum.present + u32::from(was_present),
        ..sum
    };
    let newest = look.containers.iter().map(|container| container.created_at).max();
    let nothing = PodImages {
        newest: newest.unwrap_or(0).max(last),
        ..PodImages::default()
    };
    found.fold(nothing, count)
}

/// Returns true where a container's image was on the node when its pod was made; none where its pod or image is gone.
fn was_present(look: &Look, container: &CriContainer) -> Option<bool> {
    let is_its = |pod: &&Sandbox| pod.id == container.sandbox;
    let pod = look.sandboxes.iter().find(is_its)?;
    let image = look.image_of(container)?;
    let references = reference::of_container(&look.inventory, image, &container.image);
    let came = references
        .iter()
        .filter_map(|image| reference::came_at(&look.inventory, image))
        .min()?;
    Some(came.timestamp_nanos_opt()? <= pod.created_at)
}

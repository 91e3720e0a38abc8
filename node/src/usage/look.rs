//! A look at the node: what containerd holds, and which images its pods use.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use crate::{
    containerd::{
        cri::{CriContainer, CriImage, Sandbox},
        inventory::{Inventory, unanswered},
    },
    context::Context,
    failure::Failure,
};

/// Holds what containerd and CRI tell at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What containerd holds.
    pub inventory: Rc<Inventory>,
    /// The images that CRI knows.
    pub images: Vec<CriImage>,
    /// The containers of pods, ended ones too.
    pub containers: Vec<CriContainer>,
    /// The pods.
    pub sandboxes: Vec<Sandbox>,
}

impl Look {
    /// Asks containerd, unless it was a moment ago, and CRI.
    ///
    /// # Errors
    /// `interrupted` where they do not answer.
    pub async fn at(context: &Context) -> Result<Self, Failure> {
        let cri = &context.containerd;
        let pods = async { tokio::try_join!(cri.cri_images(), cri.containers(), cri.sandboxes()) };
        let (inventory, pods) = tokio::join!(context.fresh_inventory(), pods);
        let (images, containers, sandboxes) = pods.map_err(|status| unanswered(&status))?;
        Ok(Self {
            inventory: inventory?,
            images,
            containers,
            sandboxes,
        })
    }

    /// Returns the image that a container runs; none where the node does not hold it any more.
    #[must_use]
    pub fn image_of(&self, container: &CriContainer) -> Option<&CriImage> {
        let CriContainer { image, image_ref, .. } = container;
        let is_named = |it: &&CriImage, name: &String| it.tags.contains(name) || it.digests.contains(name);
        let by_id = self.images.iter().find(|it| it.id == *image_ref);
        by_id.or_else(|| {
            self.images
                .iter()
                .find(|it| is_named(it, image_ref) || is_named(it, image))
        })
    }

    /// Returns the containers of each image, by its id.
    #[must_use]
    pub fn containers_by_image(&self) -> HashMap<&str, Vec<&CriContainer>> {
        let mut by_image: HashMap<&str, Vec<&CriContainer>> = HashMap::new();
        for container in &self.containers {
            if let Some(image) = self.image_of(container) {
                by_image.entry(&image.id).or_default().push(container);
            }
        }
        by_image
    }

    /// Returns the unpacked layers on which something stands beside containers of CRI's, such as a pod's volume.
    #[must_use]
    pub fn chains_of_volumes(&self, with_containers: &HashMap<&str, Vec<&CriContainer>>) -> HashSet<&str> {
        let of_containers = self
            .images
            .iter()
            .filter(|image| with_containers.contains_key(image.id.as_str()));
        let digests = of_containers
            .flat_map(|image| &image.digests)
            .filter_map(|name| name.split_once('@'));
        let of_containers: HashSet<String> = digests.flat_map(|(_, digest)| self.inventory.chains(digest)).collect();
        let mut chains = self.inventory.used_snapshots();
        chains.retain(|chain| !of_containers.contains(*chain));
        chains
    }
}

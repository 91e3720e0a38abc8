//! A look at the node: what containerd holds, and which images its pods use.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    rc::Rc,
};

use crate::{
    containerd::{
        cri::{CriContainer, CriImage, Sandbox},
        inventory::{Inventory, unanswered},
    },
    context::Context,
    failure::Failure,
    host::Host,
};

/// Names the folder in which containerd mounts images as volumes of pods, each under the pod's id and the image's digest
/// (containerd 2.1, internal/cri/server/container_image_mount.go).
const VOLUMES: &str = "/run/containerd/io.containerd.grpc.v1.cri/image-volumes";

/// Holds what containerd and CRI tell at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Names, blobs and snapshots of containerd.
    pub inventory: Rc<Inventory>,
    /// The images that CRI knows.
    pub images: Vec<CriImage>,
    /// The containers of pods, ended ones too.
    pub containers: Vec<CriContainer>,
    /// The pods.
    pub sandboxes: Vec<Sandbox>,
    /// The digests of the images that pods have mounted as volumes.
    pub volumes: HashSet<String>,
}

impl Look {
    /// Asks containerd, unless it was a moment ago, and CRI.
    ///
    /// # Errors
    /// `interrupted` where they do not answer.
    pub async fn at(context: &Context) -> Result<Self, Failure> {
        let cri = &context.containerd;
        let pods = async { tokio::try_join!(cri.cri_images(), cri.containers(), cri.sandboxes()) };
        let (inventory, pods) = tokio::join!(context.fresh_names(), pods);
        let (images, containers, sandboxes) = pods.map_err(|status| unanswered(&status))?;
        Ok(Self {
            inventory: inventory?,
            images,
            containers,
            sandboxes,
            volumes: volumes(&context.host),
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
}

/// Returns the digests of the images that pods have mounted as volumes.
fn volumes(host: &Host) -> HashSet<String> {
    let pods = host.list(VOLUMES).into_iter();
    let digests = pods.flat_map(|pod| host.list(Path::new(VOLUMES).join(pod)));
    digests.map(|digest| format!("sha256:{digest}")).collect()
}

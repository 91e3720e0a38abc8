//! CRI's image and runtime services: the calls that kubelet makes.

use tonic::Status;

use super::Containerd;
use crate::login::Login;

/// What CRI knows of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CriImage {
    /// The digest of its configuration, `sha256:…`.
    pub id: String,
    /// Its names by tag.
    pub tags: Vec<String>,
    /// Its names by digest.
    pub digests: Vec<String>,
    /// Unpacked and compressed size as CRI counts it, in bytes.
    pub size: u64,
    /// Whether kubelet's garbage collection spares it.
    pub pinned: bool,
}

/// A container, as far as images go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CriContainer {
    /// The image by which it was asked for, and the id or digest that it runs.
    pub image: String,
    /// The same as `image_ref` of CRI.
    pub image_ref: String,
    /// The sandbox's id.
    pub sandbox: String,
    /// Whether it runs or was made, and has not ended.
    pub is_alive: bool,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// Whether it is ready.
    pub is_ready: bool,
    /// When it was made, in nanoseconds since 1970.
    pub created_at: i64,
}

impl Containerd {
    /// Pulls an image as kubelet does, `runtime_handler` for one that is not the default; it has no time limit of its own.
    pub async fn pull_image(&self, image: &str, login: Option<&Login>, runtime_handler: &str) -> Result<(), Status> {
        todo!()
    }

    /// Asks for one image as kubelet does before it pulls; none where kubelet would pull.
    pub async fn image_status(&self, image: &str) -> Result<Option<CriImage>, Status> {
        todo!()
    }

    /// Lists all images.
    pub async fn cri_images(&self) -> Result<Vec<CriImage>, Status> {
        todo!()
    }

    /// Lists all containers, ended ones too.
    pub async fn containers(&self) -> Result<Vec<CriContainer>, Status> {
        todo!()
    }

    /// Lists all pods, ended ones too.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, Status> {
        todo!()
    }
}

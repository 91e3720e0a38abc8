//! CRI's image and runtime services: the calls that kubelet makes (k8s.io/cri-api, runtime/v1/api.proto).

use std::{collections::BTreeMap, fmt};

use tonic::Status;

use super::client::Containerd;
use crate::login::Login;

/// Tells CRI before ImageSpec.runtime_handler for which runtime an image is pulled (containerd 1.7).
const RUNTIME_HANDLER: &str = "io.containerd.cri.runtime-handler";

/// Holds what CRI knows of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CriImage {
    /// The digest of its configuration, `sha256:…`.
    pub id: String,
    /// Its names by tag.
    pub tags: Vec<String>,
    /// Its names by digest.
    pub digests: Vec<String>,
    /// The compressed size of what is here of it, in bytes.
    pub size: u64,
    /// True where kubelet's garbage collection spares it.
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
    /// True while it runs, or was made and has not ended.
    pub is_alive: bool,
    /// True while it runs.
    pub is_running: bool,
    /// True where it takes the place of one of its pod that has ended.
    pub is_restart: bool,
    /// The moment when it was made, in nanoseconds since 1970.
    pub created_at: i64,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// True while it is ready.
    pub is_ready: bool,
    /// The moment when it was made, in nanoseconds since 1970.
    pub created_at: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
    #[prost(string, tag = "18")]
    user_specified_image: String,
    #[prost(string, tag = "19")]
    runtime_handler: String,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct AuthConfig {
    #[prost(string, tag = "1")]
    username: String,
    #[prost(string, tag = "2")]
    password: String,
    #[prost(string, tag = "4")]
    server_address: String,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthConfig")
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxConfig {
    #[prost(btree_map = "string, string", tag = "7")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    auth: Option<AuthConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullImageResponse {
    #[prost(string, tag = "1")]
    image_ref: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ListRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListImagesResponse {
    #[prost(message, repeated, tag = "1")]
    images: Vec<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, repeated, tag = "2")]
    repo_tags: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    repo_digests: Vec<String>,
    #[prost(uint64, tag = "4")]
    size: u64,
    #[prost(bool, tag = "8")]
    pinned: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "2")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    image: Option<ImageSpec>,
    #[prost(string, tag = "5")]
    image_ref: String,
    #[prost(int32, tag = "6")]
    state: i32,
    #[prost(int64, tag = "7")]
    created_at: i64,
}

/// Names the states of a container that is made, and of one that runs (ContainerState).
const CREATED: i32 = 0;
const RUNNING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int32, tag = "3")]
    state: i32,
    #[prost(int64, tag = "4")]
    created_at: i64,
}

/// Names the state of a pod that is ready (PodSandboxState).
const READY: i32 = 0;

impl Containerd {
    /// Pulls an image as kubelet does, `runtime_handler` for one that is not the default; it has no time limit of its own.
    ///
    /// # Errors
    /// CRI's.
    pub async fn pull_image(&self, image: &str, login: Option<&Login>, runtime_handler: &str) -> Result<(), Status> {
        let request = pull_request(image, login, runtime_handler);
        self.call("/runtime.v1.ImageService/PullImage", request)
            .await
            .map(|PullImageResponse { .. }| ())
    }

    /// Asks for one image as kubelet does before it pulls; none where kubelet would pull.
    ///
    /// # Errors
    /// CRI's.
    pub async fn image_status(&self, image: &str) -> Result<Option<CriImage>, Status> {
        let image = Some(spec(image, ""));
        let answer: ImageStatusResponse = self
            .ask("/runtime.v1.ImageService/ImageStatus", ImageStatusRequest { image })
            .await?;
        Ok(answer.image.map(CriImage::from))
    }

    /// Lists all images.
    ///
    /// # Errors
    /// CRI's.
    pub async fn cri_images(&self) -> Result<Vec<CriImage>, Status> {
        let answer: ListImagesResponse = self.ask("/runtime.v1.ImageService/ListImages", ListRequest {}).await?;
        Ok(answer.images.into_iter().map(CriImage::from).collect())
    }

    /// Lists all containers, ended ones too.
    ///
    /// # Errors
    /// CRI's.
    pub async fn containers(&self) -> Result<Vec<CriContainer>, Status> {
        let answer: ListContainersResponse = self
            .ask("/runtime.v1.RuntimeService/ListContainers", ListRequest {})
            .await?;
        Ok(answer.containers.into_iter().map(CriContainer::from).collect())
    }

    /// Lists all pods, ended ones too.
    ///
    /// # Errors
    /// CRI's.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, Status> {
        let answer: ListPodSandboxResponse = self
            .ask("/runtime.v1.RuntimeService/ListPodSandbox", ListRequest {})
            .await?;
        Ok(answer.items.into_iter().map(Sandbox::from).collect())
    }
}

fn spec(image: &str, runtime_handler: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
        user_specified_image: image.to_owned(),
        runtime_handler: runtime_handler.to_owned(),
    }
}

fn pull_request(image: &str, login: Option<&Login>, runtime_handler: &str) -> PullImageRequest {
    let annotations = [(RUNTIME_HANDLER.to_owned(), runtime_handler.to_owned())];
    PullImageRequest {
        image: Some(spec(image, runtime_handler)),
        auth: login.map(|login| AuthConfig {
            username: login.user.clone(),
            password: login.password.clone(),
            server_address: server_address(image),
        }),
        sandbox_config: (!runtime_handler.is_empty()).then(|| PodSandboxConfig {
            annotations: BTreeMap::from(annotations),
        }),
    }
}

/// Returns whose login it is. Without that, containerd gives it to every host that asks for one, as mirrors and other servers of
/// a `hosts.toml` may.
fn server_address(image: &str) -> String {
    let host = match image.split('/').next().unwrap_or_default() {
        "docker.io" => "registry-1.docker.io",
        registry => registry,
    };
    format!("https://{host}")
}

impl From<Image> for CriImage {
    fn from(image: Image) -> Self {
        Self {
            id: image.id,
            tags: image.repo_tags,
            digests: image.repo_digests,
            size: image.size,
            pinned: image.pinned,
        }
    }
}

impl From<Container> for CriContainer {
    fn from(container: Container) -> Self {
        let spec = container.image.unwrap_or_default();
        let names = [spec.user_specified_image, spec.image];
        Self {
            image: names.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
            image_ref: container.image_ref,
            sandbox: container.pod_sandbox_id,
            is_alive: [CREATED, RUNNING].contains(&container.state),
            is_running: container.state == RUNNING,
            is_restart: container.metadata.is_some_and(|metadata| metadata.attempt > 0),
            created_at: container.created_at,
        }
    }
}

impl From<PodSandbox> for Sandbox {
    fn from(pod: PodSandbox) -> Self {
        Self {
            id: pod.id,
            is_ready: pod.state == READY,
            created_at: pod.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn login() -> Login {
        Login {
            user: "AWS".to_owned(),
            password: "secret".to_owned(),
        }
    }

    #[test]
    fn a_request_does_not_show_its_login() {
        let request = pull_request("r.io/a@sha256:0", Some(&login()), "");
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn a_pull_for_the_default_runtime_has_no_pod() {
        let request = pull_request("r.io/a", Some(&login()), "");
        let expected = b"\x0a\x11\x0a\x06r.io/a\x92\x01\x06r.io/a\x12\x1b\x0a\x03AWS\x12\x06secret\x22\x0chttps://r.io";
        assert_eq!(request.encode_to_vec(), expected);
    }

    #[test]
    fn a_pull_for_another_runtime_tells_it_as_both_generations_of_containerd_read_it() {
        let request = pull_request("r.io/a", None, "kata");
        assert_eq!(request.image.expect("an image").runtime_handler, "kata");
        assert_eq!(
            request.sandbox_config.expect("a pod").annotations[RUNTIME_HANDLER],
            "kata"
        );
    }
}

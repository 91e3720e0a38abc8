//! Requested images: images of this account's registry and of others, as somebody names them.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{
    fields::Fields,
    image::{Image, ImageError, TaggedImage, check_name, is_same_registry},
};

/// Limits how many images one request names at most.
const MAX_IMAGES: usize = 100;
/// The longest name of an image, in characters.
const MAX_IMAGE: usize = 512;
/// Says how an image is named.
const SHAPE: &str = "[registry/]repository[:tag][@sha256:…]";

/// Docker Hub's host, as containerd and kubelet name it.
const DOCKER_HUB: &str = "docker.io";
/// The folder of Docker Hub in which images of one path part stand.
const DOCKER_LIBRARY: &str = "library";
/// Stands for the digest of an image that has none yet, where only its name is checked.
const ANY_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// An image as somebody requests it: by tag, by digest or by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedImage {
    /// The text that names it.
    pub reference: String,
    /// The registry that has it.
    pub registry: Registry,
    /// The repository in its registry.
    pub repository: String,
    /// The tag; there is one where there is no digest.
    pub tag: Option<String>,
    /// The digest, where there is one.
    pub digest: Option<String>,
}

/// The registry of a requested image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registry {
    /// This account's.
    Own,
    /// Another, by its host name.
    Other(String),
    /// None is named: this account's where that has such a repository, else Docker Hub, as Kubernetes reads it.
    Unnamed,
}

impl RequestedImage {
    /// Reads an image's name, as Kubernetes does where it names a registry, and otherwise of this account's registry first;
    /// `registry` is the host name of that. Without tag and digest it is `latest`.
    ///
    /// # Errors
    /// Says what is accepted.
    pub fn parse(text: &str, registry: &str) -> Result<Self, String> {
        if text.chars().count() > MAX_IMAGE {
            return Err(format!("at most {MAX_IMAGE} characters"));
        }
        let host = host_of(text);
        let path = host.map_or(text, |host| &text[host.len() + 1..]);
        let (name, digest) = parted(path, '@');
        let (repository, tag) = parted(name, ':');
        let mut image = Self {
            reference: text.to_owned(),
            registry: Registry::Unnamed,
            repository: repository.to_owned(),
            tag: tag.or(digest.is_none().then_some("latest")).map(str::to_owned),
            digest: digest.map(str::to_owned),
        };
        match host {
            None => {}
            Some(host) if is_same_registry(host, registry) => image.registry = Registry::Own,
            Some(host) => image = image.in_registry(host),
        }
        image.check()?;
        Ok(image)
    }

    /// Returns true where the text that names it names its registry too.
    #[must_use]
    pub fn names_registry(&self) -> bool {
        host_of(&self.reference).is_some()
    }

    /// Says where the image stands on Docker Hub, which its short form names.
    #[must_use]
    pub fn on_docker_hub(self) -> Self {
        self.in_registry(DOCKER_HUB)
    }

    /// Names it by its tag, `host/repository:tag`, where it is another registry's and only that registry can tell its digest.
    #[must_use]
    pub fn unresolved_tag(&self) -> Option<TaggedImage> {
        match (&self.registry, &self.tag, &self.digest) {
            (Registry::Other(host), Some(tag), None) => TaggedImage::new(host, &self.repository, tag).ok(),
            _ => None,
        }
    }

    /// Says that another registry has it. An image of one path part on Docker Hub stands in its library.
    fn in_registry(mut self, host: &str) -> Self {
        let host = if host == "index.docker.io" { DOCKER_HUB } else { host };
        if host == DOCKER_HUB && !self.repository.contains('/') {
            self.repository = format!("{DOCKER_LIBRARY}/{}", self.repository);
        }
        self.registry = Registry::Other(host.to_owned());
        self
    }

    /// Checks that containerd takes it.
    fn check(&self) -> Result<(), String> {
        let (tag, digest) = (self.tag.as_deref(), self.digest.as_deref());
        let checked = match &self.registry {
            Registry::Other(host) => match Image::new(host, &self.repository, tag, digest.unwrap_or(ANY_DIGEST)) {
                Ok(image) if !image.has_host() => {
                    return Err(format!(
                        "a registry by a host name with a dot, in lower case, that is the same from every node, and a port of at most five digits: not {host}"
                    ));
                }
                named => named.map(drop),
            },
            Registry::Own | Registry::Unnamed => check_name(&self.repository, tag, digest),
        };
        checked.map_err(|error| match error {
            ImageError::Part { part, accepted, .. } => format!("{part}: {accepted}"),
            ImageError::NoDigest(_) => SHAPE.to_owned(),
        })
    }
}

impl Serialize for RequestedImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.reference)
    }
}

/// Reads the field `images`, a list of 1 to 100 of them; `registry` is the host name of this account's registry.
///
/// There are none where the field is not there; what is wrong with it is noted.
pub fn images(fields: &mut Fields, registry: &str) -> Vec<RequestedImage> {
    let accepted = format!("a list of 1 to {MAX_IMAGES} images");
    let list = match fields.get("images") {
        None => return Vec::new(),
        Some(Value::Array(list)) if (1..=MAX_IMAGES).contains(&list.len()) => list.clone(),
        Some(other) => {
            let other = other.clone();
            fields.refuse("images", Some(other), accepted);
            return Vec::new();
        }
    };
    let mut images: Vec<RequestedImage> = Vec::with_capacity(list.len());
    for (place, value) in list.into_iter().enumerate() {
        let image = match &value {
            Value::String(text) => RequestedImage::parse(text, registry),
            _ => Err("a text".to_owned()),
        };
        match image {
            Ok(image) => images.push(image),
            Err(accepted) => fields.refuse(format!("images[{place}]"), Some(value), accepted),
        }
    }
    images
}

/// Returns the registry that a text names: what looks like a host is one, and a repository that begins so is named with its
/// registry.
fn host_of(text: &str) -> Option<&str> {
    let (host, _) = text.split_once('/')?;
    (host.contains(['.', ':']) || host == "localhost").then_some(host)
}

fn parted(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
    const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

    fn read(text: &str) -> Result<(Registry, String, Option<String>, Option<String>), String> {
        let image = RequestedImage::parse(text, REGISTRY)?;
        Ok((image.registry, image.repository, image.tag, image.digest))
    }

    fn parts(
        registry: Registry,
        repository: &str,
        tag: Option<&str>,
        digest: Option<&str>,
    ) -> (Registry, String, Option<String>, Option<String>) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        (registry, repository.to_owned(), owned(tag), owned(digest))
    }

    #[test]
    fn an_image_of_this_account_is_named_by_any_host_of_its_registry() {
        for host in [
            REGISTRY,
            "123456789012.dkr-ecr.eu-central-1.on.aws",
            "123456789012.dkr.ecr-fips.eu-central-1.amazonaws.com",
        ] {
            for (rest, repository, tag, digest) in [
                ("my.team/app:v1".to_owned(), "my.team/app", Some("v1"), None),
                ("app".to_owned(), "app", Some("latest"), None),
                (format!("app@{DIGEST}"), "app", None, Some(DIGEST)),
                (format!("app:v1@{DIGEST}"), "app", Some("v1"), Some(DIGEST)),
            ] {
                let expected = parts(Registry::Own, repository, tag, digest);
                assert_eq!(read(&format!("{host}/{rest}")), Ok(expected));
            }
        }
    }

    #[test]
    fn an_image_of_another_registry_is_named_as_kubernetes_reads_it() {
        for (text, host, repository, tag) in [
            (
                "public.ecr.aws/eks-distro/kubernetes/pause:3.2",
                "public.ecr.aws",
                "eks-distro/kubernetes/pause",
                "3.2",
            ),
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:v1",
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                "app",
                "v1",
            ),
            (
                "123456789012.dkr-ecr.eu-west-1.on.aws/shop/api:4.2.0",
                "123456789012.dkr-ecr.eu-west-1.on.aws",
                "shop/api",
                "4.2.0",
            ),
            (
                "quay.io/prometheus/node-exporter",
                "quay.io",
                "prometheus/node-exporter",
                "latest",
            ),
            (
                "registry.example.com:5000/team/app:1.0",
                "registry.example.com:5000",
                "team/app",
                "1.0",
            ),
            ("docker.io/nginx", "docker.io", "library/nginx", "latest"),
            ("index.docker.io/nginx:1.27", "docker.io", "library/nginx", "1.27"),
            ("docker.io/bitnami/redis:7.4", "docker.io", "bitnami/redis", "7.4"),
        ] {
            let other = || Registry::Other(host.to_owned());
            assert_eq!(read(text), Ok(parts(other(), repository, Some(tag), None)), "{text}");
            let image = RequestedImage::parse(text, REGISTRY).unwrap();
            let unresolved = image.unresolved_tag().map(|tag| tag.to_string());
            assert_eq!(unresolved, Some(format!("{host}/{repository}:{tag}")));
            if text.ends_with(tag) {
                let text = format!("{text}@{DIGEST}");
                assert_eq!(read(&text), Ok(parts(other(), repository, Some(tag), Some(DIGEST))));
                let image = RequestedImage::parse(&text, REGISTRY).unwrap();
                assert_eq!(image.unresolved_tag(), None);
            }
        }
    }

    #[test]
    fn an_image_without_a_registry_is_this_accounts_or_docker_hubs() {
        for (text, repository, tag, on_docker_hub) in [
            ("nginx", "nginx", "latest", "docker.io/library/nginx:latest"),
            (
                "python:3.8.10-alpine",
                "python",
                "3.8.10-alpine",
                "docker.io/library/python:3.8.10-alpine",
            ),
            (
                "bitnami/redis:7.4",
                "bitnami/redis",
                "7.4",
                "docker.io/bitnami/redis:7.4",
            ),
        ] {
            let image = RequestedImage::parse(text, REGISTRY).unwrap();
            assert_eq!(
                (&image.registry, image.repository.as_str()),
                (&Registry::Unnamed, repository)
            );
            assert_eq!((image.tag.as_deref(), image.unresolved_tag()), (Some(tag), None));
            let there = image.on_docker_hub();
            let unresolved = there.unresolved_tag().map(|tag| tag.to_string());
            assert_eq!(unresolved.as_deref(), Some(on_docker_hub));
        }
    }

    #[test]
    fn what_containerd_would_not_take_is_refused() {
        for text in [
            "",
            "app@",
            "app:",
            "app:v1:v2",
            "app@sha256:short",
            "team/app:$(id)",
            "Team/App:v1",
            "../app:v1",
            "/app:v1",
            "localhost/app:v1",
            "localhost:5000/app:v1",
            "169.254.169.254/app:v1",
            "Registry.example.com/app:v1",
            "registry.example.com:123456/app:v1",
            "quay.io/:v1",
            "quay.io/app:v1 ",
            "https://quay.io/app:v1",
        ] {
            assert!(RequestedImage::parse(text, REGISTRY).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_image_is_accepted_is_free_of_everything_a_shell_reads(
            text in "([a-z]{1,3}[.:/][a-z0-9]{1,3}/)?(team/)?[a-z]{1,4}[:@]?.{0,20}"
        ) {
            if let Ok(image) = RequestedImage::parse(&text, REGISTRY) {
                prop_assert!(image.reference.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b)));
            }
        }
    }
}

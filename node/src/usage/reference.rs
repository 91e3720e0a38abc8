//! References: how pods name an image that the node holds.

use chrono::{DateTime, Utc};
use prefetch::image::Image;

use crate::{
    containerd::{cri::CriImage, inventory::Inventory},
    naming::ours::repository_of,
};

/// Names the registry of a name without one, and what stands before a name without any folder there.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_FOLDER: &str = "library";

/// Returns all references of an image: by each of its tags, and by digest alone in repositories where it has no tag. An image
/// without a digest that a registry gave, such as one that was imported by hand, has none.
#[must_use]
pub fn all(inventory: &Inventory, image: &CriImage) -> Vec<Image> {
    let mut all: Vec<Image> = image
        .tags
        .iter()
        .filter_map(|tag| by_tag(inventory, image, tag))
        .collect();
    let untagged: Vec<Image> = by_digest(image)
        .filter(|untagged| !all.iter().any(|tagged| is_same_repository(tagged, untagged)))
        .collect();
    all.extend(untagged);
    all
}

/// Returns the references by which a container names its image: that of its pod where CRI tells it, else all.
///
/// A tag counts only as long as it stands for the image on this node: who brought the image elsewhere would move it there.
#[must_use]
pub fn of_container(inventory: &Inventory, image: &CriImage, named: &str) -> Vec<Image> {
    let named = Named::read(named);
    let tagged = named
        .tag
        .and_then(|tag| by_tag(inventory, image, &format!("{}:{tag}", named.repository)));
    let is_meant = |image: &Image| named.digest.is_none_or(|digest| image.digest() == digest);
    if let Some(tagged) = tagged.filter(is_meant) {
        return vec![tagged];
    }
    let here =
        by_digest(image).filter(|image| format!("{}/{}", image.registry(), image.repository()) == named.repository);
    match here.max_by_key(|image| (is_meant(image), came_at(inventory, image))) {
        Some(untagged) => vec![untagged],
        None => all(inventory, image),
    }
}

/// Returns when a reference's image came to its repository on the node.
#[must_use]
pub fn came_at(inventory: &Inventory, image: &Image) -> Option<DateTime<Utc>> {
    inventory.names.get(&image.name_by_digest())?.created_at
}

fn by_tag(inventory: &Inventory, image: &CriImage, name: &str) -> Option<Image> {
    let digest = &inventory.names.get(name)?.target.digest;
    let tagged: Image = format!("{name}@{digest}").parse().ok()?;
    let is_right = tagged.has_host() && image.digests.contains(&tagged.name_by_digest());
    is_right.then_some(tagged)
}

fn by_digest(image: &CriImage) -> impl Iterator<Item = Image> {
    let images = image.digests.iter().filter_map(|name| name.parse().ok());
    images.filter(Image::has_host)
}

fn is_same_repository(one: &Image, other: &Image) -> bool {
    (one.registry(), one.repository()) == (other.registry(), other.repository())
}

/// The words of a pod for an image, completed as containerd does (distribution/reference, `ParseDockerRef`).
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    repository: String,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn read(text: &'a str) -> Self {
        let (name, digest) = text
            .split_once('@')
            .map_or((text, None), |(name, digest)| (name, Some(digest)));
        let repository = repository_of(name);
        let tag = name[repository.len()..].strip_prefix(':');
        Self {
            repository: completed(repository),
            tag: tag.or(digest.is_none().then_some("latest")),
            digest,
        }
    }
}

/// Completes a repository's name by the registry and folder that it leaves out.
fn completed(name: &str) -> String {
    let is_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    let (registry, path) = match name.split_once('/') {
        Some(("index.docker.io" | DEFAULT_REGISTRY, path)) => (DEFAULT_REGISTRY, path),
        Some((first, path)) if is_host(first) => (first, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    if registry == DEFAULT_REGISTRY && !path.contains('/') {
        return format!("{registry}/{DEFAULT_FOLDER}/{path}");
    }
    format!("{registry}/{path}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_pod_leaves_out_is_completed_as_containerd_does() {
        for (text, repository, tag) in [
            ("nginx", "docker.io/library/nginx", Some("latest")),
            ("nginx:1.29", "docker.io/library/nginx", Some("1.29")),
            ("team/app", "docker.io/team/app", Some("latest")),
            ("docker.io/nginx", "docker.io/library/nginx", Some("latest")),
            ("index.docker.io/team/app:v1", "docker.io/team/app", Some("v1")),
            ("localhost/app", "localhost/app", Some("latest")),
            ("r.io:5000/a/b", "r.io:5000/a/b", Some("latest")),
            ("r.io:5000/a/b:v1@sha256:0", "r.io:5000/a/b", Some("v1")),
            ("r.io/a@sha256:0", "r.io/a", None),
        ] {
            let digest = text.split_once('@').map(|(_, digest)| digest);
            let expected = Named {
                repository: repository.to_owned(),
                tag,
                digest,
            };
            assert_eq!(Named::read(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_pod_names_is_read(text in "\\PC{0,60}|[a-z.:/@]{0,30}") {
            let named = Named::read(&text);
            prop_assert!(named.repository.contains('/'));
        }
    }
}

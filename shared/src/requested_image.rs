//! Requested images: images of this account's registry and of others, as somebody names them.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{
    fields::Fields,
    image::{Image, ImageError, check_name, is_same_registry},
};

/// Limits how many images one request names at most.
const MAX_IMAGES: usize = 100;
/// The longest name of an image, in characters.
const MAX_IMAGE: usize = 512;

/// An image as somebody requests it: by tag, by digest or by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedImage {
    /// The text that names it.
    pub reference: String,
    /// The registry's host name, where it is not this account's.
    pub registry: Option<String>,
    /// The repository in its registry.
    pub repository: String,
    /// The tag, where there is one.
    pub tag: Option<String>,
    /// The digest, where there is one.
    pub digest: Option<String>,
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
            Value::String(text) => read(text, registry),
            _ => Err("a text".to_owned()),
        };
        match image {
            Ok(image) => images.push(image),
            Err(accepted) => fields.refuse(format!("images[{place}]"), Some(value), accepted),
        }
    }
    images
}

/// Reads the field `images` as [`images`] does, and refuses those of other registries.
pub fn own_images(fields: &mut Fields, registry: &str) -> Vec<RequestedImage> {
    let images = images(fields, registry);
    for (place, image) in images.iter().enumerate().filter(|(_, image)| image.registry.is_some()) {
        let asked = Value::String(image.reference.clone());
        fields.refuse(
            format!("images[{place}]"),
            Some(asked),
            format!("an image in {registry}"),
        );
    }
    images
}

/// Reads an image's name; the error tells what is accepted.
fn read(text: &str, registry: &str) -> Result<RequestedImage, String> {
    let shape = || {
        format!(
            "repository:tag or repository@sha256:…, in {registry} or without a registry; or an image of another registry by its digest"
        )
    };
    if text.chars().count() > MAX_IMAGE {
        return Err(format!("at most {MAX_IMAGE} characters"));
    }
    let name = match text.split_once('/') {
        Some((host, rest)) if is_same_registry(host, registry) => rest,
        // What looks like a host is one: a repository that begins so is named with its registry.
        Some((host, _)) if host.contains(['.', ':']) => return of_other_registry(text).ok_or_else(shape),
        _ => text,
    };
    let (name, digest) = parted(name, '@');
    let (repository, tag) = parted(name, ':');
    if tag.is_none() && digest.is_none() {
        return Err(shape());
    }
    check_name(repository, tag, digest).map_err(|error| match error {
        ImageError::Part { part, accepted, .. } => format!("{part}: {accepted}"),
        ImageError::NoDigest(_) => shape(),
    })?;
    Ok(RequestedImage {
        reference: text.to_owned(),
        registry: None,
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

fn parted(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

/// Reads an image of another registry; none where containerd would not take it, or where it has no digest: nobody but a node
/// can tell what a tag of such a registry is.
fn of_other_registry(text: &str) -> Option<RequestedImage> {
    let image: Image = text.parse().ok().filter(Image::has_host)?;
    Some(RequestedImage {
        reference: text.to_owned(),
        registry: Some(image.registry().to_owned()),
        repository: image.repository().to_owned(),
        tag: image.tag().map(str::to_owned),
        digest: Some(image.digest().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
    const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

    #[test]
    fn an_image_is_named_by_tag_or_digest_or_both_with_or_without_its_registry() {
        for (text, repository, tag, digest) in [
            ("team/app:v1".to_owned(), "team/app", Some("v1"), None),
            (format!("{REGISTRY}/app:v1"), "app", Some("v1"), None),
            (format!("{REGISTRY}/my.team/app:v1"), "my.team/app", Some("v1"), None),
            (
                "123456789012.dkr-ecr.eu-central-1.on.aws/app:v1".to_owned(),
                "app",
                Some("v1"),
                None,
            ),
            (
                format!("123456789012.dkr.ecr-fips.eu-central-1.amazonaws.com/app@{DIGEST}"),
                "app",
                None,
                Some(DIGEST),
            ),
            (format!("team/app@{DIGEST}"), "team/app", None, Some(DIGEST)),
            (format!("team/app:v1@{DIGEST}"), "team/app", Some("v1"), Some(DIGEST)),
        ] {
            let expected = RequestedImage {
                reference: text.clone(),
                registry: None,
                repository: repository.to_owned(),
                tag: tag.map(str::to_owned),
                digest: digest.map(str::to_owned),
            };
            assert_eq!(read(&text, REGISTRY), Ok(expected));
        }
    }

    #[test]
    fn an_image_of_another_registry_is_named_with_its_digest() {
        for (registry, repository, tag) in [
            ("docker.io", "library/nginx", Some("1.27")),
            ("public.ecr.aws", "eks-distro/kubernetes/pause", Some("3.2")),
            ("602401143452.dkr.ecr.us-west-2.amazonaws.com", "eks/kube-proxy", None),
            ("registry.example.com:5000", "team/app", Some("1.0")),
        ] {
            let tagged = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
            let name = format!("{registry}/{repository}{tagged}");
            let image = read(&format!("{name}@{DIGEST}"), REGISTRY).unwrap();
            assert_eq!(image.registry.as_deref(), Some(registry));
            assert_eq!((image.repository.as_str(), image.tag.as_deref()), (repository, tag));
            let refused = read(&name, REGISTRY).unwrap_err();
            assert!(refused.contains("another registry by its digest"), "{refused}");
        }
        assert!(read(&format!("localhost:5000/app@{DIGEST}"), REGISTRY).is_err());
    }

    proptest! {
        #[test]
        fn whatever_image_is_accepted_is_free_of_everything_a_shell_reads(text in "(team/)?[a-z]{1,4}[:@].{0,20}") {
            if let Ok(image) = read(&text, REGISTRY) {
                prop_assert!(image.reference.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b)));
            }
        }
    }
}

//! An image by digest, with the tag that pods may use for it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::Error};

use super::name::{ImageError, check_name, check_registry, is_host};

/// One image by digest, with the tag that pods may use for it: `registry/repository[:tag]@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Image {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: String,
}

impl Image {
    /// Builds an image from its parts.
    ///
    /// # Errors
    /// [`ImageError::Part`] for the first part that containerd would refuse.
    pub fn new(registry: &str, repository: &str, tag: Option<&str>, digest: &str) -> Result<Self, ImageError> {
        check_registry(registry)?;
        check_name(repository, tag, Some(digest))?;
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.to_owned(),
        })
    }

    /// Returns the registry: its host name, with a port where the image was named with one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns true where containerd takes the registry for a host: a registry without a dot, such as `localhost`, or in
    /// capitals, it takes for a part of the repository.
    #[must_use]
    pub fn has_host(&self) -> bool {
        is_host(&self.registry)
    }

    /// Returns the name by digest, under which kubelet looks for an image that a pod names by digest:
    /// `registry/repository@sha256:…`.
    #[must_use]
    pub fn name_by_digest(&self) -> String {
        format!("{}/{}@{}", self.registry, self.repository, self.digest)
    }

    /// Returns the name by tag, under which kubelet looks for an image that a pod names by tag: `registry/repository:tag`.
    #[must_use]
    pub fn name_by_tag(&self) -> Option<String> {
        let tag = self.tag.as_ref()?;
        Some(format!("{}/{}:{tag}", self.registry, self.repository))
    }

    /// Returns the repository's path in its registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag, if the image was named by one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the name in its registry: `repository[:tag]@sha256:…`.
    #[must_use]
    pub fn name(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        format!("{}{tag}@{}", self.repository, self.digest)
    }

    /// Returns the digest: `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name())
    }
}

impl FromStr for Image {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let (name, digest) = text
            .rsplit_once('@')
            .ok_or_else(|| ImageError::NoDigest(text.to_owned()))?;
        let (registry, path) = name.split_once('/').unwrap_or(("", name));
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        Self::new(registry, repository, tag, digest)
    }
}

impl Serialize for Image {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

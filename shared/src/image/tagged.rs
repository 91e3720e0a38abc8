//! An image by its tag alone, of which a registry tells the digest.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::Error};

use super::name::{ImageError, check_name, check_registry, is_host, unusable};

/// One image by its tag: `registry/repository:tag`, of a registry that containerd takes for a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaggedImage {
    registry: String,
    repository: String,
    tag: String,
}

impl TaggedImage {
    /// Builds it from its parts.
    ///
    /// # Errors
    /// [`ImageError::Part`] for the first part that containerd would refuse, or take for something else.
    pub fn new(registry: &str, repository: &str, tag: &str) -> Result<Self, ImageError> {
        check_registry(registry)?;
        if !is_host(registry) {
            return Err(unusable(
                "registry",
                registry,
                "a host name with a dot, in lower-case letters",
            ));
        }
        check_name(repository, Some(tag), None)?;
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }

    /// Returns the registry: its host name, with a port where the image was named with one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository's path in its registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl fmt::Display for TaggedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}

impl FromStr for TaggedImage {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let (registry, path) = text.split_once('/').unwrap_or(("", text));
        let (repository, tag) = path.rsplit_once(':').unwrap_or((path, ""));
        Self::new(registry, repository, tag)
    }
}

impl Serialize for TaggedImage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaggedImage {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_is_read_by_its_tag_and_written_as_it_was() {
        for (text, registry, repository, tag) in [
            ("docker.io/library/nginx:1.27", "docker.io", "library/nginx", "1.27"),
            ("registry.example:5000/app:_v1", "registry.example:5000", "app", "_v1"),
            ("10.0.0.5:5000/app:v1", "10.0.0.5:5000", "app", "v1"),
        ] {
            let image: TaggedImage = text.parse().unwrap();
            assert_eq!(
                (image.registry(), image.repository(), image.tag()),
                (registry, repository, tag)
            );
            assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn what_has_no_host_or_no_tag_or_a_digest_is_refused() {
        for text in [
            "",
            "nginx",
            "nginx:1.27",
            "library/nginx:1.27",
            "localhost/app:v1",
            "localhost:5000/app:v1",
            "169.254.169.254/latest/meta-data:v1",
            "127.0.0.1:5000/app:v1",
            "Docker.io/library/nginx:1.27",
            "docker.io:123456/app:v1",
            "docker.io/library/nginx",
            "docker.io/library/nginx:",
            "docker.io/Library/nginx:1",
            "docker.io/nginx:a:b",
            "docker.io/nginx:-a",
            &format!("docker.io/nginx@sha256:{}", "a".repeat(64)),
            &format!("docker.io/nginx:1@sha256:{}", "a".repeat(64)),
            &format!("docker.io/{}:1", "a".repeat(256)),
            &format!("docker.io/nginx:{}", "a".repeat(129)),
        ] {
            assert!(text.parse::<TaggedImage>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_free_of_everything_a_shell_reads(text in "[a-z]{1,4}\\.[a-z]{2}/.{0,20}:.{0,20}") {
            if let Ok(image) = text.parse::<TaggedImage>() {
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b)));
                prop_assert_eq!(image.to_string(), text);
            }
        }
    }
}

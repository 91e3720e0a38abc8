//! Image references: what a node is asked to hold.

use std::{fmt, str::FromStr, sync::LazyLock};

use regex_lite::Regex;
use serde::{Deserialize, Serialize, de::Error};
use thiserror::Error;

/// The longest repository path that containerd's reference grammar takes, in characters (distribution/reference).
const REPOSITORY_MAX: usize = 255;

static REGISTRY: LazyLock<Regex> = LazyLock::new(|| {
    whole(
        r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(?::[0-9]+)?",
    )
});
static REPOSITORY: LazyLock<Regex> =
    LazyLock::new(|| whole(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"));
static TAG: LazyLock<Regex> = LazyLock::new(|| whole(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"));
static DIGEST: LazyLock<Regex> = LazyLock::new(|| whole(r"sha256:[a-f0-9]{64}"));
static ACCOUNT: LazyLock<Regex> = LazyLock::new(|| whole(r"[0-9]{12}"));
static REGION: LazyLock<Regex> = LazyLock::new(|| whole(r"[a-z]+(?:-[a-z]+)+-[0-9]+"));

/// Why a text is no image reference.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ImageError {
    /// A part of the reference breaks containerd's grammar.
    #[error("{part} {value:?} is not usable: {accepted}")]
    Part {
        /// Which part: registry, repository, tag, digest, account or Region.
        part: &'static str,
        /// The part as it was given.
        value: String,
        /// What would have been accepted.
        accepted: &'static str,
    },
    /// The reference has no digest.
    #[error("image {0:?} has no digest: a node pulls by digest only")]
    NoDigest(String),
}

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
        check("registry", registry, &REGISTRY, "a host name with an optional port")?;
        check_name(repository, tag, Some(digest))?;
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.to_owned(),
        })
    }

    /// The repository's path in its registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if the image was named by one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The name in its registry: `repository[:tag]@sha256:…`.
    #[must_use]
    pub fn name(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        format!("{}{tag}@{}", self.repository, self.digest)
    }

    /// The digest: `sha256:` and 64 hexadecimal digits.
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

/// Names the host of an account's private ECR registry in a Region, in the Region's own partition.
///
/// # Errors
/// [`ImageError::Part`] where the account is not 12 digits or the Region is not shaped like one.
pub fn ecr_registry(account: &str, region: &str) -> Result<String, ImageError> {
    check("account", account, &ACCOUNT, "12 digits")?;
    check("Region", region, &REGION, "a Region's code such as eu-west-1")?;
    Ok(format!("{account}.dkr.ecr.{region}.{}", dns_suffix(region)))
}

/// Whether a tag is the shape under which signatures, attestations, SBOMs and referrers of an image are stored:
/// `sha256-<64 hex>`, with or without an ending such as `.sig`.
#[must_use]
pub fn is_referrer_tag(tag: &str) -> bool {
    tag.strip_prefix("sha256-").is_some_and(|rest| {
        let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Tells why an image of these media types, as ECR reports them, is nothing that a node can run; `None` where it can.
///
/// An index is runnable whatever it says of artifacts unless it names one; a single manifest is runnable when its
/// configuration is an image's, or unknown.
#[must_use]
pub fn not_runnable(manifest_media_type: Option<&str>, artifact_media_type: Option<&str>) -> Option<String> {
    const INDEXES: [&str; 2] = [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    const MANIFESTS: [&str; 2] = [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ];
    const CONFIGURATIONS: [&str; 2] = [
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    ];
    let given = |media_type: Option<&str>| media_type.map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
    match given(manifest_media_type) {
        Some(manifest) if !INDEXES.contains(&manifest.as_str()) && !MANIFESTS.contains(&manifest.as_str()) => {
            Some(format!("the manifest's media type {manifest} is no image's"))
        }
        _ => given(artifact_media_type)
            .filter(|artifact| !CONFIGURATIONS.contains(&artifact.as_str()))
            .map(|artifact| format!("the artifact's media type {artifact} is no image's")),
    }
}

/// Checks an image's name in its registry: the repository and, where they are given, tag and digest.
///
/// # Errors
/// [`ImageError::Part`] for the first part that containerd would refuse.
pub fn check_name(repository: &str, tag: Option<&str>, digest: Option<&str>) -> Result<(), ImageError> {
    check_repository(repository)?;
    if let Some(tag) = tag {
        check(
            "tag",
            tag,
            &TAG,
            "1 to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'",
        )?;
    }
    match digest {
        Some(digest) => check(
            "digest",
            digest,
            &DIGEST,
            "sha256: and 64 lower-case hexadecimal digits",
        ),
        None => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), ImageError> {
    const ACCEPTED: &str =
        "at most 255 characters: lower-case letters and digits, separated by '/', '.', '_', '__' or '-'";
    if repository.len() > REPOSITORY_MAX {
        return Err(unusable("repository", repository, ACCEPTED));
    }
    check("repository", repository, &REPOSITORY, ACCEPTED)
}

fn check(part: &'static str, value: &str, grammar: &Regex, accepted: &'static str) -> Result<(), ImageError> {
    if grammar.is_match(value) {
        Ok(())
    } else {
        Err(unusable(part, value, accepted))
    }
}

fn unusable(part: &'static str, value: &str, accepted: &'static str) -> ImageError {
    ImageError::Part {
        part,
        value: value.chars().take(REPOSITORY_MAX).collect(),
        accepted,
    }
}

fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).expect("the pattern is a constant")
}

/// The DNS suffix of the partition a Region belongs to (botocore's partitions.json).
fn dns_suffix(region: &str) -> &'static str {
    match region.split('-').take(2).collect::<Vec<_>>()[..] {
        ["cn", _] => "amazonaws.com.cn",
        ["eusc", _] => "amazonaws.eu",
        ["us", "iso"] => "c2s.ic.gov",
        ["us", "isob"] => "sc2s.sgov.gov",
        ["eu", "isoe"] => "cloud.adc-e.uk",
        ["us", "isof"] => "csp.hci.ic.gov",
        _ => "amazonaws.com",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn image(tag: &str) -> Result<Image, ImageError> {
        Image::new(
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "team/app",
            Some(tag),
            DIGEST,
        )
    }

    #[test]
    fn an_image_prints_as_registry_repository_tag_and_digest() {
        let text = format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1@{DIGEST}");
        assert_eq!(image("v1").unwrap().to_string(), text);
    }

    #[test]
    fn a_tag_with_shell_metacharacters_is_refused() {
        for tag in [
            "$(id)", "a;b", "a b", "a`b", "a\nb", "a|b", "a&b", "a'b", "a\"b", ".a", "-a", "", "a\0", "täg",
        ] {
            assert!(image(tag).is_err(), "{tag:?}");
        }
    }

    #[test]
    fn a_tag_of_128_characters_is_the_longest() {
        assert!(image(&"x".repeat(128)).is_ok());
        assert!(image(&"x".repeat(129)).is_err());
    }

    #[test]
    fn what_containerd_refuses_as_repository_is_refused() {
        for repository in [
            "",
            "App",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a_",
            "a:b",
            "a@b",
            &"a".repeat(256),
        ] {
            assert!(
                Image::new("host", repository, Some("v1"), DIGEST).is_err(),
                "{repository:?}"
            );
        }
    }

    #[test]
    fn a_reference_without_a_digest_says_so() {
        assert_eq!(
            "host/app:v1".parse::<Image>(),
            Err(ImageError::NoDigest("host/app:v1".to_owned()))
        );
    }

    #[test]
    fn the_registry_lies_in_its_regions_partition() {
        let host = |region| ecr_registry("123456789012", region).unwrap();
        assert_eq!(host("eu-west-1"), "123456789012.dkr.ecr.eu-west-1.amazonaws.com");
        assert_eq!(host("cn-north-1"), "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn");
        assert_eq!(
            host("us-gov-west-1"),
            "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com"
        );
        assert!(ecr_registry("12345", "eu-west-1").is_err());
        assert!(ecr_registry("123456789012", "eu west").is_err());
    }

    #[test]
    fn signatures_and_referrers_are_known_by_their_tags() {
        let hex = "a".repeat(64);
        assert!(is_referrer_tag(&format!("sha256-{hex}.sig")));
        assert!(is_referrer_tag(&format!("sha256-{hex}")));
        assert!(!is_referrer_tag("sha256-short.sig"));
        assert!(!is_referrer_tag("v1.sig"));
    }

    #[test]
    fn only_images_are_runnable() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let index = "application/vnd.oci.image.index.v1+json";
        let image = "application/vnd.oci.image.config.v1+json";
        assert_eq!(not_runnable(Some(oci), Some(image)), None);
        assert_eq!(not_runnable(Some(index), None), None);
        assert_eq!(not_runnable(Some(index), Some("")), None);
        assert_eq!(not_runnable(None, None), None);
        assert!(not_runnable(Some(oci), Some("application/vnd.cncf.helm.config.v1+json")).is_some());
        assert!(not_runnable(Some(index), Some("application/vnd.amazon.soci.index.v2+json")).is_some());
        assert!(not_runnable(Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), None).is_some());
    }

    proptest! {
        #[test]
        fn what_prints_parses_to_the_same(
            registry in "[a-z0-9]{1,10}(\\.[a-z0-9]{1,5}){0,3}(:[0-9]{2,5})?",
            repository in "[a-z0-9]{1,8}([._/-][a-z0-9]{1,8}){0,4}",
            tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"),
            hex in "[a-f0-9]{64}",
        ) {
            let image = Image::new(&registry, &repository, tag.as_deref(), &format!("sha256:{hex}")).unwrap();
            prop_assert_eq!(image.to_string().parse::<Image>(), Ok(image));
        }

        #[test]
        fn whatever_parses_is_free_of_everything_a_shell_reads(text in "\\PC{0,60}") {
            let text = format!("{text}@{DIGEST}");
            if let Ok(image) = text.parse::<Image>() {
                prop_assert!(image.to_string().bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b)));
                prop_assert_eq!(image.to_string(), text);
            }
        }
    }
}

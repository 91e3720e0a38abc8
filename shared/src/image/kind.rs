//! Describes what a tag, media types and a manifest tell of whether they are an image's.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde::{Deserialize, de::IgnoredAny};

use super::name::whole;

static REFERRER_TAG: LazyLock<Regex> = LazyLock::new(|| whole(r"(?:.*[._-])?sha256-[a-fA-F0-9]{64}(?:[._-].*)?"));
static CACHE_TAG: LazyLock<Regex> = LazyLock::new(|| whole(r"[a-f0-9]{64}"));

/// Counts the hexadecimal digits of a sha256.
const SHA256_DIGITS: usize = 64;

/// Tells why what stands under a tag is no image; `None` where the tag does not say.
///
/// Signatures, attestations, SBOMs and referrers of an image have `sha256-<64 hex>` in their tags, with words before it and
/// after it (cosign, `COSIGN_REPOSITORY` and tag prefixes).
#[must_use]
pub fn not_an_image_tag(tag: &str) -> Option<String> {
    (tag.len() >= SHA256_DIGITS && REFERRER_TAG.is_match(tag))
        .then(|| format!("the tag {tag} is a signature's or another referrer's"))
}

/// Tells whether what stands under a tag is a layer that a build cache keeps, as far as the names tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedLayer {
    /// It is none.
    No,
    /// It may be one: the manifest alone tells (see [`is_image`]).
    Maybe,
    /// It is one.
    Yes,
}

impl CachedLayer {
    /// Tells whether a tag is one by which kaniko caches a layer: 64 hexadecimal digits.
    ///
    /// AWS CDK and Skaffold tag images so as well: in CDK's own repositories
    /// (`cdk-<qualifier>-container-assets-<account>-<region>`) there are only images.
    #[must_use]
    pub fn of(repository: &str, tag: &str) -> Self {
        let name = repository.rsplit('/').next().unwrap_or(repository);
        if tag.len() != SHA256_DIGITS || !CACHE_TAG.is_match(tag) {
            Self::No
        } else if name.contains("cache") {
            Self::Yes
        } else if repository.starts_with("cdk-") && repository.contains("-container-assets-") {
            Self::No
        } else {
            Self::Maybe
        }
    }
}

const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// The media types of configurations of images that nodes can run.
pub const CONFIGURATIONS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// The media types of the manifests that nodes can run, and of the indexes that lead to them. ECR answers with one of those
/// that it is told (containers-roadmap#1075).
pub const MANIFEST_MEDIA_TYPES: [&str; 4] = [INDEXES[0], INDEXES[1], MANIFESTS[0], MANIFESTS[1]];

/// Holds what media types tell of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An image.
    Image,
    /// An index, whose manifest alone tells of what: of images, of a build cache's layers, or of artifacts.
    Index,
    /// They are not given, or not all: nobody knows.
    Unknown,
    /// Nothing that a node can run, for this reason.
    Other(String),
}

impl Kind {
    /// Tells what an image of these media types is, as ECR reports them.
    #[must_use]
    pub fn of(manifest_media_type: Option<&str>, artifact_media_type: Option<&str>) -> Self {
        let given =
            |media_type: Option<&'_ str>| media_type.map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        let (manifest, artifact) = (given(manifest_media_type), given(artifact_media_type));
        let is = |list: &[&str]| manifest.as_deref().map(|manifest| list.contains(&manifest));
        match (&manifest, &artifact) {
            (Some(manifest), _) if !MANIFEST_MEDIA_TYPES.contains(&manifest.as_str()) => {
                Self::Other(format!("the manifest's media type {manifest} is no image's"))
            }
            (_, Some(artifact)) if !CONFIGURATIONS.contains(&artifact.as_str()) => {
                Self::Other(format!("the artifact's media type {artifact} is no image's"))
            }
            _ if is(&INDEXES) == Some(true) => Self::Index,
            (Some(_), Some(_)) => Self::Image,
            _ => Self::Unknown,
        }
    }
}

/// Returns true where a manifest is an image's of more than one layer, or an index that leads to an image: to a manifest that
/// is no artifact's or attestation's.
///
/// BuildKit's cache may be an index whose manifests are layers, which no runtime unpacks (moby/buildkit, cache/remotecache);
/// kaniko's consists of images of one layer (kaniko, `pushLayerToCache`).
#[must_use]
pub fn is_image(manifest: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        #[serde(default)]
        manifests: Vec<Descriptor>,
        #[serde(default)]
        layers: Vec<IgnoredAny>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Descriptor {
        media_type: Option<String>,
        artifact_type: Option<String>,
        platform: Option<Platform>,
    }
    #[derive(Deserialize)]
    struct Platform {
        os: Option<String>,
    }
    let leads_to_image = |child: &Descriptor| {
        let is_known = |os: &Option<String>| os.as_deref() != Some("unknown");
        !matches!(
            Kind::of(child.media_type.as_deref(), child.artifact_type.as_deref()),
            Kind::Other(_)
        ) && child.platform.as_ref().is_none_or(|platform| is_known(&platform.os))
    };
    serde_json::from_str(manifest)
        .is_ok_and(|Manifest { manifests, layers }| layers.len() > 1 || manifests.iter().any(leads_to_image))
}

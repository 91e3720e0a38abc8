//! Image references: what a node is asked to hold.

use std::{fmt, str::FromStr, sync::LazyLock};

use regex_lite::Regex;
use serde::{
    Deserialize, Serialize,
    de::{Error, IgnoredAny},
};
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
/// A private ECR registry's host, whatever its endpoint and partition.
static ECR_HOST: LazyLock<Regex> =
    LazyLock::new(|| whole(r"([0-9]{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.[a-z0-9.-]+"));
static REFERRER_TAG: LazyLock<Regex> = LazyLock::new(|| whole(r"(?:.*[._-])?sha256-[a-fA-F0-9]{64}(?:[._-].*)?"));
static CACHE_TAG: LazyLock<Regex> = LazyLock::new(|| whole(r"[a-f0-9]{64}"));

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

    /// The registry: its host name, with a port where the image was named with one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name by digest, under which kubelet looks for an image that a pod names by digest:
    /// `registry/repository@sha256:…`.
    #[must_use]
    pub fn name_by_digest(&self) -> String {
        format!("{}/{}@{}", self.registry, self.repository, self.digest)
    }

    /// The name by tag, under which kubelet looks for an image that a pod names by tag: `registry/repository:tag`.
    #[must_use]
    pub fn name_by_tag(&self) -> Option<String> {
        let tag = self.tag.as_ref()?;
        Some(format!("{}/{}:{tag}", self.registry, self.repository))
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

/// The host name under which nodes pull from a private ECR registry; every one of them answers for the same registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryEndpoint {
    /// `<account>.dkr.ecr.<region>.amazonaws.com`
    #[default]
    Standard,
    /// `<account>.dkr.ecr-fips.<region>.amazonaws.com`
    Fips,
    /// `<account>.dkr-ecr.<region>.on.aws`
    Dualstack,
    /// `<account>.dkr-ecr-fips.<region>.on.aws`
    DualstackFips,
}

/// Names the host of an account's private ECR registry in a Region, in the Region's own partition.
///
/// # Errors
/// [`ImageError::Part`] where the account is not 12 digits, the Region is not shaped like one, or its partition has no such
/// endpoint.
pub fn ecr_registry(account: &str, region: &str, endpoint: RegistryEndpoint) -> Result<String, ImageError> {
    const NO_DUAL_STACK: &str = "a Region of a partition with dual-stack endpoints";
    check("account", account, &ACCOUNT, "12 digits")?;
    check("Region", region, &REGION, "a Region's code such as eu-west-1")?;
    let (name, suffix) = match endpoint {
        RegistryEndpoint::Standard => ("dkr.ecr", Some(dns_suffix(region))),
        RegistryEndpoint::Fips => ("dkr.ecr-fips", Some(dns_suffix(region))),
        RegistryEndpoint::Dualstack => ("dkr-ecr", dual_stack_suffix(region)),
        RegistryEndpoint::DualstackFips => ("dkr-ecr-fips", dual_stack_suffix(region)),
    };
    let suffix = suffix.ok_or_else(|| unusable("Region", region, NO_DUAL_STACK))?;
    Ok(format!("{account}.{name}.{region}.{suffix}"))
}

/// Returns true where two host names are one private ECR registry's, or the same.
#[must_use]
pub fn is_same_registry(one: &str, other: &str) -> bool {
    let key = |host| account_and_region(host);
    one == other || key(one).is_some() && key(one) == key(other)
}

/// Returns the Region of a private ECR registry by its host name, whichever of its endpoints that is; none for any other host.
#[must_use]
pub fn ecr_region(host: &str) -> Option<String> {
    account_and_region(host).map(|(_, region)| region)
}

fn account_and_region(host: &str) -> Option<(String, String)> {
    let parts = ECR_HOST.captures(host)?;
    let (account, region) = (&parts[1], &parts[2]);
    let endpoints = [
        RegistryEndpoint::Standard,
        RegistryEndpoint::Fips,
        RegistryEndpoint::Dualstack,
        RegistryEndpoint::DualstackFips,
    ];
    let is_its = |endpoint| ecr_registry(account, region, endpoint).is_ok_and(|name| name == host);
    endpoints
        .into_iter()
        .any(is_its)
        .then(|| (account.to_owned(), region.to_owned()))
}

/// How many hexadecimal digits a sha256 has.
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

/// Whether what stands under a tag is a layer that a build cache keeps, as far as the names tell.
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

/// What media types tell of an image.
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

/// Returns true where a text is a digest by sha256, the only ones that are used.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    DIGEST.is_match(text)
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

/// The DNS suffix of ECR's dual-stack endpoints in a Region's partition, where AWS names one (ECR user guide, making requests
/// to Amazon ECR registries; cloud-provider-aws, ecr-credential-provider).
fn dual_stack_suffix(region: &str) -> Option<&'static str> {
    match dns_suffix(region) {
        "amazonaws.com" => Some("on.aws"),
        "amazonaws.com.cn" => Some("on.amazonwebservices.com.cn"),
        _ => None,
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
        let host = |region| ecr_registry("123456789012", region, RegistryEndpoint::Standard).unwrap();
        assert_eq!(host("eu-west-1"), "123456789012.dkr.ecr.eu-west-1.amazonaws.com");
        assert_eq!(host("cn-north-1"), "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn");
        assert_eq!(
            host("us-gov-west-1"),
            "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com"
        );
        assert!(ecr_registry("12345", "eu-west-1", RegistryEndpoint::Standard).is_err());
        assert!(ecr_registry("123456789012", "eu west", RegistryEndpoint::Standard).is_err());
    }

    #[test]
    fn a_registry_has_a_host_for_each_endpoint_and_all_are_the_same_registry() {
        let standard = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
        for (endpoint, host) in [
            (RegistryEndpoint::Standard, standard),
            (
                RegistryEndpoint::Fips,
                "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
            ),
            (RegistryEndpoint::Dualstack, "123456789012.dkr-ecr.us-east-1.on.aws"),
            (
                RegistryEndpoint::DualstackFips,
                "123456789012.dkr-ecr-fips.us-east-1.on.aws",
            ),
        ] {
            assert_eq!(ecr_registry("123456789012", "us-east-1", endpoint).unwrap(), host);
            assert!(
                is_same_registry(host, standard) && is_same_registry(standard, host),
                "{host}"
            );
            assert_eq!(ecr_region(host).as_deref(), Some("us-east-1"));
        }
        assert_eq!(ecr_region("registry.example.com"), None);
        assert_eq!(
            ecr_registry("123456789012", "cn-north-1", RegistryEndpoint::Dualstack).unwrap(),
            "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn"
        );
        assert!(ecr_registry("123456789012", "us-iso-east-1", RegistryEndpoint::Dualstack).is_err());
    }

    #[test]
    fn another_accounts_or_regions_or_nobodys_host_is_another_registry() {
        let standard = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
        for other in [
            "123456789012.dkr.ecr.us-west-2.amazonaws.com",
            "210987654321.dkr-ecr.us-east-1.on.aws",
            "123456789012.dkr-ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.on.aws",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com.example.com",
            "123456789012.dkr-ecr.cn-north-1.on.aws",
            "public.ecr.aws",
            "docker.io",
        ] {
            assert!(!is_same_registry(other, standard), "{other}");
        }
    }

    #[test]
    fn signatures_and_referrers_are_known_by_their_tags_whatever_words_are_around() {
        let hex = "a".repeat(64);
        for tag in [
            format!("sha256-{hex}.sig"),
            format!("sha256-{hex}"),
            format!("signature-sha256-{hex}.sig"),
            format!("v1.sha256-{hex}.att"),
            format!("sbom_sha256-{hex}-cyclonedx"),
        ] {
            assert!(not_an_image_tag(&tag).is_some(), "{tag}");
        }
        for tag in [
            "sha256-short.sig".to_owned(),
            "v1.sig".to_owned(),
            "a".repeat(40),
            format!("sha256-{hex}a"),
            format!("v1-{hex}"),
            "a".repeat(65),
            hex,
        ] {
            assert_eq!(not_an_image_tag(&tag), None);
        }
    }

    #[test]
    fn sixty_four_hexadecimal_digits_may_be_a_cached_layers_and_never_are_in_cdks_repositories() {
        let hex = "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451";
        let assets = "cdk-hnb659fds-container-assets-123456789012-eu-west-1";
        for (repository, tag, told) in [
            ("ci/kaniko-cache", hex, CachedLayer::Yes),
            ("ci/app/cache", hex, CachedLayer::Yes),
            ("cache/app", hex, CachedLayer::Maybe),
            ("app", hex, CachedLayer::Maybe),
            (assets, hex, CachedLayer::No),
            ("ci/kaniko-cache", "v1", CachedLayer::No),
            ("app", &hex[1..], CachedLayer::No),
        ] {
            assert_eq!(CachedLayer::of(repository, tag), told, "{repository}:{tag}");
        }
    }

    #[test]
    fn media_types_tell_an_image_from_an_artifact_and_say_where_they_do_not_know() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let index = "application/vnd.oci.image.index.v1+json";
        let image = "application/vnd.oci.image.config.v1+json";
        assert_eq!(Kind::of(Some(oci), Some(image)), Kind::Image);
        assert_eq!(Kind::of(Some(index), None), Kind::Index);
        assert_eq!(Kind::of(Some(index), Some("")), Kind::Index);
        for (manifest, artifact) in [(None, None), (Some(oci), None), (None, Some(image))] {
            assert_eq!(Kind::of(manifest, artifact), Kind::Unknown);
        }
        for (manifest, artifact) in [
            (Some(oci), Some("application/vnd.cncf.helm.config.v1+json")),
            (Some(oci), Some("application/vnd.buildkit.cacheconfig.v0")),
            (Some(index), Some("application/vnd.amazon.soci.index.v2+json")),
            (Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), None),
        ] {
            assert!(matches!(Kind::of(manifest, artifact), Kind::Other(_)));
        }
    }

    #[test]
    fn an_index_of_a_caches_layers_or_of_artifacts_leads_to_no_image() {
        let index = |manifests: &str| format!(r#"{{"schemaVersion": 2, "manifests": [{manifests}]}}"#);
        let image = r#"{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:0", "platform": {"os": "linux"}}"#;
        let layer = r#"{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:1"}"#;
        let config = r#"{"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": "sha256:2"}"#;
        let chart = r#"{"mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/vnd.cncf.helm.config.v1+json"}"#;
        let attestation =
            r#"{"mediaType": "application/vnd.oci.image.manifest.v1+json", "platform": {"os": "unknown"}}"#;
        assert!(is_image(&index(image)));
        assert!(is_image(&index(&[attestation, image].join(","))));
        for manifests in [
            String::new(),
            [layer, config].join(","),
            chart.to_owned(),
            attestation.to_owned(),
        ] {
            assert!(!is_image(&index(&manifests)), "{manifests}");
        }
        for nothing in ["", "[]", "{}", "null"] {
            assert!(!is_image(nothing));
        }
    }

    #[test]
    fn an_image_of_one_layer_may_be_a_caches_and_one_of_more_is_none() {
        let image = |layers: &str| format!(r#"{{"config": {{"digest": "sha256:0"}}, "layers": [{layers}]}}"#);
        let layer = r#"{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": "sha256:1"}"#;
        assert!(is_image(&image(&[layer, layer].join(","))));
        assert!(!is_image(&image(layer)));
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

//! The names of images, as containerd's reference grammar has them.

use std::{net::Ipv4Addr, sync::LazyLock};

use regex_lite::Regex;
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

/// Tells why a text is no image reference.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ImageError {
    /// A part of the reference breaks containerd's grammar.
    #[error("{part} {value:?} is not usable: {accepted}")]
    Part {
        /// Tells which part: registry, repository, tag, digest, account or Region.
        part: &'static str,
        /// The part as it was given.
        value: String,
        /// Says what would have been accepted.
        accepted: &'static str,
    },
    /// The reference has no digest.
    #[error("image {0:?} has no digest: a node pulls by digest only")]
    NoDigest(String),
}

/// The longest host name, in characters, with a port (RFC 1035: 253 of a name).
const REGISTRY_MAX: usize = 259;

/// Checks a registry's host name.
///
/// # Errors
/// [`ImageError::Part`] where containerd would refuse it, or no host can have it.
pub(super) fn check_registry(registry: &str) -> Result<(), ImageError> {
    const ACCEPTED: &str = "a host name of at most 253 characters with an optional port";
    if registry.len() > REGISTRY_MAX {
        return Err(unusable("registry", registry, ACCEPTED));
    }
    check("registry", registry, &REGISTRY, ACCEPTED)
}

/// Returns true where containerd takes a registry for a host, and a host can have that port; not for addresses that are
/// another thing on each node: its own, and those of its link, where EC2's metadata are.
pub(super) fn is_host(registry: &str) -> bool {
    let (host, port) = registry.split_once(':').unwrap_or((registry, ""));
    let address: Option<Ipv4Addr> = host.parse().ok();
    let is_of_node = |address: Ipv4Addr| address.is_loopback() || address.is_link_local() || address.is_unspecified();
    host.contains('.')
        && !host.bytes().any(|byte| byte.is_ascii_uppercase())
        && port.len() <= 5
        && !address.is_some_and(is_of_node)
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

pub(super) fn check(
    part: &'static str,
    value: &str,
    grammar: &Regex,
    accepted: &'static str,
) -> Result<(), ImageError> {
    if grammar.is_match(value) {
        Ok(())
    } else {
        Err(unusable(part, value, accepted))
    }
}

pub(super) fn unusable(part: &'static str, value: &str, accepted: &'static str) -> ImageError {
    ImageError::Part {
        part,
        value: value.chars().take(REPOSITORY_MAX).collect(),
        accepted,
    }
}

pub(super) fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).expect("the pattern is a constant")
}

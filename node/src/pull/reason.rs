//! The reason of a failed pull: containerd's answer, in the words of the report.
//!
//! CRI gives most errors the code Unknown, wraps causes of all kinds in words, and hands a cause's own code through, whoever
//! gave it (a snapshotter's Unavailable, an object's NotFound). So words that name a cause speak first, what was being done
//! (resolving, copying, unpacking) next, and the code where neither says anything.

use prefetch::{image::Image, outcome::NodeReason};
use tonic::{Code, Status};

use crate::failure::{Failure, one_line};

/// Bounds the part of a cause that is kept, in characters.
const MAX_DETAIL: usize = 1_000;

/// Words of containerd's, in the order in which they decide, and what they mean.
///
/// Each of a row's words has to be there. Nothing of this looks at the image's own names (see [`without_names`]).
const WORDS: &[(&[&str], NodeReason)] = &[
    (&["context deadline exceeded"], NodeReason::Timeout),
    (&["no space left on device"], NodeReason::NoSpace),
    (&["disk quota exceeded"], NodeReason::NoSpace),
    (&["read-only file system"], NodeReason::Interrupted),
    // pkg/imageverifier/bindir, and CRI's and the transfer service's words around it
    (&["image verifier"], NodeReason::Policy),
    (&["blocked pull"], NodeReason::Policy),
    (&["no match for platform"], NodeReason::Platform),
    (&["distribution.manifest.v1+"], NodeReason::Platform),
    (&["no signatures"], NodeReason::Platform),
    (&["snapshotter not loaded"], NodeReason::Snapshotter),
    (&["snapshotter must be provided"], NodeReason::Snapshotter),
    // from containerd 2.2 on, which asks for the capabilities first (`GetSnapshotterCapabilities`)
    (&["could not find snapshotter"], NodeReason::Snapshotter),
    (&["extraction snapshot", "dial unix"], NodeReason::Snapshotter),
    // by containerd's garbage collection, or another pull
    (&["failed to extract"], NodeReason::Interrupted),
    (&["parent snapshot"], NodeReason::Interrupted),
    (&["content digest", "not found"], NodeReason::Interrupted),
    (&["lease", "not found"], NodeReason::Interrupted),
    // a page instead of a manifest
    (&["text/html"], NodeReason::Registry),
    (&["invalid character '<'"], NodeReason::Registry),
    // what is there and cannot be fetched may be had later
    (&["failed to copy"], NodeReason::Registry),
    (&["401 Unauthorized"], NodeReason::Denied),
    (&["403 Forbidden"], NodeReason::Denied),
    (&["authorization failed"], NodeReason::Denied),
    (&["no basic auth"], NodeReason::Denied),
    (&["denied"], NodeReason::Denied),
    (&["not found"], NodeReason::NotFound),
];

/// Names the words with which a host refuses a login, or what stands for one.
const REFUSALS: [&str; 3] = ["401 Unauthorized", "403 Forbidden", "authorization failed"];

/// Tells from containerd's answer why it did not pull an image.
#[must_use]
pub fn of_status(image: &Image, status: &Status) -> Failure {
    let detail = shown(status.message());
    if std::error::Error::source(status).is_some() {
        return Failure::new(NodeReason::Interrupted, detail); // containerd did not answer: the connection is at an end
    }
    let message = without_names(image, status.message());
    if message.contains("failed to copy") && REFUSALS.iter().any(|words| message.contains(words)) {
        let detail = match refusing_host(status.message()) {
            Some(host) => format!("{host} refuses the layers: {detail}"),
            None => detail,
        };
        return Failure::new(NodeReason::Denied, detail);
    }
    Failure::new(of_words(&message, status.code()), detail)
}

fn of_words(message: &str, code: Code) -> NodeReason {
    if is_store_protected(message) {
        return NodeReason::Interrupted;
    }
    if code == Code::DeadlineExceeded {
        return NodeReason::Timeout;
    }
    let row = WORDS
        .iter()
        .find(|(words, _)| words.iter().all(|word| message.contains(word)));
    match (row, code) {
        (Some((_, reason)), _) => *reason,
        (None, Code::Cancelled | Code::Unavailable | Code::Aborted) => NodeReason::Interrupted,
        (None, Code::NotFound) => NodeReason::NotFound,
        (None, Code::PermissionDenied | Code::Unauthenticated) => NodeReason::Denied,
        (None, _) => NodeReason::Registry,
    }
}

/// Tells whether the operating system refused containerd a file, as SELinux and immutable files do: "mkdir /path: permission
/// denied", which is no registry's refusal.
fn is_store_protected(message: &str) -> bool {
    ["permission denied", "operation not permitted"].iter().any(|words| {
        message.match_indices(&format!(": {words}")).any(|(at, _)| {
            let path = message[..at].rsplit([' ', '"']).next().unwrap_or("");
            path.starts_with('/')
        })
    })
}

/// Returns the host that refused layers, of the last address that is named: it may be the registry, whose login has become
/// too old, or an object store to which that leads.
fn refusing_host(message: &str) -> Option<&str> {
    let (_, address) = message.rsplit_once("https://")?;
    address
        .split(['/', '?', '"', ' '])
        .next()
        .filter(|host| !host.is_empty())
}

/// Returns a message as people may see it: its end, where the cause stands.
fn shown(message: &str) -> String {
    let line = one_line(message);
    let length = line.chars().count();
    line.chars().skip(length.saturating_sub(MAX_DETAIL)).collect()
}

/// Returns a message without the image's own names, which may hold any word.
fn without_names(image: &Image, message: &str) -> String {
    let mut message = message.replace(image.registry(), "");
    for word in [Some(image.repository()), image.tag()].into_iter().flatten() {
        for (before, after) in [
            ("/", ":"),
            ("/", "@"),
            ("/", "/"),
            (":", "@"),
            (":", ":"),
            (":", "\""),
            ("/", "\""),
        ] {
            message = message.replace(&format!("{before}{word}{after}"), " ");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn image(name: &str) -> Image {
        format!("{name}@{DIGEST}").parse().unwrap()
    }

    fn reason(message: &str) -> NodeReason {
        of_status(&image("registry.example/team/app:v1"), &Status::unknown(message)).reason
    }

    #[test]
    fn what_containerd_says_has_a_reason() {
        for (message, expected) in [
            (
                "failed to pull and unpack image: failed to resolve reference: registry.example/team/app@x: not found",
                NodeReason::NotFound,
            ),
            (
                "failed to resolve reference: unexpected status from HEAD request to https://registry.example/v2/: 403 Forbidden",
                NodeReason::Denied,
            ),
            (
                "failed to resolve: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
                NodeReason::Denied,
            ),
            (
                "failed to resolve reference: failed to do request: Head \"https://registry.example\": dial tcp: connection refused",
                NodeReason::Registry,
            ),
            ("unexpected status: 503 Service Unavailable", NodeReason::Registry),
            (
                "failed to copy: httpReadSeeker: failed open: content at https://registry.example/v2/x not found",
                NodeReason::Registry,
            ),
            (
                "failed to extract layer sha256:x: mount callback failed: write /a: no space left on device",
                NodeReason::NoSpace,
            ),
            (
                "failed to copy: write /var/lib/containerd/x: disk quota exceeded",
                NodeReason::NoSpace,
            ),
            (
                "failed to prepare extraction snapshot \"extract-1 sha256:x\": dial unix /run/soci.sock: connect: connection refused",
                NodeReason::Snapshotter,
            ),
            (
                "unable to get snapshotter capabilities: inspection service could not find snapshotter none plugin",
                NodeReason::Snapshotter,
            ),
            (
                "failed to extract layer: parent snapshot sha256:x does not exist: not found",
                NodeReason::Interrupted,
            ),
            (
                "no match for platform in manifest sha256:x: not found",
                NodeReason::Platform,
            ),
            (
                "image verifier cosign blocked pull of registry.example/team/app with digest x for reason: unsigned",
                NodeReason::Policy,
            ),
            (
                "failed to create temp dir: mkdir /var/lib/containerd/tmp: read-only file system",
                NodeReason::Interrupted,
            ),
            (
                "failed to copy: open /var/lib/containerd/io.containerd.content.v1.content/ingest/x/data: permission denied",
                NodeReason::Interrupted,
            ),
            (
                "failed to unmarshal: invalid character '<' looking for beginning of value",
                NodeReason::Registry,
            ),
            ("httpReadSeeker: context deadline exceeded", NodeReason::Timeout),
        ] {
            assert_eq!(reason(message), expected, "{message}");
        }
    }

    #[test]
    fn the_code_decides_where_it_says_something() {
        let image = image("registry.example/team/app:v1");
        for (status, expected) in [
            (Status::deadline_exceeded("denied"), NodeReason::Timeout),
            (
                Status::unavailable("error reading from server: EOF"),
                NodeReason::Interrupted,
            ),
            (
                Status::unavailable("extraction snapshot: dial unix /run/soci.sock"),
                NodeReason::Snapshotter,
            ),
            (Status::not_found("failed to resolve"), NodeReason::NotFound),
            (
                Status::not_found("content digest sha256:x: not found"),
                NodeReason::Interrupted,
            ),
            (Status::permission_denied("no"), NodeReason::Denied),
            (Status::internal("something"), NodeReason::Registry),
        ] {
            assert_eq!(of_status(&image, &status).reason, expected, "{status:?}");
        }
    }

    #[test]
    fn a_host_that_has_the_layers_and_refuses_them_is_named() {
        let image = image("registry.example/team/app:v1");
        let of = |host: &str| {
            let message = format!(
                "failed to copy: httpReadSeeker: failed open: unexpected status code https://{host}/v2/x?X-Amz-Signature=secret: 403 Forbidden"
            );
            of_status(&image, &Status::unknown(message))
        };
        for host in ["starport.s3.eu-west-1.amazonaws.com", "registry.example:5000"] {
            let failure = of(host);
            assert_eq!(failure.reason, NodeReason::Denied);
            assert!(
                failure.detail.starts_with(&format!("{host} refuses the layers: ")),
                "{}",
                failure.detail
            );
            assert!(!failure.detail.contains("secret"));
        }
    }

    #[test]
    fn an_images_own_names_are_no_words_of_an_error() {
        for name in [
            "denied.not-found.example/denied/not-found:no-space",
            "registry.example/denied/not-found/401-unauthorized:denied",
        ] {
            let image = image(name);
            for message in [
                format!(
                    "failed to resolve reference \"{}\": connection refused",
                    image.name_by_digest()
                ),
                format!(
                    "Head \"https://{}/v2/{}/manifests/{DIGEST}\": dial tcp: connection refused",
                    image.registry(),
                    image.repository()
                ),
            ] {
                assert_eq!(
                    of_status(&image, &Status::unknown(message)).reason,
                    NodeReason::Registry
                );
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_containerd_says_is_reported_without_queries_on_one_line(message in "\\PC{0,200}", query in "[a-z=&]{1,20}") {
            let image = image("registry.example/team/app:v1");
            let status = Status::unknown(format!("{message} https://bucket.example/x?SECRET{query}: 403\n"));
            let detail = of_status(&image, &status).detail;
            prop_assert!(!detail.contains("SECRET") && !detail.contains('\n'));
        }
    }
}

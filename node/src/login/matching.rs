//! The images that a credential provider is for, as kubelet decides it (`URLsMatchStr` in its pkg/credentialprovider).

use crate::glob;

/// Returns true where a pattern of `matchImages`, or of a provider's answer, takes an image: the same port, equally many
/// labels of the host, each by its glob, and the beginning of the path.
#[must_use]
pub fn matches(pattern: &str, image: &str) -> bool {
    let (Some(pattern), Some(image)) = (Address::of(pattern), Address::of(image)) else {
        return false;
    };
    let labels = |host: &str| host.split('.').count();
    pattern.port == image.port
        && labels(pattern.host) == labels(image.host)
        && image.path.starts_with(pattern.path)
        && pattern
            .host
            .split('.')
            .zip(image.host.split('.'))
            .all(|(glob, label)| glob::matches(glob, label))
}

/// Returns the form in which a provider's answer names a registry: without a scheme, `/v1/` and `/v2/`.
#[must_use]
pub fn key(location: &str) -> String {
    let bare = location
        .strip_prefix("https://")
        .or_else(|| location.strip_prefix("http://"))
        .unwrap_or(location);
    let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    let rest = path
        .strip_prefix("/v1")
        .or_else(|| path.strip_prefix("/v2"))
        .filter(|rest| rest.starts_with('/'));
    match rest.unwrap_or(path) {
        "/" => host.to_owned(),
        path => format!("{host}{path}"),
    }
}

struct Address<'a> {
    host: &'a str,
    port: &'a str,
    path: &'a str,
}

impl<'a> Address<'a> {
    /// Splits an address without a scheme as Go's `url.Parse` and `net.SplitHostPort` do; none where those would fail, and
    /// for an IPv6 address, which no image's name can hold.
    fn of(text: &'a str) -> Option<Self> {
        let text = text.split(['?', '#']).next()?;
        let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let is_port = port.bytes().all(|digit| digit.is_ascii_digit());
        (is_port && !authority.starts_with('[')).then_some(Self { host, port, path })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{key, matches};

    #[test]
    fn patterns_take_what_kubelet_takes() {
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app";
        for (pattern, image, is_match) in [
            ("*.dkr.ecr.*.amazonaws.com", ecr, true),
            ("123456789012.dkr.ecr.*.amazonaws.com/team", ecr, true),
            ("*.dkr.ecr.*.amazonaws.com/other", ecr, false),
            ("*.dkr.ecr.*.amazonaws.com.cn", ecr, false),
            ("*.*.*.*.*.*", ecr, true),
            ("*.com", ecr, false),
            ("*", ecr, false),
            ("*.docker.io", "blah.docker.io", true),
            ("*.docker.io", "not.right.io", false),
            ("registry.example.com:5000", "registry.example.com:5000/app", true),
            ("registry.example.com", "registry.example.com:5000/app", false),
            ("registry.example.com:5000", "registry.example.com/app", false),
            ("*.example.com:*", "registry.example.com:5000/app", false),
            ("prefix.*.io/a", "prefix.x.io/ab", true),
            ("prefix.*.io/a/", "prefix.x.io/ab", false),
            ("a?b.example.com", "axb.example.com/app", false),
            ("public.ecr.aws", "public.ecr.aws/docker/library/nginx", true),
            ("[::1]:5000", "[::1]:5000/app", false),
            ("[ab].example.com", "a.example.com/app", false),
            ("", ecr, false),
        ] {
            assert_eq!(matches(pattern, image), is_match, "{pattern} {image}");
        }
    }

    #[test]
    fn answers_name_a_registry_with_and_without_scheme_and_version() {
        for (location, expected) in [
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("http://registry.example.com/v2/team", "registry.example.com/team"),
            ("registry.example.com/", "registry.example.com"),
            ("registry.example.com/v1", "registry.example.com/v1"),
            ("registry.example.com:5000", "registry.example.com:5000"),
        ] {
            assert_eq!(key(location), expected);
        }
    }

    proptest! {
        #[test]
        fn what_takes_an_image_takes_those_below_it(pattern in "(https://)?[*?\\PC\\[\\].:/@-]{0,20}", image in "[a-z0-9.:-]{1,20}/[a-z/]{0,9}") {
            let below = format!("{image}x");
            for pattern in [key(&pattern), pattern, image.clone()] {
                prop_assert!(!matches(&pattern, &image) || matches(&pattern, &below));
            }
        }
    }
}

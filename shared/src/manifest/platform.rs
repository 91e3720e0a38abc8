//! Platforms, and which of them a node takes: containerd's rules (`containerd/platforms`: `Normalize`, `Only`).

use std::fmt;

/// Limits how many characters of each part are printed: anybody writes them.
const MOST: usize = 32;

/// An operating system, an architecture and its variant, in containerd's own words for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: String,
}

impl Platform {
    /// Names a platform: letter case and other words for the same are containerd's own afterwards.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normalized(&architecture.to_lowercase(), &variant.to_lowercase());
        let os = match os.to_lowercase().as_str() {
            "" => "linux".to_owned(), // containerd's own
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        Self {
            os,
            architecture,
            variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printed = |part: &str| -> String { part.chars().filter(char::is_ascii_graphic).take(MOST).collect() };
        write!(f, "{}/{}", printed(&self.os), printed(&self.architecture))?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{}", printed(variant)),
        }
    }
}

fn normalized(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

/// The platforms that a node takes, the best first.
///
/// containerd knows no variants of amd64 by itself (`cpuVariant` reads them for Arm alone): a node takes v1 and 386, and
/// never v2 or above, whatever its processor can do. Arm's variant is v8 on all of EC2's processors: the kernel says
/// `CPU architecture: 8` of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformMatcher(Vec<Platform>);

impl PlatformMatcher {
    /// Takes what containerd takes on Linux on an architecture, under any of its names.
    #[must_use]
    pub fn linux(architecture: &str) -> Self {
        let own = Platform::new("linux", architecture, "");
        let others: &[(&str, &str)] = match own.architecture.as_str() {
            "amd64" => &[("386", "")],
            "arm64" => &[("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
            _ => &[],
        };
        let others = others
            .iter()
            .map(|(architecture, variant)| Platform::new("linux", architecture, variant));
        Self([own].into_iter().chain(others).collect())
    }

    /// Takes what containerd takes on this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self::linux(std::env::consts::ARCH)
    }

    /// Returns the node's own architecture in containerd's words.
    #[must_use]
    pub fn architecture(&self) -> &str {
        self.0.first().map_or("", |own| own.architecture.as_str())
    }

    /// Tells how good a platform is, 0 the best; nothing where a node does not take it.
    #[must_use]
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        self.0.iter().position(|own| own == platform)
    }

    /// Tells whether a node runs what is for a platform, of whichever variant: what a configuration says of a manifest to
    /// which no index leads, which containerd takes without a look at it.
    #[must_use]
    pub fn runs(&self, platform: &Platform) -> bool {
        let is_of = |own: &Platform| own.os == platform.os && own.architecture == platform.architecture;
        self.0.iter().any(is_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letter_case_and_other_words_for_a_platform_are_the_same() {
        for (os, architecture, variant) in [
            ("linux", "amd64", ""),
            ("Linux", "AMD64", ""),
            ("", "x86_64", "v1"),
            ("LINUX", "x86-64", "V1"),
        ] {
            assert_eq!(
                Platform::new(os, architecture, variant),
                Platform::new("linux", "amd64", "")
            );
        }
        for (architecture, variant) in [("aarch64", ""), ("ARM64", "v8"), ("arm64", "8"), ("arm64", "v8.0")] {
            assert_eq!(
                Platform::new("linux", architecture, variant),
                Platform::new("linux", "arm64", "")
            );
        }
    }

    #[test]
    fn a_node_takes_its_own_platform_first_and_those_it_can_run() {
        let rank = |node: &str, architecture, variant| {
            PlatformMatcher::linux(node).rank(&Platform::new("linux", architecture, variant))
        };
        assert_eq!(rank("x86_64", "amd64", ""), Some(0));
        assert_eq!(rank("amd64", "i386", ""), Some(1));
        assert_eq!(rank("aarch64", "arm64", "v8"), Some(0));
        assert_eq!(rank("arm64", "arm", "v8"), Some(1));
        assert_eq!(rank("arm64", "arm", ""), Some(2));
        for (node, architecture, variant) in [
            ("amd64", "amd64", "v2"),
            ("amd64", "amd64", "v3"),
            ("amd64", "arm64", ""),
            ("amd64", "", ""),
            ("amd64", "unknown", ""),
            ("arm64", "arm64", "v9"),
            ("arm64", "amd64", ""),
        ] {
            assert_eq!(
                rank(node, architecture, variant),
                None,
                "{node} {architecture} {variant}"
            );
        }
        let windows = Platform::new("windows", "amd64", "");
        assert_eq!(PlatformMatcher::linux("amd64").rank(&windows), None);
    }

    #[test]
    fn an_image_without_an_index_runs_whichever_variant_it_was_built_for() {
        let node = PlatformMatcher::linux("amd64");
        assert!(node.runs(&Platform::new("linux", "amd64", "v3")));
        assert!(!node.runs(&Platform::new("linux", "arm64", "")));
        assert!(!node.runs(&Platform::new("windows", "amd64", "")));
    }
}

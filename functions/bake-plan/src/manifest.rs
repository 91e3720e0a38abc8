//! Manifests: what an image is made of, as ECR keeps it.

use prefetch::bake::Architecture;
use serde::Deserialize;
use serde_json::Value;

/// The largest size, in bytes, that a manifest is believed, as the document believes it.
const BELIEVED: u64 = 1_000_000_000_000_000;

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// An index: the manifests it leads to.
    Index(Vec<Child>),
    /// An image for one platform, which is not told here.
    Image(Content),
}

/// A manifest that an index leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The manifest's digest.
    pub digest: String,
    /// The operating system and the architecture; none where the index does not tell.
    pub platform: Option<(String, String)>,
}

/// What an image of one platform is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The size of its configuration.
    pub config: u64,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// A layer, compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its digest.
    pub digest: String,
    /// Its size; 0 where the manifest does not tell.
    pub bytes: u64,
}

impl Content {
    /// The compressed size, counted as a node counts it.
    pub fn bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.bytes);
        layers.fold(self.config, u64::saturating_add)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    digest: String,
    #[serde(default)]
    size: Value,
    platform: Option<Platform>,
    artifact_type: Option<String>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

impl Descriptor {
    fn bytes(&self) -> u64 {
        self.size.as_u64().filter(|bytes| *bytes < BELIEVED).unwrap_or_default()
    }
}

impl Manifest {
    /// Reads a manifest; of an index, what no node can run is left out.
    ///
    /// # Errors
    /// Where the text is no manifest.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let written: Written = serde_json::from_str(text)?;
        let Some(children) = written.manifests else {
            let layers = written.layers.into_iter();
            return Ok(Self::Image(Content {
                config: written.config.map(|config| config.bytes()).unwrap_or_default(),
                layers: layers
                    .map(|layer| Layer {
                        bytes: layer.bytes(),
                        digest: layer.digest,
                    })
                    .collect(),
            }));
        };
        // A SOCI index stands beside the image under the same platform.
        let images = children.into_iter().filter(|child| child.artifact_type.is_none());
        Ok(Self::Index(
            images
                .map(|child| Child {
                    digest: child.digest,
                    platform: child.platform.map(|platform| (platform.os, platform.architecture)),
                })
                .collect(),
        ))
    }
}

/// Picks the child for an architecture, as containerd does: the first for Linux on it, else the first that does not tell.
pub fn child(children: &[Child], architecture: Architecture) -> Option<&Child> {
    let is_for_it = |child: &&Child| match &child.platform {
        Some((os, processor)) => os == "linux" && names(architecture).contains(&processor.as_str()),
        None => false,
    };
    let tells_nothing = |child: &&Child| child.platform.is_none();
    let is_for_it = children.iter().find(is_for_it);
    is_for_it.or_else(|| children.iter().find(tells_nothing))
}

/// An architecture in the words of image indexes, and others that containerd takes as well.
fn names(architecture: Architecture) -> [&'static str; 3] {
    match architecture {
        Architecture::X86 => ["amd64", "x86_64", "x86-64"],
        Architecture::Arm => ["arm64", "aarch64", "arm64"],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(manifest: &Value) -> Manifest {
        Manifest::parse(&manifest.to_string()).unwrap()
    }

    #[test]
    fn an_image_has_the_size_of_its_configuration_and_layers() {
        let manifest = json!({"config": {"digest": "c", "size": 7}, "layers": [
            {"digest": "a", "size": 100}, {"digest": "b", "size": 20},
        ]});
        let Manifest::Image(content) = parse(&manifest) else {
            panic!()
        };
        assert_eq!(content.bytes(), 127);
        assert_eq!(
            content.layers[1],
            Layer {
                digest: "b".to_owned(),
                bytes: 20
            }
        );
    }

    #[test]
    fn a_size_that_is_not_told_or_not_believed_counts_nothing() {
        for layer in [
            json!({"digest": "a"}),
            json!({"size": null}),
            json!({"size": "1"}),
            json!({"size": -1}),
            json!({"size": 1.5}),
            json!({"size": u64::MAX}),
        ] {
            let manifest = json!({"layers": [layer, {"size": 3}]});
            let Manifest::Image(content) = parse(&manifest) else {
                panic!()
            };
            assert_eq!(content.bytes(), 3);
        }
    }

    #[test]
    fn of_an_index_the_first_image_for_linux_on_the_architecture_is_taken() {
        let index = parse(&json!({"manifests": [
            {"digest": "attestation", "platform": {"os": "unknown", "architecture": "unknown"}},
            {"digest": "windows", "platform": {"os": "windows", "architecture": "amd64"}},
            {"digest": "soci", "artifactType": "application/vnd.amazon.soci.index.v2+json",
                "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": "amd64", "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": "amd64-v3", "platform": {"os": "linux", "architecture": "amd64", "variant": "v3"}},
            {"digest": "arm64", "platform": {"os": "linux", "architecture": "aarch64"}},
        ]}));
        let Manifest::Index(children) = index else { panic!() };
        let digest = |architecture| child(&children, architecture).unwrap().digest.as_str();
        assert_eq!(
            (digest(Architecture::X86), digest(Architecture::Arm)),
            ("amd64", "arm64")
        );
        assert_eq!(child(&children[..1], Architecture::X86), None);
    }

    #[test]
    fn a_child_that_tells_no_platform_is_taken_where_none_is_for_the_architecture() {
        let index = parse(&json!({"manifests": [
            {"digest": "any"}, {"digest": "arm64", "platform": {"os": "linux", "architecture": "arm64"}},
        ]}));
        let Manifest::Index(children) = index else { panic!() };
        assert_eq!(child(&children, Architecture::X86).unwrap().digest, "any");
        assert_eq!(child(&children, Architecture::Arm).unwrap().digest, "arm64");
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in ["", "[]", "null", "{\"manifests\": 1}", "{\"layers\": {}}"] {
            assert!(Manifest::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_manifest_or_refused(text in "[{}\\[\\]\":,a-z0-9]{0,60}") {
            if let Ok(Manifest::Image(content)) = Manifest::parse(&text) {
                prop_assert!(content.bytes() < BELIEVED);
            }
        }
    }
}

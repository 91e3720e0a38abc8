//! Describes what a manifest says that an image is made of.

use super::{
    index::Index,
    read::{ManifestError, read, total},
    written,
};
use crate::image::CONFIGURATIONS;

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// An index: the manifests it leads to.
    Index(Index),
    /// An image for one platform, which its configuration tells; or what is no image.
    Image(Content),
}

/// Holds what an image of one platform is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The digest of its configuration; nothing where it is not told.
    pub config: String,
    /// The size of its configuration.
    pub config_bytes: u64,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
    /// Says what can run it.
    pub runtime: Runtime,
}

/// A layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Its digest.
    pub digest: String,
    /// Its compressed size; 0 where the manifest does not tell.
    pub bytes: u64,
    /// Its unpacked size as far as it can be told: twice the compressed one, where the manifest does not say it.
    pub unpacked: u64,
    /// Tells whether its bytes may be elsewhere than in the image's repository.
    pub is_elsewhere: bool,
}

/// Holds what can run an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// Any node of its platform.
    #[default]
    Any,
    /// Nodes with Nydus' snapshotter: its layers are no file systems to others.
    Nydus,
    /// None, for this reason: it is an artifact, a signature, a chart, or of a schema that containerd gave up.
    None(String),
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Where the text is no manifest.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        let written: written::Manifest = read(text)?;
        Ok(match written.manifests {
            Some(children) => Self::Index(Index::from(children.0)),
            None => Self::Image(Content::from(written)),
        })
    }
}

impl Content {
    /// Returns the compressed size, the configuration included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        total(self.layers.iter().map(|layer| layer.bytes).chain([self.config_bytes]))
    }

    /// Returns what it takes on a disk that has nothing of it, while it is pulled: compressed and unpacked.
    #[must_use]
    pub fn bytes_with_unpacked(&self) -> u64 {
        total(self.layers.iter().map(|layer| layer.unpacked).chain([self.bytes()]))
    }
}

impl From<written::Manifest> for Content {
    fn from(written: written::Manifest) -> Self {
        let runtime = runtime(&written);
        let config = written.config.unwrap_or_default();
        let layers = written.layers.unwrap_or_default().0.into_iter();
        Self {
            config_bytes: config.bytes(),
            config: config.digest(),
            layers: layers.map(Layer::from).collect(),
            runtime,
        }
    }
}

impl From<written::Descriptor> for Layer {
    fn from(written: written::Descriptor) -> Self {
        let bytes = written.bytes();
        let is_plain = !written.media_type.0.is_empty() && !is_compressed(&written.media_type.0);
        let estimate = if is_plain { bytes } else { 2 * bytes };
        Self {
            digest: written.digest(),
            is_elsewhere: written.urls.is_some(),
            bytes,
            unpacked: written.unpacked_bytes().unwrap_or(estimate),
        }
    }
}

fn is_compressed(media_type: &str) -> bool {
    media_type.contains("gzip") || media_type.contains("zstd")
}

/// Tells what can run what a manifest describes.
fn runtime(manifest: &written::Manifest) -> Runtime {
    let none = |what: &str| Runtime::None(format!("it is no image that a node can run: {what}"));
    let layers = manifest.layers.as_ref().map_or(&[][..], |layers| &layers.0);
    let Some(config) = &manifest.config else {
        return none("it has no configuration, as manifests of schema 1");
    };
    let media_type = config.media_type.0.as_str();
    if !CONFIGURATIONS.contains(&media_type) {
        none(&format!("its configuration is {}", named(media_type)))
    } else if layers.iter().any(written::Descriptor::is_nydus) {
        Runtime::Nydus
    } else if layers.iter().any(|layer| layer.media_type.0.contains("tar")) {
        Runtime::Any
    } else if let Some(layer) = layers.first() {
        none(&format!("its layers are {}", named(&layer.media_type.0)))
    } else {
        none("it has no layers")
    }
}

/// Returns a media type as far as it can stand in a message.
fn named(media_type: &str) -> String {
    const MOST: usize = 100;
    let printed = media_type.chars().filter(char::is_ascii_graphic).take(MOST).collect();
    if media_type.is_empty() {
        "of no type".to_owned()
    } else {
        printed
    }
}

//! Manifests and configurations as they are written, as far as they are read.
//!
//! Lists are bounded, and a value of another kind than it should have is one that is not given: what stands in them is
//! whatever somebody pushed.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{platform::Platform, read::MAX_PART};
use crate::image::is_digest;

/// Limits how many manifests or layers are read of one manifest. Overlayfs mounts at most 500 layers (kernel,
/// `OVL_MAX_STACK`).
const MAX_ITEMS: usize = 2_000;

#[derive(Deserialize)]
pub struct Manifest {
    pub manifests: Option<List<Descriptor>>,
    pub config: Option<Descriptor>,
    pub layers: Option<List<Descriptor>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    pub media_type: Text,
    digest: Text,
    size: Number,
    pub platform: Option<WrittenPlatform>,
    artifact_type: Option<Text>,
    annotations: Option<Annotations>,
    pub urls: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct WrittenPlatform {
    os: Text,
    architecture: Text,
    variant: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "io.containers.estargz.uncompressed-size")]
    uncompressed_size: Text,
    #[serde(rename = "containerd.io/snapshot/nydus-blob")]
    nydus_blob: Option<IgnoredAny>,
    #[serde(rename = "containerd.io/snapshot/nydus-bootstrap")]
    nydus_bootstrap: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Configuration {
    os: Text,
    architecture: Text,
    variant: Text,
    rootfs: Option<RootFs>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Option<List<Text>>,
}

impl Descriptor {
    /// Returns the digest; nothing where it is none by sha256.
    pub fn digest(&self) -> String {
        if is_digest(&self.digest.0) {
            self.digest.0.clone()
        } else {
            String::new()
        }
    }

    pub fn bytes(&self) -> u64 {
        self.size.0
    }

    /// Returns the size that eStargz tells of an unpacked layer.
    pub fn unpacked_bytes(&self) -> Option<u64> {
        let text = &self.annotations.as_ref()?.uncompressed_size.0;
        text.parse().ok().filter(|bytes| *bytes < MAX_PART)
    }

    pub fn is_artifact(&self) -> bool {
        self.artifact_type.as_ref().is_some_and(|kind| !kind.0.is_empty())
    }

    pub fn is_nydus(&self) -> bool {
        let marks = |of: &Annotations| of.nydus_blob.is_some() || of.nydus_bootstrap.is_some();
        self.media_type.0.contains(".nydus.") || self.annotations.as_ref().is_some_and(marks)
    }
}

impl Configuration {
    /// Returns the platform, and the digests of the unpacked layers; nothing where there is no root file system.
    pub fn into_parts(self) -> (Option<Platform>, Vec<String>) {
        let Some(rootfs) = self.rootfs else {
            return (None, Vec::new());
        };
        let is_told = !self.os.0.is_empty() && !self.architecture.0.is_empty();
        let platform = is_told.then(|| Platform::new(&self.os.0, &self.architecture.0, &self.variant.0));
        let diff_ids = rootfs.diff_ids.unwrap_or_default().0.into_iter().map(|id| id.0);
        (platform, diff_ids.take_while(|id| is_digest(id)).collect())
    }
}

impl From<WrittenPlatform> for Platform {
    fn from(written: WrittenPlatform) -> Self {
        Self::new(&written.os.0, &written.architecture.0, &written.variant.0)
    }
}

/// A bounded list; a longer one is an error.
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_ITEMS}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX_ITEMS {
                        return Err(A::Error::invalid_length(MAX_ITEMS + 1, &self));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(Items(PhantomData)).map(Self)
    }
}

/// A text; nothing where it is something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

/// A size that is believed; 0 where it is something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Number(u64);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scalar = deserializer.deserialize_any(AnyScalar)?;
        Ok(Self(match scalar {
            Scalar::Text(text) => text,
            Scalar::Number(_) | Scalar::Other => String::new(),
        }))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scalar = deserializer.deserialize_any(AnyScalar)?;
        Ok(Self(match scalar {
            Scalar::Number(number) if number < MAX_PART => number,
            Scalar::Number(_) | Scalar::Text(_) | Scalar::Other => 0,
        }))
    }
}

enum Scalar {
    Text(String),
    Number(u64),
    Other,
}

struct AnyScalar;

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

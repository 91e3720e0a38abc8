//! The OCI artifact that holds the programs: a manifest of one layer per processor.

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::programs::{Processor, Program};

/// Names the media type of the artifact's manifest.
pub const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Names the artifact for what it is, so that no rule takes it for an image.
const ARTIFACT_TYPE: &str = "application/vnd.eks-image-prefetch.program.v1";
/// Names the media type of a configuration that there is not (OCI image specification, guidance for an empty descriptor).
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// The artifact as it is pushed.
#[derive(Debug)]
pub struct Artifact {
    /// The blobs of the manifest, its empty configuration first.
    pub blobs: Vec<Blob>,
    /// The manifest.
    pub manifest: String,
    /// The manifest's digest.
    pub digest: String,
    /// Names the version, and the manifest by the beginning of its digest.
    pub tag: String,
    digests: Vec<(Processor, String)>,
}

/// Content that is known by its digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The digest.
    pub digest: String,
    /// The content.
    pub content: &'static [u8],
}

/// A blob in a manifest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'static str,
    digest: &'a str,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<serde_json::Value>,
}

impl Artifact {
    /// Makes the artifact of these programs, of this version; the same ones make the same artifact.
    #[must_use]
    pub fn of(programs: &[Program], version: &str) -> Self {
        let empty = Blob::of(EMPTY);
        let layers: Vec<(Processor, Blob)> = programs.iter().map(|p| (p.processor, Blob::of(p.content))).collect();
        let descriptors = layers.iter().map(|(processor, blob)| Descriptor {
            annotations: Some(json!({"org.opencontainers.image.title": processor.file_name()})),
            ..blob.descriptor("application/octet-stream")
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": empty.descriptor(EMPTY_TYPE),
            "layers": descriptors.collect::<Vec<_>>(),
        })
        .to_string();
        let digest = digest_of(manifest.as_bytes());
        let (_, hex) = digest.split_at("sha256:".len());
        Self {
            tag: format!("{version}-{}", &hex[..12]),
            digests: layers
                .iter()
                .map(|(processor, blob)| (*processor, blob.digest.clone()))
                .collect(),
            blobs: [empty]
                .into_iter()
                .chain(layers.into_iter().map(|(_, blob)| blob))
                .collect(),
            manifest,
            digest,
        }
    }

    /// Returns true where no program was built.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Returns the digest of the program for a processor; none where it was not built.
    #[must_use]
    pub fn program_digest(&self, processor: Processor) -> Option<&str> {
        let mut digests = self.digests.iter();
        digests
            .find(|(of, _)| *of == processor)
            .map(|(_, digest)| digest.as_str())
    }
}

impl Blob {
    fn of(content: &'static [u8]) -> Self {
        Self {
            digest: digest_of(content),
            content,
        }
    }

    fn descriptor(&self, media_type: &'static str) -> Descriptor<'_> {
        Descriptor {
            media_type,
            digest: &self.digest,
            size: self.content.len(),
            annotations: None,
        }
    }
}

fn digest_of(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    hash.iter()
        .fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const BOTH: [Program; 2] = [
        Program {
            processor: Processor::X86_64,
            content: b"a program",
        },
        Program {
            processor: Processor::Arm64,
            content: b"another program",
        },
    ];

    #[test]
    fn the_artifact_is_no_image_and_names_each_program() {
        let artifact = Artifact::of(&BOTH, "0.1.0");
        let manifest: Value = serde_json::from_str(&artifact.manifest).unwrap();
        assert_eq!(manifest["artifactType"], ARTIFACT_TYPE);
        assert_eq!(
            manifest["config"],
            json!({
                "mediaType": EMPTY_TYPE, "size": 2,
                "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            })
        );
        let layers = manifest["layers"].as_array().unwrap();
        for (layer, processor) in layers.iter().zip([Processor::X86_64, Processor::Arm64]) {
            assert_eq!(layer["digest"].as_str(), artifact.program_digest(processor));
            assert_eq!(
                layer["annotations"]["org.opencontainers.image.title"],
                processor.file_name()
            );
        }
        assert_eq!((layers.len(), artifact.blobs.len()), (2, 3));
    }

    #[test]
    fn the_same_programs_have_the_same_tag_and_others_another() {
        let tag = |programs: &[Program]| Artifact::of(programs, "0.1.0").tag;
        assert_eq!(tag(&BOTH), tag(&BOTH));
        assert_ne!(tag(&BOTH), tag(&BOTH[..1]));
        assert!(tag(&BOTH).starts_with("0.1.0-"));
    }

    #[test]
    fn a_program_that_was_not_built_has_no_digest() {
        let artifact = Artifact::of(&BOTH[..1], "0.1.0");
        assert!(artifact.program_digest(Processor::X86_64).is_some());
        assert_eq!(artifact.program_digest(Processor::Arm64), None);
    }
}

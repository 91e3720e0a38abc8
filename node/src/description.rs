//! An image as its manifests describe it for this node: its fit and its content.

use prefetch::manifest::{Configuration, Content, MAX_DEPTH, Manifest, ManifestError, PlatformMatcher, Runtime};

use crate::registry::DocumentKind;

/// Describes an image before a byte of its layers is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its fit for the node.
    pub fit: Fit,
    /// The content that containerd takes of it here; nothing where that is not known.
    pub content: Option<Content>,
}

/// Tells if a node can run an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It can.
    Own,
    /// It cannot, for this reason.
    Foreign(String),
    /// Nobody tells: the pull will.
    Unknown,
}

impl Description {
    /// Returns the compressed size; 0 where it is not known.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.content.as_ref().map_or(0, Content::bytes)
    }

    const fn without_content(fit: Fit) -> Self {
        Self { fit, content: None }
    }
}

/// The node as far as it decides what it can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// The platforms that containerd takes here.
    pub platforms: PlatformMatcher,
    /// True where CRI unpacks into Nydus' snapshotter.
    pub has_nydus: bool,
}

impl Runner {
    /// Takes this machine, with the snapshotter that CRI unpacks into.
    #[must_use]
    pub fn here(snapshotter: &str) -> Self {
        Self {
            platforms: PlatformMatcher::of_this_machine(),
            has_nydus: snapshotter == "nydus",
        }
    }

    /// Tells whether a node can run what a manifest describes, as far as that manifest tells.
    fn fit(&self, content: &Content) -> Option<String> {
        match &content.runtime {
            Runtime::Nydus if !self.has_nydus => {
                Some("it is Nydus' own format, for which this node has no snapshotter".to_owned())
            }
            Runtime::Any | Runtime::Nydus => None,
            Runtime::None(why) => Some(why.clone()),
        }
    }
}

/// Tells how an index led to a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// None did: the image is a manifest.
    Straight,
    /// By the platform that it tells.
    ByPlatform,
    /// Without a platform.
    Untold,
}

/// Describes an image by its digest, asking for its manifests one after the other: at most four, and a configuration where
/// no index told the platform. They come from a registry or from containerd, verified and at most
/// [`prefetch::manifest::MAX_BYTES`] long.
///
/// # Errors
/// The first manifest that cannot be read.
pub async fn describe<E>(
    digest: &str,
    node: &Runner,
    read: impl AsyncFn(DocumentKind, String) -> Result<Vec<u8>, E>,
) -> Result<Description, E> {
    let mut digest = digest.to_owned();
    let mut path = Path::Straight;
    for _ in 0..=MAX_DEPTH {
        let index = match Manifest::parse(&read(DocumentKind::Manifest, digest.clone()).await?) {
            Ok(Manifest::Image(content)) => return Ok(describe_manifest(content, path, node, read).await),
            Ok(Manifest::Index(index)) => index,
            Err(error) => return Ok(Description::without_content(unreadable(&error))),
        };
        let Some(entry) = index.entry_for(&node.platforms) else {
            let architecture = node.platforms.architecture();
            let fit = Fit::Foreign(format!("it has none for linux/{architecture}"));
            return Ok(Description::without_content(fit));
        };
        path = if entry.platform.is_some() {
            Path::ByPlatform
        } else {
            Path::Untold
        };
        digest.clone_from(&entry.digest);
    }
    Ok(Description::without_content(Fit::Unknown))
}

fn unreadable(error: &ManifestError) -> Fit {
    match error {
        ManifestError::Shape(_) => Fit::Foreign("it is no image that a node can run: its manifest is none".to_owned()),
        ManifestError::TooLong(_) => Fit::Unknown,
    }
}

async fn describe_manifest<E>(
    content: Content,
    path: Path,
    node: &Runner,
    read: impl AsyncFn(DocumentKind, String) -> Result<Vec<u8>, E>,
) -> Description {
    let fit = match node.fit(&content) {
        Some(why) => Fit::Foreign(why),
        None if path == Path::ByPlatform => Fit::Own,
        None if content.config.is_empty() => Fit::Unknown,
        // What cannot be read leaves it to the pull, which reads it too.
        None => match read(DocumentKind::Blob, content.config.clone()).await {
            Ok(text) => fit_by_configuration(&text, path, node),
            Err(_) => Fit::Unknown,
        },
    };
    Description {
        fit,
        content: Some(content),
    }
}

fn fit_by_configuration(text: &[u8], path: Path, node: &Runner) -> Fit {
    let Some(platform) = Configuration::parse(text).ok().and_then(|read| read.platform) else {
        return Fit::Unknown;
    };
    let is_own = match path {
        Path::Straight => node.platforms.runs(&platform),
        Path::ByPlatform | Path::Untold => node.platforms.rank(&platform).is_some(),
    };
    if is_own {
        Fit::Own
    } else {
        Fit::Foreign(format!(
            "it is for {platform}, this node for linux/{}",
            node.platforms.architecture()
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, future::Future, pin::pin, task};

    use serde_json::{Value, json};

    use super::*;

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn manifest(layer: &str) -> Value {
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest('c'), "size": 7});
        json!({"config": config, "layers": [{"mediaType": layer, "digest": digest('a'), "size": 100}]})
    }

    fn config(architecture: &str, variant: &str) -> Value {
        json!({"os": "linux", "architecture": architecture, "variant": variant, "rootfs": {"diff_ids": []}})
    }

    /// Describes the image of digest 1, by documents of which each has a digit for its digest.
    fn described(documents: &[(char, Value)]) -> Result<Description, String> {
        let documents: HashMap<String, String> = documents
            .iter()
            .map(|(digit, text)| (digest(*digit), text.to_string()))
            .collect();
        let node = Runner {
            platforms: PlatformMatcher::linux("amd64"),
            has_nydus: false,
        };
        let read = async |_: DocumentKind, digest: String| {
            let text = documents.get(&digest).ok_or_else(|| digest.clone())?;
            Ok::<_, String>(text.clone().into_bytes())
        };
        let start = digest('1');
        let mut future = pin!(describe(&start, &node, read));
        match future
            .as_mut()
            .poll(&mut task::Context::from_waker(task::Waker::noop()))
        {
            task::Poll::Ready(description) => description,
            task::Poll::Pending => panic!("nothing here waits"),
        }
    }

    fn fit(documents: &[(char, Value)]) -> Fit {
        described(documents).unwrap().fit
    }

    fn index(entry: char, platform: &Value) -> Value {
        json!({"manifests": [{"digest": digest(entry), "platform": platform}]})
    }

    #[test]
    fn an_index_leads_to_the_nodes_own_manifest() {
        let amd64 = json!({"os": "linux", "architecture": "amd64"});
        let own = described(&[('1', index('2', &amd64)), ('2', manifest(TAR))]).unwrap();
        assert_eq!((own.fit.clone(), own.bytes()), (Fit::Own, 107));
        let nested = [
            ('1', index('2', &amd64)),
            ('2', index('3', &amd64)),
            ('3', manifest(TAR)),
        ];
        assert_eq!(described(&nested).unwrap(), own);
        let arm64 = json!({"os": "linux", "architecture": "arm64"});
        assert_eq!(
            fit(&[('1', index('2', &arm64))]),
            Fit::Foreign("it has none for linux/amd64".to_owned())
        );
    }

    #[test]
    fn indexes_that_lead_on_for_ever_are_left_to_the_pull() {
        assert_eq!(fit(&[('1', index('1', &json!(null)))]), Fit::Unknown);
    }

    #[test]
    fn a_configuration_tells_the_platform_where_no_index_does() {
        let straight = |config: Value| fit(&[('1', manifest(TAR)), ('c', config)]);
        assert_eq!(straight(config("x86_64", "")), Fit::Own);
        assert_eq!(straight(config("amd64", "v3")), Fit::Own);
        assert_eq!(
            straight(config("arm64", "v8")),
            Fit::Foreign("it is for linux/arm64, this node for linux/amd64".to_owned())
        );
        assert_eq!(straight(json!({})), Fit::Unknown);
        let untold = |config: Value| fit(&[('1', index('2', &json!(null))), ('2', manifest(TAR)), ('c', config)]);
        assert_eq!(untold(config("amd64", "")), Fit::Own);
        assert!(matches!(untold(config("amd64", "v3")), Fit::Foreign(_)));
        assert_eq!(fit(&[('1', manifest(TAR))]), Fit::Unknown);
    }

    #[test]
    fn what_is_no_image_is_told_before_a_byte_is_pulled() {
        for document in [
            json!("<html>"),
            json!({}),
            manifest("application/vnd.in-toto+json"),
            manifest("application/vnd.oci.image.layer.nydus.blob.v1"),
        ] {
            assert!(matches!(fit(&[('1', document.clone())]), Fit::Foreign(_)), "{document}");
        }
    }

    #[test]
    fn a_manifest_that_is_not_there_is_an_error() {
        assert_eq!(described(&[]), Err(digest('1')));
        let amd64 = json!({"os": "linux", "architecture": "amd64"});
        assert_eq!(described(&[('1', index('2', &amd64))]), Err(digest('2')));
    }
}

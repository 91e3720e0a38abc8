//! The kind of what a digest stands for: an image, or an artifact that no node can run or mount.

use prefetch::{
    manifest::{Manifest, Runtime},
    outcome::NodeReason,
};

use crate::failure::Failure;

/// Bounds the manifests that are asked for until one is an image's.
const MAX_MANIFESTS: usize = 8;

/// Tells why no node can run or mount what a digest stands for; none where some node can, whatever its platform, or where
/// that is not told: then the pull will tell.
///
/// # Errors
/// That the manifest itself cannot be had.
pub(super) async fn why_no_image(
    digest: &str,
    read: impl AsyncFn(String) -> Result<Vec<u8>, Failure>,
) -> Result<Option<String>, Failure> {
    let mut why = "it is no image that a node can run: its index leads to none".to_owned();
    let mut left = vec![digest.to_owned()];
    for number in 0..MAX_MANIFESTS {
        let Some(digest) = left.pop() else {
            return Ok(Some(why));
        };
        let manifest = match read(digest).await {
            Ok(text) => Manifest::parse(&text),
            Err(failure) if number == 0 => return Err(failure),
            // An index may name manifests that nobody has pushed.
            Err(failure) if failure.reason == NodeReason::NotFound => continue,
            Err(_) => return Ok(None),
        };
        match manifest {
            Ok(Manifest::Index(index)) => left.extend(index.entries.into_iter().rev().map(|entry| entry.digest)),
            Ok(Manifest::Image(content)) => match content.runtime {
                Runtime::Any | Runtime::Nydus => return Ok(None),
                Runtime::None(reason) => why = reason,
            },
            Err(_) => "it is no image that a node can run: its manifest is none".clone_into(&mut why),
        }
    }
    Ok(left.is_empty().then_some(why))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::{Value, json};

    use super::*;

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const IMAGE: &str = "application/vnd.oci.image.config.v1+json";

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn manifest(config: &str, layer: &str) -> Value {
        json!({
            "config": {"mediaType": config, "digest": digest('c'), "size": 7},
            "layers": [{"mediaType": layer, "digest": digest('a'), "size": 100}],
        })
    }

    fn index(entries: &[char]) -> Value {
        let entries: Vec<_> = entries.iter().map(|entry| json!({"digest": digest(*entry)})).collect();
        json!({ "manifests": entries })
    }

    /// Asks about the digest of ones, by documents of which each has a digit for its digest; others are not found, and the
    /// digest of nines is denied.
    async fn asked(documents: &[(char, Value)]) -> Result<Option<String>, NodeReason> {
        let documents: HashMap<String, String> = documents
            .iter()
            .map(|(digit, text)| (digest(*digit), text.to_string()))
            .collect();
        let read = async |wanted: String| {
            let reason = if wanted == digest('9') {
                NodeReason::Denied
            } else {
                NodeReason::NotFound
            };
            let text = documents.get(&wanted).ok_or_else(|| Failure::new(reason, ""))?;
            Ok(text.clone().into_bytes())
        };
        why_no_image(&digest('1'), read).await.map_err(|failure| failure.reason)
    }

    #[tokio::test]
    async fn images_are_accepted_for_whatever_platform() {
        let image = manifest(IMAGE, TAR);
        let other = json!({"digest": digest('2'), "platform": {"os": "windows", "architecture": "riscv64"}});
        let nydus = manifest(IMAGE, "application/vnd.oci.image.layer.nydus.blob.v1");
        let mut data = image.clone();
        data["artifactType"] = json!("application/vnd.example.data");
        for documents in [
            vec![('1', image.clone())],
            vec![('1', data)],
            vec![('1', nydus)],
            vec![('1', json!({"manifests": [other]})), ('2', image.clone())],
            vec![('1', index(&['3', '2'])), ('2', index(&['4'])), ('4', image.clone())],
            vec![
                ('1', index(&['3', '2'])),
                ('2', image.clone()),
                ('3', manifest("x", TAR)),
            ],
        ] {
            assert_eq!(asked(&documents).await, Ok(None), "{documents:?}");
        }
    }

    #[tokio::test]
    async fn what_leads_to_no_image_is_told_with_what_it_is() {
        let chart = manifest("application/vnd.cncf.helm.config.v1+json", "application/x");
        let referrer = json!({"digest": digest('2'), "artifactType": "application/x"});
        for (documents, words) in [
            (
                vec![('1', chart.clone())],
                "its configuration is application/vnd.cncf.helm",
            ),
            (
                vec![('1', manifest(IMAGE, "application/vnd.in-toto+json"))],
                "its layers are application/vnd.in-toto",
            ),
            (vec![('1', index(&['2'])), ('2', chart.clone())], "vnd.cncf.helm"),
            (
                vec![('1', index(&['3'])), ('3', index(&['2'])), ('2', chart)],
                "vnd.cncf.helm",
            ),
            (vec![('1', index(&[]))], "leads to none"),
            (vec![('1', index(&['2']))], "leads to none"),
            (vec![('1', json!({"manifests": [referrer]}))], "leads to none"),
            (vec![('1', json!([]))], "its manifest is none"),
        ] {
            let why = asked(&documents).await.unwrap().expect("no image");
            assert!(
                why.starts_with("it is no image that a node can run") && why.contains(words),
                "{why}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_not_told_is_left_to_the_pull() {
        assert_eq!(asked(&[]).await, Err(NodeReason::NotFound));
        assert_eq!(asked(&[('1', index(&['9']))]).await, Ok(None));
        let endless = [('1', index(&['1', '1']))];
        assert_eq!(asked(&endless).await, Ok(None));
    }
}

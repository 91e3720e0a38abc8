//! Contents: the layers of images on each architecture, as ECR tells.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_ecr::{
    Client,
    types::{ImageFailure, ImageIdentifier},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use prefetch::{
    bake::Architecture,
    image::{Image, MANIFEST_MEDIA_TYPES},
    manifest::{Content, Entry, Index, MAX_DEPTH, Manifest, PlatformMatcher},
};

use crate::error::AwsError;

/// Bounds the manifests of one BatchGetImage (ECR service model, `imageIds`).
const MAX_IDS: usize = 100;
/// Bounds the questions that are put to ECR at once.
const AT_ONCE: usize = 16;

/// A repository and a digest in it.
type Key = (String, String);

/// The manifests of images.
pub struct Contents(HashMap<Key, Manifest>);

impl Contents {
    /// Reads the manifests of images, and of indexes those for these architectures.
    ///
    /// Asks once for each 100 images of a repository, and once more for each 100 images that indexes lead to.
    ///
    /// # Errors
    /// [`AwsError`] where ECR does not give one of them.
    pub async fn read(
        client: &Client,
        images: impl Iterator<Item = &Image>,
        architectures: &[Architecture],
    ) -> Result<Self, AwsError> {
        let mut manifests = HashMap::new();
        let mut wanted: BTreeSet<Key> = images.map(key).collect();
        for _ in 0..=MAX_DEPTH {
            let read = manifests_of(client, &wanted).await?;
            wanted = read
                .iter()
                .flat_map(|((repository, _), manifest)| led_to(repository, manifest, architectures))
                .collect();
            manifests.extend(read);
            wanted.retain(|key| !manifests.contains_key(key));
        }
        Ok(Self(manifests))
    }

    /// Tells what an image is made of on an architecture; nothing where it is an index that has none for it.
    ///
    /// An image without an index may be for any architecture: its manifest does not tell.
    pub fn of(&self, image: &Image, architecture: Architecture) -> Option<&Content> {
        let (repository, mut digest) = key(image);
        for _ in 0..=MAX_DEPTH {
            match self.0.get(&(repository.clone(), digest.clone()))? {
                Manifest::Image(content) => return Some(content),
                Manifest::Index(index) => digest.clone_from(&entry_for(index, architecture)?.digest),
            }
        }
        None
    }
}

fn key(image: &Image) -> Key {
    (image.repository().to_owned(), image.digest().to_owned())
}

/// Names the manifests for these architectures that a manifest leads to.
fn led_to<'a>(
    repository: &'a str,
    manifest: &'a Manifest,
    architectures: &'a [Architecture],
) -> impl Iterator<Item = Key> + 'a {
    let index = match manifest {
        Manifest::Index(index) => Some(index),
        Manifest::Image(_) => None,
    };
    let entries = architectures
        .iter()
        .filter_map(move |architecture| entry_for(index?, *architecture));
    entries.map(|entry| (repository.to_owned(), entry.digest.clone()))
}

/// Picks what a node of an architecture takes of an index.
fn entry_for(index: &Index, architecture: Architecture) -> Option<&Entry> {
    index.entry_for(&PlatformMatcher::linux(&architecture.to_string()))
}

async fn manifests_of(client: &Client, wanted: &BTreeSet<Key>) -> Result<HashMap<Key, Manifest>, AwsError> {
    let mut digests_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (repository, digest) in wanted {
        digests_of.entry(repository).or_default().push(digest);
    }
    let questions: Vec<(&str, &[&str])> = digests_of
        .iter()
        .flat_map(|(repository, digests)| digests.chunks(MAX_IDS).map(|digests| (*repository, digests)))
        .collect();
    let answers = stream::iter(questions).map(async |(repository, digests)| get(client, repository, digests).await);
    let answers: Vec<Vec<(Key, Manifest)>> = answers.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn get(client: &Client, repository: &str, digests: &[&str]) -> Result<Vec<(Key, Manifest)>, AwsError> {
    let ids = digests
        .iter()
        .map(|digest| ImageIdentifier::builder().image_digest(*digest).build());
    let answer = client
        .batch_get_image()
        .repository_name(repository)
        .set_image_ids(Some(ids.collect()))
        .set_accepted_media_types(Some(MANIFEST_MEDIA_TYPES.map(str::to_owned).to_vec()))
        .send()
        .await
        .map_err(|error| AwsError::Manifests(repository.to_owned(), Box::new(error)))?;
    let mut texts: HashMap<&str, &str> = HashMap::new();
    for image in answer.images() {
        if let (Some(id), Some(text)) = (image.image_id(), image.image_manifest()) {
            texts.insert(id.image_digest().unwrap_or_default(), text);
        }
    }
    let manifest = |digest: &&str| {
        let name = format!("{repository}@{digest}");
        let text = texts.get(digest);
        let text = text.ok_or_else(|| AwsError::Manifest(name.clone(), failure(answer.failures(), digest)))?;
        let manifest = Manifest::parse(text.as_bytes()).map_err(|error| AwsError::Malformed(name.clone(), error))?;
        Ok(((repository.to_owned(), (*digest).to_owned()), manifest))
    };
    digests.iter().map(manifest).collect()
}

/// Tells why ECR did not give a manifest.
fn failure(failures: &[ImageFailure], digest: &str) -> String {
    let is_it = |id: &ImageIdentifier| id.image_digest() == Some(digest);
    let failure = failures.iter().find(|failure| failure.image_id().is_some_and(is_it));
    let code = failure.and_then(|failure| failure.failure_code());
    code.map_or("ECR does not say why", |code| code.as_str()).to_owned()
}

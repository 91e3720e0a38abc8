//! Contents: the layers of images on each architecture, as ECR tells.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aws_sdk_ecr::{
    error::SdkError,
    operation::batch_get_image::{BatchGetImageError, BatchGetImageOutput},
    types::{ImageFailure, ImageFailureCode, ImageIdentifier},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use prefetch::{
    bake::Architecture,
    ecr::{Registries, Registry},
    image::{Image, MANIFEST_MEDIA_TYPES},
    manifest::{Content, Entry, Index, MAX_DEPTH, Manifest, PlatformMatcher},
};

use crate::{error::AwsError, wanted::Wanted};

/// Bounds the manifests of one BatchGetImage (ECR service model, `imageIds`).
const MAX_IDS: usize = 100;
/// Bounds the questions that are put to ECR at once.
const AT_ONCE: usize = 16;

/// Says in ECR's words that an image is there no more.
const NOT_THERE: &str = "ImageNotFound";

/// A repository, by its registry's host name and its own.
type Repository = (String, String);
/// A repository and a digest in it.
type Key = (Repository, String);

/// The manifests of images.
pub struct Contents(HashMap<Key, Manifest>);

impl Contents {
    /// Reads the manifests of images that ECR is asked for, and of indexes those for these architectures.
    ///
    /// Asks once for each 100 images of a repository, and once more for each 100 images that indexes lead to. What ECR has no
    /// more is left out, unless it is needed.
    ///
    /// # Errors
    /// [`AwsError`] where ECR does not give one of them.
    pub async fn read(
        registries: &Registries,
        wanted: &[Wanted],
        architectures: &[Architecture],
    ) -> Result<Self, AwsError> {
        let mut manifests = HashMap::new();
        let needed = wanted.iter().filter(|wanted| wanted.is_needed());
        let mut needed: HashSet<Key> = needed.map(|wanted| key(&wanted.image)).collect();
        let asked = wanted.iter().filter(|wanted| wanted.is_told_by_ecr());
        let mut asked: BTreeSet<Key> = asked.map(|wanted| key(&wanted.image)).collect();
        for _ in 0..=MAX_DEPTH {
            let read = manifests_of(registries, &asked, &needed).await?;
            asked.clear();
            for (key, manifest) in &read {
                let children: Vec<Key> = led_to(&key.0, manifest, architectures).collect();
                if needed.contains(key) {
                    needed.extend(children.iter().cloned());
                }
                asked.extend(children);
            }
            manifests.extend(read);
            asked.retain(|key| !manifests.contains_key(key));
        }
        Ok(Self(manifests))
    }

    /// Returns true where ECR has an image.
    pub fn has(&self, image: &Image) -> bool {
        self.0.contains_key(&key(image))
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
    let repository = (image.registry().to_owned(), image.repository().to_owned());
    (repository, image.digest().to_owned())
}

/// Names the manifests for these architectures that a manifest leads to.
fn led_to<'a>(
    repository: &'a Repository,
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
    entries.map(|entry| (repository.clone(), entry.digest.clone()))
}

/// Picks what a node of an architecture takes of an index.
fn entry_for(index: &Index, architecture: Architecture) -> Option<&Entry> {
    index.entry_for(&PlatformMatcher::linux(&architecture.to_string()))
}

async fn manifests_of(
    registries: &Registries,
    wanted: &BTreeSet<Key>,
    needed: &HashSet<Key>,
) -> Result<HashMap<Key, Manifest>, AwsError> {
    let mut digests_of: BTreeMap<&Repository, Vec<&str>> = BTreeMap::new();
    for (repository, digest) in wanted {
        digests_of.entry(repository).or_default().push(digest);
    }
    let questions: Vec<(&Repository, &[&str])> = digests_of
        .iter()
        .flat_map(|(repository, digests)| digests.chunks(MAX_IDS).map(|digests| (*repository, digests)))
        .collect();
    let answers = stream::iter(questions).map(async |(repository, digests)| {
        let registry = registries.of_host(&repository.0).unwrap_or(registries.own());
        get(registry, repository, digests, needed).await
    });
    let answers: Vec<Vec<(Key, Manifest)>> = answers.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn get(
    registry: &Registry,
    repository: &Repository,
    digests: &[&str],
    needed: &HashSet<Key>,
) -> Result<Vec<(Key, Manifest)>, AwsError> {
    let key = |digest: &str| (repository.clone(), digest.to_owned());
    let (_, name) = repository;
    let answer = match ask(registry, name, digests).await {
        Err(error) if is_no_repository(&error) && !digests.iter().any(|digest| needed.contains(&key(digest))) => {
            return Ok(Vec::new());
        }
        answer => answer.map_err(|error| AwsError::Manifests(name.clone(), Box::new(error)))?,
    };
    let mut read = Vec::with_capacity(digests.len());
    for digest in digests {
        match manifest(&answer, name, digest)? {
            Some(manifest) => read.push((key(digest), manifest)),
            None if needed.contains(&key(digest)) => {
                let name = format!("{name}@{digest}");
                return Err(AwsError::Manifest(name, NOT_THERE.to_owned()));
            }
            None => {}
        }
    }
    Ok(read)
}

async fn ask(
    registry: &Registry,
    repository: &str,
    digests: &[&str],
) -> Result<BatchGetImageOutput, SdkError<BatchGetImageError>> {
    let ids = digests
        .iter()
        .map(|digest| ImageIdentifier::builder().image_digest(*digest).build());
    registry
        .batch_get_image(repository)
        .set_image_ids(Some(ids.collect()))
        .set_accepted_media_types(Some(MANIFEST_MEDIA_TYPES.map(str::to_owned).to_vec()))
        .send()
        .await
}

/// Finds a manifest in an answer of ECR's; none where ECR has it no more.
fn manifest(answer: &BatchGetImageOutput, repository: &str, digest: &str) -> Result<Option<Manifest>, AwsError> {
    let name = || format!("{repository}@{digest}");
    let is_it = |id: Option<&ImageIdentifier>| id.and_then(ImageIdentifier::image_digest) == Some(digest);
    let image = answer.images().iter().find(|image| is_it(image.image_id()));
    if let Some(text) = image.and_then(|image| image.image_manifest()) {
        let manifest = Manifest::parse(text.as_bytes());
        return manifest.map(Some).map_err(|error| AwsError::Malformed(name(), error));
    }
    let failure = answer.failures().iter().find(|failure| is_it(failure.image_id()));
    match failure.and_then(ImageFailure::failure_code) {
        Some(ImageFailureCode::ImageNotFound) => Ok(None),
        code => {
            let why = code.map_or("ECR does not say why", ImageFailureCode::as_str);
            Err(AwsError::Manifest(name(), why.to_owned()))
        }
    }
}

fn is_no_repository(error: &SdkError<BatchGetImageError>) -> bool {
    let refused = error.as_service_error();
    refused.is_some_and(BatchGetImageError::is_repository_not_found_exception)
}

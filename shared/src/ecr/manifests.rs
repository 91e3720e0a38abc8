//! Describes what ECR tells of single images: their details and their manifests.

use std::collections::HashMap;

use aws_sdk_ecr::{
    error::SdkError,
    operation::batch_get_image::{BatchGetImageError, BatchGetImageOutput},
    types::{ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier},
};
use tracing::warn;

use super::{
    error::ImagesError,
    registries::{Registry, is_denied},
};
use crate::{
    error_text::error_text,
    image::{MANIFEST_MEDIA_TYPES, is_image},
};

/// Limits how many images one BatchGetImage is asked for (ECR service model, `imageIds`).
pub(super) const MAX_IDS: usize = 100;

/// Holds what a manifest tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    /// It is an image's.
    Image,
    /// It was read, and leads to no image.
    Other,
    /// ECR does not give it, for this reason: a node may fare better.
    Unread(String),
}

impl ManifestKind {
    /// Returns true unless it was read and leads to no image.
    #[must_use]
    pub fn may_run(&self) -> bool {
        *self != Self::Other
    }
}

/// Says that a manifest cannot be read, so that it is taken for an image's.
pub fn warn_unread(repository: &str, why: &str) {
    warn!(
        repository.name = repository,
        "manifests of repository {repository} cannot be read, and are taken for images': {why}"
    );
}

/// Asks ECR of an image by its digest; none where it is not there. Of one in the archive ECR may tell that it is.
///
/// # Errors
/// [`ImagesError::Images`] where ECR cannot be asked.
pub async fn image_detail(
    registry: &Registry,
    repository: &str,
    digest: &str,
) -> Result<Option<ImageDetail>, ImagesError> {
    let id = ImageIdentifier::builder().image_digest(digest).build();
    match registry.describe_images(repository).image_ids(id).send().await {
        Ok(answer) => Ok(answer.image_details.into_iter().flatten().next()),
        Err(SdkError::ServiceError(refused))
            if refused.err().is_image_not_found_exception() || refused.err().is_repository_not_found_exception() =>
        {
            Ok(None)
        }
        Err(error) => Err(ImagesError::Images(repository.to_owned(), Box::new(error))),
    }
}

/// Asks ECR for at most 100 manifests, of indexes or of images that may be a build cache's; those that are not there are left
/// out.
///
/// # Errors
/// [`ImagesError::Manifests`] where ECR does not answer for now. What it refuses to give is [`ManifestKind::Unread`].
pub async fn manifests(
    registry: &Registry,
    repository: &str,
    digests: &[String],
) -> Result<HashMap<String, ManifestKind>, ImagesError> {
    let id = |digest: &String| ImageIdentifier::builder().image_digest(digest).build();
    let answer = registry
        .batch_get_image(repository)
        .set_image_ids(Some(digests.iter().map(id).collect()))
        .set_accepted_media_types(Some(MANIFEST_MEDIA_TYPES.map(str::to_owned).to_vec()))
        .send()
        .await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(SdkError::ServiceError(refused)) if refused.err().is_repository_not_found_exception() => {
            return Ok(HashMap::new());
        }
        Err(SdkError::ServiceError(refused)) if is_refusal(refused.err()) => {
            let why = ManifestKind::Unread(error_text(refused.err()));
            return Ok(digests.iter().map(|digest| (digest.clone(), why.clone())).collect());
        }
        Err(error) => return Err(ImagesError::Manifests(repository.to_owned(), Box::new(error))),
    };
    Ok(told(&answer))
}

/// Reads what an answer tells of each manifest.
fn told(answer: &BatchGetImageOutput) -> HashMap<String, ManifestKind> {
    let read = answer.images().iter().filter_map(|image| {
        let digest = image.image_id()?.image_digest()?.to_owned();
        let is_image = is_image(image.image_manifest()?);
        Some((
            digest,
            if is_image {
                ManifestKind::Image
            } else {
                ManifestKind::Other
            },
        ))
    });
    let is_there = |failure: &&ImageFailure| failure.failure_code() != Some(&ImageFailureCode::ImageNotFound);
    let unread = answer.failures().iter().filter(is_there).filter_map(|failure| {
        let code = failure.failure_code().map_or("no code", ImageFailureCode::as_str);
        let why = format!("{code}: {}", failure.failure_reason().unwrap_or("ECR does not say why"));
        Some((
            failure.image_id()?.image_digest()?.to_owned(),
            ManifestKind::Unread(why),
        ))
    });
    read.chain(unread).collect()
}

/// Returns true where a retry would be answered the same: a policy does not let the function read, or the registry from
/// which ECR would fetch does not give it.
fn is_refusal(error: &BatchGetImageError) -> bool {
    error.is_unable_to_get_upstream_image_exception() || is_denied(error)
}

//! Resolving: what the images asked for are, by digest.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecr::{
    Client,
    error::{BuildError, SdkError},
    operation::describe_images::DescribeImagesError,
    types::{DescribeImagesFilter, ImageDetail, ImageIdentifier, ImageStatus, ImageStatusFilter},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use thiserror::Error;

use crate::{
    fields::FieldError,
    image::{Image, ImageError, Kind, not_an_image_tag},
    requested_image::RequestedImage,
};

/// Limits how many images one DescribeImages is asked for (ECR service model, `imageIds`).
const MAX_IDS: usize = 100;
/// Limits how many questions are put to ECR at once.
const AT_ONCE: usize = 16;

/// Tells why it cannot be told what images are.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// Some of them are not there, or nothing that a node can run.
    #[error("images are not accepted")]
    NotAccepted(Vec<FieldError>),
    /// ECR could not be asked.
    #[error("the images of repository {0} could not be described")]
    Images(String, #[source] Box<SdkError<DescribeImagesError>>),
    /// ECR's answer names no usable image.
    #[error("an image of repository {0} cannot be named")]
    Image(String, #[source] ImageError),
    /// The request could not be built.
    #[error("the request to ECR could not be built")]
    Request(#[from] BuildError),
}

/// A tag or a digest.
type Id<'a> = (Option<&'a str>, Option<&'a str>);
/// Holds what ECR knows of the images of a repository; none where it knows no such repository.
type Known = Option<Vec<ImageDetail>>;

/// Tells what each of these images is, in their order; one of another registry is what it says it is.
///
/// One DescribeImages for each repository; where it misses an image, one more for each of the repository's, and another for
/// those that are missing still: it may be archived.
///
/// # Errors
/// [`ResolveError::NotAccepted`] with every image, by its place in `images`, that is not there or that no node can run;
/// another where ECR cannot be asked.
pub async fn resolve(client: &Client, registry: &str, images: &[RequestedImage]) -> Result<Vec<Image>, ResolveError> {
    let known = known(client, images).await?;
    let mut resolved = Vec::with_capacity(images.len());
    let mut errors = Vec::new();
    for (place, image) in images.iter().enumerate() {
        let digest = match (&image.registry, image.digest.as_deref()) {
            (Some(_), Some(digest)) => Ok(digest),
            _ => digest(image, known.get(&image.repository).and_then(Option::as_deref)),
        };
        match digest {
            Ok(digest) => {
                let registry = image.registry.as_deref().unwrap_or(registry);
                let named = Image::new(registry, &image.repository, image.tag.as_deref(), digest);
                resolved.push(named.map_err(|error| ResolveError::Image(image.repository.clone(), error))?);
            }
            Err(accepted) => {
                let asked = Value::String(image.reference.clone());
                errors.push(FieldError::new(format!("images[{place}]"), Some(asked), accepted));
            }
        }
    }
    if errors.is_empty() {
        Ok(resolved)
    } else {
        Err(ResolveError::NotAccepted(errors))
    }
}

/// Picks the image's digest out of what ECR knows of its repository; the error tells what is accepted.
fn digest<'a>(image: &RequestedImage, known: Option<&'a [ImageDetail]>) -> Result<&'a str, String> {
    let known = known.ok_or("an image of a repository that exists")?;
    let is_it = |detail: &&ImageDetail| {
        let has_tag = |tag: &String| detail.image_tags().contains(tag);
        let has_digest = |digest: &String| detail.image_digest() == Some(digest.as_str());
        image.tag.as_ref().is_none_or(has_tag) && image.digest.as_ref().is_none_or(has_digest)
    };
    let detail = known
        .iter()
        .find(is_it)
        .ok_or_else(|| match (&image.tag, &image.digest) {
            (Some(tag), Some(_)) => format!("an image that exists, with its tag: {tag} is not there, or is another's"),
            _ => "an image that exists".to_owned(),
        })?;
    match detail.image_status() {
        Some(ImageStatus::Archived) => {
            return Err("an image that can be pulled: it is archived, restore it first".to_owned());
        }
        Some(ImageStatus::Activating) => {
            return Err("an image that can be pulled: it is being restored, ask again once it is".to_owned());
        }
        _ => {}
    }
    if let Some(why) = image.tag.as_deref().and_then(not_an_image_tag) {
        return Err(format!("an image that a node can run: {why}"));
    }
    match Kind::of(detail.image_manifest_media_type(), detail.artifact_media_type()) {
        Kind::Other(why) => Err(format!("an image that a node can run: {why}")),
        _ => detail.image_digest().ok_or_else(|| "an image with a digest".to_owned()),
    }
}

/// Asks ECR for the images, by repository.
async fn known(client: &Client, images: &[RequestedImage]) -> Result<BTreeMap<String, Known>, ResolveError> {
    // An image that is asked for by both is looked up by its digest: its tag may be another's by now.
    let mut ids_of: BTreeMap<&str, BTreeSet<Id>> = BTreeMap::new();
    for image in images.iter().filter(|image| image.registry.is_none()) {
        let id = match image.digest.as_deref() {
            Some(digest) => (None, Some(digest)),
            None => (image.tag.as_deref(), None),
        };
        ids_of.entry(&image.repository).or_default().insert(id);
    }
    let mut questions = Vec::new();
    for (repository, ids) in ids_of {
        let ids = ids.into_iter().map(|(tag, digest)| {
            let id = ImageIdentifier::builder();
            id.set_image_tag(tag.map(str::to_owned))
                .set_image_digest(digest.map(str::to_owned))
                .build()
        });
        questions.push((repository, ids.collect::<Vec<_>>()));
    }
    let answers = stream::iter(questions).map(async |(repository, ids)| {
        let known = of_repository(client, repository, &ids).await?;
        Ok((repository.to_owned(), known))
    });
    answers.buffer_unordered(AT_ONCE).try_collect().await
}

/// Asks for images of one repository; where some are not there ECR answers for none, so that each is asked for alone. Those
/// that are missing still may be archived: without a filter ECR answers of active ones only.
async fn of_repository(client: &Client, repository: &str, ids: &[ImageIdentifier]) -> Result<Known, ResolveError> {
    let mut known = Vec::new();
    for ids in ids.chunks(MAX_IDS) {
        let mut found = match describe(client, repository, ids, None).await? {
            Described::Images(images) => images,
            Described::NoRepository => return Ok(None),
            Described::Missing => each_alone(client, repository, ids.iter(), None).await?,
        };
        let missing: Vec<&ImageIdentifier> = ids
            .iter()
            .filter(|id| !found.iter().any(|image| is(image, id)))
            .collect();
        found.extend(each_alone(client, repository, missing.into_iter(), Some(ImageStatusFilter::Any)).await?);
        known.extend(found);
    }
    Ok(Some(known))
}

fn is(image: &ImageDetail, id: &ImageIdentifier) -> bool {
    let has_tag = |tag| image.image_tags().iter().any(|known| known == tag);
    id.image_tag().is_none_or(has_tag)
        && id
            .image_digest()
            .is_none_or(|digest| image.image_digest() == Some(digest))
}

/// Asks for images one by one; those that are not there are left out.
async fn each_alone(
    client: &Client,
    repository: &str,
    ids: impl Iterator<Item = &ImageIdentifier>,
    status: Option<ImageStatusFilter>,
) -> Result<Vec<ImageDetail>, ResolveError> {
    let described = stream::iter(ids).map(|id| describe(client, repository, std::slice::from_ref(id), status.clone()));
    let described: Vec<Described> = described.buffer_unordered(AT_ONCE).try_collect().await?;
    let images = described.into_iter().flat_map(|described| match described {
        Described::Images(images) => images,
        Described::NoRepository | Described::Missing => Vec::new(),
    });
    Ok(images.collect())
}

enum Described {
    Images(Vec<ImageDetail>),
    /// One of the images is not there.
    Missing,
    /// The repository is not there.
    NoRepository,
}

async fn describe(
    client: &Client,
    repository: &str,
    ids: &[ImageIdentifier],
    status: Option<ImageStatusFilter>,
) -> Result<Described, ResolveError> {
    let filter = status.map(|status| DescribeImagesFilter::builder().image_status(status).build());
    let request = client.describe_images().repository_name(repository).set_filter(filter);
    match request.set_image_ids(Some(ids.to_vec())).send().await {
        Ok(answer) => Ok(Described::Images(answer.image_details.unwrap_or_default())),
        Err(SdkError::ServiceError(refused)) if refused.err().is_repository_not_found_exception() => {
            Ok(Described::NoRepository)
        }
        // What ECR calls invalid, such as a repository of one letter, cannot be there.
        Err(SdkError::ServiceError(refused))
            if refused.err().is_image_not_found_exception() || refused.err().is_invalid_parameter_exception() =>
        {
            Ok(Described::Missing)
        }
        Err(error) => Err(ResolveError::Images(repository.to_owned(), Box::new(error))),
    }
}

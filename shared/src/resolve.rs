//! Resolving: what the images asked for are, by digest.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecr::{
    Client,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::describe_images::DescribeImagesError,
    types::{DescribeImagesFilter, ImageDetail, ImageIdentifier, ImageStatus, ImageStatusFilter},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use thiserror::Error;

use crate::{
    fields::FieldError,
    image::{Image, Kind, TaggedImage, not_an_image_tag},
    outcome::is_retryable,
    requested_image::{Registry, RequestedImage},
    tag_line::TagFailure,
    tags::ResolvedTags,
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
    /// No node has said anything of some tag.
    #[error("no node has told in time what {0} is")]
    Untold(TaggedImage),
    /// The registry could not be asked what a tag is.
    #[error("a node could not tell what {0} is: {1}")]
    Tag(TaggedImage, TagFailure),
    /// The request could not be built.
    #[error("the request to ECR could not be built")]
    Request(#[from] BuildError),
}

/// A tag or a digest.
type Id<'a> = (Option<&'a str>, Option<&'a str>);
/// Holds what ECR knows of the images of a repository; none where it knows no such repository.
type Known = Option<Vec<ImageDetail>>;

/// Images that were looked up in this account's ECR: each is known to be its, or another registry's.
#[derive(Debug)]
pub struct LookedUp {
    /// The images, in the order in which they were requested.
    pub images: Vec<RequestedImage>,
    known: BTreeMap<String, Known>,
}

/// Looks images up in this account's ECR, but for those of other registries; one that names no registry is Docker Hub's where
/// ECR has no such repository.
///
/// One DescribeImages for each repository; where it misses an image, one more for each of the repository's, and another for
/// those that are missing still: it may be archived.
///
/// # Errors
/// [`ResolveError`] where ECR cannot be asked.
pub async fn look_up(client: &Client, images: &[RequestedImage]) -> Result<LookedUp, ResolveError> {
    let known = known(client, images).await?;
    let is_elsewhere = |image: &RequestedImage| {
        image.registry == Registry::Unnamed && known.get(&image.repository).is_some_and(Option::is_none)
    };
    let images = images.iter().cloned().map(|image| {
        if is_elsewhere(&image) {
            image.on_docker_hub()
        } else {
            image
        }
    });
    Ok(LookedUp {
        images: images.collect(),
        known,
    })
}

impl LookedUp {
    /// Names the tags of other registries that only a node can resolve.
    #[must_use]
    pub fn unresolved_tags(&self) -> BTreeSet<TaggedImage> {
        let tags = self.images.iter().filter_map(RequestedImage::unresolved_tag);
        tags.collect()
    }

    /// Tells what each image is, in their order; `registry` is the host name of this account's, and one of another registry is
    /// what its digest says, or `tags`.
    ///
    /// # Errors
    /// [`ResolveError::Untold`] and [`ResolveError::Tag`] where no node answered, or a registry, and another time may; else
    /// [`ResolveError::NotAccepted`] with every image, by its place, that is not there or that no node can run.
    pub fn resolve(&self, registry: &str, tags: &ResolvedTags) -> Result<Vec<Image>, ResolveError> {
        for (tag, failure) in tags.iter().filter_map(|(tag, told)| Some((tag, told.as_ref().err()?))) {
            if is_retryable(&failure.reason) {
                return Err(ResolveError::Tag(tag.clone(), failure.clone()));
            }
        }
        if let Some(untold) = self.unresolved_tags().into_iter().find(|tag| !tags.contains_key(tag)) {
            return Err(ResolveError::Untold(untold));
        }
        let mut resolved = Vec::with_capacity(self.images.len());
        let mut errors = Vec::new();
        for (place, (image, told)) in self.images.iter().zip(self.each(registry, tags)).enumerate() {
            match told {
                Ok(image) => resolved.push(image),
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

    /// Tells of each image, in their order, what it is, or what is accepted in its place.
    pub fn each(&self, registry: &str, tags: &ResolvedTags) -> impl Iterator<Item = Result<Image, String>> {
        self.images.iter().map(move |image| {
            let digest = self.digest(image, tags)?;
            let registry = match &image.registry {
                Registry::Other(host) => host,
                Registry::Own | Registry::Unnamed => registry,
            };
            let named = Image::new(registry, &image.repository, image.tag.as_deref(), digest);
            named.map_err(|error| error.to_string())
        })
    }

    /// Tells an image's digest; the error tells what is accepted.
    fn digest<'a>(&'a self, image: &'a RequestedImage, tags: &'a ResolvedTags) -> Result<&'a str, String> {
        match (&image.registry, &image.digest) {
            (Registry::Other(_), Some(digest)) => Ok(digest),
            (Registry::Other(_), None) => {
                let tag = image.unresolved_tag().ok_or("an image by its digest")?;
                match tags.get(&tag) {
                    Some(Ok(digest)) => Ok(digest),
                    Some(Err(failure)) if image.names_registry() => {
                        Err(format!("an image that a node can pull: {failure}"))
                    }
                    Some(Err(failure)) => Err(format!(
                        "an image of a repository that exists, or one that a node can pull: {tag}: {failure}"
                    )),
                    None => Err("an image by its digest: no node has told what its tag is".to_owned()),
                }
            }
            (Registry::Own | Registry::Unnamed, _) => {
                digest(image, self.known.get(&image.repository).and_then(Option::as_deref))
            }
        }
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
    for image in images
        .iter()
        .filter(|image| !matches!(image.registry, Registry::Other(_)))
    {
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
            if refused.err().is_image_not_found_exception() || is_invalid(refused.err()) =>
        {
            Ok(Described::Missing)
        }
        Err(error) => Err(ResolveError::Images(repository.to_owned(), Box::new(error))),
    }
}

/// Returns true where ECR calls a name invalid, by its own code or by the one that services answer with for any constraint.
fn is_invalid(error: &DescribeImagesError) -> bool {
    error.is_invalid_parameter_exception() || error.code() == Some("ValidationException")
}

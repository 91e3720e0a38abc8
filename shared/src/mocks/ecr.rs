//! The private registry of an account, as ECR answers of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use aws_sdk_ecr::{
    Client,
    config::retry::RetryConfig,
    operation::{
        batch_get_image::{BatchGetImageError, BatchGetImageInput, BatchGetImageOutput},
        describe_images::{DescribeImagesError, DescribeImagesInput, DescribeImagesOutput},
        describe_repositories::{DescribeRepositoriesError, DescribeRepositoriesOutput},
    },
    primitives::DateTime,
    types::{
        Image as Manifest, ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier, ImageStatus,
        ImageStatusFilter, Repository,
        error::{ImageNotFoundException, RepositoryNotFoundException, UnableToGetUpstreamImageException},
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

use super::Calls;
use crate::fault;

/// The media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an image's configuration.
pub const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a Helm chart's configuration.
pub const CHART: &str = "application/vnd.cncf.helm.config.v1+json";

/// The registry of an account.
#[derive(Debug, Default)]
pub struct Registry {
    /// The account as which it has to be asked; where there is none it is the caller's own, and none may be named.
    pub account: Option<String>,
    /// The images of each repository, in the order in which ECR lists them.
    pub repositories: BTreeMap<String, Vec<RegistryImage>>,
    /// The texts of manifests, by digest.
    pub manifests: BTreeMap<String, String>,
    /// Tells how many images a page has at most.
    pub page: Option<usize>,
    /// Is true where ECR leaves out what is not there, where others answer with an error.
    pub leaves_out: bool,
    /// The repositories whose images a policy does not let the function see.
    pub unreadable: BTreeSet<String>,
    /// Says why ECR gives no manifest.
    pub refusal: Option<ImageFailureCode>,
    /// The number of manifests of each BatchGetImage.
    pub batches: Vec<usize>,
}

/// An image of a repository.
#[derive(Clone, Debug)]
pub struct RegistryImage {
    /// Its digest.
    pub digest: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Tells when it was pushed, in seconds of Unix time.
    pub pushed_at: i64,
    /// The media type of its manifest.
    pub manifest: Option<&'static str>,
    /// The media type of its configuration.
    pub artifact: Option<&'static str>,
    /// Tells whether it is in the archive.
    pub status: ImageStatus,
}

impl RegistryImage {
    /// Makes an image that every node can run.
    #[must_use]
    pub fn new<T: ToString>(digest: &str, tags: &[T], pushed_at: i64) -> Self {
        Self {
            digest: digest.to_owned(),
            tags: tags.iter().map(ToString::to_string).collect(),
            pushed_at,
            manifest: Some(MANIFEST),
            artifact: Some(CONFIGURATION),
            status: ImageStatus::Active,
        }
    }

    fn is(&self, id: &ImageIdentifier) -> bool {
        id.image_digest().is_none_or(|digest| digest == self.digest)
            && id
                .image_tag()
                .is_none_or(|tag| self.tags.iter().any(|known| known == tag))
    }

    fn detail(&self, account: Option<&str>) -> ImageDetail {
        ImageDetail::builder()
            .registry_id(account.unwrap_or("123456789012"))
            .image_status(self.status.clone())
            .image_digest(&self.digest)
            .set_image_tags(Some(self.tags.clone()))
            .image_pushed_at(DateTime::from_secs(self.pushed_at))
            .set_image_manifest_media_type(self.manifest.map(str::to_owned))
            .set_artifact_media_type(self.artifact.map(str::to_owned))
            .build()
    }
}

type Described = MockResponse<DescribeImagesOutput, DescribeImagesError>;

impl Registry {
    fn describe_images(&self, input: &DescribeImagesInput) -> Described {
        assert_eq!(input.registry_id(), self.account.as_deref());
        let name = input.repository_name().unwrap();
        if self.unreadable.contains(name) {
            return fault!(aws_sdk_ecr, DescribeImagesError, "AccessDeniedException");
        }
        let Some(images) = self.repositories.get(name) else {
            let missing = RepositoryNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::RepositoryNotFoundException(missing));
        };
        let status = input.filter().and_then(|filter| filter.image_status());
        let is_any = status == Some(&ImageStatusFilter::Any);
        let is_told = |image: &&RegistryImage| is_any || image.status == ImageStatus::Active;
        let images: Vec<&RegistryImage> = images.iter().filter(is_told).collect();
        match input.image_ids.as_deref() {
            Some(ids) => self.named(&images, ids),
            None => self.listed(&images, input),
        }
    }

    fn named(&self, images: &[&RegistryImage], ids: &[ImageIdentifier]) -> Described {
        assert!((1..=100).contains(&ids.len()));
        let found = ids.iter().filter_map(|id| images.iter().find(|image| image.is(id)));
        let found: Vec<ImageDetail> = found.map(|image| image.detail(self.account.as_deref())).collect();
        if found.len() < ids.len() && !self.leaves_out {
            let missing = ImageNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::ImageNotFoundException(missing));
        }
        MockResponse::Output(DescribeImagesOutput::builder().set_image_details(Some(found)).build())
    }

    fn listed(&self, images: &[&RegistryImage], input: &DescribeImagesInput) -> Described {
        let start: usize = input.next_token().map_or(0, |token| token.parse().unwrap());
        let end = self.page.map_or(images.len(), |page| images.len().min(start + page));
        let details = images[start..end].iter();
        let details = details.map(|image| image.detail(self.account.as_deref())).collect();
        let answer = DescribeImagesOutput::builder()
            .set_image_details(Some(details))
            .set_next_token((end < images.len()).then(|| end.to_string()));
        MockResponse::Output(answer.build())
    }

    fn batch_get_image(&mut self, input: &BatchGetImageInput) -> BatchGetImageOutput {
        assert_eq!(input.registry_id(), self.account.as_deref());
        assert!((1..=100).contains(&input.image_ids().len()));
        assert_eq!(input.accepted_media_types().len(), 4);
        self.batches.push(input.image_ids().len());
        let mut answer = BatchGetImageOutput::builder();
        for id in input.image_ids() {
            let manifest = self.manifests.get(id.image_digest().unwrap());
            answer = if let (Some(text), None) = (manifest, &self.refusal) {
                answer.images(Manifest::builder().image_id(id.clone()).image_manifest(text).build())
            } else {
                let code = self.refusal.clone().unwrap_or(ImageFailureCode::ImageNotFound);
                answer.failures(ImageFailure::builder().image_id(id.clone()).failure_code(code).build())
            };
        }
        answer.build()
    }

    fn describe_repositories(&self) -> DescribeRepositoriesOutput {
        assert_eq!(self.account, None, "ECR lists no other account's repositories");
        let repository = |name: &String| Repository::builder().repository_name(name).build();
        let repositories = self.repositories.keys().map(repository).collect();
        DescribeRepositoriesOutput::builder()
            .set_repositories(Some(repositories))
            .build()
    }
}

/// Returns a client of the registry that is part of a test's state, as are the calls.
pub fn ecr<S: Send + 'static>(state: &Arc<Mutex<S>>, parts: fn(&mut S) -> (&mut Calls, &mut Registry)) -> Client {
    let shared = Arc::clone(state);
    let images = mock!(Client::describe_images).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, registry) = parts(&mut state);
        match calls.note("DescribeImages") {
            Some(code) => fault!(aws_sdk_ecr, DescribeImagesError, code),
            None => registry.describe_images(input),
        }
    });
    let shared = Arc::clone(state);
    let manifests = mock!(Client::batch_get_image).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, registry) = parts(&mut state);
        match calls.note("BatchGetImage") {
            Some("UnableToGetUpstreamImageException") => {
                let error = UnableToGetUpstreamImageException::builder().build();
                MockResponse::Error(BatchGetImageError::UnableToGetUpstreamImageException(error))
            }
            Some(code) => fault!(aws_sdk_ecr, BatchGetImageError, code),
            None => MockResponse::Output(registry.batch_get_image(input)),
        }
    });
    let shared = Arc::clone(state);
    let repositories = mock!(Client::describe_repositories).then_compute_response(move |_| {
        let mut state = shared.lock().unwrap();
        let (calls, registry) = parts(&mut state);
        match calls.note("DescribeRepositories") {
            Some(code) => fault!(aws_sdk_ecr, DescribeRepositoriesError, code),
            None => MockResponse::Output(registry.describe_repositories()),
        }
    });
    mock_client!(
        aws_sdk_ecr,
        RuleMode::MatchAny,
        [&images, &manifests, &repositories],
        |config| { config.retry_config(RetryConfig::disabled()) }
    )
}

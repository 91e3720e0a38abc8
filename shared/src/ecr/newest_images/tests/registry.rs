//! A registry, as ECR answers of it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::{
    Client,
    config::retry::RetryConfig,
    operation::{
        batch_get_image::{BatchGetImageError, BatchGetImageOutput},
        describe_images::{DescribeImagesError, DescribeImagesInput, DescribeImagesOutput},
        describe_repositories::DescribeRepositoriesOutput,
    },
    primitives::DateTime,
    types::{
        Image as Manifest, ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier, ImageStatusFilter, Repository,
        TagStatus,
        error::{RepositoryNotFoundException, UnableToGetUpstreamImageException},
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

use crate::{
    ecr::{ImagesError, Newest, NewestImages},
    fault,
    image::Image,
    rule::Rule,
    settings::Settings,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";

/// Holds what ECR refuses to give: all manifests by an error's code, or each by a failure's.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    All(&'static str),
    One(ImageFailureCode),
}

/// An image: its digest's number, the hour of its push, its tags, and its manifest where it is asked for.
pub(super) type RegistryImage = (usize, i64, &'static [&'static str], Option<&'static str>);

/// The newest images of rules, and the rules.
pub(super) struct Rules(pub(super) NewestImages, pub(super) Vec<Rule>);

impl Rules {
    pub(super) fn rule(&self, name: &str) -> &Rule {
        self.1.iter().find(|rule| rule.name == name).unwrap()
    }

    pub(super) async fn whole(&self, rule: &str) -> Result<Vec<Image>, ImagesError> {
        self.0.of_rule(self.rule(rule), SystemTime::UNIX_EPOCH).await
    }

    pub(super) async fn known(&self, rule: &str, seconds: u64) -> Newest {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        self.0.known_of_rule(self.rule(rule), now).await.unwrap()
    }
}

/// Holds what ECR answers.
pub(super) struct State {
    pub(super) repositories: Vec<String>,
    pub(super) images: Vec<RegistryImage>,
    pub(super) calls: Vec<&'static str>,
    pub(super) described: usize,
    pub(super) refusal: Option<Refusal>,
    /// Tells how many images a page has.
    pub(super) page: usize,
    /// Tells whether the DescribeImages with this number is throttled.
    pub(super) throttled: fn(usize) -> bool,
}

/// A registry in which each repository has the same images.
pub(super) struct Registry(Arc<Mutex<State>>);

impl Registry {
    pub(super) fn of(images: &[RegistryImage]) -> Self {
        Self(Arc::new(Mutex::new(State {
            repositories: vec!["app".to_owned()],
            images: images.to_vec(),
            calls: Vec::new(),
            described: 0,
            refusal: None,
            page: 1000,
            throttled: |_| false,
        })))
    }

    pub(super) fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.lock().unwrap())
    }

    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.state(|state| std::mem::take(&mut state.calls))
    }

    pub(super) fn newest(&self, rules: &str) -> Rules {
        let settings = Settings::read(|name| {
            Some(match name {
                "MODE" => "send".to_owned(),
                "RULES" => rules.to_owned(),
                "REGISTRY_ENDPOINT" => return None,
                "CLUSTER_NAME" | "CLUSTER_TAG_KEY" | "DOCUMENT_NAME" => "prod".to_owned(),
                "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85".to_owned(),
                "MAX_PARALLEL_IMAGE_PULLS" => "2".to_owned(),
                "MAX_CONNECTIONS" => "3".to_owned(),
                "LAUNCH_MAX_CONNECTIONS" => "20".to_owned(),
                "MAX_BANDWIDTH_MIB" => "0".to_owned(),
                _ => "600".to_owned(),
            })
        });
        let settings = settings.unwrap();
        let newest = NewestImages::with_client(self.client(), "eu-central-1".to_owned(), &settings);
        Rules(newest, settings.rules)
    }

    pub(super) fn client(&self) -> Client {
        let shared = Arc::clone(&self.0);
        let repositories = mock!(Client::describe_repositories).then_output(move || {
            let mut state = shared.lock().unwrap();
            state.calls.push("DescribeRepositories");
            let named = |name: &String| Repository::builder().repository_name(name).build();
            DescribeRepositoriesOutput::builder()
                .set_repositories(Some(state.repositories.iter().map(named).collect()))
                .build()
        });
        let shared = Arc::clone(&self.0);
        let images = mock!(Client::describe_images)
            .then_compute_response(move |input| described(&mut shared.lock().unwrap(), input));
        let shared = Arc::clone(&self.0);
        let manifests = mock!(Client::batch_get_image).then_compute_response(move |input| {
            let mut state = shared.lock().unwrap();
            state.calls.push("BatchGetImage");
            match &state.refusal {
                Some(Refusal::All("UnableToGetUpstreamImageException")) => {
                    let error = UnableToGetUpstreamImageException::builder().build();
                    return MockResponse::Error(BatchGetImageError::UnableToGetUpstreamImageException(error));
                }
                Some(Refusal::All(code)) => return fault!(aws_sdk_ecr, BatchGetImageError, *code),
                Some(Refusal::One(code)) => {
                    let failure = |id: &ImageIdentifier| {
                        ImageFailure::builder()
                            .image_id(id.clone())
                            .failure_code(code.clone())
                            .build()
                    };
                    let failures = input.image_ids().iter().map(failure).collect();
                    let answer = BatchGetImageOutput::builder().set_failures(Some(failures));
                    return MockResponse::Output(answer.build());
                }
                None => {}
            }
            let manifest = |id: &ImageIdentifier| {
                let of = |(number, ..): &&RegistryImage| id.image_digest() == Some(&digest(*number));
                let text = state.images.iter().find(of).and_then(|told| told.3).unwrap();
                Manifest::builder().image_id(id.clone()).image_manifest(text).build()
            };
            let images = input.image_ids().iter().map(manifest).collect();
            MockResponse::Output(BatchGetImageOutput::builder().set_images(Some(images)).build())
        });
        mock_client!(
            aws_sdk_ecr,
            RuleMode::MatchAny,
            [&repositories, &images, &manifests],
            |config| config.retry_config(RetryConfig::disabled())
        )
    }
}

pub(super) fn described(
    state: &mut State,
    input: &DescribeImagesInput,
) -> MockResponse<DescribeImagesOutput, DescribeImagesError> {
    let filter = input.filter().unwrap();
    assert_eq!(filter.image_status(), Some(&ImageStatusFilter::Active));
    assert_eq!(filter.tag_status(), Some(&TagStatus::Tagged));
    state.calls.push("DescribeImages");
    state.described += 1;
    if (state.throttled)(state.described - 1) {
        return fault!(aws_sdk_ecr, DescribeImagesError, "ThrottlingException");
    }
    if !state
        .repositories
        .iter()
        .any(|name| Some(name.as_str()) == input.repository_name())
    {
        let missing = RepositoryNotFoundException::builder().build();
        return MockResponse::Error(DescribeImagesError::RepositoryNotFoundException(missing));
    }
    let start: usize = input.next_token().map_or(0, |token| token.parse().unwrap());
    let end = state.images.len().min(start + state.page);
    let next = (end < state.images.len()).then(|| end.to_string());
    let details = state.images[start..end].iter().map(|(number, hour, tags, index)| {
        let (manifest, artifact) = match index {
            Some(text) if text.contains("manifests") => (INDEX, None),
            _ => (MANIFEST, Some(CONFIGURATION.to_owned())),
        };
        ImageDetail::builder()
            .registry_id("123456789012")
            .image_digest(digest(*number))
            .set_image_tags(Some(tags.iter().map(ToString::to_string).collect()))
            .image_pushed_at(DateTime::from_secs(hour * 3600))
            .image_manifest_media_type(manifest)
            .set_artifact_media_type(artifact)
            .build()
    });
    MockResponse::Output(
        DescribeImagesOutput::builder()
            .set_image_details(Some(details.collect()))
            .set_next_token(next)
            .build(),
    )
}

pub(super) fn digest(number: usize) -> String {
    format!("sha256:{number:064}")
}

/// Names as `repository:tag`.
pub(super) fn names(images: &[Image]) -> Vec<String> {
    images
        .iter()
        .map(|image| format!("{}:{}", image.repository(), image.tag().unwrap()))
        .collect()
}

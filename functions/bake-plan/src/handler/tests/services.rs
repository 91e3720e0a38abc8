//! EC2 and ECR, faked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_ec2::{
    operation::{
        describe_instances::{DescribeInstancesError, DescribeInstancesOutput},
        describe_subnets::{DescribeSubnetsError, DescribeSubnetsOutput},
    },
    types::{Instance, Reservation, Subnet},
};
use aws_sdk_ecr::{
    operation::{
        batch_get_image::{BatchGetImageError, BatchGetImageOutput},
        describe_images::{DescribeImagesError, DescribeImagesOutput},
        describe_repositories::DescribeRepositoriesOutput,
    },
    types::{
        Image as EcrImage, ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier, Repository,
        error::{ImageNotFoundException, RepositoryNotFoundException},
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use serde_json::Value;

/// Holds what the services know, and the calls to them.
#[derive(Default)]
pub struct Services {
    pub instances: Vec<Instance>,
    /// The images of each repository, oldest first: digest and tags.
    pub repositories: BTreeMap<String, Vec<(String, Vec<String>)>>,
    pub manifests: BTreeMap<String, Value>,
    pub calls: Vec<&'static str>,
    /// The number of manifests of each BatchGetImage.
    pub batches: Vec<usize>,
    /// The call that is throttled.
    pub fault: Option<&'static str>,
}

impl Services {
    pub fn call(&mut self, name: &'static str) -> bool {
        self.calls.push(name);
        self.fault == Some(name)
    }
}

macro_rules! throttled {
    ($service:ident, $error:ident) => {
        MockResponse::Error($error::generic(
            $service::error::ErrorMetadata::builder()
                .code("Throttled")
                .message("Rate exceeded")
                .build(),
        ))
    };
}

pub fn ec2(state: &Arc<Mutex<Services>>) -> aws_sdk_ec2::Client {
    let shared = Arc::clone(state);
    let instances = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if state.call("DescribeInstances") {
            return throttled!(aws_sdk_ec2, DescribeInstancesError);
        }
        let filters = input.filters().iter();
        let filters: Vec<String> = filters
            .map(|filter| format!("{}={}", filter.name().unwrap(), filter.values().join(",")))
            .collect();
        assert_eq!(
            filters,
            ["tag:aws:eks:cluster-name=prod", "instance-state-name=running"]
        );
        let from: usize = input.next_token().map_or(0, |token| token.parse().unwrap());
        let page = state.instances.iter().skip(from).take(2).cloned().collect();
        let reservation = Reservation::builder().set_instances(Some(page)).build();
        let output = DescribeInstancesOutput::builder()
            .reservations(reservation)
            .set_next_token((from + 2 < state.instances.len()).then(|| (from + 2).to_string()));
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let subnets = mock!(aws_sdk_ec2::Client::describe_subnets).then_compute_response(move |input| {
        if shared.lock().unwrap().call("DescribeSubnets") {
            return throttled!(aws_sdk_ec2, DescribeSubnetsError);
        }
        assert_eq!(input.filters()[0].name(), Some("subnet-id"));
        let known = [(1, false), (2, true), (4, false), (5, true)];
        let known = known.map(|(k, public)| (format!("subnet-0abc000000000000{k}"), public));
        let named = known.iter().filter(|(id, _)| input.filters()[0].values().contains(id));
        let subnets = named.map(|(id, public)| {
            let subnet = Subnet::builder().subnet_id(id).map_public_ip_on_launch(*public);
            subnet.available_ip_address_count(250).build()
        });
        let output = DescribeSubnetsOutput::builder().set_subnets(Some(subnets.collect()));
        MockResponse::Output(output.build())
    });
    mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&instances, &subnets], |config| {
        config.retry_config(aws_sdk_ec2::config::retry::RetryConfig::disabled())
    })
}

pub fn ecr(state: &Arc<Mutex<Services>>) -> aws_sdk_ecr::Client {
    let shared = Arc::clone(state);
    let images = mock!(aws_sdk_ecr::Client::describe_images).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if state.call("DescribeImages") {
            return throttled!(aws_sdk_ecr, DescribeImagesError);
        }
        let Some(images) = state.repositories.get(input.repository_name().unwrap()) else {
            let missing = RepositoryNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::RepositoryNotFoundException(missing));
        };
        let ids = input.image_ids();
        let is_named = |digest: &String, tags: &[String]| {
            let is_it = |id: &ImageIdentifier| {
                id.image_digest() == Some(digest) || id.image_tag().is_some_and(|tag| tags.contains(&tag.to_owned()))
            };
            ids.is_empty() || ids.iter().any(is_it)
        };
        let found = images
            .iter()
            .enumerate()
            .filter(|(_, (digest, tags))| is_named(digest, tags));
        let found: Vec<ImageDetail> = found.map(|(at, (digest, tags))| detail(at, digest, tags)).collect();
        if found.len() < ids.len() {
            let missing = ImageNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::ImageNotFoundException(missing));
        }
        MockResponse::Output(DescribeImagesOutput::builder().set_image_details(Some(found)).build())
    });
    let shared = Arc::clone(state);
    let repositories = mock!(aws_sdk_ecr::Client::describe_repositories).then_compute_response(move |_| {
        let mut state = shared.lock().unwrap();
        state.call("DescribeRepositories");
        let repository = |name: &String| Repository::builder().repository_name(name).build();
        let repositories = state.repositories.keys().map(repository).collect();
        let output = DescribeRepositoriesOutput::builder().set_repositories(Some(repositories));
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let manifests = mock!(aws_sdk_ecr::Client::batch_get_image).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if state.call("BatchGetImage") {
            return throttled!(aws_sdk_ecr, BatchGetImageError);
        }
        assert!((1..=100).contains(&input.image_ids().len()));
        assert_eq!(input.accepted_media_types().len(), 4);
        state.batches.push(input.image_ids().len());
        let mut output = BatchGetImageOutput::builder();
        for id in input.image_ids() {
            output = if let Some(manifest) = state.manifests.get(id.image_digest().unwrap()) {
                let image = EcrImage::builder().image_id(id.clone());
                output.images(image.image_manifest(manifest.to_string()).build())
            } else {
                let failure = ImageFailure::builder().image_id(id.clone());
                output.failures(failure.failure_code(ImageFailureCode::ImageNotFound).build())
            };
        }
        MockResponse::Output(output.build())
    });
    mock_client!(
        aws_sdk_ecr,
        RuleMode::MatchAny,
        [&images, &repositories, &manifests],
        |config| { config.retry_config(aws_sdk_ecr::config::retry::RetryConfig::disabled()) }
    )
}

pub fn detail(at: usize, digest: &str, tags: &[String]) -> ImageDetail {
    let pushed_at = aws_sdk_ecr::primitives::DateTime::from_secs(i64::try_from(at).unwrap());
    ImageDetail::builder()
        .registry_id("123456789012")
        .image_digest(digest)
        .set_image_tags(Some(tags.to_vec()))
        .image_pushed_at(pushed_at)
        .build()
}

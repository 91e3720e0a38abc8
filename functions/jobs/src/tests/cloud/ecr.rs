//! ECR, as far as the function speaks to it.

use std::sync::{Arc, Mutex};

use aws_sdk_ecr::{
    Client,
    operation::{
        describe_images::{DescribeImagesError, DescribeImagesOutput},
        describe_repositories::DescribeRepositoriesOutput,
    },
    types::{
        ImageDetail, ImageStatus, ImageStatusFilter, Repository,
        error::{ImageNotFoundException, RepositoryNotFoundException},
    },
};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use prefetch::fault;

use crate::tests::cloud::state::{State, digest};

pub fn ecr(state: &Arc<Mutex<State>>) -> Client {
    mock_client!(
        aws_sdk_ecr,
        RuleMode::MatchAny,
        [&describe_images(state), &describe_repositories(state)],
        |config| { config.retry_config(aws_sdk_ecr::config::retry::RetryConfig::disabled()) }
    )
}

fn describe_images(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ecr::Client::describe_images).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("DescribeImages") {
            return fault!(aws_sdk_ecr, DescribeImagesError, code);
        }
        let Some(tags) = state.repositories.get(input.repository_name().unwrap()) else {
            let missing = RepositoryNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::RepositoryNotFoundException(missing));
        };
        let details = tags.iter().enumerate().map(|(place, tag)| detail(&state, place, tag));
        let Some(ids) = input.image_ids.as_ref() else {
            let details = details.collect();
            return MockResponse::Output(DescribeImagesOutput::builder().set_image_details(Some(details)).build());
        };
        assert!((1..=100).contains(&ids.len()) && input.max_results().is_none());
        let is_any = input.filter().and_then(|filter| filter.image_status()) == Some(&ImageStatusFilter::Any);
        let details: Vec<ImageDetail> = details
            .filter(|detail| is_any || detail.image_status() == Some(&ImageStatus::Active))
            .collect();
        let found = ids.iter().filter_map(|id| {
            details.iter().find(|detail| {
                id.image_tag().is_none_or(|tag| detail.image_tags()[0] == tag)
                    && id
                        .image_digest()
                        .is_none_or(|digest| detail.image_digest() == Some(digest))
            })
        });
        let found: Vec<ImageDetail> = found.cloned().collect();
        if found.len() < ids.len() && !state.leaves_out {
            let missing = ImageNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::ImageNotFoundException(missing));
        }
        MockResponse::Output(DescribeImagesOutput::builder().set_image_details(Some(found)).build())
    })
}

fn describe_repositories(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ecr::Client::describe_repositories).then_compute_response(move |_| {
        let mut state = shared.lock().unwrap();
        state.calls.note("DescribeRepositories");
        let repository = |name: &String| Repository::builder().repository_name(name).build();
        let repositories = state.repositories.keys().map(repository).collect();
        MockResponse::Output(
            DescribeRepositoriesOutput::builder()
                .set_repositories(Some(repositories))
                .build(),
        )
    })
}

/// Describes an image as ECR does, by its tags with a space between them.
fn detail(state: &State, place: usize, tags: &str) -> ImageDetail {
    let tag = tags.split(' ').next().unwrap();
    let artifact = if state.charts.contains(tag) {
        "application/vnd.cncf.helm.config.v1+json"
    } else {
        "application/vnd.oci.image.config.v1+json"
    };
    let status = if state.archived.contains(tag) {
        ImageStatus::Archived
    } else {
        ImageStatus::Active
    };
    ImageDetail::builder()
        .registry_id("123456789012")
        .image_status(status)
        .image_digest(digest(tag))
        .set_image_tags(Some(tags.split(' ').map(str::to_owned).collect()))
        .image_pushed_at(aws_sdk_ecr::primitives::DateTime::from_secs(
            i64::try_from(place).unwrap(),
        ))
        .image_manifest_media_type("application/vnd.oci.image.manifest.v1+json")
        .artifact_media_type(artifact)
        .build()
}

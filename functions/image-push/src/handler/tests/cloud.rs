//! The function with the services around it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::{
    operation::{
        batch_get_image::{BatchGetImageError, BatchGetImageOutput},
        describe_images::{DescribeImagesError, DescribeImagesOutput},
    },
    types::{
        Image as Manifest, ImageDetail, ImageFailure, ImageFailureCode, ImageStatus, error::ImageNotFoundException,
    },
};
use aws_sdk_ssm::{
    Client,
    operation::send_command::{SendCommandInput, SendCommandOutput},
    types::Command,
};
use aws_smithy_mocks::{MockResponse, Rule as Mock, RuleMode, mock, mock_client};
use prefetch::{ecr::NewestImages, fault, mocks::Calls, sender::Sender, settings::Settings};
use serde_json::Value;

use crate::handler::{ImagePush, PushError};

pub const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
pub const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

pub fn sending(expected: impl Fn(&SendCommandInput) -> bool + Send + Sync + 'static) -> Mock {
    mock!(Client::send_command).match_requests(expected).then_output(|| {
        let command = Command::builder().command_id("command-1").build();
        SendCommandOutput::builder().command(command).build()
    })
}

pub async fn answer(sends: &Mock, rules: &str, event: &str) -> Result<Value, PushError> {
    answer_with(sends, &Registry::default(), &settings(rules), event).await
}

pub async fn answer_with(
    sends: &Mock,
    registry: &Registry,
    settings: &Settings,
    event: &str,
) -> Result<Value, PushError> {
    let sender = Sender::sending(mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [sends]));
    let event = serde_json::from_str(event).unwrap();
    let decision = image_push(sender, registry, settings).handle(event, now()).await?;
    Ok(serde_json::to_value(decision).unwrap())
}

pub fn image_push(sender: Sender, registry: &Registry, settings: &Settings) -> ImagePush {
    let ecr = registry.client();
    ImagePush {
        sender,
        images: NewestImages::with_client(ecr.clone(), "eu-central-1".to_owned(), settings),
        ecr,
        boot: None,
        settings: settings.clone(),
    }
}

/// Holds what ECR says of every digest, and the calls to it.
#[derive(Clone)]
pub struct Registry {
    pub manifest: &'static str,
    pub artifact: Option<&'static str>,
    pub tags: Vec<String>,
    pub status: ImageStatus,
    /// The text of the index.
    pub index: &'static str,
    pub is_there: bool,
    pub calls: Arc<Mutex<Calls>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            manifest: "application/vnd.oci.image.manifest.v1+json",
            artifact: Some("application/vnd.oci.image.config.v1+json"),
            tags: vec!["v1".to_owned()],
            status: ImageStatus::Active,
            index: r#"{"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json"}]}"#,
            is_there: true,
            calls: Arc::default(),
        }
    }
}

impl Registry {
    pub fn client(&self) -> aws_sdk_ecr::Client {
        let registry = self.clone();
        let images = mock!(aws_sdk_ecr::Client::describe_images).then_compute_response(move |input| {
            if let Some(code) = registry.calls.lock().unwrap().note("DescribeImages") {
                return fault!(aws_sdk_ecr, DescribeImagesError, code);
            }
            if !registry.is_there {
                let missing = ImageNotFoundException::builder().build();
                return MockResponse::Error(DescribeImagesError::ImageNotFoundException(missing));
            }
            let detail = ImageDetail::builder()
                .image_digest(input.image_ids()[0].image_digest().unwrap())
                .set_image_tags(Some(registry.tags.clone()))
                .image_status(registry.status.clone())
                .image_manifest_media_type(registry.manifest)
                .set_artifact_media_type(registry.artifact.map(str::to_owned));
            let answer = DescribeImagesOutput::builder().image_details(detail.build());
            MockResponse::Output(answer.build())
        });
        let registry = self.clone();
        let manifests = mock!(aws_sdk_ecr::Client::batch_get_image).then_compute_response(move |input| {
            if let Some(code) = registry.calls.lock().unwrap().note("BatchGetImage") {
                return fault!(aws_sdk_ecr, BatchGetImageError, code);
            }
            let id = input.image_ids()[0].clone();
            let answer = BatchGetImageOutput::builder();
            MockResponse::Output(if registry.is_there {
                let manifest = Manifest::builder().image_id(id).image_manifest(registry.index);
                answer.images(manifest.build()).build()
            } else {
                let failure = ImageFailure::builder()
                    .image_id(id)
                    .failure_code(ImageFailureCode::ImageNotFound);
                answer.failures(failure.build()).build()
            })
        });
        mock_client!(aws_sdk_ecr, RuleMode::MatchAny, [&images, &manifests], |config| {
            config.retry_config(aws_sdk_ecr::config::retry::RetryConfig::disabled())
        })
    }

    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().take()
    }
}

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_794_793_474)
}

pub fn settings(rules: &str) -> Settings {
    Settings::read(|name| {
        Some(match name {
            "MODE" => "send".to_owned(),
            "CLUSTER_NAME" => "prod".to_owned(),
            "CLUSTER_TAG_KEY" => "aws:eks:cluster-name".to_owned(),
            "DOCUMENT_NAME" => "prefetch-images".to_owned(),
            "RULES" => rules.to_owned(),
            "DELIVERY_TIMEOUT_SECONDS" => "600".to_owned(),
            "EXECUTION_TIMEOUT_SECONDS" => "3600".to_owned(),
            "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85".to_owned(),
            "MAX_PARALLEL_IMAGE_PULLS" => "2".to_owned(),
            "MAX_CONNECTIONS" => "3".to_owned(),
            "LAUNCH_MAX_CONNECTIONS" => "20".to_owned(),
            "MAX_BANDWIDTH_MIB" => "0".to_owned(),
            _ => return None,
        })
    })
    .unwrap()
}

use std::sync::{Arc, Mutex};

use aws_sdk_ecr::{
    operation::{
        batch_check_layer_availability::BatchCheckLayerAvailabilityOutput,
        complete_layer_upload::{CompleteLayerUploadError, CompleteLayerUploadOutput},
        initiate_layer_upload::InitiateLayerUploadOutput,
        put_image::{PutImageError, PutImageOutput},
        upload_layer_part::{UploadLayerPartError, UploadLayerPartOutput},
    },
    types::{
        Layer, LayerAvailability,
        error::{ImageAlreadyExistsException, ImageTagAlreadyExistsException, LayerAlreadyExistsException},
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use prefetch::fault;

use super::*;
use crate::programs::Program;

const CREATE: &str = include_str!("../../../../events/node-program.create.json");
const UPDATE: &str = include_str!("../../../../events/node-program.update.json");
const DELETE: &str = include_str!("../../../../events/node-program.delete.json");
const BOTH: [Program; 2] = [
    Program {
        processor: Processor::X86_64,
        content: b"0123456789",
    },
    Program {
        processor: Processor::Arm64,
        content: b"abc",
    },
];

/// ECR with one repository.
#[derive(Clone, Debug, Default)]
struct Ecr {
    calls: Arc<Mutex<Vec<String>>>,
    available: Vec<String>,
    /// Set where what is uploaded or put is there already; it tells how ECR says so of a manifest.
    is_there: Option<There>,
    fails: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum There {
    Image,
    Tag,
}

#[tokio::test]
async fn a_deployment_pushes_both_programs_in_parts_and_tells_the_document_their_digests() {
    for (event, host) in [(CREATE, "ecr"), (UPDATE, "ecr-fips")] {
        let ecr = Ecr::default();
        let artifact = Artifact::of(&BOTH, "0.1.0");
        let request: Value = serde_json::from_str(event).unwrap();
        let expected = json!({
            "Deployment": request["RequestId"],
            "Repository": format!("123456789012.dkr.{host}.eu-west-1.amazonaws.com/prod-nodeprograms"),
            "Tag": artifact.tag,
            "X8664Digest": artifact.program_digest(Processor::X86_64),
            "Arm64Digest": artifact.program_digest(Processor::Arm64),
        });
        assert_eq!(
            decided(event, &BOTH, &ecr).await,
            Decision::Published { attributes: expected }
        );
        let uploaded: Vec<String> = ["0-1", "0-3 4-7 8-9", "0-2"]
            .iter()
            .zip(&artifact.blobs)
            .flat_map(|(parts, blob)| {
                let parts = parts.split(' ').map(|part| format!("part {part}"));
                let end = format!("complete {}", blob.digest);
                ["initiate".to_owned()].into_iter().chain(parts).chain([end])
            })
            .collect();
        let put = format!("put {} {}", artifact.tag, artifact.digest);
        assert_eq!(ecr.calls(), [&["check".to_owned()][..], &uploaded, &[put]].concat());
    }
}

#[tokio::test]
async fn what_the_repository_has_is_not_uploaded_again() {
    let artifact = Artifact::of(&BOTH, "0.1.0");
    for is_there in [There::Image, There::Tag] {
        let ecr = Ecr {
            available: artifact.blobs.iter().map(|blob| blob.digest.clone()).collect(),
            is_there: Some(is_there),
            ..Ecr::default()
        };
        assert!(matches!(decided(UPDATE, &BOTH, &ecr).await, Decision::Published { .. }));
        assert_eq!(
            ecr.calls(),
            ["check".to_owned(), format!("put {} {}", artifact.tag, artifact.digest)]
        );
    }
}

#[tokio::test]
async fn what_another_has_uploaded_meanwhile_is_taken() {
    let ecr = Ecr {
        is_there: Some(There::Tag),
        ..Ecr::default()
    };
    assert!(matches!(decided(CREATE, &BOTH, &ecr).await, Decision::Published { .. }));
}

#[tokio::test]
async fn a_program_that_was_not_built_is_told_by_a_word() {
    let Decision::Published { attributes } = decided(CREATE, &BOTH[..1], &Ecr::default()).await else {
        panic!("one program is enough");
    };
    assert_eq!(attributes["Arm64Digest"], "none");
    assert_ne!(attributes["X8664Digest"], "none");
}

#[tokio::test]
async fn a_deployment_fails_with_the_cause_where_nothing_can_be_published() {
    for call in ["check", "initiate", "part", "complete", "put"] {
        let ecr = Ecr {
            fails: Some(call),
            ..Ecr::default()
        };
        let Decision::Refused { message } = decided(CREATE, &BOTH, &ecr).await else {
            panic!("{call} fails");
        };
        assert!(message.contains("AccessDeniedException"), "{message}");
    }
    let Decision::Refused { message } = decided(CREATE, &[], &Ecr::default()).await else {
        panic!("there is nothing to publish");
    };
    assert!(message.contains("no program was built"), "{message}");
    let mut unset = program(&BOTH, &Ecr::default());
    unset.variable = |_| None;
    let Decision::Refused { message } = unset.decide(&serde_json::from_str(CREATE).unwrap()).await else {
        panic!("nothing says where to");
    };
    assert!(message.contains("REPOSITORY_NAME"), "{message}");
}

#[tokio::test]
async fn a_rollback_does_not_fail_for_what_the_deployment_failed_for() {
    let ecr = Ecr {
        fails: Some("put"),
        ..Ecr::default()
    };
    let update = |before: u8, now: u8| {
        let of = |version| format!("arn:aws:lambda:us-east-1:123456789012:function:prod-NodeProgram-x:{version}");
        let mut request: Value = serde_json::from_str(UPDATE).unwrap();
        request["OldResourceProperties"]["Version"] = of(before).into();
        request["ResourceProperties"]["Version"] = of(now).into();
        request.to_string()
    };
    // The function is version 2.
    for (before, now, is_published) in [(3, 2, true), (1, 2, false), (2, 2, false), (4, 3, false), (2, 1, false)] {
        let decision = decided(&update(before, now), &BOTH, &ecr).await;
        assert_eq!(
            matches!(decision, Decision::Published { .. }),
            is_published,
            "{before} to {now}"
        );
    }
    let created = CREATE.replacen("Create", "Update", 1);
    assert!(matches!(decided(&created, &BOTH, &ecr).await, Decision::Refused { .. }));
}

#[tokio::test]
async fn a_deletion_touches_nothing_and_never_fails() {
    let ecr = Ecr {
        fails: Some("check"),
        ..Ecr::default()
    };
    for programs in [&BOTH[..], &[]] {
        assert_eq!(decided(DELETE, programs, &ecr).await, Decision::Left);
    }
    assert!(ecr.calls().is_empty());
}

#[tokio::test]
async fn what_is_no_request_is_an_error() {
    let program = program(&BOTH, &Ecr::default());
    for event in [json!(null), json!({}), json!({"RequestType": "Create"})] {
        let error = program.handle(event).await.unwrap_err();
        assert!(error.to_string().contains("no request of CloudFormation's"), "{error}");
    }
}

async fn decided(event: &str, programs: &[Program], ecr: &Ecr) -> Decision {
    let request: Request = serde_json::from_str(event).unwrap();
    program(programs, ecr).decide(&request).await
}

fn program(programs: &[Program], ecr: &Ecr) -> NodeProgram {
    NodeProgram {
        answers: Answers::default(),
        artifact: Artifact::of(programs, "0.1.0"),
        ecr: ecr.client(),
        variable: |name| {
            let value = match name {
                "REPOSITORY_NAME" => "prod-nodeprograms",
                "ACCOUNT_ID" => "123456789012",
                "AWS_REGION" => "eu-west-1",
                "AWS_LAMBDA_FUNCTION_VERSION" => "2",
                // What the version's environment still says.
                "REGISTRY_ENDPOINT" => "standard",
                _ => return None,
            };
            Some(value.to_owned())
        },
    }
}

impl Ecr {
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// Notes a call, and tells whether it fails.
    fn note(&self, call: String) -> bool {
        let fails = self.fails.is_some_and(|name| call.starts_with(name));
        self.calls.lock().unwrap().push(call);
        fails
    }

    fn client(&self) -> aws_sdk_ecr::Client {
        let ecr = self.clone();
        let check = mock!(aws_sdk_ecr::Client::batch_check_layer_availability).then_compute_response(move |_| {
            use aws_sdk_ecr::operation::batch_check_layer_availability::BatchCheckLayerAvailabilityError as E;
            if ecr.note("check".to_owned()) {
                return fault!(aws_sdk_ecr, E, "AccessDeniedException");
            }
            let layer = |digest: &String| {
                let layer = Layer::builder().layer_digest(digest);
                layer.layer_availability(LayerAvailability::Available).build()
            };
            let layers = ecr.available.iter().map(layer).collect();
            MockResponse::Output(
                BatchCheckLayerAvailabilityOutput::builder()
                    .set_layers(Some(layers))
                    .build(),
            )
        });
        let ecr = self.clone();
        let initiate = mock!(aws_sdk_ecr::Client::initiate_layer_upload).then_compute_response(move |_| {
            use aws_sdk_ecr::operation::initiate_layer_upload::InitiateLayerUploadError as E;
            if ecr.note("initiate".to_owned()) {
                return fault!(aws_sdk_ecr, E, "AccessDeniedException");
            }
            MockResponse::Output(
                InitiateLayerUploadOutput::builder()
                    .upload_id("upload")
                    .part_size(4)
                    .build(),
            )
        });
        let ecr = self.clone();
        let part = mock!(aws_sdk_ecr::Client::upload_layer_part).then_compute_response(move |input| {
            let (first, last) = (input.part_first_byte().unwrap(), input.part_last_byte().unwrap());
            let size = i64::try_from(input.layer_part_blob().unwrap().as_ref().len()).unwrap();
            assert_eq!(size, last - first + 1);
            if ecr.note(format!("part {first}-{last}")) {
                return fault!(aws_sdk_ecr, UploadLayerPartError, "AccessDeniedException");
            }
            MockResponse::Output(UploadLayerPartOutput::builder().build())
        });
        let ecr = self.clone();
        let complete = mock!(aws_sdk_ecr::Client::complete_layer_upload).then_compute_response(move |input| {
            if ecr.note(format!("complete {}", input.layer_digests()[0])) {
                return fault!(aws_sdk_ecr, CompleteLayerUploadError, "AccessDeniedException");
            }
            if ecr.is_there.is_some() {
                let there = LayerAlreadyExistsException::builder().build();
                return MockResponse::Error(CompleteLayerUploadError::LayerAlreadyExistsException(there));
            }
            MockResponse::Output(CompleteLayerUploadOutput::builder().build())
        });
        let ecr = self.clone();
        let put = mock!(aws_sdk_ecr::Client::put_image).then_compute_response(move |input| {
            assert_eq!(
                input.image_manifest_media_type(),
                Some("application/vnd.oci.image.manifest.v1+json")
            );
            if ecr.note(format!(
                "put {} {}",
                input.image_tag().unwrap(),
                input.image_digest().unwrap()
            )) {
                return fault!(aws_sdk_ecr, PutImageError, "AccessDeniedException");
            }
            let there = match ecr.is_there {
                None => return MockResponse::Output(PutImageOutput::builder().build()),
                Some(There::Image) => {
                    PutImageError::ImageAlreadyExistsException(ImageAlreadyExistsException::builder().build())
                }
                Some(There::Tag) => {
                    PutImageError::ImageTagAlreadyExistsException(ImageTagAlreadyExistsException::builder().build())
                }
            };
            MockResponse::Error(there)
        });
        mock_client!(
            aws_sdk_ecr,
            RuleMode::MatchAny,
            [&check, &initiate, &part, &complete, &put]
        )
    }
}

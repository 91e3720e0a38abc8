use std::{
    sync::{Arc, Mutex},
    time::Duration,
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
    operation::send_command::{SendCommandError, SendCommandInput, SendCommandOutput},
    types::{Command, error::InvalidDocument},
};
use aws_smithy_mocks::{MockResponse, Rule as Mock, RuleMode, mock, mock_client};
use prefetch::{
    command::is_unsent_id,
    fault,
    image::RegistryEndpoint,
    mocks::{
        self, Calls, Table,
        time::{Answer, VirtualTime, patient_config},
    },
    rows::Key,
    settings::Outcomes,
};
use serde_json::json;

use super::*;

mod boot;

const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

#[tokio::test]
async fn an_image_that_arrives_becomes_one_command_for_all_nodes_that_want_it() {
    let cases = [
        (
            include_str!("../../../../events/image-push.tagged.json"),
            format!("{REGISTRY}/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../events/image-push.index.json"),
            format!("{REGISTRY}/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../events/image-push.docker-list.json"),
            format!("{REGISTRY}/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../events/image-push.replication.json"),
            format!("{REGISTRY}/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../events/image-push.pull-through-cache.json"),
            format!("{REGISTRY}/ecr-public/docker/library/alpine:3.21@{DIGEST}"),
        ),
        (
            include_str!("../../../../events/image-push.china.json"),
            format!("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../events/image-push.longest-tag.json"),
            format!("{REGISTRY}/team/app:{}@{DIGEST}", "x".repeat(128)),
        ),
    ];
    for (event, image) in cases {
        let wanted = image.clone();
        let sends = sending(move |input| input.parameters().unwrap()["images"] == [wanted.clone()]);
        let answer = answer(
            &sends,
            r#"[{"name": "all"}, {"name": "none", "repositories": ["x"]}]"#,
            event,
        )
        .await;
        assert_eq!(
            answer.unwrap(),
            json!({"decision": "sent", "image": image, "commands": [{"rule": "all", "command": "command-1"}]})
        );
        assert_eq!(sends.num_calls(), 1);
    }
}

#[tokio::test]
async fn an_event_whose_time_is_none_is_a_push_all_the_same() {
    let mut event: Value = serde_json::from_str(include_str!("../../../../events/image-push.tagged.json")).unwrap();
    event["time"] = json!("yesterday");
    let sends = sending(|_| true);
    let answer = answer(&sends, r#"[{"name": "all"}]"#, &event.to_string())
        .await
        .unwrap();
    assert_eq!(answer["decision"], "sent");
}

#[tokio::test]
async fn what_is_no_image_that_arrived_is_ignored_with_its_reason_and_no_call() {
    let cases = [
        (
            include_str!("../../../../events/image-push.index-child.json"),
            "untagged",
        ),
        (include_str!("../../../../events/image-push.by-digest.json"), "untagged"),
        (
            include_str!("../../../../events/image-push.signature.json"),
            "not-an-image",
        ),
        (include_str!("../../../../events/image-push.chart.json"), "not-an-image"),
        (
            include_str!("../../../../events/image-push.prefixed-signature.json"),
            "not-an-image",
        ),
        (
            include_str!("../../../../events/image-push.kaniko-cache.json"),
            "not-an-image",
        ),
        (
            include_str!("../../../../events/image-push.archived.json"),
            "not-a-push",
        ),
        (include_str!("../../../../events/image-push.delete.json"), "not-a-push"),
        (
            include_str!("../../../../events/image-push.failed.json"),
            "not-successful",
        ),
        (
            include_str!("../../../../events/image-push.pull-through-cache-failed.json"),
            "not-successful",
        ),
        (include_str!("../../../../events/image-push.no-rule.json"), "no-rule"),
        (
            include_str!("../../../../events/image-push.scan.json"),
            "not-an-image-event",
        ),
        (
            include_str!("../../../../events/image-push.hostile-tag.json"),
            "malformed",
        ),
        (
            include_str!("../../../../events/image-push.hostile-repository.json"),
            "malformed",
        ),
        (
            include_str!("../../../../events/image-push.missing-fields.json"),
            "malformed",
        ),
        (include_str!("../../../../events/image-push.no-event.json"), "malformed"),
        ("[]", "malformed"),
        ("null", "malformed"),
        ("\"PUSH\"", "malformed"),
    ];
    for (event, reason) in cases {
        let sends = sending(|_| true);
        let rules = r#"[{"name": "default", "repositories": ["*", "!unwanted/*"]}]"#;
        let answer = answer(&sends, rules, event).await.unwrap();
        assert_eq!(
            (answer["decision"].as_str(), answer["reason"].as_str()),
            (Some("ignored"), Some(reason))
        );
        assert!(!answer["message"].as_str().unwrap().is_empty());
        assert_eq!(sends.num_calls(), 0);
    }
}

#[tokio::test]
async fn ecr_is_asked_only_of_what_a_rule_may_want_and_the_event_does_not_tell() {
    let rules = r#"[{"name": "default", "repositories": ["*", "!unwanted/*"]}]"#;
    for (event, asked) in [
        (include_str!("../../../../events/image-push.tagged.json"), &[][..]),
        (
            include_str!("../../../../events/image-push.index.json"),
            &["BatchGetImage"],
        ),
        (
            include_str!("../../../../events/image-push.replication.json"),
            &["DescribeImages"],
        ),
        (include_str!("../../../../events/image-push.no-rule.json"), &[]),
    ] {
        let registry = Registry::default();
        let sends = sending(|_| true);
        answer_with(&sends, &registry, &settings(rules), event).await.unwrap();
        assert_eq!(registry.asked(), asked);
    }
}

#[tokio::test]
async fn what_ecr_says_is_no_image_or_no_longer_there_is_ignored() {
    let replicated = include_str!("../../../../events/image-push.chart-replicated.json");
    let cache = include_str!("../../../../events/image-push.cache-index.json");
    let restored = include_str!("../../../../events/image-push.restored.json");
    let index = "application/vnd.oci.image.index.v1+json";
    let layers = r#"{"manifests": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"},
        {"mediaType": "application/vnd.buildkit.cacheconfig.v0"}]}"#;
    let all = Registry::default;
    let gone = Registry {
        is_there: false,
        ..all()
    };
    for (event, registry, reason) in [
        (
            replicated,
            Registry {
                artifact: Some("application/vnd.cncf.helm.config.v1+json"),
                ..all()
            },
            "not-an-image",
        ),
        (cache, Registry { index: layers, ..all() }, "not-an-image"),
        (
            replicated,
            Registry {
                manifest: index,
                artifact: None,
                index: layers,
                ..all()
            },
            "not-an-image",
        ),
        (replicated, gone.clone(), "gone"),
        (cache, gone.clone(), "gone"),
        (restored, gone, "gone"),
        (
            restored,
            Registry {
                status: ImageStatus::Archived,
                ..all()
            },
            "gone",
        ),
        (restored, Registry { tags: vec![], ..all() }, "untagged"),
        (
            restored,
            Registry {
                tags: vec![format!("signature-sha256-{}.sig", "a".repeat(64))],
                ..all()
            },
            "no-rule",
        ),
    ] {
        let sends = sending(|_| true);
        let rules = r#"[{"name": "default"}]"#;
        let answer = answer_with(&sends, &registry, &settings(rules), event).await.unwrap();
        assert_eq!(answer["reason"], reason, "{answer}");
        assert_eq!(sends.num_calls(), 0);
    }
}

#[tokio::test]
async fn a_tag_of_64_hexadecimal_digits_is_a_caches_where_the_manifest_has_one_layer() {
    const ONE: &str = r#"{"layers": [{"digest": "sha256:1"}]}"#;
    const TWO: &str = r#"{"layers": [{"digest": "sha256:1"}, {"digest": "sha256:2"}]}"#;
    let mut event: Value =
        serde_json::from_str(include_str!("../../../../events/image-push.kaniko-cache.json")).unwrap();
    let tag = event["detail"]["image-tag"].as_str().unwrap().to_owned();
    let all = r#"[{"name": "all"}]"#.to_owned();
    let named = format!(r#"[{{"name": "all"}}, {{"name": "named", "tags": ["*", "{tag}"]}}]"#);
    let assets = "cdk-hnb659fds-container-assets-123456789012-eu-west-1";
    for (repository, rules, manifest, sent, asked) in [
        ("ci/kaniko-cache", &all, TWO, 0, 0),
        ("ci/kaniko-cache", &named, ONE, 1, 0),
        ("ci/app", &all, ONE, 0, 1),
        ("ci/app", &all, TWO, 1, 1),
        ("ci/app", &named, ONE, 1, 1),
        ("ci/app", &named, TWO, 2, 1),
        (assets, &all, ONE, 1, 0),
    ] {
        event["detail"]["repository-name"] = json!(repository);
        let registry = Registry {
            index: manifest,
            ..Registry::default()
        };
        let sends = sending(|_| true);
        let answer = answer_with(&sends, &registry, &settings(rules), &event.to_string()).await;
        let answer = answer.unwrap();
        assert_eq!(
            (sends.num_calls(), registry.asked().len()),
            (sent, asked),
            "{repository}: {answer}"
        );
        assert!(sent > 0 || answer["reason"] == "not-an-image", "{answer}");
    }
}

#[tokio::test]
async fn a_manifest_that_ecr_refuses_to_give_is_taken_for_an_images() {
    let registry = Registry::default();
    registry
        .calls
        .lock()
        .unwrap()
        .fail("BatchGetImage", 0, "AccessDeniedException");
    let sends = sending(|_| true);
    let event = include_str!("../../../../events/image-push.index.json");
    let answer = answer_with(&sends, &registry, &settings(r#"[{"name": "all"}]"#), event).await;
    assert_eq!(answer.unwrap()["decision"], "sent");
}

#[tokio::test]
async fn an_image_that_was_restored_is_one_command_for_each_rule_with_at_most_five_names() {
    let digest = "sha256:84296c34b6c17e8c0b126ea4170435c59f642e1debbe3c635441f1884fd6b9bc";
    let mut tags: Vec<String> = (0..1000).map(|k| format!("main-{k:04}")).collect();
    tags.push("2025.11".to_owned());
    let registry = Registry {
        tags,
        ..Registry::default()
    };
    let sends = sending(|input| {
        let images = &input.parameters().unwrap()["images"][0];
        let names = images.split(' ').map(|image| image.split_once("rel/suite:").unwrap().1);
        let tags: Vec<&str> = names.map(|name| name.split_once('@').unwrap().0).collect();
        match input.comment().unwrap() {
            "push rule=all attempt=1" => tags == ["2025.11", "main-0000", "main-0001", "main-0002", "main-0003"],
            "push rule=some attempt=1" => tags == ["2025.11"],
            other => panic!("{other}"),
        }
    });
    let rules = r#"[{"name": "all"}, {"name": "some", "tags": ["20*"]}, {"name": "none", "tags": ["x"]}]"#;
    let event = include_str!("../../../../events/image-push.restored.json");
    let answer = answer_with(&sends, &registry, &settings(rules), event).await.unwrap();
    assert_eq!(
        answer["image"],
        format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/rel/suite@{digest}")
    );
    assert_eq!((sends.num_calls(), registry.asked()), (2, vec!["DescribeImages"]));
}

#[tokio::test]
async fn where_ecr_does_not_tell_what_it_is_the_event_fails_and_nothing_is_sent() {
    for (event, call) in [
        (
            include_str!("../../../../events/image-push.replication.json"),
            "DescribeImages",
        ),
        (
            include_str!("../../../../events/image-push.index.json"),
            "BatchGetImage",
        ),
    ] {
        let registry = Registry::default();
        registry.calls.lock().unwrap().fail(call, 0, "ThrottlingException");
        let sends = sending(|_| true);
        let rules = settings(r#"[{"name": "default"}]"#);
        let error = answer_with(&sends, &registry, &rules, event).await.unwrap_err();
        let message = Diagnostic::from(error).error_message;
        assert!(message.contains("ThrottlingException"), "{message}");
        assert_eq!(sends.num_calls(), 0);
    }
}

#[tokio::test]
async fn images_are_named_under_the_endpoint_by_which_nodes_pull() {
    let sends = sending(|_| true);
    let settings = Settings {
        registry_endpoint: RegistryEndpoint::DualstackFips,
        ..settings(r#"[{"name": "default"}]"#)
    };
    let event = include_str!("../../../../events/image-push.tagged.json");
    let answer = answer_with(&sends, &Registry::default(), &settings, event)
        .await
        .unwrap();
    assert_eq!(
        answer["image"],
        format!("123456789012.dkr-ecr-fips.eu-central-1.on.aws/team/app:v1.4.2@{DIGEST}")
    );
}

#[tokio::test]
async fn a_command_names_document_nodes_limits_and_why_it_was_sent() {
    let sends = sending(|input| {
        let targets: Vec<(&str, &[String])> = input.targets().iter().map(|t| (t.key().unwrap(), t.values())).collect();
        assert_eq!(
            targets,
            [
                ("tag:aws:eks:cluster-name", &["prod".to_owned()][..]),
                ("tag:team", &["ml".to_owned(), "ai".to_owned()])
            ]
        );
        assert_eq!(
            (input.document_name(), input.document_version()),
            (Some("prefetch-images"), Some("$LATEST"))
        );
        assert_eq!((input.max_concurrency(), input.max_errors()), (Some("10%"), Some("3")));
        assert_eq!(input.timeout_seconds(), Some(600));
        let parameter = |name| input.parameters().unwrap()[name][0].as_str();
        assert_eq!(parameter("executionTimeout"), "3600");
        assert_eq!(
            (parameter("keep"), parameter("pin"), parameter("maxImageGiB")),
            ("3", "true", "20")
        );
        assert_eq!(parameter("imageGCHighThresholdPercent"), "85");
        assert_eq!(parameter("maxParallelImagePulls"), "2");
        assert_eq!(input.comment(), Some("push rule=gpu attempt=1"));
        assert!(input.instance_ids().is_empty());
        true
    });
    let rules = r#"[{"name": "gpu", "nodes": {"team": ["ml", "ai"]}, "keep": 3, "pin": true, "maxImageGiB": 20,
        "maxConcurrency": "10%", "maxErrors": 3}]"#;
    answer(&sends, rules, include_str!("../../../../events/image-push.tagged.json"))
        .await
        .unwrap();
    assert_eq!(sends.num_calls(), 1);
}

#[tokio::test]
async fn a_rule_that_fails_fails_the_event_with_its_cause_after_the_others_were_sent() {
    let refused = mock!(Client::send_command)
        .match_requests(|input| input.comment().unwrap().contains("rule=first"))
        .then_error(|| {
            let cause = InvalidDocument::builder().message("no such document").build();
            SendCommandError::InvalidDocument(cause)
        });
    let sent = sending(|input| input.comment().unwrap().contains("rule=second"));
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&refused, &sent]);
    let settings = settings(r#"[{"name": "first"}, {"name": "second"}]"#);
    let event = include_str!("../../../../events/image-push.tagged.json");
    let event = serde_json::from_str(event).unwrap();
    let push = image_push(Sender::sending(client), &Registry::default(), &settings);
    let error = push.handle(event, now()).await.unwrap_err();
    let diagnostic = Diagnostic::from(error);
    assert_eq!(diagnostic.error_type, "PushError");
    assert!(
        diagnostic.error_message.contains("rule first"),
        "{}",
        diagnostic.error_message
    );
    assert!(
        diagnostic.error_message.contains("no such document"),
        "{}",
        diagnostic.error_message
    );
    assert_eq!((refused.num_calls(), sent.num_calls()), (1, 1));
}

#[test]
fn rules_whose_answers_are_slow_or_never_come_keep_no_other_from_its_command() {
    let rules: Vec<Value> = (1..=8).map(|k| json!({"name": format!("rule-{k}")})).collect();
    let settings = settings(&json!(rules).to_string());
    let event: Value = serde_json::from_str(include_str!("../../../../events/image-push.tagged.json")).unwrap();
    for unanswered in [None, Some("rule=rule-1 ")] {
        let time = VirtualTime::default();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (bodies, clock) = (Arc::clone(&taken), time.clone());
        let config = patient_config(&time, move |body| {
            if unanswered.is_some_and(|rule| body.contains(rule)) {
                return Answer::Never;
            }
            bodies.lock().unwrap().push(clock.now());
            Answer::Taken(Duration::from_secs(5))
        });
        let outcomes = Outcomes {
            table: "outcomes".to_owned(),
            retention: Duration::from_hours(24),
        };
        let sender = Sender::new(&config, settings.mode, outcomes);
        let push = image_push(sender, &Registry::default(), &settings);
        let answers = time.run([push.handle(event.clone(), now())]);
        let taken = taken.lock().unwrap();
        // All at once, and each once.
        assert_eq!(taken.len(), 8 - usize::from(unanswered.is_some()));
        assert!(taken.iter().all(|at| *at < Duration::from_secs(5)), "{taken:?}");
        match (unanswered, &answers[0]) {
            (None, Ok(Decision::Sent { commands, .. })) => {
                let names: Vec<&str> = commands.iter().map(|sent| sent.rule.as_str()).collect();
                assert_eq!(names, (1..=8).map(|k| format!("rule-{k}")).collect::<Vec<_>>());
                assert_eq!(time.now(), Duration::from_secs(5));
            }
            (Some(_), Err(PushError::Send { rule, .. })) => {
                assert_eq!(rule, "rule-1");
                assert!(time.now() < Duration::from_secs(118), "Lambda ends it");
            }
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn where_the_stack_observes_a_push_becomes_a_row_for_each_rule_and_no_command() {
    let state = Arc::new(Mutex::new((Calls::default(), Table::default())));
    let outcomes = Outcomes {
        table: "outcomes".to_owned(),
        retention: Duration::from_hours(24),
    };
    let sender = Sender::observing(mocks::dynamodb(&state, |(calls, table)| (calls, table)), outcomes);
    let settings = settings(r#"[{"name": "all"}, {"name": "gpu", "nodes": {"team": ["ml"]}}]"#);
    let event: Value = serde_json::from_str(include_str!("../../../../events/image-push.tagged.json")).unwrap();
    let push = image_push(sender, &Registry::default(), &settings);
    let answer = push.handle(event.clone(), now()).await.unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    assert_eq!(answer["decision"], "observed");
    let commands = answer["commands"].as_array().unwrap();
    assert_eq!(commands.len(), 2);
    for command in commands {
        let id = command["command"].as_str().unwrap();
        assert!(is_unsent_id(id));
        let row = state.lock().unwrap().1.row(&Key::job(id)).unwrap();
        assert_eq!(
            (&row["trigger"], &row["rule"], &row["images"]),
            (&json!("push"), &command["rule"], &json!([answer["image"]]))
        );
    }
    // The same event again is the same job, and another push of the image is another one.
    let again = push.handle(event.clone(), now()).await.unwrap();
    assert_eq!(serde_json::to_value(again).unwrap(), answer);
    let mut pushed = event;
    pushed["id"] = "another".into();
    push.handle(pushed, now()).await.unwrap();
    let (calls, table) = &mut *state.lock().unwrap();
    assert_eq!(table.rows.keys().filter(|key| key.sk == "job").count(), 4);
    assert_eq!(calls.take(), ["TransactWriteItems"; 6]);
}

fn sending(expected: impl Fn(&SendCommandInput) -> bool + Send + Sync + 'static) -> Mock {
    mock!(Client::send_command).match_requests(expected).then_output(|| {
        let command = Command::builder().command_id("command-1").build();
        SendCommandOutput::builder().command(command).build()
    })
}

async fn answer(sends: &Mock, rules: &str, event: &str) -> Result<Value, PushError> {
    answer_with(sends, &Registry::default(), &settings(rules), event).await
}

async fn answer_with(sends: &Mock, registry: &Registry, settings: &Settings, event: &str) -> Result<Value, PushError> {
    let sender = Sender::sending(mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [sends]));
    let event = serde_json::from_str(event).unwrap();
    let decision = image_push(sender, registry, settings).handle(event, now()).await?;
    Ok(serde_json::to_value(decision).unwrap())
}

fn image_push(sender: Sender, registry: &Registry, settings: &Settings) -> ImagePush {
    let ecr = registry.client();
    ImagePush {
        sender,
        images: NewestImages::with_client(ecr.clone(), "eu-central-1".to_owned(), settings),
        ecr,
        boot: None,
        settings: settings.clone(),
    }
}

/// What ECR says of every digest, and what it was asked.
#[derive(Clone)]
struct Registry {
    manifest: &'static str,
    artifact: Option<&'static str>,
    tags: Vec<String>,
    status: ImageStatus,
    /// The text of the index.
    index: &'static str,
    is_there: bool,
    calls: Arc<Mutex<Calls>>,
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
    fn client(&self) -> aws_sdk_ecr::Client {
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

    fn asked(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().take()
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_794_793_474)
}

fn settings(rules: &str) -> Settings {
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

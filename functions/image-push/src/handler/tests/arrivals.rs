//! Events of images that arrive, and those of none.

use aws_sdk_ecr::types::ImageStatus;
use lambda_runtime::Diagnostic;
use serde_json::{Value, json};

use super::cloud::{DIGEST, REGISTRY, Registry, answer, answer_with, sending, settings};

#[tokio::test]
async fn an_image_that_arrives_becomes_one_command_for_all_nodes_that_want_it() {
    let cases = [
        (
            include_str!("../../../../../events/image-push.tagged.json"),
            format!("{REGISTRY}/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../../events/image-push.index.json"),
            format!("{REGISTRY}/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../../events/image-push.docker-list.json"),
            format!("{REGISTRY}/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../../events/image-push.replication.json"),
            format!("{REGISTRY}/team/app:v1.4.2@{DIGEST}"),
        ),
        (
            include_str!("../../../../../events/image-push.pull-through-cache.json"),
            format!("{REGISTRY}/ecr-public/docker/library/alpine:3.21@{DIGEST}"),
        ),
        (
            include_str!("../../../../../events/image-push.longest-tag.json"),
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
    let mut event: Value = serde_json::from_str(include_str!("../../../../../events/image-push.tagged.json")).unwrap();
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
            include_str!("../../../../../events/image-push.index-child.json"),
            "untagged",
        ),
        (
            include_str!("../../../../../events/image-push.by-digest.json"),
            "untagged",
        ),
        (
            include_str!("../../../../../events/image-push.signature.json"),
            "not-an-image",
        ),
        (
            include_str!("../../../../../events/image-push.chart.json"),
            "not-an-image",
        ),
        (
            include_str!("../../../../../events/image-push.prefixed-signature.json"),
            "not-an-image",
        ),
        (
            include_str!("../../../../../events/image-push.kaniko-cache.json"),
            "not-an-image",
        ),
        (
            include_str!("../../../../../events/image-push.archived.json"),
            "not-a-push",
        ),
        (
            include_str!("../../../../../events/image-push.delete.json"),
            "not-a-push",
        ),
        (
            include_str!("../../../../../events/image-push.failed.json"),
            "not-successful",
        ),
        (
            include_str!("../../../../../events/image-push.pull-through-cache-failed.json"),
            "not-successful",
        ),
        (include_str!("../../../../../events/image-push.no-rule.json"), "no-rule"),
        (
            include_str!("../../../../../events/image-push.central-registry.json"),
            "foreign-registry",
        ),
        (
            include_str!("../../../../../events/image-push.scan.json"),
            "not-an-image-event",
        ),
        (
            include_str!("../../../../../events/image-push.hostile-tag.json"),
            "malformed",
        ),
        (
            include_str!("../../../../../events/image-push.hostile-repository.json"),
            "malformed",
        ),
        (
            include_str!("../../../../../events/image-push.missing-fields.json"),
            "malformed",
        ),
        (
            include_str!("../../../../../events/image-push.no-event.json"),
            "malformed",
        ),
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
    for (event, calls) in [
        (include_str!("../../../../../events/image-push.tagged.json"), &[][..]),
        (
            include_str!("../../../../../events/image-push.index.json"),
            &["BatchGetImage"],
        ),
        (
            include_str!("../../../../../events/image-push.replication.json"),
            &["DescribeImages"],
        ),
        (include_str!("../../../../../events/image-push.no-rule.json"), &[]),
    ] {
        let registry = Registry::default();
        let sends = sending(|_| true);
        answer_with(&sends, &registry, &settings(rules), event).await.unwrap();
        assert_eq!(registry.calls(), calls);
    }
}

#[tokio::test]
async fn what_ecr_says_is_no_image_or_no_longer_there_is_ignored() {
    let replicated = include_str!("../../../../../events/image-push.chart-replicated.json");
    let cache = include_str!("../../../../../events/image-push.cache-index.json");
    let restored = include_str!("../../../../../events/image-push.restored.json");
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
        serde_json::from_str(include_str!("../../../../../events/image-push.kaniko-cache.json")).unwrap();
    let tag = event["detail"]["image-tag"].as_str().unwrap().to_owned();
    let all = r#"[{"name": "all"}]"#.to_owned();
    let named = format!(r#"[{{"name": "all"}}, {{"name": "named", "tags": ["*", "{tag}"]}}]"#);
    let assets = "cdk-hnb659fds-container-assets-123456789012-eu-west-1";
    for (repository, rules, manifest, sent, calls) in [
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
            (sends.num_calls(), registry.calls().len()),
            (sent, calls),
            "{repository}: {answer}"
        );
        assert!(sent > 0 || answer["reason"] == "not-an-image", "{answer}");
    }
}

#[tokio::test]
async fn a_manifest_that_ecr_refuses_to_give_is_taken_for_an_images() {
    let registry = Registry::default();
    registry.fail("BatchGetImage", "AccessDeniedException");
    let sends = sending(|_| true);
    let event = include_str!("../../../../../events/image-push.index.json");
    let answer = answer_with(&sends, &registry, &settings(r#"[{"name": "all"}]"#), event).await;
    assert_eq!(answer.unwrap()["decision"], "sent");
}

#[tokio::test]
async fn where_ecr_does_not_tell_what_it_is_the_event_fails_and_nothing_is_sent() {
    for (event, call) in [
        (
            include_str!("../../../../../events/image-push.replication.json"),
            "DescribeImages",
        ),
        (
            include_str!("../../../../../events/image-push.index.json"),
            "BatchGetImage",
        ),
    ] {
        let registry = Registry::default();
        registry.fail(call, "ThrottlingException");
        let sends = sending(|_| true);
        let rules = settings(r#"[{"name": "default"}]"#);
        let error = answer_with(&sends, &registry, &rules, event).await.unwrap_err();
        let message = Diagnostic::from(error).error_message;
        assert!(message.contains("ThrottlingException"), "{message}");
        assert_eq!(sends.num_calls(), 0);
    }
}

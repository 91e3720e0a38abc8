//! Commands to the nodes that want an image.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_ssm::{Client, operation::send_command::SendCommandError, types::error::InvalidDocument};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use lambda_runtime::Diagnostic;
use prefetch::{
    command::is_unsent_id,
    image::RegistryEndpoint,
    mocks::{
        self, Calls, Table,
        time::{Answer, VirtualTime, patient_config},
    },
    rows::Key,
    sender::Sender,
    settings::{Outcomes, Settings},
};
use serde_json::{Value, json};

use super::cloud::{DIGEST, Registry, answer, answer_with, image_push, now, sending, settings};
use crate::handler::{Decision, PushError};

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
    let event = include_str!("../../../../../events/image-push.restored.json");
    let answer = answer_with(&sends, &registry, &settings(rules), event).await.unwrap();
    assert_eq!(
        answer["image"],
        format!("123456789012.dkr.ecr.eu-central-1.amazonaws.com/rel/suite@{digest}")
    );
    assert_eq!((sends.num_calls(), registry.calls()), (2, vec!["DescribeImages"]));
}

#[tokio::test]
async fn images_are_named_under_the_endpoint_by_which_nodes_pull() {
    let sends = sending(|_| true);
    let settings = Settings {
        registry_endpoint: RegistryEndpoint::DualstackFips,
        ..settings(r#"[{"name": "default"}]"#)
    };
    let event = include_str!("../../../../../events/image-push.tagged.json");
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
            (Some("eks-image-prefetch-prefetch-images"), Some("$LATEST"))
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
    answer(
        &sends,
        rules,
        include_str!("../../../../../events/image-push.tagged.json"),
    )
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
    let event = include_str!("../../../../../events/image-push.tagged.json");
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
    let rules: Vec<Value> = (1..=8)
        .map(|k| json!({"name": format!("rule-{k}"), "used": false}))
        .collect();
    let settings = settings(&json!(rules).to_string());
    let event: Value = serde_json::from_str(include_str!("../../../../../events/image-push.tagged.json")).unwrap();
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
    let event: Value = serde_json::from_str(include_str!("../../../../../events/image-push.tagged.json")).unwrap();
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

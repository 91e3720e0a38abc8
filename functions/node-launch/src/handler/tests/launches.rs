//! Launched nodes.

use std::{sync::Arc, time::Duration};

use aws_smithy_mocks::{mock, mock_client};
use lambda_runtime::Diagnostic;
use prefetch::{
    command::is_unsent_id,
    mocks::{self, Calls, Table},
    sender::Sender,
};
use serde_json::{Value, json};

use super::{
    cloud::Cloud,
    inputs::{JOB, MISSING, ONE, RETRY, RUNNING, batch, now, outcomes},
    services::{Node, node},
};
use crate::node_launch::NodeLaunch;

#[tokio::test]
async fn every_event_by_which_a_node_is_launched_ends_with_its_newest_image() {
    for event in [
        include_str!("../../../../../events/node-launch.running.json"),
        include_str!("../../../../../events/node-launch.asg-launch.json"),
        include_str!("../../../../../events/node-launch.lifecycle.json"),
    ] {
        let cloud = Cloud::with(vec![node(ONE)]);
        let expected =
            json!({"instance": ONE, "decision": "sent", "commands": [{"rule": "default", "command": "command-1"}]});
        assert_eq!(cloud.answer(event).await, expected);
        assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
    }
}

#[tokio::test]
async fn an_event_whose_time_is_none_launches_its_node_all_the_same() {
    let mut event: Value =
        serde_json::from_str(include_str!("../../../../../events/node-launch.running.json")).unwrap();
    event["time"] = json!("yesterday");
    let cloud = Cloud::with(vec![node(ONE)]);
    assert_eq!(cloud.answer(&event.to_string()).await["decision"], "sent");
}

#[tokio::test]
async fn an_event_that_launches_no_node_is_dropped_without_a_call() {
    for (event, reason) in [
        (
            include_str!("../../../../../events/node-launch.terminated.json"),
            "not-running",
        ),
        (
            include_str!("../../../../../events/node-launch.no-event.json"),
            "malformed",
        ),
        (
            include_str!("../../../../../events/image-push.tagged.json"),
            "not-a-launch",
        ),
        (r#"{"Records": 1}"#, "malformed"),
        ("null", "malformed"),
    ] {
        let cloud = Cloud::with(vec![node(ONE)]);
        let answer = cloud.answer(event).await;
        assert_eq!(
            (answer["decision"].as_str(), answer["reason"].as_str()),
            (Some("dropped"), Some(reason)),
            "{event}"
        );
        assert_eq!(cloud.calls(), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_node_that_joins_only_now_is_served_by_the_rules_that_want_its_tags() {
    for tag in [
        ("eks:cluster-name", "prod"),
        ("eks:eks-cluster-name", "prod"),
        ("kubernetes.io/cluster/prod", "owned"),
    ] {
        let joining = Node { tag, ..node(ONE) };
        let wanted = Node {
            team: Some("ml"),
            ..joining.clone()
        };
        let gpu = r#"[{"name": "gpu", "repositories": ["team/app"], "nodes": {"team": ["ml"]}}]"#;
        let cloud = Cloud::new(vec![wanted], gpu);
        assert_eq!(cloud.answer(RUNNING).await["decision"], "sent", "{tag:?}");
        assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
        // A controller may still put on the rule's tag, until the node has joined.
        let cloud = Cloud::new(vec![joining], gpu);
        let answer = cloud.answer(RUNNING).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!("handed-back"), &json!("no-rule"))
        );
        assert_eq!(cloud.handed_back(&[24]).await, 1);
        assert_eq!(cloud.handed_back(&[25]).await, 0);
        assert!(cloud.sent().is_empty());
    }
}

#[tokio::test]
async fn an_instance_that_no_tag_calls_a_node_is_dropped_before_one_lost_receive_is_a_dead_letter() {
    let untagged = Node {
        tag: ("team", "web"),
        ..node(ONE)
    };
    let cloud = Cloud::with(vec![untagged]);
    let told = cloud.answer(RUNNING).await;
    assert_eq!(
        (&told["decision"], &told["reason"]),
        (&json!("handed-back"), &json!("not-tagged"))
    );
    for (receives, handed_back) in [(1, 1), (24, 1), (25, 0), (29, 0), (30, 0)] {
        assert_eq!(cloud.handed_back(&[receives]).await, handed_back, "{receives}");
    }
}

#[tokio::test]
async fn nodes_of_several_rules_get_a_command_for_each_with_the_rules_own_limits() {
    let rules = r#"[{"name": "all", "repositories": ["team/app"]},
        {"name": "gpu", "repositories": ["team/app"], "nodes": {"team": ["ml"]}, "maxConcurrency": "1"},
        {"name": "other", "nodes": {"team": ["web"]}}]"#;
    let cloud = Cloud::new(
        vec![Node {
            team: Some("ml"),
            ..node(ONE)
        }],
        rules,
    );
    let answer = cloud
        .answer(include_str!("../../../../../events/node-launch.running.json"))
        .await;
    let of: Vec<&str> = answer["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["rule"].as_str().unwrap())
        .collect();
    assert_eq!(of, ["all", "gpu"]);
    let inputs = cloud.inputs();
    assert_eq!(
        (inputs[0].max_concurrency(), inputs[1].max_concurrency()),
        (Some("50"), Some("1"))
    );
    assert_eq!(inputs[1].comment(), Some("launch rule=gpu attempt=1"));
}

#[tokio::test]
async fn a_node_that_no_rule_wants_is_dropped() {
    let cloud = Cloud::new(vec![node(ONE)], r#"[{"name": "gpu", "nodes": {"team": ["ml"]}}]"#);
    let answer = cloud
        .answer(include_str!("../../../../../events/node-launch.running.json"))
        .await;
    assert_eq!(answer["reason"], "no-rule");
    assert_eq!(cloud.calls(), (1, 0, 0));
}

#[tokio::test]
async fn a_storm_of_launches_asks_ecr_once_in_thirty_seconds() {
    let id = |k: usize| format!("i-0abc0000000000{k:03}");
    let cloud = Cloud::with((1..=4).map(|k| node(&id(k))).collect());
    for (k, seconds, calls) in [(1, 0, 1), (2, 10, 0), (3, 29, 0), (4, 31, 1)] {
        let event = serde_json::from_str(&RUNNING.replace(ONE, &id(k))).unwrap();
        let at = now() + Duration::from_secs(seconds);
        cloud.launch.handle_at(event, at).await.unwrap();
        assert_eq!(cloud.images_described(), calls);
    }
}

#[tokio::test]
async fn where_ecr_tells_of_some_repositories_only_a_node_gets_those_and_comes_back_for_the_rest() {
    // The mocked ECR knows nothing of other/app, and fails.
    let rules = r#"[{"name": "default", "repositories": ["team/app", "other/app"]}]"#;
    let cloud = Cloud::new(vec![node(ONE)], rules);
    let event = include_str!("../../../../../events/node-launch.running.json");
    let answer = cloud.answer(event).await;
    assert_eq!(
        (&answer["decision"], &answer["reason"]),
        (&json!("handed-back"), &json!("incomplete")),
        "{answer}"
    );
    assert!(answer["message"].as_str().unwrap().contains("other/app"), "{answer}");
    assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
    let images = cloud.inputs()[0].parameters().unwrap()["images"][0].clone();
    assert!(images.contains("team/app:v3@"), "{images}");
    // Where it tells of none, nothing is sent.
    let rules = r#"[{"name": "default", "repositories": ["other/app"]}]"#;
    let cloud = Cloud::new(vec![node(ONE)], rules);
    assert_eq!(cloud.answer(event).await["reason"], "aws-error");
    assert!(cloud.sent().is_empty());
}

#[tokio::test]
async fn where_the_stack_observes_a_launch_and_a_retry_become_rows_and_no_command() {
    let two = "i-0abc0000000000002";
    let mut cloud = Cloud::with(vec![node(ONE), node(two)]);
    let table = Arc::new(std::sync::Mutex::new((Calls::default(), Table::default())));
    cloud.launch.sender = Sender::observing(mocks::dynamodb(&table, |(calls, table)| (calls, table)), outcomes());
    let running: Value = serde_json::from_str(include_str!("../../../../../events/node-launch.running.json")).unwrap();
    let mut other = running.clone();
    other["detail"]["instance-id"] = two.into();
    let batch = batch(&[running.to_string(), other.to_string(), RETRY.to_owned()]);
    // A message may be delivered more than once.
    for _ in 0..2 {
        assert_eq!(cloud.answer(&batch).await, json!({"batchItemFailures": []}));
    }
    let answer = cloud.answer(RETRY).await;
    assert_eq!(answer["decision"], "observed");
    assert!(is_unsent_id(answer["commands"][0]["command"].as_str().unwrap()));

    let table = &table.lock().unwrap().1;
    let jobs = table.rows.keys().filter(|key| key.sk == "job");
    let mut rows: Vec<Value> = jobs.map(|key| table.row(key).unwrap()).collect();
    rows.sort_by_key(|row| row["attempt"].as_u64());
    let [launched, retried] = &rows[..] else {
        panic!("{rows:?}")
    };
    assert_eq!(
        (&launched["trigger"], &launched["destination"], &launched["targets"]),
        (&json!("launch"), &json!({"ids": [ONE, two]}), &json!(2))
    );
    assert_eq!(
        (&retried["retry_of"], &retried["images"], &retried["destination"]),
        (&json!(JOB), &json!([MISSING]), &json!({"ids": [ONE]}))
    );
    assert!(cloud.inputs().is_empty());
}

#[tokio::test]
async fn an_error_of_ec2_fails_the_call_with_its_cause() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let failing = mock!(aws_sdk_ec2::Client::describe_instances).then_error(|| {
        aws_sdk_ec2::operation::describe_instances::DescribeInstancesError::generic(
            aws_sdk_ec2::error::ErrorMetadata::builder()
                .code("UnauthorizedOperation")
                .message("not allowed")
                .build(),
        )
    });
    let launch = NodeLaunch {
        ec2: mock_client!(aws_sdk_ec2, [&failing]),
        ..cloud.launch
    };
    let event = serde_json::from_str(include_str!("../../../../../events/node-launch.sqs-one.json")).unwrap();
    let diagnostic = Diagnostic::from(launch.handle(event).await.unwrap_err());
    assert_eq!(diagnostic.error_type, "LaunchError");
    assert!(
        diagnostic.error_message.contains("UnauthorizedOperation"),
        "{}",
        diagnostic.error_message
    );
}

#[tokio::test]
async fn wildcard_rules_take_the_newest_of_every_repository_by_each_tag_they_take() {
    let rules = r#"[{"name": "default", "repositories": ["team/*"], "tags": ["v*"], "newest": 2}]"#;
    let cloud = Cloud::new(vec![node(ONE)], rules);
    cloud
        .answer(include_str!("../../../../../events/node-launch.running.json"))
        .await;
    let images = cloud.inputs()[0].parameters().unwrap()["images"][0].clone();
    let tags: Vec<&str> = images
        .split(' ')
        .map(|image| image.rsplit_once('@').unwrap().0.rsplit_once('/').unwrap().1)
        .collect();
    assert_eq!(tags, ["app:v3.0", "app:v3", "app:v2"]);
}

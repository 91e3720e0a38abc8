//! Retries: nodes that lack images still.

use aws_sdk_ec2::types::InstanceStateName;
use prefetch::command::MAX_INSTANCES;
use serde_json::json;

use super::{
    cloud::Cloud,
    inputs::{CLUSTER_TAG, JOB, MISSING, ONE, RETRY, batch},
    services::{Node, node},
};

#[tokio::test]
async fn a_retry_sends_the_missing_images_alone_and_names_its_job() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let expected =
        json!({"instance": ONE, "decision": "sent", "commands": [{"rule": "default", "command": "command-1"}]});
    assert_eq!(cloud.answer(RETRY).await, expected);
    let input = cloud.inputs().remove(0);
    assert_eq!(
        input.comment(),
        Some(&*format!("push rule=default attempt=2 job={JOB}"))
    );
    assert_eq!(input.parameters().unwrap()["images"], [MISSING]);
    assert_eq!(
        (input.instance_ids(), cloud.images_described()),
        (&[ONE.to_owned()][..], 0)
    );
}

#[tokio::test]
async fn a_retry_of_a_node_that_is_gone_stopping_foreign_or_without_its_rule_is_dropped() {
    let other = r#"[{"name": "other", "repositories": ["team/app"]}]"#;
    let default = r#"[{"name": "default", "repositories": ["team/app"]}]"#;
    let stopping = Node {
        state: InstanceStateName::ShuttingDown,
        ..node(ONE)
    };
    let foreign = Node {
        tag: (CLUSTER_TAG, "other"),
        ..node(ONE)
    };
    for (nodes, rules, reason) in [
        (vec![], default, "gone"),
        (vec![stopping], default, "not-running"),
        (vec![foreign], default, "foreign"),
        (vec![node(ONE)], other, "no-rule"),
    ] {
        let cloud = Cloud::new(nodes, rules);
        let answer = cloud.answer(RETRY).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!("dropped"), &json!(reason))
        );
        assert!(cloud.sent().is_empty());
    }
}

#[tokio::test]
async fn a_retry_of_a_node_that_is_not_online_is_handed_back() {
    let cloud = Cloud::with(vec![Node {
        online: None,
        ..node(ONE)
    }]);
    let answer = cloud.answer(&batch(&[RETRY.to_owned()])).await;
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn launches_and_retries_of_one_node_do_not_disturb_each_other() {
    let cloud = Cloud::new(
        vec![node(ONE)],
        r#"[{"name": "default", "repositories": ["team/app"]}, {"name": "gpu", "nodes": {"team": ["ml"]}}]"#,
    );
    let launch = include_str!("../../../../../events/node-launch.running.json");
    let third = RETRY.replace(r#""attempt": 2"#, r#""attempt": 3"#);
    // A try by a rule that no more wants the node's tags is made all the same.
    let of_other_rule = RETRY.replace("default", "gpu");
    let of_no_rule = RETRY.replace("default", "none");
    let messages = [launch, RETRY, RETRY, &third, &of_other_rule, &of_no_rule].map(str::to_owned);
    assert_eq!(cloud.answer(&batch(&messages)).await, json!({"batchItemFailures": []}));
    let comments: Vec<String> = cloud
        .inputs()
        .iter()
        .map(|input| input.comment().unwrap().to_owned())
        .collect();
    assert_eq!(
        comments,
        [
            "launch rule=default attempt=1".to_owned(),
            format!("push rule=default attempt=2 job={JOB}"),
            format!("push rule=default attempt=3 job={JOB}"),
            format!("push rule=gpu attempt=2 job={JOB}"),
        ]
    );
    assert_eq!(cloud.calls(), (1, 1, 4));
}

#[tokio::test]
async fn nodes_that_lack_the_same_images_of_a_job_share_commands_of_fifty() {
    let id = |k: usize| format!("i-0abc0000000000{k:03}");
    let nodes = (0..60).map(|k| Node {
        refused: k == 7,
        ..node(&id(k))
    });
    let cloud = Cloud::with(nodes.collect());
    let messages: Vec<String> = (0..60).map(|k| RETRY.replace(ONE, &id(k))).collect();
    let answer = cloud.answer(&batch(&messages)).await;
    assert_eq!(answer["batchItemFailures"], json!([{"itemIdentifier": "7"}]));
    assert_eq!(cloud.sent().concat().len(), 59);
    assert!(cloud.sent().iter().all(|ids| ids.len() <= MAX_INSTANCES));
}

#[tokio::test]
async fn a_retry_that_is_malformed_is_dropped() {
    for message in [
        RETRY.replace(JOB, "job"),
        RETRY.replace(ONE, "i-1"),
        RETRY.replace("push", "shove"),
        RETRY.replace("default", "Default"),
        RETRY.replace(r#""attempt": 2"#, r#""attempt": 10"#),
        RETRY.replace(MISSING, "").replace("\"\"", ""),
        RETRY.replace("sha256:7f", "sha256:xf"),
        r#"{"job": 1}"#.to_owned(),
    ] {
        let cloud = Cloud::with(vec![node(ONE)]);
        assert_eq!(cloud.answer(&message).await["reason"], "malformed", "{message}");
        assert_eq!(cloud.calls(), (0, 0, 0));
    }
}

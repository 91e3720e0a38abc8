//! Reconciles, jobs and nodes, by what nodes run.

use aws_sdk_ssm::types::CommandStatus;
use prefetch::rows::Key;
use serde_json::{Value, json};

use crate::tests::cloud::{BOOT_PATH, Cloud, REGISTRY, TARGETS, command_id, digest, image};

const USED: &str = r#"[{"name": "default", "repositories": ["team/*"]}]"#;
const NEWEST_ALONE: &str = r#"[{"name": "default", "repositories": ["team/*"], "neighbours": false}]"#;
const ALL: &str = r#"[{"name": "default", "repositories": ["team/*"], "used": false}]"#;
const INVENTORY: &str = "inventory rule=default attempt=1";
const RECONCILE: &str = "reconcile rule=default attempt=1";

async fn reconcile(cloud: &Cloud, seconds: i64) -> Value {
    cloud.invoke(json!({"reconcile": true}), seconds).await.unwrap()
}

fn comments(cloud: &Cloud) -> Vec<String> {
    cloud.sent().into_iter().map(|(comment, ..)| comment).collect()
}

#[tokio::test]
async fn a_rule_of_whose_nodes_nothing_is_known_has_them_tell_and_brings_nothing_yet() {
    let cloud = Cloud::with(USED, "false");
    let answer = reconcile(&cloud, 0).await;
    assert_eq!(
        answer,
        json!({"rules": [{"rule": "default", "decision": "usage-unknown"}]})
    );
    let (comment, images, nodes) = cloud.sent().remove(0);
    assert_eq!(
        (comment.as_str(), images.concat(), nodes),
        (INVENTORY, String::new(), vec![TARGETS.to_owned()])
    );
    // It is no job, and nothing waits for it.
    assert!(cloud.row(&Key::reconcile("default")).is_none());
    cloud.run("default", &image("team/app", "v1"), 1);
    let answer = reconcile(&cloud, 60).await;
    assert_eq!(answer["rules"][0]["commands"], json!([command_id(3)]));
    assert_eq!(comments(&cloud), [INVENTORY, INVENTORY, RECONCILE]);
    assert_eq!(cloud.sent()[2].1, [image("team/app", "v2")]);
}

#[tokio::test]
async fn nodes_tell_at_each_reconcile_and_no_reconcile_waits_for_that() {
    let cloud = Cloud::with(USED, "false");
    cloud.run("default", &image("team/app", "v1"), 1);
    reconcile(&cloud, 0).await;
    cloud.set_command(2, |command| command.status = Some(CommandStatus::Success));
    // The first inventory shows no end.
    assert_eq!(reconcile(&cloud, 3600).await["rules"][0]["decision"], "sent");
    assert_eq!(reconcile(&cloud, 3700).await["rules"][0]["decision"], "still-running");
    assert_eq!(
        comments(&cloud),
        [INVENTORY, RECONCILE, INVENTORY, RECONCILE, INVENTORY]
    );
}

#[tokio::test]
async fn a_reconcile_costs_one_command_and_a_query_more_and_lists_no_repositories() {
    let cloud = Cloud::with(USED, "false");
    cloud.run("default", &image("team/app", "v1"), 1);
    reconcile(&cloud, 0).await;
    let expected = [
        "BatchGetItem",
        "SendCommand",
        "Query",
        "DescribeImages",
        "UpdateItem",
        "SendCommand",
        "UpdateItem",
        "DescribeInstances",
    ];
    assert_eq!(cloud.calls(), expected);
}

#[tokio::test]
async fn what_neighbours_run_is_for_new_nodes_and_no_reconcile_brings_it() {
    let cloud = Cloud::with(ALL, "false");
    cloud.run("default", &format!("public.ecr.aws/mesh/proxy:v1@{}", digest("v1")), 1);
    reconcile(&cloud, 0).await;
    assert_eq!(comments(&cloud), [INVENTORY, RECONCILE]);
    assert_eq!(cloud.sent()[1].1, [image("team/app", "v2"), image("team/web", "v1")]);
}

#[tokio::test]
async fn a_stack_that_observes_asks_no_node_and_tells_what_it_would_bring_where_nothing_is_known() {
    let cloud = Cloud::observing(USED);
    let answer = reconcile(&cloud, 0).await;
    assert_eq!(answer["rules"][0]["decision"], "observed");
    assert!(cloud.sent().is_empty());
}

#[tokio::test]
async fn a_reconcile_that_cannot_ask_what_nodes_run_fails_and_is_tried_again() {
    for call in ["Query", "SendCommand"] {
        let cloud = Cloud::with(USED, "false");
        cloud.fail(call, 0, "AccessDeniedException");
        let error = cloud.invoke(json!({"reconcile": true}), 0).await.unwrap_err();
        assert!(error.to_string().contains("default"), "{call}: {error}");
        assert_eq!(reconcile(&cloud, 60).await["rules"][0]["decision"], "usage-unknown");
    }
    // Where the use is known, what is to be brought is.
    let cloud = Cloud::with(USED, "false");
    cloud.run("default", &image("team/app", "v1"), 1);
    cloud.fail("SendCommand", 0, "ThrottlingException");
    assert_eq!(reconcile(&cloud, 0).await["rules"][0]["decision"], "sent");
    assert_eq!(comments(&cloud), [RECONCILE]);
}

#[tokio::test]
async fn a_boot_list_begins_with_what_neighbours_run_and_stays_where_that_cannot_be_told() {
    let mut cloud = Cloud::with(USED, "false");
    cloud.keep_boot_lists();
    let proxy = format!("public.ecr.aws/mesh/proxy:v1@{}", digest("v1"));
    cloud.run("default", &proxy, 2);
    cloud.run("default", &image("team/app", "v1"), 1);
    let answer = reconcile(&cloud, 0).await;
    assert_eq!(
        answer["boot"],
        json!([{"rule": "default", "decision": "written", "images": 3, "leftOut": 0}])
    );
    let listed = cloud.state(|state| state.parameters.held[&format!("{BOOT_PATH}/default")].0.clone());
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let expected = [proxy, image("team/app", "v1"), image("team/app", "v2")].join(" ");
    assert_eq!(listed["images"], expected);
    // What was sent runs still, so that the list alone is looked after.
    cloud.fail("Query", 0, "AccessDeniedException");
    assert_eq!(reconcile(&cloud, 3600).await["boot"][0]["decision"], "incomplete");
    let kept = cloud.state(|state| state.parameters.held[&format!("{BOOT_PATH}/default")].clone());
    assert_eq!((kept.1, kept.0.contains("mesh/proxy")), (1, true));
}

#[tokio::test]
async fn a_job_by_rule_brings_what_is_used_and_one_that_names_images_brings_those() {
    let cloud = Cloud::with(NEWEST_ALONE, "false");
    cloud.run("default", &image("team/app", "v1"), 1);
    let (status, _) = cloud.post(json!({"rule": "default"})).await;
    assert_eq!((status, &cloud.sent()[0].1), (202, &vec![image("team/app", "v2")]));
    let (status, _) = cloud.post(json!({"images": ["team/web:v1"]})).await;
    assert_eq!((status, &cloud.sent()[1].1), (202, &vec![image("team/web", "v1")]));
    let cloud = Cloud::with(NEWEST_ALONE, "false");
    cloud.run("default", &format!("{REGISTRY}/other:v1@{}", digest("v1")), 1);
    let (status, problem) = cloud.post(json!({"rule": "default"})).await;
    assert_eq!(status, 400);
    assert!(problem.to_string().contains("which its nodes use"), "{problem}");
}

#[tokio::test]
async fn a_node_lacks_only_images_that_are_used() {
    let cloud = Cloud::with(NEWEST_ALONE, "false");
    let images = async || {
        let nodes = cloud.get("/nodes").await.1;
        nodes["nodes"][0]["images"].as_array().unwrap().len()
    };
    assert_eq!(images().await, 2);
    cloud.run("default", &image("team/web", "v0"), 1);
    assert_eq!(images().await, 1);
}

use aws_sdk_ec2::types::{PlatformValues, Tag};
use prefetch::outcome::Status;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::tests::cloud::{Cloud, auto_mode, hold, image, now};

const APP: &str = r#"[{"name": "default", "repositories": ["team/app"]}]"#;
const GPU: &str = r#"[
    {"name": "default", "repositories": ["team/app"], "nodes": {"pool": ["web", "gpu"]}},
    {"name": "gpu", "repositories": ["team/web"], "nodes": {"pool": ["gpu"]}}
]"#;

#[tokio::test]
async fn a_node_is_warm_once_it_has_said_so_of_each_of_its_rules_newest_images() {
    let cloud = Cloud::with(GPU, "false");
    let (older, newest, web) = (
        image("team/app", "v1"),
        image("team/app", "v2"),
        image("team/web", "v1"),
    );
    for (k, pool) in [(1, "web"), (2, "web"), (3, "web"), (4, "gpu"), (5, "gpu"), (6, "other")] {
        let pool = Tag::builder().key("pool").value(pool).build();
        cloud.launch(k, |(instance, _)| instance.tags.as_mut().unwrap().push(pool));
    }
    hold(&cloud, 1, &[(&newest, Status::Pulled, "", 1)]);
    // That of yesterday is none of the newest.
    hold(&cloud, 2, &[(&older, Status::Pulled, "", 1)]);
    hold(
        &cloud,
        3,
        &[(&newest, Status::Pulled, "", 1), (&newest, Status::Failed, "denied", 2)],
    );
    hold(
        &cloud,
        4,
        &[(&newest, Status::Cached, "", 1), (&web, Status::Pulled, "tag-moved", 1)],
    );
    hold(&cloud, 5, &[(&newest, Status::Cached, "", 1)]);
    assert_eq!(
        counted(&cloud).await,
        json!({"warm": 2, "cold": 3, "unreachable": 0, "leftOut": 1})
    );
}

#[tokio::test]
async fn a_node_that_ssm_does_not_reach_is_unreachable_whatever_it_said_and_one_that_cannot_run_it_counts_nowhere() {
    let cloud = Cloud::with(APP, "false");
    let app = image("team/app", "v2");
    cloud.launch(2, |node| node.1 = None);
    cloud.launch(3, |(_, agent)| {
        agent.as_mut().unwrap().ping_status = Some("ConnectionLost".into());
    });
    cloud.launch(4, |(instance, _)| instance.operator = Some(auto_mode()));
    cloud.launch(5, |node| {
        (node.0.platform, node.1) = (Some(PlatformValues::Windows), None);
    });
    for k in [1, 3] {
        hold(&cloud, k, &[(&app, Status::Pulled, "", 1)]);
    }
    assert_eq!(
        counted(&cloud).await,
        json!({"warm": 1, "cold": 0, "unreachable": 2, "leftOut": 2})
    );
}

#[tokio::test]
async fn a_node_of_another_platform_is_not_cold_and_one_whose_disk_is_full_is() {
    let cloud = Cloud::with(r#"[{"name": "default", "repositories": ["team/*"]}]"#, "false");
    let (app, web) = (image("team/app", "v2"), image("team/web", "v1"));
    let said = |status, reason: &'static str| [(&app, Status::Pulled, "", 1), (&web, status, reason, 1)];
    hold(&cloud, 1, &said(Status::Skipped, "platform"));
    hold(&cloud, 2, &said(Status::Skipped, "no-space"));
    cloud.launch(3, |_| {});
    hold(
        &cloud,
        3,
        &[
            (&app, Status::Skipped, "platform", 1),
            (&web, Status::Skipped, "platform", 1),
        ],
    );
    assert_eq!(
        counted(&cloud).await,
        json!({"warm": 1, "cold": 1, "unreachable": 0, "leftOut": 1})
    );
}

#[tokio::test]
async fn a_node_with_more_images_than_its_row_tells_of_is_not_cold_for_those_that_it_tells_in_brief() {
    let cloud = Cloud::with(
        r#"[{"name": "default", "repositories": ["team/app"], "newest": 50}]"#,
        "false",
    );
    let tags: Vec<String> = (10..60).map(|k| format!("v{k}")).collect();
    cloud.state(|state| state.set_repository("team/app", &tags));
    let wanted: Vec<String> = tags.iter().map(|tag| image("team/app", tag)).collect();
    let others: Vec<String> = (0..90).map(|k| image("team/web", &format!("v{k}"))).collect();
    for k in [1, 2] {
        // What the node spoke of first its row tells in brief; of the second node one is missing there.
        let said = |(place, image)| {
            let status = if k == 2 && place == 7 {
                Status::Failed
            } else {
                Status::Cached
            };
            (image, status, "", if place < 40 { 1 } else { 2 })
        };
        let said: Vec<_> = wanted.iter().chain(&others).enumerate().map(said).collect();
        hold(&cloud, k, &said);
    }
    assert_eq!(
        counted(&cloud).await,
        json!({"warm": 1, "cold": 1, "unreachable": 0, "leftOut": 0})
    );
    let (_, body) = cloud.get("/nodes").await;
    let [one, two] = [0, 1].map(|place: usize| &body["nodes"][place]);
    assert_eq!((&one["more"], &two["more"]), (&json!(40), &json!(40)));
    assert!(
        one["images"]
            .as_array()
            .unwrap()
            .iter()
            .all(|image| image["state"] == "warm")
    );
    let missing = two["images"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|image| image["state"] == "missing");
    let missing: Vec<&Value> = missing.map(|image| &image["image"]).collect();
    assert_eq!(missing, [&json!(wanted[7])]);
}

#[tokio::test]
async fn where_no_image_is_to_be_there_no_node_is_warm() {
    let cloud = Cloud::with(APP, "false");
    cloud.state(|state| state.registry.repositories.clear());
    assert_eq!(
        counted(&cloud).await,
        json!({"warm": 0, "cold": 0, "unreachable": 0, "leftOut": 2})
    );
}

#[tokio::test]
async fn a_count_costs_what_all_pages_of_the_nodes_cost() {
    let cloud = Cloud::with(APP, "false");
    for k in 1..=1205 {
        cloud.launch(k, |_| {});
    }
    assert_eq!(counted(&cloud).await["cold"], 1205);
    let calls = cloud.calls();
    let made = |name: &str| calls.iter().filter(|call| **call == name).count();
    let names = [
        "DescribeInstances",
        "DescribeInstanceInformation",
        "BatchGetItem",
        "DescribeImages",
        "Query",
    ];
    // What nodes run is asked for with each page, until a node has told.
    assert_eq!(names.map(made), [3, 25, 13, 1, 3]);
    assert_eq!(calls.len(), 45);
}

#[tokio::test]
async fn a_count_that_fails_anywhere_tells_no_number_and_is_not_repeated() {
    for (call, before) in [
        ("DescribeInstances", 0),
        ("DescribeInstances", 1),
        ("DescribeInstanceInformation", 10),
        ("BatchGetItem", 5),
        ("DescribeImages", 0),
    ] {
        let cloud = Cloud::with(APP, "false");
        for k in 1..=501 {
            cloud.launch(k, |_| {});
        }
        cloud.fail(call, before, "ThrottlingException");
        let answer = cloud.invoke(json!({"count": true}), 0).await.unwrap();
        assert_eq!(
            (&answer["status"], &answer["nodes"]),
            (&json!(503), &Value::Null),
            "{call}"
        );
        assert!(!answer.to_string().contains("arn:"), "{answer}");
    }
}

#[tokio::test]
async fn a_count_whose_time_is_over_tells_no_number() {
    let cloud = Cloud::with(APP, "false");
    for k in 1..=501 {
        cloud.launch(k, |_| {});
    }
    assert!(count_within(&cloud.jobs.node_sources(), now(), TIME).await.is_ok());
    let problem = count_within(&cloud.jobs.node_sources(), now(), Duration::ZERO)
        .await
        .unwrap_err();
    assert!(problem.line().contains("in time"), "{}", problem.line());
}

#[test]
fn all_three_numbers_are_measured_for_the_cluster_also_where_they_are_nought() {
    let metrics = Metrics::new("prod");
    let line: Value = serde_json::from_str(&Counted::default().line(&metrics, now()).text()).unwrap();
    let names = ["NodesWarm", "NodesCold", "NodesUnreachable"];
    assert_eq!(names.map(|name| line[name].clone()), [0, 0, 0]);
    let [directive] = line["_aws"]["CloudWatchMetrics"].as_array().unwrap().as_slice() else {
        panic!("{line}")
    };
    assert_eq!(directive["Dimensions"], json!([["ClusterName"]]));
    assert_eq!(
        directive["Metrics"],
        json!(names.map(|name| json!({"Name": name, "Unit": "Count"})))
    );
}

proptest! {
    #[test]
    fn each_node_counts_once_and_only_a_node_that_can_hold_its_images_counts(nodes in prop::collection::vec(node(), 0..40)) {
        let mut counted = Counted::default();
        for (agent, said) in &nodes {
            counted.take(warmth(*agent, said.iter().copied()));
        }
        let of_platform = |said: &Option<Presence>| *said != Some(Presence::NotApplicable);
        let is_countable = |(agent, said): &&(AgentState, Vec<Option<Presence>>)| {
            *agent != AgentState::Unsupported && said.iter().any(of_platform)
        };
        let countable: Vec<_> = nodes.iter().filter(is_countable).collect();
        prop_assert_eq!(usize::try_from(counted.warm + counted.cold + counted.unreachable).unwrap(), countable.len());
        prop_assert_eq!(usize::try_from(counted.left_out).unwrap(), nodes.len() - countable.len());
        let is_warm = |(agent, said): &&&(AgentState, Vec<Option<Presence>>)| {
            let is_there = |said: &Option<Presence>| *said == Some(Presence::Warm);
            *agent == AgentState::Online && said.iter().filter(|said| of_platform(said)).all(is_there)
        };
        prop_assert_eq!(usize::try_from(counted.warm).unwrap(), countable.iter().filter(is_warm).count());
    }
}

fn node() -> impl Strategy<Value = (AgentState, Vec<Option<Presence>>)> {
    let agent = prop::sample::select(vec![
        AgentState::Online,
        AgentState::Online,
        AgentState::Offline,
        AgentState::NeverRegistered,
        AgentState::Unsupported,
    ]);
    let said = prop::sample::select(vec![
        None,
        Some(Presence::Warm),
        Some(Presence::NotApplicable),
        Some(Presence::Missing),
    ]);
    (agent, prop::collection::vec(said, 0..4))
}

/// Gives what a count answers.
async fn counted(cloud: &Cloud) -> Value {
    let mut answer = cloud.invoke(json!({"count": true}), 0).await.unwrap();
    answer["nodes"].take()
}

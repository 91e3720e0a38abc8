use std::collections::BTreeSet;

use aws_sdk_ec2::types::{IamInstanceProfile, Instance, InstanceState, InstanceStateName, PlatformValues, Tag};
use aws_sdk_ssm::types::{InstanceInformation, PingStatus, PlatformType};
use prefetch::{outcome::Status, rows::Key};
use serde_json::json;

use super::*;
use crate::tests::cloud::{Cloud, JOB, at, auto_mode, hold, image, moment, node_id};

const RULES: &str = r#"[
    {"name": "default", "repositories": ["team/app"], "newest": 2},
    {"name": "gpu", "repositories": ["team/app", "team/web"], "nodes": {"node-type": ["gpu"]}}
]"#;

#[tokio::test]
async fn a_node_is_told_with_its_rules_and_what_it_holds_of_their_images() {
    let cloud = Cloud::with(RULES, "false");
    cloud.launch(1, |(instance, agent)| {
        instance.instance_type = Some("m6i.large".into());
        instance.private_dns_name = Some("ip-10-0-0-1.eu-central-1.compute.internal".to_owned());
        instance.launch_time = Some(moment(at(-3600)));
        let agent = agent.as_mut().unwrap();
        agent.agent_version = Some("3.3.1611.0".to_owned());
        agent.last_ping_date_time = Some(moment(at(-60)));
    });
    let gpu = Tag::builder().key("node-type").value("gpu").build();
    cloud.launch(2, |(instance, _)| {
        instance.tags.as_mut().unwrap().push(gpu);
        // EC2 names it once it runs.
        instance.private_dns_name = Some(String::new());
    });
    let (one, two, other) = (image("team/app", "v1"), image("team/app", "v2"), image("other", "v1"));
    let said = [
        (&one, Status::Pulled, "", 10),
        (&one, Status::Skipped, "no-space", 40),
        (&two, Status::Failed, "denied", 10),
        (&two, Status::Pulled, "tag-moved", 20),
        (&two, Status::Cached, "", 30),
        (&other, Status::Failed, "registry", 50),
    ];
    hold(&cloud, 1, &said);
    let (status, body) = cloud.get("/nodes").await;
    let expected = json!({"nodes": [
        {
            "id": node_id(1), "name": "ip-10-0-0-1.eu-central-1.compute.internal", "instanceType": "m6i.large", "launchedAt": at(-3600), "rules": ["default"],
            "ssm": {"state": "online", "agentVersion": "3.3.1611.0", "lastPingAt": at(-60)},
            "images": [
                {"image": one, "tags": ["v1"], "state": "missing", "seenAt": at(40), "reason": "no-space"},
                {"image": two, "tags": ["v2"], "state": "warm", "since": at(20), "seenAt": at(30)},
            ],
            "lastFailure": {"image": other, "reason": "registry", "at": at(50), "job": JOB},
        },
        {
            "id": node_id(2), "rules": ["default", "gpu"], "ssm": {"state": "online"},
            "images": [
                {"image": one, "tags": ["v1"], "state": "unknown"},
                {"image": two, "tags": ["v2"], "state": "unknown"},
                {"image": image("team/web", "v1"), "tags": ["v1"], "state": "unknown"},
            ],
        },
    ]});
    assert_eq!((status, body), (200, expected));
}

#[tokio::test]
async fn an_image_with_several_tags_is_told_once_and_is_warm_once_it_is_by_each_of_them() {
    let cloud = Cloud::with(RULES, "false");
    cloud.state(|state| state.set_repository("team/app", ["v1", "v2 latest stable"]));
    let named = |tag: &str| {
        format!(
            "{}/team/app:{tag}@{}",
            crate::tests::cloud::REGISTRY,
            crate::tests::cloud::digest("v2")
        )
    };
    let [latest, stable, two] = ["latest", "stable", "v2"].map(named);
    let one = image("team/app", "v1");
    cloud.launch(3, |_| {});
    hold(
        &cloud,
        1,
        &[
            (&two, Status::Pulled, "", 10),
            (&latest, Status::Pulled, "", 20),
            (&stable, Status::Cached, "", 15),
        ],
    );
    hold(
        &cloud,
        2,
        &[(&two, Status::Pulled, "", 10), (&latest, Status::Failed, "denied", 20)],
    );
    hold(
        &cloud,
        3,
        &[(&two, Status::Pulled, "", 10), (&latest, Status::Pulled, "", 20)],
    );
    let (_, body) = cloud.get("/nodes").await;
    let tags = ["latest", "stable", "v2"];
    for (place, expected) in [
        json!({"image": latest, "tags": tags, "state": "warm", "since": at(20), "seenAt": at(10)}),
        json!({"image": latest, "tags": tags, "state": "missing", "seenAt": at(20), "reason": "denied"}),
        json!({"image": latest, "tags": tags, "state": "unknown"}),
    ]
    .into_iter()
    .enumerate()
    {
        let images = json!([expected, {"image": one, "tags": ["v1"], "state": "unknown"}]);
        assert_eq!(body["nodes"][place]["images"], images);
    }
}

#[tokio::test]
async fn a_page_costs_the_same_calls_however_many_nodes_there_are() {
    let cloud = Cloud::new();
    for k in 1..=1205 {
        cloud.launch(k, |_| {});
    }
    let mut seen = BTreeSet::new();
    let mut target = Some("/nodes?limit=500".to_owned());
    let mut calls = Vec::new();
    while let Some(page) = target {
        let (status, body) = cloud.get(&page).await;
        assert_eq!(status, 200);
        let nodes = body["nodes"].as_array().unwrap();
        seen.extend(nodes.iter().map(|node| node["id"].as_str().unwrap().to_owned()));
        target = body["next"]
            .as_str()
            .map(|next| format!("/nodes?limit=500&next={next}"));
        let made = cloud.calls();
        let names = [
            "DescribeInstances",
            "DescribeInstanceInformation",
            "BatchGetItem",
            "DescribeImages",
        ];
        calls.push((
            nodes.len(),
            names.map(|name| made.iter().filter(|call| **call == name).count()),
        ));
    }
    assert_eq!(seen.len(), 1205);
    // The first page asks ECR for the rule's repositories.
    let expected = [(500, [1, 10, 5, 2]), (500, [1, 10, 5, 0]), (205, [1, 5, 3, 0])];
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn what_an_answer_does_not_hold_is_told_on_the_next_page() {
    let cloud = Cloud::with(
        r#"[{"name": "default", "repositories": ["team/app"], "newest": 50}]"#,
        "false",
    );
    let tags = (10..60).map(|k| format!("{k}{}", "t".repeat(126)));
    cloud.state(|state| state.set_repository("team/app", tags));
    for k in 1..=607 {
        cloud.launch(k, |_| {});
    }
    let mut seen = Vec::new();
    let mut pages = Vec::new();
    let mut target = Some("/nodes?limit=500".to_owned());
    while let Some(page) = target {
        let (_, body) = cloud.get(&page).await;
        assert!(serde_json::to_string(&body).unwrap().len() < 5 * 1024 * 1024);
        let nodes = body["nodes"].as_array().unwrap();
        pages.push(nodes.len());
        seen.extend(nodes.iter().map(|node| node["id"].as_str().unwrap().to_owned()));
        target = body["next"]
            .as_str()
            .map(|next| format!("/nodes?limit=500&next={next}"));
    }
    assert_eq!(seen, (1..=607).map(node_id).collect::<Vec<_>>());
    assert!(pages.len() == 4 && pages[..3].iter().sum::<usize>() == 500, "{pages:?}");
}

#[tokio::test]
async fn a_cluster_without_nodes_asks_ec2_and_nobody_else() {
    let cloud = Cloud::new();
    cloud.state(|state| state.instances.clear());
    let message = "EC2 knows no running instance with the tag aws:eks:cluster-name=prod, nor one of any other cluster";
    let expected = json!({"nodes": [], "message": message, "clusters": []});
    assert_eq!(cloud.get("/nodes").await, (200, expected));
    assert_eq!(cloud.calls(), ["DescribeInstances", "DescribeInstances"]);
    cloud.fail("DescribeInstances", 1, "RequestLimitExceeded");
    assert_eq!(cloud.get("/nodes").await.0, 503);
}

#[tokio::test]
async fn every_state_of_an_agent_has_its_likely_cause() {
    type Node = (Instance, Option<InstanceInformation>);
    type Case<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Node));
    let launched = |seconds: i64| Some(moment(at(-seconds)));
    let pinged = |node: &mut Node, status: PingStatus, seconds: i64| {
        let agent = node.1.as_mut().unwrap();
        agent.ping_status = Some(status);
        agent.last_ping_date_time = Some(moment(at(-seconds)));
    };
    let changes: [Case; 12] = [
        ("online", "", &|_| {}),
        ("never-registered", "role-or-network", &|node| node.1 = None),
        ("never-registered", "no-instance-profile", &|node| {
            node.1 = None;
            node.0.iam_instance_profile = None;
        }),
        ("never-registered", "starting", &|node| {
            node.1 = None;
            node.0.launch_time = launched(299);
        }),
        ("never-registered", "starting", &|node| {
            node.1 = None;
            node.0.state = Some(InstanceState::builder().name(InstanceStateName::Pending).build());
        }),
        ("offline", "agent-stopped", &|node| {
            pinged(node, PingStatus::Inactive, 600);
        }),
        ("offline", "agent-stopped", &|node| {
            pinged(node, PingStatus::ConnectionLost, 600);
        }),
        ("offline", "starting", &|node| {
            pinged(node, PingStatus::ConnectionLost, 600);
            node.0.launch_time = launched(299);
        }),
        ("online", "agent-too-old", &|node| {
            node.1.as_mut().unwrap().agent_version = Some("2.0.805.0".to_owned());
        }),
        ("unsupported", "auto-mode", &|node| {
            node.1 = None;
            node.0.operator = Some(auto_mode());
        }),
        ("unsupported", "not-linux", &|node| {
            node.1 = None;
            node.0.platform = Some(PlatformValues::Windows);
        }),
        ("unsupported", "not-linux", &|node| {
            node.1.as_mut().unwrap().platform_type = Some(PlatformType::Macos);
        }),
    ];
    let cloud = Cloud::new();
    for (place, (_, _, change)) in changes.iter().enumerate() {
        cloud.launch(place + 1, |node| {
            node.0.iam_instance_profile = Some(IamInstanceProfile::builder().build());
            node.0.launch_time = launched(300);
            change(node);
        });
    }
    let (_, body) = cloud.get("/nodes").await;
    for (place, (state, cause, _)) in changes.iter().enumerate() {
        let ssm = &body["nodes"][place]["ssm"];
        let told = (
            ssm["state"].as_str().unwrap(),
            ssm["cause"].as_str().unwrap_or_default(),
        );
        assert_eq!(told, (*state, *cause), "{ssm}");
        assert_eq!(ssm["message"].is_string(), !cause.is_empty());
    }
    let message = &body["nodes"][5]["ssm"]["message"];
    assert_eq!(message, "SSM has heard nothing of its agent since 2026-11-16T01:44:34Z");
}

#[tokio::test]
async fn a_node_that_allows_no_ssm_is_not_looked_up_there() {
    let cloud = Cloud::new();
    cloud.state(|state| state.instances.clear());
    cloud.launch(1, |(instance, _)| instance.operator = Some(auto_mode()));
    cloud.get("/nodes").await;
    assert!(!cloud.calls().contains(&"DescribeInstanceInformation"));
}

#[tokio::test]
async fn a_page_that_there_is_not_is_refused() {
    let foreign = token(&"another list's");
    let nothing = token(&json!({}));
    for query in [
        "limit=4",
        "limit=501",
        "limit=many",
        "next=garbage",
        &format!("next={foreign}"),
        &format!("next={nothing}"),
        "page=2",
    ] {
        let cloud = Cloud::new();
        assert_eq!(cloud.get(&format!("/nodes?{query}")).await.0, 400, "{query}");
        assert!(cloud.calls().is_empty());
    }
    // EC2's own word on a token that was never its.
    let cloud = Cloud::new();
    let made_up = token(&json!({"instances": "made up", "skip": 0}));
    let (status, problem) = cloud.get(&format!("/nodes?next={made_up}")).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("next")));
}

#[tokio::test]
async fn where_aws_cannot_be_asked_the_problem_is_ours() {
    for (call, code) in [
        ("DescribeInstances", "RequestLimitExceeded"),
        ("DescribeInstances", "InvalidParameterValue"),
        ("DescribeInstanceInformation", "ThrottlingException"),
        ("BatchGetItem", "ProvisionedThroughputExceededException"),
        ("DescribeImages", "ServerException"),
    ] {
        let cloud = Cloud::new();
        cloud.fail(call, 0, code);
        let (status, problem) = cloud.get("/nodes").await;
        assert_eq!(status, 503, "{call}");
        assert!(!problem.to_string().contains("arn:"), "{problem}");
    }
    let cloud = Cloud::new();
    cloud.put(&Key::inventory(&node_id(1)), json!({"version": "none"}));
    assert_eq!(cloud.get("/nodes").await.0, 503);
}

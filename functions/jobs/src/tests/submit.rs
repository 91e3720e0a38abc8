//! POST /jobs: what becomes which commands.

use aws_sdk_ecr::types::ImageStatus;
use prefetch::mocks::ecr::CHART;
use serde_json::{Value, json};

use crate::tests::cloud::{Cloud, REGISTRY, TARGETS, TWO_RULES, command_id, digest, image};

#[tokio::test]
async fn a_job_by_images_becomes_one_command_for_all_nodes_of_each_rule_that_takes_them() {
    let cloud = Cloud::with(TWO_RULES, "false");
    let (status, answer) = cloud.post(json!({"images": ["team/app:v1", "team/web:v1"]})).await;
    let (app, web) = (image("team/app", "v1"), image("team/web", "v1"));
    let expected = json!({
        "dryRun": false,
        "jobs": [
            {"id": command_id(1), "rule": "all", "images": [app, web],
                "nodes": {"tags": {"aws:eks:cluster-name": ["prod"], "team": ["web"]}}},
            {"id": command_id(2), "rule": "apps", "images": [app], "nodes": {"tags": {"aws:eks:cluster-name": ["prod"]}}},
        ],
        "images": [{"asked": "team/app:v1", "image": app}, {"asked": "team/web:v1", "image": web}],
        "nodes": [],
    });
    assert_eq!((status, answer), (202, expected));
    let sent = cloud.sent();
    assert_eq!(sent[0].0, "job rule=all attempt=1");
    assert_eq!(sent[0].2, [TARGETS, "tag:team=web"]);
    assert_eq!(
        sent[1],
        (
            "job rule=apps attempt=1".to_owned(),
            vec![app],
            vec![TARGETS.to_owned()]
        )
    );
    assert_eq!(
        cloud.calls(),
        [
            "DescribeImages",
            "DescribeImages",
            "SendCommand",
            "UpdateItem",
            "SendCommand",
            "UpdateItem"
        ]
    );
}

#[tokio::test]
async fn a_job_by_rule_brings_its_newest_images() {
    let cloud = Cloud::with(TWO_RULES, "false");
    let (status, answer) = cloud.post(json!({"rule": "apps"})).await;
    assert_eq!((status, &answer["images"]), (202, &json!([])));
    assert_eq!(
        answer["jobs"][0]["images"],
        json!([image("team/app", "v2"), image("team/app", "v1")])
    );

    cloud.state(|state| state.registry.repositories.clear());
    let cloud = Cloud::with(r#"[{"name": "none", "repositories": ["none"]}]"#, "false");
    let (status, answer) = cloud.post(json!({"rule": "none"})).await;
    assert_eq!((status, &answer["errors"][0]["field"]), (400, &json!("rule")));
}

#[tokio::test]
async fn a_digest_is_sent_as_it_is_requested_with_its_tag_where_that_is_named() {
    let cloud = Cloud::new();
    let by_digest = format!("team/app@{}", digest("v1"));
    let by_both = format!("{}/team/app:v2@{}", REGISTRY, digest("v2"));
    // Asked for twice an image is sent once.
    let (status, answer) = cloud.post(json!({"images": [by_digest, by_both, by_digest]})).await;
    let bare = format!("{}/team/app@{}", REGISTRY, digest("v1"));
    assert_eq!(status, 202);
    assert_eq!(answer["jobs"][0]["images"], json!([bare, image("team/app", "v2")]));

    let moved = format!("team/app:v2@{}", digest("v1"));
    let (status, answer) = cloud.post(json!({"images": [moved]})).await;
    assert_eq!((status, &answer["errors"][0]["field"]), (400, &json!("images[0]")));
}

#[tokio::test]
async fn what_somebody_names_is_no_build_cache_by_its_tag() {
    let cloud = Cloud::new();
    let tag = "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451";
    cloud.state(|state| {
        state.push("team/cache", tag);
    });
    let (status, answer) = cloud.post(json!({"images": [format!("team/cache:{tag}")]})).await;
    assert_eq!(status, 202, "{answer}");
}

#[tokio::test]
async fn of_what_is_not_all_there_nothing_is_sent() {
    for leaves_out in [false, true] {
        let cloud = Cloud::new();
        cloud.state(|state| {
            state.registry.leaves_out = leaves_out;
            state.push("team/app", "chart");
            state.app()[2].artifact = Some(CHART);
        });
        let images = [
            "team/app:v1",
            "team/app:v9",
            "team/none:v1",
            "team/app:chart",
            "team/web:v1",
        ];
        let (status, answer) = cloud.post(json!({"images": images})).await;
        assert_eq!(status, 400);
        let fields: Vec<&Value> = answer["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| &error["field"])
            .collect();
        assert_eq!(fields, ["images[1]", "images[2]", "images[3]"]);
        assert!(cloud.sent().is_empty());
    }
}

#[tokio::test]
async fn an_image_in_ecrs_archive_is_refused_and_says_so() {
    for leaves_out in [false, true] {
        let cloud = Cloud::new();
        cloud.state(|state| {
            state.registry.leaves_out = leaves_out;
            state.app()[1].status = ImageStatus::Archived;
        });
        let images = [
            "team/app:v1".to_owned(),
            "team/app:v2".to_owned(),
            format!("team/app@{}", digest("v2")),
        ];
        let (status, answer) = cloud.post(json!({"images": images})).await;
        assert_eq!(status, 400);
        for (place, error) in answer["errors"].as_array().unwrap().iter().enumerate() {
            assert_eq!(error["field"], format!("images[{}]", place + 1));
            assert_eq!(
                error["accepted"],
                "an image that can be pulled: it is archived, restore it first"
            );
        }
        assert!(cloud.sent().is_empty());
    }
}

#[tokio::test]
async fn an_image_may_be_requested_by_any_host_of_its_registry() {
    let cloud = Cloud::new();
    for host in [
        "123456789012.dkr-ecr.eu-central-1.on.aws",
        "123456789012.dkr.ecr-fips.eu-central-1.amazonaws.com",
        "123456789012.dkr-ecr-fips.eu-central-1.on.aws",
    ] {
        let (status, answer) = cloud.post(json!({"images": [format!("{host}/team/app:v1")]})).await;
        assert_eq!(
            (status, &answer["jobs"][0]["images"]),
            (202, &json!([image("team/app", "v1")]))
        );
    }
    let other = "210987654321.dkr-ecr.eu-central-1.on.aws/team/app:v1";
    assert_eq!(cloud.post(json!({"images": [other]})).await.0, 400);
}

#[tokio::test]
async fn a_dry_run_decides_everything_and_sends_nothing() {
    let cloud = Cloud::new();
    let body = json!({"images": ["team/app:v1"], "dryRun": true});
    let (status, answer) = cloud.http("POST", "/jobs", body, Some("key")).await;
    assert_eq!((status, &answer["dryRun"]), (200, &json!(true)));
    let expected = json!([{
        "rule": "default", "images": [image("team/app", "v1")], "nodes": {"tags": {"aws:eks:cluster-name": ["prod"]}},
    }]);
    assert_eq!(answer["jobs"], expected);
    assert_eq!(cloud.calls(), ["DescribeImages"]);
}

#[tokio::test]
async fn nodes_by_tags_stand_in_the_place_of_the_rules_but_not_of_the_clusters() {
    let cloud = Cloud::with(TWO_RULES, "false");
    let (status, _) = cloud
        .post(json!({"images": ["team/app:v1"], "nodes": {"tags": {"zone": ["a", "b"]}}}))
        .await;
    assert_eq!(status, 202);
    let sent = cloud.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].2, [TARGETS, "tag:zone=a,b"]);
    let (status, _) = cloud
        .post(json!({"rule": "all", "nodes": {"tags": {"aws:eks:cluster-name": ["x"]}}}))
        .await;
    assert_eq!(status, 400);
}

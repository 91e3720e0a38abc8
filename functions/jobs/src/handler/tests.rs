use aws_sdk_ssm::types::CommandStatus;
use prefetch::{rows::Key, settings::Mode};
use proptest::prelude::*;

use super::*;
use crate::cloud::{Cloud, FUNCTION, auto_mode, command_id, digest, image, node_id, now, request, signed};

mod boot;
mod observed;

/// The tags by which SSM finds the nodes of the usual rule.
const TARGETS: &str = "tag:aws:eks:cluster-name=prod";
const TWO_RULES: &str = r#"[
    {"name": "all", "repositories": ["team/*"], "nodes": {"team": ["web"]}},
    {"name": "apps", "repositories": ["team/app"], "newest": 2}
]"#;

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
async fn every_event_file_is_answered_by_the_door_it_comes_by() {
    for (event, sent) in [
        (
            include_str!("../../../../events/jobs.images.json"),
            "job rule=default attempt=1",
        ),
        (
            include_str!("../../../../events/jobs.http.json"),
            "job rule=default attempt=1",
        ),
        (include_str!("../../../../events/jobs.rule.json"), ""),
        (include_str!("../../../../events/jobs.stats.json"), ""),
        (include_str!("../../../../events/jobs.count.json"), ""),
        (
            include_str!("../../../../events/jobs.scheduled.json"),
            "schedule rule=default attempt=1",
        ),
        (
            include_str!("../../../../events/jobs.reconcile.json"),
            "reconcile rule=default attempt=1",
        ),
        (
            include_str!("../../../../events/jobs.deployed.json"),
            "reconcile rule=default attempt=1",
        ),
    ] {
        let cloud = Cloud::new();
        let answer = cloud.invoke(serde_json::from_str(event).unwrap(), 0).await.unwrap();
        assert!(answer["status"].is_null(), "{answer}");
        let comments: Vec<String> = cloud.sent().into_iter().map(|(comment, ..)| comment).collect();
        let expected: Vec<&str> = [sent].into_iter().filter(|comment| !comment.is_empty()).collect();
        assert_eq!(comments, expected, "{event}");
    }
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

    cloud.state(|state| state.repositories.clear());
    let cloud = Cloud::with(r#"[{"name": "none", "repositories": ["none"]}]"#, "false");
    let (status, answer) = cloud.post(json!({"rule": "none"})).await;
    assert_eq!((status, &answer["errors"][0]["field"]), (400, &json!("rule")));
}

#[tokio::test]
async fn a_digest_is_sent_as_it_is_asked_for_with_its_tag_where_that_is_named() {
    let cloud = Cloud::new();
    let by_digest = format!("team/app@{}", digest("v1"));
    let by_both = format!("{}/team/app:v2@{}", crate::cloud::REGISTRY, digest("v2"));
    // Asked for twice an image is sent once.
    let (status, answer) = cloud.post(json!({"images": [by_digest, by_both, by_digest]})).await;
    let bare = format!("{}/team/app@{}", crate::cloud::REGISTRY, digest("v1"));
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
        state.repositories.insert("team/cache".to_owned(), vec![tag.to_owned()]);
    });
    let (status, answer) = cloud.post(json!({"images": [format!("team/cache:{tag}")]})).await;
    assert_eq!(status, 202, "{answer}");
}

#[tokio::test]
async fn of_what_is_not_all_there_nothing_is_sent() {
    for leaves_out in [false, true] {
        let cloud = Cloud::new();
        cloud.state(|state| {
            state.leaves_out = leaves_out;
            state.repositories.get_mut("team/app").unwrap().push("chart".to_owned());
            state.charts.insert("chart".to_owned());
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
            state.leaves_out = leaves_out;
            state.archived.insert("v2".to_owned());
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
async fn an_image_may_be_asked_for_by_any_host_of_its_registry() {
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

#[tokio::test]
async fn of_nodes_by_id_those_that_can_be_reached_are_sent_it_and_of_the_others_it_is_told_why() {
    let cloud = Cloud::new();
    cloud.launch(3, |(instance, _)| {
        instance.tags.as_mut().unwrap()[0].value = Some("test".to_owned());
    });
    cloud.launch(4, |(instance, _)| {
        let stopped = aws_sdk_ec2::types::InstanceState::builder()
            .name("stopped".into())
            .build();
        instance.state = Some(stopped);
    });
    cloud.launch(5, |(instance, _)| instance.operator = Some(auto_mode()));
    cloud.launch(6, |(_, information)| *information = None);
    cloud.launch(7, |(_, information)| {
        information.as_mut().unwrap().ping_status = Some("ConnectionLost".into());
    });
    cloud.launch(8, |(_, information)| {
        information.as_mut().unwrap().platform_type = Some("Windows".into());
    });
    // 9 is gone.
    let ids: Vec<String> = (1..=9).map(node_id).collect();
    let (status, answer) = cloud
        .post(json!({"images": ["team/app:v1"], "nodes": {"ids": ids}}))
        .await;
    assert_eq!(status, 202);
    assert_eq!(answer["jobs"][0]["nodes"], json!({"ids": [node_id(1), node_id(2)]}));
    assert_eq!(cloud.sent()[0].2, [node_id(1), node_id(2)]);
    let reasons: std::collections::BTreeMap<&str, &str> = answer["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node["reason"].as_str().unwrap()))
        .collect();
    let ids: Vec<String> = (3..=9).map(node_id).collect();
    let expected = [
        "foreign",
        "not-running",
        "unsupported",
        "not-online",
        "not-online",
        "unsupported",
        "gone",
    ];
    assert_eq!(reasons, ids.iter().map(String::as_str).zip(expected).collect());

    let (status, answer) = cloud
        .post(json!({"images": ["team/app:v1"], "nodes": {"ids": ids}}))
        .await;
    assert_eq!((status, answer["errors"].as_array().unwrap().len()), (400, 7));
    assert_eq!(cloud.sent().len(), 1);
}

#[tokio::test]
async fn many_images_and_nodes_become_commands_that_ssm_takes() {
    let cloud = Cloud::new();
    for k in 1..=120 {
        cloud.launch(k, |_| {});
    }
    cloud.state(|state| {
        state
            .repositories
            .insert("team/app".to_owned(), (0..100).map(|k| format!("v{k}")).collect())
    });
    let images: Vec<String> = (0..100).map(|k| format!("team/app:v{k}")).collect();
    let ids: Vec<String> = (1..=120).map(node_id).collect();
    let (status, answer) = cloud
        .http(
            "POST",
            "/jobs",
            json!({"images": images, "nodes": {"ids": ids}}),
            Some("k"),
        )
        .await;
    let told = answer["jobs"].as_array().unwrap().len();
    assert_eq!((status, told), (202, cloud.sent().len()));
    assert!(told < 60);
    assert_eq!(
        cloud
            .sent()
            .iter()
            .map(|(_, images, nodes)| images.len() * nodes.len())
            .sum::<usize>(),
        100 * 120
    );
}

#[tokio::test]
async fn what_takes_more_commands_than_can_be_sent_in_time_is_refused() {
    let rules: Vec<Value> = (0..75).map(|k| json!({"name": format!("rule-{k}")})).collect();
    let cloud = Cloud::with(Box::leak(json!(rules).to_string().into_boxed_str()), "false");
    cloud.state(|state| {
        state
            .repositories
            .insert("team/app".to_owned(), (0..100).map(|k| format!("v{k}")).collect())
    });
    let images: Vec<String> = (0..100).map(|k| format!("team/app:v{k}")).collect();
    for key in [None, Some("key")] {
        let (status, answer) = cloud.http("POST", "/jobs", json!({"images": images}), key).await;
        assert_eq!(status, 400);
        assert!(answer["detail"].as_str().unwrap().contains("300 commands"));
        assert!(cloud.sent().is_empty());
    }
    // A request with a key goes on where it was left, and may have more time in all.
    let some: Vec<&String> = images.iter().take(1).collect();
    let body = json!({"images": some});
    assert_eq!(cloud.post(body.clone()).await.0, 400);
    let (status, answer) = cloud.http("POST", "/jobs", body, Some("more")).await;
    assert_eq!((status, cloud.sent().len()), (202, 75), "{answer}");
}

#[tokio::test]
async fn a_schedules_job_of_many_commands_is_sent_as_long_as_the_function_runs_and_the_rest_at_the_next_try() {
    let cloud = Cloud::with(
        r#"[{"name": "default", "repositories": ["team/*"], "newest": 10}]"#,
        "false",
    );
    cloud.state(|state| {
        for k in 0..190 {
            let tags = (0..10).map(|tag| format!("v{tag}-{k}")).collect();
            state.repositories.insert(format!("team/app-{k}"), tags);
        }
    });
    let input = json!({"schedule": {"name": "nightly", "time": "2026-11-16T07:00:00Z"}, "body": {"rule": "default"}});
    let none_left = prefetch::aws::within(std::time::Duration::from_secs(5), cloud.invoke(input.clone(), 0)).await;
    let error = none_left.unwrap_err().to_string();
    assert!(error.contains("not all was sent"), "{error}");
    assert!(cloud.sent().is_empty());
    let answer = cloud.invoke(input.clone(), 60).await.unwrap();
    let sent = cloud.sent().len();
    assert!((61..=200).contains(&sent), "{sent}");
    assert_eq!(answer["jobs"].as_array().unwrap().len(), sent);
    assert_eq!(cloud.invoke(input, 120).await.unwrap(), answer);
    assert_eq!(cloud.sent().len(), sent);
}

#[tokio::test]
async fn where_a_node_vanishes_in_between_the_others_are_sent_it_still() {
    let cloud = Cloud::new();
    let body = |ids: &[usize]| {
        let ids: Vec<String> = ids.iter().map(|k| node_id(*k)).collect();
        json!({"images": ["team/app:v1"], "nodes": {"ids": ids}})
    };
    cloud.state(|state| state.vanishing.insert(node_id(2)));
    let (status, answer) = cloud.http("POST", "/jobs", body(&[1, 2]), Some("key")).await;
    assert_eq!(
        (status, &answer["jobs"][0]["nodes"]),
        (202, &json!({"ids": [node_id(1)]}))
    );
    let vanished = json!([{"id": node_id(2), "reason": "not-online", "message": "SSM has lost the connection to it"}]);
    assert_eq!(answer["nodes"], vanished);
    assert_eq!(cloud.sent()[0].2, [node_id(1)]);
    assert_eq!(
        cloud.http("POST", "/jobs", body(&[1, 2]), Some("key")).await,
        (202, answer)
    );
    assert_eq!(cloud.sent().len(), 1);

    // Of the only one nothing is left, and whoever comes again begins anew.
    cloud.state(|state| state.vanishing.insert(node_id(1)));
    assert_eq!(cloud.http("POST", "/jobs", body(&[1]), Some("other")).await.0, 503);
    cloud.launch(1, |_| {});
    assert_eq!(cloud.http("POST", "/jobs", body(&[1]), Some("other")).await.0, 202);
}

#[tokio::test]
async fn a_node_that_ssm_or_iam_refuses_keeps_no_other_from_its_images_and_is_told_with_the_reason() {
    for (denied, refused) in [(vec![2, 5], vec![]), (vec![], vec![2, 5]), (vec![5], vec![2])] {
        let cloud = Cloud::new();
        for k in 3..=8 {
            cloud.launch(k, |_| {});
        }
        cloud.state(|state| {
            state.denied.extend(denied.iter().copied().map(node_id));
            state.refused.extend(refused.iter().copied().map(node_id));
        });
        let ids: Vec<String> = (1..=8).map(node_id).collect();
        let body = json!({"images": ["team/app:v1"], "nodes": {"ids": ids}});
        let (status, answer) = cloud.http("POST", "/jobs", body.clone(), Some("key")).await;
        assert_eq!(status, 202, "{answer}");
        let served = |told: &Value| {
            let jobs = told["jobs"].as_array().unwrap().iter();
            let mut ids: Vec<Value> = jobs
                .flat_map(|job| job["nodes"]["ids"].as_array().unwrap().clone())
                .collect();
            ids.sort_by_key(ToString::to_string);
            ids
        };
        let others: Vec<String> = [1, 3, 4, 6, 7, 8].map(node_id).into();
        assert_eq!(served(&answer), others);
        let mut sent: Vec<String> = cloud.sent().into_iter().flat_map(|(_, _, nodes)| nodes).collect();
        sent.sort_unstable();
        assert_eq!(sent, others);
        let mut reasons: Vec<(Value, Value)> = answer["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| (node["id"].clone(), node["reason"].clone()))
            .collect();
        reasons.sort_by_key(|(id, _)| id.to_string());
        let expected = [2, 5].map(|k| {
            let reason = if denied.contains(&k) {
                "access-denied"
            } else {
                "refused"
            };
            (json!(node_id(k)), json!(reason))
        });
        assert_eq!(reasons, expected);
        assert!(!answer.to_string().contains("arn:"));
        // Whoever comes again is told the same.
        let count = cloud.sent().len();
        assert_eq!(cloud.http("POST", "/jobs", body, Some("key")).await, (202, answer));
        assert_eq!(cloud.sent().len(), count);
    }
}

#[tokio::test]
async fn where_every_node_is_refused_the_caller_is_told_of_each() {
    let cloud = Cloud::new();
    cloud.state(|state| state.denied.extend([node_id(1), node_id(2)]));
    let body = json!({"images": ["team/app:v1"], "nodes": {"ids": [node_id(1), node_id(2)]}});
    let (status, answer) = cloud.http("POST", "/jobs", body.clone(), Some("key")).await;
    assert_eq!((status, answer["errors"].as_array().unwrap().len()), (400, 2));
    assert!(answer.to_string().contains("IAM does not permit"));
    assert!(cloud.sent().is_empty());
    // Once they are permitted, the same request is served.
    cloud.state(|state| state.denied.clear());
    assert_eq!(cloud.http_at("POST", "/jobs", body, Some("key"), 1).await.0, 202);
}

#[tokio::test]
async fn where_aws_fails_between_halves_the_same_request_sends_the_rest_alone() {
    // The whole, a half, the other half.
    for before in 1..=2 {
        let cloud = Cloud::new();
        for k in 3..=4 {
            cloud.launch(k, |_| {});
        }
        cloud.state(|state| state.refused.insert(node_id(3)));
        cloud.fail("SendCommand", before, "ThrottlingException");
        let ids: Vec<String> = (1..=4).map(node_id).collect();
        let body = json!({"images": ["team/app:v1"], "nodes": {"ids": ids}});
        let (status, problem) = cloud.http("POST", "/jobs", body.clone(), Some("key")).await;
        assert_eq!(status, 503);
        let told = problem["jobs"].as_array().map_or(0, Vec::len);
        assert_eq!(told, cloud.sent().len(), "{problem}");
        let (status, answer) = cloud.http_at("POST", "/jobs", body, Some("key"), 2).await;
        assert_eq!(
            (status, answer["jobs"].as_array().unwrap().len()),
            (202, cloud.sent().len())
        );
        let mut sent: Vec<String> = cloud.sent().into_iter().flat_map(|(_, _, nodes)| nodes).collect();
        sent.sort_unstable();
        assert_eq!(sent, [1, 2, 4].map(node_id));
        assert_eq!(answer["nodes"][0]["reason"], "refused");
    }
}

#[tokio::test]
async fn a_command_without_a_refused_node_whose_answer_is_lost_is_not_sent_again() {
    let cloud = Cloud::new();
    cloud.launch(3, |_| {});
    cloud.state(|state| state.denied.insert(node_id(3)));
    cloud.fail("SendCommand", 1, "Lost");
    // Nor is it found at once.
    cloud.fail("ListCommands", 0, "ThrottlingException");
    let ids: Vec<String> = (1..=3).map(node_id).collect();
    let body = json!({"images": ["team/app:v1"], "nodes": {"ids": ids}});
    assert_eq!(cloud.http("POST", "/jobs", body.clone(), Some("key")).await.0, 503);
    let (status, answer) = cloud.http_at("POST", "/jobs", body, Some("key"), 2).await;
    assert_eq!((status, cloud.sent().len()), (202, 1));
    assert_eq!(answer["jobs"][0]["nodes"], json!({"ids": [node_id(1), node_id(2)]}));
    assert_eq!(answer["nodes"][0]["reason"], "access-denied");
}

#[tokio::test]
async fn a_repeated_request_with_its_key_makes_one_job() {
    let cloud = Cloud::new();
    let body = json!({"images": ["team/app:v1"]});
    let first = cloud.http("POST", "/jobs", body.clone(), Some("key")).await;
    assert_eq!(first.0, 202);
    // The tag is another image's by now; the answer stays.
    cloud.state(|state| state.repositories.clear());
    let second = cloud
        .http_at(
            "POST",
            "/jobs",
            json!({"images": ["team/app:v1"], "dryRun": false}),
            Some("key"),
            100,
        )
        .await;
    assert_eq!(first, second);
    assert_eq!(cloud.sent().len(), 1);

    let other = cloud
        .http_at("POST", "/jobs", json!({"rule": "default"}), Some("key"), 200)
        .await;
    assert_eq!(other.0, 422);
    // A schedule's key is never a caller's.
    let forged = json!({"schedule": {"name": "key", "time": "x"}, "body": {"images": ["team/app:v1"]}});
    assert!(
        cloud
            .invoke(forged, 300)
            .await
            .unwrap_err()
            .to_string()
            .contains("images[0]")
    );
    // After a day the key is new, deleted or not.
    let late = cloud.http_at("POST", "/jobs", body, Some("key"), 86_401).await;
    assert_eq!(late.0, 400);
    assert!(cloud.rows("request#").is_empty());
}

#[tokio::test]
async fn two_requests_with_one_key_at_one_moment_make_one_job() {
    let cloud = Cloud::new();
    let payload = request("POST", "/jobs", &json!({"images": ["team/app:v1"]}), Some("key"));
    let at = now();
    let (one, other) = tokio::join!(
        cloud.jobs.handle_at(payload.clone(), FUNCTION, at),
        cloud
            .jobs
            .handle_at(payload, FUNCTION, at + chrono::TimeDelta::nanoseconds(1)),
    );
    let mut statuses = [one, other].map(|answer| answer.unwrap()["statusCode"].as_u64().unwrap());
    statuses.sort_unstable();
    assert!([[202, 202], [202, 409]].contains(&statuses), "{statuses:?}");
    assert_eq!(cloud.sent().len(), 1);
}

#[tokio::test]
async fn whoever_comes_again_after_a_fault_sends_what_is_left_and_nothing_twice() {
    let body = json!({"images": ["team/app:v1", "team/web:v1"]});
    for (call, before, code) in [
        ("SendCommand", 0, "ThrottlingException"),
        ("SendCommand", 1, "AccessDeniedException"),
        ("SendCommand", 0, "InternalServerError"),
        ("SendCommand", 1, "InternalServerError"),
        ("UpdateItem", 0, "ProvisionedThroughputExceededException"),
        ("UpdateItem", 1, "ProvisionedThroughputExceededException"),
        ("UpdateItem", 2, "ProvisionedThroughputExceededException"),
        ("UpdateItem", 4, "ProvisionedThroughputExceededException"),
        ("PutItem", 0, "AccessDeniedException"),
        ("DescribeImages", 0, "ServerException"),
    ] {
        let cloud = Cloud::with(TWO_RULES, "false");
        cloud.fail(call, before, code);
        let (status, problem) = cloud.http("POST", "/jobs", body.clone(), Some("key")).await;
        // A row that does not say by which request it was made fails nothing.
        let is_mark = (call, before) == ("UpdateItem", 1);
        assert_eq!(status, if is_mark { 202 } else { 503 }, "{call} {before}");
        assert!(!problem.to_string().contains("arn:"), "{problem}");
        let told: Vec<&str> = problem["jobs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|job| job["id"].as_str().unwrap())
            .collect();
        assert!(told.len() <= cloud.sent().len());

        let (status, answer) = cloud.http_at("POST", "/jobs", body.clone(), Some("key"), 2).await;
        assert_eq!(status, 202, "{call} {before}: {answer}");
        assert_eq!(answer["jobs"].as_array().unwrap().len(), 2);
        for (place, id) in told.iter().enumerate() {
            assert_eq!(answer["jobs"][place]["id"], **id);
        }
        assert_eq!(cloud.sent().len(), 2, "{call} {before}");
        assert_eq!(
            cloud.http_at("POST", "/jobs", body.clone(), Some("key"), 4).await,
            (202, answer)
        );
    }
}

#[tokio::test]
async fn whoever_dies_at_work_is_waited_for_and_then_taken_over_from() {
    let body = json!({"images": ["team/app:v1", "team/web:v1"]});
    let cloud = Cloud::with(TWO_RULES, "false");
    cloud.http("POST", "/jobs", body.clone(), Some("key")).await;
    // As if it had died after the first command was sent, and before that was noted.
    cloud.state(|state| {
        state.commands.truncate(1);
        let mut rows = state.table.rows.iter_mut();
        let (_, row) = rows.find(|(key, _)| key.pk.starts_with("request#")).unwrap();
        row.insert(
            "state".to_owned(),
            aws_sdk_dynamodb::types::AttributeValue::S("working".to_owned()),
        );
        row.insert(
            "sent".to_owned(),
            aws_sdk_dynamodb::types::AttributeValue::M(std::collections::HashMap::new()),
        );
    });
    assert_eq!(
        cloud.http_at("POST", "/jobs", body.clone(), Some("key"), 59).await.0,
        409
    );
    cloud.state(|state| state.repositories.clear());
    let (status, answer) = cloud.http_at("POST", "/jobs", body.clone(), Some("key"), 61).await;
    assert_eq!((status, &answer["jobs"][0]["id"]), (202, &json!(command_id(1))));
    assert_eq!(
        (cloud.sent().len(), &answer["jobs"][1]["id"]),
        (2, &json!(command_id(2)))
    );
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_no_other_request() {
    let body = json!({"images": ["team/app:v1"]});
    let cloud = Cloud::new();
    // The SDK's second try finds the row of its first.
    cloud.state(|state| state.table.writes_twice = true);
    assert_eq!(cloud.http("POST", "/jobs", body, Some("key")).await.0, 202);
    let answer = cloud.invoke(json!({"reconcile": true}), 0).await.unwrap();
    assert_eq!(answer["rules"][0]["decision"], "sent");
}

#[tokio::test]
async fn what_was_pushed_a_moment_ago_is_the_newest() {
    let cloud = Cloud::new();
    cloud.post(json!({"rule": "default"})).await;
    cloud.state(|state| state.repositories.get_mut("team/app").unwrap().push("v3".to_owned()));
    let (_, answer) = cloud.post(json!({"rule": "default"})).await;
    assert_eq!(answer["jobs"][0]["images"][0], image("team/app", "v3"));
}

#[tokio::test]
async fn a_request_that_is_refused_leaves_its_key_free() {
    let cloud = Cloud::new();
    let refused = cloud
        .http("POST", "/jobs", json!({"images": ["team/app:v9"]}), Some("key"))
        .await;
    assert_eq!((refused.0, cloud.rows("request#").len()), (400, 0));
    let taken = cloud
        .http_at("POST", "/jobs", json!({"images": ["team/app:v1"]}), Some("key"), 1)
        .await;
    assert_eq!(taken.0, 202);
}

#[tokio::test]
async fn a_fault_without_a_key_tells_what_was_sent_before() {
    let cloud = Cloud::with(TWO_RULES, "false");
    cloud.fail("SendCommand", 1, "ThrottlingException");
    let (status, problem) = cloud.post(json!({"images": ["team/app:v1"]})).await;
    assert_eq!((status, &problem["jobs"][0]["id"]), (503, &json!(command_id(1))));
    assert_eq!(problem["jobs"].as_array().unwrap().len(), 1);
}

const WHO: &str = "arn:aws:sts::123456789012:assumed-role/deployer/pipeline-7";

#[tokio::test]
async fn who_asked_for_a_job_stands_in_its_row_and_is_told() {
    let body = json!({"images": ["team/app:v1"]});
    for mut cloud in [Cloud::new(), Cloud::observing(crate::cloud::RULES)] {
        let payload = signed(request("POST", "/jobs", &body, Some("key")), WHO);
        let answer = cloud.invoke(payload, 0).await.unwrap();
        let answer: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let id = answer["jobs"][0]["id"].as_str().unwrap();
        let row = cloud.row(&Key::job(id)).unwrap();
        assert_eq!(
            (&row["requested_by"], &row["expires_at"]),
            (&json!(WHO), &json!(now().timestamp() + 30 * 86_400))
        );
        let (_, job) = cloud.get(&format!("/jobs/{id}")).await;
        assert_eq!(
            (&job["requestedBy"], &job["trigger"]),
            (&json!(WHO), &json!("job")),
            "{job}"
        );
        assert_eq!(cloud.get("/jobs").await.1["jobs"][0]["requestedBy"], WHO);
        cloud.turn(Mode::Send);
        // What a plain call says of itself is nobody's word, and another's answer changes nothing.
        let payload = json!({"route": "POST /jobs", "body": body, "idempotencyKey": "key"});
        cloud.invoke(payload, 5).await.unwrap();
        assert_eq!(cloud.row(&Key::job(id)).unwrap()["requested_by"], WHO);
    }
    let cloud = Cloud::new();
    let input = json!({"schedule": {"name": "nightly", "time": "2026-11-16T07:00:00Z"}, "body": {"rule": "default"}});
    cloud.invoke(input, 0).await.unwrap();
    let (_, job) = cloud.get(&format!("/jobs/{}", command_id(1))).await;
    assert_eq!(
        (&job["requestedBy"], &job["trigger"]),
        (&json!("nightly"), &json!("schedule"))
    );
    let (_, sent) = cloud.post(body).await;
    let (_, job) = cloud
        .get(&format!("/jobs/{}", sent["jobs"][0]["id"].as_str().unwrap()))
        .await;
    assert_eq!(job.get("requestedBy"), None);
}

#[tokio::test]
async fn of_a_request_that_comes_again_the_first_asked_and_a_row_that_cannot_be_written_fails_no_job() {
    let body = json!({"images": ["team/app:v1"]});
    let other = "arn:aws:iam::123456789012:user/other";
    // The command is found by another's request with the same key.
    let cloud = Cloud::new();
    cloud.fail("SendCommand", 0, "LostThrice");
    cloud.fail("ListCommands", 0, "ThrottlingException");
    let asked = |who: &str| signed(request("POST", "/jobs", &body, Some("key")), who);
    assert_eq!(cloud.invoke(asked(WHO), 0).await.unwrap()["statusCode"], 503);
    assert_eq!(cloud.invoke(asked(other), 2).await.unwrap()["statusCode"], 202);
    for k in 1..=3 {
        assert_eq!(cloud.row(&Key::job(&command_id(k))).unwrap()["requested_by"], WHO);
    }
    // A row that is there already stays as it is.
    cloud.put(
        &Key::job(&command_id(4)),
        json!({"trigger": "job", "requested_by": other, "expires_at": 1}),
    );
    let payload = signed(request("POST", "/jobs", &body, None), WHO);
    assert_eq!(cloud.invoke(payload.clone(), 4).await.unwrap()["statusCode"], 202);
    let row = cloud.row(&Key::job(&command_id(4))).unwrap();
    assert_eq!(
        (&row["requested_by"], &row["trigger"], &row["expires_at"]),
        (&json!(other), &json!("job"), &json!(1))
    );

    cloud.fail("UpdateItem", 0, "AccessDeniedException");
    assert_eq!(cloud.invoke(payload, 6).await.unwrap()["statusCode"], 202);
    assert!(cloud.row(&Key::job(&command_id(5))).is_none());
}

#[tokio::test]
async fn a_command_whose_answer_is_lost_is_found_and_told() {
    let body = json!({"images": ["team/app:v1", "team/web:v1"]});
    for key in [None, Some("key")] {
        for lost in [0, 1] {
            let cloud = Cloud::with(TWO_RULES, "false");
            cloud.fail("SendCommand", lost, "Lost");
            let (status, answer) = cloud.http("POST", "/jobs", body.clone(), key).await;
            let ids = answer["jobs"].as_array().unwrap().iter().map(|job| &job["id"]);
            assert_eq!(status, 202, "{answer}");
            assert!(ids.eq([&json!(command_id(1)), &json!(command_id(2))]), "{answer}");
            assert_eq!(cloud.sent().len(), 2);
            let calls = cloud.calls();
            assert_eq!(calls.iter().filter(|call| **call == "ListCommands").count(), 1);
        }
    }
}

#[tokio::test]
async fn the_same_command_of_another_request_is_not_taken_for_one_whose_answer_is_lost() {
    let body = json!({"images": ["team/app:v1"]});
    for key in [None, Some("key")] {
        let cloud = Cloud::new();
        cloud.post(body.clone()).await;
        cloud.http("POST", "/jobs", body.clone(), Some("other")).await;
        cloud.fail("SendCommand", 0, "LostThrice");
        let (_, answer) = cloud.http("POST", "/jobs", body.clone(), key).await;
        let job = &answer["jobs"][0];
        let expected = (&json!(command_id(3)), &json!([command_id(4), command_id(5)]));
        assert_eq!((&job["id"], &job["duplicates"]), expected, "{answer}");
        // Whose they are cannot be told either where the rows cannot be read.
        cloud.fail("SendCommand", 0, "Lost");
        cloud.fail("BatchGetItem", 0, "ThrottlingException");
        let (status, problem) = cloud.http("POST", "/jobs", body.clone(), key.map(|_| "third")).await;
        assert_eq!((status, problem["unknown"].as_array().map(Vec::len)), (503, Some(1)));
    }
}

#[tokio::test]
async fn of_a_command_that_is_taken_thrice_the_first_is_told_with_the_others() {
    let body = json!({"images": ["team/app:v1"]});
    for key in [None, Some("key")] {
        let cloud = Cloud::new();
        cloud.fail("SendCommand", 0, "LostThrice");
        let (status, answer) = cloud.http("POST", "/jobs", body.clone(), key).await;
        let job = &answer["jobs"][0];
        assert_eq!((status, &job["id"]), (202, &json!(command_id(1))), "{answer}");
        assert_eq!(job["duplicates"], json!([command_id(2), command_id(3)]));
    }
    // It is found by the same request as well, which keeps it.
    let cloud = Cloud::new();
    cloud.fail("SendCommand", 0, "LostThrice");
    cloud.fail("ListCommands", 0, "ThrottlingException");
    assert_eq!(cloud.http("POST", "/jobs", body.clone(), Some("key")).await.0, 503);
    let (status, answer) = cloud.http_at("POST", "/jobs", body.clone(), Some("key"), 2).await;
    let job = &answer["jobs"][0];
    assert_eq!((status, &job["id"]), (202, &json!(command_id(1))));
    assert_eq!(job["duplicates"], json!([command_id(2), command_id(3)]));
    assert_eq!(
        cloud.http_at("POST", "/jobs", body, Some("key"), 4).await,
        (202, answer)
    );
    assert_eq!(cloud.sent().len(), 3);
}

#[tokio::test]
async fn a_command_that_ssm_took_at_a_try_before_the_last_is_found_whatever_the_last_was_answered() {
    let refused = |code: &str| (400, json!({"__type": code}).to_string());
    let lost = || (500, json!({"__type": "InternalServerError"}).to_string());
    let taken = || (200, json!({"Command": {"CommandId": command_id(9)}}).to_string());
    let ids = |ids: &[usize]| json!({"ids": ids.iter().map(|k| node_id(*k)).collect::<Vec<_>>()});
    let tags = || json!({"tags": {"aws:eks:cluster-name": ["prod"]}});
    let throttled = || vec![lost(), refused("ThrottlingException"), refused("ThrottlingException")];
    let duplicate = Some(json!([command_id(1)]));
    for (nodes, tries, id, duplicates, told) in [
        (None, throttled(), 1, None, tags()),
        (None, vec![lost(), taken()], 9, duplicate.clone(), tags()),
        (None, vec![refused("ThrottlingException"), taken()], 9, None, tags()),
        // The second node goes offline in between, beside another and alone.
        (
            Some(ids(&[1, 2])),
            vec![lost(), refused("InvalidInstanceId"), taken()],
            9,
            duplicate,
            ids(&[1]),
        ),
        (
            Some(ids(&[2])),
            vec![lost(), refused("InvalidInstanceId")],
            1,
            None,
            ids(&[2]),
        ),
    ] {
        let mut body = json!({"images": ["team/app:v1"]});
        if let Some(nodes) = nodes {
            body["nodes"] = nodes;
        }
        for key in [None, Some("key")] {
            let mut cloud = Cloud::new();
            // What SSM takes of it, of which nobody knows.
            if tries[0].0 == 500 {
                assert_eq!(cloud.post(body.clone()).await.0, 202);
                cloud.state(|state| state.table.rows.clear());
            }
            cloud.answer_tries(&tries, 1);
            let (status, answer) = cloud.http("POST", "/jobs", body.clone(), key).await;
            let job = &answer["jobs"][0];
            assert_eq!(
                (status, &job["id"], &job["nodes"]),
                (202, &json!(command_id(id)), &told),
                "{answer}"
            );
            assert_eq!(job.get("duplicates"), duplicates.as_ref(), "{answer}");
            let row = cloud.row(&Key::job(&command_id(id))).unwrap();
            assert_eq!(row.get("duplicates"), duplicates.as_ref());
            if key.is_some() {
                assert_eq!(
                    cloud.http_at("POST", "/jobs", body.clone(), key, 2).await,
                    (202, answer)
                );
            }
        }
    }
    // What cannot be looked for is told as unknown.
    let mut cloud = Cloud::new();
    cloud.answer_tries(&throttled(), 1);
    cloud.fail("ListCommands", 0, "ThrottlingException");
    let (status, problem) = cloud.post(json!({"images": ["team/app:v1"]})).await;
    assert_eq!(
        (status, problem["unknown"].as_array().map(Vec::len)),
        (503, Some(1)),
        "{problem}"
    );
}

#[tokio::test]
async fn what_may_be_among_more_commands_than_are_looked_through_is_sent_again() {
    let body = json!({"images": ["team/app:v1"]});
    let cloud = Cloud::new();
    cloud.fail("SendCommand", 0, "Lost");
    cloud.fail("ListCommands", 0, "ThrottlingException");
    assert_eq!(cloud.http("POST", "/jobs", body.clone(), Some("key")).await.0, 503);
    for _ in 0..50 {
        cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    }
    cloud.state(|state| state.page = Some(1));
    let (status, answer) = cloud.http_at("POST", "/jobs", body, Some("key"), 2).await;
    assert_eq!((status, &answer["jobs"][0]["id"]), (202, &json!(command_id(52))));
}

#[tokio::test]
async fn a_command_of_which_it_is_not_known_whether_it_was_sent_is_told_as_that() {
    let body = json!({"images": ["team/app:v1"]});
    let expected = json!([{
        "rule": "default", "images": [image("team/app", "v1")], "nodes": {"tags": {"aws:eks:cluster-name": ["prod"]}},
    }]);
    for (fault, list, sent) in [
        ("Lost", Some("ThrottlingException"), 1),
        ("InternalServerError", None, 0),
        ("InternalServerError", Some("ThrottlingException"), 0),
    ] {
        for key in [None, Some("key")] {
            let cloud = Cloud::new();
            cloud.fail("SendCommand", 0, fault);
            if let Some(code) = list {
                cloud.fail("ListCommands", 0, code);
            }
            let (status, problem) = cloud.http("POST", "/jobs", body.clone(), key).await;
            assert_eq!((status, &problem["unknown"]), (503, &expected), "{fault}");
            assert!(
                problem["detail"].as_str().unwrap().contains("Idempotency-Key"),
                "{problem}"
            );
            assert!(problem.get("jobs").is_none() && cloud.sent().len() == sent);
            let (status, _) = cloud.http_at("POST", "/jobs", body.clone(), key, 2).await;
            let harmless = usize::from(key.is_none() && sent > 0);
            assert_eq!((status, cloud.sent().len()), (202, 1 + harmless), "{fault}");
        }
    }
    // What SSM has refused is known not to be sent.
    for fault in ["ThrottlingException", "AccessDeniedException"] {
        let cloud = Cloud::new();
        cloud.fail("SendCommand", 0, fault);
        let (status, problem) = cloud.post(body.clone()).await;
        assert!(status == 503 && problem.get("unknown").is_none(), "{problem}");
        assert!(!cloud.calls().contains(&"ListCommands"));
    }
}

#[tokio::test]
async fn a_schedule_submits_its_job_once_and_fails_aloud() {
    let cloud = Cloud::new();
    let input = json!({"schedule": {"name": "nightly", "time": "2026-11-16T07:00:00Z"}, "body": {"rule": "default"}});
    let first = cloud.invoke(input.clone(), 0).await.unwrap();
    assert_eq!(cloud.invoke(input.clone(), 100).await.unwrap(), first);
    assert_eq!(cloud.sent().len(), 1);
    assert_eq!(cloud.sent()[0].0, "schedule rule=default attempt=1");
    let mut next = input.clone();
    next["schedule"]["time"] = json!("2026-11-17T07:00:00Z");
    cloud.invoke(next, 86_400).await.unwrap();
    assert_eq!(cloud.sent().len(), 2);
    for (field, value) in [
        ("body", json!({"rule": "gone"})),
        ("schedule", json!("nightly")),
        ("body", json!(null)),
    ] {
        let mut unusable = input.clone();
        unusable["schedule"]["time"] = json!("later");
        unusable[field] = value;
        cloud.invoke(unusable, 0).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_plain_call_is_answered_with_the_body_or_the_callers_problem_and_fails_for_ours() {
    let cloud = Cloud::new();
    let sent = cloud.invoke(json!({"images": ["team/app:v1"]}), 0).await.unwrap();
    assert_eq!(sent["jobs"][0]["id"], command_id(1));
    let problem = cloud.invoke(json!({"images": ["team/app:v9"]}), 0).await.unwrap();
    assert_eq!(
        (&problem["status"], &problem["errors"][0]["field"]),
        (&json!(400), &json!("images[0]"))
    );
    let stats = cloud.invoke(json!({"route": "GET /jobs/stats"}), 0).await.unwrap();
    assert_eq!(stats["jobs"], 0);
    cloud.fail("Query", 0, "ThrottlingException");
    let error = cloud.invoke(json!({"route": "GET /jobs/stats"}), 0).await.unwrap_err();
    assert_eq!(Diagnostic::from(error).error_type, "JobsError");
}

#[tokio::test]
async fn whatever_aws_refuses_is_ours_and_told_without_names() {
    let job = format!("/jobs/{}", command_id(1));
    for (method, target, call) in [
        ("GET", "/jobs", "ListCommands"),
        ("GET", "/jobs", "Query"),
        ("GET", "/jobs", "BatchGetItem"),
        ("GET", "/jobs/stats", "Query"),
        ("GET", job.as_str(), "Query"),
        ("GET", job.as_str(), "ListCommands"),
        ("DELETE", job.as_str(), "BatchGetItem"),
        ("DELETE", job.as_str(), "PutItem"),
        ("DELETE", job.as_str(), "CancelCommand"),
        ("POST", "/jobs", "DescribeImages"),
        ("POST", "/jobs", "DescribeInstances"),
        ("POST", "/jobs", "DescribeInstanceInformation"),
        ("POST", "/jobs", "SendCommand"),
    ] {
        let cloud = Cloud::new();
        cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
        cloud.fail(call, 0, "AccessDeniedException");
        let body = json!({"images": ["team/app:v1"], "nodes": {"ids": [node_id(1)]}});
        let (status, problem) = cloud
            .http(method, target, if method == "POST" { body } else { Value::Null }, None)
            .await;
        assert_eq!(
            (status, problem["title"].as_str()),
            (503, Some("Service Unavailable")),
            "{method} {target} {call}"
        );
        assert!(!problem.to_string().contains("arn:"), "{problem}");
    }
}

#[tokio::test]
async fn jobs_are_listed_newest_first_and_further_tries_and_commands_by_hand_are_none() {
    let cloud = Cloud::new();
    let first = cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    cloud.add_command(
        &format!("push rule=default attempt=2 job={first}"),
        CommandStatus::Success,
    );
    cloud.add_command("by hand", CommandStatus::Success);
    let second = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    cloud.put(
        &Key::job(&first),
        json!({"trigger": "push", "rule": "default", "requested_at": now(), "targets": 2, "images": [image("team/app", "v1")],
            "pulled": 1, "cached": 1, "bytes": 25, "slowest_seconds": 10, "slowest_node": node_id(1)}),
    );
    cloud.put(&Key::cancelled(&second), json!({"cancelled_at": now()}));
    let (status, list) = cloud.get("/jobs").await;
    let told = json!({
        "id": first, "trigger": "push", "rule": "default", "requestedAt": "2026-11-16T01:54:34.049Z", "state": "done",
        "images": [image("team/app", "v1")], "bytes": 25, "slowestSeconds": 10.0, "slowestNode": node_id(1),
        "nodes": {"total": 2, "done": 2, "pulled": 1, "cached": 1, "skipped": 0, "failed": 0, "notApplicable": 0, "retrying": 0, "retried": 0},
    });
    assert_eq!((status, &list["jobs"][1]), (200, &told));
    assert_eq!(
        (&list["jobs"][0]["id"], &list["jobs"][0]["state"]),
        (&json!(second), &json!("cancelled"))
    );
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(cloud.calls(), ["ListCommands", "Query", "BatchGetItem"]);
}

#[tokio::test]
async fn a_list_is_paged_to_its_end_and_refuses_what_is_no_page() {
    let cloud = Cloud::new();
    for _ in 0..7 {
        cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    }
    let mut target = "/jobs?limit=3".to_owned();
    let mut ids = Vec::new();
    for page in 1.. {
        let (status, list) = cloud.get(&target).await;
        assert_eq!(status, 200);
        ids.extend(
            list["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|job| job["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = list["next"].as_str() else {
            assert_eq!(page, 3);
            break;
        };
        target = format!("/jobs?limit=3&next={next}");
    }
    assert_eq!(ids, (1..=7).rev().map(command_id).collect::<Vec<_>>());
    let stale = json!({"commands": {"after": {"token": "not a token of SSM", "told": null}}, "observed": "end"});
    let stale = crate::query::token(&stale);
    for target in [
        "/jobs?limit=51",
        "/jobs?next=x",
        "/jobs?page=1",
        &format!("/jobs?next={stale}"),
    ] {
        assert_eq!(cloud.get(target).await.0, 400, "{target}");
    }
}

#[tokio::test]
async fn a_job_is_told_with_what_became_of_each_image_on_each_node() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    cloud.set_command(1, |command| command.target_count = 3);
    let row = json!({"trigger": "job", "rule": "default", "requested_at": now(), "pulled": 1, "failed": 1, "retrying": 1, "retried": 1, "bytes": 25});
    cloud.put(&Key::job(&id), row);
    let outcome = |status: &str, reason: &str| {
        json!({image("team/app", "v1"): {
        "status": status, "reason": reason, "seconds": 0.4, "bytes": 25, "attempts": 1, "attempt": 1, "reported": true}})
    };
    let node = |status: &str, reason: &str, retrying: bool| {
        json!({
            "version": 1, "attempt": 1, "status": status, "retrying": retrying, "images": outcome(status, reason),
            "ended_at": now(), "command": id, "expires_at": 1,
        })
    };
    let mut pulled = node("pulled", "", false);
    pulled["warm_at"] = json!(now());
    cloud.put(&Key::node(&id, &node_id(1)), pulled);
    cloud.put(&Key::node(&id, &node_id(2)), node("failed", "registry", true));

    let (status, job) = cloud.get(&format!("/jobs/{id}")).await;
    assert_eq!(
        (status, &job["state"], &job["next"]),
        (200, &json!("running"), &Value::Null)
    );
    let nodes = json!({
        "total": 3, "done": 1, "pulled": 1, "cached": 0, "skipped": 0, "failed": 1, "notApplicable": 0, "retrying": 1, "retried": 1,
    });
    assert_eq!(job["nodes"], nodes);
    assert_eq!(job["images"], json!([image("team/app", "v1")]));
    let expected = json!({
        "node": node_id(1), "status": "pulled", "attempt": 1, "retrying": false, "endedAt": "2026-11-16T01:54:34.049Z",
        "warmAt": "2026-11-16T01:54:34.049Z",
        "images": [{"image": image("team/app", "v1"), "status": "pulled", "reason": "", "seconds": 0.4, "bytes": 25, "attempts": 1}],
    });
    assert_eq!(job["outcomes"][0], expected);
    assert_eq!(
        (
            &job["outcomes"][1]["retrying"],
            job["outcomes"].as_array().unwrap().len()
        ),
        (&json!(true), 2)
    );
    assert_eq!(cloud.calls(), ["Query", "ListCommands", "DescribeInstances"]);
}

#[tokio::test]
async fn a_node_that_is_not_warm_is_told_with_its_name_where_ec2_can_be_asked_and_knows_it() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::Success);
    let name = |k: usize| format!("ip-10-0-0-{k}.eu-central-1.compute.internal");
    for k in 1..=2 {
        cloud.launch(k, |(instance, _)| instance.private_dns_name = Some(name(k)));
    }
    // The third is gone.
    for (k, status) in [(1, "pulled"), (2, "failed"), (3, "skipped")] {
        let row = json!({"version": 1, "attempt": 1, "status": status, "retrying": false, "images": {}, "ended_at": now(), "command": id});
        cloud.put(&Key::node(&id, &node_id(k)), row);
    }
    for (fault, expected) in [
        (None, [Value::Null, json!(name(2)), Value::Null]),
        (Some("RequestLimitExceeded"), [const { Value::Null }; 3]),
    ] {
        if let Some(code) = fault {
            cloud.fail("DescribeInstances", 0, code);
        }
        let (status, job) = cloud.get(&format!("/jobs/{id}")).await;
        assert_eq!(status, 200);
        assert_eq!(
            [0, 1, 2].map(|place: usize| job["outcomes"][place]["name"].clone()),
            expected
        );
    }
    cloud.calls();
    cloud.get(&format!("/jobs/{id}?limit=1")).await;
    assert_eq!(cloud.calls(), ["Query", "ListCommands"]);
}

#[tokio::test]
async fn the_nodes_of_a_job_are_paged_each_once() {
    for (has_row, is_cancelled) in [(true, true), (true, false), (false, false)] {
        let cloud = Cloud::new();
        let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
        if has_row {
            cloud.put(
                &Key::job(&id),
                json!({"trigger": "job", "rule": "default", "requested_at": now(), "pulled": 7}),
            );
        }
        if is_cancelled {
            cloud.put(&Key::cancelled(&id), json!({"cancelled_at": now()}));
        }
        for k in 1..=7 {
            let node = json!({"version": 1, "attempt": 1, "status": "pulled", "retrying": false, "images": {}, "ended_at": now(), "command": id});
            cloud.put(&Key::node(&id, &node_id(k)), node);
        }
        for limit in [1, 2, 3, 7, 8] {
            let mut next = String::new();
            let mut nodes = Vec::new();
            loop {
                let (status, job) = cloud.get(&format!("/jobs/{id}?limit={limit}{next}")).await;
                assert_eq!((status, &job["id"]), (200, &json!(id)));
                let outcomes = job["outcomes"].as_array().unwrap();
                assert!(outcomes.len() <= limit);
                nodes.extend(
                    outcomes
                        .iter()
                        .map(|outcome| outcome["node"].as_str().unwrap().to_owned()),
                );
                assert_eq!(job["state"], if is_cancelled { "cancelled" } else { "running" });
                match job["next"].as_str() {
                    Some(token) => next = format!("&next={token}"),
                    None => break,
                }
            }
            assert_eq!(nodes, (1..=7).map(node_id).collect::<Vec<_>>(), "{limit}");
        }
        let token = crate::query::token(&"node#");
        assert_eq!(cloud.get(&format!("/jobs/{id}?next={token}")).await.0, 400);
    }
}

#[tokio::test]
async fn nodes_that_are_none_of_the_job_are_told_apart_and_it_ends_with_them() {
    let cloud = Cloud::new();
    let id = cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    cloud.put(
        &Key::job(&id),
        json!({"trigger": "push", "rule": "default", "requested_at": now(), "targets": 10, "pulled": 6, "not_applicable": 4}),
    );
    let hybrid = "mi-0aaaabbbbccccdddd";
    for (node, reason) in [(node_id(1), "platform"), (hybrid.to_owned(), "hybrid-node")] {
        let outcome = json!({"status": "skipped", "reason": reason, "seconds": 0.1, "bytes": 0, "attempts": 0, "attempt": 1, "reported": true});
        let row = json!({"version": 1, "attempt": 1, "status": "skipped", "retrying": false, "ended_at": now(), "command": id,
            "images": {image("team/app", "v1"): outcome}});
        cloud.put(&Key::node(&id, &node), row);
    }
    let (status, job) = cloud.get(&format!("/jobs/{id}?limit=1")).await;
    let nodes = json!({
        "total": 10, "done": 10, "pulled": 6, "cached": 0, "skipped": 0, "failed": 0, "notApplicable": 4, "retrying": 0, "retried": 0,
    });
    assert_eq!((status, &job["state"], &job["nodes"]), (200, &json!("done"), &nodes));
    assert_eq!(job["outcomes"][0]["images"][0]["reason"], "platform");
    // A page may begin after a node that is none of EC2's, which is not asked for there.
    let (_, job) = cloud
        .get(&format!("/jobs/{id}?limit=1&next={}", job["next"].as_str().unwrap()))
        .await;
    assert_eq!(job["outcomes"][0]["node"], hybrid);
    cloud.calls();
    let after = crate::query::token(&hybrid);
    assert_eq!(cloud.get(&format!("/jobs/{id}?next={after}")).await.0, 200);
    assert!(!cloud.calls().contains(&"DescribeInstances"));
}

#[tokio::test]
async fn a_job_is_done_when_all_its_nodes_have_reported_and_none_tries_again_or_it_is_too_late() {
    let row = |targets: Value, pulled: i64, retrying: i64| {
        let mut row =
            json!({"trigger": "job", "rule": "default", "requested_at": now(), "pulled": pulled, "retrying": retrying});
        if !targets.is_null() {
            row["targets"] = targets;
        }
        row
    };
    let (running, success) = (CommandStatus::InProgress, CommandStatus::Success);
    for (command, row, seconds, state) in [
        // Before SSM has found all nodes, and after.
        (Some((running.clone(), 0)), None, 0, "running"),
        (Some((success.clone(), 0)), None, 0, "done"),
        (Some((running.clone(), 2)), Some(row(Value::Null, 2, 0)), 0, "running"),
        (Some((success.clone(), 2)), Some(row(Value::Null, 1, 0)), 0, "running"),
        (Some((success.clone(), 2)), Some(row(Value::Null, 2, 0)), 0, "done"),
        (Some((success.clone(), 2)), Some(row(json!(2), 2, 1)), 0, "running"),
        (Some((running.clone(), 2)), Some(row(json!(2), 2, 0)), 0, "done"),
        // SSM has forgotten it.
        (None, Some(row(json!(2), 1, 0)), 0, "running"),
        (None, Some(row(json!(2), 1, 0)), 18_001, "done"),
        (Some((running, 2)), None, 18_001, "done"),
    ] {
        let cloud = Cloud::new();
        if let Some((status, targets)) = command.clone() {
            cloud.add_command("job rule=default attempt=1", status);
            cloud.set_command(1, |command| command.target_count = targets);
        }
        if let Some(row) = row.clone() {
            cloud.put(&Key::job(&command_id(1)), row);
        }
        let target = format!("/jobs/{}", command_id(1));
        let (status, job) = cloud.http_at("GET", &target, Value::Null, None, seconds).await;
        assert_eq!(
            (status, job["state"].as_str()),
            (200, Some(state)),
            "{command:?} {row:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_job_is_not_found_and_what_is_no_id_not_accepted() {
    let cloud = Cloud::new();
    let first = cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    let further = cloud.add_command(
        &format!("push rule=default attempt=2 job={first}"),
        CommandStatus::Success,
    );
    let by_hand = cloud.add_command("by hand", CommandStatus::Success);
    let foreign = cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    cloud.set_command(4, |command| {
        command.document_name = Some("AWS-RunShellScript".to_owned());
    });
    for id in [further, by_hand, foreign, command_id(9)] {
        for method in ["GET", "DELETE"] {
            assert_eq!(
                cloud.http(method, &format!("/jobs/{id}"), Value::Null, None).await.0,
                404,
                "{method} {id}"
            );
        }
    }
    for id in ["x", "E8D3C0E4-71F7-4491-898F-C9B35BEE5F3B", "%2e%2e", "job#1"] {
        for method in ["GET", "DELETE"] {
            assert_eq!(
                cloud.http(method, &format!("/jobs/{id}"), Value::Null, None).await.0,
                400,
                "{method} {id}"
            );
        }
    }
    assert!(cloud.state(|state| state.cancelled.is_empty()));
}

#[tokio::test]
async fn counters_are_told_by_trigger_and_in_total_in_one_read() {
    let cloud = Cloud::new();
    cloud.put(
        &Key::totals(Trigger::Push),
        json!({"jobs": 2, "pulled": 5, "cached": 1, "failed": 1, "retried": 2, "bytes": 100}),
    );
    cloud.put(
        &Key::totals(Trigger::Schedule),
        json!({"jobs": 1, "cached": 3, "skipped": 1, "not_applicable": 4, "bytes": 0}),
    );
    let (status, told) = cloud.get("/jobs/stats").await;
    let expected = json!({
        "jobs": 3, "succeeded": 9, "pulled": 5, "cached": 4, "skipped": 1, "failed": 1, "notApplicable": 4, "retried": 2,
        "bytes": 100,
        "triggers": {
            "push": {
                "jobs": 2, "succeeded": 6, "pulled": 5, "cached": 1, "skipped": 0, "failed": 1, "notApplicable": 0, "retried": 2,
                "bytes": 100,
            },
            "schedule": {
                "jobs": 1, "succeeded": 3, "pulled": 0, "cached": 3, "skipped": 1, "failed": 0, "notApplicable": 4, "retried": 0,
                "bytes": 0,
            },
        },
    });
    assert_eq!((status, told), (200, expected));
    assert_eq!(cloud.calls(), ["Query"]);
}

#[tokio::test]
async fn a_job_is_cancelled_with_its_further_tries_and_nobody_elses() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    let further = cloud.add_command(&format!("job rule=default attempt=2 job={id}"), CommandStatus::Pending);
    cloud.add_command(&format!("job rule=default attempt=2 job={id}"), CommandStatus::Success);
    let other = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    cloud.add_command(
        &format!("job rule=default attempt=2 job={other}"),
        CommandStatus::InProgress,
    );
    cloud.state(|state| state.page = Some(2));
    let (status, answer) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
    assert_eq!(
        (status, answer),
        (200, json!({"id": id, "state": "cancelled", "commands": [id, further]}))
    );
    assert_eq!(cloud.state(|state| state.cancelled.clone()), [id.clone(), further]);
    let row = cloud.row(&Key::cancelled(&id)).unwrap();
    assert_eq!(row["expires_at"], now().timestamp() + 30 * 86_400);
    // Once more it is no other thing.
    let (status, answer) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
    assert_eq!((status, &answer["state"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn a_cancellation_that_stops_not_all_names_what_may_go_on_and_the_same_request_stops_it() {
    for (call, before, unknown) in [
        ("CancelCommand", 0, json!([{"id": command_id(1)}])),
        ("CancelCommand", 1, json!([{"id": command_id(2)}])),
        ("ListCommands", 1, json!([{"id": command_id(1)}])),
    ] {
        let cloud = Cloud::new();
        let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
        cloud.add_command(&format!("job rule=default attempt=2 job={id}"), CommandStatus::Pending);
        cloud.fail(call, before, "InternalServerError");
        let target = format!("/jobs/{id}");
        let (status, problem) = cloud.http("DELETE", &target, Value::Null, None).await;
        assert_eq!((status, &problem["unknown"]), (503, &unknown), "{call} {before}");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("the same request stops them")
        );
        // Whatever failed, the other was stopped.
        assert_eq!(cloud.state(|state| state.cancelled.len()), 1);
        let (status, answer) = cloud.http("DELETE", &target, Value::Null, None).await;
        assert_eq!(
            (status, &answer["commands"]),
            (200, &json!([command_id(1), command_id(2)]))
        );
    }
}

#[tokio::test]
async fn further_tries_that_may_be_among_more_commands_than_are_looked_through_are_told_as_unknown() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    cloud.add_command(&format!("job rule=default attempt=2 job={id}"), CommandStatus::Pending);
    for _ in 0..50 {
        cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    }
    cloud.state(|state| state.page = Some(1));
    let (status, problem) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
    assert_eq!((status, &problem["unknown"]), (503, &json!([{"id": id}])), "{problem}");
    assert_eq!(cloud.state(|state| state.cancelled.clone()), [id]);
}

#[tokio::test]
async fn a_job_is_cancelled_with_its_duplicates_and_theirs() {
    let body = json!({"images": ["team/app:v1"]});
    for (is_over, state) in [(false, "cancelled"), (true, "done")] {
        let cloud = Cloud::new();
        cloud.fail("SendCommand", 0, "LostThrice");
        let (_, answer) = cloud.http("POST", "/jobs", body.clone(), None).await;
        let [id, second, third] = [1, 2, 3].map(command_id);
        assert_eq!(answer["jobs"][0]["duplicates"], json!([second, third]));
        let further = cloud.add_command(
            &format!("job rule=default attempt=2 job={third}"),
            CommandStatus::Pending,
        );
        let mut stopped = vec![id.clone(), second.clone(), third.clone(), further];
        if is_over {
            stopped.remove(0);
            cloud.put(
                &Key::job(&id),
                json!({"trigger": "job", "rule": "default", "requested_at": now(), "targets": 1, "pulled": 1,
                    "duplicates": [second, third]}),
            );
        }
        let (status, answer) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
        assert_eq!(
            (status, &answer["state"], &answer["commands"]),
            (200, &json!(state), &json!(stopped))
        );
        for duplicate in [&second, &third] {
            assert!(cloud.row(&Key::cancelled(duplicate)).is_some());
        }
        assert_eq!(cloud.row(&Key::cancelled(&id)).is_some(), !is_over);
    }
}

#[tokio::test]
async fn of_a_job_that_is_over_nothing_is_cancelled() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::Success);
    cloud.put(
        &Key::job(&id),
        json!({"trigger": "job", "rule": "default", "requested_at": now(), "targets": 1, "pulled": 1}),
    );
    let (status, answer) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
    assert_eq!(
        (status, answer),
        (200, json!({"id": id, "state": "done", "commands": []}))
    );
    assert!(cloud.row(&Key::cancelled(&id)).is_none());
    assert_eq!(cloud.calls(), ["BatchGetItem"]);
}

#[tokio::test]
async fn a_reconcile_sends_every_rules_newest_images_and_waits_for_its_end() {
    let cloud = Cloud::with(TWO_RULES, "false");
    let reconcile = json!({"reconcile": true});
    let answer = cloud.invoke(reconcile.clone(), 0).await.unwrap();
    let expected = json!({"rules": [
        {"rule": "all", "decision": "sent", "commands": [command_id(1)]},
        {"rule": "apps", "decision": "sent", "commands": [command_id(2)]},
    ]});
    assert_eq!(answer, expected);
    let sent = cloud.sent();
    assert_eq!(sent[0].0, "reconcile rule=all attempt=1");
    assert_eq!(sent[0].1, [image("team/app", "v2"), image("team/web", "v1")]);
    assert_eq!(sent[0].2, [TARGETS, "tag:team=web"]);

    cloud.set_command(1, |command| command.status = Some(CommandStatus::Success));
    let answer = cloud.invoke(reconcile.clone(), 3600).await.unwrap();
    assert_eq!(answer["rules"][0]["commands"], json!([command_id(3)]));
    assert_eq!(answer["rules"][1], json!({"rule": "apps", "decision": "still-running"}));
    // Whatever status SSM shows: what has expired goes to no node any more.
    let answer = cloud.invoke(reconcile, 4300).await.unwrap();
    assert_eq!(
        (&answer["rules"][0]["decision"], &answer["rules"][1]["decision"]),
        (&json!("still-running"), &json!("sent"))
    );
}

#[tokio::test]
async fn a_reconcile_costs_the_same_whatever_the_number_of_nodes() {
    let cloud = Cloud::new();
    cloud.invoke(json!({"reconcile": true}), 0).await.unwrap();
    let few = cloud.calls();
    let cloud = Cloud::new();
    for k in 1..=1000 {
        cloud.launch(k, |_| {});
    }
    cloud.invoke(json!({"reconcile": true}), 0).await.unwrap();
    assert_eq!(cloud.calls(), few);
    let expected = [
        "BatchGetItem",
        "DescribeRepositories",
        "DescribeImages",
        "DescribeImages",
        "UpdateItem",
        "SendCommand",
        "UpdateItem",
        "DescribeInstances",
    ];
    assert_eq!(few, expected);
}

#[tokio::test]
async fn two_reconciles_at_one_moment_send_a_rule_once() {
    let cloud = Cloud::new();
    let (one, other) = tokio::join!(
        cloud.jobs.handle_at(json!({"reconcile": true}), FUNCTION, now()),
        cloud.jobs.handle_at(
            json!({"reconcile": true}),
            FUNCTION,
            now() + chrono::TimeDelta::nanoseconds(1)
        ),
    );
    let mut decisions = [one, other].map(|answer| answer.unwrap()["rules"][0]["decision"].as_str().unwrap().to_owned());
    decisions.sort_unstable();
    assert_eq!(decisions, ["sent", "still-running"]);
    assert_eq!(cloud.sent().len(), 1);
}

#[tokio::test]
async fn a_rule_that_fails_is_told_aloud_and_keeps_no_other_from_its_images() {
    for (call, code) in [
        ("SendCommand", "ThrottlingException"),
        ("DescribeImages", "ServerException"),
        ("UpdateItem", "InternalServerError"),
        ("BatchGetItem", "InternalServerError"),
    ] {
        let cloud = Cloud::with(TWO_RULES, "false");
        cloud.fail(call, 0, code);
        let error = cloud.invoke(json!({"reconcile": true}), 0).await.unwrap_err();
        assert_eq!(error.to_string(), "rules that could not be reconciled: all", "{call}");
        // What ECR named of the rule that fails is sent.
        let comments: Vec<String> = cloud.sent().into_iter().map(|(comment, ..)| comment).collect();
        let partly = (call == "DescribeImages").then_some("reconcile rule=all attempt=1");
        let expected = partly.into_iter().chain(["reconcile rule=apps attempt=1"]);
        assert_eq!(comments, expected.collect::<Vec<_>>(), "{call}");
        // Lambda tries again a minute later: only what failed is sent.
        let answer = cloud.invoke(json!({"reconcile": true}), 60).await.unwrap();
        let decisions: Vec<&Value> = answer["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| &rule["decision"])
            .collect();
        assert_eq!(decisions, ["sent", "still-running"], "{call}");
    }
}

/// A registry of which a rule's newest images are some fifty commands.
fn large() -> Cloud {
    let cloud = Cloud::with(LARGE_RULES, "false");
    cloud.state(|state| {
        state.repositories = (0..40)
            .map(|k| {
                let tags = (0..10).map(|tag| format!("v{tag}-{k:0>30}")).collect();
                (format!("team/app-{k}"), tags)
            })
            .collect();
    });
    cloud
}

const LARGE_RULES: &str = r#"[{"name": "first", "repositories": ["team/*"], "newest": 10}, {"name": "second", "repositories": ["team/app-0"]}]"#;

/// The images that were sent by a rule's reconcile, each as often as it was.
fn reconciled(cloud: &Cloud, rule: &str) -> Vec<String> {
    let comment = format!("reconcile rule={rule} attempt=1");
    let sent = cloud.sent().into_iter().filter(|(sent, ..)| *sent == comment);
    let mut images: Vec<String> = sent.flat_map(|(_, images, _)| images).collect();
    images.sort_unstable();
    images
}

#[tokio::test]
async fn a_reconcile_that_stops_in_the_middle_says_so_and_the_next_one_goes_on_there() {
    let reconcile = json!({"reconcile": true});
    // The next hour's, and Lambda's next try.
    for later in [3600, 120] {
        let cloud = large();
        // SSM takes one group, and then nothing.
        for before in [6, 0, 0, 0, 0, 0] {
            cloud.fail("SendCommand", before, "ThrottlingException");
        }
        let error = cloud.invoke(reconcile.clone(), 0).await.unwrap_err();
        assert_eq!(error.to_string(), "rules that could not be reconciled: first");
        let some = reconciled(&cloud, "first");
        assert!((1..400).contains(&some.len()), "{}", some.len());
        assert_eq!(reconciled(&cloud, "second").len(), 1);

        let answer = cloud.invoke(reconcile.clone(), later).await.unwrap();
        let mut all = reconciled(&cloud, "first");
        assert_eq!(all.len(), 400);
        all.dedup();
        assert_eq!(all.len(), 400, "nothing is sent twice");
        // The next run waits for all of it, and then begins anew.
        let commands = answer["rules"][0]["commands"].as_array().unwrap().len();
        assert_eq!(commands, cloud.sent().len() - 1);
        let answer = cloud.invoke(reconcile.clone(), later + 60).await.unwrap();
        assert_eq!(answer["rules"][0]["decision"], "still-running");
        cloud.state(|state| {
            state
                .commands
                .iter_mut()
                .for_each(|c| c.status = Some(CommandStatus::Success));
        });
        let answer = cloud.invoke(reconcile.clone(), later + 3600).await.unwrap();
        assert_eq!(answer["rules"][0]["decision"], "sent");
        assert_eq!(reconciled(&cloud, "first").len(), 800);
    }
}

#[tokio::test]
async fn a_reconcile_that_has_no_time_left_sends_no_more_and_the_rule_that_waited_longest_comes_first() {
    let reconcile = json!({"reconcile": true});
    let cloud = large();
    let late = prefetch::aws::within(std::time::Duration::from_secs(9), cloud.invoke(reconcile.clone(), 0)).await;
    assert_eq!(
        late.unwrap_err().to_string(),
        "rules that could not be reconciled: first, second"
    );
    assert!(cloud.sent().is_empty());
    cloud.put(
        &Key::reconcile("first"),
        json!({"started_at": "2026-11-16T01:54:35.049000000Z", "commands": [], "state": "stopped"}),
    );
    cloud.invoke(reconcile, 120).await.unwrap();
    assert_eq!(cloud.sent()[0].0, "reconcile rule=second attempt=1");
    assert_eq!(reconciled(&cloud, "first").len(), 400);
}

#[tokio::test]
async fn commands_of_which_ssm_takes_not_all_are_tried_again_alone() {
    let cloud = large();
    cloud.fail("SendCommand", 2, "ThrottlingException");
    cloud.invoke(json!({"reconcile": true}), 0).await.unwrap_err();
    let most = reconciled(&cloud, "first").len();
    assert!((370..400).contains(&most), "{most}");
    cloud.invoke(json!({"reconcile": true}), 120).await.unwrap();
    let mut all = reconciled(&cloud, "first");
    all.dedup();
    assert_eq!((all.len(), reconciled(&cloud, "first").len()), (400, 400));
}

#[tokio::test]
async fn of_a_rule_of_which_ecr_named_not_all_lambdas_next_try_sends_the_rest_and_the_next_hour_begins_anew() {
    for (seconds, sent) in [(120, 400), (3600, 790)] {
        let cloud = large();
        cloud.fail("DescribeImages", 39, "ServerException");
        cloud.invoke(json!({"reconcile": true}), 0).await.unwrap_err();
        assert_eq!(reconciled(&cloud, "first").len(), 390);
        cloud.state(|state| {
            state
                .commands
                .iter_mut()
                .for_each(|c| c.status = Some(CommandStatus::Success));
        });
        cloud.invoke(json!({"reconcile": true}), seconds).await.unwrap();
        assert_eq!(reconciled(&cloud, "first").len(), sent, "{seconds}");
    }
}

#[tokio::test]
async fn a_rule_whose_reconcile_died_is_taken_by_lambdas_next_try() {
    let cloud = Cloud::new();
    cloud.put(
        &Key::reconcile("default"),
        json!({"started_at": "2026-11-16T01:54:34.049000000Z", "commands": []}),
    );
    for (seconds, decision) in [(59, "still-running"), (60, "sent")] {
        let answer = cloud.invoke(json!({"reconcile": true}), seconds).await.unwrap();
        assert_eq!(answer["rules"][0]["decision"], decision);
    }
}

#[tokio::test]
async fn a_stack_that_was_deployed_is_reconciled_and_a_rule_without_images_is_no_fault() {
    let cloud = Cloud::new();
    cloud.state(|state| state.repositories.clear());
    let event = |status: &str| {
        json!({
            "source": "aws.cloudformation", "detail-type": "CloudFormation Stack Status Change",
            "detail": {"stack-id": "arn:aws:cloudformation:eu-central-1:123456789012:stack/x/1", "status-details": {"status": status}},
        })
    };
    let answer = cloud.invoke(event("CREATE_COMPLETE"), 0).await.unwrap();
    assert_eq!(answer, json!({"rules": [{"rule": "default", "decision": "no-images"}]}));
    let answer = cloud.invoke(event("DELETE_IN_PROGRESS"), 0).await.unwrap();
    assert_eq!(answer["decision"], "ignored");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_posted_is_answered_and_only_what_is_accepted_is_sent(
        body in "(\\{\"(images|rule|nodes)\": ?)?.{0,40}\\}?",
        key in prop::option::of(".{0,4}"),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let cloud = Cloud::new();
            let mut payload = request("POST", "/jobs", &Value::Null, key.as_deref());
            payload["body"] = json!(body);
            let answer = cloud.jobs.handle_at(payload, FUNCTION, now()).await.unwrap();
            let status = answer["statusCode"].as_u64().unwrap();
            assert!([202, 400].contains(&status), "{answer}");
            assert_eq!(cloud.sent().is_empty(), status != 202);
        });
    }
}

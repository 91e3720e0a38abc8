//! Nodes by id: which are sent a job, and what the others are told.

use serde_json::{Value, json};

use crate::tests::cloud::{Cloud, auto_mode, node_id};

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
        state.set_repository("team/app", (0..100).map(|k| format!("v{k}")));
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
        state.set_repository("team/app", (0..100).map(|k| format!("v{k}")));
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
            let tags = (0..10).map(|tag| format!("v{tag}-{k}"));
            state.set_repository(&format!("team/app-{k}"), tags);
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

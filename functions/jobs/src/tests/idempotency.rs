//! Idempotency: a request that comes again, whatever failed in between.

use serde_json::json;

use crate::{
    handler::handle_at,
    tests::cloud::{Cloud, FUNCTION, TWO_RULES, command_id, image, node_id, now, request},
};

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
    cloud.state(|state| state.registry.repositories.clear());
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
        handle_at(&cloud.jobs, payload.clone(), FUNCTION, at),
        handle_at(&cloud.jobs, payload, FUNCTION, at + chrono::TimeDelta::nanoseconds(1)),
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
    cloud.state(|state| state.registry.repositories.clear());
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
    cloud.state(|state| state.push("team/app", "v3"));
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

//! Events: how each kind is answered.

use aws_sdk_ssm::types::CommandStatus;
use lambda_runtime::Diagnostic;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    handler::handle_at,
    tests::cloud::{Cloud, FUNCTION, command_id, node_id, now, request},
};

#[tokio::test]
async fn every_event_file_is_answered_as_its_kind() {
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
        (include_str!("../../../../events/jobs.usage.json"), ""),
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
        ("GET", "/usage?rule=default", "Query"),
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
            let answer = handle_at(&cloud.jobs, payload, FUNCTION, now()).await.unwrap();
            let status = answer["statusCode"].as_u64().unwrap();
            assert!([202, 400].contains(&status), "{answer}");
            assert_eq!(cloud.sent().is_empty(), status != 202);
        });
    }
}

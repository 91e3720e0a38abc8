//! Leftovers of executions: those that are gone, and those that go on.

use aws_sdk_sfn::types::ExecutionStatus;
use prefetch::bake::{ARCHITECTURE_TAG, EXECUTION_TAG, PUBLISHED_TAG};
use serde_json::json;

use super::{
    cloud::Cloud,
    services::{CLEAN_UP, FAILED, OTHER, OWN, PRUNE, SCHEDULE},
};

#[tokio::test]
async fn where_nothing_is_left_behind_two_questions_say_so() {
    for event in [SCHEDULE, FAILED] {
        let cloud = Cloud::new();
        let nothing = json!({"terminated": [], "deleted": [], "kept": [], "fastRestoreDisabled": []});
        assert_eq!(cloud.sweep(event).await.unwrap(), nothing);
        assert_eq!(cloud.calls(), ["DescribeInstances", "DescribeSnapshots"]);
    }
}

#[tokio::test]
async fn what_an_execution_that_is_gone_has_left_behind_is_removed_and_it_is_asked_for_once() {
    for status in [
        Some(ExecutionStatus::Failed),
        Some(ExecutionStatus::TimedOut),
        Some(ExecutionStatus::Aborted),
        Some(ExecutionStatus::Succeeded),
        None,
    ] {
        let cloud = Cloud::new();
        cloud.execution(OTHER, status);
        cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OTHER)]);
        cloud.builder("i-0abc0000000000002", &[(EXECUTION_TAG, OTHER)]);
        cloud.snapshot("snap-1", &[(EXECUTION_TAG, OTHER), (ARCHITECTURE_TAG, "arm64")]);
        let swept = cloud.sweep(SCHEDULE).await.unwrap();
        assert_eq!(
            swept,
            json!({
                "terminated": ["i-0abc0000000000001", "i-0abc0000000000002"], "deleted": ["snap-1"], "kept": [],
                "fastRestoreDisabled": [],
            })
        );
        assert_eq!(cloud.count("DescribeExecution"), 1);
        let details = "/eks-image-prefetch/prod/arm64/snap-1".to_owned();
        assert_eq!(cloud.state(|state| state.deleted_parameters.clone()), [details]);
    }
}

#[tokio::test]
async fn what_belongs_to_an_execution_that_runs_is_left_alone() {
    let cloud = Cloud::new();
    cloud.execution(OTHER, Some(ExecutionStatus::Running));
    cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OTHER)]);
    cloud.snapshot("snap-1", &[(EXECUTION_TAG, OTHER)]);
    for event in [SCHEDULE, FAILED, PRUNE] {
        let swept = cloud.sweep(event).await.unwrap();
        assert_eq!(
            (&swept["terminated"], &swept["deleted"]),
            (&json!([]), &json!([])),
            "{event}"
        );
    }
    assert_eq!(cloud.count("TerminateInstances") + cloud.count("DeleteSnapshot"), 0);
}

#[tokio::test]
async fn the_execution_whose_event_says_that_it_has_ended_is_gone_though_step_functions_lags_behind() {
    for (redrives, is_gone) in [(0, true), (1, false)] {
        let cloud = Cloud::new();
        cloud.execution(OWN, Some(ExecutionStatus::Running));
        cloud.state(|state| state.redrives = redrives);
        cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OWN)]);
        let swept = cloud.sweep(FAILED).await.unwrap();
        assert_eq!(
            swept["terminated"].as_array().unwrap().len(),
            usize::from(is_gone),
            "{redrives} redrives"
        );
        // A second delivery of the event finds nothing.
        assert_eq!(cloud.sweep(FAILED).await.unwrap()["terminated"], json!([]));
    }
}

#[tokio::test]
async fn the_execution_that_asks_to_prune_counts_as_gone_but_its_published_snapshot_stays_whatever_its_tags_say() {
    let cloud = Cloud::new();
    cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OWN)]);
    cloud.snapshot("snap-1", &[(EXECUTION_TAG, OWN), (ARCHITECTURE_TAG, "x86_64")]);
    cloud.snapshot("snap-2", &[(EXECUTION_TAG, OWN), (ARCHITECTURE_TAG, "arm64")]);
    cloud.publish("arm64", "snap-2");
    let swept = cloud.sweep(PRUNE).await.unwrap();
    assert_eq!(
        swept,
        json!({
            "terminated": ["i-0abc0000000000001"], "deleted": ["snap-1"],
            "kept": [{"snapshotId": "snap-2", "architecture": "arm64", "because": "it is the published one"}],
            "fastRestoreDisabled": [],
        })
    );
    assert_eq!(cloud.count("DescribeExecution"), 0);
}

#[tokio::test]
async fn where_one_architecture_failed_what_there_is_of_it_is_removed_and_nothing_else() {
    let cloud = Cloud::new();
    for (id, execution, architecture) in [("1", OWN, "x86_64"), ("2", OWN, "arm64"), ("3", OTHER, "x86_64")] {
        let tags = [(EXECUTION_TAG, execution), (ARCHITECTURE_TAG, architecture)];
        cloud.builder(&format!("i-0abc000000000000{id}"), &tags);
        cloud.snapshot(&format!("snap-{id}"), &tags);
        cloud.snapshot(
            &format!("snap-{id}-whole"),
            &[tags[0], tags[1], (PUBLISHED_TAG, "2026-11-16T02:00:00Z")],
        );
    }
    let swept = cloud.sweep(CLEAN_UP).await.unwrap();
    assert_eq!(
        swept,
        json!({"terminated": ["i-0abc0000000000001"], "deleted": ["snap-1"], "kept": [], "fastRestoreDisabled": []})
    );
    let details = "/eks-image-prefetch/prod/x86_64/snap-1".to_owned();
    assert_eq!(cloud.state(|state| state.deleted_parameters.clone()), [details]);
    let calls = [
        "DescribeInstances",
        "TerminateInstances",
        "DescribeSnapshots",
        "GetParameters",
        "DeleteParameters",
        "DeleteSnapshot",
    ];
    assert_eq!(cloud.calls(), calls);
}

#[tokio::test]
async fn what_names_no_execution_or_one_that_cannot_be_asked_for_is_left_and_named() {
    let cloud = Cloud::new();
    cloud.state(|state| state.fault = Some("DescribeExecution"));
    cloud.builder("i-0abc0000000000001", &[]);
    cloud.builder("i-0abc0000000000002", &[(EXECUTION_TAG, OTHER)]);
    cloud.snapshot("snap-1", &[]);
    cloud.snapshot("snap-2", &[(EXECUTION_TAG, OTHER)]);
    let (error, message) = cloud.failed(SCHEDULE).await;
    assert_eq!(error, "SweepIncomplete");
    for named in [
        "i-0abc0000000000001: it has no tag bake-snapshot/execution",
        "i-0abc0000000000002: the execution arn:",
        "snap-1: it has no tag bake-snapshot/execution",
        "snap-2: the execution arn:",
        "could not be described: ",
    ] {
        assert!(message.contains(named), "{message}");
    }
    assert_eq!(
        cloud.calls(),
        ["DescribeInstances", "DescribeExecution", "DescribeSnapshots"]
    );
}

#[tokio::test]
async fn an_execution_that_step_functions_says_nothing_of_keeps_its_builder_and_its_snapshot() {
    for event in [SCHEDULE, FAILED] {
        let cloud = Cloud::new();
        for execution in [OWN, OTHER] {
            cloud.execution(execution, Some(ExecutionStatus::Running));
        }
        cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OTHER)]);
        cloud.builder("i-0abc0000000000002", &[(EXECUTION_TAG, OWN)]);
        cloud.snapshot("snap-1", &[(EXECUTION_TAG, OTHER)]);
        cloud.state(|state| state.half = Some("DescribeExecution"));
        let (error, message) = cloud.failed(event).await;
        assert_eq!(error, "SweepIncomplete");
        for id in ["i-0abc0000000000001", "i-0abc0000000000002", "snap-1"] {
            let expected = format!("{id}: Step Functions does not say whether the execution ");
            assert!(message.contains(&expected), "{message}");
        }
        assert_eq!(cloud.count("TerminateInstances") + cloud.count("DeleteSnapshot"), 0);
    }
}

#[tokio::test]
async fn what_is_nothing_of_the_kind_is_refused_without_a_call() {
    let cloud = Cloud::new();
    for event in ["null", "{}", "{\"prune\": {\"keep\": 0}}", "{\"source\": \"aws.ec2\"}"] {
        assert_eq!(cloud.failed(event).await.0, "BadRequest");
    }
    assert!(cloud.calls().is_empty());
}

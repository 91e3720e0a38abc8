//! Answers of AWS that are errors, or lack something.

use aws_sdk_sfn::types::ExecutionStatus;
use prefetch::bake::{ARCHITECTURE_TAG, EXECUTION_TAG};
use serde_json::json;

use super::{
    cloud::Cloud,
    services::{CLEAN_UP, OTHER, OWN, PRUNE, SCHEDULE},
};

#[tokio::test]
async fn what_cannot_be_removed_does_not_keep_the_rest_from_it_and_is_named() {
    let cloud = Cloud::new();
    cloud.execution(OTHER, Some(ExecutionStatus::Failed));
    for k in 1..=3 {
        cloud.builder(&format!("i-0abc000000000000{k}"), &[(EXECUTION_TAG, OTHER)]);
        cloud.snapshot(
            &format!("snap-{k}"),
            &[(EXECUTION_TAG, OTHER), (ARCHITECTURE_TAG, "x86_64")],
        );
    }
    cloud.refuse("i-0abc0000000000002", "OperationNotPermitted");
    cloud.refuse("snap-1", "UnauthorizedOperation");
    let (error, message) = cloud.failed(SCHEDULE).await;
    assert_eq!(error, "SweepIncomplete");
    for named in [
        "i-0abc0000000000002: it could not be terminated: ",
        "OperationNotPermitted",
        "snap-1: it could not be deleted: ",
        "UnauthorizedOperation",
    ] {
        assert!(message.contains(named), "{message}");
    }
    let left = cloud.state(|state| {
        (
            state.instances.keys().cloned().collect::<Vec<_>>(),
            state.snapshots.keys().cloned().collect::<Vec<_>>(),
        )
    });
    assert_eq!(
        left,
        (vec!["i-0abc0000000000002".to_owned()], vec!["snap-1".to_owned()])
    );
}

#[tokio::test]
async fn what_is_gone_by_then_is_no_failure_and_what_is_in_use_stays() {
    let cloud = Cloud::new();
    cloud.execution(OTHER, Some(ExecutionStatus::Failed));
    cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OTHER)]);
    for k in 1..=5 {
        cloud.published(&format!("snap-{k}"), "x86_64", k);
    }
    cloud.refuse("i-0abc0000000000001", "InvalidInstanceID.NotFound");
    cloud.refuse("snap-1", "InvalidSnapshot.NotFound");
    cloud.refuse("snap-2", "InvalidSnapshot.InUse");
    let swept = cloud.sweep(PRUNE).await.unwrap();
    assert_eq!(
        (&swept["terminated"], &swept["deleted"]),
        (&json!([]), &json!(["snap-1"]))
    );
    let expected = json!({"snapshotId": "snap-2", "architecture": "x86_64", "because": "it is in use: no"});
    assert!(swept["kept"].as_array().unwrap().contains(&expected), "{swept}");
}

#[tokio::test]
async fn where_it_cannot_be_told_what_there_is_nothing_that_it_hangs_on_is_removed() {
    for (call, expected) in [
        ("DescribeInstances", "the builders could not be listed"),
        ("DescribeSnapshots", "the snapshots could not be listed"),
        (
            "GetParameters",
            "the parameters that name the published snapshots could not be read",
        ),
        (
            "DescribeFastSnapshotRestores",
            "it could not be told for which snapshots fast restore is enabled",
        ),
        ("DescribeLaunchTemplates", "the launch templates could not be listed"),
        (
            "DescribeLaunchTemplateVersions",
            "the versions of the launch template lt-1 could not be listed",
        ),
    ] {
        let cloud = Cloud::new();
        cloud.template("lt-1", &[&[]]);
        for k in 1..=5 {
            cloud.published(&format!("snap-{k}"), "x86_64", k);
        }
        cloud.state(|state| state.fault = Some(call));
        let (error, message) = cloud.failed(PRUNE).await;
        assert_eq!(error, "AwsError");
        assert!(
            message.starts_with(expected) && message.contains("Throttled"),
            "{message}"
        );
        assert_eq!(cloud.count("DeleteSnapshot"), 0, "{call}");
    }
}

#[tokio::test]
async fn builders_are_terminated_even_where_snapshots_cannot_be_listed() {
    let cloud = Cloud::new();
    cloud.execution(OTHER, None);
    cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OTHER)]);
    cloud.state(|state| state.fault = Some("DescribeSnapshots"));
    assert_eq!(cloud.failed(SCHEDULE).await.0, "AwsError");
    assert!(cloud.state(|state| state.instances.is_empty()));
}

#[tokio::test]
async fn an_answer_without_what_it_was_asked_for_removes_nothing_and_is_said() {
    for (call, expected) in [
        ("DescribeInstances", "the answer to DescribeInstances lacks its list"),
        ("DescribeSnapshots", "the answer to DescribeSnapshots lacks its list"),
        (
            "GetParameters",
            "the answer to GetParameters lacks /eks-image-prefetch/prod/x86_64/snapshot",
        ),
        (
            "DescribeFastSnapshotRestores",
            "the answer to DescribeFastSnapshotRestores lacks its list",
        ),
        (
            "DescribeLaunchTemplates",
            "the answer to DescribeLaunchTemplates lacks its list",
        ),
        (
            "DescribeLaunchTemplateVersions",
            "the answer to DescribeLaunchTemplateVersions lacks what versions of lt-1 say",
        ),
    ] {
        let cloud = Cloud::new();
        cloud.template("lt-1", &[&["snap-1"]]);
        cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OTHER)]);
        cloud.execution(OTHER, Some(ExecutionStatus::Running));
        cloud.snapshot("snap-0", &[(EXECUTION_TAG, OWN), (ARCHITECTURE_TAG, "x86_64")]);
        for k in 1..=5 {
            cloud.published(&format!("snap-{k}"), "x86_64", k);
            cloud.restore(&format!("snap-{k}"), &["eu-central-1a"]);
        }
        cloud.publish("x86_64", "snap-1");
        cloud.state(|state| state.half = Some(call));
        let (error, message) = cloud.failed(PRUNE).await;
        assert_eq!(error, "AwsError");
        assert!(message.starts_with(expected), "{message}");
        let snapshots = cloud.state(|state| state.snapshots.keys().cloned().collect::<Vec<_>>());
        let whole = ["snap-1", "snap-2", "snap-3", "snap-4", "snap-5"];
        assert_eq!(snapshots[snapshots.len() - 5..], whole, "{call}");
        assert_eq!(cloud.count("DisableFastSnapshotRestores"), 0, "{call}");
    }
}

#[tokio::test]
async fn what_aws_lists_without_the_tags_that_were_asked_for_is_left_and_named() {
    for event in [PRUNE, CLEAN_UP] {
        let cloud = Cloud::new();
        cloud.builder(
            "i-0abc0000000000001",
            &[(EXECUTION_TAG, OWN), (ARCHITECTURE_TAG, "x86_64")],
        );
        cloud.snapshot("snap-1", &[(EXECUTION_TAG, OWN), (ARCHITECTURE_TAG, "x86_64")]);
        cloud.state(|state| state.half = Some("tags"));
        let (error, message) = cloud.failed(event).await;
        assert_eq!(error, "SweepIncomplete");
        for id in ["i-0abc0000000000001", "snap-1"] {
            assert!(
                message.contains(&format!("{id}: EC2 lists it, and does not say")),
                "{message}"
            );
        }
        assert_eq!(cloud.count("TerminateInstances") + cloud.count("DeleteSnapshot"), 0);
    }
}

#[tokio::test]
async fn what_aws_does_not_confirm_is_not_told_as_done() {
    for (call, expected) in [
        (
            "TerminateInstances",
            "i-0abc0000000000001: EC2 does not say that it is terminated",
        ),
        (
            "DeleteParameters",
            "/eks-image-prefetch/prod/x86_64/snap-1: SSM does not say that the parameter is deleted",
        ),
        (
            "DisableFastSnapshotRestores",
            "snap-2: fast restore could not be disabled: eu-central-1a: EC2 does not say that it is",
        ),
    ] {
        let cloud = Cloud::new();
        cloud.builder("i-0abc0000000000001", &[(EXECUTION_TAG, OWN)]);
        for k in 1..=4 {
            cloud.published(&format!("snap-{k}"), "x86_64", k);
        }
        cloud.restore("snap-2", &["eu-central-1a"]);
        cloud.state(|state| state.half = Some(call));
        let (error, message) = cloud.failed(PRUNE).await;
        assert_eq!(
            (error.as_str(), message.as_str()),
            (
                "SweepIncomplete",
                format!("not all could be swept: {expected}").as_str()
            )
        );
        cloud.state(|state| state.half = None);
        assert!(cloud.sweep(PRUNE).await.is_ok(), "{call}");
    }
}

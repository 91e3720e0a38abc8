//! Published snapshots that are no longer wanted.

use std::collections::BTreeMap;

use aws_sdk_sfn::types::ExecutionStatus;
use prefetch::bake::EXECUTION_TAG;
use serde_json::json;

use super::{
    cloud::Cloud,
    services::{FAILED, OTHER, OWN, PRUNE, SCHEDULE},
};

#[tokio::test]
async fn of_each_architecture_the_newest_stay_and_what_a_launch_template_names_and_the_rest_goes() {
    let cloud = Cloud::new();
    for k in 1..=6 {
        cloud.published(&format!("snap-{k}"), "x86_64", k);
    }
    cloud.published("snap-7", "arm64", 0);
    cloud.publish("x86_64", "snap-6");
    cloud.template("lt-1", &[&[], &["snap-9"], &["snap-2", "snap-0"], &["snap-9"]]);
    let swept = cloud.sweep(PRUNE).await.unwrap();
    assert_eq!(swept["deleted"], json!(["snap-1", "snap-3"]));
    let kept: BTreeMap<&str, &str> = swept["kept"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kept| (kept["snapshotId"].as_str().unwrap(), kept["because"].as_str().unwrap()))
        .collect();
    assert_eq!(kept["snap-2"], "version 3 of the launch template nodes (lt-1) names it");
    assert_eq!(kept["snap-6"], "it is the published one");
    assert_eq!(kept["snap-5"], "it is one of the 3 newest");
    assert_eq!(kept["snap-7"], "it is one of the 3 newest");
    assert_eq!(kept.len(), 5);
    let details = ["snap-1", "snap-3"].map(|id| format!("/eks-image-prefetch/prod/x86_64/{id}"));
    assert_eq!(cloud.state(|state| state.deleted_parameters.clone()), details);
}

#[tokio::test]
async fn nothing_is_pruned_by_an_event_or_a_schedule() {
    let cloud = Cloud::new();
    for k in 1..=6 {
        cloud.published(&format!("snap-{k}"), "x86_64", k);
    }
    for event in [SCHEDULE, FAILED] {
        assert_eq!(cloud.sweep(event).await.unwrap()["deleted"], json!([]));
    }
    assert_eq!(cloud.calls(), ["DescribeInstances", "DescribeSnapshots"].repeat(2));
}

#[tokio::test]
async fn launch_templates_are_asked_only_where_something_is_to_go() {
    let cloud = Cloud::new();
    for k in 1..=3 {
        cloud.published(&format!("snap-{k}"), "x86_64", k);
    }
    cloud.sweep(PRUNE).await.unwrap();
    assert_eq!(
        cloud.calls(),
        [
            "DescribeInstances",
            "DescribeSnapshots",
            "GetParameters",
            "DescribeFastSnapshotRestores"
        ]
    );
}

#[tokio::test]
async fn every_list_is_read_to_its_end() {
    let cloud = Cloud::new();
    cloud.execution(OTHER, Some(ExecutionStatus::Failed));
    for k in 1..=5 {
        cloud.builder(&format!("i-0abc000000000000{k}"), &[(EXECUTION_TAG, OTHER)]);
        cloud.published(&format!("snap-{k}"), "x86_64", k);
        cloud.restore(
            &format!("snap-{k}"),
            &["eu-central-1a", "eu-central-1b", "eu-central-1c"],
        );
    }
    for k in 1..=5 {
        cloud.template(&format!("lt-{k}"), &[&[], &[], &[], &[]]);
    }
    cloud.template("lt-6", &[&[], &[], &[], &["snap-1"]]);
    let swept = cloud.sweep(PRUNE).await.unwrap();
    assert_eq!(swept["terminated"].as_array().unwrap().len(), 5);
    assert_eq!(swept["deleted"], json!(["snap-2"]));
    assert_eq!(
        swept["fastRestoreDisabled"],
        json!(["snap-1", "snap-3", "snap-4", "snap-5"])
    );
    let zones = cloud.state(|state| state.disabled.clone());
    assert!(zones.values().all(|zones| zones.len() == 3), "{zones:?}");
    // Two rows a page.
    for (call, pages) in [
        ("DescribeInstances", 3),
        ("DescribeSnapshots", 3),
        ("DescribeFastSnapshotRestores", 8),
        ("DescribeLaunchTemplates", 3),
        ("DescribeLaunchTemplateVersions", 12),
    ] {
        assert_eq!(cloud.count(call), pages, "{call}");
    }
}

#[tokio::test]
async fn fast_restore_is_disabled_but_for_the_published_snapshot_whatever_launch_templates_name() {
    let cloud = Cloud::new();
    for k in 1..=3 {
        cloud.published(&format!("snap-{k}"), "x86_64", k);
        cloud.restore(&format!("snap-{k}"), &["eu-central-1a"]);
    }
    cloud.publish("x86_64", "snap-3");
    cloud.template("lt-1", &[&["snap-1"]]);
    let swept = cloud.sweep(PRUNE).await.unwrap();
    assert_eq!(swept["fastRestoreDisabled"], json!(["snap-1", "snap-2"]));
    assert_eq!(swept["deleted"], json!([]));
    cloud.state(|state| state.refuses_zones = true);
    cloud.restore("snap-2", &["eu-central-1a"]);
    let (error, message) = cloud.failed(PRUNE).await;
    assert_eq!(error, "SweepIncomplete");
    assert!(
        message.contains("snap-2: fast restore could not be disabled: eu-central-1a: not now"),
        "{message}"
    );
}

#[tokio::test]
async fn a_launch_template_that_is_deleted_meanwhile_names_nothing() {
    let cloud = Cloud::new();
    for k in 1..=4 {
        cloud.published(&format!("snap-{k}"), "x86_64", k);
    }
    cloud.template("lt-1", &[&["snap-1"]]);
    cloud.refuse("lt-1", "InvalidLaunchTemplateId.NotFound");
    assert_eq!(cloud.sweep(PRUNE).await.unwrap()["deleted"], json!(["snap-1"]));
}

#[tokio::test]
async fn details_that_cannot_be_deleted_are_named_and_ten_are_deleted_at_once() {
    let cloud = Cloud::new();
    for k in 10..24 {
        cloud.published(&format!("snap-{k}"), "x86_64", k);
    }
    cloud.sweep(PRUNE).await.unwrap();
    assert_eq!(cloud.count("DeleteParameters"), 2);
    assert_eq!(cloud.state(|state| state.deleted_parameters.len()), 11);
    cloud.published("snap-09", "x86_64", 9);
    cloud.state(|state| state.fault = Some("DeleteParameters"));
    let (error, message) = cloud.failed(PRUNE).await;
    assert_eq!(error, "SweepIncomplete");
    let expected = "/eks-image-prefetch/prod/x86_64/snap-09: the parameters could not be deleted";
    assert!(message.contains(expected), "{message}");
    // Without its parameter nothing would find it again.
    assert!(cloud.state(|state| state.snapshots.contains_key("snap-09")));
    cloud.state(|state| state.fault = None);
    assert_eq!(cloud.sweep(PRUNE).await.unwrap()["deleted"], json!(["snap-09"]));
    let last = cloud.state(|state| state.deleted_parameters.last().cloned());
    assert_eq!(last.as_deref(), Some("/eks-image-prefetch/prod/x86_64/snap-09"));
}

#[tokio::test]
async fn the_details_of_a_snapshot_whose_architecture_nobody_knows_go_by_either_name() {
    let cloud = Cloud::new();
    cloud.snapshot("snap-1", &[(EXECUTION_TAG, OWN)]);
    assert_eq!(cloud.sweep(PRUNE).await.unwrap()["deleted"], json!(["snap-1"]));
    let details = ["x86_64", "arm64"].map(|one| format!("/eks-image-prefetch/prod/{one}/snap-1"));
    assert_eq!(cloud.state(|state| state.deleted_parameters.clone()), details);
}

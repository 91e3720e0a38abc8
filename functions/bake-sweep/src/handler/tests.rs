use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_ec2::{
    operation::{
        delete_snapshot::{DeleteSnapshotError, DeleteSnapshotOutput},
        describe_fast_snapshot_restores::{DescribeFastSnapshotRestoresError, DescribeFastSnapshotRestoresOutput},
        describe_instances::{DescribeInstancesError, DescribeInstancesOutput},
        describe_launch_template_versions::{
            DescribeLaunchTemplateVersionsError, DescribeLaunchTemplateVersionsOutput,
        },
        describe_launch_templates::{DescribeLaunchTemplatesError, DescribeLaunchTemplatesOutput},
        describe_snapshots::{DescribeSnapshotsError, DescribeSnapshotsOutput},
        disable_fast_snapshot_restores::{DisableFastSnapshotRestoresError, DisableFastSnapshotRestoresOutput},
        terminate_instances::{TerminateInstancesError, TerminateInstancesOutput},
    },
    types::{
        DescribeFastSnapshotRestoreSuccessItem, DisableFastSnapshotRestoreErrorItem,
        DisableFastSnapshotRestoreStateError, DisableFastSnapshotRestoreStateErrorItem,
        DisableFastSnapshotRestoreSuccessItem, Instance, InstanceState, InstanceStateChange, LaunchTemplate,
        LaunchTemplateBlockDeviceMapping, LaunchTemplateEbsBlockDevice, LaunchTemplateVersion, Reservation,
        ResponseLaunchTemplateData, Tag,
    },
};
use aws_sdk_sfn::{
    operation::describe_execution::{DescribeExecutionError, DescribeExecutionOutput},
    types::{ExecutionStatus, error::ExecutionDoesNotExist},
};
use aws_sdk_ssm::{
    operation::{
        delete_parameters::{DeleteParametersError, DeleteParametersOutput},
        get_parameters::{GetParametersError, GetParametersOutput},
    },
    types::Parameter,
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use lambda_runtime::Diagnostic;
use prefetch::bake::PUBLISHED_TAG;
use serde_json::{Value, json};

use super::*;

const PRUNE: &str = include_str!("../../../../events/bake-sweep.prune.json");
const CLEAN_UP: &str = include_str!("../../../../events/bake-sweep.clean-up.json");
const SCHEDULE: &str = include_str!("../../../../events/bake-sweep.schedule.json");
const FAILED: &str = include_str!("../../../../events/bake-sweep.execution-failed.json");
/// The execution that the events tell of.
const OWN: &str = "arn:aws:states:eu-central-1:123456789012:execution:eks-image-prefetch-bake-snapshot:0b9d4c1e";
const OTHER: &str = "arn:aws:states:eu-central-1:123456789012:execution:eks-image-prefetch-bake-snapshot:other";

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

#[tokio::test]
async fn the_details_of_a_snapshot_whose_architecture_nobody_knows_go_by_either_name() {
    let cloud = Cloud::new();
    cloud.snapshot("snap-1", &[(EXECUTION_TAG, OWN)]);
    assert_eq!(cloud.sweep(PRUNE).await.unwrap()["deleted"], json!(["snap-1"]));
    let details = ["x86_64", "arm64"].map(|one| format!("/eks-image-prefetch/prod/{one}/snap-1"));
    assert_eq!(cloud.state(|state| state.deleted_parameters.clone()), details);
}

#[tokio::test]
async fn what_is_nothing_of_the_kind_is_refused_without_a_call() {
    let cloud = Cloud::new();
    for event in ["null", "{}", "{\"prune\": {\"keep\": 0}}", "{\"source\": \"aws.ec2\"}"] {
        assert_eq!(cloud.failed(event).await.0, "BadRequest");
    }
    assert!(cloud.calls().is_empty());
}

type Tags = Vec<(String, String)>;

/// What the services know and were asked.
#[derive(Default)]
struct State {
    /// The instances and the snapshots that carry our tags, with their further tags.
    instances: BTreeMap<String, Tags>,
    snapshots: BTreeMap<String, Tags>,
    /// The statuses of the executions that there are.
    executions: BTreeMap<String, ExecutionStatus>,
    redrives: i32,
    parameters: BTreeMap<String, String>,
    deleted_parameters: Vec<String>,
    /// The launch templates, each version with the snapshots that it names.
    templates: BTreeMap<String, Vec<Vec<String>>>,
    /// The zones in which snapshots are restored fast, and in which that was disabled.
    restores: BTreeMap<String, Vec<String>>,
    disabled: BTreeMap<String, Vec<String>>,
    refuses_zones: bool,
    calls: Vec<&'static str>,
    /// The call that is throttled.
    fault: Option<&'static str>,
    /// The call whose answer lacks what it was asked for.
    half: Option<&'static str>,
    /// The error codes by which resources are refused.
    refused: BTreeMap<String, &'static str>,
}

impl State {
    /// Notes a call, and gives the code of the error that it meets.
    fn call(&mut self, name: &'static str, resource: &str) -> Option<&'static str> {
        self.calls.push(name);
        let is_throttled = self.fault == Some(name);
        let refused = self.refused.get(resource).copied();
        if is_throttled { Some("Throttled") } else { refused }
    }
}

/// The function and what is around it.
struct Cloud {
    sweep: BakeSweep,
    state: Arc<Mutex<State>>,
}

impl Cloud {
    fn new() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let setting = |name: &str| match name {
            "STACK_NAME" => "eks-image-prefetch",
            "CLUSTER_NAME" => "prod",
            "PARAMETER_PREFIX" => "/eks-image-prefetch/prod",
            other => panic!("{other}"),
        };
        let sweep = BakeSweep {
            ec2: ec2(&state),
            sfn: sfn(&state),
            ssm: ssm(&state),
            settings: Settings::read(|name| Some(setting(name).to_owned())).unwrap(),
        };
        Self { sweep, state }
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    fn execution(&self, execution: &str, status: Option<ExecutionStatus>) {
        if let Some(status) = status {
            self.state(|state| state.executions.insert(execution.to_owned(), status));
        }
    }

    fn builder(&self, id: &str, tags: &[(&str, &str)]) {
        self.state(|state| state.instances.insert(id.to_owned(), owned(tags)));
    }

    fn snapshot(&self, id: &str, tags: &[(&str, &str)]) {
        self.state(|state| state.snapshots.insert(id.to_owned(), owned(tags)));
    }

    /// Adds a snapshot that was published in this hour.
    fn published(&self, id: &str, architecture: &str, hour: usize) {
        let at = format!("2026-11-16T{hour:02}:00:00.000Z");
        let tags = [
            (EXECUTION_TAG, OTHER),
            (ARCHITECTURE_TAG, architecture),
            (PUBLISHED_TAG, &at),
        ];
        self.snapshot(id, &tags);
    }

    /// Lets the parameter of an architecture name a snapshot.
    fn publish(&self, architecture: &str, snapshot: &str) {
        let name = format!("/eks-image-prefetch/prod/{architecture}/snapshot");
        self.state(|state| state.parameters.insert(name, snapshot.to_owned()));
    }

    fn template(&self, id: &str, versions: &[&[&str]]) {
        let snapshots = |version: &&[&str]| version.iter().map(|id| (*id).to_owned()).collect();
        let versions = versions.iter().map(snapshots).collect();
        self.state(|state| state.templates.insert(id.to_owned(), versions));
    }

    fn restore(&self, snapshot: &str, zones: &[&str]) {
        let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        self.state(|state| state.restores.insert(snapshot.to_owned(), zones));
    }

    fn refuse(&self, resource: &str, code: &'static str) {
        self.state(|state| state.refused.insert(resource.to_owned(), code));
    }

    async fn sweep(&self, event: &str) -> Result<Value, SweepError> {
        let swept = self.sweep.handle(serde_json::from_str(event).unwrap()).await?;
        Ok(serde_json::to_value(swept).unwrap())
    }

    /// The type and the message of the error that an event ends with.
    async fn failed(&self, event: &str) -> (String, String) {
        let error = Diagnostic::from(self.sweep(event).await.unwrap_err());
        (error.error_type, error.error_message)
    }

    /// The calls so far, one however many pages it took.
    fn calls(&self) -> Vec<&'static str> {
        let mut calls = self.state(|state| std::mem::take(&mut state.calls));
        calls.dedup();
        calls
    }

    fn count(&self, call: &str) -> usize {
        self.state(|state| state.calls.iter().filter(|made| **made == call).count())
    }
}

fn owned(tags: &[(&str, &str)]) -> Tags {
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    tags.collect()
}

/// All tags of what carries ours and these.
fn tagged(tags: &Tags) -> Vec<Tag> {
    let ours = owned(&[(STACK_TAG, "eks-image-prefetch"), (CLUSTER_TAG, "prod")]);
    let tags = ours
        .iter()
        .chain(tags)
        .map(|(key, value)| Tag::builder().key(key).value(value).build());
    tags.collect()
}

/// A page of two rows, and the token for the next.
fn page<T>(rows: impl Iterator<Item = T>, token: Option<&str>) -> (Vec<T>, Option<String>) {
    let from: usize = token.map_or(0, |token| token.parse().unwrap());
    let mut rows = rows.skip(from);
    let page = rows.by_ref().take(2).collect();
    (page, rows.next().map(|_| (from + 2).to_string()))
}

fn words(filters: &[Filter]) -> Vec<String> {
    let words = filters
        .iter()
        .map(|filter| format!("{}={}", filter.name().unwrap(), filter.values().join(",")));
    words.collect()
}

/// Whether something has the further tags that filters ask for.
fn carry(tags: &Tags, filters: &[String]) -> bool {
    let further = filters[2..].iter().filter_map(|filter| filter.strip_prefix("tag:"));
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    further.into_iter().all(|filter| tags.contains(&filter.to_owned()))
}

/// An error as a service answers it that does not say more than a code.
macro_rules! fault {
    ($service:ident, $error:ident, $code:expr) => {
        MockResponse::Error($error::generic(
            $service::error::ErrorMetadata::builder()
                .code($code)
                .message("no")
                .build(),
        ))
    };
}

const OURS: [&str; 2] = [
    "tag:bake-snapshot/stack=eks-image-prefetch",
    "tag:bake-snapshot/cluster=prod",
];

fn ec2(state: &Arc<Mutex<State>>) -> aws_sdk_ec2::Client {
    let shared = Arc::clone(state);
    let instances = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DescribeInstances", "") {
            return fault!(aws_sdk_ec2, DescribeInstancesError, code);
        }
        let filters = words(input.filters());
        assert_eq!(filters[..2], OURS);
        assert_eq!(
            filters[filters.len() - 1],
            "instance-state-name=pending,running,stopping,stopped"
        );
        let half = state.half;
        let rows = state.instances.iter().filter(|(_, tags)| carry(tags, &filters));
        let (rows, token) = page(rows, input.next_token());
        let rows = rows.into_iter().map(|(id, tags)| {
            let instance = Instance::builder()
                .instance_id(id)
                .set_tags((half != Some("tags")).then(|| tagged(tags)));
            Reservation::builder().instances(instance.build()).build()
        });
        let rows = (half != Some("DescribeInstances")).then(|| rows.collect());
        let output = DescribeInstancesOutput::builder().set_reservations(rows);
        MockResponse::Output(output.set_next_token(token).build())
    });
    let shared = Arc::clone(state);
    let terminate = mock!(aws_sdk_ec2::Client::terminate_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let id = &input.instance_ids()[0];
        if let Some(code) = state.call("TerminateInstances", id) {
            return fault!(aws_sdk_ec2, TerminateInstancesError, code);
        }
        if state.half == Some("TerminateInstances") {
            return MockResponse::Output(TerminateInstancesOutput::builder().build());
        }
        state.instances.remove(id).unwrap();
        let now = InstanceState::builder().name(InstanceStateName::ShuttingDown);
        let change = InstanceStateChange::builder()
            .instance_id(id)
            .current_state(now.build());
        let output = TerminateInstancesOutput::builder().terminating_instances(change.build());
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let snapshots = mock!(aws_sdk_ec2::Client::describe_snapshots).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DescribeSnapshots", "") {
            return fault!(aws_sdk_ec2, DescribeSnapshotsError, code);
        }
        let filters = words(input.filters());
        assert_eq!(filters[..2], OURS);
        assert_eq!(input.owner_ids(), ["self"]);
        let half = state.half;
        let rows = state.snapshots.iter().filter(|(_, tags)| carry(tags, &filters));
        let (rows, token) = page(rows, input.next_token());
        let rows = rows.into_iter().map(|(id, tags)| {
            let snapshot = aws_sdk_ec2::types::Snapshot::builder().snapshot_id(id);
            snapshot.set_tags((half != Some("tags")).then(|| tagged(tags))).build()
        });
        let rows = (half != Some("DescribeSnapshots")).then(|| rows.collect());
        let output = DescribeSnapshotsOutput::builder().set_snapshots(rows);
        MockResponse::Output(output.set_next_token(token).build())
    });
    let shared = Arc::clone(state);
    let delete = mock!(aws_sdk_ec2::Client::delete_snapshot).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let id = input.snapshot_id().unwrap();
        if let Some(code) = state.call("DeleteSnapshot", id) {
            return fault!(aws_sdk_ec2, DeleteSnapshotError, code);
        }
        state.snapshots.remove(id).unwrap();
        MockResponse::Output(DeleteSnapshotOutput::builder().build())
    });
    let restores = fast_restores(state);
    let disable = disable_fast_restores(state);
    let templates = templates(state);
    let versions = versions(state);
    mock_client!(
        aws_sdk_ec2,
        RuleMode::MatchAny,
        [
            &instances, &terminate, &snapshots, &delete, &restores, &disable, &templates, &versions
        ],
        |config| { config.retry_config(aws_sdk_ec2::config::retry::RetryConfig::disabled()) }
    )
}

fn fast_restores(state: &Arc<Mutex<State>>) -> aws_smithy_mocks::Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ec2::Client::describe_fast_snapshot_restores).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DescribeFastSnapshotRestores", "") {
            return fault!(aws_sdk_ec2, DescribeFastSnapshotRestoresError, code);
        }
        assert_eq!(words(input.filters())[1], "state=enabling,optimizing,enabled");
        let asked = input.filters()[0].values();
        let rows = state.restores.iter().filter(|(id, _)| asked.contains(id));
        let rows = rows.flat_map(|(id, zones)| zones.iter().map(move |zone| (id, zone)));
        let (rows, token) = page(rows, input.next_token());
        let rows = rows.into_iter().map(|(id, zone)| {
            let row = DescribeFastSnapshotRestoreSuccessItem::builder().snapshot_id(id);
            row.availability_zone(zone).build()
        });
        let output = DescribeFastSnapshotRestoresOutput::builder();
        let rows = (state.half != Some("DescribeFastSnapshotRestores")).then(|| rows.collect());
        let output = output.set_fast_snapshot_restores(rows);
        MockResponse::Output(output.set_next_token(token).build())
    })
}

fn disable_fast_restores(state: &Arc<Mutex<State>>) -> aws_smithy_mocks::Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ec2::Client::disable_fast_snapshot_restores).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let id = &input.source_snapshot_ids()[0];
        if let Some(code) = state.call("DisableFastSnapshotRestores", id) {
            return fault!(aws_sdk_ec2, DisableFastSnapshotRestoresError, code);
        }
        let mut output = DisableFastSnapshotRestoresOutput::builder();
        if state.half == Some("DisableFastSnapshotRestores") {
            return MockResponse::Output(output.build());
        }
        if state.refuses_zones {
            let why = DisableFastSnapshotRestoreStateError::builder()
                .code("c")
                .message("not now");
            let zone =
                DisableFastSnapshotRestoreStateErrorItem::builder().availability_zone(&input.availability_zones()[0]);
            let refused = DisableFastSnapshotRestoreErrorItem::builder().snapshot_id(id);
            output = output.unsuccessful(
                refused
                    .fast_snapshot_restore_state_errors(zone.error(why.build()).build())
                    .build(),
            );
        } else {
            state.restores.remove(id).unwrap();
            state.disabled.insert(id.clone(), input.availability_zones().to_vec());
            for zone in input.availability_zones() {
                let row = DisableFastSnapshotRestoreSuccessItem::builder().availability_zone(zone);
                output = output.successful(row.build());
            }
        }
        MockResponse::Output(output.build())
    })
}

fn templates(state: &Arc<Mutex<State>>) -> aws_smithy_mocks::Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ec2::Client::describe_launch_templates).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DescribeLaunchTemplates", "") {
            return fault!(aws_sdk_ec2, DescribeLaunchTemplatesError, code);
        }
        let (rows, token) = page(state.templates.keys(), input.next_token());
        let rows = rows
            .into_iter()
            .map(|id| LaunchTemplate::builder().launch_template_id(id).build());
        let rows = (state.half != Some("DescribeLaunchTemplates")).then(|| rows.collect());
        let output = DescribeLaunchTemplatesOutput::builder().set_launch_templates(rows);
        MockResponse::Output(output.set_next_token(token).build())
    })
}

fn versions(state: &Arc<Mutex<State>>) -> aws_smithy_mocks::Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ec2::Client::describe_launch_template_versions).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let id = input.launch_template_id().unwrap();
        if let Some(code) = state.call("DescribeLaunchTemplateVersions", id) {
            return fault!(aws_sdk_ec2, DescribeLaunchTemplateVersionsError, code);
        }
        assert!(input.versions().is_empty());
        if state.half == Some("DescribeLaunchTemplateVersions") {
            return MockResponse::Output(DescribeLaunchTemplateVersionsOutput::builder().build());
        }
        let (rows, token) = page(state.templates[id].iter().zip(1..), input.next_token());
        let rows = rows.into_iter().map(|(snapshots, number)| {
            let devices = snapshots.iter().map(|snapshot| {
                let disk = LaunchTemplateEbsBlockDevice::builder().snapshot_id(snapshot).build();
                LaunchTemplateBlockDeviceMapping::builder().ebs(disk).build()
            });
            let data = ResponseLaunchTemplateData::builder().set_block_device_mappings(Some(devices.collect()));
            LaunchTemplateVersion::builder()
                .launch_template_name("nodes")
                .version_number(number)
                .launch_template_data(data.build())
                .build()
        });
        let output = DescribeLaunchTemplateVersionsOutput::builder();
        let output = output.set_launch_template_versions(Some(rows.collect()));
        MockResponse::Output(output.set_next_token(token).build())
    })
}

fn sfn(state: &Arc<Mutex<State>>) -> aws_sdk_sfn::Client {
    let shared = Arc::clone(state);
    let describe = mock!(aws_sdk_sfn::Client::describe_execution).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let execution = input.execution_arn().unwrap();
        if let Some(code) = state.call("DescribeExecution", execution) {
            return fault!(aws_sdk_sfn, DescribeExecutionError, code);
        }
        let Some(status) = state.executions.get(execution) else {
            let missing = ExecutionDoesNotExist::builder().build();
            return MockResponse::Error(DescribeExecutionError::ExecutionDoesNotExist(missing));
        };
        let output = DescribeExecutionOutput::builder()
            .execution_arn(execution)
            .state_machine_arn("arn:aws:states:eu-central-1:123456789012:stateMachine:eks-image-prefetch-bake-snapshot")
            .start_date(aws_sdk_sfn::primitives::DateTime::from_secs(0))
            .redrive_count(state.redrives)
            .status(if state.half == Some("DescribeExecution") {
                "no value was set".into()
            } else {
                status.clone()
            });
        MockResponse::Output(output.build().unwrap())
    });
    mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&describe], |config| {
        config.retry_config(aws_sdk_sfn::config::retry::RetryConfig::disabled())
    })
}

fn ssm(state: &Arc<Mutex<State>>) -> aws_sdk_ssm::Client {
    let shared = Arc::clone(state);
    let get = mock!(aws_sdk_ssm::Client::get_parameters).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("GetParameters", "") {
            return fault!(aws_sdk_ssm, GetParametersError, code);
        }
        let names = input.names().iter();
        let (found, missing): (Vec<&String>, Vec<&String>) =
            names.partition(|name| state.parameters.contains_key(*name));
        let found = found
            .into_iter()
            .map(|name| Parameter::builder().name(name).value(&state.parameters[name]).build());
        if state.half == Some("GetParameters") {
            return MockResponse::Output(GetParametersOutput::builder().build());
        }
        let output = GetParametersOutput::builder().set_parameters(Some(found.collect()));
        let missing = missing.into_iter().cloned().collect();
        MockResponse::Output(output.set_invalid_parameters(Some(missing)).build())
    });
    let shared = Arc::clone(state);
    let delete = mock!(aws_sdk_ssm::Client::delete_parameters).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DeleteParameters", "") {
            return fault!(aws_sdk_ssm, DeleteParametersError, code);
        }
        assert!((1..=10).contains(&input.names().len()));
        if state.half == Some("DeleteParameters") {
            return MockResponse::Output(DeleteParametersOutput::builder().build());
        }
        state.deleted_parameters.extend(input.names().to_vec());
        // What there is not counts as invalid.
        let (deleted, missing) = input.names().split_at(1);
        let output = DeleteParametersOutput::builder().set_deleted_parameters(Some(deleted.to_vec()));
        MockResponse::Output(output.set_invalid_parameters(Some(missing.to_vec())).build())
    });
    mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&get, &delete], |config| {
        config.retry_config(aws_sdk_ssm::config::retry::RetryConfig::disabled())
    })
}

//! Inputs and defaults that are accepted, and those that are not.

use lambda_runtime::Diagnostic;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    cloud::Cloud,
    manifests::{DEFAULTS, RULES, cluster, settings},
};
use crate::input::Request;

#[tokio::test]
async fn every_field_of_an_input_that_is_not_accepted_is_named_and_nothing_is_named() {
    let cloud = Cloud::new();
    let (error, message) = cloud
        .refused(include_str!("../../../../../events/bake-plan.bad-input.json"))
        .await;
    assert_eq!(error, "BadInput");
    for wrong in [
        r#"trigger: "cron" is not accepted: it takes manual, schedule, push"#,
        r#"images[0]: "team/app:" is not accepted: it takes tag: 1 to 128 letters"#,
        r#"rules: ["default"] is not accepted: it takes nothing beside images"#,
        r#"architectures: ["amd64"] is not accepted: it takes a list of x86_64, arm64 or both"#,
        r#"amiParameter: "/ami/{region}" is not accepted"#,
        r#"instanceType: "large" is not accepted"#,
        "volumeSizeGiB: 8 is not accepted: it takes a whole number from 20 to 16384",
        r#"kmsKeyId: "alias/bakes" is not accepted: it takes nothing where encrypted is false"#,
        r#"instanceProfile: "" is not accepted"#,
        "securityGroupIds: [] is not accepted",
        r#"subnetId: "vpc-1" is not accepted"#,
        r#"publicAddress: "no" is not accepted: it takes true or false"#,
        r#"fastSnapshotRestoreZones: ["us-east-1a"] is not accepted: it takes a list of at most 10 Availability Zones of eu-central-1"#,
        "keep: 0 is not accepted: it takes a whole number from 1 to 100",
        "force: 1 is not accepted",
        "quiet: null is not accepted",
        "dryRun: true is not accepted: it takes nothing, for there is no such field: the fields are trigger, images",
    ] {
        assert!(message.contains(wrong), "{wrong}\n{message}");
    }
    assert!(cloud.calls().is_empty());
}

#[tokio::test]
async fn the_stacks_defaults_stand_under_the_input_and_what_contradicts_them_stands_alone() {
    let defaults = r#"{"rules": ["default"], "kmsKeyId": "alias/bakes", "keep": 7, "architectures": ["arm64"]}"#;
    let plan = async |input: Value| {
        let event = json!({"input": input, "cluster": cluster()}).to_string();
        Cloud::with(RULES, defaults).plan(&event).await.unwrap()
    };
    let bake = plan(json!({})).await;
    assert_eq!(
        (&bake["keep"], &bake["bakes"][0]["architecture"]),
        (&json!(7), &json!("arm64"))
    );
    assert_eq!(bake["bakes"][0]["volume"]["KmsKeyId"], "alias/bakes");
    let bake = plan(json!({"encrypted": false, "keep": 1, "images": ["team/app:v1"]})).await;
    let volume = json!({"VolumeSize": 20, "VolumeType": "gp3", "DeleteOnTermination": true, "Encrypted": false});
    assert_eq!((&bake["keep"], &bake["bakes"][0]["volume"]), (&json!(1), &volume));
    assert_eq!(bake["bakes"][0]["images"][0]["named"], true);
}

#[tokio::test]
async fn defaults_that_are_not_accepted_are_blamed_on_the_stack() {
    for (defaults, expected) in [
        (
            "{\"keep\": 0}",
            "the stack's parameter BakeDefaults: keep: 0 is not accepted",
        ),
        (
            "[]",
            "the stack's parameter BakeDefaults: the value: [] is not accepted",
        ),
        ("{", "the stack's parameter BakeDefaults: it is no JSON"),
        (
            "{\"keep\": 1, \"keep\": 2}",
            "the stack's parameter BakeDefaults: it is no JSON: the key \"keep\" stands twice",
        ),
        (
            "{\"trigger\": \"push\"}",
            "BakeDefaults: trigger: \"push\" is not accepted: it takes nothing",
        ),
        ("{\"rules\": [\"gone\"]}", "BakeDefaults: rules: [\"gone\"]"),
    ] {
        let cloud = Cloud::with(RULES, defaults);
        let (error, message) = cloud.refused(DEFAULTS).await;
        assert_eq!(error, "BadInput");
        assert!(message.contains(expected), "{message}");
        assert!(cloud.calls().is_empty());
    }
}

#[tokio::test]
async fn what_is_no_request_of_the_state_machine_is_refused() {
    let cloud = Cloud::new();
    for event in [
        json!(null),
        json!([]),
        json!({}),
        json!({"input": [], "cluster": cluster()}),
        json!({"input": {}, "cluster": cluster(), "more": 1}),
    ] {
        assert_eq!(cloud.refused(&event.to_string()).await.0, "BadInput", "{event}");
    }
    assert!(cloud.calls().is_empty());
}

pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(x86_64|arm64|default|m6i.large|[a-z/.:-]{0,20}|.{0,8})".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 16, 3, |inner| {
        let key = "(x86_64|arm64|.{0,3})";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..3).prop_map(|object| object.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_input_is_read_or_is_bad_input(
        fields in prop::collection::btree_map(
            "(trigger|images|rules|architectures|amiParameter|instanceType|volumeSizeGiB|encrypted|kmsKeyId|instanceProfile|securityGroupIds|subnetId|publicAddress|fastSnapshotRestoreZones|keep|force|quiet|.{0,3})",
            any_json(),
            0..4,
        ),
    ) {
        let input: Value = fields.into_iter().collect();
        match Request::parse(json!({"input": input, "cluster": cluster()}), &settings(RULES, "{}")) {
            Ok(Request { input, .. }) => {
                prop_assert!((1..=100).contains(&input.manner.keep));
                prop_assert!(input.encrypted || input.kms_key.is_none());
                prop_assert!(input.images.is_empty() || input.rules.is_none());
                prop_assert!(input.architectures.is_none_or(|architectures| !architectures.is_empty()));
            }
            Err(error) => prop_assert_eq!(Diagnostic::from(error).error_type, "BadInput"),
        }
    }
}

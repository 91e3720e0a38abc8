//! Plans: their bakes, commands and fingerprints.

use prefetch::command::Comment;
use regex_lite::Regex;
use serde_json::{Value, json};

use super::{
    cloud::Cloud,
    manifests::{DEFAULTS, MIB, REGISTRY, cluster, digest, index, single},
};

#[tokio::test]
async fn the_newest_image_of_every_rule_is_planned_for_the_architecture_of_the_running_nodes() {
    for event in [DEFAULTS, include_str!("../../../../../events/bake-plan.push.json")] {
        let cloud = Cloud::new();
        cloud.node("x86_64", |_| {});
        let image = format!("{REGISTRY}/team/app:v1@{}", digest("team/app:v1"));
        let mut plan = cloud.plan(event).await.unwrap();
        let fingerprint = plan["bakes"][0]["fingerprint"].take();
        assert_eq!(fingerprint.as_str().unwrap().len(), 64);
        let expected = json!({
            "bakes": [{
                "architecture": "x86_64",
                "amiParameter": "/aws/service/bottlerocket/aws-k8s-1.33/x86_64/latest/image_id",
                "instanceType": "m6i.large",
                "instanceProfile": {"Name": "eks-image-prefetch-builder"},
                "networkInterface": {
                    "DeviceIndex": 0, "SubnetId": "subnet-0abc0000000000001", "Groups": ["sg-0abc0000000000001"],
                    "AssociatePublicIpAddress": false, "DeleteOnTermination": true,
                },
                "volume": {"VolumeSize": 20, "VolumeType": "gp3", "DeleteOnTermination": true, "Encrypted": true},
                "images": [{"image": image, "bytes": 100 * MIB, "named": false}],
                "leftOff": [],
                "commands": [{
                    "comment": "bake-snapshot x86_64 1/1",
                    "parameters": {
                        "images": [image], "executionTimeout": ["3600"], "imageGCHighThresholdPercent": ["85"],
                        "maxParallelImagePulls": ["2"], "maxConnections": ["20"], "maxBandwidthMiB": ["0"], "maxImageGiB": ["0"], "keep": ["0"], "pin": ["false"],
                    },
                }],
                "tags": [{
                    "Key": "bake-snapshot/image-01", "Value": format!("team/app:v1@{}", digest("team/app:v1")),
                }],
                "fingerprint": null,
                "fastSnapshotRestoreZones": [],
            }],
            "keep": 3, "force": false, "quiet": false,
        });
        assert_eq!(plan, expected);
        let calls = cloud.calls();
        assert_eq!(
            calls,
            [
                "DescribeInstances",
                "DescribeSubnets",
                "DescribeImages",
                "BatchGetImage"
            ]
        );
    }
}

#[tokio::test]
async fn nodes_of_both_architectures_make_two_bakes_each_with_its_own_size_of_an_index() {
    let cloud = Cloud::new();
    cloud.node("arm64", |_| {});
    cloud.node("x86_64", |_| {});
    cloud.push("team/app", "v2", &index(&[("amd64", 10), ("arm64", 20)]));
    let plan = cloud.plan(DEFAULTS).await.unwrap();
    let told = |k: usize| {
        let bake = &plan["bakes"][k];
        let parameter = bake["amiParameter"].as_str().unwrap().to_owned();
        (
            bake["architecture"].clone(),
            bake["instanceType"].clone(),
            parameter,
            bake["images"][0]["bytes"].clone(),
        )
    };
    let ami = |architecture| format!("/aws/service/bottlerocket/aws-k8s-1.33/{architecture}/latest/image_id");
    assert_eq!(
        told(0),
        (json!("x86_64"), json!("m6i.large"), ami("x86_64"), json!(10 * MIB))
    );
    assert_eq!(
        told(1),
        (json!("arm64"), json!("m6g.large"), ami("arm64"), json!(20 * MIB))
    );
    assert_eq!(plan["bakes"].as_array().unwrap().len(), 2);
    assert_ne!(plan["bakes"][0]["fingerprint"], plan["bakes"][1]["fingerprint"]);
    // The index, and then both that it leads to at once.
    assert_eq!(cloud.count("BatchGetImage"), 2);
}

#[tokio::test]
async fn what_the_input_says_is_planned_and_ec2_is_not_asked() {
    let cloud = Cloud::new();
    let plan = cloud
        .plan(include_str!("../../../../../events/bake-plan.overrides.json"))
        .await
        .unwrap();
    let bake = &plan["bakes"][1];
    assert_eq!(bake["architecture"], "arm64");
    assert_eq!(
        bake["amiParameter"],
        "/aws/service/bottlerocket/aws-k8s-1.33-nvidia/arm64/latest/image_id"
    );
    assert_eq!(bake["instanceType"], "c7g.xlarge");
    assert_eq!(
        bake["instanceProfile"],
        json!({"Arn": "arn:aws:iam::123456789012:instance-profile/bakes/builder"})
    );
    assert_eq!(
        bake["networkInterface"],
        json!({
            "DeviceIndex": 0, "SubnetId": "subnet-0abc0000000000003", "Groups": ["sg-0abc0000000000002"],
            "AssociatePublicIpAddress": true, "DeleteOnTermination": true,
        })
    );
    assert_eq!(
        bake["volume"],
        json!({
            "VolumeSize": 100, "VolumeType": "gp3", "DeleteOnTermination": true, "Encrypted": true,
            "KmsKeyId": "alias/bakes",
        })
    );
    assert_eq!(
        bake["fastSnapshotRestoreZones"],
        json!(["eu-central-1a", "eu-central-1b"])
    );
    let rest = (&plan["keep"], &plan["force"], &plan["quiet"]);
    assert_eq!(rest, (&json!(5), &json!(true), &json!(true)));
    assert_eq!(cloud.calls(), ["DescribeImages", "BatchGetImage"]);
}

#[tokio::test]
async fn whatever_is_planned_is_sent_in_words_that_the_document_accepts_and_is_no_jobs_command() {
    let cloud = Cloud::new();
    cloud.node("x86_64", |_| {});
    let plan = cloud.plan(DEFAULTS).await.unwrap();
    let command = &plan["bakes"][0]["commands"][0];
    let document: Value = serde_json::from_str(include_str!("../../../../../ssm/document.json")).unwrap();
    for (name, value) in command["parameters"].as_object().unwrap() {
        let pattern = document["parameters"][name]["allowedPattern"].as_str().unwrap();
        let value = value[0].as_str().unwrap();
        assert!(Regex::new(pattern).unwrap().is_match(value), "{name}: {value}");
    }
    assert!(command["comment"].as_str().unwrap().parse::<Comment>().is_err());
}

#[tokio::test]
async fn where_aws_cannot_be_asked_it_says_what_failed_so_that_it_is_tried_again() {
    for (call, expected) in [
        ("DescribeInstances", "the running nodes could not be listed"),
        ("DescribeSubnets", "the cluster's subnets could not be described"),
        ("DescribeImages", "the images of repository team/"),
        ("BatchGetImage", "manifests of repository team/app could not be read"),
    ] {
        let cloud = Cloud::new();
        cloud.node("x86_64", |_| {});
        cloud.state(|state| state.calls.fail(call, 0, "Throttled"));
        let (error, message) = cloud.refused(DEFAULTS).await;
        assert_eq!(error, "AwsError");
        assert!(
            message.starts_with(expected) && message.contains("Throttled"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn the_fingerprint_changes_with_what_is_baked_and_with_nothing_else() {
    let cloud = Cloud::new();
    cloud.push("team/web", "v1", &single(&[("web", 1)]));
    let fingerprint = async |input: Value| {
        let mut input = input;
        input["architectures"] = json!(["x86_64"]);
        let event = json!({"input": input, "cluster": cluster()}).to_string();
        let plan = cloud.plan(&event).await.unwrap();
        plan["bakes"][0]["fingerprint"].as_str().unwrap().to_owned()
    };
    let images = |images: &[&str]| json!({"images": images});
    let first = fingerprint(images(&["team/app:v1", "team/web:v1"])).await;
    for same in [
        images(&["team/web:v1", "team/app:v1"]),
        json!({"rules": ["default"]}),
        json!({"keep": 9, "quiet": true, "force": true, "instanceType": "c7i.large", "publicAddress": true}),
        json!({"volumeSizeGiB": 20}),
    ] {
        assert_eq!(fingerprint(same.clone()).await, first, "{same}");
    }
    for other in [
        images(&["team/app:v1"]),
        json!({"volumeSizeGiB": 21}),
        json!({"encrypted": false}),
        json!({"kmsKeyId": "alias/bakes"}),
        json!({"fastSnapshotRestoreZones": ["eu-central-1a"]}),
    ] {
        assert_ne!(fingerprint(other.clone()).await, first, "{other}");
    }
}

#[tokio::test]
async fn a_plan_that_no_state_machine_takes_is_refused() {
    let rules = r#"[{"name": "default", "repositories": ["team/app"], "newest": 50}]"#;
    let cloud = Cloud::with(rules, "{}");
    for k in 0..49 {
        let image = format!("{}{k}", "x".repeat(100));
        cloud.push("team/app", &image, &single(&[(&image, 1)]));
        for t in 0..4 {
            cloud.tag("team/app", &image, &format!("{image}-{t}"));
        }
    }
    let event = json!({"input": {"architectures": ["x86_64", "arm64"]}, "cluster": cluster()}).to_string();
    let (error, message) = cloud.refused(&event).await;
    assert_eq!(error, "BadInput");
    assert!(
        message.contains("rules: \"246 images\" is not accepted: it takes fewer: they make a plan of"),
        "{message}"
    );
}

#[tokio::test]
async fn images_for_which_no_volume_is_large_enough_are_refused_unless_a_size_is_given() {
    let cloud = Cloud::new();
    cloud.push("team/app", "v2", &single(&[("huge", 8 * 1024 * 1024)]));
    let mut event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()});
    let (error, message) = cloud.refused(&event.to_string()).await;
    assert_eq!(error, "BadInput");
    let expected = "rules: \"1 images\" is not accepted: it takes fewer: they need a volume of 28917 GiB";
    assert!(message.contains(expected), "{message}");
    event["input"]["volumeSizeGiB"] = json!(16_384);
    let plan = cloud.plan(&event.to_string()).await.unwrap();
    assert_eq!(plan["bakes"][0]["volume"]["VolumeSize"], 16_384);
}

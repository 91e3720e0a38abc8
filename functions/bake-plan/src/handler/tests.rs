use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_ec2::{
    operation::{
        describe_instances::{DescribeInstancesError, DescribeInstancesOutput},
        describe_subnets::{DescribeSubnetsError, DescribeSubnetsOutput},
    },
    types::{ArchitectureValues, Instance, OperatorResponse, PlatformValues, Reservation, Subnet, Tag},
};
use aws_sdk_ecr::{
    operation::{
        batch_get_image::{BatchGetImageError, BatchGetImageOutput},
        describe_images::{DescribeImagesError, DescribeImagesOutput},
        describe_repositories::DescribeRepositoriesOutput,
    },
    types::{
        Image as EcrImage, ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier, Repository,
        error::{ImageNotFoundException, RepositoryNotFoundException},
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use lambda_runtime::Diagnostic;
use prefetch::command::{Comment, MAX_IMAGES_BYTES};
use proptest::prelude::*;
use regex_lite::Regex;
use sha2::{Digest, Sha256};

use super::*;

const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
const MIB: u64 = 1 << 20;
const DEFAULTS: &str = include_str!("../../../../events/bake-plan.defaults.json");

#[tokio::test]
async fn the_newest_image_of_every_rule_is_planned_for_the_architecture_of_the_running_nodes() {
    for event in [DEFAULTS, include_str!("../../../../events/bake-plan.push.json")] {
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
    cloud.push("team/app", "v2", index(&[("amd64", 10), ("arm64", 20)]));
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
        .plan(include_str!("../../../../events/bake-plan.overrides.json"))
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
async fn images_that_are_named_are_baked_as_they_are_named_and_each_once() {
    let cloud = Cloud::new();
    cloud.push("team/web", "v1", single(&[("web", 5)]));
    let names = ["team/web:v1", "team/app:v1", "team/web:v1"];
    let mut event: Value = serde_json::from_str(include_str!("../../../../events/bake-plan.images.json")).unwrap();
    event["input"]["images"] = json!(names);
    let plan = cloud.plan(&event.to_string()).await.unwrap();
    let image = |name: &str| format!("{REGISTRY}/{name}@{}", digest(name));
    assert_eq!(
        plan["bakes"][0]["images"],
        json!([
            {"image": image("team/web:v1"), "bytes": 5 * MIB, "named": true},
            {"image": image("team/app:v1"), "bytes": 100 * MIB, "named": true},
        ])
    );
    event["input"]["images"] = json!([format!("team/web@{}", digest("team/web:v1"))]);
    let plan = cloud.plan(&event.to_string()).await.unwrap();
    let by_digest = format!("{REGISTRY}/team/web@{}", digest("team/web:v1"));
    assert_eq!(plan["bakes"][0]["images"][0]["image"], by_digest);
}

#[tokio::test]
async fn every_field_of_an_input_that_is_not_accepted_is_named_and_nothing_is_asked() {
    let cloud = Cloud::new();
    let (error, message) = cloud
        .refused(include_str!("../../../../events/bake-plan.bad-input.json"))
        .await;
    assert_eq!(error, "BadInput");
    for wrong in [
        r#"trigger: "cron" is not accepted: it takes manual, schedule, push"#,
        r#"images[0]: "team/app" is not accepted: it takes repository:tag"#,
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
async fn an_image_that_is_named_and_not_there_or_not_for_an_architecture_is_refused_by_its_place() {
    let cloud = Cloud::new();
    cloud.push("team/web", "v1", index(&[("amd64", 1), ("s390x", 1)]));
    let event = |images: Value| {
        let input = json!({"images": images, "architectures": ["x86_64", "arm64"]});
        json!({"input": input, "cluster": cluster()}).to_string()
    };
    for (images, expected) in [
        (
            json!(["team/app:v1", "team/app:v9"]),
            r#"images[1]: "team/app:v9" is not accepted: it takes an image that exists"#,
        ),
        (json!(["team/none:v1"]), "an image of a repository that exists"),
        (
            json!(["team/app:v1", "team/web:v1"]),
            r#"images[1]: "team/web:v1" is not accepted: it takes an image for arm64, which this index has none for"#,
        ),
    ] {
        let (error, message) = cloud.refused(&event(images)).await;
        assert_eq!(error, "BadInput");
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn an_image_that_a_rule_finds_and_that_has_none_for_the_architecture_is_left_off() {
    let cloud = Cloud::new();
    cloud.node("x86_64", |_| {});
    cloud.push("team/web", "v1", index(&[("arm64", 1), ("unknown", 1)]));
    let plan = cloud.plan(DEFAULTS).await.unwrap();
    let bake = &plan["bakes"][0];
    let image = |name: &str| format!("{REGISTRY}/{name}@{}", digest(name));
    assert_eq!(bake["images"].as_array().unwrap().len(), 1);
    assert_eq!(bake["images"][0]["image"], image("team/app:v1"));
    assert_eq!(bake["leftOff"], json!([image("team/web:v1")]));
}

#[tokio::test]
async fn where_nothing_is_left_to_bake_it_says_so() {
    let cloud = Cloud::new();
    cloud.node("x86_64", |_| {});
    cloud.push("team/app", "v2", index(&[("arm64", 1)]));
    let (error, message) = cloud.refused(DEFAULTS).await;
    assert_eq!(error, "NoImages");
    assert!(message.contains("is baked for x86_64"), "{message}");
    let cloud = Cloud::with(r#"[{"name": "gpu", "repositories": ["team/none"]}]"#, "{}");
    cloud.node("x86_64", |_| {});
    let refused = cloud.refused(DEFAULTS).await;
    let expected = "the rules gpu name no image that exists".to_owned();
    assert_eq!(refused, ("NoImages".to_owned(), expected));
}

#[tokio::test]
async fn an_image_that_two_rules_name_is_baked_once_and_as_the_more_generous_one_takes_it() {
    let rule = |name: &str, gib: u32| json!({"name": name, "repositories": ["team/app"], "maxImageGiB": gib});
    for (first, second, is_baked) in [(1, 2, false), (1, 3, true), (0, 1, true), (1, 0, true)] {
        let rules = json!([rule("a", first), rule("b", second)]).to_string();
        let cloud = Cloud::with(&rules, "{}");
        cloud.push("team/app", "v2", single(&[("large", 2049)]));
        let event = json!({"input": {"architectures": ["arm64"]}, "cluster": cluster()}).to_string();
        let plan = cloud.plan(&event).await;
        match plan {
            Ok(plan) => assert_eq!(plan["bakes"][0]["images"].as_array().unwrap().len(), 1),
            Err(error) => assert_eq!(Diagnostic::from(error).error_type, "NoImages"),
        }
        assert_eq!(cloud.plan(&event).await.is_ok(), is_baked, "{rules}");
    }
}

#[tokio::test]
async fn of_two_rules_only_the_one_that_is_named_chooses_images_and_architectures() {
    let rules = json!([
        {"name": "app", "repositories": ["team/app"], "nodes": {"team": ["app"]}},
        {"name": "web", "repositories": ["team/web"], "nodes": {"team": ["web"]}},
    ]);
    let cloud = Cloud::with(&rules.to_string(), "{}");
    cloud.push("team/web", "v1", single(&[("web", 1)]));
    cloud.node("x86_64", |tags| drop(tags.insert("team".to_owned(), "app".to_owned())));
    cloud.node("arm64", |tags| drop(tags.insert("team".to_owned(), "web".to_owned())));
    let event = json!({"input": {"rules": ["web"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    assert_eq!(plan["bakes"].as_array().unwrap().len(), 1);
    assert_eq!(plan["bakes"][0]["architecture"], "arm64");
    let image = format!("{REGISTRY}/team/web:v1@{}", digest("team/web:v1"));
    assert_eq!(plan["bakes"][0]["images"][0]["image"], image);
}

#[tokio::test]
async fn one_digest_under_two_tags_is_two_images_and_takes_its_room_once() {
    let cloud = Cloud::with(r#"[{"name": "default", "repositories": ["team/app"]}]"#, "{}");
    cloud.push("team/app", "v2", single(&[("base", 10 * 1024)]));
    cloud.tag("team/app", "v2", "latest");
    let event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    let bake = &plan["bakes"][0];
    let image = |tag: &str| format!("{REGISTRY}/team/app:{tag}@{}", digest("team/app:v2"));
    let images: Vec<&Value> = bake["images"].as_array().unwrap().iter().map(|i| &i["image"]).collect();
    assert_eq!(images, [&json!(image("latest")), &json!(image("v2"))]);
    assert_eq!(bake["volume"]["VolumeSize"], 40);
    assert_eq!(cloud.asked(), [1]);
}

#[tokio::test]
async fn manifests_are_asked_for_a_hundred_at_once_and_images_sent_as_many_at_once_as_have_room_beside_the_document() {
    let rules = r#"[{"name": "default", "repositories": ["team/*"], "newest": 50}]"#;
    let cloud = Cloud::with(rules, "{}");
    for k in 0..49 {
        cloud.push(
            "team/app",
            &format!("x{k}"),
            index(&[("amd64", k + 1), ("arm64", k + 1)]),
        );
    }
    let event = json!({"input": {"architectures": ["x86_64", "arm64"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    assert_eq!(cloud.asked(), [50, 98]);
    let commands = plan["bakes"][1]["commands"].as_array().unwrap();
    for (command, place) in commands.iter().zip(1..) {
        assert_eq!(
            command["comment"],
            format!("bake-snapshot arm64 {place}/{}", commands.len())
        );
        let bytes = command["parameters"]["images"][0].as_str().unwrap().len();
        assert!((1..=MAX_IMAGES_BYTES).contains(&bytes), "{bytes}");
    }
    let sent = commands
        .iter()
        .map(|command| command["parameters"]["images"][0].as_str().unwrap());
    let sent: Vec<&str> = sent.flat_map(|images| images.split(' ')).collect();
    let planned = plan["bakes"][1]["images"].as_array().unwrap().iter();
    let planned: Vec<&str> = planned.map(|image| image["image"].as_str().unwrap()).collect();
    assert_eq!(sent, planned);
    // Tags name as many as a resource has room for.
    assert_eq!(plan["bakes"][0]["tags"].as_array().unwrap().len(), 35);
    assert_eq!(plan["bakes"][0]["tags"][34]["Key"], "bake-snapshot/image-35");
}

#[tokio::test]
async fn images_with_the_longest_names_are_sent_as_many_at_once_as_others() {
    let repository = |k: usize| format!("{}/{k:02}", "r".repeat(252));
    let rules = json!([{"name": "default", "repositories": ["r*"]}]).to_string();
    let cloud = Cloud::with(&rules, "{}");
    for k in 0..31 {
        cloud.push(&repository(k), &"t".repeat(128), single(&[("app", 1)]));
    }
    let event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    let commands = plan["bakes"][0]["commands"].as_array().unwrap();
    let images = commands
        .iter()
        .map(|command| command["parameters"]["images"][0].as_str().unwrap().split(' ').count());
    assert_eq!(images.collect::<Vec<_>>(), [30, 1]);
}

#[tokio::test]
async fn more_than_a_hundred_manifests_of_a_repository_take_two_questions() {
    let rules = r#"[{"name": "a", "repositories": ["team/app"], "tags": ["a*"], "newest": 50},
        {"name": "b", "repositories": ["team/app"], "tags": ["b*"], "newest": 50},
        {"name": "c", "repositories": ["team/app"], "tags": ["c*"], "newest": 50}]"#;
    let cloud = Cloud::with(rules, "{}");
    for k in 0..120 {
        let tag = format!("{}{k}", ["a", "b", "c"][k % 3]);
        cloud.push("team/app", &tag, single(&[(&tag, 1)]));
    }
    let event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    assert_eq!(plan["bakes"][0]["images"].as_array().unwrap().len(), 120);
    assert_eq!(cloud.asked(), [20, 100]);
}

#[tokio::test]
async fn whatever_is_planned_is_sent_in_words_that_the_document_accepts_and_is_no_jobs_command() {
    let cloud = Cloud::new();
    cloud.node("x86_64", |_| {});
    let plan = cloud.plan(DEFAULTS).await.unwrap();
    let command = &plan["bakes"][0]["commands"][0];
    let document: Value = serde_json::from_str(include_str!("../../../../ssm/document.json")).unwrap();
    for (name, value) in command["parameters"].as_object().unwrap() {
        let pattern = document["parameters"][name]["allowedPattern"].as_str().unwrap();
        let value = value[0].as_str().unwrap();
        assert!(Regex::new(pattern).unwrap().is_match(value), "{name}: {value}");
    }
    assert!(command["comment"].as_str().unwrap().parse::<Comment>().is_err());
}

#[tokio::test]
async fn nodes_are_looked_for_on_every_page_and_what_cannot_be_warmed_is_no_node() {
    let cloud = Cloud::new();
    for _ in 0..5 {
        cloud.node("x86_64", |_| {});
    }
    cloud.node("arm64", |_| {});
    let plan = cloud.plan(DEFAULTS).await.unwrap();
    assert_eq!(plan["bakes"].as_array().unwrap().len(), 2);
    assert_eq!(cloud.count("DescribeInstances"), 3);
    let cloud = Cloud::new();
    cloud.instance(|instance| instance.architecture(ArchitectureValues::I386));
    cloud.instance(|instance| instance.platform(PlatformValues::Windows));
    cloud.instance(|instance| {
        let eks = OperatorResponse::builder().managed(true).principal("eks.amazonaws.com");
        instance.operator(eks.build())
    });
    let (error, message) = cloud.refused(DEFAULTS).await;
    assert_eq!(error, "NoArchitecture");
    assert!(
        message.starts_with("no node that the rules default select is running"),
        "{message}"
    );
    assert!(
        message.contains(r#"set architectures, such as ["x86_64"]"#),
        "{message}"
    );
    assert_eq!(cloud.calls(), ["DescribeInstances"; 2]);
}

#[tokio::test]
async fn for_two_architectures_one_ami_parameter_or_one_instance_type_is_refused() {
    let cloud = Cloud::new();
    let mut input = json!({"amiParameter": "/my/ami", "instanceType": "m6i.large"});
    let both = json!({"input": input, "cluster": cluster()}).to_string();
    cloud.node("x86_64", |_| {});
    let plan = cloud.plan(&both).await.unwrap();
    assert_eq!(plan["bakes"][0]["amiParameter"], "/my/ami");
    input["architectures"] = json!(["x86_64", "arm64"]);
    let (error, message) = cloud
        .refused(&json!({"input": input, "cluster": cluster()}).to_string())
        .await;
    assert_eq!(error, "BadInput");
    for wrong in [r#"amiParameter: "/my/ami""#, r#"instanceType: "m6i.large""#] {
        assert!(message.contains(wrong), "{message}");
    }
}

#[tokio::test]
async fn a_builder_stands_where_the_clusters_nodes_run_and_not_where_its_control_plane_does() {
    let place = async |cloud: &Cloud, input: Value| {
        let plan = cloud
            .plan(&json!({"input": input, "cluster": cluster()}).to_string())
            .await
            .unwrap();
        plan["bakes"][0]["networkInterface"]["SubnetId"].clone()
    };
    let cloud = Cloud::new();
    assert_eq!(
        place(&cloud, json!({"architectures": ["x86_64"]})).await,
        "subnet-0abc0000000000001"
    );
    cloud.instance(|instance| instance.subnet_id("subnet-0abc0000000000004"));
    cloud.calls();
    assert_eq!(place(&cloud, json!({})).await, "subnet-0abc0000000000004");
    assert_eq!(cloud.calls()[..2], ["DescribeInstances", "DescribeSubnets"]);
    assert_eq!(
        place(&cloud, json!({"architectures": ["arm64"]})).await,
        "subnet-0abc0000000000004"
    );
    let named = json!({"subnetId": "subnet-0abc0000000000003"});
    assert_eq!(place(&cloud, named).await, "subnet-0abc0000000000003");
    // In a public one without a public address it would reach nothing.
    let cloud = Cloud::new();
    cloud.instance(|instance| instance.subnet_id("subnet-0abc0000000000005"));
    assert_eq!(place(&cloud, json!({})).await, "subnet-0abc0000000000001");
    assert_eq!(
        place(&cloud, json!({"publicAddress": true})).await,
        "subnet-0abc0000000000005"
    );
}

#[tokio::test]
async fn a_cluster_without_subnets_or_security_group_takes_an_input_with_them() {
    let cloud = Cloud::new();
    for (cluster, expected) in [
        (
            json!({"version": "1.33", "subnetIds": ["subnet-0abc0000000000001"]}),
            "securityGroupIds: nothing is not accepted: it takes security groups, for the cluster has none",
        ),
        (
            json!({"version": "1.33", "securityGroupId": "sg-0abc0000000000001"}),
            "subnetId: nothing is not accepted: it takes a subnet",
        ),
        (
            json!({"version": "1.33", "subnetIds": ["subnet-0abc0000000000009"], "securityGroupId": "sg-0abc0000000000001"}),
            "subnetId: nothing is not accepted: it takes a subnet, for none of the cluster's is there any more",
        ),
        (json!({"version": "newest"}), "cluster: {"),
        (Value::Null, "cluster: null is not accepted"),
    ] {
        let event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster});
        let (error, message) = cloud.refused(&event.to_string()).await;
        assert_eq!(error, "BadInput");
        assert!(message.contains(expected), "{message}");
    }
    let input = json!({
        "architectures": ["x86_64"], "subnetId": "subnet-0abc0000000000003", "securityGroupIds": ["sg-0abc0000000000002"],
    });
    let event = json!({"input": input, "cluster": {"version": "1.33"}});
    assert!(cloud.plan(&event.to_string()).await.is_ok());
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
        cloud.state(|state| state.fault = Some(call));
        let (error, message) = cloud.refused(DEFAULTS).await;
        assert_eq!(error, "AwsError");
        assert!(
            message.starts_with(expected) && message.contains("Throttled"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_manifest_that_ecr_does_not_give_or_that_is_none_is_named() {
    let cloud = Cloud::new();
    cloud.node("x86_64", |_| {});
    cloud.state(|state| state.manifests.clear());
    let (error, message) = cloud.refused(DEFAULTS).await;
    let name = format!("team/app@{}", digest("team/app:v1"));
    let expected = format!("the manifest {name} could not be read: ImageNotFound");
    assert_eq!((error.as_str(), message), ("AwsError", expected));
    cloud.push("team/app", "v2", json!([]));
    let (error, message) = cloud.refused(DEFAULTS).await;
    assert_eq!(error, "AwsError");
    assert!(message.contains("cannot be understood: "), "{message}");
}

#[tokio::test]
async fn the_fingerprint_changes_with_what_is_baked_and_with_nothing_else() {
    let cloud = Cloud::new();
    cloud.push("team/web", "v1", single(&[("web", 1)]));
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

#[tokio::test]
async fn a_plan_that_no_state_machine_takes_is_refused() {
    let rules = r#"[{"name": "default", "repositories": ["team/app"], "newest": 50}]"#;
    let cloud = Cloud::with(rules, "{}");
    for k in 0..49 {
        let image = format!("{}{k}", "x".repeat(100));
        cloud.push("team/app", &image, single(&[(&image, 1)]));
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
    cloud.push("team/app", "v2", single(&[("huge", 8 * 1024 * 1024)]));
    let mut event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()});
    let (error, message) = cloud.refused(&event.to_string()).await;
    assert_eq!(error, "BadInput");
    let expected = "rules: \"1 images\" is not accepted: it takes fewer: they need a volume of 28917 GiB";
    assert!(message.contains(expected), "{message}");
    event["input"]["volumeSizeGiB"] = json!(16_384);
    let plan = cloud.plan(&event.to_string()).await.unwrap();
    assert_eq!(plan["bakes"][0]["volume"]["VolumeSize"], 16_384);
}

fn any_json() -> impl Strategy<Value = Value> {
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

const RULES: &str = r#"[{"name": "default", "repositories": ["team/app", "team/web"]}]"#;

/// The settings of the tests, by variable.
pub fn setting(name: &str) -> &'static str {
    match name {
        "MODE" => "send",
        "CLUSTER_NAME" => "prod",
        "CLUSTER_TAG_KEY" => "aws:eks:cluster-name",
        "DOCUMENT_NAME" => "prefetch-images",
        "RULES" => RULES,
        "DELIVERY_TIMEOUT_SECONDS" => "600",
        "EXECUTION_TIMEOUT_SECONDS" => "3600",
        "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85",
        "MAX_PARALLEL_IMAGE_PULLS" => "2",
        "MAX_CONNECTIONS" => "3",
        "LAUNCH_MAX_CONNECTIONS" => "20",
        "MAX_BANDWIDTH_MIB" => "0",
        "ACCOUNT_ID" => "123456789012",
        "REGISTRY_ENDPOINT" => "standard",
        "AWS_REGION" => "eu-central-1",
        "BAKE_DEFAULTS" => "{}",
        "BUILDER_PROFILE" => "eks-image-prefetch-builder",
        other => panic!("{other}"),
    }
}

fn settings(rules: &str, defaults: &str) -> Settings {
    Settings::read(|name| {
        Some(match name {
            "RULES" => rules.to_owned(),
            "BAKE_DEFAULTS" => defaults.to_owned(),
            other => setting(other).to_owned(),
        })
    })
    .unwrap()
}

fn cluster() -> Value {
    let event: Value = serde_json::from_str(DEFAULTS).unwrap();
    event["cluster"].clone()
}

fn digest(text: &str) -> String {
    let digest = Sha256::digest(text);
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// The manifest of an image with these layers, in MiB.
fn single(layers: &[(&str, u64)]) -> Value {
    let layers = layers
        .iter()
        .map(|(name, mib)| json!({"digest": digest(name), "size": mib * MIB}));
    json!({"config": {"digest": digest("config"), "size": 0}, "layers": layers.collect::<Vec<_>>()})
}

/// The manifest of an index of images with one layer each, by architecture and MiB, and an attestation.
fn index(images: &[(&str, u64)]) -> Value {
    let child = |(architecture, mib): &(&str, u64)| {
        let os = if *architecture == "unknown" { "unknown" } else { "linux" };
        json!({"digest": child(architecture, *mib), "platform": {"os": os, "architecture": architecture}})
    };
    let attestation = json!({
        "digest": digest("attestation"), "platform": {"os": "unknown", "architecture": "unknown"},
    });
    let children = images.iter().map(child).chain([attestation]);
    json!({"manifests": children.collect::<Vec<_>>()})
}

fn child(architecture: &str, mib: u64) -> String {
    digest(&format!("{architecture} {mib}"))
}

/// What the services know and were asked.
#[derive(Default)]
struct State {
    instances: Vec<Instance>,
    /// The images of each repository, oldest first: digest and tags.
    repositories: BTreeMap<String, Vec<(String, Vec<String>)>>,
    manifests: BTreeMap<String, Value>,
    calls: Vec<&'static str>,
    /// How many manifests each BatchGetImage was asked for.
    asked: Vec<usize>,
    /// The call that is throttled.
    fault: Option<&'static str>,
}

impl State {
    fn call(&mut self, name: &'static str) -> bool {
        self.calls.push(name);
        self.fault == Some(name)
    }
}

/// The function and what is around it.
struct Cloud {
    plan: BakePlan,
    state: Arc<Mutex<State>>,
}

impl Cloud {
    /// A repository `team/app` with v1, an image of 100 MiB.
    fn new() -> Self {
        Self::with(RULES, "{}")
    }

    fn with(rules: &str, defaults: &str) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let ecr = ecr(&state);
        let settings = settings(rules, defaults);
        let plan = BakePlan {
            ec2: ec2(&state),
            images: NewestImages::with_client(ecr.clone(), "eu-central-1".to_owned(), &settings.shared),
            ecr,
            settings,
        };
        let cloud = Self { plan, state };
        cloud.push("team/app", "v1", single(&[("app", 100)]));
        cloud
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    fn push(&self, repository: &str, tag: &str, manifest: Value) {
        self.state(|state| {
            for child in manifest["manifests"].as_array().into_iter().flatten() {
                let architecture = child["platform"]["architecture"].as_str().unwrap();
                let mib = (0..1000).find(|mib| self::child(architecture, *mib) == child["digest"]);
                if let Some(mib) = mib {
                    let image = single(&[(&format!("{architecture} layer {mib}"), mib)]);
                    state.manifests.insert(self::child(architecture, mib), image);
                }
            }
            let digest = digest(&format!("{repository}:{tag}"));
            state.manifests.insert(digest.clone(), manifest);
            let images = state.repositories.entry(repository.to_owned()).or_default();
            images.push((digest, vec![tag.to_owned()]));
        });
    }

    /// Puts one more tag on an image.
    fn tag(&self, repository: &str, tag: &str, more: &str) {
        self.state(|state| {
            let images = state.repositories.get_mut(repository).unwrap().iter_mut();
            let mut of_tag = images.filter(|(_, tags)| tags[0] == tag);
            of_tag.next().unwrap().1.push(more.to_owned());
        });
    }

    fn node(&self, architecture: &str, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let mut tags = BTreeMap::from([("aws:eks:cluster-name".to_owned(), "prod".to_owned())]);
        change(&mut tags);
        let tags = tags
            .into_iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build());
        let node = Instance::builder().architecture(ArchitectureValues::from(architecture));
        let node = node.set_tags(Some(tags.collect())).build();
        self.state(|state| state.instances.push(node));
    }

    fn instance(
        &self,
        change: impl FnOnce(aws_sdk_ec2::types::builders::InstanceBuilder) -> aws_sdk_ec2::types::builders::InstanceBuilder,
    ) {
        let tag = Tag::builder().key("aws:eks:cluster-name").value("prod").build();
        let instance = Instance::builder().architecture(ArchitectureValues::X8664).tags(tag);
        self.state(|state| state.instances.push(change(instance).build()));
    }

    async fn plan(&self, event: &str) -> Result<Value, PlanError> {
        let plan = self.plan.handle(serde_json::from_str(event).unwrap()).await?;
        Ok(serde_json::to_value(plan).unwrap())
    }

    /// The type and the message of the error that an event ends with.
    async fn refused(&self, event: &str) -> (String, String) {
        let error = Diagnostic::from(self.plan(event).await.unwrap_err());
        (error.error_type, error.error_message)
    }

    /// The calls so far, DescribeImages once however many repositories it was asked for.
    fn calls(&self) -> Vec<&'static str> {
        let mut calls = self.state(|state| std::mem::take(&mut state.calls));
        calls.dedup_by(|next, last| next == last && *next == "DescribeImages");
        calls
    }

    fn count(&self, call: &str) -> usize {
        self.state(|state| state.calls.iter().filter(|made| **made == call).count())
    }

    fn asked(&self) -> Vec<usize> {
        let mut asked = self.state(|state| std::mem::take(&mut state.asked));
        asked.sort_unstable();
        asked
    }
}

macro_rules! throttled {
    ($service:ident, $error:ident) => {
        MockResponse::Error($error::generic(
            $service::error::ErrorMetadata::builder()
                .code("Throttled")
                .message("Rate exceeded")
                .build(),
        ))
    };
}

fn ec2(state: &Arc<Mutex<State>>) -> aws_sdk_ec2::Client {
    let shared = Arc::clone(state);
    let instances = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if state.call("DescribeInstances") {
            return throttled!(aws_sdk_ec2, DescribeInstancesError);
        }
        let filters = input.filters().iter();
        let filters: Vec<String> = filters
            .map(|filter| format!("{}={}", filter.name().unwrap(), filter.values().join(",")))
            .collect();
        assert_eq!(
            filters,
            ["tag:aws:eks:cluster-name=prod", "instance-state-name=running"]
        );
        let from: usize = input.next_token().map_or(0, |token| token.parse().unwrap());
        let page = state.instances.iter().skip(from).take(2).cloned().collect();
        let reservation = Reservation::builder().set_instances(Some(page)).build();
        let output = DescribeInstancesOutput::builder()
            .reservations(reservation)
            .set_next_token((from + 2 < state.instances.len()).then(|| (from + 2).to_string()));
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let subnets = mock!(aws_sdk_ec2::Client::describe_subnets).then_compute_response(move |input| {
        if shared.lock().unwrap().call("DescribeSubnets") {
            return throttled!(aws_sdk_ec2, DescribeSubnetsError);
        }
        assert_eq!(input.filters()[0].name(), Some("subnet-id"));
        let known = [(1, false), (2, true), (4, false), (5, true)];
        let known = known.map(|(k, public)| (format!("subnet-0abc000000000000{k}"), public));
        let asked = known.iter().filter(|(id, _)| input.filters()[0].values().contains(id));
        let subnets = asked.map(|(id, public)| {
            let subnet = Subnet::builder().subnet_id(id).map_public_ip_on_launch(*public);
            subnet.available_ip_address_count(250).build()
        });
        let output = DescribeSubnetsOutput::builder().set_subnets(Some(subnets.collect()));
        MockResponse::Output(output.build())
    });
    mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&instances, &subnets], |config| {
        config.retry_config(aws_sdk_ec2::config::retry::RetryConfig::disabled())
    })
}

fn ecr(state: &Arc<Mutex<State>>) -> aws_sdk_ecr::Client {
    let shared = Arc::clone(state);
    let images = mock!(aws_sdk_ecr::Client::describe_images).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if state.call("DescribeImages") {
            return throttled!(aws_sdk_ecr, DescribeImagesError);
        }
        let Some(images) = state.repositories.get(input.repository_name().unwrap()) else {
            let missing = RepositoryNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::RepositoryNotFoundException(missing));
        };
        let ids = input.image_ids();
        let is_asked = |digest: &String, tags: &[String]| {
            let is_it = |id: &ImageIdentifier| {
                id.image_digest() == Some(digest) || id.image_tag().is_some_and(|tag| tags.contains(&tag.to_owned()))
            };
            ids.is_empty() || ids.iter().any(is_it)
        };
        let found = images
            .iter()
            .enumerate()
            .filter(|(_, (digest, tags))| is_asked(digest, tags));
        let found: Vec<ImageDetail> = found.map(|(at, (digest, tags))| detail(at, digest, tags)).collect();
        if found.len() < ids.len() {
            let missing = ImageNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::ImageNotFoundException(missing));
        }
        MockResponse::Output(DescribeImagesOutput::builder().set_image_details(Some(found)).build())
    });
    let shared = Arc::clone(state);
    let repositories = mock!(aws_sdk_ecr::Client::describe_repositories).then_compute_response(move |_| {
        let mut state = shared.lock().unwrap();
        state.call("DescribeRepositories");
        let repository = |name: &String| Repository::builder().repository_name(name).build();
        let repositories = state.repositories.keys().map(repository).collect();
        let output = DescribeRepositoriesOutput::builder().set_repositories(Some(repositories));
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let manifests = mock!(aws_sdk_ecr::Client::batch_get_image).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if state.call("BatchGetImage") {
            return throttled!(aws_sdk_ecr, BatchGetImageError);
        }
        assert!((1..=100).contains(&input.image_ids().len()));
        assert_eq!(input.accepted_media_types().len(), 4);
        state.asked.push(input.image_ids().len());
        let mut output = BatchGetImageOutput::builder();
        for id in input.image_ids() {
            output = if let Some(manifest) = state.manifests.get(id.image_digest().unwrap()) {
                let image = EcrImage::builder().image_id(id.clone());
                output.images(image.image_manifest(manifest.to_string()).build())
            } else {
                let failure = ImageFailure::builder().image_id(id.clone());
                output.failures(failure.failure_code(ImageFailureCode::ImageNotFound).build())
            };
        }
        MockResponse::Output(output.build())
    });
    mock_client!(
        aws_sdk_ecr,
        RuleMode::MatchAny,
        [&images, &repositories, &manifests],
        |config| { config.retry_config(aws_sdk_ecr::config::retry::RetryConfig::disabled()) }
    )
}

fn detail(at: usize, digest: &str, tags: &[String]) -> ImageDetail {
    let pushed_at = aws_sdk_ecr::primitives::DateTime::from_secs(i64::try_from(at).unwrap());
    ImageDetail::builder()
        .registry_id("123456789012")
        .image_digest(digest)
        .set_image_tags(Some(tags.to_vec()))
        .image_pushed_at(pushed_at)
        .build()
}

//! The builders: their architectures, and the subnets in which they stand.

use aws_sdk_ec2::types::{ArchitectureValues, OperatorResponse, PlatformValues};
use serde_json::{Value, json};

use super::{
    cloud::Cloud,
    manifests::{DEFAULTS, cluster},
};

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

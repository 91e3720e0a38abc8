//! Nodes: what the cluster's running ones tell of where, and for which processors, to bake.

use aws_sdk_ec2::{
    Client,
    types::{ArchitectureValues, Filter, Instance, PlatformValues},
};
use prefetch::{
    bake::Architecture,
    instance::{is_auto_mode, tags},
    node::{Cluster, NodeSelector},
    rule::Rule,
};

use crate::error::AwsError;

/// Bounds the instances of one page of DescribeInstances (EC2 API reference).
const PAGE_SIZE: i32 = 1000;

/// A running node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its architecture, where it is one that is baked for and the node one that rules select and that can be warmed.
    pub architecture: Option<Architecture>,
    /// Its subnet.
    pub subnet: Option<String>,
}

/// Lists the running nodes of the cluster: one DescribeInstances for each 1,000.
///
/// # Errors
/// [`AwsError::Instances`] where EC2 cannot be asked.
pub async fn running(ec2: &Client, cluster: &Cluster, rules: &[&Rule]) -> Result<Vec<Node>, AwsError> {
    let selectors: Vec<NodeSelector> = rules.iter().map(|rule| NodeSelector::new(cluster, rule)).collect();
    let of_cluster = Filter::builder()
        .name(format!("tag:{}", cluster.tag_key))
        .values(&cluster.name);
    let running = Filter::builder().name("instance-state-name").values("running");
    let request = ec2
        .describe_instances()
        .filters(of_cluster.build())
        .filters(running.build())
        .max_results(PAGE_SIZE);
    let mut pages = request.into_paginator().items().send();
    let mut nodes = Vec::new();
    while let Some(reservation) = pages.next().await {
        let reservation = reservation.map_err(|error| AwsError::Instances(Box::new(error)))?;
        nodes.extend(reservation.instances().iter().map(|instance| {
            let tags = tags(instance);
            let is_selected = selectors.iter().any(|selector| selector.matches(&tags));
            Node {
                architecture: architecture(instance).filter(|_| is_selected),
                subnet: instance.subnet_id().map(str::to_owned),
            }
        }));
    }
    Ok(nodes)
}

/// Tells a node's architecture, where it is one that is baked for and the node one that can be warmed.
fn architecture(node: &Instance) -> Option<Architecture> {
    if is_auto_mode(node) || node.platform() == Some(&PlatformValues::Windows) {
        return None;
    }
    match node.architecture()? {
        ArchitectureValues::X8664 => Some(Architecture::X86),
        ArchitectureValues::Arm64 => Some(Architecture::Arm),
        _ => None,
    }
}

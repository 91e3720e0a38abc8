//! Networks: where a builder stands.

use std::{cmp::Reverse, collections::BTreeMap};

use aws_sdk_ec2::{
    Client,
    types::{Filter, Subnet},
};
use prefetch::{bake::input::Input, fields::FieldError};
use serde::Serialize;

use crate::{
    error::{AwsError, PlanError},
    input::Cluster,
    nodes::Node,
};

/// Bounds the subnets of one page of DescribeSubnets (EC2 API reference).
const PAGE_SIZE: i32 = 1000;
/// Bounds the values of one filter (EC2 API reference).
const MAX_FILTER_VALUES: usize = 200;

/// A builder's network interface, as RunInstances takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkInterface {
    device_index: u8,
    subnet_id: String,
    groups: Vec<String>,
    associate_public_ip_address: bool,
    delete_on_termination: bool,
}

/// Decides where the builders stand: where the input says, else in the cluster's security group and where its nodes run.
///
/// A cluster's own subnets are often small ones for its control plane alone, with no way out (terraform-aws-eks#1312).
///
/// # Errors
/// [`PlanError::BadInput`] where neither says it, [`PlanError::Aws`] where EC2 cannot be asked.
pub async fn network_interface(
    ec2: &Client,
    input: &Input,
    cluster: &Cluster,
    nodes: &[Node],
) -> Result<NetworkInterface, PlanError> {
    let groups = match &input.security_groups {
        Some(groups) => groups.clone(),
        None => match &cluster.security_group {
            Some(group) => vec![group.clone()],
            None => return Err(missing("securityGroupIds", "security groups, for the cluster has none").into()),
        },
    };
    let subnet = if let Some(subnet) = &input.subnet {
        subnet.clone()
    } else {
        let counts = nodes_in(nodes);
        let mut subnets = subnets(ec2, &counts, &cluster.subnets).await?;
        keep_network(&mut subnets, &cluster.subnets);
        let best = best(&subnets, &counts, input.public_address).map(str::to_owned);
        best.ok_or_else(|| missing("subnetId", "a subnet, for none of the cluster's is there any more"))?
    };
    Ok(NetworkInterface {
        device_index: 0,
        subnet_id: subnet,
        groups,
        associate_public_ip_address: input.public_address,
        delete_on_termination: true,
    })
}

fn missing(field: &str, accepted: &str) -> FieldError {
    FieldError::new(field, None, accepted)
}

/// Describes the subnets in which nodes are, those with the most of them first, and the cluster's own.
async fn subnets(ec2: &Client, counts: &BTreeMap<&str, usize>, own: &[String]) -> Result<Vec<Subnet>, AwsError> {
    let mut ids: Vec<&str> = counts.keys().copied().collect();
    ids.sort_by_key(|id| Reverse(counts[id]));
    ids.extend(own.iter().map(String::as_str).filter(|id| !counts.contains_key(id)));
    ids.truncate(MAX_FILTER_VALUES);
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // A filter leaves out a subnet that is gone; `SubnetIds` would fail the whole call for it.
    let filter = Filter::builder()
        .name("subnet-id")
        .set_values(Some(ids.iter().map(|id| (*id).to_owned()).collect()))
        .build();
    let request = ec2.describe_subnets().filters(filter).max_results(PAGE_SIZE);
    let mut pages = request.into_paginator().items().send();
    let mut subnets = Vec::with_capacity(ids.len());
    while let Some(subnet) = pages.next().await {
        subnets.push(subnet.map_err(|error| AwsError::Subnets(Box::new(error)))?);
    }
    Ok(subnets)
}

/// Keeps the subnets of the cluster's network, where its own subnets tell it: whatever tags a machine elsewhere carries, the
/// cluster's security group is not there.
fn keep_network(subnets: &mut Vec<Subnet>, own: &[String]) {
    let is_own = |subnet: &&Subnet| own.iter().any(|id| subnet.subnet_id() == Some(id));
    if let Some(network) = subnets
        .iter()
        .find(is_own)
        .map(|subnet| subnet.vpc_id().map(str::to_owned))
    {
        subnets.retain(|subnet| subnet.vpc_id() == network.as_deref());
    }
}

/// Counts the nodes in each subnet.
fn nodes_in(nodes: &[Node]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for subnet in nodes.iter().filter_map(|node| node.subnet.as_deref()) {
        *counts.entry(subnet).or_default() += 1;
    }
    counts
}

/// Picks a subnet that has a free address, and gives public ones where one is wanted and none where none is; of such the one
/// with the most nodes, for what they reach the builder reaches, and then with the most free addresses; of any where there
/// are none such.
fn best<'a>(subnets: &'a [Subnet], counts: &BTreeMap<&str, usize>, public_address: bool) -> Option<&'a str> {
    let rank = |subnet: &&Subnet| {
        let id = subnet.subnet_id().unwrap_or_default();
        let free = subnet.available_ip_address_count();
        (
            free != Some(0),
            subnet.map_public_ip_on_launch().unwrap_or_default() == public_address,
            counts.get(id).copied().unwrap_or_default(),
            free.unwrap_or_default(),
            Reverse(id.to_owned()),
        )
    };
    let named = subnets.iter().filter(|subnet| subnet.subnet_id().is_some());
    named.max_by_key(rank).and_then(Subnet::subnet_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(id: &str, is_public: bool, free: i32) -> Subnet {
        Subnet::builder()
            .subnet_id(id)
            .map_public_ip_on_launch(is_public)
            .available_ip_address_count(free)
            .build()
    }

    #[test]
    fn the_private_subnet_with_the_most_free_addresses_is_taken_or_the_public_one_where_a_public_address_is_wanted() {
        let none = BTreeMap::new();
        let subnets = [
            subnet("subnet-a", false, 3),
            subnet("subnet-b", false, 9),
            subnet("subnet-c", true, 99),
            subnet("subnet-d", true, 100),
        ];
        assert_eq!(best(&subnets, &none, false), Some("subnet-b"));
        assert_eq!(best(&subnets, &none, true), Some("subnet-d"));
    }

    #[test]
    fn where_there_is_none_of_the_kind_any_is_taken_and_of_equals_always_the_same() {
        let none = BTreeMap::new();
        let one = [subnet("subnet-a", true, 3)];
        assert_eq!(best(&one, &none, false), Some("subnet-a"));
        let equals = [subnet("subnet-b", false, 3), subnet("subnet-a", false, 3)];
        assert_eq!(best(&equals, &none, false), Some("subnet-a"));
        assert_eq!(best(&[], &none, false), None);
    }

    #[test]
    fn where_nodes_run_a_builder_stands_before_any_other_subnet_of_the_kind_unless_no_address_is_free() {
        let subnets = [
            subnet("subnet-control", false, 250),
            subnet("subnet-few", false, 90),
            subnet("subnet-many", false, 7),
            subnet("subnet-full", false, 0),
            subnet("subnet-public", true, 99),
        ];
        let counts = [
            ("subnet-few", 1),
            ("subnet-many", 2),
            ("subnet-full", 9),
            ("subnet-public", 9),
        ]
        .into();
        assert_eq!(best(&subnets, &counts, false), Some("subnet-many"));
        assert_eq!(best(&subnets[..2], &counts, false), Some("subnet-few"));
        assert_eq!(best(&subnets, &counts, true), Some("subnet-public"));
        assert_eq!(best(&subnets[3..4], &counts, false), Some("subnet-full"));
    }

    #[test]
    fn a_subnet_of_another_network_is_none_whatever_runs_there() {
        let of = |id: &str, network: &str| Subnet::builder().subnet_id(id).vpc_id(network).build();
        let all = [
            of("subnet-a", "vpc-1"),
            of("subnet-b", "vpc-2"),
            of("subnet-c", "vpc-1"),
        ];
        let mut kept = all.to_vec();
        keep_network(&mut kept, &["subnet-a".to_owned()]);
        assert_eq!(kept, [all[0].clone(), all[2].clone()]);
        let mut kept = all.to_vec();
        keep_network(&mut kept, &["subnet-gone".to_owned()]);
        assert_eq!(kept, all);
    }
}

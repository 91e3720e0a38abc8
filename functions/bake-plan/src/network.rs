//! Networks: where a builder stands.

use aws_sdk_ec2::{
    Client,
    types::{Filter, Subnet},
};
use prefetch::{bake::input::Input, fields::FieldError};
use serde::Serialize;

use crate::{
    error::{AwsError, PlanError},
    input::Cluster,
};

/// How many subnets one page of DescribeSubnets has at most (EC2 API reference).
const PAGE_SIZE: i32 = 1000;

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

/// Decides where the builders stand: where the input says, else in the cluster's security group and one of its subnets.
///
/// # Errors
/// [`PlanError::BadInput`] where neither says it, [`PlanError::Aws`] where EC2 cannot be asked.
pub async fn network_interface(ec2: &Client, input: &Input, cluster: &Cluster) -> Result<NetworkInterface, PlanError> {
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
        let subnets = subnets(ec2, &cluster.subnets).await?;
        let best = best(&subnets, input.public_address).map(str::to_owned);
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

async fn subnets(ec2: &Client, ids: &[String]) -> Result<Vec<Subnet>, AwsError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // A filter leaves out a subnet that is gone; `SubnetIds` would fail the whole call for it.
    let filter = Filter::builder()
        .name("subnet-id")
        .set_values(Some(ids.to_vec()))
        .build();
    let request = ec2.describe_subnets().filters(filter).max_results(PAGE_SIZE);
    let mut pages = request.into_paginator().items().send();
    let mut subnets = Vec::with_capacity(ids.len());
    while let Some(subnet) = pages.next().await {
        subnets.push(subnet.map_err(|error| AwsError::Subnets(Box::new(error)))?);
    }
    Ok(subnets)
}

/// Picks the subnet with the most free addresses, of those that give public addresses where one is wanted, and of the others
/// where none is; of any where there are none such.
fn best(subnets: &[Subnet], public_address: bool) -> Option<&str> {
    let rank = |subnet: &&Subnet| {
        let is_wanted = subnet.map_public_ip_on_launch().unwrap_or_default() == public_address;
        let free = subnet.available_ip_address_count().unwrap_or_default();
        (
            is_wanted,
            free,
            std::cmp::Reverse(subnet.subnet_id().map(str::to_owned)),
        )
    };
    subnets.iter().max_by_key(rank).and_then(Subnet::subnet_id)
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
        let subnets = [
            subnet("subnet-a", false, 3),
            subnet("subnet-b", false, 9),
            subnet("subnet-c", true, 99),
            subnet("subnet-d", true, 100),
        ];
        assert_eq!(best(&subnets, false), Some("subnet-b"));
        assert_eq!(best(&subnets, true), Some("subnet-d"));
    }

    #[test]
    fn where_there_is_none_of_the_kind_any_is_taken_and_of_equals_always_the_same() {
        let one = [subnet("subnet-a", true, 3)];
        assert_eq!(best(&one, false), Some("subnet-a"));
        let equals = [subnet("subnet-b", false, 3), subnet("subnet-a", false, 3)];
        assert_eq!(best(&equals, false), Some("subnet-a"));
        assert_eq!(best(&[], false), None);
    }
}

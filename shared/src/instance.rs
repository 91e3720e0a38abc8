//! Instances: what EC2 says of those that may be nodes of the cluster.

use std::collections::HashMap;

use aws_sdk_ec2::{
    Client,
    error::SdkError,
    operation::describe_instances::DescribeInstancesError,
    types::{Filter, Instance, InstanceStateName},
};
use thiserror::Error;

/// How many values one filter of DescribeInstances takes (EC2 API reference).
const MAX_FILTER_VALUES: usize = 200;
/// How many instances one page of DescribeInstances has at most (EC2 API reference).
const PAGE_SIZE: i32 = 1000;

/// EC2 did not describe the instances.
#[derive(Debug, Error)]
#[error("the instances could not be described")]
pub struct InstancesError(#[source] pub Box<SdkError<DescribeInstancesError>>);

/// Tells what EC2 knows of each of these instances, by id; one that is gone has no entry.
///
/// # Errors
/// [`InstancesError`] where EC2 cannot be asked.
pub async fn instances(client: &Client, ids: &[String]) -> Result<HashMap<String, Instance>, InstancesError> {
    let mut instances = HashMap::new();
    for ids in ids.chunks(MAX_FILTER_VALUES) {
        // A filter leaves out an instance that is gone; `InstanceIds` would fail the whole call for it.
        let filter = Filter::builder()
            .name("instance-id")
            .set_values(Some(ids.to_vec()))
            .build();
        let request = client.describe_instances().filters(filter).max_results(PAGE_SIZE);
        let mut pages = request.into_paginator().items().send();
        while let Some(reservation) = pages.next().await {
            let reservation = reservation.map_err(|error| InstancesError(Box::new(error)))?;
            for instance in reservation.instances.unwrap_or_default() {
                if let Some(id) = &instance.instance_id {
                    instances.insert(id.clone(), instance);
                }
            }
        }
    }
    Ok(instances)
}

/// An instance's tags, by key.
pub type Tags = HashMap<String, String>;

/// Reads an instance's tags.
#[must_use]
pub fn tags(instance: &Instance) -> Tags {
    let tags = instance.tags().iter();
    tags.filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
        .collect()
}

/// Names the instance as Kubernetes does: kubelet registers it by its private DNS name, whatever its form.
#[must_use]
pub fn node_name(instance: &Instance) -> Option<&str> {
    instance.private_dns_name().filter(|name| !name.is_empty())
}

/// Whether the instance runs or is about to: any other gets nothing more.
#[must_use]
pub fn is_up(instance: &Instance) -> bool {
    let state = instance.state().and_then(|state| state.name());
    matches!(state, Some(InstanceStateName::Pending | InstanceStateName::Running))
}

/// Whether EKS Auto Mode manages the instance, which allows no SSM.
#[must_use]
pub fn is_auto_mode(instance: &Instance) -> bool {
    instance.operator().is_some_and(|operator| {
        operator.managed() == Some(true) && operator.principal().is_some_and(|p| p.contains("eks"))
    })
}

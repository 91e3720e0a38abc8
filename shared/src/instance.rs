//! Instances: what EC2 says of those that may be nodes of the cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_ec2::{
    Client,
    error::SdkError,
    operation::describe_instances::DescribeInstancesError,
    types::{Filter, Instance, InstanceStateName, Reservation},
};
use chrono::{DateTime, Utc};
use thiserror::Error;

use crate::node::{Cluster, NodeSelector};

/// Limits how many values one filter of DescribeInstances takes (EC2 API reference).
const MAX_FILTER_VALUES: usize = 200;
/// Limits how many instances one page of DescribeInstances has at most (EC2 API reference).
const PAGE_SIZE: i32 = 1000;
/// Sets how many it has at least.
const MIN_PAGE_SIZE: i32 = 5;
/// Sets how many it has where some instances do: as many as SSM is asked about at once.
const SOME: i32 = 50;
/// Limits how many pages are looked through for the names of clusters.
const MAX_PAGES: usize = 5;
/// Limits how many names of clusters are given.
const MAX_CLUSTERS: usize = 50;
/// The states of an instance that runs or is about to.
pub const UP: [InstanceStateName; 2] = [InstanceStateName::Pending, InstanceStateName::Running];

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

/// Selects the nodes of a cluster that run or are about to.
#[must_use]
pub fn nodes_of(cluster: &Cluster) -> Vec<Filter> {
    let of_cluster = filter(&format!("tag:{}", cluster.tag_key), vec![cluster.name.clone()]);
    vec![of_cluster, are_up()]
}

/// Tells whether a cluster has a node that runs or is about to.
///
/// # Errors
/// [`InstancesError`] where EC2 cannot be asked.
pub async fn has_nodes(client: &Client, cluster: &Cluster) -> Result<bool, InstancesError> {
    let request = client.describe_instances().set_filters(Some(nodes_of(cluster)));
    let mut pages = request.max_results(MIN_PAGE_SIZE).into_paginator().items().send();
    // A page may be empty although another follows.
    while let Some(reservation) = pages.next().await {
        let reservation = reservation.map_err(|error| InstancesError(Box::new(error)))?;
        if !reservation.instances().is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Names instances that a selector selects and that run, a page of them: those first that were launched first. The page may be
/// empty although another follows, whose token is given.
///
/// # Errors
/// [`InstancesError`] where EC2 cannot be asked.
pub async fn page_of(
    client: &Client,
    selector: &NodeSelector,
    token: Option<String>,
) -> Result<(Vec<String>, Option<String>), InstancesError> {
    let tags = selector.tags().iter();
    let tags = tags.map(|(key, values)| filter(&format!("tag:{key}"), values.clone()));
    let running = filter(
        "instance-state-name",
        vec![InstanceStateName::Running.as_str().to_owned()],
    );
    let request = client
        .describe_instances()
        .set_filters(Some(tags.chain([running]).collect()))
        .max_results(SOME)
        .set_next_token(token);
    let page = request.send().await.map_err(|error| InstancesError(Box::new(error)))?;
    let instances = page.reservations().iter().flat_map(Reservation::instances);
    let mut instances: Vec<&Instance> = instances.filter(|instance| !is_auto_mode(instance)).collect();
    instances.sort_by_key(|instance| launched_at(instance));
    let ids = instances.into_iter().filter_map(Instance::instance_id);
    let ids = ids.map(str::to_owned).collect();
    Ok((ids, page.next_token.filter(|token| !token.is_empty())))
}

fn are_up() -> Filter {
    filter(
        "instance-state-name",
        UP.map(|state| state.as_str().to_owned()).to_vec(),
    )
}

fn filter(name: &str, values: Vec<String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// Names the clusters that running instances of the account and Region are nodes of, each with the keys of the tags that
/// say so; of many instances it looks at the first `MAX_PAGES` pages of 1,000, and gives at most `MAX_CLUSTERS`.
///
/// # Errors
/// [`InstancesError`] where EC2 cannot be asked.
pub async fn clusters(
    client: &Client,
    cluster: &Cluster,
) -> Result<BTreeMap<String, BTreeSet<String>>, InstancesError> {
    let mut clusters: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let request = client
        .describe_instances()
        .filters(filter("tag-key", cluster.naming_keys()))
        .filters(are_up())
        .max_results(PAGE_SIZE);
    let mut pages = request.into_paginator().send();
    for _ in 0..MAX_PAGES {
        let Some(page) = pages.next().await else { break };
        let page = page.map_err(|error| InstancesError(Box::new(error)))?;
        for instance in page.reservations().iter().flat_map(Reservation::instances) {
            for (name, key) in cluster.named(&tags(instance)) {
                if clusters.len() < MAX_CLUSTERS || clusters.contains_key(name) {
                    clusters.entry(name.to_owned()).or_default().insert(key.to_owned());
                }
            }
        }
    }
    Ok(clusters)
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

/// Tells when the instance was launched, or last started.
#[must_use]
pub fn launched_at(instance: &Instance) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(instance.launch_time()?.secs(), 0)
}

/// Names the instance as Kubernetes does: kubelet registers it by its private DNS name, whatever its form.
#[must_use]
pub fn node_name(instance: &Instance) -> Option<&str> {
    instance.private_dns_name().filter(|name| !name.is_empty())
}

/// Returns true where the instance runs or is about to: any other gets nothing more.
#[must_use]
pub fn is_up(instance: &Instance) -> bool {
    let state = instance.state().and_then(|state| state.name());
    state.is_some_and(|state| UP.contains(state))
}

/// Returns true where EKS Auto Mode manages the instance, which allows no SSM.
#[must_use]
pub fn is_auto_mode(instance: &Instance) -> bool {
    instance.operator().is_some_and(|operator| {
        operator.managed() == Some(true) && operator.principal().is_some_and(|p| p.contains("eks"))
    })
}

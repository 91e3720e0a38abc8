//! A cluster without nodes: which clusters have some.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use aws_sdk_ec2::Client;
use prefetch::{
    instance::{self, InstancesError},
    node::{Cluster, NAMING_PREFIX},
};
use serde::Serialize;

/// Tells that the cluster has no node that runs or is about to: it may be scaled to nothing, or its name misspelt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoNodes {
    message: String,
    /// The clusters of which EC2 knows instances.
    clusters: Vec<String>,
}

impl fmt::Display for NoNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Tells if a cluster has no node, and which clusters have some: one DescribeInstances, and up to five more where it has none.
///
/// # Errors
/// [`InstancesError`] where EC2 cannot be asked.
pub async fn no_nodes(ec2: &Client, cluster: &Cluster) -> Result<Option<NoNodes>, InstancesError> {
    if instance::has_nodes(ec2, cluster).await? {
        Ok(None)
    } else {
        others(ec2, cluster).await.map(Some)
    }
}

/// Names the clusters that have nodes, for one that has none.
///
/// # Errors
/// [`InstancesError`] where EC2 cannot be asked.
pub async fn others(ec2: &Client, cluster: &Cluster) -> Result<NoNodes, InstancesError> {
    let clusters = instance::clusters(ec2, cluster).await?;
    Ok(NoNodes {
        message: message(cluster, &clusters),
        clusters: clusters.into_keys().collect(),
    })
}

fn message(Cluster { name, tag_key }: &Cluster, clusters: &BTreeMap<String, BTreeSet<String>>) -> String {
    let none = format!("EC2 knows no running instance with the tag {tag_key}={name}");
    if let Some(keys) = clusters.get(name) {
        // The value of a key that holds the name itself is another.
        let keys = keys.iter().filter(|key| !key.starts_with(NAMING_PREFIX));
        let keys: Vec<&str> = keys.map(String::as_str).collect();
        return if keys.is_empty() {
            format!("{none}: the cluster's instances carry another tag than ClusterTagKey says")
        } else {
            format!(
                "{none}: the cluster's instances carry {}, see ClusterTagKey",
                keys.join(", ")
            )
        };
    }
    if clusters.is_empty() {
        return format!("{none}, nor one of any other cluster");
    }
    let names: Vec<&str> = clusters.keys().map(String::as_str).collect();
    format!("{none}; there are instances of the clusters {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_nodes_is_told_with_those_that_have_some() {
        let cluster = Cluster {
            name: "prdo".to_owned(),
            tag_key: "aws:eks:cluster-name".to_owned(),
        };
        let of = |name: &str, keys: &[&str]| (name.to_owned(), keys.iter().map(|key| (*key).to_owned()).collect());
        let none = "EC2 knows no running instance with the tag aws:eks:cluster-name=prdo";
        for (clusters, rest) in [
            (vec![], ", nor one of any other cluster"),
            (
                vec![of("prod", &["aws:eks:cluster-name"]), of("test", &["eks:cluster-name"])],
                "; there are instances of the clusters prod, test",
            ),
            (
                vec![of("prdo", &["eks:cluster-name", "kubernetes.io/cluster/prdo"])],
                ": the cluster's instances carry eks:cluster-name, see ClusterTagKey",
            ),
            (
                vec![of("prdo", &["kubernetes.io/cluster/prdo"])],
                ": the cluster's instances carry another tag than ClusterTagKey says",
            ),
        ] {
            assert_eq!(
                message(&cluster, &clusters.into_iter().collect()),
                format!("{none}{rest}")
            );
        }
    }
}

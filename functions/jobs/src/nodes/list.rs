//! GET /nodes: whether each node can be warmed, and what it holds.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    http::{
        answer::Answer,
        problem::Problem,
        query::{Page, Query, token},
    },
    nodes::{
        answer::Node,
        clusters::{NoNodes, others},
        sources::{Listed, NodeSources},
    },
};

/// Limits how many bytes the nodes of a page take at most: a function's answer has 6 MB (Lambda quotas), in which each
/// quote of the body takes two.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Holds a page of nodes.
#[derive(Serialize)]
struct NodeList {
    nodes: Vec<Node>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Whose nodes there are, where the cluster has none.
    #[serde(flatten)]
    none: Option<NoNodes>,
}

/// Tells where a page begins.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    /// EC2's token for its page; none for its first.
    instances: Option<String>,
    /// Tells how many of EC2's page were told before: they filled one of ours.
    skip: usize,
}

/// Lists a page of the cluster's instances that run or are about to: if SSM reaches each, and which images it has.
///
/// A page costs one DescribeInstances, one DescribeInstanceInformation for each 50 of its nodes and one BatchGetItem for
/// each 100, and a Query for each of their rules that goes by what nodes run; this process asks ECR at most once per repository
/// in 30 seconds. Where there is no node, up to five more
/// DescribeInstances tell of which clusters there are some.
///
/// # Errors
/// A 400 for a page that there is not, a 503 where AWS cannot be asked.
pub async fn list(sources: &NodeSources<'_>, query: &Query, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let page: Page<Next> = query.page(5..=500, 100)?;
    let is_first = page.next.is_none();
    let begin = page.next.unwrap_or_default();
    let (instances, next) = sources.instances(page.limit, begin.instances.clone()).await?;
    let listed = instances.iter().skip(begin.skip);
    let listed = listed.filter_map(|instance| Listed::of(instance, sources.settings));
    let listed: Vec<Listed> = listed.collect();
    let facts = sources.facts(sources.images, &listed, now).await?;
    let inventories = listed.iter().zip(&facts.inventories);
    let nodes = inventories.map(|(node, inventory)| Node::of(node, &facts, inventory, now));
    let mut nodes: Vec<Node> = nodes.collect();
    let fits = fitting(&nodes);
    let next = if fits < nodes.len() {
        nodes.truncate(fits);
        let skip = begin.skip.saturating_add(fits);
        Some(Next { skip, ..begin })
    } else {
        let instances = next.map(Some);
        instances.map(|instances| Next { instances, skip: 0 })
    };
    let none = if is_first && nodes.is_empty() && next.is_none() {
        let others = others(sources.ec2, &sources.settings.cluster).await;
        Some(others.map_err(Problem::unavailable)?)
    } else {
        None
    };
    let next = next.as_ref().map(token);
    Ok(Answer::ok(&NodeList { nodes, next, none }))
}

/// Counts the nodes that an answer has room for: one at least, where there is one.
fn fitting(nodes: &[Node]) -> usize {
    let mut bytes = 0;
    let fits = nodes.iter().take_while(|node| {
        bytes += serde_json::to_string(node).expect("a node is JSON").len();
        bytes <= MAX_BYTES
    });
    fits.count().max(1).min(nodes.len())
}

#[cfg(test)]
mod tests;

//! Nodes: whether each can be warmed, and what it holds.

mod agent;
pub mod count;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_ec2::{
    error::{ProvideErrorMetadata, SdkError},
    operation::describe_instances::{DescribeInstancesError, DescribeInstancesOutput},
    types::Instance,
};
use aws_sdk_ssm::types::InstanceInformation;
use chrono::{DateTime, Utc};
use futures_util::future::try_join3;
use prefetch::{
    ecr::NewestImages,
    image::Image,
    instance::{is_auto_mode, node_name, nodes_of, tags},
    node::NodeSelector,
    rows::{Brief, Failure, Held, Key, Presence},
    rule::Rule,
    ssm, table,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    answer::Answer,
    clusters::{NoNodes, others},
    handler::Jobs,
    nodes::agent::{Agent, moment},
    problem::Problem,
    query::{Page, Query, stale, token},
};

/// How many nodes' rows are held in memory at once: as many as one BatchGetItem reads.
const AT_ONCE: usize = 100;
/// How many bytes the nodes of a page take at most: a function's answer has 6 MB (Lambda quotas), in which each quote of the
/// body takes two.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// What EC2 answers where it does not take a token for its own (EC2 API reference, error codes).
const NO_TOKENS: [&str; 3] = ["InvalidNextToken", "InvalidPaginationToken", "InvalidParameterValue"];

/// A page of nodes.
#[derive(Serialize)]
struct NodeList {
    nodes: Vec<Node>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Whose nodes there are, where the cluster has none.
    #[serde(flatten)]
    none: Option<NoNodes>,
}

/// An instance of the cluster.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    id: String,
    /// The Kubernetes node's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    launched_at: Option<DateTime<Utc>>,
    /// The rules that want its tags.
    rules: Vec<String>,
    ssm: Agent,
    /// Its rules' newest images.
    images: Vec<ImageOnNode>,
    /// Of how many images beside those that the table tells of in full it is known whether they are there.
    #[serde(skip_serializing_if = "is_nought")]
    more: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failure>,
}

/// An image that a node is to have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageOnNode {
    /// By the first of its tags.
    image: Image,
    /// All tags by which the node is to have it.
    tags: Vec<String>,
    state: ImageState,
    /// Since when it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<DateTime<Utc>>,
    /// When the node last spoke of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Whether an image is on a node, as far as the node has told; the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum ImageState {
    /// The node has said why not.
    Missing,
    /// The node has said nothing of it.
    Unknown,
    /// The node has said so.
    Warm,
}

/// What is known of an image on a node by one of its names.
struct Said<'a> {
    state: ImageState,
    seen_at: Option<DateTime<Utc>>,
    since: Option<DateTime<Utc>>,
    reason: Option<&'a str>,
}

/// Where a page begins.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    /// EC2's token for its page; none for its first.
    instances: Option<String>,
    /// How many of EC2's page were told before: they filled one of ours.
    skip: usize,
}

/// Why nodes cannot be told of.
#[derive(Debug, Error)]
enum NodesError {
    /// EC2 did not list the instances.
    #[error("the instances could not be listed")]
    Instances(#[source] Box<SdkError<DescribeInstancesError>>),
    /// A row is not shaped as it is written.
    #[error("what a node holds cannot be understood")]
    Row(#[source] serde_dynamo::Error),
    /// There are more nodes than can be asked about in the time.
    #[error("the nodes could not all be asked about in time")]
    TimeOver,
}

/// Tells of a page of the cluster's instances that run, or are about to, whether each can be warmed, and what it holds.
///
/// A page costs one DescribeInstances, one DescribeInstanceInformation for each 50 of its nodes and one BatchGetItem for
/// each 100; this process asks ECR at most once per repository in 30 seconds. Where there is no node, up to five more
/// DescribeInstances tell of which clusters there are some.
///
/// # Errors
/// A 400 for a page that there is not, a 503 where AWS cannot be asked.
pub async fn list(jobs: &Jobs, query: &Query, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let page: Page<Next> = query.page(5..=500, 100)?;
    let is_first = page.next.is_none();
    let begin = page.next.unwrap_or_default();
    let (instances, next) = instances(jobs, page.limit, begin.instances.clone()).await?;
    let listed = instances.iter().skip(begin.skip);
    let listed = listed.filter_map(|instance| Listed::of(instance, jobs));
    let listed: Vec<Listed> = listed.collect();
    let known = Known::of(jobs, &jobs.images, &listed, now).await?;
    let nodes = listed.iter().zip(known.holdings);
    let nodes = nodes.map(|(node, held)| node.told(known.managed.get(node.id), &known.images, held, now));
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
        let others = others(jobs).await;
        Some(others.map_err(|error| Problem::unavailable(&error))?)
    } else {
        None
    };
    let next = next.as_ref().map(token);
    Ok(Answer::ok(&NodeList { nodes, next, none }))
}

/// How many of the nodes an answer holds: one at least, where there is one.
fn fitting(nodes: &[Node]) -> usize {
    let mut bytes = 0;
    let fits = nodes.iter().take_while(|node| {
        bytes += serde_json::to_string(node).expect("a node is JSON").len();
        bytes <= MAX_BYTES
    });
    fits.count().max(1).min(nodes.len())
}

/// An instance with its rules.
struct Listed<'a> {
    id: &'a str,
    instance: &'a Instance,
    rules: Vec<&'a Rule>,
}

impl<'a> Listed<'a> {
    fn of(instance: &'a Instance, jobs: &'a Jobs) -> Option<Self> {
        let settings = &jobs.settings.shared;
        let tags = tags(instance);
        let wants = |rule: &&Rule| NodeSelector::new(&settings.cluster, rule).matches(&tags);
        Some(Self {
            id: instance.instance_id()?,
            instance,
            rules: settings.rules.iter().filter(wants).collect(),
        })
    }

    /// Names its rules' newest images, each once.
    fn wanted<'b>(&self, images: &'b BTreeMap<&str, Vec<Image>>) -> BTreeSet<&'b Image> {
        self.rules.iter().flat_map(|rule| &images[rule.name.as_str()]).collect()
    }

    fn told(
        &self,
        managed: Option<&InstanceInformation>,
        images: &BTreeMap<&str, Vec<Image>>,
        held: Held,
        now: DateTime<Utc>,
    ) -> Node {
        let wanted = by_digest(self.wanted(images));
        Node {
            id: self.id.to_owned(),
            name: node_name(self.instance).map(str::to_owned),
            instance_type: self.instance.instance_type().map(|kind| kind.as_str().to_owned()),
            launched_at: self.instance.launch_time().and_then(moment),
            rules: self.rules.iter().map(|rule| rule.name.clone()).collect(),
            ssm: Agent::of(self.instance, managed, now),
            images: wanted.iter().map(|names| ImageOnNode::of(names, &held)).collect(),
            more: held.more.len(),
            last_failure: held.last_failure,
        }
    }
}

/// Puts the names of each image together, in the order of its first.
fn by_digest(wanted: BTreeSet<&Image>) -> Vec<Vec<&Image>> {
    let mut images: BTreeMap<(&str, &str), Vec<&Image>> = BTreeMap::new();
    for image in wanted {
        images
            .entry((image.repository(), image.digest()))
            .or_default()
            .push(image);
    }
    let mut images: Vec<Vec<&Image>> = images.into_values().collect();
    images.sort();
    images
}

impl ImageOnNode {
    /// Tells of an image by all its names: it is there once each of them is, for kubelet looks for the name.
    fn of(names: &[&Image], held: &Held) -> Self {
        let said: Vec<Said> = names.iter().map(|name| Said::of(name, held)).collect();
        let worst = said.iter().min_by_key(|said| (said.state, said.seen_at));
        let worst = worst.expect("an image has a name");
        let is_warm = worst.state == ImageState::Warm;
        let since = said.iter().map(|said| said.since);
        Self {
            image: names[0].clone(),
            tags: names.iter().filter_map(|name| name.tag()).map(str::to_owned).collect(),
            state: worst.state,
            since: since.max().flatten().filter(|_| is_warm),
            seen_at: worst.seen_at,
            reason: worst.reason.filter(|reason| !reason.is_empty()).map(str::to_owned),
        }
    }
}

impl<'a> Said<'a> {
    /// Tells of a name by what the node's row has of it, in full or in brief.
    fn of(image: &Image, held: &'a Held) -> Self {
        let state = match held.presence(image) {
            Some(Presence::Warm) => ImageState::Warm,
            Some(Presence::Missing | Presence::NotApplicable) => ImageState::Missing,
            None => ImageState::Unknown,
        };
        let (in_full, in_brief) = (held.images.get(image), held.more.get(image));
        // In brief it is known why a node lacks an image only where it could not hold it.
        let is_foreign = in_brief.is_some_and(|said| said.presence == Presence::NotApplicable);
        Self {
            state,
            seen_at: in_full.map(|said| said.at).or(in_brief.and_then(Brief::at)),
            since: in_full.and_then(|said| said.since),
            reason: in_full
                .map(|said| said.reason.as_str())
                .or(is_foreign.then_some("platform")),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_nought(number: &usize) -> bool {
    *number == 0
}

/// Holds what SSM, ECR and the table say of nodes.
struct Known<'a> {
    /// Their agents as SSM describes them, by instance id.
    managed: HashMap<String, InstanceInformation>,
    /// The newest images of each rule that wants one of them, by the rule's name.
    images: BTreeMap<&'a str, Vec<Image>>,
    /// Their inventories, in the order of the nodes.
    holdings: Vec<Held>,
}

impl<'a> Known<'a> {
    async fn of(jobs: &Jobs, images: &NewestImages, nodes: &[Listed<'a>], now: DateTime<Utc>) -> Result<Self, Problem> {
        let newest = newest(images, nodes, now);
        let asked = try_join3(managed(jobs, nodes), newest, holdings(jobs, nodes));
        let (managed, images, holdings) = asked.await?;
        Ok(Self {
            managed,
            images,
            holdings,
        })
    }
}

/// Lists a page of the cluster's instances, and EC2's token for the next one.
async fn instances(
    jobs: &Jobs,
    limit: usize,
    next: Option<String>,
) -> Result<(Vec<Instance>, Option<String>), Problem> {
    let is_next = next.is_some();
    let request = jobs
        .ec2
        .describe_instances()
        .set_filters(Some(nodes_of(&jobs.settings.shared.cluster)))
        .max_results(i32::try_from(limit).unwrap_or(i32::MAX))
        .set_next_token(next);
    let answer: DescribeInstancesOutput = request.send().await.map_err(|error| {
        if is_next && error.code().is_some_and(|code| NO_TOKENS.contains(&code)) {
            stale()
        } else {
            Problem::unavailable(&NodesError::Instances(Box::new(error)))
        }
    })?;
    let reservations = answer.reservations.unwrap_or_default().into_iter();
    let instances = reservations.flat_map(|reservation| reservation.instances.unwrap_or_default());
    let next = answer.next_token.filter(|token| !token.is_empty());
    Ok((instances.collect(), next))
}

/// Tells what SSM knows of those nodes that allow it.
async fn managed(jobs: &Jobs, nodes: &[Listed<'_>]) -> Result<HashMap<String, InstanceInformation>, Problem> {
    let allow_ssm = nodes.iter().filter(|node| !is_auto_mode(node.instance));
    let ids: Vec<String> = allow_ssm.map(|node| node.id.to_owned()).collect();
    let managed = ssm::managed_nodes(&jobs.ssm, &ids).await;
    managed.map_err(|error| Problem::unavailable(&error))
}

/// Names the newest images of each rule that wants one of the nodes, by the rule's name.
async fn newest<'a>(
    images: &NewestImages,
    nodes: &[Listed<'a>],
    now: DateTime<Utc>,
) -> Result<BTreeMap<&'a str, Vec<Image>>, Problem> {
    let rules = nodes.iter().flat_map(|node| &node.rules);
    let rules: BTreeMap<&str, &Rule> = rules.map(|rule| (rule.name.as_str(), *rule)).collect();
    let mut newest = BTreeMap::new();
    for (name, rule) in rules {
        let of_rule = images.of_rule(rule, now.into()).await;
        newest.insert(name, of_rule.map_err(|error| Problem::unavailable(&error))?);
    }
    Ok(newest)
}

/// Reads what each of the nodes holds.
async fn holdings(jobs: &Jobs, nodes: &[Listed<'_>]) -> Result<Vec<Held>, Problem> {
    let mut holdings = Vec::with_capacity(nodes.len());
    for nodes in nodes.chunks(AT_ONCE) {
        let keys: Vec<Key> = nodes.iter().map(|node| Key::held(node.id)).collect();
        let rows = table::read(&jobs.dynamodb, &jobs.settings.table, &keys.iter().cloned().collect()).await;
        let rows = rows.map_err(|error| Problem::unavailable(&error))?;
        for key in &keys {
            let held: Option<Held> = rows
                .get(key)
                .map_err(|error| Problem::unavailable(&NodesError::Row(error)))?;
            holdings.push(held.unwrap_or_default());
        }
    }
    Ok(holdings)
}

#[cfg(test)]
mod tests;

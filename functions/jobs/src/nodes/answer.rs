//! A node as answers describe it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use prefetch::{
    image::Image,
    instance::node_name,
    rows::{BriefEntry, Failure, Inventory, Presence},
};
use serde::Serialize;

use crate::nodes::{
    agent::{Agent, moment},
    sources::{Listed, NodeFacts},
};

/// Describes an instance of the cluster.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
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
    /// Tells of how many images beside those that the table tells of in full it is known whether they are there.
    #[serde(skip_serializing_if = "is_nought")]
    more: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failure>,
}

/// Describes an image that a node is to have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageOnNode {
    /// By the first of its tags.
    image: Image,
    /// All tags by which the node is to have it.
    tags: Vec<String>,
    state: ImageState,
    /// Tells since when it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<DateTime<Utc>>,
    /// Tells when the node last spoke of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Tells if an image is on a node, as far as the node has told; the worst first.
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

/// Holds what is known of an image on a node by one of its names.
struct NameState<'a> {
    state: ImageState,
    seen_at: Option<DateTime<Utc>>,
    since: Option<DateTime<Utc>>,
    reason: Option<&'a str>,
}

impl Node {
    /// Describes a node by what is known of it, and by its inventory.
    pub fn of(node: &Listed<'_>, facts: &NodeFacts<'_>, inventory: &Inventory, now: DateTime<Utc>) -> Self {
        let wanted = by_digest(node.wanted(&facts.images));
        let instance = node.instance;
        Self {
            id: node.id.to_owned(),
            name: node_name(instance).map(str::to_owned),
            instance_type: instance.instance_type().map(|kind| kind.as_str().to_owned()),
            launched_at: instance.launch_time().and_then(moment),
            rules: node.rules.iter().map(|rule| rule.name.clone()).collect(),
            ssm: Agent::of(instance, facts.managed.get(node.id), now),
            images: wanted.iter().map(|names| ImageOnNode::of(names, inventory)).collect(),
            more: inventory.more.len(),
            last_failure: inventory.last_failure.clone(),
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
    fn of(names: &[&Image], inventory: &Inventory) -> Self {
        let said: Vec<NameState> = names.iter().map(|name| NameState::of(name, inventory)).collect();
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

impl<'a> NameState<'a> {
    /// Tells of a name by what the node's row has of it, in full or in brief.
    fn of(image: &Image, inventory: &'a Inventory) -> Self {
        let state = match inventory.presence(image) {
            Some(Presence::Warm) => ImageState::Warm,
            Some(Presence::Missing | Presence::NotApplicable) => ImageState::Missing,
            None => ImageState::Unknown,
        };
        let (in_full, in_brief) = (inventory.images.get(image), inventory.more.get(image));
        // In brief it is known why a node lacks an image only where it could not hold it.
        let is_foreign = in_brief.is_some_and(|said| said.presence == Presence::NotApplicable);
        Self {
            state,
            seen_at: in_full.map(|said| said.at).or(in_brief.and_then(BriefEntry::at)),
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

//! The count: how many nodes hold what their rules name now.

use std::time::Duration;

use chrono::{DateTime, Utc};
use prefetch::{
    metrics::{Line, Metrics},
    rows::{Inventory, Presence},
};
use serde::Serialize;

use crate::{
    http::problem::Problem,
    nodes::{
        agent::{Agent, AgentState},
        sources::{Listed, NodeFacts, NodeSources, NodesError},
    },
};

/// Limits how many instances a page has: as many as the largest page of GET /nodes.
const PAGE: usize = 500;
/// Sets how long a count may take, of the function's 60 seconds.
const TIME: Duration = Duration::from_secs(50);

/// Counts nodes by how warm they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    warm: u32,
    cold: u32,
    unreachable: u32,
    left_out: u32,
}

/// Tells how a node stands to what its rules name now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Warmth {
    /// It has said of each image that it is there.
    Warm,
    /// An image is missing, or it has said nothing of it.
    Cold,
    /// SSM does not reach it.
    Unreachable,
    /// It is to have no image that it can run, or cannot run the document.
    LeftOut,
}

impl Counted {
    fn take(&mut self, warmth: Warmth) {
        let number = match warmth {
            Warmth::Warm => &mut self.warm,
            Warmth::Cold => &mut self.cold,
            Warmth::Unreachable => &mut self.unreachable,
            Warmth::LeftOut => &mut self.left_out,
        };
        *number += 1;
    }

    /// Writes three metrics, those that are 0 too, for they are read together; nodes that are left out are not measured.
    pub fn line<'a>(&self, metrics: &'a Metrics, now: DateTime<Utc>) -> Line<'a> {
        let mut line = metrics.line(now);
        line.count("NodesWarm", self.warm);
        line.count("NodesCold", self.cold);
        line.count("NodesUnreachable", self.unreachable);
        line
    }
}

/// Counts the cluster's instances that run or are about to, by how warm they are.
///
/// It costs what all pages of GET /nodes cost, 500 nodes each. What cannot be asked of any node leaves no count at all, for
/// a part of the nodes is no number of nodes; two counts at once each tell the same.
///
/// # Errors
/// A 503 where AWS cannot be asked, or not within 50 seconds.
pub async fn count(sources: &NodeSources<'_>, now: DateTime<Utc>) -> Result<Counted, Problem> {
    count_within(sources, now, TIME).await
}

async fn count_within(sources: &NodeSources<'_>, now: DateTime<Utc>, time: Duration) -> Result<Counted, Problem> {
    let counted = tokio::time::timeout(time, count_all(sources, now)).await;
    counted.unwrap_or_else(|_| Err(Problem::unavailable(NodesError::TimeOver)))
}

async fn count_all(sources: &NodeSources<'_>, now: DateTime<Utc>) -> Result<Counted, Problem> {
    // What was pushed a moment ago counts.
    let images = sources.images.anew(TIME);
    let mut counted = Counted::default();
    let mut page = None;
    loop {
        let (instances, next) = sources.instances(PAGE, page).await?;
        let listed = instances
            .iter()
            .filter_map(|instance| Listed::of(instance, sources.settings));
        let listed: Vec<Listed> = listed.collect();
        let facts = sources.facts(&images, &listed, now).await?;
        for (node, inventory) in listed.iter().zip(&facts.inventories) {
            counted.take(of_node(node, &facts, inventory, now));
        }
        page = next;
        if page.is_none() {
            return Ok(counted);
        }
    }
}

fn of_node(node: &Listed<'_>, facts: &NodeFacts<'_>, inventory: &Inventory, now: DateTime<Utc>) -> Warmth {
    let agent = Agent::of(node.instance, facts.managed.get(node.id), now);
    let wanted = node.wanted(&facts.images).into_iter();
    warmth(agent.state, wanted.map(|image| inventory.presence(image)))
}

/// Decides how warm a node is, by its agent and by its last word on each image that it is to have.
fn warmth(agent: AgentState, wanted: impl Iterator<Item = Option<Presence>>) -> Warmth {
    let mut wanted = wanted.filter(|said| *said != Some(Presence::NotApplicable)).peekable();
    if agent == AgentState::Unsupported || wanted.peek().is_none() {
        Warmth::LeftOut
    } else if agent != AgentState::Online {
        Warmth::Unreachable
    } else if wanted.all(|said| said == Some(Presence::Warm)) {
        Warmth::Warm
    } else {
        Warmth::Cold
    }
}

#[cfg(test)]
mod tests;

//! Plans: what is to be sent for a job, decided in full before anything is.

use std::collections::{BTreeMap, HashMap, HashSet};

use aws_sdk_ssm::types::Command;
use prefetch::{
    command::{Comment, Destination, MAX_IMAGES, MAX_INSTANCES, Trigger, is_observed_id},
    image::Image,
    node::{Cluster, NodeSelector},
    rule::Rule,
    settings::Mode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{reach::Refused, request::NodeChoice, status::State};

/// What is to be sent for a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What the images asked for are.
    pub images: Vec<Resolved>,
    /// The nodes asked for by id that get nothing.
    pub refused: Vec<Refused>,
    /// What each rule brings where.
    pub batches: Vec<Batch>,
}

/// What an image asked for is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The text that asked for it.
    pub asked: String,
    /// The image, by digest.
    pub image: Image,
}

/// What a rule brings where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The rule's name.
    pub rule: String,
    /// The images.
    pub images: Vec<Image>,
    /// The tags by which SSM finds the nodes, the cluster's included, or their ids.
    pub nodes: NodeChoice,
}

/// One command that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The rule's name.
    pub rule: String,
    /// At most as many images as one command carries.
    pub images: Vec<Image>,
    /// Tags, or at most as many ids as one command takes.
    pub nodes: NodeChoice,
}

/// What became of one command of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The command's id; none where no node was left that it could go to.
    pub id: Option<String>,
    /// The nodes that it did not go to in the end.
    pub without: Vec<String>,
}

impl Sent {
    /// Returns true where the stack observed, and it was not sent.
    pub fn is_observed(&self) -> bool {
        self.id.as_deref().is_some_and(is_observed_id)
    }
}

/// What was sent, by the command's place in its plan.
pub type SentCommands = BTreeMap<usize, Sent>;

impl Plan {
    /// The commands: for each rule one for each 30 images and 50 ids.
    pub fn commands(&self) -> Vec<Planned> {
        let mut commands = Vec::new();
        for batch in &self.batches {
            for images in batch.images.chunks(MAX_IMAGES) {
                let to = |nodes| Planned {
                    rule: batch.rule.clone(),
                    images: images.to_vec(),
                    nodes,
                };
                match &batch.nodes {
                    NodeChoice::Ids(ids) => {
                        let groups = ids.chunks(MAX_INSTANCES);
                        commands.extend(groups.map(|ids| to(NodeChoice::Ids(ids.to_vec()))));
                    }
                    tags @ NodeChoice::Tags(_) => commands.push(to(tags.clone())),
                }
            }
        }
        commands
    }

    /// The answer: what was sent, or would have been where that is nothing yet.
    pub fn answer(&self, sent: &SentCommands, is_dry_run: bool) -> Value {
        let mut refused = self.refused.clone();
        for id in sent.values().flat_map(|sent| &sent.without) {
            if refused.iter().all(|known| known.id != *id) {
                refused.push(Refused::offline(id));
            }
        }
        let jobs = if is_dry_run {
            self.commands().iter().map(|command| command.told(None)).collect()
        } else {
            self.told(sent)
        };
        let mut answer = json!({"dryRun": is_dry_run, "jobs": jobs, "images": self.images, "nodes": refused});
        if sent.values().any(Sent::is_observed) {
            answer["mode"] = json!(Mode::Observe);
        }
        answer
    }

    /// The commands that were sent.
    pub fn told(&self, sent: &SentCommands) -> Vec<Value> {
        let commands = self.commands();
        let with_id = sent.iter().filter(|(_, sent)| sent.id.is_some());
        with_id
            .filter_map(|(place, sent)| Some(commands.get(*place)?.told(Some(sent))))
            .collect()
    }
}

impl Planned {
    /// The destination in SSM's words.
    pub fn destination(&self, cluster: &Cluster) -> Destination {
        match &self.nodes {
            NodeChoice::Ids(ids) => Destination::Instances(ids.clone()),
            NodeChoice::Tags(tags) => Destination::Selected(NodeSelector::of_tags(cluster, tags.clone())),
        }
    }

    /// Whether a command that SSM knows is this one.
    pub fn is(&self, command: &Command, trigger: Trigger, rule: &Rule, cluster: &Cluster) -> bool {
        let parameters = command.parameters();
        let images = parameters
            .and_then(|parameters| parameters.get("images"))
            .and_then(|images| images.first());
        let wanted = self
            .images
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ");
        command.comment() == Some(Comment::first(trigger, rule).to_string().as_str())
            && images == Some(&wanted)
            && match self.destination(cluster) {
                Destination::Instances(ids) => {
                    ids.iter().collect::<HashSet<_>>() == command.instance_ids().iter().collect()
                }
                Destination::Selected(selector) => by_key(&selector.targets()) == by_key(command.targets()),
            }
    }

    fn told(&self, sent: Option<&Sent>) -> Value {
        let nodes = match &self.nodes {
            NodeChoice::Ids(ids) => {
                let without = sent.map(|sent| sent.without.as_slice()).unwrap_or_default();
                NodeChoice::Ids(ids.iter().filter(|id| !without.contains(id)).cloned().collect())
            }
            tags @ NodeChoice::Tags(_) => tags.clone(),
        };
        let mut told = json!({"rule": self.rule, "images": self.images, "nodes": nodes});
        if let Some(id) = sent.and_then(|sent| sent.id.as_ref()) {
            told["id"] = json!(id);
        }
        if sent.is_some_and(Sent::is_observed) {
            told["state"] = json!(State::Observed);
        }
        told
    }
}

fn by_key(targets: &[aws_sdk_ssm::types::Target]) -> HashMap<Option<&str>, &[String]> {
    targets.iter().map(|target| (target.key(), target.values())).collect()
}

//! Plans: what is to be sent for a job, decided in full before anything is.

use std::collections::{BTreeMap, HashMap, HashSet};

use aws_sdk_ssm::types::Command;
use prefetch::{
    command::{Comment, Destination, MAX_IMAGES, MAX_INSTANCES, Trigger, images_text, is_unsent_id},
    image::Image,
    node::{Cluster, NodeSelector},
    rule::Rule,
    sender::Refusal,
    settings::Mode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{nodes::reachability::RefusedNode, status::job::JobState, submit::request::NodeSelection};

/// Tells what is to be sent for a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Says what the requested images are.
    pub images: Vec<ResolvedImage>,
    /// The nodes requested by id that get nothing.
    pub refused: Vec<RefusedNode>,
    /// Says what each rule brings where.
    pub batches: Vec<Batch>,
}

/// Tells what a requested image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// The image reference that requests it.
    #[serde(rename = "asked")]
    pub reference: String,
    /// The image, by digest.
    pub image: Image,
}

/// Tells what a rule brings where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The rule's name.
    pub rule: String,
    /// As many images as fit into one command. What fits is decided once: what was sent is known by its place among the
    /// commands, and a plan outlives a release that decides otherwise.
    pub images: Vec<Image>,
    /// The tags by which SSM finds the nodes, the cluster's included, or their ids.
    pub nodes: NodeSelection,
}

/// Holds one command that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCommand {
    /// The rule's name.
    pub rule: String,
    /// At most as many images as one command carries.
    pub images: Vec<Image>,
    /// Tags, or at most as many ids as one command takes.
    pub nodes: NodeSelection,
}

/// Tells what became of one command of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentCommand {
    /// The command's id; none where no node was left that it could go to.
    pub id: Option<String>,
    /// The nodes that it did not go to in the end.
    pub without: Vec<String>,
    /// Tells why it did not, for those that SSM has not merely lost the connection to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedNode>,
    /// The commands that went to some of its nodes in its place: SSM refused it for a node that it did not name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Further>,
    /// The nodes that it is yet to go to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// The same command, taken more than once because answers got lost: nodes have the images then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duplicates: Vec<String>,
}

/// Names a command that went to some of the nodes of a planned one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Further {
    /// The command's id.
    pub id: String,
    /// The nodes' ids.
    pub ids: Vec<String>,
}

impl SentCommand {
    /// Begins a command, which is yet to go to all its nodes.
    pub fn begin(command: &PlannedCommand) -> Self {
        let left = match &command.nodes {
            NodeSelection::Ids(ids) => ids.clone(),
            NodeSelection::Tags(_) => Vec::new(),
        };
        Self {
            left,
            ..Self::default()
        }
    }

    /// Notes that a command went to these nodes, by id.
    pub fn went(&mut self, id: String, nodes: &[String]) {
        self.left.retain(|node| !nodes.contains(node));
        if self.id.is_none() {
            self.id = Some(id);
        } else {
            let ids = nodes.to_vec();
            self.further.push(Further { id, ids });
        }
    }

    /// Notes that no command goes to this node.
    pub fn refuse(&mut self, node: String, refusal: Refusal) {
        self.left.retain(|left| *left != node);
        if refusal != Refusal::NotOnline {
            self.refused.push(RefusedNode::at_sending(&node, refusal));
        }
        self.without.push(node);
    }

    /// Notes a command that SSM took without saying so: to nodes that have got none yet, or once more.
    pub fn found(&mut self, id: String, nodes: &[String]) {
        if self.id.is_none() {
            // SSM may have taken it before it refused a node of it.
            self.without.retain(|node| !nodes.contains(node));
            self.refused.retain(|refused| !nodes.contains(&refused.id));
            return self.went(id, nodes);
        }
        let left = self.left.iter().filter(|node| nodes.contains(node));
        let left: Vec<String> = left.cloned().collect();
        if left.is_empty() {
            self.duplicates.push(id);
        } else {
            self.went(id, &left);
        }
    }

    /// Gives the ids of its commands.
    pub fn ids(&self) -> impl Iterator<Item = &String> {
        let further = self.further.iter().map(|further| &further.id);
        self.id.iter().chain(further).chain(&self.duplicates)
    }

    /// Returns true where nothing became of it yet.
    pub fn is_untouched(&self) -> bool {
        self.id.is_none() && self.without.is_empty()
    }

    /// Gives the nodes that it did not go to in the end, and why.
    pub fn not_reached(&self) -> impl Iterator<Item = RefusedNode> {
        self.without.iter().map(|id| {
            let known = self.refused.iter().find(|refused| refused.id == *id);
            known.cloned().unwrap_or_else(|| RefusedNode::offline(id))
        })
    }

    /// Returns true where the stack observed, and it was not sent.
    pub fn is_observed(&self) -> bool {
        self.id.as_deref().is_some_and(is_unsent_id)
    }
}

/// Tells what was sent, by the command's place in its plan.
pub type SentCommands = BTreeMap<usize, SentCommand>;

impl Plan {
    /// Gives the commands: for each batch one for each 50 ids.
    pub fn commands(&self) -> Vec<PlannedCommand> {
        let mut commands = Vec::new();
        for batch in &self.batches {
            // An earlier release stored batches of more.
            for images in batch.images.chunks(MAX_IMAGES) {
                let to = |nodes| PlannedCommand {
                    rule: batch.rule.clone(),
                    images: images.to_vec(),
                    nodes,
                };
                match &batch.nodes {
                    NodeSelection::Ids(ids) => {
                        let groups = ids.chunks(MAX_INSTANCES);
                        commands.extend(groups.map(|ids| to(NodeSelection::Ids(ids.to_vec()))));
                    }
                    tags @ NodeSelection::Tags(_) => commands.push(to(tags.clone())),
                }
            }
        }
        commands
    }

    /// Writes the answer: what was sent, or would have been where that is nothing yet.
    pub fn answer(&self, sent: &SentCommands, is_dry_run: bool) -> Value {
        let mut refused = self.refused.clone();
        for node in sent.values().flat_map(SentCommand::not_reached) {
            if refused.iter().all(|known| known.id != node.id) {
                refused.push(node);
            }
        }
        let jobs = if is_dry_run {
            self.commands()
                .iter()
                .flat_map(|command| command.as_jobs(None))
                .collect()
        } else {
            self.sent_jobs(sent)
        };
        let mut answer = json!({"dryRun": is_dry_run, "jobs": jobs, "images": self.images, "nodes": refused});
        if sent.values().any(SentCommand::is_observed) {
            answer["mode"] = json!(Mode::Observe);
        }
        answer
    }

    /// Writes the commands that were sent as the jobs of an answer.
    pub fn sent_jobs(&self, sent: &SentCommands) -> Vec<Value> {
        let commands = self.commands();
        let with_id = sent.iter().filter(|(_, sent)| sent.id.is_some());
        with_id
            .filter_map(|(place, sent)| Some(commands.get(*place)?.as_jobs(Some(sent))))
            .flatten()
            .collect()
    }
}

impl PlannedCommand {
    /// Gives the destination in SSM's words.
    pub fn destination(&self, cluster: &Cluster) -> Destination {
        match &self.nodes {
            NodeSelection::Ids(ids) => Destination::Instances(ids.clone()),
            NodeSelection::Tags(tags) => Destination::Selected(NodeSelector::of_tags(cluster, tags.clone())),
        }
    }

    /// Gives what is left to be sent of it.
    pub fn left(&self, sent: Option<&SentCommand>) -> Option<Self> {
        match sent {
            None => Some(self.clone()),
            Some(sent) if sent.left.is_empty() => None,
            Some(sent) => Some(Self {
                nodes: NodeSelection::Ids(sent.left.clone()),
                ..self.clone()
            }),
        }
    }

    /// Returns true where a command that SSM knows is this one, or went to some of its nodes in its place.
    pub fn is(&self, command: &Command, trigger: Trigger, rule: &Rule, cluster: &Cluster) -> bool {
        let parameters = command.parameters();
        let images = parameters
            .and_then(|parameters| parameters.get("images"))
            .and_then(|images| images.first());
        command.comment() == Some(Comment::first(trigger, rule).to_string().as_str())
            && images == Some(&images_text(&self.images))
            && match self.destination(cluster) {
                Destination::Instances(ids) => {
                    let sent = command.instance_ids();
                    !sent.is_empty() && sent.iter().all(|id| ids.contains(id))
                }
                Destination::Selected(selector) => by_key(&selector.targets()) == by_key(command.targets()),
            }
    }

    /// Writes it as the jobs of an answer, with what became of it where that is known: one, but where SSM refused it for a node
    /// that it did not name.
    pub fn as_jobs(&self, sent: Option<&SentCommand>) -> Vec<Value> {
        let Some(sent) = sent else {
            return vec![self.as_job(None, &self.nodes)];
        };
        let nodes = match &self.nodes {
            NodeSelection::Ids(ids) => {
                let of_others = sent.further.iter().flat_map(|further| &further.ids);
                let others: HashSet<&String> = of_others.chain(&sent.without).chain(&sent.left).collect();
                NodeSelection::Ids(ids.iter().filter(|id| !others.contains(id)).cloned().collect())
            }
            tags @ NodeSelection::Tags(_) => tags.clone(),
        };
        let further = sent.further.iter();
        let further = further.map(|further| self.as_job(Some(&further.id), &NodeSelection::Ids(further.ids.clone())));
        let mut first = self.as_job(sent.id.as_deref(), &nodes);
        if !sent.duplicates.is_empty() {
            first["duplicates"] = json!(sent.duplicates);
        }
        std::iter::once(first).chain(further).collect()
    }

    fn as_job(&self, id: Option<&str>, nodes: &NodeSelection) -> Value {
        let mut command = json!({"rule": self.rule, "images": self.images, "nodes": nodes});
        if let Some(id) = id {
            command["id"] = json!(id);
            if is_unsent_id(id) {
                command["state"] = json!(JobState::Observed);
            }
        }
        command
    }
}

fn by_key(targets: &[aws_sdk_ssm::types::Target]) -> HashMap<Option<&str>, &[String]> {
    targets.iter().map(|target| (target.key(), target.values())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_an_earlier_release_stored_is_the_same_commands_and_the_same_answer() {
        let image = |k: usize| {
            let (tag, digest) = (format!("{k:040}"), format!("sha256:{k:064x}"));
            Image::new(
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                "team/app",
                Some(&tag),
                &digest,
            )
            .unwrap()
        };
        let images: Vec<Image> = (0..45).map(image).collect();
        let ids: Vec<String> = (0..60).map(|k| format!("i-{k:017x}")).collect();
        let stored = json!({
            "images": [], "refused": [], "batches": [{"rule": "a", "images": images, "nodes": {"ids": ids}}],
        });
        let plan: Plan = serde_json::from_value(stored).unwrap();
        let sizes: Vec<usize> = plan.commands().iter().map(|command| command.images.len()).collect();
        assert_eq!(sizes, [30, 30, 15, 15]);
        let sent: SentCommand = serde_json::from_value(json!({"id": "first", "without": [ids[1]]})).unwrap();
        let answer = plan.answer(&[(0, sent)].into(), false);
        assert_eq!(answer["jobs"].as_array().unwrap().len(), 1);
        assert_eq!(answer["jobs"][0]["nodes"]["ids"].as_array().unwrap().len(), 49);
        assert_eq!(
            (&answer["nodes"][0]["id"], &answer["nodes"][0]["reason"]),
            (&json!(ids[1]), &json!("not-online"))
        );
    }
}

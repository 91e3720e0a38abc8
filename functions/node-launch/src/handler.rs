//! From launched instances to commands.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use aws_lambda_events::sqs::SqsBatchResponse;
use aws_sdk_ec2::{
    error::SdkError,
    operation::describe_instances::DescribeInstancesError,
    types::{Filter, Instance},
};
use aws_sdk_ssm::types::{InstanceInformation, PlatformType};
use lambda_runtime::Diagnostic;
use prefetch::{
    command::{Destination, MAX_IMAGES, MAX_INSTANCES, Trigger, send_command_input},
    image::Image,
    node::NodeSelector,
    report::{report, word},
    rule::Rule,
    settings::Settings,
    ssm::{self, SsmError},
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tracing::{error, info, warn};

use crate::{
    decision::{Decision, Reason, Sent, Why},
    images::NewestImages,
    instance::node_tags,
    message::{Call, Launched, call},
};

/// How many values one filter of DescribeInstances takes (EC2 API reference).
const MAX_FILTER_VALUES: usize = 200;
/// How many instances one page of DescribeInstances has at most (EC2 API reference).
const PAGE_SIZE: i32 = 1000;

/// What the function works with.
pub struct NodeLaunch {
    pub ec2: aws_sdk_ec2::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub images: NewestImages,
    pub settings: Settings,
}

/// The decision of each instance, by its id.
type Decisions = BTreeMap<String, Decision>;
/// A node of the cluster and the rules that want it.
type NodeWithRules<'a> = (String, Vec<&'a Rule>);

/// What the function answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To SQS: the messages that are handed back, and nothing else, for SQS reads no more.
    Batch(SqsBatchResponse),
    /// To whoever sent an event as it is: what was decided, and why.
    Event {
        /// The instance's id, where the event names one.
        #[serde(skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// The decision.
        #[serde(flatten)]
        decision: Decision,
    },
}

/// Nothing could be told of any instance: worth another try of the whole call.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// EC2 did not describe the instances.
    #[error("the instances could not be described")]
    Instances(#[source] Box<SdkError<DescribeInstancesError>>),
    /// SSM did not say which nodes are online.
    #[error("the nodes could not be looked up")]
    Nodes(#[source] SsmError),
}

impl From<LaunchError> for Diagnostic {
    fn from(error: LaunchError) -> Self {
        Self {
            error_type: "LaunchError".to_owned(),
            error_message: report(&error),
        }
    }
}

impl NodeLaunch {
    /// Sends launched nodes the images of their rules, and hands back those that cannot be reached yet.
    ///
    /// A batch costs one DescribeInstances, one DescribeInstanceInformation and one SendCommand per rule, 50 nodes and 30
    /// images; this process asks ECR at most once per repository in 30 seconds.
    ///
    /// # Errors
    /// [`LaunchError`] where EC2 or SSM cannot be asked at all: every message goes back to the queue.
    pub async fn handle(&self, payload: Value) -> Result<Answer, LaunchError> {
        self.handle_at(payload, SystemTime::now())
            .await
            .inspect_err(|error| error!("{}", report(error)))
    }

    async fn handle_at(&self, payload: Value, now: SystemTime) -> Result<Answer, LaunchError> {
        match call(payload) {
            Call::Event(event, Err(why)) => {
                log_unusable("event", &event, &why);
                let decision = Decision::Dropped(why);
                Ok(Answer::Event {
                    instance: None,
                    decision,
                })
            }
            Call::Event(_, Ok(id)) => {
                let mut decisions = self.decide(std::slice::from_ref(&id), now).await?;
                let decision = decisions.remove(&id).expect("each instance is decided of");
                Ok(Answer::Event {
                    instance: Some(id),
                    decision,
                })
            }
            Call::Batch(messages) => self.handle_batch(messages, now).await.map(Answer::Batch),
        }
    }

    async fn handle_batch(
        &self,
        messages: Vec<(String, Launched)>,
        now: SystemTime,
    ) -> Result<SqsBatchResponse, LaunchError> {
        let mut messages_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (message, launched) in messages {
            match launched {
                Ok(id) => messages_of.entry(id).or_default().push(message),
                Err(why) => log_unusable("message", &message, &why),
            }
        }
        let ids: Vec<String> = messages_of.keys().cloned().collect();
        let mut response = SqsBatchResponse::default();
        for (id, decision) in self.decide(&ids, now).await? {
            if let Decision::HandedBack(_) = decision {
                messages_of
                    .remove(&id)
                    .into_iter()
                    .flatten()
                    .for_each(|message| response.add_failure(message));
            }
        }
        Ok(response)
    }

    /// Decides of each of these instances, and sends what is to be sent.
    async fn decide(&self, ids: &[String], now: SystemTime) -> Result<Decisions, LaunchError> {
        let mut decisions = Decisions::new();
        let nodes = self.nodes_with_rules(ids, now, &mut decisions).await?;
        let nodes = self.online_nodes(nodes, &mut decisions).await?;
        self.send_images(nodes, now, &mut decisions).await;
        for (id, decision) in &decisions {
            log(id, decision);
        }
        Ok(decisions)
    }

    /// Keeps the instances that are running nodes of the cluster, each with the rules that want it.
    async fn nodes_with_rules(
        &self,
        ids: &[String],
        now: SystemTime,
        decisions: &mut Decisions,
    ) -> Result<Vec<NodeWithRules<'_>>, LaunchError> {
        let instances = self.describe_instances(ids).await?;
        let mut nodes = Vec::with_capacity(ids.len());
        for id in ids {
            match self.rules_of(instances.get(id), now) {
                Ok(rules) => nodes.push((id.clone(), rules)),
                Err(decision) => {
                    decisions.insert(id.clone(), decision);
                }
            }
        }
        Ok(nodes)
    }

    fn rules_of(&self, instance: Option<&Instance>, now: SystemTime) -> Result<Vec<&Rule>, Decision> {
        let instance = instance.ok_or_else(|| Decision::dropped(Reason::Gone, "EC2 knows no such instance"))?;
        let tags = node_tags(instance, &self.settings.cluster, now)?;
        let wants = |rule: &&Rule| NodeSelector::new(&self.settings.cluster, rule).matches(&tags);
        let rules: Vec<&Rule> = self.settings.rules.iter().filter(wants).collect();
        if rules.is_empty() {
            return Err(Decision::dropped(Reason::NoRule, "no rule wants its tags"));
        }
        Ok(rules)
    }

    async fn describe_instances(&self, ids: &[String]) -> Result<HashMap<String, Instance>, LaunchError> {
        let mut instances = HashMap::new();
        for ids in ids.chunks(MAX_FILTER_VALUES) {
            // A filter leaves out an instance that is gone; `InstanceIds` would fail the whole call for it.
            let filter = Filter::builder()
                .name("instance-id")
                .set_values(Some(ids.to_vec()))
                .build();
            let request = self.ec2.describe_instances().filters(filter).max_results(PAGE_SIZE);
            let mut pages = request.into_paginator().items().send();
            while let Some(reservation) = pages.next().await {
                let reservation = reservation.map_err(|error| LaunchError::Instances(Box::new(error)))?;
                for instance in reservation.instances.unwrap_or_default() {
                    if let Some(id) = &instance.instance_id {
                        instances.insert(id.clone(), instance);
                    }
                }
            }
        }
        Ok(instances)
    }

    /// Keeps the nodes that SSM can reach now.
    async fn online_nodes<'a>(
        &self,
        nodes: Vec<NodeWithRules<'a>>,
        decisions: &mut Decisions,
    ) -> Result<Vec<NodeWithRules<'a>>, LaunchError> {
        let ids: Vec<String> = nodes.iter().map(|(id, _)| id.clone()).collect();
        let managed = ssm::managed_nodes(&self.ssm, &ids).await.map_err(LaunchError::Nodes)?;
        Ok(nodes
            .into_iter()
            .filter(|(id, _)| match reachable(managed.get(id)) {
                Ok(()) => true,
                Err(decision) => {
                    decisions.insert(id.clone(), decision);
                    false
                }
            })
            .collect())
    }

    /// Sends each node the images of its rules: per rule, one command for each 50 nodes and 30 images.
    async fn send_images(&self, nodes: Vec<NodeWithRules<'_>>, now: SystemTime, decisions: &mut Decisions) {
        let mut by_node: BTreeMap<String, Vec<Decision>> = BTreeMap::new();
        for rule in &self.settings.rules {
            let wanting = nodes
                .iter()
                .filter(|(_, rules)| rules.iter().any(|r| r.name == rule.name));
            let ids: Vec<String> = wanting.map(|(id, _)| id.clone()).collect();
            if ids.is_empty() {
                continue;
            }
            for (id, decision) in self.send_rule(rule, ids, now).await {
                by_node.entry(id).or_default().push(decision);
            }
        }
        decisions.extend(
            by_node
                .into_iter()
                .map(|(id, of_rules)| (id, Decision::of_rules(of_rules))),
        );
    }

    async fn send_rule(&self, rule: &Rule, ids: Vec<String>, now: SystemTime) -> Vec<(String, Decision)> {
        let images = match self.images.of_rule(rule, now).await {
            Ok(images) if images.is_empty() => {
                let message = format!("rule {} names no image that exists", rule.name);
                return of_all(ids, &Decision::dropped(Reason::NoImages, message));
            }
            Ok(images) => images,
            Err(cause) => {
                error!(rule = rule.name, "rule {}: {}", rule.name, report(&cause));
                return of_all(ids, &Decision::handed_back(Reason::AwsError, report(&cause)));
            }
        };
        let mut decisions = Vec::new();
        for images in images.chunks(MAX_IMAGES) {
            for ids in ids.chunks(MAX_INSTANCES) {
                decisions.extend(self.send_command(rule, images, ids.to_vec()).await);
            }
        }
        decisions
    }

    /// Sends one command to at most 50 nodes; where SSM refuses one of them, to those that are still online.
    ///
    /// SSM rejects the whole call and does not say for whom: it is asked again who is online, and where that explains
    /// nothing the nodes are halved until the refused one stands alone.
    async fn send_command(&self, rule: &Rule, images: &[Image], ids: Vec<String>) -> Vec<(String, Decision)> {
        let mut decisions = Vec::with_capacity(ids.len());
        let mut pending = vec![ids];
        while let Some(ids) = pending.pop() {
            let destination = Destination::Instances(ids.clone());
            let input = send_command_input(&self.settings, rule, Trigger::Launch, images, destination);
            match ssm::send(&self.ssm, input).await {
                Ok(command) => {
                    let sent = Sent {
                        rule: rule.name.clone(),
                        command,
                    };
                    decisions.extend(of_all(ids, &Decision::Sent { commands: vec![sent] }));
                }
                Err(SsmError::InvalidInstance(_)) => {
                    let (online, offline) = self.still_online(ids.clone()).await;
                    decisions.extend(offline);
                    match online.len() {
                        0 => {}
                        len if len < ids.len() => pending.push(online),
                        1 => {
                            let refused =
                                Decision::handed_back(Reason::Refused, "SSM refuses it although it is online");
                            decisions.extend(of_all(online, &refused));
                        }
                        len => pending.extend(online.chunks(len.div_ceil(2)).map(<[String]>::to_vec)),
                    }
                }
                Err(cause) => {
                    error!(rule = rule.name, "rule {}: {}", rule.name, report(&cause));
                    decisions.extend(of_all(ids, &Decision::handed_back(Reason::AwsError, report(&cause))));
                }
            }
        }
        decisions
    }

    async fn still_online(&self, ids: Vec<String>) -> (Vec<String>, Vec<(String, Decision)>) {
        let managed = match ssm::managed_nodes(&self.ssm, &ids).await {
            Ok(managed) => managed,
            Err(cause) => {
                error!("{}", report(&cause));
                return (
                    Vec::new(),
                    of_all(ids, &Decision::handed_back(Reason::AwsError, report(&cause))),
                );
            }
        };
        let mut online = Vec::new();
        let mut offline = Vec::new();
        for id in ids {
            match reachable(managed.get(&id)) {
                Ok(()) => online.push(id),
                Err(decision) => offline.push((id, decision)),
            }
        }
        (online, offline)
    }
}

fn reachable(node: Option<&InstanceInformation>) -> Result<(), Decision> {
    let node = node.ok_or_else(|| Decision::handed_back(Reason::NotOnline, "it has not registered with SSM yet"))?;
    if node
        .platform_type()
        .is_some_and(|platform| *platform != PlatformType::Linux)
    {
        return Err(Decision::dropped(Reason::Unsupported, "it is no Linux node"));
    }
    if !ssm::is_online(node) {
        return Err(Decision::handed_back(
            Reason::NotOnline,
            "SSM has lost the connection to it",
        ));
    }
    Ok(())
}

fn of_all(ids: Vec<String>, decision: &Decision) -> Vec<(String, Decision)> {
    ids.into_iter().map(|id| (id, decision.clone())).collect()
}

fn log(id: &str, decision: &Decision) {
    match decision {
        Decision::Sent { commands } => info!(
            instance.id = id,
            "{id}: sent {}",
            commands
                .iter()
                .map(|sent| sent.command.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Decision::HandedBack(why) => info!(
            instance.id = id,
            reason = word(&why.reason),
            "{id}: handed back: {}",
            why.message
        ),
        Decision::Dropped(why) => info!(
            instance.id = id,
            reason = word(&why.reason),
            "{id}: dropped: {}",
            why.message
        ),
    }
}

fn log_unusable(kind: &str, id: &str, why: &Why) {
    if why.reason == Reason::Malformed {
        warn!(reason = word(&why.reason), "{kind} {id} is dropped: {}", why.message);
    } else {
        info!(reason = word(&why.reason), "{kind} {id} is dropped: {}", why.message);
    }
}

#[cfg(test)]
mod tests;

//! From launched instances, and nodes that lack images still, to commands.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use aws_lambda_events::sqs::SqsBatchResponse;
use aws_sdk_ec2::types::Instance;
use aws_sdk_ssm::types::{InstanceInformation, PlatformType};
use futures_util::{StreamExt, future, stream};
use lambda_runtime::Diagnostic;
use prefetch::{
    aws,
    command::{Comment, Destination, MAX_INSTANCES, Trigger, images_of_commands},
    ecr::{Newest, NewestImages},
    image::Image,
    instance::{InstancesError, instances, launched_at},
    launch::{Claim, Launches, Went, fingerprint},
    node::NodeSelector,
    report::report,
    rows::Key,
    rule::Rule,
    sender::{Order, Refusal, Sender},
    settings::Settings,
    ssm::{self, SsmError},
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tracing::error;

use crate::{
    decision::{Decision, Reason, Sent, Why, log, log_unusable},
    instance::node_tags,
    message::{Call, Look, Message, Request, call},
};

/// How many commands of a rule are sent at once: those of hundreds of repositories, or 50 further tries, must be sent within
/// the function's 25 seconds.
const AT_ONCE: usize = 5;
/// What is left of an invocation to remember what was sent: two tries of DynamoDB, which answers in milliseconds.
const SETTLING: Duration = Duration::from_secs(3);
const SECONDS_PER_DAY: u64 = 86_400;
/// What is told of a node that was online, and is no longer.
const LOST: &str = "SSM has lost the connection to it";

/// What the function works with.
pub struct NodeLaunch {
    pub ec2: aws_sdk_ec2::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub launches: Launches,
    pub sender: Sender,
    pub images: NewestImages,
    pub settings: Settings,
    /// How often the queue delivers a message at most.
    pub max_receives: u32,
}

/// What EC2 says of the instances, by id.
type Instances = HashMap<String, Instance>;
/// The decision of each request.
type Decisions = BTreeMap<Request, Decision>;
/// What a node of the cluster is to get, and the rules by which it does.
type RequestWithRules<'a> = (Request, Vec<&'a Rule>);

/// A launch that is served now, and the commands of it that went.
struct Claimed {
    launch: Key,
    went: Went,
}

/// What is to be sent by a rule: images to the nodes of requests.
struct Due {
    comment: Comment,
    images: Vec<Image>,
    requests: Vec<Request>,
}

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
    #[error(transparent)]
    Instances(#[from] InstancesError),
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
    /// Sends launched nodes the images of their rules, others the images they lack still, and hands back those that cannot
    /// be reached yet.
    ///
    /// A batch costs one DescribeInstances, one DescribeInstanceInformation, two TransactWriteItems (more where launches come
    /// back) and one SendCommand per rule (for a further try, which is no launch and writes no row: per job and images), 50
    /// nodes and as many images as fit; this process asks ECR at most once per repository in 30 seconds.
    ///
    /// # Errors
    /// [`LaunchError`] where EC2 or SSM cannot be asked at all: every message goes back to the queue.
    pub async fn handle(&self, payload: Value) -> Result<Answer, LaunchError> {
        self.handle_at(payload, SystemTime::now())
            .await
            .inspect_err(|error| error!("{}", report(error)))
    }

    async fn handle_at(&self, payload: Value, now: SystemTime) -> Result<Answer, LaunchError> {
        match call(payload, self.max_receives) {
            Call::Event(event, Err(why)) => {
                log_unusable("event", &event, &why);
                let decision = Decision::Dropped(why);
                Ok(Answer::Event {
                    instance: None,
                    decision,
                })
            }
            Call::Event(_, Ok(request)) => {
                let requests = [(request.clone(), Look::Early)].into();
                let mut decisions = self.decide(&requests, now).await?;
                let decision = decisions.remove(&request).expect("each request is decided of");
                Ok(Answer::Event {
                    instance: Some(request.node().to_owned()),
                    decision,
                })
            }
            Call::Batch(messages) => self.handle_batch(messages, now).await.map(Answer::Batch),
        }
    }

    async fn handle_batch(&self, messages: Vec<Message>, now: SystemTime) -> Result<SqsBatchResponse, LaunchError> {
        let mut messages_of: BTreeMap<Request, Vec<(String, Look)>> = BTreeMap::new();
        for message in messages {
            match message.asked {
                Ok(request) => {
                    let messages = messages_of.entry(request).or_default();
                    messages.push((message.id, message.look));
                }
                Err(why) => log_unusable("message", &message.id, &why),
            }
        }
        // What several messages ask for is looked at again as long as one of them comes again.
        let requests: BTreeMap<Request, Look> = messages_of
            .iter()
            .filter_map(|(request, messages)| Some((request.clone(), messages.iter().map(|(_, look)| *look).min()?)))
            .collect();
        let mut response = SqsBatchResponse::default();
        for (request, decision) in self.decide(&requests, now).await? {
            if let Decision::HandedBack(_) = decision {
                // One that does not come again is no dead letter as long as another asks for the same.
                messages_of
                    .remove(&request)
                    .into_iter()
                    .flatten()
                    .filter(|(_, look)| *look < Look::Last || requests[&request] == Look::Last)
                    .for_each(|(message, _)| response.add_failure(message));
            }
        }
        Ok(response)
    }

    /// Decides of each of these requests, which have with them how late it is, and sends what is to be sent.
    async fn decide(&self, requests: &BTreeMap<Request, Look>, now: SystemTime) -> Result<Decisions, LaunchError> {
        let mut decisions = Decisions::new();
        let instances = instances(&self.ec2, &nodes(requests.keys())).await?;
        let looks = requests;
        let requests = self.requests_of_nodes(looks, &instances, &mut decisions);
        let requests = self.requests_of_online_nodes(requests, &mut decisions).await?;
        let mut claimed = self.claim(&requests, looks, &instances, now, &mut decisions).await;
        let requests = requests
            .into_iter()
            .filter(|(request, _)| !decisions.contains_key(request));
        let sending = self.send_images(requests.collect(), now, &mut claimed, &mut decisions);
        aws::sparing(SETTLING, sending).await;
        self.settle(claimed, &decisions, now).await;
        for (request, decision) in &decisions {
            log(request.node(), decision);
        }
        Ok(decisions)
    }

    /// Keeps the requests for instances that are running nodes of the cluster, each with its rules.
    fn requests_of_nodes(
        &self,
        requests: &BTreeMap<Request, Look>,
        instances: &Instances,
        decisions: &mut Decisions,
    ) -> Vec<RequestWithRules<'_>> {
        let mut kept = Vec::with_capacity(requests.len());
        for (request, look) in requests {
            match self.rules_of(request, instances.get(request.node()), *look) {
                Ok(rules) => kept.push((request.clone(), rules)),
                Err(decision) => {
                    decisions.insert(request.clone(), decision);
                }
            }
        }
        kept
    }

    fn rules_of(&self, request: &Request, instance: Option<&Instance>, look: Look) -> Result<Vec<&Rule>, Decision> {
        let instance = instance.ok_or_else(|| Decision::dropped(Reason::Gone, "EC2 knows no such instance"))?;
        let (tags, joins) = node_tags(instance, &self.settings.cluster, look)?;
        let applies = |rule: &&Rule| match request {
            Request::Newest(_) => NodeSelector::new(&self.settings.cluster, rule).matches(&tags),
            Request::Again(retry) => retry.rule == rule.name,
        };
        let rules: Vec<&Rule> = self.settings.rules.iter().filter(applies).collect();
        if rules.is_empty() {
            return Err(match request {
                // A controller may put on the tag of a rule's `nodes` until then. Where only one of two rules wants the node
                // by now, it is served by that one; the other's images come with the reconcile.
                Request::Newest(_) if joins && look == Look::Early => {
                    let message = "no rule wants its tags, and it has not joined the cluster yet";
                    Decision::handed_back(Reason::NoRule, message)
                }
                Request::Newest(_) => Decision::dropped(Reason::NoRule, "no rule wants its tags"),
                Request::Again(retry) => {
                    Decision::dropped(Reason::NoRule, format!("the rule {} is no more", retry.rule))
                }
            });
        }
        Ok(rules)
    }

    /// Keeps the requests for nodes that SSM can reach now.
    async fn requests_of_online_nodes<'a>(
        &self,
        requests: Vec<RequestWithRules<'a>>,
        decisions: &mut Decisions,
    ) -> Result<Vec<RequestWithRules<'a>>, LaunchError> {
        let ids = nodes(requests.iter().map(|(request, _)| request));
        let managed = ssm::managed_nodes(&self.ssm, &ids).await.map_err(LaunchError::Nodes)?;
        Ok(requests
            .into_iter()
            .filter(|(request, _)| match reachable(managed.get(request.node())) {
                Ok(()) => true,
                Err(decision) => {
                    decisions.insert(request.clone(), decision);
                    false
                }
            })
            .collect())
    }

    /// Claims the launches among the requests, and decides of those that another message has served, or has served now.
    async fn claim(
        &self,
        requests: &[RequestWithRules<'_>],
        looks: &BTreeMap<Request, Look>,
        instances: &Instances,
        now: SystemTime,
        decisions: &mut Decisions,
    ) -> BTreeMap<Request, Claimed> {
        let launches = requests.iter().filter_map(|(request, _)| match request {
            Request::Newest(node) => Some((Key::launch(node, launched_at(instances.get(node)?)), request.clone())),
            Request::Again(_) => None,
        });
        let mut launches: BTreeMap<Key, Request> = launches.collect();
        let keys: Vec<Key> = launches.keys().cloned().collect();
        let mut claimed = BTreeMap::new();
        for (launch, claim) in self.launches.claim(&keys, now.into()).await {
            let Some(request) = launches.remove(&launch) else {
                continue;
            };
            let decision = match claim {
                Claim::Ours(went) => {
                    claimed.insert(request, Claimed { launch, went });
                    continue;
                }
                Claim::UnderWay => {
                    let why = Why::new(Reason::UnderWay, "another message of its launch is being served");
                    // The other comes back by itself where it fails, and this one would be a dead letter.
                    if looks[&request] == Look::Last {
                        Decision::Dropped(why)
                    } else {
                        Decision::HandedBack(why)
                    }
                }
                Claim::Sent(commands) => {
                    let message = format!("another message of its launch had it sent {}", commands.join(", "));
                    Decision::dropped(Reason::AlreadySent, message)
                }
            };
            decisions.insert(request, decision);
        }
        claimed
    }

    /// Remembers what was sent for launches, and lets those go for which that is not all.
    async fn settle(&self, claimed: BTreeMap<Request, Claimed>, decisions: &Decisions, now: SystemTime) {
        let (mut sent, mut unsent) = (Vec::new(), Vec::new());
        for (request, Claimed { launch, went }) in claimed {
            match &decisions[&request] {
                Decision::Sent { .. } | Decision::Observed { .. } => sent.push((launch, went.commands())),
                Decision::HandedBack(_) | Decision::Dropped(_) => unsent.push((launch, went)),
            }
        }
        let (sent, unsent) = (
            self.launches.sent(&sent, now.into()),
            self.launches.release(&unsent, now.into()),
        );
        future::join(sent, unsent).await;
    }

    async fn send_images(
        &self,
        requests: Vec<RequestWithRules<'_>>,
        now: SystemTime,
        claimed: &mut BTreeMap<Request, Claimed>,
        decisions: &mut Decisions,
    ) {
        let mut of_rules: BTreeMap<Request, Vec<Decision>> = BTreeMap::new();
        for rule in &self.settings.rules {
            let of_rule = requests
                .iter()
                .filter(|(_, rules)| rules.iter().any(|r| r.name == rule.name))
                .map(|(request, _)| request.clone());
            for (request, decision) in self.send_rule(rule, of_rule.collect(), now, claimed).await {
                of_rules.entry(request).or_default().push(decision);
            }
        }
        decisions.extend(
            of_rules
                .into_iter()
                .map(|(request, of_rules)| (request, Decision::of_rules(of_rules))),
        );
    }

    /// Sends launched nodes the rule's newest images, and others those they lack still, nodes that lack the same together.
    async fn send_rule(
        &self,
        rule: &Rule,
        requests: Vec<Request>,
        now: SystemTime,
        claimed: &mut BTreeMap<Request, Claimed>,
    ) -> Vec<(Request, Decision)> {
        let mut launched = Vec::new();
        let mut again: BTreeMap<(Comment, Vec<Image>), Vec<Request>> = BTreeMap::new();
        for request in requests {
            match &request {
                Request::Newest(_) => launched.push(request),
                Request::Again(retry) => {
                    let same = (retry.comment(), retry.images.clone());
                    again.entry(same).or_default().push(request);
                }
            }
        }
        let (mut due, decided) = self.newest_due(rule, launched, now, claimed).await;
        due.extend(again.into_iter().map(|((comment, images), requests)| Due {
            comment,
            images,
            requests,
        }));
        let mut decisions = self.send_commands(rule, &due, now, claimed).await;
        decisions.extend(decided);
        decisions
    }

    /// Tells what of the rule's newest images is to be sent to launched nodes, and what is decided of them whatever is sent.
    async fn newest_due(
        &self,
        rule: &Rule,
        requests: Vec<Request>,
        now: SystemTime,
        claimed: &BTreeMap<Request, Claimed>,
    ) -> (Vec<Due>, Vec<(Request, Decision)>) {
        if requests.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let Newest { images, missing } = match self.images.known_of_rule(rule, now).await {
            Ok(newest) => newest,
            Err(cause) => Newest {
                images: Vec::new(),
                missing: Some(cause),
            },
        };
        let missing = missing.map(|cause| {
            error!(rule = rule.name, "rule {}: {}", rule.name, report(&cause));
            let reason = if images.is_empty() {
                Reason::AwsError
            } else {
                Reason::Incomplete
            };
            of_all(requests.clone(), &Decision::handed_back(reason, report(&cause)))
        });
        if images.is_empty() {
            let decided = missing.unwrap_or_else(|| {
                let message = format!("rule {} names no image that exists", rule.name);
                of_all(requests, &Decision::dropped(Reason::NoImages, message))
            });
            return (Vec::new(), decided);
        }
        // They are handed back for the images that are missing, whatever is sent.
        let mut decided = missing.unwrap_or_default();
        let mut of_images: BTreeMap<Vec<Image>, Vec<Request>> = BTreeMap::new();
        for request in requests {
            let went = claimed.get(&request).map(|claimed| &claimed.went);
            let went = went.filter(|went| !went.is_empty());
            let lacking = went.map_or_else(|| images.clone(), |went| lacking(rule, &images, went));
            match went {
                Some(went) if lacking.is_empty() => {
                    let commands = went.commands_of_rule(&rule.name).map(str::to_owned);
                    decided.push((request, self.sent(rule, commands)));
                }
                _ => of_images.entry(lacking).or_default().push(request),
            }
        }
        let due = of_images.into_iter().map(|(images, requests)| Due {
            comment: Comment::first(Trigger::Launch, rule),
            images,
            requests,
        });
        (due.collect(), decided)
    }

    /// Sends one command for each 50 nodes and as many images as fit, and notes which went for launches.
    async fn send_commands(
        &self,
        rule: &Rule,
        due: &[Due],
        now: SystemTime,
        claimed: &mut BTreeMap<Request, Claimed>,
    ) -> Vec<(Request, Decision)> {
        let commands = due.iter().flat_map(|due| {
            images_of_commands(&due.images).flat_map(move |images| {
                let groups = due.requests.chunks(MAX_INSTANCES);
                groups.map(move |requests| (&due.comment, images, requests))
            })
        });
        let mut sending = stream::iter(commands)
            .map(async |(comment, images, requests)| {
                let decided = self.send_command(rule, comment, images, requests.to_vec(), now).await;
                (images, decided)
            })
            .buffered(AT_ONCE);
        let mut decisions = Vec::new();
        while let Some((images, decided)) = sending.next().await {
            let images: Vec<String> = images.iter().map(fingerprint).collect();
            for (request, decision) in &decided {
                if let (Some(claimed), Decision::Sent { commands } | Decision::Observed { commands }) =
                    (claimed.get_mut(request), decision)
                {
                    for sent in commands {
                        claimed.went.add(&sent.command, &rule.name, &images);
                    }
                }
            }
            decisions.extend(decided);
        }
        decisions
    }

    /// Sends one command to at most 50 nodes; where one of them is refused, to the others.
    async fn send_command(
        &self,
        rule: &Rule,
        comment: &Comment,
        images: &[Image],
        requests: Vec<Request>,
        now: SystemTime,
    ) -> Vec<(Request, Decision)> {
        let occasion = comment.job.clone().unwrap_or_else(|| day(now));
        let order = Order {
            rule,
            comment,
            images,
            destination: Destination::Instances(nodes(&requests)),
            occasion: &occasion,
        };
        let delivery = self.sender.deliver(&self.settings, order, now.into()).await;
        let mut of_nodes: BTreeMap<String, Decision> = BTreeMap::new();
        for (command, nodes) in delivery.sent {
            let sent = self.sent(rule, [command]);
            of_nodes.extend(nodes.ids().iter().map(|node| (node.clone(), sent.clone())));
        }
        for (node, refusal) in delivery.refused {
            of_nodes.insert(node, refused(refusal));
        }
        for (nodes, cause) in delivery.failed {
            error!(rule = rule.name, "rule {}: {}", rule.name, report(&cause));
            let failed = Decision::handed_back(Reason::AwsError, report(&cause));
            of_nodes.extend(nodes.ids().iter().map(|node| (node.clone(), failed.clone())));
        }
        requests
            .into_iter()
            .map(|request| {
                let decision = of_nodes[request.node()].clone();
                (request, decision)
            })
            .collect()
    }

    /// Decides that a node was sent the images of a rule by these commands, or would have been.
    fn sent(&self, rule: &Rule, commands: impl IntoIterator<Item = String>) -> Decision {
        let commands = commands.into_iter().map(|command| Sent {
            rule: rule.name.clone(),
            command,
        });
        let commands = commands.collect();
        if self.sender.observes() {
            Decision::Observed { commands }
        } else {
            Decision::Sent { commands }
        }
    }
}

/// Gives the images that did not go to a node by the rule.
fn lacking(rule: &Rule, images: &[Image], went: &Went) -> Vec<Image> {
    let went = went.images_of_rule(&rule.name);
    let lacking = images.iter().filter(|image| !went.contains(&*fingerprint(image)));
    lacking.cloned().collect()
}

/// Decides of a node that got no command while others of its batch did.
fn refused(refusal: Refusal) -> Decision {
    match refusal {
        Refusal::AccessDenied => Decision::handed_back(
            Reason::AccessDenied,
            "IAM does not permit the command on it: its tags, or a policy, deny it",
        ),
        Refusal::NotOnline => Decision::handed_back(Reason::NotOnline, LOST),
        Refusal::Invalid => Decision::handed_back(Reason::Refused, "SSM refuses it although it is online"),
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
        return Err(Decision::handed_back(Reason::NotOnline, LOST));
    }
    Ok(())
}

/// The occasion of a launch: the messages' own ids are not told apart, and a node that is started again on another day is
/// another job where the stack observes.
fn day(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("day {}", seconds / SECONDS_PER_DAY)
}

/// The nodes that the requests are for, each once.
fn nodes<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Vec<String> {
    let nodes: BTreeSet<&str> = requests.into_iter().map(Request::node).collect();
    nodes.into_iter().map(str::to_owned).collect()
}

fn of_all(requests: Vec<Request>, decision: &Decision) -> Vec<(Request, Decision)> {
    requests
        .into_iter()
        .map(|request| (request, decision.clone()))
        .collect()
}

#[cfg(test)]
mod tests;

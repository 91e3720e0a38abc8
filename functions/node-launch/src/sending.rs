//! The commands that bring images to nodes.

use std::{collections::BTreeMap, time::SystemTime};

use futures_util::{StreamExt, stream};
use prefetch::{
    command::{Comment, Destination, MAX_INSTANCES, images_of_commands},
    error_text::error_text,
    image::Image,
    launch::fingerprint,
    reachability::Unreachable,
    rule::Rule,
    sender::{Delivery, Order, Refusal},
};
use tracing::error;

use crate::{
    claims::Claimed,
    decision::{Decision, DecisionReason},
    message::Request,
    newest::Due,
    node_launch::NodeLaunch,
    requests::{Decisions, RequestWithRules, nodes},
};

/// Bounds the commands of a rule that are sent at once: those of hundreds of repositories, or 50 retries, must be sent within
/// the function's 25 seconds.
const AT_ONCE: usize = 5;
const SECONDS_PER_DAY: u64 = 86_400;

impl NodeLaunch {
    /// Sends each request the images of its rules, and decides of it.
    pub async fn send_images(
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
        let mut retries: BTreeMap<(Comment, Vec<Image>), Vec<Request>> = BTreeMap::new();
        for request in requests {
            match &request {
                Request::Newest(_) => launched.push(request),
                Request::Retry(retry) => {
                    let same = (retry.comment(), retry.images.clone());
                    retries.entry(same).or_default().push(request);
                }
            }
        }
        let (mut due, decided) = self.newest_due(rule, launched, now, claimed).await;
        due.extend(retries.into_iter().map(|((comment, images), requests)| Due {
            comment,
            images,
            requests,
        }));
        let mut decisions = self.send_commands(rule, &due, now, claimed).await;
        decisions.extend(decided);
        decisions
    }

    /// Sends one command for each 50 nodes and as many images as fit, and notes which went for launches.
    pub async fn send_commands(
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
                (comment.trigger, images, decided)
            })
            .buffered(AT_ONCE);
        let mut decisions = Vec::new();
        while let Some((trigger, images, decided)) = sending.next().await {
            let images: Vec<String> = images.iter().map(fingerprint).collect();
            for (request, decision) in &decided {
                if let (Some(claimed), Decision::Sent { commands } | Decision::Observed { commands }) =
                    (claimed.get_mut(request), decision)
                {
                    for sent in commands {
                        claimed.went.add(&sent.command, (&rule.name, trigger), &images);
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
        let of_nodes = self.of_delivery(rule, delivery);
        requests
            .into_iter()
            .map(|request| {
                let decision = of_nodes[request.node()].clone();
                (request, decision)
            })
            .collect()
    }

    /// Decides of each node of a command by what became of it.
    fn of_delivery(&self, rule: &Rule, delivery: Delivery) -> BTreeMap<String, Decision> {
        let mut of_nodes: BTreeMap<String, Decision> = BTreeMap::new();
        for (command, nodes) in delivery.sent {
            let sent = self.sent(rule, [command]);
            of_nodes.extend(nodes.ids().iter().map(|node| (node.clone(), sent.clone())));
        }
        for (node, refusal) in delivery.refused {
            of_nodes.insert(node, refused(refusal));
        }
        for (nodes, cause) in delivery.failed {
            error!(rule = rule.name, "rule {}: {}", rule.name, error_text(&cause));
            let failed = Decision::handed_back(DecisionReason::AwsError, error_text(&cause));
            of_nodes.extend(nodes.ids().iter().map(|node| (node.clone(), failed.clone())));
        }
        of_nodes
    }
}

/// Decides of a node that got no command while others of its batch did.
fn refused(refusal: Refusal) -> Decision {
    match refusal {
        Refusal::AccessDenied => Decision::handed_back(
            DecisionReason::AccessDenied,
            "IAM does not permit the command on it: its tags, or a policy, deny it",
        ),
        Refusal::NotOnline => Decision::handed_back(DecisionReason::NotOnline, Unreachable::ConnectionLost.to_string()),
        Refusal::Invalid => Decision::handed_back(DecisionReason::Refused, "SSM refuses it although it is online"),
    }
}

/// Names the occasion of a launch: the messages' own ids are not told apart, and a node that is started again on another day is
/// another job where the stack observes.
fn day(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("day {}", seconds / SECONDS_PER_DAY)
}

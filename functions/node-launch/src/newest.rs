//! The images of a rule that are to be sent to launched nodes: what only their neighbours run, and the newest.

use std::{collections::BTreeMap, time::SystemTime};

use prefetch::{
    command::{Comment, Trigger},
    ecr::{ImagesError, Newest},
    error_text::error_text,
    image::Image,
    launch::{SentParts, fingerprint},
    rule::Rule,
    rule_images::RuleUse,
};
use tracing::{error, warn};

use crate::{
    claims::Claimed,
    decision::{Decision, DecisionReason},
    message::Request,
    node_launch::NodeLaunch,
};

/// Images that are to be sent to the nodes of requests.
pub struct Due {
    pub comment: Comment,
    pub images: Vec<Image>,
    pub requests: Vec<Request>,
}

impl NodeLaunch {
    /// Tells what of the rule's images is to be sent to launched nodes, and what is decided of them whatever is sent. Where it
    /// cannot be told what nodes run, they get what they would where nothing is known of it.
    ///
    /// Puts what only neighbours run into commands of its own, before the others: a node that cannot pull it lacks nothing.
    pub async fn newest_due(
        &self,
        rule: &Rule,
        requests: Vec<Request>,
        now: SystemTime,
        claimed: &BTreeMap<Request, Claimed>,
    ) -> (Vec<Due>, Vec<(Request, Decision)>) {
        if requests.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let used = self.images.known_use(rule, now).await.unwrap_or_else(|cause| {
            warn!(rule = rule.name, "rule {}: {}", rule.name, error_text(&cause));
            RuleUse::default()
        });
        let (neighbours, Newest { images, missing }) = self.images.of_new_node_apart(rule, &used, now).await;
        let has_none = neighbours.is_empty() && images.is_empty();
        let missing = missing.map(|cause| of_missing(rule, has_none, &requests, &cause));
        if has_none {
            let decided = missing.unwrap_or_else(|| {
                let message = format!("rule {} names no image that {}", rule.name, existing(rule, &used));
                of_all(requests, &Decision::dropped(DecisionReason::NoImages, message))
            });
            return (Vec::new(), decided);
        }
        // They are handed back for the images that are missing, whatever is sent.
        let mut decided = missing.unwrap_or_default();
        let lists = [(Trigger::Neighbours, neighbours), (Trigger::Launch, images)];
        let due = self.due(rule, &lists, requests, claimed, &mut decided);
        (due, decided)
    }

    /// Groups nodes by the images that they lack of each list, that of the first list first, and decides of those that lack none.
    fn due(
        &self,
        rule: &Rule,
        lists: &[(Trigger, Vec<Image>)],
        requests: Vec<Request>,
        claimed: &BTreeMap<Request, Claimed>,
        decided: &mut Vec<(Request, Decision)>,
    ) -> Vec<Due> {
        let mut of_images: BTreeMap<(usize, Vec<Image>), Vec<Request>> = BTreeMap::new();
        for request in requests {
            let went = claimed.get(&request).map(|claimed| &claimed.went);
            let of_lists = lists.iter().enumerate();
            let lacking = of_lists.map(|(place, list)| (place, lacking(rule, list, went)));
            let lacking: Vec<(usize, Vec<Image>)> = lacking.filter(|(_, images)| !images.is_empty()).collect();
            if let Some(went) = went.filter(|_| lacking.is_empty()) {
                let commands = went.commands_of_rule(&rule.name).map(str::to_owned);
                decided.push((request.clone(), self.sent(rule, commands)));
            }
            for of_list in lacking {
                of_images.entry(of_list).or_default().push(request.clone());
            }
        }
        let due = of_images.into_iter().map(|((place, images), requests)| Due {
            comment: Comment::first(lists[place].0, rule),
            images,
            requests,
        });
        due.collect()
    }
}

/// Decides of launched nodes where ECR names not all of their images.
fn of_missing(rule: &Rule, has_none: bool, requests: &[Request], cause: &ImagesError) -> Vec<(Request, Decision)> {
    error!(rule = rule.name, "rule {}: {}", rule.name, error_text(cause));
    let reason = if has_none {
        DecisionReason::AwsError
    } else {
        DecisionReason::Incomplete
    };
    of_all(requests.to_vec(), &Decision::handed_back(reason, error_text(cause)))
}

/// Gives the images of a list that did not go to a node by the rule. One that seemed to be run by neighbours alone while ECR did
/// not answer, and went as best effort, goes once more as one of the rule's.
fn lacking(rule: &Rule, (trigger, images): &(Trigger, Vec<Image>), went: Option<&SentParts>) -> Vec<Image> {
    let went = went
        .map(|went| went.images_of_rule(&rule.name, *trigger))
        .unwrap_or_default();
    let lacking = images.iter().filter(|image| !went.contains(&*fingerprint(image)));
    lacking.cloned().collect()
}

/// Says in words which images a rule may name.
fn existing(rule: &Rule, used: &RuleUse) -> &'static str {
    if rule.used && used.is_known() {
        "its nodes use"
    } else {
        "exists"
    }
}

/// Decides the same of all requests.
fn of_all(requests: Vec<Request>, decision: &Decision) -> Vec<(Request, Decision)> {
    requests
        .into_iter()
        .map(|request| (request, decision.clone()))
        .collect()
}

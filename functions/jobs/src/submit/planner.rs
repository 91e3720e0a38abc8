//! Describes what a job comes to: everything is decided before anything is sent.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use prefetch::{
    command::images_of_commands,
    ecr::Newest,
    fields::FieldError,
    image::Image,
    node::NodeSelector,
    resolve::{LookedUp, look_up},
    rule::Rule,
    rule_images::RuleImages,
    tags::{Nodes, ResolvedTags, TagResolver},
};
use serde_json::json;

use crate::{
    http::problem::Problem,
    nodes::reachability::{RefusedNode, reachable},
    settings::Settings,
    submit::{
        plan::{Batch, Plan, ResolvedImage},
        request::{JobRequest, NodeSelection},
        rules::{RuleSelection, select_rules},
    },
};

/// Limits how many commands one request sends at most: one after the other they must be sent before API Gateway gives up.
const MAX_COMMANDS: usize = 60;
/// Limits how many one with a key sends, which goes on where it was left: as a schedule's does at Lambda's next try.
const MAX_COMMANDS_WITH_KEY: usize = 200;
/// Sets how long ECR is asked for a rule's newest images, so that there is time left to send them in.
const LISTING: Duration = Duration::from_secs(8);
/// Limits for how many nodes a problem tells why they get nothing.
const MAX_TOLD: usize = 20;

/// Holds what a job is planned by.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    pub ecr: &'a aws_sdk_ecr::Client,
    pub images: &'a RuleImages,
    pub ec2: &'a aws_sdk_ec2::Client,
    pub ssm: &'a aws_sdk_ssm::Client,
    /// Asks nodes what tags of other registries are.
    pub tags: &'a TagResolver,
    pub settings: &'a Settings,
}

impl Planner<'_> {
    /// Decides what is to be sent.
    ///
    /// # Errors
    /// A 400 where something of the request is not accepted, or too much, a 503 where AWS cannot be asked.
    pub async fn plan(&self, request: &JobRequest, has_key: bool, now: DateTime<Utc>) -> Result<Plan, Problem> {
        // What no rule takes is refused before anybody is asked anything.
        select_rules(request, self.settings)?;
        let looked_up = look_up(self.ecr, &request.images).await?;
        let known = request.with_images(looked_up.images.clone());
        let rules = select_rules(&known, self.settings)?;
        let (nodes, refused) = self.nodes(request.nodes.as_ref()).await?;
        let tags = self.resolved_tags(&looked_up, &rules, nodes.as_ref()).await?;
        let images = looked_up.resolve(&self.settings.registry, &tags)?;
        let newest_images = self.images.anew(LISTING);
        let mut batches = Vec::with_capacity(rules.len());
        for RuleSelection { rule, images: places } in rules {
            let of_rule = if request.images.is_empty() {
                newest(&newest_images, rule, now).await?
            } else {
                places.iter().map(|place| images[*place].clone()).collect()
            };
            batches.extend(self.batches(rule, of_rule, nodes.as_ref()));
        }
        let references = request.images.iter().map(|image| image.reference.clone());
        let images = references
            .zip(images)
            .map(|(reference, image)| ResolvedImage { reference, image });
        let plan = Plan {
            images: images.collect(),
            refused,
            batches,
        };
        check_size(plan.commands().len(), has_key)?;
        Ok(plan)
    }

    /// Tells which of the nodes that a request selects are sent something, and which are not.
    async fn nodes(
        &self,
        selection: Option<&NodeSelection>,
    ) -> Result<(Option<NodeSelection>, Vec<RefusedNode>), Problem> {
        let Some(NodeSelection::Ids(ids)) = selection else {
            return Ok((selection.cloned(), Vec::new()));
        };
        let cluster = &self.settings.shared.cluster;
        let (online, refused) = reachable(self.ec2, self.ssm, cluster, ids).await?;
        if online.is_empty() {
            return Err(none_reachable(&refused));
        }
        Ok((Some(NodeSelection::Ids(online)), refused))
    }

    /// Has nodes that get images tell what tags of other registries are.
    async fn resolved_tags(
        &self,
        images: &LookedUp,
        rules: &[RuleSelection<'_>],
        nodes: Option<&NodeSelection>,
    ) -> Result<ResolvedTags, Problem> {
        let unresolved = images.unresolved_tags();
        if let Some(NodeSelection::Ids(ids)) = nodes {
            return Ok(self.tags.resolve(&unresolved, Nodes::Ids(ids)).await?);
        }
        let cluster = &self.settings.shared.cluster;
        let selectors = match nodes {
            Some(NodeSelection::Tags(tags)) => vec![NodeSelector::of_tags(cluster, tags.clone())],
            _ => rules
                .iter()
                .map(|selection| NodeSelector::new(cluster, selection.rule))
                .collect(),
        };
        Ok(self.tags.resolve(&unresolved, Nodes::Selected(&selectors)).await?)
    }

    /// Parts a rule's images, each once, into as many as one command carries.
    fn batches(&self, rule: &Rule, images: Vec<Image>, nodes: Option<&NodeSelection>) -> Vec<Batch> {
        let mut seen = HashSet::new();
        let images: Vec<Image> = images.into_iter().filter(|image| seen.insert(image.clone())).collect();
        let batches = images_of_commands(&images).map(|images| Batch {
            rule: rule.name.clone(),
            images: images.to_vec(),
            nodes: self.destination(rule, nodes),
        });
        batches.collect()
    }

    fn destination(&self, rule: &Rule, nodes: Option<&NodeSelection>) -> NodeSelection {
        let cluster = &self.settings.shared.cluster;
        let selector = match nodes {
            Some(ids @ NodeSelection::Ids(_)) => return ids.clone(),
            Some(NodeSelection::Tags(tags)) => NodeSelector::of_tags(cluster, tags.clone()),
            None => NodeSelector::new(cluster, rule),
        };
        NodeSelection::Tags(selector.tags().clone())
    }
}

fn check_size(commands: usize, has_key: bool) -> Result<(), Problem> {
    let most = if has_key { MAX_COMMANDS_WITH_KEY } else { MAX_COMMANDS };
    if commands <= most {
        return Ok(());
    }
    let detail = format!(
        "it takes {commands} commands, and one request sends at most {MAX_COMMANDS}, with an Idempotency-Key {MAX_COMMANDS_WITH_KEY}: ask for fewer images or nodes at once"
    );
    Err(Problem::bad_request(detail))
}

async fn newest(images: &RuleImages, rule: &Rule, now: DateTime<Utc>) -> Result<Vec<Image>, Problem> {
    let now = SystemTime::from(now);
    let used = images.known_use(rule, now).await;
    let used = used.map_err(Problem::unavailable)?;
    let images = images.newest(rule, &used, now).await.and_then(Newest::whole);
    let images = images.map_err(Problem::unavailable)?;
    if images.is_empty() {
        let accepted = if rule.used && used.is_known() {
            "a rule that names an image which its nodes use; images that a job names itself come in any case"
        } else {
            "a rule that names an image that exists"
        };
        return Err(Problem::field("rule", Some(json!(rule.name)), accepted));
    }
    Ok(images)
}

/// Refuses a request that names no node that can be sent anything, and tells why of some of them.
pub fn none_reachable(refused: &[RefusedNode]) -> Problem {
    let error = |refused: &RefusedNode| {
        let accepted = format!("a running node of the cluster that SSM reaches: {}", refused.message);
        FieldError::new("nodes.ids", Some(json!(refused.id)), accepted)
    };
    Problem::fields(refused.iter().take(MAX_TOLD).map(error).collect())
}

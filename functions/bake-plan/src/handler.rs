//! From an execution's input to the plan of its bakes.

use std::{cmp::Reverse, collections::BTreeSet, time::SystemTime};

use futures_util::future::try_join;
use prefetch::{
    bake::{Architecture, input::Input},
    ecr::Registries,
    error_text::error_text,
    image::Image,
    node::NodeSelector,
    rule::Rule,
    rule_images::RuleImages,
    tags::TagResolver,
};
use serde_json::{Value, json};
use tracing::error;

use crate::{
    bake::{Bake, Plan, too_many},
    chosen::chosen,
    contents::Contents,
    error::{AwsError, PlanError},
    input::Request,
    network::network_interface,
    nodes::{self, Node},
    settings::Settings,
    wanted::{self, Wanted},
};

/// Bounds the bytes of a plan: a state of Step Functions passes on 256 KiB (quotas), and more is added to it.
const MAX_PLAN: usize = 200_000;

/// Holds what the function works with.
pub struct BakePlan {
    pub ec2: aws_sdk_ec2::Client,
    pub ecr: aws_sdk_ecr::Client,
    /// Asks nodes what tags of other registries are.
    pub tags: TagResolver,
    pub registries: Registries,
    pub images: RuleImages,
    pub settings: Settings,
}

impl BakePlan {
    /// Plans the bakes that an execution asks for; nothing is changed by it.
    ///
    /// Costs, beside what the images take (see [`prefetch::ecr::NewestImages::known_of_rule`], [`RuleImages::known_use`] and
    /// [`look_up`](prefetch::resolve::look_up) and [`TagResolver::resolve`]), one DescribeInstances for each 1,000 nodes
    /// unless both architectures and subnet are named, one DescribeSubnets unless the subnet is, and what [`Contents::read`]
    /// takes.
    ///
    /// # Errors
    /// [`PlanError`] where the input is not accepted, where there is nothing to bake, and where AWS cannot be asked.
    pub async fn handle(&self, payload: Value) -> Result<Plan, PlanError> {
        self.handle_at(payload, SystemTime::now())
            .await
            .inspect_err(|error| error!("{}", error_text(error)))
    }

    async fn handle_at(&self, payload: Value, now: SystemTime) -> Result<Plan, PlanError> {
        let Request { input, cluster } = Request::parse(payload, &self.settings)?;
        let rules = self.rules(&input);
        let nodes = self.nodes(&input, &rules).await?;
        let architectures = architectures(&input, &rules, &nodes)?;
        input.check_for(&architectures)?;
        let (network_interface, wanted) = try_join(
            network_interface(&self.ec2, &input, &cluster, &nodes),
            self.wanted(&input, &rules, now),
        )
        .await?;
        let contents = Contents::read(&self.registries, &wanted, &architectures).await?;
        let mut least_common = least_common(&wanted).into_iter();
        let mut left_out = Vec::new();
        loop {
            let bakes = chosen(&wanted, &contents, &architectures, &left_out)?.into_iter();
            let bakes = bakes.map(|(architecture, chosen)| {
                let interface = network_interface.clone();
                Bake::new(architecture, chosen, &input, &cluster, interface, &self.settings)
            });
            let plan = bakes
                .collect::<Result<_, _>>()
                .and_then(|bakes| checked(bakes, &input, wanted.len()));
            match (plan, least_common.next()) {
                (Err(PlanError::TooMany(_)), Some(image)) => left_out.push(image),
                (plan, _) => return plan,
            }
        }
    }

    /// Returns the rules whose images, and whose nodes' architectures, are meant.
    fn rules(&self, input: &Input) -> Vec<&Rule> {
        let is_meant = |rule: &&Rule| input.rules.as_ref().is_none_or(|names| names.contains(&rule.name));
        self.settings.shared.rules.iter().filter(is_meant).collect()
    }

    /// Names the images to bake: those of the input, else the rules'; each once.
    async fn wanted(&self, input: &Input, rules: &[&Rule], now: SystemTime) -> Result<Vec<Wanted>, PlanError> {
        let registries = (self.settings.registry.as_str(), &self.registries);
        if input.images.is_empty() {
            wanted::of_rules(&self.images, registries, rules, now).await
        } else {
            let cluster = &self.settings.shared.cluster;
            let selectors: Vec<NodeSelector> = rules.iter().map(|rule| NodeSelector::new(cluster, rule)).collect();
            wanted::named(&self.ecr, (&self.tags, &selectors), registries, input).await
        }
    }

    /// Lists the running nodes of the cluster, where the input does not say all that they would tell.
    async fn nodes(&self, input: &Input, rules: &[&Rule]) -> Result<Vec<Node>, AwsError> {
        if input.architectures.is_some() && input.subnet.is_some() {
            return Ok(Vec::new());
        }
        nodes::running(&self.ec2, &self.settings.shared.cluster, rules).await
    }
}

/// Names the architectures to bake for: those of the input, else those of the running nodes that the rules select.
fn architectures(input: &Input, rules: &[&Rule], nodes: &[Node]) -> Result<Vec<Architecture>, PlanError> {
    if let Some(architectures) = &input.architectures {
        return Ok(architectures.clone());
    }
    let architectures: BTreeSet<Architecture> = nodes.iter().filter_map(|node| node.architecture).collect();
    if architectures.is_empty() {
        let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        return Err(PlanError::NoArchitecture(names.join(", ")));
    }
    Ok(architectures.into_iter().collect())
}

/// Lists the images that are baked because nodes run them, that of the fewest nodes first: where not all have room, a bake does
/// without.
fn least_common(wanted: &[Wanted]) -> Vec<&Image> {
    let running = wanted
        .iter()
        .filter_map(|wanted| Some((wanted.running_nodes()?, &wanted.image)));
    let mut running: Vec<(u64, &Image)> = running.collect();
    running.sort_by_key(|(nodes, image)| (*nodes, Reverse(*image)));
    running.into_iter().map(|(_, image)| image).collect()
}

/// Refuses a plan that is too large for the state machine, which would fail on it and not say why.
fn checked(bakes: Vec<Bake>, input: &Input, images: usize) -> Result<Plan, PlanError> {
    let manner = input.manner;
    let plan = Plan { bakes, manner };
    let bytes = json!(plan).to_string().len();
    if bytes <= MAX_PLAN {
        return Ok(plan);
    }
    let accepted = format!("fewer: they make a plan of {bytes} bytes, and the state machine takes {MAX_PLAN}");
    Err(too_many(input, images, accepted))
}

#[cfg(test)]
pub mod tests;

//! From an execution's input to the plan of its bakes.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use futures_util::future::try_join;
use prefetch::{
    bake::{Architecture, input::Input},
    ecr::NewestImages,
    fields::FieldError,
    image::Image,
    report::report,
    resolve::resolve,
    rule::Rule,
};
use serde_json::{Value, json};
use tracing::{error, info};

use crate::{
    bake::{Bake, Chosen, Plan, too_many},
    contents::Contents,
    error::{AwsError, PlanError},
    input::Request,
    network::network_interface,
    nodes::{self, Node},
    settings::Settings,
};

/// How many bytes a plan has at most: a state of Step Functions passes on 256 KiB (quotas), and more is added to it.
const MAX_PLAN: usize = 200_000;

/// How long ECR is asked for the rules' newest images, of the function's 60 seconds.
const LISTING: Duration = Duration::from_secs(40);

/// What the function works with.
pub struct BakePlan {
    pub ec2: aws_sdk_ec2::Client,
    pub ecr: aws_sdk_ecr::Client,
    pub images: NewestImages,
    pub settings: Settings,
}

/// An image that is wanted, and why.
#[derive(Clone, Debug)]
struct Wanted {
    image: Image,
    reason: Reason,
}

/// Why an image is wanted.
#[derive(Clone, Debug)]
enum Reason {
    /// The input names it.
    Named {
        /// Its place in the input.
        place: usize,
        /// The text that names it.
        asked: String,
    },
    /// Rules name it, the most generous of which takes so many GiB, 0 being no limit.
    Found { max_gib: usize },
}

impl BakePlan {
    /// Plans the bakes that an execution asks for; nothing is changed by it.
    ///
    /// Costs, beside what the images take (see [`NewestImages::of_rule`] and [`resolve`]), one DescribeInstances for each
    /// 1,000 nodes unless both architectures and subnet are named, one DescribeSubnets unless the subnet is, and what
    /// [`Contents::read`] takes.
    ///
    /// # Errors
    /// [`PlanError`] where the input is not accepted, where there is nothing to bake, and where AWS cannot be asked.
    pub async fn handle(&self, payload: Value) -> Result<Plan, PlanError> {
        self.handle_at(payload, SystemTime::now())
            .await
            .inspect_err(|error| error!("{}", report(error)))
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
        let images = wanted.iter().map(|wanted| &wanted.image);
        let contents = Contents::read(&self.ecr, images, &architectures).await?;
        let mut bakes = Vec::with_capacity(architectures.len());
        for (architecture, chosen) in chosen(&wanted, &contents, &architectures)? {
            let interface = network_interface.clone();
            bakes.push(Bake::new(
                architecture,
                chosen,
                &input,
                &cluster,
                interface,
                &self.settings,
            )?);
        }
        let plan = Plan {
            bakes,
            manner: input.manner,
        };
        check_size(&plan, &input, wanted.len())?;
        Ok(plan)
    }

    /// The rules whose images, and whose nodes' architectures, are meant.
    fn rules(&self, input: &Input) -> Vec<&Rule> {
        let is_meant = |rule: &&Rule| input.rules.as_ref().is_none_or(|names| names.contains(&rule.name));
        self.settings.shared.rules.iter().filter(is_meant).collect()
    }

    /// Lists the running nodes of the cluster, where the input does not say all that they would tell.
    async fn nodes(&self, input: &Input, rules: &[&Rule]) -> Result<Vec<Node>, AwsError> {
        if input.architectures.is_some() && input.subnet.is_some() {
            return Ok(Vec::new());
        }
        nodes::running(&self.ec2, &self.settings.shared.cluster, rules).await
    }

    /// Names the images to bake: those of the input, else the rules' newest; each once.
    async fn wanted(&self, input: &Input, rules: &[&Rule], now: SystemTime) -> Result<Vec<Wanted>, PlanError> {
        let mut wanted: Vec<Wanted> = Vec::new();
        if !input.images.is_empty() {
            let images = resolve(&self.ecr, &self.settings.registry, &input.images).await?;
            for (place, (image, asked)) in images.into_iter().zip(&input.images).enumerate() {
                if wanted.iter().all(|known| known.image != image) {
                    let asked = asked.reference.clone();
                    let reason = Reason::Named { place, asked };
                    wanted.push(Wanted { image, reason });
                }
            }
            return Ok(wanted);
        }
        // Whoever asks right after a push wants what was pushed.
        let newest = self.images.anew(LISTING);
        let mut limits: HashMap<Image, usize> = HashMap::new();
        for rule in rules {
            let images = newest.of_rule(rule, now).await.map_err(AwsError::Images)?;
            for image in images {
                let limit = limits.entry(image.clone()).or_insert_with(|| {
                    let reason = Reason::Found { max_gib: 0 };
                    wanted.push(Wanted { image, reason });
                    rule.max_image_gib
                });
                *limit = more_generous(*limit, rule.max_image_gib);
            }
        }
        for found in &mut wanted {
            let max_gib = limits[&found.image];
            found.reason = Reason::Found { max_gib };
        }
        if wanted.is_empty() {
            let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
            let message = format!("the rules {} name no image that exists", names.join(", "));
            return Err(PlanError::NoImages(message));
        }
        Ok(wanted)
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

/// Of two limits the one that takes more; 0 is none.
fn more_generous(one: usize, other: usize) -> usize {
    if one == 0 || other == 0 { 0 } else { one.max(other) }
}

/// Chooses the images for each architecture.
fn chosen<'a>(
    wanted: &'a [Wanted],
    contents: &'a Contents,
    architectures: &[Architecture],
) -> Result<Vec<(Architecture, Chosen<'a>)>, PlanError> {
    let mut errors = Vec::new();
    let mut of_all = Vec::with_capacity(architectures.len());
    for architecture in architectures {
        let mut chosen = Chosen::default();
        for Wanted { image, reason } in wanted {
            let content = contents.of(image, *architecture);
            match (content, reason) {
                (Some(content), Reason::Found { max_gib }) if exceeds(content.bytes(), *max_gib) => {
                    info!(
                        image.digest = image.digest(),
                        "{image} is left off: it is larger than the {max_gib} GiB that its rules take"
                    );
                    chosen.left_off.push(image.clone());
                }
                (Some(content), _) => chosen.images.push((image, content)),
                (None, Reason::Found { .. }) => {
                    info!(
                        image.digest = image.digest(),
                        "{image} is left off: it has none for {architecture}"
                    );
                    chosen.left_off.push(image.clone());
                }
                (None, Reason::Named { place, asked }) => {
                    let accepted = format!("an image for {architecture}, which this index has none for");
                    errors.push(FieldError::new(
                        format!("images[{place}]"),
                        Some(json!(asked)),
                        accepted,
                    ));
                }
            }
        }
        if chosen.images.is_empty() && errors.is_empty() {
            let message = format!(
                "none of the {} images that the rules name is baked for {architecture}: they have none for it, or are larger than maxImageGiB; set rules, images or architectures",
                wanted.len()
            );
            return Err(PlanError::NoImages(message));
        }
        of_all.push((*architecture, chosen));
    }
    if errors.is_empty() {
        Ok(of_all)
    } else {
        Err(errors.into())
    }
}

fn exceeds(bytes: u64, max_gib: usize) -> bool {
    max_gib > 0 && u128::from(bytes) > (max_gib as u128) << 30
}

/// Refuses a plan that is too large for the state machine, which would fail on it and not say why.
fn check_size(plan: &Plan, input: &Input, images: usize) -> Result<(), PlanError> {
    let bytes = json!(plan).to_string().len();
    if bytes <= MAX_PLAN {
        return Ok(());
    }
    let accepted = format!("fewer: they make a plan of {bytes} bytes, and the state machine takes {MAX_PLAN}");
    Err(too_many(input, images, accepted).into())
}

#[cfg(test)]
pub mod tests;

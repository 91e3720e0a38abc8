//! The images that are to be baked: those of the input, else what nodes of the rules run, and the rules' newest.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::Client;
use prefetch::{
    bake::input::Input,
    ecr::Newest,
    image::{Image, is_same_registry},
    manifest::{Content, Layer},
    resolve::resolve,
    rows::UsageRow,
    rule::Rule,
    rule_images::RuleImages,
    usage::day,
};

use crate::error::{AwsError, PlanError};

/// Bounds the time in which ECR is asked for the rules' newest images, of the function's 60 seconds.
const LISTING: Duration = Duration::from_secs(40);

/// An image that is wanted, and by what.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub image: Image,
    pub origin: Origin,
}

/// Tells by what an image is wanted.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The input names it.
    Named {
        /// Its place in the input.
        place: usize,
        /// The text that names it.
        name: String,
    },
    /// Rules name it.
    Found(Found),
}

/// Tells by what rules name an image.
#[derive(Clone, Debug)]
pub struct Found {
    /// The most generous of them takes so many GiB; 0 is no limit.
    pub max_gib: usize,
    /// Tells on how many of their nodes it runs.
    pub nodes: u64,
    pub how: How,
}

/// Tells how rules name an image.
#[derive(Clone, Debug)]
pub enum How {
    /// It is one of the newest.
    Newest,
    /// Nodes run it; ECR may have it no more.
    Running,
    /// Nodes run it, of a registry that is not asked: it is as large as they say.
    Elsewhere(Content),
}

impl Wanted {
    /// Returns true where this account's ECR tells what it is made of.
    pub fn is_of_own_registry(&self) -> bool {
        !matches!(&self.origin, Origin::Found(found) if matches!(found.how, How::Elsewhere(_)))
    }

    /// Returns on how many nodes it runs, where it is baked for that alone.
    pub fn running_nodes(&self) -> Option<u64> {
        match &self.origin {
            Origin::Found(found) if !self.is_needed() => Some(found.nodes),
            _ => None,
        }
    }

    /// Returns true where ECR has to have it.
    pub fn is_needed(&self) -> bool {
        match &self.origin {
            Origin::Named { .. } => true,
            Origin::Found(found) => matches!(found.how, How::Newest),
        }
    }
}

impl Found {
    /// Takes in how another rule names the same image: what is one of the newest is there.
    fn merge(&mut self, other: Self) {
        self.max_gib = more_generous(self.max_gib, other.max_gib);
        self.nodes += other.nodes;
        if matches!(other.how, How::Newest) {
            self.how = other.how;
        }
    }
}

/// Names the images that an input names, each once.
///
/// # Errors
/// [`PlanError`] where one of them does not exist, and where ECR cannot be asked.
pub async fn named(client: &Client, registry: &str, input: &Input) -> Result<Vec<Wanted>, PlanError> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let images = resolve(client, registry, &input.images).await?;
    for (place, (image, reference)) in images.into_iter().zip(&input.images).enumerate() {
        if wanted.iter().all(|known| known.image != image) {
            let name = reference.reference.clone();
            let origin = Origin::Named { place, name };
            wanted.push(Wanted { image, origin });
        }
    }
    Ok(wanted)
}

/// Names the images of the rules, each once: those that a new node of theirs gets.
///
/// # Errors
/// [`PlanError`] where there are none, and where the table or ECR cannot be asked.
pub async fn of_rules(
    images: &RuleImages,
    registry: &str,
    rules: &[&Rule],
    now: SystemTime,
) -> Result<Vec<Wanted>, PlanError> {
    // Whoever asks right after a push wants what was pushed.
    let images = images.anew(LISTING);
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut places: HashMap<Image, usize> = HashMap::new();
    for rule in rules {
        for (image, found) in of_rule(&images, registry, rule, now).await? {
            let place = *places.entry(image.clone()).or_insert(wanted.len());
            match wanted.get_mut(place).map(|known| &mut known.origin) {
                Some(Origin::Found(known)) => known.merge(found),
                _ => wanted.push(Wanted {
                    image,
                    origin: Origin::Found(found),
                }),
            }
        }
    }
    if wanted.is_empty() {
        let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        let message = format!("the rules {} name no image that exists", names.join(", "));
        return Err(PlanError::NoImages(message));
    }
    Ok(wanted)
}

/// Names the images of a rule: what its nodes run, that of most nodes first, and then the newest.
async fn of_rule(
    images: &RuleImages,
    registry: &str,
    rule: &Rule,
    now: SystemTime,
) -> Result<Vec<(Image, Found)>, AwsError> {
    let used = images.known_use(rule, now).await?;
    let newest = images.newest(rule, &used, now).await.and_then(Newest::whole)?;
    let running = images.neighbours(rule, &used, now).into_iter();
    let running = running.map(|row| (row.image.clone(), row.running_nodes(day(now)), how(row, registry)));
    let all = running.chain(newest.into_iter().map(|image| (image, 0, How::Newest)));
    let max_gib = rule.max_image_gib;
    let found = all.map(|(image, nodes, how)| (image, Found { max_gib, nodes, how }));
    Ok(found.collect())
}

/// Tells whether ECR is asked for an image that nodes run, or what they say of it.
fn how(row: &UsageRow, registry: &str) -> How {
    if is_same_registry(row.image.registry(), registry) {
        return How::Running;
    }
    How::Elsewhere(Content {
        layers: vec![Layer {
            digest: row.image.digest().to_owned(),
            bytes: row.bytes,
            unpacked: row.bytes.saturating_mul(2),
            ..Layer::default()
        }],
        ..Content::default()
    })
}

/// Returns the limit that takes more; 0 is none.
fn more_generous(one: usize, other: usize) -> usize {
    if one == 0 || other == 0 { 0 } else { one.max(other) }
}

//! The images that are to be baked: those of the input, else what nodes of the rules run, and the rules' newest.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::Client;
use prefetch::{
    bake::input::Input,
    ecr::{Newest, Registries},
    image::{Image, is_same_registry},
    manifest::{Content, Layer},
    node::NodeSelector,
    resolve::look_up,
    rule::Rule,
    rule_images::RuleImages,
    tags::{Nodes, TagResolver, TagsError},
    usage::day,
};

use crate::error::{AwsError, PlanError};

/// Bounds the time in which ECR is asked for the rules' newest images, of the function's 60 seconds.
const LISTING: Duration = Duration::from_secs(40);

/// The size, in bytes, for which there is to be room where nobody tells how large a compressed image is: most are smaller.
const UNKNOWN_BYTES: u64 = 4 << 30;

/// An image that is wanted, and by what.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub image: Image,
    pub origin: Origin,
    /// Tells what it is made of, as far as that is known, where a registry has it that is not asked.
    pub elsewhere: Option<Content>,
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
}

impl Wanted {
    /// Returns true where ECR tells what it is made of.
    pub fn is_told_by_ecr(&self) -> bool {
        self.elsewhere.is_none()
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
/// [`PlanError`] where one of them does not exist, and where ECR or, for a tag of another registry, no node can be asked.
pub async fn named(
    client: &Client,
    (resolver, nodes): (&TagResolver, &[NodeSelector]),
    (registry, registries): (&str, &Registries),
    input: &Input,
) -> Result<Vec<Wanted>, PlanError> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let looked_up = look_up(client, &input.images).await?;
    let tags = looked_up.unresolved_tags();
    let tags = resolver.resolve(&tags, Nodes::Selected(nodes)).await;
    let tags = tags.map_err(|error| match error {
        TagsError::Observes(_) => PlanError::BadInput(error.to_string()),
        error => AwsError::Tags(Box::new(error)).into(),
    })?;
    let images = looked_up.resolve(registry, &tags)?;
    for (place, (image, reference)) in images.into_iter().zip(&input.images).enumerate() {
        if wanted.iter().all(|known| known.image != image) {
            let name = reference.reference.clone();
            let elsewhere = elsewhere(&image, registries.of_host(image.registry()).is_some(), None);
            wanted.push(Wanted {
                image,
                origin: Origin::Named { place, name },
                elsewhere,
            });
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
    registries: (&str, &Registries),
    rules: &[&Rule],
    now: SystemTime,
) -> Result<Vec<Wanted>, PlanError> {
    // Whoever asks right after a push wants what was pushed.
    let images = images.anew(LISTING);
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut places: HashMap<Image, usize> = HashMap::new();
    for rule in rules {
        for (image, found, elsewhere) in of_rule(&images, registries, rule, now).await? {
            let place = *places.entry(image.clone()).or_insert(wanted.len());
            match wanted.get_mut(place).map(|known| &mut known.origin) {
                Some(Origin::Found(known)) => {
                    known.merge(found);
                    if elsewhere.is_none() {
                        wanted[place].elsewhere = None;
                    }
                }
                _ => wanted.push(Wanted {
                    image,
                    origin: Origin::Found(found),
                    elsewhere,
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

/// Names the images of a rule: what its nodes run, that of most nodes first, and then those that it names and the newest; each
/// with what it is made of, where a registry has it that is not asked.
async fn of_rule(
    images: &RuleImages,
    (registry, registries): (&str, &Registries),
    rule: &Rule,
    now: SystemTime,
) -> Result<Vec<(Image, Found, Option<Content>)>, AwsError> {
    let used = images.known_use(rule, now).await?;
    let newest = images.newest(rule, &used, now).await.and_then(Newest::whole)?;
    let running = images.neighbours(rule, &used, now).into_iter();
    let running = running.map(|row| (row.image.clone(), row.running_nodes(day(now)), How::Running));
    let all = running.chain(newest.into_iter().map(|image| (image, 0, How::Newest)));
    let max_gib = rule.max_image_gib;
    let all = all.map(|(image, nodes, how)| {
        // What nodes run of a central registry need not be one of its newest: they say how large it is.
        let is_asked = match how {
            How::Running => is_same_registry(image.registry(), registry),
            How::Newest => registries.of_host(image.registry()).is_some(),
        };
        let elsewhere = elsewhere(&image, is_asked, used.bytes(&image));
        (image, Found { max_gib, nodes, how }, elsewhere)
    });
    Ok(all.collect())
}

/// Tells what an image is made of that a registry has which is not asked: as much as nodes say, else as [`UNKNOWN_BYTES`].
fn elsewhere(image: &Image, is_asked: bool, told: Option<u64>) -> Option<Content> {
    if is_asked {
        return None;
    }
    let bytes = told.unwrap_or(UNKNOWN_BYTES);
    Some(Content {
        layers: vec![Layer {
            digest: image.digest().to_owned(),
            bytes,
            unpacked: bytes.saturating_mul(2),
            ..Layer::default()
        }],
        ..Content::default()
    })
}

/// Returns the limit that takes more; 0 is none.
fn more_generous(one: usize, other: usize) -> usize {
    if one == 0 || other == 0 { 0 } else { one.max(other) }
}

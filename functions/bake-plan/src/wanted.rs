//! The images that are to be baked: those of the input, else the rules' newest.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_sdk_ecr::Client;
use prefetch::{bake::input::Input, ecr::NewestImages, image::Image, resolve::resolve, rule::Rule};

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
    /// Rules name it, the most generous of which takes so many GiB, 0 being no limit.
    Found { max_gib: usize },
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

/// Names the rules' newest images, each once.
///
/// # Errors
/// [`PlanError`] where there are none, and where ECR cannot be asked.
pub async fn newest(images: &NewestImages, rules: &[&Rule], now: SystemTime) -> Result<Vec<Wanted>, PlanError> {
    // Whoever asks right after a push wants what was pushed.
    let newest = images.anew(LISTING);
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut limits: HashMap<Image, usize> = HashMap::new();
    for rule in rules {
        let images = newest.of_rule(rule, now).await.map_err(AwsError::Images)?;
        for image in images {
            let limit = limits.entry(image.clone()).or_insert_with(|| {
                let origin = Origin::Found { max_gib: 0 };
                wanted.push(Wanted { image, origin });
                rule.max_image_gib
            });
            *limit = more_generous(*limit, rule.max_image_gib);
        }
    }
    for found in &mut wanted {
        let max_gib = limits[&found.image];
        found.origin = Origin::Found { max_gib };
    }
    if wanted.is_empty() {
        let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        let message = format!("the rules {} name no image that exists", names.join(", "));
        return Err(PlanError::NoImages(message));
    }
    Ok(wanted)
}

/// Returns the limit that takes more; 0 is none.
fn more_generous(one: usize, other: usize) -> usize {
    if one == 0 || other == 0 { 0 } else { one.max(other) }
}

//! The images that are baked for an architecture, and those that are left off.

use prefetch::{bake::Architecture, fields::FieldError, image::Image};
use serde_json::json;
use tracing::info;

use crate::{
    bake::Chosen,
    contents::Contents,
    error::PlanError,
    wanted::{Found, Origin, Wanted},
};

/// Bounds the compressed size that nodes are believed to tell of an image, in GiB, where its rules set no limit: a volume is made
/// for it.
const BELIEVED_GIB: usize = 100;

/// Chooses the images for each architecture, without those that are left out.
///
/// # Errors
/// [`PlanError`] where the input names an image that has none for an architecture, and where nothing is left to bake.
pub fn chosen<'a>(
    wanted: &'a [Wanted],
    contents: &'a Contents,
    architectures: &[Architecture],
    left_out: &[&Image],
) -> Result<Vec<(Architecture, Chosen<'a>)>, PlanError> {
    let mut errors = Vec::new();
    let mut of_all = Vec::with_capacity(architectures.len());
    for architecture in architectures {
        let mut chosen = chosen_for(*architecture, wanted, contents, &mut errors);
        chosen.leave_out(left_out);
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

/// Chooses the images for one architecture; an error for each that the input names and that has none for it.
fn chosen_for<'a>(
    architecture: Architecture,
    wanted: &'a [Wanted],
    contents: &'a Contents,
    errors: &mut Vec<FieldError>,
) -> Chosen<'a> {
    let mut chosen = Chosen::default();
    for Wanted {
        image,
        origin,
        elsewhere,
    } in wanted
    {
        // Nobody says for which architectures an image of another registry is.
        let content = elsewhere.as_ref().or_else(|| contents.of(image, architecture));
        let limit = limit(origin, elsewhere.is_some());
        match (content, origin) {
            (Some(content), _) if exceeds(content.bytes(), limit) => {
                let why = format!("it is larger than the {limit} GiB that are taken of it");
                chosen.left_off.push(left_off(image, &why));
            }
            (Some(content), _) => chosen.images.push((image, content)),
            (None, Origin::Found(_)) if contents.has(image) => {
                let why = format!("it has none for {architecture}");
                chosen.left_off.push(left_off(image, &why));
            }
            (None, Origin::Found(_)) => {
                let why = "nodes run it, and ECR has it no more";
                chosen.left_off.push(left_off(image, why));
            }
            (None, Origin::Named { place, name }) => {
                let accepted = format!("an image for {architecture}, which this index has none for");
                errors.push(FieldError::new(format!("images[{place}]"), Some(json!(name)), accepted));
            }
        }
    }
    chosen
}

impl Chosen<'_> {
    /// Leaves images off for which there is no room.
    fn leave_out(&mut self, images: &[&Image]) {
        let (left_out, baked): (Vec<_>, Vec<_>) = std::mem::take(&mut self.images)
            .into_iter()
            .partition(|(image, _)| images.contains(image));
        self.images = baked;
        self.left_off
            .extend(left_out.into_iter().map(|(image, _)| image.clone()));
    }
}

/// Gives the GiB that are taken of an image; 0 is no limit.
fn limit(origin: &Origin, is_elsewhere: bool) -> usize {
    match origin {
        Origin::Named { .. } => 0,
        Origin::Found(Found { max_gib: 0, .. }) if is_elsewhere => BELIEVED_GIB,
        Origin::Found(found) => found.max_gib,
    }
}

fn left_off(image: &Image, why: &str) -> Image {
    info!(image.digest = image.digest(), "{image} is left off: {why}");
    image.clone()
}

fn exceeds(bytes: u64, max_gib: usize) -> bool {
    max_gib > 0 && u128::from(bytes) > (max_gib as u128) << 30
}

//! Describes what the list of a rule holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    command::{MAX_IMAGES, Trigger, parameters},
    image::Image,
    rule::Rule,
    sender::handling,
    settings::Settings,
};

/// Limits how many characters a parameter of the standard tier holds, which is free (Parameter Store, parameter tiers).
const MAX_CHARACTERS: usize = 4096;
/// Limits how many images the two parameters of a rule name together: as many as the document takes.
const MAX_LISTED: usize = 50;
/// The document's parameter that stands beside the others.
const IMAGES: &str = "images";

/// Is the value of a parameter: each is a list by itself, and a node runs the document once for each.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    images: String,
    parameters: BTreeMap<String, String>,
}

/// The list of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootList {
    /// The value of the rule's parameter.
    pub text: String,
    /// The value of its second parameter, where the first has no room for all.
    pub more: Option<String>,
    /// Tells how many images they name.
    pub images: usize,
    /// Tells how many did not fit.
    pub left_out: usize,
}

impl BootList {
    /// Lists a rule's images, the most needed first, as many as fit into two parameters that are free, each of which has no
    /// more than one command.
    #[must_use]
    pub fn new(settings: &Settings, rule: &Rule, images: &[Image]) -> Self {
        let characters = text(settings, rule, &[]).len();
        let (first, others) = images.split_at(fitting(characters, images));
        let others = &others[..others.len().min(MAX_LISTED - first.len())];
        let more = &others[..fitting(characters, others)];
        let listed = first.len() + more.len();
        Self {
            text: text(settings, rule, first),
            more: (!more.is_empty()).then(|| text(settings, rule, more)),
            images: listed,
            left_out: images.len() - listed,
        }
    }
}

/// Counts the first images that a parameter has room for beside so many characters.
fn fitting(mut characters: usize, images: &[Image]) -> usize {
    let fitting = images.iter().take(MAX_IMAGES).enumerate().take_while(|(place, image)| {
        characters += image.to_string().len() + usize::from(*place > 0);
        characters <= MAX_CHARACTERS
    });
    fitting.count()
}

/// Writes a list: the parameters that a launch's command has, the images before the others.
fn text(settings: &Settings, rule: &Rule, images: &[Image]) -> String {
    let parameters = parameters(settings, handling(rule, Trigger::Launch), images).into_iter();
    let mut parameters: BTreeMap<String, String> = parameters.map(|(name, values)| (name, values.concat())).collect();
    let value = Value {
        images: parameters.remove(IMAGES).unwrap_or_default(),
        parameters,
    };
    serde_json::to_string(&value).expect("texts are JSON")
}

/// Reads the images of a list; none where the text is no list of ours.
pub(super) fn images_of(text: &str) -> Option<Vec<Image>> {
    let value: Value = serde_json::from_str(text).ok()?;
    value
        .images
        .split_whitespace()
        .map(|image| image.parse().ok())
        .collect()
}

/// Puts images of the repository that was pushed to in the place of those that a list has of it, or where a launch names it;
/// what is to be `staying` stays, before all others.
pub(super) fn merged(
    rule: &Rule,
    listed: &[Image],
    staying: &[Image],
    (pushed, images): (&Image, Vec<Image>),
) -> Vec<Image> {
    let (stays, listed): (Vec<Image>, Vec<Image>) = listed.iter().cloned().partition(|image| staying.contains(image));
    let is_there = |image: &Image| image.registry() == pushed.registry();
    let is_of = |image: &Image| is_there(image) && image.repository() == pushed.repository();
    let place = listed.iter().position(is_of).unwrap_or_else(|| {
        let rank = rule.repositories.rank(pushed.repository());
        let is_before = |image: &&Image| is_there(image) && rule.repositories.rank(image.repository()) < rank;
        let first = listed.iter().position(is_there).unwrap_or(listed.len());
        first + listed[first..].iter().take_while(is_before).count()
    });
    let (before, after) = listed.split_at(place);
    let others = |images: &[Image]| images.iter().filter(|image| !is_of(image)).cloned().collect::<Vec<_>>();
    let images = images.into_iter().filter(|image| !stays.contains(image)).collect();
    let newest = [others(before), images, others(after)].concat();
    [stays, newest].concat()
}

#[cfg(test)]
mod tests;

//! A rule: which images go to which nodes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::globs::Globs;
use crate::{
    image::is_same_registry,
    requested_image::{Registry, RequestedImage},
};

/// Limits how many tag keys a rule may name: SSM takes 5 targets, ANDed, and one is the cluster's (SSM service model,
/// `Targets`).
pub const MAX_NODE_TAGS: usize = 4;
/// Limits how many values of one tag key a rule may accept (SSM service model, `TargetValues`).
pub const MAX_TAG_VALUES: usize = 50;
/// The most images of one repository that a rule may ask for, or let a node keep; the document keeps no more either.
pub const IMAGES_MAX: usize = 50;

/// Tells which of two images is the newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Takes the one that was pushed later.
    #[default]
    Pushed,
    /// Takes the one whose tags that the rule takes have the higher semantic version.
    Version,
}

/// One rule of the list: images that match it go to nodes that match it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's unique name: `[a-z0-9-]{1,32}`.
    pub name: String,
    /// The repositories whose images the rule brings.
    pub repositories: Globs,
    /// The tags of the images that the rule brings.
    pub tags: Globs,
    /// Tells whether the rule brings only images of repositories that its nodes run, or lately ran.
    pub used: bool,
    /// Tells whether a new node also gets the images that containers on the rule's nodes run.
    pub neighbours: bool,
    /// The registries, beside this account's own, from which neighbours and jobs may bring, by their host names.
    pub registries: Globs,
    /// Images that belong on the rule's nodes whatever is pushed, as somebody names them
    /// ([`crate::requested_image::RequestedImage`]).
    pub images: Vec<String>,
    /// The EC2 tags a node must carry beside the cluster's own, each with the values that are accepted.
    pub nodes: BTreeMap<String, Vec<String>>,
    /// Tells how many newest images per repository a new node gets.
    pub newest: usize,
    /// Tells which images are newest.
    pub order: Order,
    /// Tells how many newest images per repository, of those that were prefetched, stay on a node: none is removed where it
    /// is 0, and it is never less than `newest` otherwise.
    pub keep: usize,
    /// Tells whether prefetched images are exempt from kubelet's garbage collection while they are kept.
    pub pin: bool,
    /// The compressed size above which an image is skipped, in GiB; 0 is no limit.
    pub max_image_gib: usize,
    /// Tells on how many nodes a command runs at once: a number or a percentage.
    pub max_concurrency: String,
    /// Tells after how many failing nodes a command is sent to no further ones: a number or a percentage.
    pub max_errors: String,
}

impl Rule {
    /// Returns true where the rule brings this image of this repository.
    #[must_use]
    pub fn wants(&self, repository: &str, tag: &str) -> bool {
        self.repositories.matches(repository) && self.tags.matches(tag)
    }

    /// Returns true where the rule names an image of this repository of a registry itself, or may; `own` is this account's.
    #[must_use]
    pub fn names(&self, registry: &str, repository: &str, own: &str) -> bool {
        let images = self.images.iter();
        let mut images = images.filter_map(|text| RequestedImage::parse(text, own).ok());
        images.any(|image| {
            let is_of_registry = match &image.registry {
                Registry::Other(host) => is_same_registry(host, registry),
                Registry::Own | Registry::Unnamed => registry == own,
            };
            is_of_registry && image.repository == repository
        })
    }

    /// Returns how many images of a repository a node may hold by what a launch or a reconcile names: the newest, one for each
    /// tag that the rule names literally, and those that it names itself, were they all of one repository.
    #[must_use]
    pub fn most_named(&self) -> usize {
        self.newest + self.tags.plain().count() + self.images.len()
    }

    /// Returns how many images of a repository the rule names beside those that were pushed last: those that it names itself,
    /// one for each tag that it names literally, and the newest where those are the highest versions.
    #[must_use]
    pub fn most_beside_pushes(&self) -> usize {
        match self.order {
            Order::Pushed => self.tags.plain().count() + self.images.len(),
            Order::Version => self.most_named(),
        }
    }
}

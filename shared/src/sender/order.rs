//! Commands that are due.

use crate::{
    command::{Comment, Destination},
    image::Image,
    rule::Rule,
};

/// A command that is due: images for nodes by a rule, and why.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The rule, which says how nodes treat the images and how many begin at once.
    pub rule: &'a Rule,
    /// Tells why it is due.
    pub comment: &'a Comment,
    /// The images of one command ([`crate::command::images_of_commands`]).
    pub images: &'a [Image],
    /// The nodes.
    pub destination: Destination,
    /// Says what it is due for, such as an event's id: the same order on the same occasion is observed as one job.
    pub occasion: &'a str,
}

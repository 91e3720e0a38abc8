//! One more try: what `node-result` asks of `node-launch` for a node where images are still missing.

use serde::{Deserialize, Serialize};

use crate::{
    command::{Comment, Trigger},
    image::Image,
};

/// A message in the node queue: this node, these images, attempt n.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Retry {
    /// The job the try belongs to.
    pub job: String,
    /// The node's instance id.
    pub node: String,
    /// The rule by which the images are brought.
    pub rule: String,
    /// What made the job necessary.
    pub trigger: Trigger,
    /// The try's number; the job's first is 1.
    pub attempt: u8,
    /// The images that are missing.
    pub images: Vec<Image>,
}

impl Retry {
    /// Gives the comment of the command that makes the try.
    #[must_use]
    pub fn comment(&self) -> Comment {
        Comment {
            trigger: self.trigger,
            rule: self.rule.clone(),
            attempt: self.attempt,
            job: Some(self.job.clone()),
        }
    }
}

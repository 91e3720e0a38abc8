//! A retry: what `node-result` asks of itself, once it is time, and then of `node-launch` for a node where images are
//! still missing.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    command::{Comment, CommentError, Trigger},
    image::Image,
    node::is_instance_id,
};

/// A message in a queue: this node, these images, attempt n.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Retry {
    /// The job the try belongs to.
    pub job: String,
    /// The node's instance id.
    pub node: String,
    /// The rule by which the images are brought.
    pub rule: String,
    /// Says what made the job necessary.
    pub trigger: Trigger,
    /// The try's number; the job's first is 1.
    pub attempt: u8,
    /// The images that are missing.
    pub images: Vec<Image>,
}

/// Tells why a retry cannot be made.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RetryError {
    /// Whoever reads the command's result must be able to read its comment.
    #[error(transparent)]
    Comment(#[from] CommentError),
    /// There is nothing to bring.
    #[error("it names no image")]
    NoImage,
    /// The node has no instance's id.
    #[error("{0:?} is no instance id")]
    Node(String),
}

impl Retry {
    /// Checks that the try can be made.
    ///
    /// # Errors
    /// [`RetryError`] for the first thing that stands in its way.
    pub fn check(&self) -> Result<(), RetryError> {
        self.comment().to_string().parse::<Comment>()?;
        if self.images.is_empty() {
            return Err(RetryError::NoImage);
        }
        if !is_instance_id(&self.node) {
            return Err(RetryError::Node(self.node.clone()));
        }
        Ok(())
    }

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

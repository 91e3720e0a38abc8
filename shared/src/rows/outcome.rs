//! Describes what became of an image on a node in a job.

use serde::{Deserialize, Serialize};

use crate::{
    command::Trigger,
    outcome::{Status, is_not_applicable, is_retryable},
};

/// Holds what became of an image on a node, by the last try that tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Tells whether it is there.
    pub status: Status,
    /// Tells why not, as one word; empty where it is.
    pub reason: String,
    /// Tells how long the node took over it, in seconds.
    pub seconds: f64,
    /// Tells how many bytes were pulled, compressed.
    pub bytes: u64,
    /// Tells how often the node tried to pull within the command.
    pub attempts: u32,
    /// The number of the command among the job's tries.
    pub attempt: u8,
    /// Tells whether the node said so itself.
    pub reported: bool,
}

impl Outcome {
    /// Returns true where a retry is worth it.
    ///
    /// A node that a reconcile does not reach is left to the next one: the queue would fill with nodes that nobody reaches.
    /// What a boot did not bring its launch does.
    #[must_use]
    pub fn wants_retry(&self, trigger: Trigger, max_retries: u8) -> bool {
        (self.reported || trigger != Trigger::Reconcile)
            && trigger != Trigger::Boot
            && self.status == Status::Failed
            && is_retryable(&self.reason)
            && self.attempt <= max_retries
    }

    /// Tells if the node can never hold the image.
    #[must_use]
    pub fn is_not_applicable(&self) -> bool {
        is_not_applicable(self.status, &self.reason)
    }
}

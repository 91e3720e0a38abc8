//! Describes what became of an image on a node in a job.

use serde::{Deserialize, Serialize};

use crate::outcome::{Status, is_not_applicable};

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
    /// Tells if the node can never hold the image.
    #[must_use]
    pub fn is_not_applicable(&self) -> bool {
        is_not_applicable(self.status, &self.reason)
    }
}

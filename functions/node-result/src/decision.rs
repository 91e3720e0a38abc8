//! Decisions: what becomes of a message, and why.

use std::error::Error;

use prefetch::{error_text::error_text, outcome::Status, retry::Retry};
use serde::Serialize;

/// Says what becomes of a message, in the words by which answers and logs know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// The event is stored.
    Settled(Settled),
    /// The event is of an inventory, and what its node runs is kept.
    Noted(Noted),
    /// The event says nothing that is kept.
    Ignored(Explanation),
    /// The retry is in the node queue.
    Queued(QueuedRetry),
    /// The retry is not to happen.
    Dropped(Explanation),
    /// The message goes back to the queue, and in the end to its dead letters.
    HandedBack(Explanation),
}

/// Says of which job, and of which of its nodes, an event was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// The job.
    pub job: String,
    /// The node and its state; none where the event is of the whole command.
    #[serde(flatten)]
    pub node: Option<SettledNode>,
}

/// Says how a node stands in a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettledNode {
    /// The node's instance id.
    pub node: String,
    /// The worst that became of its images.
    pub status: Status,
    /// True where a retry is queued.
    pub retrying: bool,
}

/// Says whose inventory is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Noted {
    /// The rule by which the node was asked.
    pub rule: String,
    /// The node's instance id.
    pub node: String,
}

/// Names a retry that is in the node queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueuedRetry {
    /// The job.
    pub job: String,
    /// The node's instance id.
    pub node: String,
    /// The attempt's number.
    pub attempt: u8,
}

/// Explains why a message is not settled or queued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The reason as one word, stable for those who count it.
    pub reason: DecisionReason,
    /// The reason as a sentence.
    pub message: String,
}

/// Lists the reasons for which a message is not settled or queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionReason {
    /// The message is no event and no retry, or a field is missing or unusable.
    Malformed,
    /// The event is none by which a command of ours ends.
    NotAResult,
    /// The command has not ended yet.
    NotEnded,
    /// The command was sent by hand: it belongs to no job.
    ByHand,
    /// The command is a job's retry: its nodes tell all there is to know.
    #[serde(rename = "further-try")]
    Retry,
    /// The command is an inventory, which is no job: it says nothing, or not here.
    Inventory,
    /// The job of the retry was cancelled.
    Cancelled,
    /// SSM knows no such command on the node (yet).
    NoInvocation,
    /// Others kept writing the same rows.
    Contended,
    /// AWS answered with an error; a later delivery may fare better.
    AwsError,
}

impl Explanation {
    pub fn new(reason: DecisionReason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }

    /// Explains that an error of AWS stands in the way.
    pub fn aws_error(error: &dyn Error) -> Self {
        Self::new(DecisionReason::AwsError, error_text(error))
    }
}

impl Decision {
    pub fn queued(retry: &Retry) -> Self {
        Self::Queued(QueuedRetry {
            job: retry.job.clone(),
            node: retry.node.clone(),
            attempt: retry.attempt,
        })
    }

    /// Hands back a message that an error of AWS stands in the way of.
    pub fn aws_error(error: &dyn Error) -> Self {
        Self::HandedBack(Explanation::aws_error(error))
    }

    pub fn is_handed_back(&self) -> bool {
        matches!(self, Self::HandedBack(_))
    }
}

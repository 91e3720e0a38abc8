//! What is decided of an event or a further try, and why.

use prefetch::{outcome::Status, retry::Retry};
use serde::Serialize;

/// What was decided of an event or a further try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// What it says is stored.
    Settled(Settled),
    /// It says nothing that is kept.
    Ignored(Why),
    /// The further try is in the node queue.
    Queued(Queued),
    /// The further try is not to happen.
    Dropped(Why),
    /// It could not be settled: the message goes back to the queue, and in the end to its dead letters.
    HandedBack(Why),
}

/// What an event that was settled says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// The job.
    pub job: String,
    /// The node and what is known of it; none where the event is of the whole command.
    #[serde(flatten)]
    pub node: Option<SettledNode>,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettledNode {
    /// The node's instance id.
    pub node: String,
    /// The worst that became of its images.
    pub status: Status,
    /// Whether a further try is queued.
    pub retrying: bool,
}

/// A further try that was let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// The job.
    pub job: String,
    /// The node's instance id.
    pub node: String,
    /// The try's number.
    pub attempt: u8,
}

impl Queued {
    pub fn new(retry: &Retry) -> Self {
        Self {
            job: retry.job.clone(),
            node: retry.node.clone(),
            attempt: retry.attempt,
        }
    }
}

/// Why an event is not settled, or a further try not let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The reason as one word, stable for those who count it.
    pub reason: Reason,
    /// The reason as a sentence.
    pub message: String,
}

/// The reasons for which an event is not settled, or a further try not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The message is no event and no further try, or a field is missing or unusable.
    Malformed,
    /// The event is none by which a command of ours ends.
    NotAResult,
    /// The command has not ended yet.
    NotEnded,
    /// The command was sent by hand: it belongs to no job.
    ByHand,
    /// The command is a job's further try: its nodes tell all there is to know.
    FurtherTry,
    /// The job of the further try was cancelled.
    Cancelled,
    /// SSM knows no such command on the node (yet).
    NoInvocation,
    /// Others kept writing the same rows.
    Contended,
    /// AWS answered with an error; the next try may fare better.
    AwsError,
}

impl Decision {
    pub fn ignored(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Ignored(Why { reason, message })
    }

    pub fn dropped(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Dropped(Why { reason, message })
    }

    pub fn handed_back(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::HandedBack(Why { reason, message })
    }
}

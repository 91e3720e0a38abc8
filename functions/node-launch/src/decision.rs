//! Decisions of instances, and their reasons.

use prefetch::error_text::word;
use serde::Serialize;
use tracing::{info, warn};

/// Tells what was decided of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// The node was sent the images of its rules.
    Sent {
        /// The commands, one or more for each of its rules.
        commands: Vec<Sent>,
    },
    /// The stack observes: what the node would have been sent was recorded.
    Observed {
        /// The jobs, one or more for each of its rules.
        commands: Vec<Sent>,
    },
    /// Not yet: the message goes back to the queue.
    HandedBack(Why),
    /// Nothing was sent, nor will be.
    Dropped(Why),
}

/// One command that was sent to a node, or would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The rule's name.
    pub rule: String,
    /// The command's id in SSM; an id of the same shape where it was not sent.
    pub command: String,
}

/// Names why a node gets nothing, or nothing yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The reason as one word, stable for those who count it.
    pub reason: DecisionReason,
    /// The reason as a sentence.
    pub message: String,
}

impl Why {
    pub fn new(reason: DecisionReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The reasons for which a node gets nothing, or nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionReason {
    /// The message is no event, or a field is missing or unusable.
    Malformed,
    /// The event is none by which a node is launched.
    NotALaunch,
    /// The instance stops, or has stopped.
    NotRunning,
    /// EC2 knows no such instance.
    Gone,
    /// The instance is no node of this cluster.
    Foreign,
    /// The node allows no SSM, or is no Linux.
    Unsupported,
    /// No rule wants the node.
    NoRule,
    /// Its rules name no image that exists.
    NoImages,
    /// The instance is not yet running.
    Pending,
    /// The cluster's tag is not there yet.
    NotTagged,
    /// Another message of the node's launch is being served.
    UnderWay,
    /// The node was sent its images for another message of its launch.
    AlreadySent,
    /// SSM cannot reach the node yet.
    NotOnline,
    /// IAM does not permit the command on the node.
    AccessDenied,
    /// SSM refused the node although it is online.
    Refused,
    /// ECR named only some of its rules' images, and those were sent.
    Incomplete,
    /// AWS answered with an error; the next try may fare better.
    AwsError,
}

impl Decision {
    pub fn dropped(reason: DecisionReason, message: impl Into<String>) -> Self {
        Self::Dropped(Why::new(reason, message))
    }

    pub fn handed_back(reason: DecisionReason, message: impl Into<String>) -> Self {
        Self::HandedBack(Why::new(reason, message))
    }

    /// Makes one decision of those of a node's rules: handed back if one was, else sent if one was, else dropped.
    ///
    /// The images that went to a node that is handed back are remembered with its launch; a retry is sent all its images again, and
    /// what the node holds by then costs it milliseconds.
    pub fn of_rules(decisions: Vec<Self>) -> Self {
        let (mut sent, mut observed) = (Vec::new(), Vec::new());
        let mut dropped = None;
        for decision in decisions {
            match decision {
                Self::HandedBack(_) => return decision,
                Self::Sent { commands } => sent.extend(commands),
                Self::Observed { commands } => observed.extend(commands),
                Self::Dropped(_) => dropped = dropped.or(Some(decision)),
            }
        }
        match dropped {
            _ if !observed.is_empty() => Self::Observed { commands: observed },
            Some(dropped) if sent.is_empty() => dropped,
            _ => Self::Sent { commands: sent },
        }
    }
}

/// Logs what was decided of an instance.
pub fn log(id: &str, decision: &Decision) {
    match decision {
        Decision::Sent { commands } => info!(instance.id = id, "{id}: sent {}", ids(commands)),
        Decision::Observed { commands } => info!(instance.id = id, "{id}: observed {}", ids(commands)),
        Decision::HandedBack(why) => info!(
            instance.id = id,
            reason = word(&why.reason),
            "{id}: handed back: {}",
            why.message
        ),
        Decision::Dropped(why) => info!(
            instance.id = id,
            reason = word(&why.reason),
            "{id}: dropped: {}",
            why.message
        ),
    }
}

fn ids(commands: &[Sent]) -> String {
    let ids: Vec<&str> = commands.iter().map(|sent| sent.command.as_str()).collect();
    ids.join(", ")
}

/// Logs that a message or an event asks for nothing.
pub fn log_unusable(kind: &str, id: &str, why: &Why) {
    if why.reason == DecisionReason::Malformed {
        warn!(reason = word(&why.reason), "{kind} {id} is dropped: {}", why.message);
    } else {
        info!(reason = word(&why.reason), "{kind} {id} is dropped: {}", why.message);
    }
}

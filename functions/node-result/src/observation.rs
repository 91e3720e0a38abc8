//! What is found out of an event: how a command went on a node, or to how many nodes it went.

use std::collections::BTreeMap;

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, Utc};
use prefetch::{
    command::{Comment, CommentError, Trigger},
    image::Image,
    rows::Outcome,
};

use crate::{
    decision::{Decision, Reason},
    event::Ended,
};

/// What was found out of an event.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The event.
    pub ended: Ended,
    /// The job that the command belongs to.
    pub job: Job,
    /// What is known now.
    pub found: Found,
}

/// A job: its first command and the tries that followed.
#[derive(Clone, Debug)]
pub struct Job {
    /// The id of the job's first command.
    pub id: String,
    /// What made it necessary.
    pub trigger: Trigger,
    /// The rule's name.
    pub rule: String,
    /// When the command was sent; the job where the command is its first.
    pub requested_at: DateTime<Utc>,
    /// Who asked for it, where its row says so.
    pub requested_by: Option<String>,
}

/// What is known of a job now.
#[derive(Clone, Debug)]
pub enum Found {
    /// How a command went on a node.
    Node(Report),
    /// To how many nodes its first command went.
    Targets(Targets),
}

/// To how many nodes a job's first command went, and with which images.
#[derive(Clone, Debug)]
pub struct Targets {
    pub count: u32,
    pub images: Vec<Image>,
}

/// How a command went on a node.
#[derive(Clone, Debug)]
pub struct Report {
    /// The node's instance id.
    pub node: String,
    /// The number of the try.
    pub attempt: u8,
    /// When the command ended there.
    pub ended_at: DateTime<Utc>,
    /// What became of each image.
    pub outcomes: BTreeMap<Image, Outcome>,
}

impl Finding {
    /// Tells if it is of a boot, whose report an event's command only brings along.
    pub fn is_of_boot(&self) -> bool {
        self.job.trigger == Trigger::Boot
    }

    /// The report of the node, where the finding is one.
    pub fn report(&self) -> Option<(&Ended, &Report)> {
        match &self.found {
            Found::Node(report) => Some((&self.ended, report)),
            Found::Targets(_) => None,
        }
    }
}

impl Job {
    /// The job of a command with this comment.
    pub fn of(ended: &Ended, comment: &Comment) -> Self {
        Self {
            id: comment.job.clone().unwrap_or_else(|| ended.command.clone()),
            trigger: comment.trigger,
            rule: comment.rule.clone(),
            requested_at: ended.requested_at,
            requested_by: None,
        }
    }

    /// The time from the request to a moment, in seconds, to the millisecond; clocks may differ, it is never negative.
    pub fn seconds_until(&self, moment: DateTime<Utc>) -> f64 {
        let passed = moment.signed_duration_since(self.requested_at).num_milliseconds();
        f64::from(u32::try_from(passed.max(0)).unwrap_or(u32::MAX)) / 1000.0
    }
}

/// Tells from SSM's answer of a command as a whole how many nodes it had.
///
/// # Errors
/// The decision, where the command is no job's first.
pub fn targets(ended: Ended, command: &Command) -> Result<Finding, Decision> {
    let comment = comment(command.comment())?;
    if let Some(job) = &comment.job {
        let message = format!("it is a further try of job {job}");
        return Err(Decision::ignored(Reason::FurtherTry, message));
    }
    Ok(Finding {
        job: Job::of(&ended, &comment),
        found: Found::Targets(Targets {
            count: command.target_count().unsigned_abs(),
            images: images(command),
        }),
        ended,
    })
}

/// The images that a command names.
pub fn images(command: &Command) -> Vec<Image> {
    let images = command.parameters().and_then(|parameters| parameters.get("images"));
    images
        .into_iter()
        .flatten()
        .flat_map(|list| list.split(' '))
        .filter_map(|image| image.parse().ok())
        .collect()
}

/// Reads a command's comment.
///
/// # Errors
/// The decision, where it is none of ours.
pub fn comment(text: Option<&str>) -> Result<Comment, Decision> {
    let comment = text.unwrap_or_default().parse();
    comment.map_err(|error: CommentError| Decision::ignored(Reason::ByHand, error.to_string()))
}

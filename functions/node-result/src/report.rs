//! Reports: what a node, or SSM in its place, says of the images of a command.

use std::collections::BTreeMap;

use aws_sdk_ssm::{operation::get_command_invocation::GetCommandInvocationOutput, types::CommandInvocationStatus};
use chrono::{DateTime, Utc};
use prefetch::{
    command::{Comment, CommentError, Trigger},
    image::Image,
    node::is_instance_id,
    outcome::{Boot, Line, Status, is_not_applicable},
    rows::Outcome,
    rule::is_name,
    usage_line::{UsageLine, UsageTotals},
};

use crate::{
    decision::{DecisionReason, Explanation},
    event::{CommandEnded, moment},
};

/// Counts the characters of a report that SSM returns (SSM service model, `StandardOutputContent`).
const MAX_REPORT: usize = 24_000;
/// Limits how many images a node is believed to run: more than a report of such a length has room for.
const MAX_USAGE: usize = 500;
/// Stands where SSM cut a report off.
const TRUNCATED: &str = "---Output truncated---";
/// Lists what the agent reports, with success, of a node that is no Linux: it lacks the plugin of the document's step, or the
/// step is not for it (amazon-ssm-agent, which looks for the plugin first).
const NOT_FOR_IT: [&str; 2] = ["unsupported plugin: aws:runShellScript", "unsatisfied preconditions"];
/// Is the reason of every image on a node that is none of EC2's, whatever it reports.
const HYBRID: &str = "hybrid-node";
/// Is the document's exit code where it refuses to run.
const REFUSED: i32 = 2;

/// Holds the lines of a report: those of the command's own images, those of what user data brought before kubelet started,
/// by boot, and those of what the node runs.
#[derive(Debug, Default)]
struct Lines {
    of_command: BTreeMap<Image, Line>,
    of_boots: BTreeMap<Boot, BTreeMap<Image, Outcome>>,
    of_usage: Vec<UsageLine>,
    totals: Option<UsageTotals>,
    /// True where they are all that the node wrote.
    are_all: bool,
}

/// Holds SSM's answer about a command on a node, with the node's report in it.
#[derive(Debug)]
pub struct Report {
    pub event: CommandEnded,
    pub node: String,
    /// The command's comment, or why it belongs to no job.
    pub comment: Result<Comment, Explanation>,
    pub ended_at: DateTime<Utc>,
    lines: Lines,
    /// True where every image of the command has its line.
    is_complete: bool,
    /// Tells why an image without a line is not there.
    missing: &'static str,
}

impl Report {
    /// Reads SSM's answer.
    ///
    /// # Errors
    /// Where the command runs still.
    pub fn read(event: &CommandEnded, node: &str, answer: &GetCommandInvocationOutput) -> Result<Self, Explanation> {
        let status = answer.status().filter(|status| has_ended(status));
        if status.is_none() && !event.overdue {
            let status = answer.status().map_or("unknown", CommandInvocationStatus::as_str);
            let message = format!("its status in SSM is {status}");
            return Err(Explanation::new(DecisionReason::NotEnded, message));
        }
        let is_hybrid = !is_instance_id(node);
        let text = answer.standard_output_content().unwrap_or_default();
        let lines = Lines::read(if is_hybrid { "" } else { text });
        let details = answer.status_details().unwrap_or_default().replace(' ', "");
        let exit_code = answer.response_code();
        Ok(Self {
            event: event.clone(),
            node: node.to_owned(),
            comment: comment(answer.comment()),
            ended_at: answer.execution_end_date_time().and_then(moment).unwrap_or(event.time),
            is_complete: lines.are_all && lines.are_of_document(&details, exit_code),
            missing: match status {
                _ if is_hybrid => HYBRID,
                None => "overdue",
                Some(_) => missing(&details, exit_code, text),
            },
            lines,
        })
    }

    /// Names the command whose images have to be looked up, because the report may not name them all; an inventory has none.
    pub fn unsure_command(&self) -> Option<&str> {
        let names_images = |comment: &Comment| comment.trigger != Trigger::Inventory;
        let is_unsure = !self.is_complete && self.comment.as_ref().is_ok_and(names_images);
        is_unsure.then_some(self.event.command.as_str())
    }

    /// Gives the images that the node runs, or that kubelet pulled there.
    pub fn usage(&self) -> &[UsageLine] {
        &self.lines.of_usage
    }

    /// Gives the totals of the node's usage, where it says any.
    pub fn totals(&self) -> Option<UsageTotals> {
        self.lines.totals
    }

    /// Takes out the outcomes of the node's boots.
    pub fn take_boots(&mut self) -> BTreeMap<Boot, BTreeMap<Image, Outcome>> {
        std::mem::take(&mut self.lines.of_boots)
    }

    /// Takes out what became of each image in an attempt, of the images that the command names where they were looked up.
    pub fn take_outcomes(&mut self, named: Option<&[Image]>, attempt: u8) -> BTreeMap<Image, Outcome> {
        let mut lines = std::mem::take(&mut self.lines.of_command);
        let Some(named) = named else {
            return lines.into_values().map(|line| reported(line, attempt)).collect();
        };
        let outcome = |image: &Image| match lines.remove(image) {
            Some(line) => reported(line, attempt),
            None => (image.clone(), unreported(self.missing, attempt)),
        };
        named.iter().map(outcome).collect()
    }
}

impl Lines {
    /// Reads a report; of two lines of an image the last counts.
    fn read(report: &str) -> Self {
        let mut lines = Self {
            are_all: report.chars().count() < MAX_REPORT && !report.contains(TRUNCATED),
            ..Self::default()
        };
        for text in report.lines().filter(|text| !text.trim().is_empty()) {
            let is_taken = lines.take(text);
            lines.are_all &= is_taken;
        }
        lines.are_all &= !lines.of_command.is_empty();
        lines
    }

    /// Takes a line; returns false where it is garbled.
    fn take(&mut self, text: &str) -> bool {
        if let Some(line) = Line::parse(text) {
            return self.take_outcome(line);
        }
        if let Some(line) = UsageLine::parse(text) {
            if self.of_usage.len() < MAX_USAGE {
                self.of_usage.push(line);
            }
            return true;
        }
        let totals = UsageTotals::parse(text);
        self.totals = totals.or(self.totals);
        totals.is_some()
    }

    /// Takes an outcome; returns false where it is of a boot by a rule whose name is none.
    fn take_outcome(&mut self, mut line: Line) -> bool {
        match line.boot.take() {
            None => {
                self.of_command.insert(line.image.clone(), line);
                true
            }
            Some(boot) if is_name(&boot.rule) => {
                let (image, outcome) = reported(line, 1);
                self.of_boots.entry(boot).or_default().insert(image, outcome);
                true
            }
            Some(_) => false,
        }
    }

    /// Returns true where the document came to its own end: it exits with 1 where it says that an image failed, else with 0.
    fn are_of_document(&self, details: &str, exit_code: i32) -> bool {
        let has_failed = || self.of_command.values().any(|line| line.status == Status::Failed);
        match (details, exit_code) {
            ("Success", 0) => true,
            ("Failed", 1) => has_failed(),
            _ => false,
        }
    }
}

/// Reads a command's comment, or tells why it is none of ours.
pub fn comment(text: Option<&str>) -> Result<Comment, Explanation> {
    let comment = text.unwrap_or_default().parse();
    comment.map_err(|error: CommentError| Explanation::new(DecisionReason::ByHand, error.to_string()))
}

/// Returns true where a status is one that no other follows.
fn has_ended(status: &CommandInvocationStatus) -> bool {
    use CommandInvocationStatus::{Cancelled, Failed, Success, TimedOut};
    matches!(status, Success | Failed | TimedOut | Cancelled)
}

/// Gives the reason of an image without a line, by what SSM says of a command that ended (Run Command, command statuses).
fn missing(details: &str, exit_code: i32, stdout: &str) -> &'static str {
    match details {
        "Undeliverable" => "undeliverable",
        "DeliveryTimedOut" => "delivery-timed-out",
        "ExecutionTimedOut" => "execution-timed-out",
        "Terminated" => "terminated",
        "RateExceeded" => "rate-exceeded",
        "Cancelled" => "cancelled",
        "AccessDenied" => "access-denied",
        "InvalidPlatform" => "invalid-platform",
        "Success" if NOT_FOR_IT.iter().any(|words| stdout.contains(words)) => "invalid-platform",
        "Failed" if exit_code == REFUSED => "unsupported",
        _ => "unreported",
    }
}

fn reported(line: Line, attempt: u8) -> (Image, Outcome) {
    let outcome = Outcome {
        status: line.status,
        reason: line.reason,
        seconds: line.seconds,
        bytes: line.bytes,
        attempts: line.attempts,
        attempt,
        reported: true,
    };
    (line.image, outcome)
}

fn unreported(reason: &str, attempt: u8) -> Outcome {
    let status = if is_not_applicable(Status::Skipped, reason) {
        Status::Skipped
    } else {
        Status::Failed
    };
    Outcome {
        status,
        reason: reason.to_owned(),
        seconds: 0.0,
        bytes: 0,
        attempts: 0,
        attempt,
        reported: false,
    }
}

//! How a command went on a node: SSM's answer, and the node's report in it.

use std::collections::BTreeMap;

use aws_sdk_ssm::{operation::get_command_invocation::GetCommandInvocationOutput, types::CommandInvocationStatus};
use chrono::{DateTime, Utc};
use prefetch::{
    command::Comment,
    image::Image,
    node::is_instance_id,
    outcome::{Line, Status, is_not_applicable},
    rows::Outcome,
};

use crate::{
    boots::Boots,
    decision::{Decision, Reason},
    event::{Ended, moment},
    observation::{Finding, Found, Job, Report, comment},
};

/// How many characters of a report SSM returns (SSM service model, `StandardOutputContent`).
const MAX_REPORT: usize = 24_000;
/// What SSM writes where it cut a report off.
const TRUNCATED: &str = "---Output truncated---";
/// What the agent reports, with success, of a node that is no Linux: it lacks the plugin of the document's step, or the step
/// is not for it (amazon-ssm-agent, which looks for the plugin first).
const NOT_FOR_IT: [&str; 2] = ["unsupported plugin: aws:runShellScript", "unsatisfied preconditions"];
/// What is said of every image on a node that is none of EC2's, whatever it reports.
const HYBRID: &str = "hybrid-node";
/// The document's exit code where it refuses to run.
const REFUSED: i32 = 2;

/// SSM's answer of a command on a node, and the node's report in it.
#[derive(Debug)]
pub struct Invocation {
    ended: Ended,
    node: String,
    /// The command's comment, or what is decided where it belongs to no job.
    comment: Result<Comment, Decision>,
    ended_at: DateTime<Utc>,
    lines: BTreeMap<Image, Line>,
    /// Holds what it brings along of the node's boots.
    boots: Boots,
    /// Why an image without a line is not there.
    missing: &'static str,
    /// Whether every image has its line.
    whole: bool,
}

impl Invocation {
    /// Reads SSM's answer.
    ///
    /// # Errors
    /// The decision, where the command runs still.
    pub fn read(ended: Ended, node: String, answer: &GetCommandInvocationOutput) -> Result<Self, Decision> {
        let status = answer.status();
        if !status.is_some_and(has_ended) && !ended.overdue {
            let status = status.map_or("unknown", CommandInvocationStatus::as_str);
            return Err(Decision::handed_back(
                Reason::NotEnded,
                format!("its status in SSM is {status}"),
            ));
        }
        let details = answer.status_details().unwrap_or_default().replace(' ', "");
        let exit_code = answer.response_code();
        let report = answer.standard_output_content().unwrap_or_default();
        let is_hybrid = !is_instance_id(&node);
        let mut boots = Boots::default();
        let (lines, all_read) = lines(if is_hybrid { "" } else { report }, &mut boots);
        Ok(Self {
            comment: comment(answer.comment()),
            boots,
            ended_at: answer.execution_end_date_time().and_then(moment).unwrap_or(ended.time),
            missing: if is_hybrid {
                HYBRID
            } else {
                missing(status, &details, exit_code, report)
            },
            whole: all_read && is_end(&details, exit_code, &lines),
            lines,
            node,
            ended,
        })
    }

    /// The event.
    pub fn ended(&self) -> &Ended {
        &self.ended
    }

    /// The command that has to be asked for its images, because the report may not name them all.
    pub fn unsure_command(&self) -> Option<&str> {
        (!self.whole && self.comment.is_ok()).then_some(self.ended.command.as_str())
    }

    /// Takes out what the node's boots were found to have brought, which are jobs of their own.
    pub fn take_boots(&mut self) -> Vec<Finding> {
        let boots = std::mem::take(&mut self.boots);
        boots.findings(&self.ended, &self.node, self.ended_at)
    }

    /// Tells what became of each image, given the images that the command names where they were asked for.
    ///
    /// # Errors
    /// The decision, where the command belongs to no job, or names no image: it is none of ours, whatever its comment.
    pub fn finding(self, named: Option<&[Image]>) -> Result<Finding, Decision> {
        let comment = self.comment?;
        let attempt = comment.attempt;
        let mut lines = self.lines;
        let outcomes: BTreeMap<Image, Outcome> = match named {
            None => lines.into_values().map(|line| reported(line, attempt)).collect(),
            Some(named) => named
                .iter()
                .map(|image| match lines.remove(image) {
                    Some(line) => reported(line, attempt),
                    None => (image.clone(), unreported(self.missing, attempt)),
                })
                .collect(),
        };
        if outcomes.is_empty() {
            return Err(Decision::handed_back(Reason::Malformed, "the command names no image"));
        }
        Ok(Finding {
            job: Job::of(&self.ended, &comment),
            found: Found::Node(Report {
                node: self.node,
                attempt,
                ended_at: self.ended_at,
                outcomes,
            }),
            ended: self.ended,
        })
    }
}

/// Whether a status is one that no other follows.
fn has_ended(status: &CommandInvocationStatus) -> bool {
    use CommandInvocationStatus::{Cancelled, Failed, Success, TimedOut};
    matches!(status, Success | Failed | TimedOut | Cancelled)
}

/// Reads a report: its lines by image, the last of two counting, and whether it holds all that the node wrote. The lines of
/// boots go to these.
fn lines(report: &str, boots: &mut Boots) -> (BTreeMap<Image, Line>, bool) {
    let mut lines = BTreeMap::new();
    let mut all_read = report.chars().count() < MAX_REPORT && !report.contains(TRUNCATED);
    for text in report.lines().filter(|text| !text.trim().is_empty()) {
        match Line::parse(text) {
            Some(line) if line.boot.is_none() => {
                lines.insert(line.image.clone(), line);
            }
            line => all_read &= line.is_some_and(|line| boots.take(line)),
        }
    }
    all_read &= !lines.is_empty();
    (lines, all_read)
}

/// Whether the document came to its own end: it exits with 1 where it says that an image failed, else with 0.
fn is_end(details: &str, exit_code: i32, lines: &BTreeMap<Image, Line>) -> bool {
    let has_failed = || lines.values().any(|line| line.status == Status::Failed);
    match (details, exit_code) {
        ("Success", 0) => true,
        ("Failed", 1) => has_failed(),
        _ => false,
    }
}

/// Tells why an image has no line, by what SSM says of the command on the node (Run Command, command statuses).
fn missing(status: Option<&CommandInvocationStatus>, details: &str, exit_code: i32, stdout: &str) -> &'static str {
    if !status.is_some_and(has_ended) {
        return "overdue";
    }
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

pub fn reported(line: Line, attempt: u8) -> (Image, Outcome) {
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

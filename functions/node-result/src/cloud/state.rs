//! The services' memory, and the names of what is in it.

use std::collections::BTreeMap;

use aws_sdk_ssm::types::CommandInvocationStatus;
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::mocks::{Calls, Table};
use serde_json::{Value, json};

pub const COMMAND: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";
pub const DOCUMENT: &str = "eks-image-prefetch-prefetch-images";

/// Gives the id of the k-th command; the first is the one of the event files.
pub fn command_id(k: usize) -> String {
    if k == 1 {
        COMMAND.to_owned()
    } else {
        format!("{}{k:04}", &COMMAND[..32])
    }
}

/// Gives the id of the k-th node.
pub fn node_id(k: usize) -> String {
    format!("i-0abc{k:013}")
}

/// Gives the reference of the k-th image; the first is the one of the event files.
pub fn image(k: usize) -> String {
    let digest = format!(
        "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd{:08}",
        12_345_677 + k
    );
    format!(
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1.4.{}@{digest}",
        k + 1
    )
}

/// Tells when the commands of the event files were sent.
pub fn requested_at() -> DateTime<Utc> {
    "2026-11-16T01:54:34.049Z".parse().unwrap()
}

pub fn now() -> DateTime<Utc> {
    requested_at() + TimeDelta::seconds(20)
}

/// Writes a line of a report, as the document prints it.
pub fn line(image: &str, status: &str, reason: &str) -> String {
    let (_, digest) = image.rsplit_once('@').unwrap();
    let bytes = if status == "pulled" { 25_166_482 } else { 0 };
    let line = json!({"image": image, "digest": digest, "status": status, "reason": reason, "seconds": 0.412, "bytes": bytes, "attempts": 1});
    format!("{line}\n")
}

/// Writes a line of usage, as the document prints it.
pub fn usage_line(image: &str, running: u32, prefetched: bool) -> String {
    let line = json!({"usage": image, "running": running, "prefetched": prefetched, "bytes": 1000});
    format!("{line}\n")
}

/// Writes the line of a node's totals, as the document prints it.
pub fn totals(pod_images: u32, present: u32, first_used: u64) -> String {
    let totals = json!({
        "images": 3, "leftOut": 0, "podImages": pod_images, "podImagesPresent": present, "firstUsedBytes": first_used,
    });
    format!("{}\n", json!({"usageTotals": totals}))
}

/// Names the hook in which instances wait, where there is one.
pub const HOOK: &str = "prefetch";
/// Names the error by which DynamoDB says that there is too much to do.
pub const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// Is a command as SSM knows it.
#[derive(Clone, Debug)]
pub struct Command {
    pub comment: String,
    pub images: Vec<String>,
    pub requested_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub targets: i32,
    pub invocations: BTreeMap<String, Invocation>,
}

/// Is a command on a node as SSM knows it.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub status: CommandInvocationStatus,
    pub details: String,
    pub exit_code: i32,
    pub stdout: String,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Invocation {
    /// Makes one that ended ten seconds after its request with this report, as the document ends.
    pub fn reporting(stdout: impl Into<String>) -> Self {
        let stdout = stdout.into();
        let failed = stdout.contains(r#""status":"failed""#);
        let status = if failed { "Failed" } else { "Success" };
        Self {
            exit_code: failed.into(),
            stdout,
            ended_at: Some(requested_at() + TimeDelta::seconds(10)),
            ..Self::without_report(status, status)
        }
    }

    /// Makes one that ended, or did not, without a word of the node.
    pub fn without_report(status: &str, details: &str) -> Self {
        Self {
            status: status.into(),
            details: details.to_owned(),
            exit_code: -1,
            stdout: String::new(),
            ended_at: None,
        }
    }
}

/// Holds the services' memory.
#[derive(Debug, Default)]
pub struct State {
    pub commands: BTreeMap<String, Command>,
    pub table: Table,
    pub objects: BTreeMap<String, String>,
    /// Messages by queue, with their delays.
    pub messages: Vec<(String, i32, Value)>,
    /// The lifecycle state of each instance of the group `nodes`.
    pub lifecycle: BTreeMap<String, &'static str>,
    pub calls: Calls,
    /// Tells how many commands or invocations a page has.
    pub page: Option<usize>,
}

impl State {
    /// Gives a page and the token of the next; an empty token ends a list as none does.
    pub fn page<T: Clone>(&self, all: &[T], token: Option<&str>) -> (Vec<T>, String) {
        let from = token.map_or(0, |token| token.parse().unwrap());
        let to = all.len().min(from + self.page.unwrap_or(50));
        let token = if to < all.len() { to.to_string() } else { String::new() };
        (all[from..to].to_vec(), token)
    }
}

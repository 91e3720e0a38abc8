mod boot;
mod event;
mod explored;
mod fault;
mod inventory;
mod launch_hook;
mod not_applicable;
mod order;
mod report;
mod retry;
mod stored;
mod usage;
mod usage_order;

use aws_sdk_dynamodb::types::AttributeValue;
use prefetch::{
    command::{MAX_IMAGES, Trigger},
    rows::Key,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cloud::{
    COMMAND, Cloud, Invocation, THROTTLED, command_id, event_of, event_of_command, image, line, node_id, now,
};

const SUCCESS: &str = include_str!("../../../../events/node-result.success.json");
const FAILED: &str = include_str!("../../../../events/node-result.failed.json");
const OVERDUE: &str = include_str!("../../../../events/node-result.overdue.json");
const OF_COMMAND: &str = include_str!("../../../../events/node-result.command.json");
const WITHOUT_NODES: &str = include_str!("../../../../events/node-result.command-without-nodes.json");

/// Gives the longest reference there is.
fn longest_image(k: usize) -> String {
    let digest = format!("sha256:{k:064x}");
    let (repository, tag) = ("r".repeat(255), "t".repeat(128));
    format!("123456789012.dkr.ecr.ap-southeast-1.amazonaws.com.cn/{repository}:{tag}@{digest}")
}

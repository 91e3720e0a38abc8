//! Settings and messages of the tests.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use prefetch::{
    ecr::NewestImages,
    launch::Launches,
    mocks::{self, Calls, Table},
    rule_images::RuleImages,
    settings::Outcomes,
    usage::Usage,
};
use serde_json::{Value, json};

pub use prefetch::mocks::settings::settings;

pub const NOW: Duration = Duration::from_secs(1_794_793_474);
pub const ONE: &str = "i-0abc0000000000001";
pub const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";
pub const JOB: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";
pub const CLUSTER_TAG: &str = "aws:eks:cluster-name";
pub const REGISTRY: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
pub const RUNNING: &str = include_str!("../../../../../events/node-launch.running.json");
pub const RETRY: &str = include_str!("../../../../../events/node-launch.retry.json");
pub const MISSING: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1.4.2@sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";
pub type LaunchTable = Arc<std::sync::Mutex<(Calls, Table)>>;

pub fn launches(table: &LaunchTable) -> Launches {
    Launches::with_client(mocks::dynamodb(table, |(calls, table)| (calls, table)), "outcomes")
}

/// Makes the images of rules, of what this ECR and the table tell.
pub fn rule_images(ecr: aws_sdk_ecr::Client, table: &LaunchTable, rules: &str) -> RuleImages {
    let client = mocks::dynamodb(table, |(calls, table)| (calls, table));
    let newest = NewestImages::with_client(ecr, "us-east-1".to_owned(), &settings(rules));
    RuleImages::with(newest, Usage::with_client(client, "outcomes", 14), REGISTRY.to_owned())
}

/// Messages of one launch as a batch of SQS, each with how often it was received, and with their places as message ids.
pub fn received(receives: &[u32]) -> String {
    let record = |(place, receives): (usize, &u32)| {
        let attributes = json!({"ApproximateReceiveCount": receives.to_string()});
        json!({"messageId": place.to_string(), "body": RUNNING, "attributes": attributes})
    };
    let records: Vec<Value> = receives.iter().enumerate().map(record).collect();
    json!({"Records": records}).to_string()
}

/// Makes a batch of SQS of these bodies, with their places as message ids.
pub fn batch(bodies: &[String]) -> String {
    let record = |(place, body): (usize, &String)| json!({"messageId": place.to_string(), "body": body});
    let records: Vec<Value> = bodies.iter().enumerate().map(record).collect();
    json!({"Records": records}).to_string()
}

pub fn outcomes() -> Outcomes {
    Outcomes {
        table: "outcomes".to_owned(),
        retention: Duration::from_hours(24),
    }
}

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

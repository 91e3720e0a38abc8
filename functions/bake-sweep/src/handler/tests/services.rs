//! The state of the faked services.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, Tag};
use aws_sdk_sfn::types::ExecutionStatus;
use prefetch::bake::{CLUSTER_TAG, STACK_TAG};

pub const PRUNE: &str = include_str!("../../../../../events/bake-sweep.prune.json");
pub const CLEAN_UP: &str = include_str!("../../../../../events/bake-sweep.clean-up.json");
pub const SCHEDULE: &str = include_str!("../../../../../events/bake-sweep.schedule.json");
pub const FAILED: &str = include_str!("../../../../../events/bake-sweep.execution-failed.json");
/// Names the execution that the events tell of.
pub const OWN: &str = "arn:aws:states:eu-central-1:123456789012:execution:eks-image-prefetch-bake-snapshot:0b9d4c1e";
pub const OTHER: &str = "arn:aws:states:eu-central-1:123456789012:execution:eks-image-prefetch-bake-snapshot:other";
pub type Tags = Vec<(String, String)>;

/// Holds what the services know, and the calls to them.
#[derive(Default)]
pub struct Services {
    /// The instances and the snapshots that carry our tags, with their further tags.
    pub instances: BTreeMap<String, Tags>,
    pub snapshots: BTreeMap<String, Tags>,
    /// The statuses of the executions that there are.
    pub executions: BTreeMap<String, ExecutionStatus>,
    pub redrives: i32,
    pub parameters: BTreeMap<String, String>,
    pub deleted_parameters: Vec<String>,
    /// The launch templates, each version with the snapshots that it names.
    pub templates: BTreeMap<String, Vec<Vec<String>>>,
    /// The zones in which snapshots are restored fast, and in which that was disabled.
    pub restores: BTreeMap<String, Vec<String>>,
    pub disabled: BTreeMap<String, Vec<String>>,
    pub refuses_zones: bool,
    pub calls: Vec<&'static str>,
    /// The call that is throttled.
    pub fault: Option<&'static str>,
    /// The call whose answer lacks what it was asked for.
    pub half: Option<&'static str>,
    /// The error codes by which resources are refused.
    pub refused: BTreeMap<String, &'static str>,
}

impl Services {
    /// Notes a call, and gives the code of the error that it meets.
    pub fn call(&mut self, name: &'static str, resource: &str) -> Option<&'static str> {
        self.calls.push(name);
        let is_throttled = self.fault == Some(name);
        let refused = self.refused.get(resource).copied();
        if is_throttled { Some("Throttled") } else { refused }
    }
}

pub fn owned(tags: &[(&str, &str)]) -> Tags {
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    tags.collect()
}

/// Returns all tags of what carries ours and these.
pub fn tagged(tags: &Tags) -> Vec<Tag> {
    let ours = owned(&[(STACK_TAG, "eks-image-prefetch"), (CLUSTER_TAG, "prod")]);
    let tags = ours
        .iter()
        .chain(tags)
        .map(|(key, value)| Tag::builder().key(key).value(value).build());
    tags.collect()
}

/// Makes a page of two rows, and the token for the next.
pub fn page<T>(rows: impl Iterator<Item = T>, token: Option<&str>) -> (Vec<T>, Option<String>) {
    let from: usize = token.map_or(0, |token| token.parse().unwrap());
    let mut rows = rows.skip(from);
    let page = rows.by_ref().take(2).collect();
    (page, rows.next().map(|_| (from + 2).to_string()))
}

pub fn words(filters: &[Filter]) -> Vec<String> {
    let words = filters
        .iter()
        .map(|filter| format!("{}={}", filter.name().unwrap(), filter.values().join(",")));
    words.collect()
}

/// Returns true where something has the further tags that filters ask for.
pub fn carry(tags: &Tags, filters: &[String]) -> bool {
    let further = filters[2..].iter().filter_map(|filter| filter.strip_prefix("tag:"));
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    further.into_iter().all(|filter| tags.contains(&filter.to_owned()))
}

/// An error as a service answers it that does not say more than a code.
macro_rules! fault {
    ($service:ident, $error:ident, $code:expr) => {
        MockResponse::Error($error::generic(
            $service::error::ErrorMetadata::builder()
                .code($code)
                .message("no")
                .build(),
        ))
    };
}

pub(super) use fault;

pub const OURS: [&str; 2] = [
    "tag:bake-snapshot/stack=eks-image-prefetch",
    "tag:bake-snapshot/cluster=prod",
];

//! Describes what the mocked services know, and how it is named.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Instance, OperatorResponse};
use aws_sdk_ssm::{
    primitives::DateTime as Moment,
    types::{Command, InstanceInformation},
};
use chrono::{DateTime, Utc};
use prefetch::mocks::{Calls, Table, parameters::Parameters};

use crate::tests::cloud::settings::REGISTRY;

pub fn now() -> DateTime<Utc> {
    "2026-11-16T01:54:34.049Z".parse().unwrap()
}

/// Gives the id of the k-th command that is sent, from 1.
pub fn command_id(k: usize) -> String {
    format!("e8d3c0e4-71f7-4491-898f-{k:012x}")
}

/// Gives the id of the k-th node.
pub fn node_id(k: usize) -> String {
    format!("i-0abc{k:013}")
}

/// Makes a digest that a text stands for.
pub fn digest(text: &str) -> String {
    let hex: String = text
        .bytes()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("sha256:{hex:0<64.64}")
}

/// Names the image that a tag is, as nodes are sent it.
pub fn image(repository: &str, tag: &str) -> String {
    format!("{REGISTRY}/{repository}:{tag}@{}", digest(tag))
}

pub fn moment(at: DateTime<Utc>) -> Moment {
    Moment::from_millis(at.timestamp_millis())
}

/// Gives the operator of an instance that EKS Auto Mode manages.
pub fn auto_mode() -> OperatorResponse {
    OperatorResponse::builder()
        .managed(true)
        .principal("eks.amazonaws.com")
        .build()
}

/// Holds what the services know and were told.
#[derive(Debug, Default)]
pub struct State {
    /// The commands in the order of their sending.
    pub commands: Vec<Command>,
    pub table: Table,
    pub parameters: Parameters,
    /// The instances, and what SSM knows of them.
    pub instances: BTreeMap<String, (Instance, Option<InstanceInformation>)>,
    /// Nodes that SSM refuses whatever it says of them.
    pub refused: BTreeSet<String>,
    /// The nodes on which IAM does not permit commands.
    pub denied: BTreeSet<String>,
    /// Nodes that go offline the moment they are sent something.
    pub vanishing: BTreeSet<String>,
    /// Repositories with the tags of their images, oldest first; a tag's digest is [`digest`].
    pub repositories: BTreeMap<String, Vec<String>>,
    /// Tags of what no node can run.
    pub charts: BTreeSet<String>,
    /// The tags of images in ECR's archive.
    pub archived: BTreeSet<String>,
    /// Is true where ECR leaves out what is not there, where others answer with an error.
    pub leaves_out: bool,
    /// The commands that were told to stop.
    pub cancelled: Vec<String>,
    pub calls: Calls,
    /// Tells how many commands a page has.
    pub page: Option<usize>,
    /// The time, by SSM's clock.
    pub now: DateTime<Utc>,
}

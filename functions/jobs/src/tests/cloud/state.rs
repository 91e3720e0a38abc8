//! Describes what the mocked services know, and how it is named.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Instance, OperatorResponse};
use aws_sdk_ssm::{
    primitives::DateTime as Moment,
    types::{Command, InstanceInformation},
};
use chrono::{DateTime, Utc};
use prefetch::mocks::{
    Calls, Table,
    ecr::{Registry, RegistryImage},
    parameters::Parameters,
};

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
    /// Holds what ECR knows; a tag's digest is [`digest`].
    pub registry: Registry,
    /// The commands that were told to stop.
    pub cancelled: Vec<String>,
    pub calls: Calls,
    /// Tells how many commands a page has.
    pub page: Option<usize>,
    /// The time, by SSM's clock.
    pub now: DateTime<Utc>,
}

impl State {
    /// Gives a repository these images and no others, oldest first, each by its tags with a space between them.
    pub fn set_repository<T: AsRef<str>>(&mut self, name: &str, images: impl IntoIterator<Item = T>) {
        self.registry.repositories.insert(name.to_owned(), Vec::new());
        images.into_iter().for_each(|tags| self.push(name, tags.as_ref()));
    }

    /// Pushes an image to a repository, by its tags with a space between them.
    pub fn push(&mut self, repository: &str, tags: &str) {
        let images = self.registry.repositories.entry(repository.to_owned()).or_default();
        let tags: Vec<&str> = tags.split(' ').collect();
        let pushed_at = i64::try_from(images.len()).unwrap();
        images.push(RegistryImage::new(&digest(tags[0]), &tags, pushed_at));
    }

    /// Returns the images of `team/app`.
    pub fn app(&mut self) -> &mut Vec<RegistryImage> {
        self.registry.repositories.get_mut("team/app").unwrap()
    }
}

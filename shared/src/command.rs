//! Commands: one SendCommand request for images, nodes and a reason.

use std::fmt;

use aws_sdk_ssm::{operation::send_command::builders::SendCommandInputBuilder, types::Target};
use serde::Serialize;

use crate::{image::Image, rule::Rule, settings::Settings};

/// How many instance ids one SendCommand takes (SSM service model, `InstanceIds`).
pub const MAX_INSTANCES: usize = 50;
/// How many images one command carries. The document takes 50, but SSM returns 24,000 characters of a node's report
/// (`GetCommandInvocation`), and the line of an image with the longest names takes 680.
pub const MAX_IMAGES: usize = 30;

/// What made a command necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// An image was pushed.
    Push,
    /// A node was launched.
    Launch,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Push => "push",
            Self::Launch => "launch",
        })
    }
}

/// The nodes a command goes to.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Those that carry the tags, resolved by SSM: one call whatever their number.
    Targets(Vec<Target>),
    /// Those with these instance ids, at most [`MAX_INSTANCES`].
    Instances(Vec<String>),
}

/// Builds the request that brings images to nodes under a rule's rate control.
///
/// The newest version of the document is named, so that a version that lags behind as default is never run. The comment
/// stays below SSM's 100 characters whatever the rule's name.
#[must_use]
pub fn send_command_input(
    settings: &Settings,
    rule: &Rule,
    trigger: Trigger,
    images: &[Image],
    destination: Destination,
) -> SendCommandInputBuilder {
    let list = images.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let input = SendCommandInputBuilder::default()
        .document_name(&settings.document)
        .document_version("$LATEST")
        .parameters("images", vec![list])
        .parameters("executionTimeout", vec![settings.execution_timeout.to_string()])
        .timeout_seconds(settings.delivery_timeout)
        .max_concurrency(&rule.max_concurrency)
        .max_errors(&rule.max_errors)
        .comment(format!("prefetch trigger={trigger} rule={} attempt=1", rule.name));
    match destination {
        Destination::Targets(targets) => input.set_targets(Some(targets)),
        Destination::Instances(ids) => input.set_instance_ids(Some(ids)),
    }
}

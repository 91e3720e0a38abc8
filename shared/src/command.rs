//! Commands: one SendCommand request for images, nodes and a reason.

use std::{collections::HashMap, fmt};

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
    let input = SendCommandInputBuilder::default()
        .document_name(&settings.document)
        .document_version("$LATEST")
        .set_parameters(Some(parameters(settings, rule, images)))
        .timeout_seconds(settings.delivery_timeout)
        .max_concurrency(&rule.max_concurrency)
        .max_errors(&rule.max_errors)
        .comment(format!("prefetch trigger={trigger} rule={} attempt=1", rule.name));
    match destination {
        Destination::Targets(targets) => input.set_targets(Some(targets)),
        Destination::Instances(ids) => input.set_instance_ids(Some(ids)),
    }
}

/// The document's parameters, each with its one value.
fn parameters(settings: &Settings, rule: &Rule, images: &[Image]) -> HashMap<String, Vec<String>> {
    let images = images.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    [
        ("images", images),
        ("executionTimeout", settings.execution_timeout.to_string()),
        (
            "imageGCHighThresholdPercent",
            settings.image_gc_high_threshold.to_string(),
        ),
        ("maxParallelImagePulls", settings.max_parallel_image_pulls.to_string()),
        ("maxImageGiB", rule.max_image_gib.to_string()),
        ("keep", rule.keep.to_string()),
        ("pin", rule.pin.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), vec![value]))
    .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_lite::Regex;
    use serde_json::Value;

    use super::*;
    use crate::{node::Cluster, rule::parse_rules};

    const IMAGE: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    proptest! {
        #[test]
        fn whatever_settings_and_rule_say_reaches_the_document_in_words_it_accepts(
            seconds in 5..=172_800,
            percent in 1..=100,
            pulls in 1..=16,
            gib in 0..=9999_usize,
            keep in 1..=50_usize,
            pin: bool,
        ) {
            let rules = format!(r#"[{{"name": "a", "maxImageGiB": {gib}, "keep": {keep}, "pin": {pin}}}]"#);
            let sent = sent(&settings(&rules, seconds, percent, pulls));
            for (name, value) in [
                ("images", IMAGE.to_owned()),
                ("executionTimeout", seconds.to_string()),
                ("imageGCHighThresholdPercent", percent.to_string()),
                ("maxParallelImagePulls", pulls.to_string()),
                ("maxImageGiB", gib.to_string()),
                ("keep", keep.to_string()),
                ("pin", pin.to_string()),
            ] {
                prop_assert_eq!(&sent[name], &[value]);
            }
            prop_assert_eq!(sent.len(), 7);
            for (name, values) in &sent {
                prop_assert!(accepted_by_the_document(name, &values[0]), "{} {}", name, values[0]);
            }
        }
    }

    #[test]
    fn a_rule_that_says_nothing_of_them_sends_no_limit_no_removal_and_no_pin() {
        let sent = sent(&settings(r#"[{"name": "a"}]"#, 3600, 85, 2));
        for (name, value) in [("maxImageGiB", "0"), ("keep", "0"), ("pin", "false")] {
            assert_eq!(sent[name], [value]);
            assert!(accepted_by_the_document(name, value));
        }
    }

    fn accepted_by_the_document(name: &str, value: &str) -> bool {
        let document: Value = serde_json::from_str(include_str!("../../ssm/document.json")).unwrap();
        let pattern = document["parameters"][name]["allowedPattern"].as_str().unwrap();
        Regex::new(pattern).unwrap().is_match(value)
    }

    fn sent(settings: &Settings) -> HashMap<String, Vec<String>> {
        let images = [IMAGE.parse().unwrap()];
        let nodes = Destination::Instances(vec!["i-0123456789abcdef0".to_owned()]);
        let input = send_command_input(settings, &settings.rules[0], Trigger::Push, &images, nodes);
        input.get_parameters().clone().unwrap()
    }

    fn settings(rules: &str, seconds: i32, percent: i32, pulls: i32) -> Settings {
        Settings {
            cluster: Cluster {
                name: "prod".to_owned(),
                tag_key: "aws:eks:cluster-name".to_owned(),
            },
            document: "prefetch-images".to_owned(),
            rules: parse_rules(rules).unwrap(),
            delivery_timeout: 600,
            execution_timeout: seconds,
            image_gc_high_threshold: percent,
            max_parallel_image_pulls: pulls,
        }
    }
}

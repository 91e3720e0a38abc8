//! The clients and settings that the function works with.

use prefetch::{launch::Launches, rule::Rule, rule_images::RuleImages, sender::Sender, settings::Settings};

use crate::decision::{Decision, Sent};

/// Holds what the function works with.
pub struct NodeLaunch {
    pub ec2: aws_sdk_ec2::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub launches: Launches,
    pub sender: Sender,
    pub images: RuleImages,
    pub settings: Settings,
    /// The most times that the queue delivers a message.
    pub max_receives: u32,
}

impl NodeLaunch {
    /// Decides that a node was sent the images of a rule by these commands, or would have been.
    pub fn sent(&self, rule: &Rule, commands: impl IntoIterator<Item = String>) -> Decision {
        let commands = commands.into_iter().map(|command| Sent {
            rule: rule.name.clone(),
            command,
        });
        let commands = commands.collect();
        if self.sender.observes() {
            Decision::Observed { commands }
        } else {
            Decision::Sent { commands }
        }
    }
}

//! The sending of a rule's images.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use prefetch::{
    aws,
    command::{Comment, Destination, Trigger, images_of_commands},
    ecr::ImagesError,
    image::Image,
    lease::stamp,
    node::NodeSelector,
    rule::Rule,
    sender::{Order, SendError, Sender},
    settings::Settings,
    ssm::SsmError,
    usage::UsageError,
};
use thiserror::Error;

use crate::{
    hash::hash,
    log::log_sent,
    reconcile::lease::{RuleLease, RuleProgress, RuleState},
    store::StoreError,
};

/// Limits how many commands are sent side by side: fewer than the ten that SSM takes in a second.
const AT_ONCE: usize = 6;

/// Names what is left of the function's time when no more is sent: for the calls that are on their way, and to note them.
const SPARED: Duration = Duration::from_secs(10);

/// Names what of that is left to note what was sent.
const NOTING: Duration = Duration::from_secs(3);

/// Tells why a rule could not be reconciled.
#[derive(Debug, Error)]
pub enum RuleError {
    #[error(transparent)]
    Images(#[from] ImagesError),
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Ssm(#[from] SsmError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no time left, and not all was sent")]
    TooSlow,
}

impl RuleError {
    /// Says in a word of whom the cause is.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Images(ImagesError::Unresolved(..)) => "unresolved",
            _ => "aws-error",
        }
    }
}

/// Returns true where no time is left to send more in.
pub fn is_late() -> bool {
    aws::left().is_some_and(|left| left <= SPARED)
}

/// Holds what a rule's images are sent by.
pub struct RuleSender<'a> {
    pub sender: &'a Sender,
    pub settings: &'a Settings,
    pub lease: &'a RuleLease<'a>,
    pub rule: &'a Rule,
}

impl RuleSender<'_> {
    /// Sends those of a rule's images that are not known as sent to all its nodes, as many as fit by one command and some
    /// commands side by side, and notes each: what was sent counts even where the rest was not.
    ///
    /// Tells how far it came, with the first error: where SSM takes none of what is sent side by side, or the time is up, the
    /// rest is left.
    pub async fn send(&self, images: &[Image], progress: &mut RuleProgress) -> (RuleState, Option<RuleError>) {
        let left = images.iter().filter(|image| !progress.sent.contains(&self.mark(image)));
        let left: Vec<Image> = left.cloned().collect();
        let commands: Vec<&[Image]> = images_of_commands(&left).collect();
        let mut groups = commands.chunks(AT_ONCE).peekable();
        let mut failed = None;
        while let Some(together) = groups.next() {
            if is_late() {
                return (RuleState::Stopped, failed.or(Some(RuleError::TooSlow)));
            }
            let before = progress.commands.len();
            failed = failed.or(self.send_together(together, progress).await.map(RuleError::from));
            // What came last is noted with how it ended.
            if groups.peek().is_some() {
                if progress.commands.len() == before {
                    return (RuleState::Stopped, failed);
                }
                if let Err(error) = self.lease.note(progress, RuleState::Working).await {
                    return (RuleState::Stopped, Some(error.into()));
                }
            }
        }
        let state = if failed.is_some() {
            RuleState::Partial
        } else {
            RuleState::Whole
        };
        (state, failed)
    }

    /// Sends some commands side by side; gives the first error.
    async fn send_together(&self, together: &[&[Image]], progress: &mut RuleProgress) -> Option<SendError> {
        let sends = together.iter().map(|images| self.send_one(images));
        let outcomes = aws::sparing(NOTING, join_all(sends)).await;
        let mut failed = None;
        for (outcome, images) in outcomes.into_iter().zip(together) {
            match outcome {
                Ok(command) => {
                    progress.commands.push(command);
                    progress.sent.extend(images.iter().map(|image| self.mark(image)));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed
    }

    async fn send_one(&self, images: &[Image]) -> Result<String, SendError> {
        let now: DateTime<Utc> = self.lease.now;
        let order = Order {
            rule: self.rule,
            comment: &Comment::first(Trigger::Reconcile, self.rule),
            images,
            destination: Destination::Selected(NodeSelector::new(&self.settings.cluster, self.rule)),
            occasion: &stamp(now),
        };
        let command = self.sender.send(self.settings, order, now).await?;
        if !self.sender.observes() {
            log_sent(&command, &self.rule.name, images.len());
        }
        Ok(command)
    }

    fn mark(&self, image: &Image) -> String {
        mark(self.rule, image, self.sender.observes())
    }
}

/// Marks an image in a rule's row, which has room for 20,000 of them: 48 bits of its hash, with the nodes that it went to and
/// if that was observed only.
fn mark(rule: &Rule, image: &Image, observes: bool) -> String {
    let nodes = format!("{:?}", rule.nodes);
    let mut hash = hash(&[&image.to_string(), &nodes, if observes { "observed" } else { "sent" }]);
    hash.truncate(8);
    hash
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_went_to_other_nodes_or_was_observed_only_is_not_known_as_sent() {
        let rules = |nodes| prefetch::rule::parse_rules(&format!(r#"[{{"name": "a", "nodes": {nodes}}}]"#)).unwrap();
        let digest = format!("sha256:{}", "0".repeat(64));
        let image = Image::new("registry.example", "app", Some("v1"), &digest).unwrap();
        let marks = [
            mark(&rules("{}")[0], &image, false),
            mark(&rules("{}")[0], &image, true),
            mark(&rules(r#"{"team": ["ml"]}"#)[0], &image, false),
        ];
        assert_eq!(marks.iter().collect::<BTreeSet<_>>().len(), 3);
    }
}

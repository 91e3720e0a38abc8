//! From an event to commands.

use std::time::SystemTime;

use futures_util::{StreamExt, stream};
use lambda_runtime::Diagnostic;
use prefetch::{
    boot::{BootLists, Kept},
    command::{Comment, Destination, Trigger},
    ecr::{ImagesError, Registries},
    error_text::{error_text, word},
    image::Image,
    node::NodeSelector,
    rule::Rule,
    rule_images::RuleImages,
    sender::{Order, SendError, Sender},
    settings::Settings,
};
use serde::Serialize;
use serde_json::Value;
use tracing::{error, info, warn};

use crate::{
    event::{Arrival, Ignored, IgnoredReason},
    wanted::{Sources, Verdict, Wanted, wanted},
};

/// Bounds the commands that are sent at once: a rule whose command SSM does not answer is not waited for by the others.
const AT_ONCE: usize = 16;

/// The decision of the function: its answer, and what `sam local invoke` shows.
#[derive(Debug, Serialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub enum Decision {
    /// Each rule that wants the image became one command.
    Sent {
        /// The image, by digest.
        image: Image,
        /// The commands, one for each rule.
        commands: Vec<Sent>,
        /// Tells what became of the rules' boot lists, where the stack keeps them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        boot: Vec<Kept>,
    },
    /// The stack observes: what each rule would have sent was recorded.
    Observed {
        /// The image, by digest.
        image: Image,
        /// The jobs, one for each rule.
        commands: Vec<Sent>,
        /// Tells what became of the rules' boot lists, where the stack keeps them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        boot: Vec<Kept>,
    },
    /// Nothing was sent, for this reason.
    Ignored(Ignored),
}

/// One command that was sent, or would have been.
#[derive(Debug, Serialize)]
pub struct Sent {
    /// The rule's name.
    pub rule: String,
    /// The command's id in SSM; an id of the same shape where it was not sent.
    pub command: String,
}

/// Tells what could not be done: worth a retry of the whole event, whose nodes answer `cached` where it reached them.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// A command could not be sent.
    #[error("rule {rule}: image {image}")]
    Send {
        /// The rule's name.
        rule: String,
        /// The image, by digest.
        image: Image,
        /// The reason.
        #[source]
        cause: SendError,
    },
    /// ECR does not tell what the image is.
    #[error("it cannot be told whether it is an image")]
    Image(#[from] ImagesError),
}

impl From<PushError> for Diagnostic {
    fn from(error: PushError) -> Self {
        Self {
            error_type: "PushError".to_owned(),
            error_message: error_text(&error),
        }
    }
}

/// Holds what the function works with.
pub struct ImagePush {
    pub sender: Sender,
    pub registries: Registries,
    pub images: RuleImages,
    /// The boot lists, where the stack keeps them.
    pub boot: Option<BootLists>,
    pub settings: Settings,
}

impl ImagePush {
    /// Sends one command for each rule that wants the image of the event, and whose nodes use its repository where the rule
    /// takes only such: two AWS calls a rule, one where its nodes do not, none where no rule wants it; beside what ECR is asked
    /// where the event does not tell that it is an image. Where the stack keeps boot lists, those of the rules come after the
    /// commands, and fail none.
    ///
    /// A rule whose command cannot be sent does not keep the others from theirs.
    ///
    /// # Errors
    /// [`PushError`] for the first rule whose command could not be sent, after the SDK's own retries, and where ECR cannot be
    /// asked: nothing is sent for what may be no image.
    pub async fn handle(&self, payload: Value, now: SystemTime) -> Result<Decision, PushError> {
        let id = payload["id"].as_str().unwrap_or("unknown").to_owned();
        let verdict = self
            .wanted_image(payload, now)
            .await
            .inspect_err(|error| error!(event.id = id, "{}", error_text(error)))?;
        let wanted = match verdict {
            Ok(wanted) => wanted,
            Err(ignored) => {
                log_ignored(&id, &ignored);
                return Ok(Decision::Ignored(ignored));
            }
        };
        let commands = self.send(&wanted, &id, now).await;
        let boot = self.keep_boot_lists(&wanted, now).await;
        let (image, commands) = (wanted.image, commands?);
        Ok(if self.sender.observes() {
            Decision::Observed { image, commands, boot }
        } else {
            Decision::Sent { image, commands, boot }
        })
    }

    async fn wanted_image(&self, payload: Value, now: SystemTime) -> Result<Verdict<'_>, PushError> {
        match Arrival::read(payload) {
            Ok(arrival) => {
                let sources = Sources {
                    registries: &self.registries,
                    images: &self.images,
                    settings: &self.settings,
                };
                Ok(wanted(&sources, &arrival, now).await?)
            }
            Err(ignored) => Ok(Err(ignored)),
        }
    }

    async fn send(&self, wanted: &Wanted<'_>, id: &str, now: SystemTime) -> Result<Vec<Sent>, PushError> {
        let sends = wanted.rules.iter().enumerate().map(async |(place, (rule, names))| {
            let sent = send(&self.sender, &self.settings, rule, names, (id, now)).await;
            if let Err(error) = &sent {
                error!(
                    event.id = id,
                    image.digest = wanted.image.digest(),
                    rule = rule.name,
                    "{}",
                    error_text(error)
                );
            }
            (place, sent)
        });
        let mut sent: Vec<_> = stream::iter(sends).buffer_unordered(AT_ONCE).collect().await;
        sent.sort_unstable_by_key(|(place, _)| *place);
        let mut commands = Vec::with_capacity(sent.len());
        for (_, sent) in sent {
            commands.push(sent?);
        }
        Ok(commands)
    }

    async fn keep_boot_lists(&self, wanted: &Wanted<'_>, now: SystemTime) -> Vec<Kept> {
        let Some(boot) = &self.boot else {
            return Vec::new();
        };
        let rules: Vec<&Rule> = wanted.rules.iter().map(|(rule, _)| *rule).collect();
        let pushed = (&wanted.image, &rules[..]);
        boot.pushed(&self.settings, &self.images, pushed, now).await
    }
}

async fn send(
    sender: &Sender,
    settings: &Settings,
    rule: &Rule,
    names: &[Image],
    (event, now): (&str, SystemTime),
) -> Result<Sent, PushError> {
    let image = &names[0];
    let order = Order {
        rule,
        comment: &Comment::first(Trigger::Push, rule),
        images: names,
        destination: Destination::Selected(NodeSelector::new(&settings.cluster, rule)),
        occasion: event,
    };
    let command = sender
        .send(settings, order, now.into())
        .await
        .map_err(|cause| PushError::Send {
            rule: rule.name.clone(),
            image: image.clone(),
            cause,
        })?;
    if !sender.observes() {
        info!(
            command.id = command,
            image.digest = image.digest(),
            rule = rule.name,
            "sent {image}"
        );
    }
    Ok(Sent {
        rule: rule.name.clone(),
        command,
    })
}

fn log_ignored(id: &str, ignored: &Ignored) {
    if ignored.reason == IgnoredReason::Malformed {
        warn!(
            event.id = id,
            reason = word(&ignored.reason),
            "event {id} is ignored: {}",
            ignored.message
        );
    } else {
        info!(
            event.id = id,
            reason = word(&ignored.reason),
            "event {id} is ignored: {}",
            ignored.message
        );
    }
}

#[cfg(test)]
mod tests;

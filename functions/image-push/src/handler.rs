//! From an event to commands.

use std::time::SystemTime;

use futures_util::{StreamExt, stream};
use lambda_runtime::Diagnostic;
use prefetch::{
    command::{Comment, Destination, Trigger},
    image::Image,
    node::NodeSelector,
    report::{report, word},
    rule::Rule,
    sender::{Order, SendError, Sender},
    settings::Settings,
};
use serde::Serialize;
use serde_json::Value;
use tracing::{error, info, warn};

use crate::event::{Ignored, Reason, arrived_image};

/// How many commands are sent at once: a rule whose command SSM does not answer is not waited for by the others.
const AT_ONCE: usize = 16;

/// What the function decided: its answer, and what `sam local invoke` shows.
#[derive(Debug, Serialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub enum Decision {
    /// Each rule that wants the image became one command.
    Sent {
        /// The image, by digest.
        image: Image,
        /// The commands, one for each rule.
        commands: Vec<Sent>,
    },
    /// The stack observes: what each rule would have sent was recorded.
    Observed {
        /// The image, by digest.
        image: Image,
        /// The jobs, one for each rule.
        commands: Vec<Sent>,
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

/// A command that could not be sent: worth another try of the whole event, whose nodes answer `cached` where it reached them.
#[derive(Debug, thiserror::Error)]
#[error("rule {rule}: image {image}")]
pub struct PushError {
    rule: String,
    image: Image,
    #[source]
    cause: SendError,
}

impl From<PushError> for Diagnostic {
    fn from(error: PushError) -> Self {
        Self {
            error_type: "PushError".to_owned(),
            error_message: report(&error),
        }
    }
}

/// Sends one command for each rule that wants the image of the event: one AWS call a rule, none where there is no such rule.
///
/// A rule whose command cannot be sent does not keep the others from theirs.
///
/// # Errors
/// [`PushError`] for the first rule whose command could not be sent, after the SDK's own retries.
pub async fn handle(
    sender: &Sender,
    settings: &Settings,
    payload: Value,
    now: SystemTime,
) -> Result<Decision, PushError> {
    let id = payload["id"].as_str().unwrap_or("unknown").to_owned();
    let (image, rules) = match wanted_image(settings, payload) {
        Ok(wanted) => wanted,
        Err(ignored) => {
            log_ignored(&id, &ignored);
            return Ok(Decision::Ignored(ignored));
        }
    };
    let sends = stream::iter(rules).enumerate().map(async |(place, rule)| {
        let sent = send(sender, settings, rule, &image, (&id, now)).await;
        if let Err(error) = &sent {
            error!(
                event.id = id,
                image.digest = image.digest(),
                rule = rule.name,
                "{}",
                report(error)
            );
        }
        (place, sent)
    });
    let mut sent: Vec<_> = sends.buffer_unordered(AT_ONCE).collect().await;
    sent.sort_unstable_by_key(|(place, _)| *place);
    let mut commands = Vec::with_capacity(sent.len());
    let mut failure = None;
    for (_, sent) in sent {
        match sent {
            Ok(sent) => commands.push(sent),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) => Err(error),
        None if sender.observes() => Ok(Decision::Observed { image, commands }),
        None => Ok(Decision::Sent { image, commands }),
    }
}

fn wanted_image(settings: &Settings, payload: Value) -> Result<(Image, Vec<&Rule>), Ignored> {
    let image = arrived_image(payload)?;
    let tag = image.tag().unwrap_or_default();
    let rules: Vec<&Rule> = settings
        .rules
        .iter()
        .filter(|rule| rule.wants(image.repository(), tag))
        .collect();
    if rules.is_empty() {
        let message = format!("no rule wants {}:{tag}", image.repository());
        return Err(Ignored::new(Reason::NoRule, message));
    }
    Ok((image, rules))
}

async fn send(
    sender: &Sender,
    settings: &Settings,
    rule: &Rule,
    image: &Image,
    (event, now): (&str, SystemTime),
) -> Result<Sent, PushError> {
    let order = Order {
        rule,
        comment: &Comment::first(Trigger::Push, rule),
        images: std::slice::from_ref(image),
        destination: Destination::Selected(NodeSelector::new(&settings.cluster, rule)),
        occasion: event,
    };
    let command = sender
        .send(settings, order, now.into())
        .await
        .map_err(|cause| PushError {
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
    if ignored.reason == Reason::Malformed {
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

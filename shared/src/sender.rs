//! Sending: the one place from which commands go to nodes, and where they end in a stack that observes.
//!
//! Only [`Sender`] makes a SendCommand request, and where the stack observes it has no client of SSM to make one with.

mod observer;
mod request;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{error::SdkError, operation::transact_write_items::TransactWriteItemsError};
use aws_sdk_ssm::operation::send_command::SendCommandError;
use chrono::{DateTime, Utc};
use thiserror::Error;

use crate::{
    command::{Comment, Destination},
    image::Image,
    rule::Rule,
    settings::{Mode, Outcomes, Settings},
};
use observer::Observer;
use request::send_command_input;

/// Sends commands, or records them where the stack observes.
#[derive(Debug)]
pub struct Sender(Way);

#[derive(Debug)]
enum Way {
    Send(aws_sdk_ssm::Client),
    Observe(Observer),
}

/// A command that is due: images for nodes by a rule, and why.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The rule, which says how nodes treat the images and how many begin at once.
    pub rule: &'a Rule,
    /// Why it is due.
    pub comment: &'a Comment,
    /// At most [`crate::command::MAX_IMAGES`] images.
    pub images: &'a [Image],
    /// The nodes.
    pub destination: Destination,
    /// What it is due for, such as an event's id: the same order on the same occasion is observed as one job.
    pub occasion: &'a str,
}

/// Why a command could not be sent, or recorded.
#[derive(Debug, Error)]
pub enum SendError {
    /// One of the instances is not registered, not running or not permitted: SSM rejects the whole call and names none.
    #[error("SSM refuses an instance of the command")]
    InvalidInstance(#[source] Box<SendCommandError>),
    /// The command could not be sent.
    #[error("the command could not be sent")]
    Send(#[source] Box<SdkError<SendCommandError>>),
    /// SSM accepted the command and named no id for it.
    #[error("SSM answered without a command id")]
    NoCommandId,
    /// The stack observes, and what would have been sent could not be recorded.
    #[error("what would have been sent could not be recorded")]
    Record(#[source] Box<SdkError<TransactWriteItemsError>>),
}

impl Sender {
    /// Sets up what the mode takes.
    #[must_use]
    pub fn new(config: &SdkConfig, mode: Mode, outcomes: Outcomes) -> Self {
        match mode {
            Mode::Send => Self::sending(aws_sdk_ssm::Client::new(config)),
            Mode::Observe => Self::observing(aws_sdk_dynamodb::Client::new(config), outcomes),
        }
    }

    /// Sends by this client.
    #[must_use]
    pub fn sending(client: aws_sdk_ssm::Client) -> Self {
        Self(Way::Send(client))
    }

    /// Sends nothing, and records in this table what would have been sent.
    #[must_use]
    pub fn observing(client: aws_sdk_dynamodb::Client, outcomes: Outcomes) -> Self {
        Self(Way::Observe(Observer::new(client, outcomes)))
    }

    /// Returns true where nothing is sent.
    #[must_use]
    pub fn observes(&self) -> bool {
        matches!(self.0, Way::Observe(_))
    }

    /// Sends one command and gives its id, or records it and gives an id that SSM gives to none.
    ///
    /// Costs one SendCommand, or one TransactWriteItems; throttling and server errors are tried again by the SDK.
    ///
    /// # Errors
    /// [`SendError::InvalidInstance`] where an instance id is refused, another [`SendError`] for everything else.
    pub async fn send(&self, settings: &Settings, order: Order<'_>, now: DateTime<Utc>) -> Result<String, SendError> {
        match &self.0 {
            Way::Send(client) => send(client, settings, order).await,
            Way::Observe(observer) => observer.observe(settings, order, now).await,
        }
    }
}

async fn send(client: &aws_sdk_ssm::Client, settings: &Settings, order: Order<'_>) -> Result<String, SendError> {
    let input = send_command_input(settings, order.rule, order.comment, order.images, order.destination);
    let output = input.send_with(client).await.map_err(|error| match error {
        SdkError::ServiceError(refused) if refused.err().is_invalid_instance_id() => {
            SendError::InvalidInstance(Box::new(refused.into_err()))
        }
        error => SendError::Send(Box::new(error)),
    })?;
    output
        .command
        .and_then(|command| command.command_id)
        .ok_or(SendError::NoCommandId)
}

#[cfg(all(test, feature = "mocks"))]
mod tests;

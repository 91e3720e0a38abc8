//! The one place that makes a SendCommand request, or records it.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_ssm::{error::ProvideErrorMetadata, operation::send_command::SendCommandError};
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use chrono::{DateTime, Utc};

use super::{doubt::Unanswered, error::SendError, observer::Observer, order::Order, request::send_command_input};
use crate::{
    node::is_instance_id,
    settings::{Mode, Outcomes, Settings},
};

/// Sends commands, or records them where the stack observes.
#[derive(Debug)]
pub struct Sender(pub(super) Backend);

#[derive(Debug)]
pub(super) enum Backend {
    Send(aws_sdk_ssm::Client),
    Observe(Observer),
}

impl Sender {
    /// Sets up what the mode takes.
    #[must_use]
    pub fn new(config: &SdkConfig, mode: Mode, outcomes: Outcomes) -> Self {
        match mode {
            Mode::Send => {
                // What the tries of one command cost is not taken from the next one's: a function makes few calls at a time.
                let tries = RetryPartition::custom("sender").token_bucket(TokenBucket::unlimited());
                let config = aws_sdk_ssm::config::Builder::from(config).retry_partition(tries.build());
                Self::sending(aws_sdk_ssm::Client::from_conf(config.build()))
            }
            Mode::Observe => Self::observing(aws_sdk_dynamodb::Client::new(config), outcomes),
        }
    }

    /// Sends by this client.
    #[must_use]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "whoever has another use for a client clones it"
    )]
    pub fn sending(client: aws_sdk_ssm::Client) -> Self {
        let config = client.config().to_builder().interceptor(Unanswered);
        Self(Backend::Send(aws_sdk_ssm::Client::from_conf(config.build())))
    }

    /// Sends nothing, and records in this table what would have been sent.
    #[must_use]
    pub fn observing(client: aws_sdk_dynamodb::Client, outcomes: Outcomes) -> Self {
        Self(Backend::Observe(Observer::new(client, outcomes)))
    }

    /// Returns true where nothing is sent.
    #[must_use]
    pub fn observes(&self) -> bool {
        matches!(self.0, Backend::Observe(_))
    }

    /// Sends one command and gives its id, or records it and gives an id that SSM gives to none.
    ///
    /// Costs one SendCommand, or one TransactWriteItems; throttling and server errors are tried again by the SDK.
    ///
    /// # Errors
    /// [`SendError::InvalidInstance`] or [`SendError::AccessDenied`] where an instance is refused, another [`SendError`] for
    /// everything else.
    pub async fn send(&self, settings: &Settings, order: Order<'_>, now: DateTime<Utc>) -> Result<String, SendError> {
        match &self.0 {
            Backend::Send(client) => send(client, settings, order).await,
            Backend::Observe(observer) => observer.observe(settings, order, now).await,
        }
    }
}

async fn send(client: &aws_sdk_ssm::Client, settings: &Settings, order: Order<'_>) -> Result<String, SendError> {
    let input = send_command_input(settings, order.rule, order.comment, order.images, order.destination);
    let output = input.send_with(client).await.map_err(|error| match error {
        SdkError::ServiceError(refused) if refused.err().is_invalid_instance_id() => {
            SendError::InvalidInstance(Box::new(refused.into_err()))
        }
        error => match error.as_service_error().and_then(denied_instance).map(str::to_owned) {
            Some(instance) => SendError::AccessDenied {
                instance,
                cause: Box::new(error.into_service_error()),
            },
            None => SendError::Send(Box::new(error)),
        },
    })?;
    output
        .command
        .and_then(|command| command.command_id)
        .ok_or(SendError::NoCommandId)
}

/// Finds the instance on which IAM does not permit the command: `…ssm:SendCommand on resource:
/// arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0 because …`. Where it is the document, all are denied.
fn denied_instance(error: &SendCommandError) -> Option<&str> {
    let message = error
        .message()
        .filter(|_| error.code() == Some("AccessDeniedException"))?;
    let (_, resource) = message.split_once(" on resource: ")?;
    let resource = resource.split_whitespace().next()?;
    let parts: Vec<&str> = resource.splitn(6, ':').collect();
    let ["arn", _, "ec2", _, _, instance] = parts[..] else {
        return None;
    };
    instance.strip_prefix("instance/").filter(|id| is_instance_id(id))
}

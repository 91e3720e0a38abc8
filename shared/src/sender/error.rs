//! Describes why a command could not be sent, or recorded.

use aws_sdk_dynamodb::{error::SdkError, operation::transact_write_items::TransactWriteItemsError};
use aws_sdk_ssm::operation::send_command::SendCommandError;
use thiserror::Error;

use crate::ssm::SsmError;

/// Tells why a command could not be sent, or recorded.
#[derive(Debug, Error)]
pub enum SendError {
    /// One of the instances is not registered or not running: SSM rejects the whole call and names none.
    #[error("SSM refuses an instance of the command")]
    InvalidInstance(#[source] Box<SendCommandError>),
    /// IAM does not permit the command on this instance, and so rejects the whole call.
    #[error("IAM does not permit the command on {instance}")]
    AccessDenied {
        /// The instance's id.
        instance: String,
        /// IAM's answer, which says why.
        #[source]
        cause: Box<SendCommandError>,
    },
    /// SSM refuses an instance, and does not say which are online.
    #[error(transparent)]
    Nodes(Box<SsmError>),
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

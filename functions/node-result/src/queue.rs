//! Queues: how messages are sent.

use std::collections::BTreeSet;

use aws_sdk_sqs::{
    Client,
    error::SdkError,
    operation::send_message_batch::SendMessageBatchError,
    types::{SendMessageBatchRequestEntry, SendMessageBatchResultEntry},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Limits the messages of one SendMessageBatch (SQS API reference).
pub const MAX_MESSAGES: usize = 10;

/// Holds a message for a queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueMessage {
    /// The seconds after which it is to be seen.
    pub seconds: i32,
    /// The message, as JSON.
    pub body: String,
}

/// Tells why messages are not in their queue.
#[derive(Debug, Error)]
pub enum SendError {
    /// SQS did not answer, or refused them all.
    #[error("messages could not be sent")]
    Batch(#[source] Box<SdkError<SendMessageBatchError>>),
    /// SQS refused some of them, or said nothing of them.
    #[error("SQS confirmed {confirmed} of {sent} messages")]
    Unconfirmed {
        /// Tells how many it has taken.
        confirmed: usize,
        /// Tells how many it was sent.
        sent: usize,
    },
}

/// Sends messages to a queue, ten by one call.
///
/// A message is in the queue where SQS says so; what its answer leaves out is not.
///
/// # Errors
/// [`SendError`] where not all of them are known to be in the queue.
pub async fn send(client: &Client, queue: &str, messages: &[QueueMessage]) -> Result<(), SendError> {
    for messages in messages.chunks(MAX_MESSAGES) {
        let request = client.send_message_batch().queue_url(queue);
        let request = request.set_entries(Some(entries(messages)));
        let answer = request
            .send()
            .await
            .map_err(|error| SendError::Batch(Box::new(error)))?;
        let confirmed = answer.successful.iter().map(SendMessageBatchResultEntry::id);
        let (confirmed, sent) = (confirmed.collect::<BTreeSet<_>>().len(), messages.len());
        if confirmed < sent {
            return Err(SendError::Unconfirmed { confirmed, sent });
        }
    }
    Ok(())
}

fn entries(messages: &[QueueMessage]) -> Vec<SendMessageBatchRequestEntry> {
    let entry = |(number, message): (usize, &QueueMessage)| {
        SendMessageBatchRequestEntry::builder()
            .id(number.to_string())
            .delay_seconds(message.seconds)
            .message_body(&message.body)
            .build()
            .expect("id and body are set")
    };
    messages.iter().enumerate().map(entry).collect()
}

//! The outbox: what has still to be done once a transaction has changed the table.

use std::collections::BTreeSet;

use aws_sdk_s3::{error::SdkError as S3Error, operation::put_object::PutObjectError};
use aws_sdk_sqs::{
    error::SdkError as SqsError,
    operation::send_message_batch::SendMessageBatchError,
    types::{SendMessageBatchRequestEntry, SendMessageBatchResultEntry},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{handler::NodeResult, retry::Delayed, table::StoreError};

/// How many messages one SendMessageBatch takes (SQS API reference).
pub const MAX_MESSAGES: usize = 10;

/// What has to be done after a transaction; its row is written within it, and goes once all is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    /// The row's sort key.
    #[serde(rename = "sk")]
    pub id: String,
    /// The key of the object of records.
    pub key: String,
    /// The records.
    pub body: String,
    /// The further tries, which wait in the result queue: they pass the gate once it is time.
    pub retries: Vec<Delayed>,
    /// The metrics, for the log.
    pub metrics: String,
    /// Nodes that may go on from the hook of their launch, where the stack has one.
    #[serde(default)]
    pub launched: BTreeSet<String>,
    /// When the transaction was written.
    pub created_at: DateTime<Utc>,
}

/// Why what was to be done after a transaction is not done: it is tried again.
#[derive(Debug, Error)]
pub enum FinishError {
    /// S3 did not take the records.
    #[error("the records {0} could not be stored")]
    Records(String, #[source] Box<S3Error<PutObjectError>>),
    /// The messages could not be sent.
    #[error(transparent)]
    Messages(#[from] MessagesError),
    /// The outbox row could not be deleted.
    #[error(transparent)]
    Row(#[from] StoreError),
}

/// Why messages are not in their queue.
#[derive(Debug, Error)]
pub enum MessagesError {
    /// SQS did not answer, or refused them all.
    #[error("messages could not be sent")]
    Batch(#[source] Box<SqsError<SendMessageBatchError>>),
    /// SQS refused some of them, or said nothing of them.
    #[error("SQS confirmed {confirmed} of {sent} messages")]
    Unconfirmed {
        /// How many it has taken.
        confirmed: usize,
        /// How many it was sent.
        sent: usize,
    },
}

impl Outbox {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.size() == 0
    }

    /// How many bytes there are to keep, but for names and keys.
    pub fn size(&self) -> usize {
        let retries: usize = self.retries.iter().map(|retry| retry.body.len()).sum();
        let launched: usize = self.launched.iter().map(String::len).sum();
        self.body.len() + retries + self.metrics.len() + launched
    }

    /// Adds what has to be done besides.
    pub fn append(&mut self, other: Self) {
        self.body += &other.body;
        self.retries.extend(other.retries);
        self.metrics += &other.metrics;
        self.launched.extend(other.launched);
    }
}

impl NodeResult {
    /// Does what is to be done after a transaction, and forgets it: done twice it gives the same object, a second try that
    /// finds the images there, and metrics counted twice.
    ///
    /// # Errors
    /// [`FinishError`] for the first thing that could not be done; the rest, and what was done before, is done next time.
    pub async fn finish(&self, outbox: &Outbox) -> Result<(), FinishError> {
        if outbox.is_empty() {
            return Ok(());
        }
        if !outbox.body.is_empty() {
            self.put_records(outbox).await?;
        }
        self.send(&self.settings.result_queue, &outbox.retries).await?;
        if let Some(hook) = self.hook.as_ref().filter(|_| !outbox.launched.is_empty()) {
            hook.release(&outbox.launched, &self.store).await;
        }
        // Lambda takes stdout to the log, where CloudWatch counts.
        print!("{}", outbox.metrics);
        Ok(self.store.delete_outbox(&outbox.id).await?)
    }

    async fn put_records(&self, outbox: &Outbox) -> Result<(), FinishError> {
        let request = self
            .s3
            .put_object()
            .bucket(&self.settings.bucket)
            .key(&outbox.key)
            .content_type("application/x-ndjson")
            .body(outbox.body.clone().into_bytes().into());
        let answer = request.send().await;
        answer.map_err(|error| FinishError::Records(outbox.key.clone(), Box::new(error)))?;
        Ok(())
    }

    /// Sends messages to a queue.
    ///
    /// A message is in the queue where SQS says so; what its answer leaves out is not.
    ///
    /// # Errors
    /// [`MessagesError`] where not all of them are known to be in the queue.
    pub async fn send(&self, queue: &str, messages: &[Delayed]) -> Result<(), MessagesError> {
        for messages in messages.chunks(MAX_MESSAGES) {
            let request = self.sqs.send_message_batch().queue_url(queue);
            let request = request.set_entries(Some(entries(messages)));
            let answer = request
                .send()
                .await
                .map_err(|error| MessagesError::Batch(Box::new(error)))?;
            let confirmed = answer.successful.iter().map(SendMessageBatchResultEntry::id);
            let (confirmed, sent) = (confirmed.collect::<BTreeSet<_>>().len(), messages.len());
            if confirmed < sent {
                return Err(MessagesError::Unconfirmed { confirmed, sent });
            }
        }
        Ok(())
    }
}

fn entries(messages: &[Delayed]) -> Vec<SendMessageBatchRequestEntry> {
    let entry = |(number, message): (usize, &Delayed)| {
        SendMessageBatchRequestEntry::builder()
            .id(number.to_string())
            .delay_seconds(message.seconds)
            .message_body(&message.body)
            .build()
            .expect("id and body are set")
    };
    messages.iter().enumerate().map(entry).collect()
}

//! Effects: what is done after a transaction, as its outbox says.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::{error::SdkError, operation::put_object::PutObjectError};
use prefetch::rows::{Item, Key, outbox_partition};
use thiserror::Error;

use crate::{
    decision::Decision,
    launch_hook::LaunchHook,
    queue::{self, SendError},
    settings::Settings,
    table::{Table, TableError},
    transaction::Outbox,
};

/// Holds the clients by which effects happen.
pub struct Effects<'a> {
    pub s3: &'a aws_sdk_s3::Client,
    pub sqs: &'a aws_sdk_sqs::Client,
    pub hook: Option<&'a LaunchHook>,
    pub table: &'a Table,
    pub settings: &'a Settings,
}

/// Tells why what was to be done after a transaction is not done: it will be once more.
#[derive(Debug, Error)]
pub enum FinishError {
    /// S3 did not take the records.
    #[error("the records {0} could not be stored")]
    Records(String, #[source] Box<SdkError<PutObjectError>>),
    /// The messages could not be sent.
    #[error(transparent)]
    Messages(#[from] SendError),
    /// The outbox row could not be deleted.
    #[error(transparent)]
    Row(#[from] TableError),
}

impl Effects<'_> {
    /// Carries out what is left to do after a transaction, and forgets it: done twice it gives the same object, a second retry that
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
        queue::send(self.sqs, &self.settings.result_queue, &outbox.retries).await?;
        if let Some(hook) = self.hook.filter(|_| !outbox.launched.is_empty()) {
            hook.release(&outbox.launched, self.table).await;
        }
        // Lambda takes stdout to the log, where CloudWatch counts.
        print!("{}", outbox.metrics);
        Ok(self.table.delete_outbox(&outbox.id).await?)
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

    /// Finishes those of these outbox rows that are there still; gives those that could not be finished.
    pub async fn finish_left(&self, ids: &BTreeSet<String>) -> BTreeMap<String, Decision> {
        let mut failed = BTreeMap::new();
        match self.read(ids).await {
            Ok(outboxes) => {
                for outbox in outboxes {
                    if let Err(error) = self.finish(&outbox).await {
                        failed.insert(outbox.id, Decision::aws_error(&error));
                    }
                }
            }
            Err(error) => failed.extend(ids.iter().map(|id| (id.clone(), Decision::aws_error(&error)))),
        }
        failed
    }

    async fn read(&self, ids: &BTreeSet<String>) -> Result<Vec<Outbox>, TableError> {
        let keys: BTreeSet<Key> = ids.iter().map(|id| Key::outbox(id)).collect();
        let rows = self.table.read(&keys).await?;
        let outboxes: Result<Vec<Option<Outbox>>, _> = keys.iter().map(|key| rows.get(key)).collect();
        Ok(outboxes?.into_iter().flatten().collect())
    }

    /// Reads a page of a partition of the outbox, of at most 1 MB, and the key after which the next one begins.
    ///
    /// # Errors
    /// [`TableError`] where it could not be read.
    pub async fn page(&self, first: char, after: Option<Item>) -> Result<(Vec<Outbox>, Option<Item>), TableError> {
        let partition = self.table.query(outbox_partition(first));
        let answer = partition.set_exclusive_start_key(after).send().await;
        let answer = answer.map_err(|error| TableError::Outbox(Box::new(error)))?;
        let page = serde_dynamo::from_items(answer.items.unwrap_or_default())?;
        Ok((page, answer.last_evaluated_key.filter(|key| !key.is_empty())))
    }
}

//! The table: what is known of jobs and nodes, and what has still to be done.

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::{
        delete_item::DeleteItemError, put_item::PutItemError, query::QueryError,
        transact_write_items::TransactWriteItemsError,
    },
    types::AttributeValue,
};
use chrono::{DateTime, Utc};
use prefetch::{
    rows::{Item, Key, outbox_partition},
    table::{self, ReadError, Rows},
};
use thiserror::Error;

use crate::{changes::Unit, effects::Outbox, rows::LaunchRow, settings::Settings, transaction::items};

/// The table.
pub struct Store {
    client: Client,
    table: String,
    retention: Duration,
}

/// Why the table could not be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Rows could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Somebody wrote a row since it was read, or writes it now.
    #[error("another wrote a row since it was read")]
    Contended,
    /// Rows could not be written.
    #[error("rows could not be written")]
    Write(#[source] Box<SdkError<TransactWriteItemsError>>),
    /// The outbox could not be read.
    #[error("the outbox could not be read")]
    Outbox(#[source] Box<SdkError<QueryError>>),
    /// The launches of a node could not be read.
    #[error("the launches of a node could not be read")]
    Launches(#[source] Box<SdkError<QueryError>>),
    /// An outbox row could not be deleted.
    #[error("an outbox row could not be deleted")]
    Delete(#[source] Box<SdkError<DeleteItemError>>),
    /// A mark could not be set.
    #[error("a mark could not be set")]
    Mark(#[source] Box<SdkError<PutItemError>>),
    /// A row is not shaped as this function writes it.
    #[error("a row cannot be understood")]
    Row(#[from] serde_dynamo::Error),
}

impl Store {
    pub fn new(client: Client, settings: &Settings) -> Self {
        Self {
            client,
            table: settings.table.clone(),
            retention: settings.retention,
        }
    }

    /// Reads rows as they are now, one BatchGetItem for each 100.
    ///
    /// # Errors
    /// [`StoreError::Read`] where not all of them could be read.
    pub async fn read(&self, keys: &BTreeSet<Key>) -> Result<Rows, StoreError> {
        Ok(table::read(&self.client, &self.table, keys).await?)
    }

    /// Writes a unit in one transaction, which the SDK makes idempotent: sent twice it counts once.
    ///
    /// # Errors
    /// [`StoreError::Contended`] where rows have to be read again, [`StoreError::Write`] for everything else.
    pub async fn write(&self, unit: &Unit, now: DateTime<Utc>) -> Result<(), StoreError> {
        let items = items(unit, &self.table, &self.expires_at(now));
        let request = self.client.transact_write_items().set_transact_items(Some(items));
        request.send().await.map(drop).map_err(|error| {
            if error.as_service_error().is_some_and(is_contended) {
                StoreError::Contended
            } else {
                StoreError::Write(Box::new(error))
            }
        })
    }

    /// Reads the outbox rows of these ids that are there still.
    ///
    /// # Errors
    /// [`StoreError`] as [`Store::read`].
    pub async fn outboxes(&self, ids: &BTreeSet<String>) -> Result<Vec<Outbox>, StoreError> {
        let keys: BTreeSet<Key> = ids.iter().map(|id| Key::outbox(id)).collect();
        let rows = self.read(&keys).await?;
        let outboxes: Result<Vec<Option<Outbox>>, _> = keys.iter().map(|key| rows.get(key)).collect();
        Ok(outboxes?.into_iter().flatten().collect())
    }

    /// Reads a page of a partition of the outbox, of at most 1 MB, and the key after which the next one begins.
    ///
    /// # Errors
    /// [`StoreError`] where it could not be read.
    pub async fn outbox(&self, first: char, after: Option<Item>) -> Result<(Vec<Outbox>, Option<Item>), StoreError> {
        let request = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :outbox")
            .expression_attribute_values(":outbox", AttributeValue::S(outbox_partition(first)))
            .set_exclusive_start_key(after);
        let answer = request
            .send()
            .await
            .map_err(|error| StoreError::Outbox(Box::new(error)))?;
        let page = serde_dynamo::from_items(answer.items.unwrap_or_default())?;
        Ok((page, answer.last_evaluated_key.filter(|key| !key.is_empty())))
    }

    /// Reads the row of a node's last launch as it is now.
    ///
    /// # Errors
    /// [`StoreError`] where it could not be read.
    pub async fn last_launch(&self, node: &str) -> Result<Option<LaunchRow>, StoreError> {
        let request = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :launches")
            .expression_attribute_values(":launches", AttributeValue::S(Key::launch(node, None).pk))
            .scan_index_forward(false)
            .limit(1);
        let answer = request
            .send()
            .await
            .map_err(|error| StoreError::Launches(Box::new(error)))?;
        let row = answer.items.unwrap_or_default().into_iter().next();
        Ok(row.map(serde_dynamo::from_item).transpose()?)
    }

    /// Deletes an outbox row: all is done.
    ///
    /// # Errors
    /// [`StoreError::Delete`] where it could not be deleted.
    pub async fn delete_outbox(&self, id: &str) -> Result<(), StoreError> {
        let key = Key::outbox(id).item();
        let request = self.client.delete_item().table_name(&self.table).set_key(Some(key));
        request
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::Delete(Box::new(error)))
    }

    /// Marks a command as one that the sweep is done with.
    ///
    /// # Errors
    /// [`StoreError::Mark`] where it could not be marked.
    pub async fn mark_swept(&self, command: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut item = Key::swept(command).item();
        item.insert("expires_at".to_owned(), self.expires_at(now));
        let request = self.client.put_item().table_name(&self.table).set_item(Some(item));
        request
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::Mark(Box::new(error)))
    }

    /// When a row that is written now expires, in seconds since 1970, as DynamoDB wants it.
    fn expires_at(&self, now: DateTime<Utc>) -> AttributeValue {
        AttributeValue::N((now + self.retention).timestamp().to_string())
    }
}

/// Whether reading again may help: a condition failed, or somebody writes a row now, and nothing else is wrong.
fn is_contended(error: &TransactWriteItemsError) -> bool {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error else {
        return false;
    };
    let codes = cancelled
        .cancellation_reasons()
        .iter()
        .filter_map(|reason| reason.code());
    let mut codes = codes.filter(|code| *code != "None").peekable();
    codes.peek().is_some() && codes.all(|code| ["ConditionalCheckFailed", "TransactionConflict"].contains(&code))
}

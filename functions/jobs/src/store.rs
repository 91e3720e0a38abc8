//! The table, as far as it is read and written here.

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::{
        delete_item::builders::DeleteItemFluentBuilder,
        put_item::{PutItemError, builders::PutItemFluentBuilder},
        query::{QueryError, builders::QueryFluentBuilder},
        update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    },
    types::AttributeValue,
};
use chrono::{DateTime, Utc};
use prefetch::{
    expiry::expires_at,
    rows::{Item, Key, OBSERVED},
    settings::Outcomes,
    table::{self, ReadError, Rows},
};
use thiserror::Error;

/// Names what the sort keys of a job's nodes begin with.
pub const NODE: &str = "node#";

/// Tells why the table could not be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Rows could not be read by their keys.
    #[error("what is known of jobs could not be read")]
    Read(#[from] ReadError),
    /// A partition could not be read.
    #[error("what is known of jobs could not be queried")]
    Query(#[source] Box<SdkError<QueryError>>),
    /// A row could not be written.
    #[error("a row could not be written")]
    Put(#[source] Box<SdkError<PutItemError>>),
    /// A row could not be changed.
    #[error("a row could not be changed")]
    Update(#[source] Box<SdkError<UpdateItemError>>),
    /// A row is not shaped as it is written.
    #[error("a row cannot be understood")]
    Row(#[from] serde_dynamo::Error),
}

/// Holds the table, and for how long rows stay in it.
#[derive(Clone, Debug)]
pub struct Store {
    pub client: Client,
    table: String,
    retention: Duration,
}

impl Store {
    /// Takes the table of the settings.
    pub fn new(client: Client, outcomes: Outcomes) -> Self {
        let Outcomes { table, retention } = outcomes;
        Self {
            client,
            table,
            retention,
        }
    }

    /// Begins to write a row anew.
    pub fn put(&self, item: Item) -> PutItemFluentBuilder {
        self.client.put_item().table_name(&self.table).set_item(Some(item))
    }

    /// Begins to change a row.
    pub fn update(&self, key: &Key) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key.item()))
    }

    /// Begins to delete a row.
    pub fn delete(&self, key: &Key) -> DeleteItemFluentBuilder {
        self.client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key.item()))
    }

    /// Gives when a row expires that is written now.
    pub fn expires_at(&self, now: DateTime<Utc>) -> AttributeValue {
        expires_at(now + self.retention)
    }

    /// Reads rows as they are now, one BatchGetItem for each 100.
    ///
    /// # Errors
    /// [`ReadError`] where not all of them could be read.
    pub async fn read(&self, keys: &BTreeSet<Key>) -> Result<Rows, ReadError> {
        table::read(&self.client, &self.table, keys).await
    }

    fn query(&self, partition: &str) -> QueryFluentBuilder {
        let partition = AttributeValue::S(partition.to_owned());
        self.client
            .query()
            .table_name(&self.table)
            .expression_attribute_values(":pk", partition)
    }

    /// Reads a page of a partition, of at most so many rows and 1 MB, and tells if there is more.
    ///
    /// # Errors
    /// [`StoreError::Query`] where it could not be read.
    pub async fn page(
        &self,
        partition: &str,
        limit: Option<usize>,
        after: Option<Item>,
    ) -> Result<(Vec<Item>, bool), StoreError> {
        let request = self
            .query(partition)
            .key_condition_expression("pk = :pk")
            .set_limit(limit.and_then(|limit| i32::try_from(limit).ok()))
            .set_exclusive_start_key(after);
        let answer = request.send().await.map_err(query_error)?;
        let has_more = answer.last_evaluated_key.is_some_and(|key| !key.is_empty());
        Ok((answer.items.unwrap_or_default(), has_more))
    }

    /// Reads which jobs were observed, the latest first, by the sort keys of the rows that list them, and tells if there are
    /// more.
    ///
    /// # Errors
    /// [`StoreError::Query`] where they could not be read.
    pub async fn observed(&self, limit: usize, after: Option<&str>) -> Result<(Vec<String>, bool), StoreError> {
        let key = |name: &str, text: &str| (name.to_owned(), AttributeValue::S(text.to_owned()));
        let request = self
            .query(OBSERVED)
            .key_condition_expression("pk = :pk")
            .scan_index_forward(false)
            .set_limit(i32::try_from(limit).ok())
            .set_exclusive_start_key(after.map(|after| [key("pk", OBSERVED), key("sk", after)].into()));
        let answer = request.send().await.map_err(query_error)?;
        let rows = answer.items.unwrap_or_default();
        let keys = rows.iter().filter_map(|row| row.get("sk")?.as_s().ok().cloned());
        let has_more = answer.last_evaluated_key.is_some_and(|key| !key.is_empty());
        Ok((keys.collect(), has_more))
    }

    /// Reads which nodes of a job wait for a retry, by instance id: one Query for each megabyte of the job's rows.
    ///
    /// # Errors
    /// [`StoreError::Query`] where they could not be read.
    pub async fn waiting(&self, job: &str) -> Result<Vec<String>, StoreError> {
        let mut pages = self
            .query(&Key::job(job).pk)
            .key_condition_expression("pk = :pk AND begins_with(sk, :node)")
            .filter_expression("#retrying = :true")
            .projection_expression("sk")
            .expression_attribute_names("#retrying", "retrying")
            .expression_attribute_values(":node", AttributeValue::S(NODE.to_owned()))
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .into_paginator()
            .items()
            .send();
        let mut waiting = Vec::new();
        while let Some(row) = pages.next().await {
            let row = row.map_err(query_error)?;
            let sk = row.get("sk").and_then(|sk| sk.as_s().ok());
            waiting.extend(sk.and_then(|sk| sk.strip_prefix(NODE)).map(str::to_owned));
        }
        Ok(waiting)
    }

    /// Writes that a job was cancelled.
    ///
    /// # Errors
    /// [`StoreError::Put`] where it could not be written.
    pub async fn put_cancelled(&self, job: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut item = Key::cancelled(job).item();
        item.insert("cancelled_at".to_owned(), AttributeValue::S(now.to_rfc3339()));
        item.insert("expires_at".to_owned(), self.expires_at(now));
        let answer = self.put(item).send().await;
        answer.map(drop).map_err(|error| StoreError::Put(Box::new(error)))
    }

    /// Writes by which request a job was made, who requested it where that is known, and the ids of its duplicates where it
    /// has any, beside whatever its row says by then; who requested it stays as it stands there.
    ///
    /// # Errors
    /// [`StoreError::Update`] where it could not be written.
    pub async fn put_request(
        &self,
        job: &str,
        request: &str,
        requested_by: Option<&str>,
        duplicates: &[String],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut values = vec![
            ("request", AttributeValue::S(request.to_owned())),
            ("expires_at", self.expires_at(now)),
        ];
        values.extend(requested_by.map(|who| ("requested_by", AttributeValue::S(who.to_owned()))));
        let set = values
            .iter()
            .map(|(name, _)| format!("#{name} = if_not_exists(#{name}, :{name})"));
        let mut set: Vec<String> = set.collect();
        if !duplicates.is_empty() {
            // The last who looked has found the most.
            set.push("#duplicates = :duplicates".to_owned());
            let ids = duplicates.iter().cloned().map(AttributeValue::S);
            values.push(("duplicates", AttributeValue::L(ids.collect())));
        }
        let update = self.update(&Key::job(job));
        let mut update = update.update_expression(format!("SET {}", set.join(", ")));
        for (name, value) in values {
            update = update
                .expression_attribute_names(format!("#{name}"), name)
                .expression_attribute_values(format!(":{name}"), value);
        }
        let answer = update.send().await;
        answer.map(drop).map_err(|error| StoreError::Update(Box::new(error)))
    }
}

fn query_error(error: SdkError<QueryError>) -> StoreError {
    StoreError::Query(Box::new(error))
}

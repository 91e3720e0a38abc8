//! The table, as far as it is read and written here.

use aws_sdk_dynamodb::{
    error::SdkError,
    operation::{put_item::PutItemError, query::QueryError, update_item::UpdateItemError},
    types::AttributeValue,
};
use chrono::{DateTime, Utc};
use prefetch::{
    rows::{Item, Key, OBSERVED},
    table::ReadError,
};
use serde_json::Value;
use thiserror::Error;

use crate::handler::Jobs;

/// What the sort keys of a job's nodes begin with.
pub const NODE: &str = "node#";

/// Why the table could not be read or written.
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

/// Reads a page of a partition, of at most so many rows and 1 MB, and whether there is more.
///
/// # Errors
/// [`StoreError::Query`] where it could not be read.
pub async fn page(
    jobs: &Jobs,
    partition: &str,
    limit: Option<usize>,
    after: Option<Item>,
) -> Result<(Vec<Item>, Option<Item>), StoreError> {
    let request = jobs
        .dynamodb
        .query()
        .table_name(&jobs.settings.table)
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", AttributeValue::S(partition.to_owned()))
        .set_limit(limit.and_then(|limit| i32::try_from(limit).ok()))
        .set_exclusive_start_key(after);
    let answer = request
        .send()
        .await
        .map_err(|error| StoreError::Query(Box::new(error)))?;
    let last = answer.last_evaluated_key.filter(|key| !key.is_empty());
    Ok((answer.items.unwrap_or_default(), last))
}

/// Reads which jobs were observed, the latest first, by the sort keys of the rows that list them, and whether there are more.
///
/// # Errors
/// [`StoreError::Query`] where they could not be read.
pub async fn observed(jobs: &Jobs, limit: usize, after: Option<&str>) -> Result<(Vec<String>, bool), StoreError> {
    let key = |name: &str, text: &str| (name.to_owned(), AttributeValue::S(text.to_owned()));
    let request = jobs
        .dynamodb
        .query()
        .table_name(&jobs.settings.table)
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", AttributeValue::S(OBSERVED.to_owned()))
        .scan_index_forward(false)
        .set_limit(i32::try_from(limit).ok())
        .set_exclusive_start_key(after.map(|after| [key("pk", OBSERVED), key("sk", after)].into()));
    let answer = request
        .send()
        .await
        .map_err(|error| StoreError::Query(Box::new(error)))?;
    let rows = answer.items.unwrap_or_default();
    let keys = rows.iter().filter_map(|row| row.get("sk")?.as_s().ok().cloned());
    let has_more = answer.last_evaluated_key.is_some_and(|key| !key.is_empty());
    Ok((keys.collect(), has_more))
}

/// Reads which nodes of a job wait for a further try, by instance id: one Query for each megabyte of the job's rows.
///
/// # Errors
/// [`StoreError::Query`] where they could not be read.
pub async fn waiting(jobs: &Jobs, job: &str) -> Result<Vec<String>, StoreError> {
    let mut pages = jobs
        .dynamodb
        .query()
        .table_name(&jobs.settings.table)
        .key_condition_expression("pk = :pk AND begins_with(sk, :node)")
        .filter_expression("#retrying = :true")
        .projection_expression("sk")
        .expression_attribute_names("#retrying", "retrying")
        .expression_attribute_values(":pk", AttributeValue::S(Key::job(job).pk))
        .expression_attribute_values(":node", AttributeValue::S(NODE.to_owned()))
        .expression_attribute_values(":true", AttributeValue::Bool(true))
        .into_paginator()
        .items()
        .send();
    let mut waiting = Vec::new();
    while let Some(row) = pages.next().await {
        let row = row.map_err(|error| StoreError::Query(Box::new(error)))?;
        let sk = row.get("sk").and_then(|sk| sk.as_s().ok());
        waiting.extend(sk.and_then(|sk| sk.strip_prefix(NODE)).map(str::to_owned));
    }
    Ok(waiting)
}

/// Writes that a job was cancelled.
///
/// # Errors
/// [`StoreError::Put`] where it could not be written.
pub async fn put_cancelled(jobs: &Jobs, job: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
    let mut item = Key::cancelled(job).item();
    let expires_at = (now + jobs.settings.retention).timestamp().to_string();
    item.insert("cancelled_at".to_owned(), AttributeValue::S(now.to_rfc3339()));
    item.insert("expires_at".to_owned(), AttributeValue::N(expires_at));
    let request = jobs.dynamodb.put_item().table_name(&jobs.settings.table);
    let answer = request.set_item(Some(item)).send().await;
    answer.map(drop).map_err(|error| StoreError::Put(Box::new(error)))
}

/// Writes by which request a job was made, who asked where that is known, and the ids of its duplicates where it has any,
/// beside whatever its row says by then; who asked stays as it stands there.
///
/// # Errors
/// [`StoreError::Update`] where it could not be written.
pub async fn put_request(
    jobs: &Jobs,
    job: &str,
    request: &str,
    requested_by: Option<&str>,
    duplicates: &[String],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let expires_at = (now + jobs.settings.retention).timestamp().to_string();
    let mut values = vec![
        ("request", AttributeValue::S(request.to_owned())),
        ("expires_at", AttributeValue::N(expires_at)),
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
    let mut update = jobs
        .dynamodb
        .update_item()
        .table_name(&jobs.settings.table)
        .set_key(Some(Key::job(job).item()))
        .update_expression(format!("SET {}", set.join(", ")));
    for (name, value) in values {
        update = update
            .expression_attribute_names(format!("#{name}"), name)
            .expression_attribute_values(format!(":{name}"), value);
    }
    let answer = update.send().await;
    answer.map(drop).map_err(|error| StoreError::Update(Box::new(error)))
}

/// A number as answers have it: DynamoDB's numbers are never negative here but by a fault of ours.
pub fn count(number: i64) -> Value {
    Value::from(number.max(0))
}

//! The table: how rows are read and written, whatever they are of.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::{
        delete_item::DeleteItemError,
        put_item::PutItemError,
        query::{QueryError, builders::QueryFluentBuilder},
        transact_write_items::TransactWriteItemsError,
    },
    types::{
        AttributeValue, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
        builders::{PutBuilder, UpdateBuilder},
    },
};
use chrono::{DateTime, Utc};
use prefetch::{
    expiry::expires_at,
    rows::{Item, Key},
    table::{self, ReadError, Rows},
};
use serde::Serialize;
use thiserror::Error;

use crate::settings::Settings;

/// Is the table, by a client of it.
pub struct Table {
    client: Client,
    name: String,
    retention: Duration,
}

/// Tells why the table could not be read or written.
#[derive(Debug, Error)]
pub enum TableError {
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
    /// A row of its own could not be written.
    #[error("a row could not be written")]
    Put(#[source] Box<SdkError<PutItemError>>),
    /// A row is not shaped as this function writes it.
    #[error("a row cannot be understood")]
    Row(#[from] serde_dynamo::Error),
}

/// Tells how it went to put a row in the place of another.
pub enum Replaced {
    Written,
    /// Another stands there, or none does (any more).
    Refused(Option<Item>),
}

impl Table {
    pub fn new(client: Client, settings: &Settings) -> Self {
        Self {
            client,
            name: settings.table.clone(),
            retention: settings.retention,
        }
    }

    /// Reads rows as they are now, one BatchGetItem for each 100.
    ///
    /// # Errors
    /// [`TableError::Read`] where not all of them could be read.
    pub async fn read(&self, keys: &BTreeSet<Key>) -> Result<Rows, TableError> {
        Ok(table::read(&self.client, &self.name, keys).await?)
    }

    /// Begins a Query of a partition.
    pub fn query(&self, partition: String) -> QueryFluentBuilder {
        let request = self.client.query().table_name(&self.name);
        request
            .key_condition_expression("pk = :partition")
            .expression_attribute_values(":partition", AttributeValue::S(partition))
    }

    /// Deletes an outbox row.
    ///
    /// # Errors
    /// [`TableError::Delete`] where it could not be deleted.
    pub async fn delete_outbox(&self, id: &str) -> Result<(), TableError> {
        let key = Key::outbox(id).item();
        let request = self.client.delete_item().table_name(&self.name).set_key(Some(key));
        let answer = request.send().await.map(drop);
        answer.map_err(|error| TableError::Delete(Box::new(error)))
    }

    /// Puts a row that says nothing but that it is there.
    ///
    /// # Errors
    /// [`TableError::Mark`] where it could not be put.
    pub async fn mark(&self, key: &Key, now: DateTime<Utc>) -> Result<(), TableError> {
        let mut item = key.item();
        item.insert("expires_at".to_owned(), self.expires_at(now));
        let request = self.client.put_item().table_name(&self.name).set_item(Some(item));
        let answer = request.send().await.map(drop);
        answer.map_err(|error| TableError::Mark(Box::new(error)))
    }

    /// Puts a row in the place of a version of it, or where none is, outside of a transaction.
    ///
    /// # Errors
    /// [`TableError::Put`] where it is not known what stands there.
    pub async fn replace(&self, version: Option<u32>, item: Item) -> Result<Replaced, TableError> {
        let request = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let request = match version {
            None => request.condition_expression("attribute_not_exists(pk)"),
            Some(version) => request
                .condition_expression("#version = :version")
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":version", number(&version)),
        };
        let Err(error) = request.send().await else {
            return Ok(Replaced::Written);
        };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(refused)) => {
                Ok(Replaced::Refused(refused.item().cloned()))
            }
            _ => Err(TableError::Put(Box::new(error))),
        }
    }

    /// Writes items in one transaction, which the SDK makes idempotent: sent twice it counts once.
    ///
    /// # Errors
    /// [`TableError::Contended`] where rows have to be read again, [`TableError::Write`] for everything else.
    pub async fn write(&self, items: Vec<TransactWriteItem>) -> Result<(), TableError> {
        let request = self.client.transact_write_items().set_transact_items(Some(items));
        request.send().await.map(drop).map_err(|error| {
            if error.as_service_error().is_some_and(is_contended) {
                TableError::Contended
            } else {
                TableError::Write(Box::new(error))
            }
        })
    }

    /// Begins the items of a transaction that is written now.
    pub fn writer(&self, now: DateTime<Utc>) -> Writer<'_> {
        Writer {
            table: &self.name,
            expires_at: self.expires_at(now),
        }
    }

    /// Tells when a row that is written now expires, in seconds since 1970, as DynamoDB wants it.
    fn expires_at(&self, now: DateTime<Utc>) -> AttributeValue {
        expires_at(now + self.retention)
    }
}

/// Returns true where reading again may help: a condition failed, or somebody writes a row now, and nothing else is wrong.
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

/// Builds the items of a transaction.
pub struct Writer<'a> {
    table: &'a str,
    /// Tells when rows expire that are written now.
    pub expires_at: AttributeValue,
}

impl Writer<'_> {
    /// Puts a row.
    pub fn put(&self, key: &Key, row: &impl Serialize) -> TransactWriteItem {
        put(self.putting(key, row))
    }

    /// Puts a row in the place of a version of it, or where none is.
    pub fn replace(&self, key: &Key, version: Option<u32>, row: &impl Serialize) -> TransactWriteItem {
        let replacing = self.putting(key, row);
        put(match version {
            None => replacing.condition_expression("attribute_not_exists(pk)"),
            Some(version) => replacing
                .condition_expression("#version = :version")
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":version", number(&version)),
        })
    }

    /// Changes some attributes of a row.
    pub fn update(&self, key: &Key, update: Expression) -> TransactWriteItem {
        let update = update.builder().table_name(self.table).set_key(Some(key.item()));
        TransactWriteItem::builder()
            .update(update.build().expect("table, key and expression are set"))
            .build()
    }

    fn putting(&self, key: &Key, row: &impl Serialize) -> PutBuilder {
        let mut item: Item = serde_dynamo::to_item(row).expect("a row is an item");
        item.extend(key.item());
        item.insert("expires_at".to_owned(), self.expires_at.clone());
        Put::builder().table_name(self.table).set_item(Some(item))
    }
}

fn put(put: PutBuilder) -> TransactWriteItem {
    TransactWriteItem::builder()
        .put(put.build().expect("table and item are set"))
        .build()
}

/// Builds an update expression; every name in it is an alias, for many of ours are words that DynamoDB reserves.
#[derive(Default)]
pub struct Expression {
    set: Vec<String>,
    add: Vec<String>,
    conditions: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    pub fn set(&mut self, name: &str, value: AttributeValue) {
        self.set.push(format!("#{name} = :{name}"));
        self.bind(name, value);
    }

    /// Sets an attribute that is not there yet.
    pub fn set_once(&mut self, name: &str, value: AttributeValue) {
        self.set.push(format!("#{name} = if_not_exists(#{name}, :{name})"));
        self.bind(name, value);
    }

    pub fn add(&mut self, name: &str, delta: i64) {
        self.add.push(format!("#{name} :{name}"));
        self.bind(name, number(&delta));
    }

    /// Lets the update happen only where a condition holds.
    pub fn require(&mut self, condition: &str) {
        self.conditions.push(condition.to_owned());
    }

    /// Lets the update happen only where an attribute has this value, which stands in the condition under another name.
    pub fn require_value(&mut self, name: &str, alias: &str, value: AttributeValue) {
        self.conditions.push(format!("#{name} = :{alias}"));
        self.values.insert(format!(":{alias}"), value);
    }

    fn bind(&mut self, name: &str, value: AttributeValue) {
        self.names.insert(format!("#{name}"), name.to_owned());
        self.values.insert(format!(":{name}"), value);
    }

    fn builder(self) -> UpdateBuilder {
        let clauses = [("SET", self.set), ("ADD", self.add)];
        let clauses = clauses.into_iter().filter(|(_, parts)| !parts.is_empty());
        let clauses: Vec<String> = clauses
            .map(|(word, parts)| format!("{word} {}", parts.join(", ")))
            .collect();
        let conditions = (!self.conditions.is_empty()).then(|| self.conditions.join(" AND "));
        Update::builder()
            .update_expression(clauses.join(" "))
            .set_condition_expression(conditions)
            .set_expression_attribute_names(Some(self.names))
            .set_expression_attribute_values(Some(self.values))
    }
}

pub fn text(text: &impl ToString) -> AttributeValue {
    AttributeValue::S(text.to_string())
}

pub fn number(number: &impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub fn value(value: &impl Serialize) -> AttributeValue {
    serde_dynamo::to_attribute_value(value).expect("a field is an attribute")
}

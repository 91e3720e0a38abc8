//! The table: how rows are read from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::{
    Client,
    error::{BuildError, SdkError},
    operation::batch_get_item::BatchGetItemError,
    types::KeysAndAttributes,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::rows::{Item, Key};

/// Limits how many rows one BatchGetItem takes (DynamoDB API reference).
const MAX_KEYS: usize = 100;
/// Limits how often rows are asked for that DynamoDB leaves out of its answer, because it is large or there is much to do.
const READS: usize = 5;

/// Tells why rows could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// DynamoDB could not be asked.
    #[error("rows could not be read")]
    Read(#[source] Box<SdkError<BatchGetItemError>>),
    /// DynamoDB left rows out, again and again.
    #[error("DynamoDB left rows out of {READS} answers")]
    LeftOut,
    /// The request could not be built.
    #[error("the request to DynamoDB could not be built")]
    Request(#[from] BuildError),
}

/// Rows that were read, by their keys; one that is not there has no entry.
#[derive(Debug, Default)]
pub struct Rows(BTreeMap<Key, Item>);

impl Rows {
    /// Reads a row as what it is of.
    ///
    /// # Errors
    /// Where it is of something else.
    pub fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, serde_dynamo::Error> {
        let item = self.0.get(key).cloned();
        item.map(serde_dynamo::from_item).transpose()
    }

    /// Returns true where the row is there.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }
}

impl Extend<Item> for Rows {
    fn extend<I: IntoIterator<Item = Item>>(&mut self, items: I) {
        let keyed = items.into_iter().filter_map(|item| Some((Key::of(&item)?, item)));
        self.0.extend(keyed);
    }
}

/// Reads rows as they are now, one BatchGetItem for each 100.
///
/// # Errors
/// [`ReadError`] where not all of them could be read.
pub async fn read(client: &Client, table: &str, keys: &BTreeSet<Key>) -> Result<Rows, ReadError> {
    let mut rows = Rows::default();
    let keys: Vec<&Key> = keys.iter().collect();
    for keys in keys.chunks(MAX_KEYS) {
        let keys = keys.iter().map(|key| key.item()).collect();
        let keys = KeysAndAttributes::builder()
            .consistent_read(true)
            .set_keys(Some(keys))
            .build()?;
        read_batch(client, table, keys, &mut rows).await?;
    }
    Ok(rows)
}

async fn read_batch(client: &Client, table: &str, keys: KeysAndAttributes, rows: &mut Rows) -> Result<(), ReadError> {
    let mut left = HashMap::from([(table.to_owned(), keys)]);
    for _ in 0..READS {
        let request = client.batch_get_item().set_request_items(Some(left));
        let answer = request.send().await.map_err(|error| ReadError::Read(Box::new(error)))?;
        rows.extend(answer.responses.into_iter().flatten().flat_map(|(_, items)| items));
        left = answer.unprocessed_keys.unwrap_or_default();
        if left.is_empty() {
            return Ok(());
        }
    }
    Err(ReadError::LeftOut)
}

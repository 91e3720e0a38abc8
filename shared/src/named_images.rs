//! Named images: those that a rule names itself, whatever is pushed, by digest as the last reconcile found them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{Client, error::SdkError, operation::query::QueryError, types::AttributeValue};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{image::Image, locked::locked, rows::Key, rule::Rule};

/// Sets how long a rule's row is remembered, as with what its nodes run.
const MEMO: Duration = Duration::from_secs(30);

/// Holds what the references of a rule's `images` are, each by its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRow {
    /// The images, by their texts.
    pub images: BTreeMap<String, Image>,
}

/// Tells why it cannot be told which images a rule names.
#[derive(Debug, Error)]
pub enum NamedImagesError {
    /// The row could not be read.
    #[error("the images that rule {0} names could not be read")]
    Read(String, #[source] Box<SdkError<QueryError>>),
    /// The row is not shaped as it is written.
    #[error("the images that rule {0} names cannot be understood")]
    Row(String, #[source] serde_dynamo::Error),
}

/// A rule's row, and when it was read.
type ReadRow = (SystemTime, Arc<NamedRow>);

/// The images that rules name, as reconciles have found them.
#[derive(Debug)]
pub struct NamedImages {
    client: Client,
    table: String,
    rows: Mutex<HashMap<String, ReadRow>>,
}

impl NamedImages {
    /// Reads this table by this client.
    #[must_use]
    pub fn new(client: Client, table: &str) -> Self {
        Self {
            client,
            table: table.to_owned(),
            rows: Mutex::default(),
        }
    }

    /// Names the images that a rule names itself, in its order, as far as reconciles have found them: by one Query, whose answer
    /// is remembered for 30 seconds, and by none where the rule names none.
    ///
    /// # Errors
    /// [`NamedImagesError`] where DynamoDB cannot be asked.
    pub async fn of_rule(&self, rule: &Rule, now: SystemTime) -> Result<Vec<Image>, NamedImagesError> {
        if rule.images.is_empty() {
            return Ok(Vec::new());
        }
        let row = self.row(rule, now).await?;
        let found = rule.images.iter().filter_map(|reference| row.images.get(reference));
        Ok(found.cloned().collect())
    }

    async fn row(&self, rule: &Rule, now: SystemTime) -> Result<Arc<NamedRow>, NamedImagesError> {
        if let Some((at, row)) = locked(&self.rows).get(&rule.name)
            && now.duration_since(*at).is_ok_and(|age| age < MEMO)
        {
            return Ok(Arc::clone(row));
        }
        let row = Arc::new(self.read(rule).await?.unwrap_or_default());
        // That an image was not found yet is not remembered: a reconcile may be about to.
        if rule.images.iter().all(|reference| row.images.contains_key(reference)) {
            locked(&self.rows).insert(rule.name.clone(), (now, Arc::clone(&row)));
        }
        Ok(row)
    }

    /// Reads what is kept of a rule's images now.
    ///
    /// # Errors
    /// [`NamedImagesError`] where DynamoDB cannot be asked.
    pub async fn read(&self, rule: &Rule) -> Result<Option<NamedRow>, NamedImagesError> {
        let Key { pk, .. } = Key::named_images(&rule.name);
        let request = self.client.query().table_name(&self.table).consistent_read(true);
        let request = request
            .key_condition_expression("pk = :partition")
            .expression_attribute_values(":partition", AttributeValue::S(pk));
        let answer = request.send().await;
        let answer = answer.map_err(|error| NamedImagesError::Read(rule.name.clone(), Box::new(error)))?;
        let item = answer.items.and_then(|items| items.into_iter().next());
        let row = item.map(serde_dynamo::from_item).transpose();
        row.map_err(|error| NamedImagesError::Row(rule.name.clone(), error))
    }

    /// Takes in what a reconcile has found, so that this process needs not read it.
    pub fn note(&self, rule: &Rule, row: NamedRow, now: SystemTime) {
        locked(&self.rows).insert(rule.name.clone(), (now, Arc::new(row)));
    }
}

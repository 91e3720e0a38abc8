//! Usage: which images the nodes of a rule run, as the table tells.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    config::timeout::TimeoutConfig,
    error::SdkError,
    operation::query::{QueryError, builders::QueryFluentBuilder},
    types::AttributeValue,
};
use chrono::{DateTime, NaiveDate, Utc};
use thiserror::Error;
use tracing::warn;

use crate::{
    locked::locked,
    named_images::NamedImages,
    rows::{UsageRow, usage_partition},
};

/// Sets how long the rows of a rule are remembered: a storm of launches asks once.
const MEMO: Duration = Duration::from_secs(30);
/// Limits how many pages of a rule's rows are read, each of at most 1 MB (DynamoDB API reference, Query): some ten thousand
/// images, of which a function has room for the rows.
const MAX_PAGES: usize = 8;
/// Limits the rows of a page where one of them says enough.
const FEW: i32 = 100;
/// Sets for how long DynamoDB is waited for, which answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// Tells why it cannot be told what nodes run.
#[derive(Debug, Error)]
pub enum UsageError {
    /// The rows could not be read.
    #[error("what the nodes of rule {0} run could not be read")]
    Read(String, #[source] Box<SdkError<QueryError>>),
    /// A row is not shaped as it is written.
    #[error("what the nodes of rule {0} run cannot be understood")]
    Row(String, #[source] serde_dynamo::Error),
}

/// Tells whether the nodes of a rule run images of a repository, or lately ran some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryUse {
    /// They do.
    Used,
    /// They do not.
    NotUsed,
    /// Nothing is known of what they run.
    Unknown,
}

/// The rows of a rule, and when they were read.
type ReadRows = (SystemTime, Arc<Vec<UsageRow>>);

/// The images that the nodes of each rule run, as the table tells.
#[derive(Debug)]
pub struct Usage {
    client: Client,
    table: String,
    /// Tells for how many days an image counts that was seen.
    within: u32,
    rows: Mutex<HashMap<String, ReadRows>>,
    /// The rules of whose nodes it is known what they run.
    known: Mutex<HashSet<String>>,
}

impl Usage {
    /// Sets up the table's client; `within` is for how many days an image counts that was seen.
    #[must_use]
    pub fn new(config: &SdkConfig, table: &str, within: u32) -> Self {
        let patience = TimeoutConfig::builder().operation_timeout(PATIENCE).build();
        let config = aws_sdk_dynamodb::config::Builder::from(config).timeout_config(patience);
        Self::with_client(Client::from_conf(config.build()), table, within)
    }

    /// Asks this client.
    #[must_use]
    pub fn with_client(client: Client, table: &str, within: u32) -> Self {
        Self {
            client,
            table: table.to_owned(),
            within,
            rows: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Reads beside it what rules name themselves.
    pub(crate) fn named_images(&self) -> NamedImages {
        NamedImages::new(self.client.clone(), &self.table)
    }

    /// Tells whether the rule's nodes run images of a repository: by one Query, and one more where they do not and it is not
    /// known yet that anything is known of the rule.
    ///
    /// # Errors
    /// [`UsageError`] where DynamoDB cannot be asked.
    pub async fn runs(
        &self,
        rule: &str,
        registry: &str,
        repository: &str,
        now: SystemTime,
    ) -> Result<RepositoryUse, UsageError> {
        // What comes after the repository is ':' before a tag, '@' before a digest: no repository has a character between.
        let name = format!("{registry}/{repository}");
        let request = self.query(rule);
        let request = request
            .key_condition_expression("pk = :partition AND sk BETWEEN :first AND :last")
            .expression_attribute_values(":first", AttributeValue::S(format!("{name}:")))
            .expression_attribute_values(":last", AttributeValue::S(format!("{name}@~")));
        let today = day(now);
        let mut rows = self.read(rule, request, |_| false).await?;
        rows.retain(|row| row.is_within(self.within, today));
        if !rows.is_empty() {
            self.note_known(rule, &rows, now);
            return Ok(RepositoryUse::Used);
        }
        Ok(if self.is_known(rule, now).await? {
            RepositoryUse::NotUsed
        } else {
            RepositoryUse::Unknown
        })
    }

    /// Gives the images that the rule's nodes run or lately ran; none where nothing is known. Remembered for 30 seconds.
    ///
    /// Leaves out the rest where there are more rows than `MAX_PAGES` have, and says in the log from where.
    ///
    /// # Errors
    /// [`UsageError`] where DynamoDB cannot be asked.
    pub async fn of_rule(&self, rule: &str, now: SystemTime) -> Result<Arc<Vec<UsageRow>>, UsageError> {
        if let Some((at, rows)) = locked(&self.rows).get(rule)
            && now.duration_since(*at).is_ok_and(|age| age < MEMO)
        {
            return Ok(Arc::clone(rows));
        }
        let today = day(now);
        let mut rows = self.read(rule, self.query(rule), |_| false).await?;
        rows.retain(|row| row.is_within(self.within, today));
        let rows = Arc::new(rows);
        // That nothing is known is not remembered: the first node may tell at any moment.
        if self.note_known(rule, &rows, now) {
            locked(&self.rows).insert(rule.to_owned(), (now, Arc::clone(&rows)));
        }
        Ok(rows)
    }

    async fn is_known(&self, rule: &str, now: SystemTime) -> Result<bool, UsageError> {
        if locked(&self.known).contains(rule) {
            return Ok(true);
        }
        let today = day(now);
        let says_so = |row: &UsageRow| row.is_within(self.within, today) && row.is_told_by_nodes(now.into());
        let request = self.query(rule).limit(FEW);
        let rows = self.read(rule, request, |rows| rows.iter().any(says_so)).await?;
        let rows: Vec<UsageRow> = rows.into_iter().filter(says_so).collect();
        Ok(self.note_known(rule, &rows, now))
    }

    /// Notes that it is known what a rule's nodes run, where rows say so, and returns whether they do.
    fn note_known(&self, rule: &str, rows: &[UsageRow], now: SystemTime) -> bool {
        let is_known = rows.iter().any(|row| row.is_told_by_nodes(now.into()));
        if is_known {
            locked(&self.known).insert(rule.to_owned());
        }
        is_known
    }

    fn query(&self, rule: &str) -> QueryFluentBuilder {
        let request = self.client.query().table_name(&self.table);
        request
            .key_condition_expression("pk = :partition")
            .expression_attribute_values(":partition", AttributeValue::S(usage_partition(rule)))
    }

    /// Reads pages of rows until they are enough, or too many.
    async fn read(
        &self,
        rule: &str,
        request: QueryFluentBuilder,
        is_enough: impl Fn(&[UsageRow]) -> bool,
    ) -> Result<Vec<UsageRow>, UsageError> {
        let mut pages = request.into_paginator().send();
        let mut rows: Vec<UsageRow> = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(page) = pages.next().await else {
                return Ok(rows);
            };
            let page = page.map_err(|error| UsageError::Read(rule.to_owned(), Box::new(error)))?;
            let items = page.items.unwrap_or_default();
            let read = serde_dynamo::from_items::<_, UsageRow>(items);
            rows.extend(read.map_err(|error| UsageError::Row(rule.to_owned(), error))?);
            if page.last_evaluated_key.is_none_or(|key| key.is_empty()) || is_enough(&rows) {
                return Ok(rows);
            }
        }
        let last = rows.last().map(|row| row.image.to_string());
        warn!(
            rule,
            "of what the nodes of rule {rule} run, what comes after {} is left out: {MAX_PAGES} pages are read",
            last.as_deref().unwrap_or("nothing")
        );
        Ok(rows)
    }
}

/// Returns the day by which it is told when images were seen.
#[must_use]
pub fn day(now: SystemTime) -> NaiveDate {
    DateTime::<Utc>::from(now).date_naive()
}

#[cfg(all(test, feature = "mocks"))]
mod tests;

//! Launches: which of the messages of a launch has its node served.
//!
//! EC2 and Auto Scaling both tell of a launch, and the queue may deliver any message twice. Whoever is to send claims the
//! launch by a row of its own, and says in it what was sent; where that is not yet all, the next goes on from there.

use std::{
    collections::{BTreeMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    config::timeout::TimeoutConfig,
    error::SdkError,
    operation::{delete_item::DeleteItemError, put_item::PutItemError, transact_write_items::TransactWriteItemsError},
    types::{AttributeValue, CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem},
};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, future, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::{
    command::Trigger,
    error_text::error_text,
    image::Image,
    lease,
    rows::{Item, Key},
};

/// Sets for how long what was sent stands for every message of its launch. They come within minutes of each other: a
/// lifecycle action while the instance is pending, Auto Scaling's success after EC2's `running`.
const SENT: Duration = Duration::from_mins(10);
/// Sets how long a row stays that nobody looks at any more.
const KEPT: Duration = Duration::from_hours(24);
/// Sets for how long DynamoDB is waited for, which answers in milliseconds: a node's images do not wait for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Limits how many rows one transaction writes (DynamoDB API reference).
const MAX_ROWS: usize = 100;
/// Limits how many rows are written at once, each by a call of its own.
const AT_ONCE: usize = 10;

/// Claims launches, and remembers what was sent for them.
#[derive(Debug)]
pub struct Launches {
    client: Client,
    table: String,
    /// Tells the claims of this process from those of all others.
    holder: String,
    transactions: AtomicU64,
}

/// Holds what becomes of the wish to serve a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody serves it: the caller does, but for what went lately.
    Ours(SentParts),
    /// Another is about to send.
    UnderWay,
    /// These commands were sent for it lately.
    Sent(Vec<String>),
}

/// The commands that went to the node of a launch, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SentParts(BTreeMap<String, Brought>);

/// Holds what a command brought: images by their fingerprints, by a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Brought {
    rule: String,
    images: Vec<String>,
    /// Is true where a node that lacks them all the same lacks nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    best_effort: bool,
}

impl SentParts {
    /// Returns true where nothing went.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a command that went by a rule, with the [`fingerprint`]s of its images.
    pub fn add(&mut self, command: &str, (rule, trigger): (&str, Trigger), images: &[String]) {
        let brought = Brought {
            rule: rule.to_owned(),
            images: images.to_vec(),
            best_effort: trigger.is_best_effort(),
        };
        self.0.insert(command.to_owned(), brought);
    }

    /// Lists the commands that went.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Lists the commands that went by a rule.
    pub fn commands_of_rule(&self, rule: &str) -> impl Iterator<Item = &str> {
        let of_rule = self.0.iter().filter(move |(_, brought)| brought.rule == rule);
        of_rule.map(|(command, _)| command.as_str())
    }

    /// Gives the fingerprints of the images that went by a rule, and that need not go by this trigger any more: what went as
    /// best effort may have failed, and nobody would know.
    #[must_use]
    pub fn images_of_rule(&self, rule: &str, trigger: Trigger) -> HashSet<&str> {
        let of_rule = self.0.values().filter(|brought| brought.rule == rule);
        of_rule
            .filter(|brought| !brought.best_effort || trigger.is_best_effort())
            .flat_map(|brought| &brought.images)
            .map(String::as_str)
            .collect()
    }
}

/// Gives 16 hexadecimal digits that stand for an image, its tag included: among millions no two are taken for one.
#[must_use]
pub fn fingerprint(image: &Image) -> String {
    let hash = Sha256::digest(image.to_string());
    let first = hash.iter().take(8).fold(0, |first, byte| first << 8 | u64::from(*byte));
    format!("{first:016x}")
}

/// Holds what the row of a launch says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    holder: String,
    /// Tells until when nobody else claims it.
    held_until: i64,
    expires_at: i64,
    /// The commands, once all went.
    #[serde(skip_serializing_if = "Option::is_none")]
    commands: Option<Vec<String>>,
    /// The commands that went while others did not.
    #[serde(default, skip_serializing_if = "SentParts::is_empty")]
    went: SentParts,
    /// Tells until when these stand.
    #[serde(default)]
    went_until: i64,
}

impl Row {
    /// Returns what went of a launch that is claimed anew.
    fn left(self, now: DateTime<Utc>) -> SentParts {
        if self.commands.is_none() && self.went_until >= now.timestamp() {
            self.went
        } else {
            SentParts::default()
        }
    }
}

impl Launches {
    /// Sets up the table's client, which gives up after `PATIENCE`.
    #[must_use]
    pub fn new(config: &SdkConfig, table: &str) -> Self {
        let patience = TimeoutConfig::builder().operation_timeout(PATIENCE).build();
        let config = aws_sdk_dynamodb::config::Builder::from(config).timeout_config(patience);
        Self::with_client(Client::from_conf(config.build()), table)
    }

    /// Works by this client.
    #[must_use]
    pub fn with_client(client: Client, table: &str) -> Self {
        Self {
            client,
            table: table.to_owned(),
            holder: format!("{:016x}", RandomState::new().hash_one("holder")),
            transactions: AtomicU64::new(0),
        }
    }

    /// Claims launches, each by its key; one TransactWriteItems for each 100, and one more where there are rows of some.
    ///
    /// Where DynamoDB cannot be asked all are the caller's: a command too many costs a node that holds its images
    /// milliseconds, one too few its images.
    pub async fn claim(&self, launches: &[Key], now: DateTime<Utc>) -> BTreeMap<Key, Claim> {
        let mut claims = BTreeMap::new();
        for launches in launches.chunks(MAX_ROWS) {
            self.claim_together(launches, now, &mut claims).await;
        }
        claims
    }

    async fn claim_together(&self, launches: &[Key], now: DateTime<Utc>, claims: &mut BTreeMap<Key, Claim>) {
        // With each the row that is there, and holds no longer.
        let mut wanted: BTreeMap<Key, Option<Row>> = launches.iter().map(|launch| (launch.clone(), None)).collect();
        while !wanted.is_empty() {
            let puts = wanted
                .iter()
                .map(|(launch, row)| self.claiming(launch, row.as_ref(), now));
            let Err(error) = self.write(puts.collect()).await else {
                break;
            };
            let reasons = cancellation_reasons(&error);
            if !reasons.iter().any(is_told) {
                warn!("launches are not claimed: {}", error_text(&error));
                break;
            }
            let mut reasons = reasons.iter();
            wanted.retain(|launch, known| {
                let reason = reasons.next().filter(|reason| is_told(reason));
                let claim = reason.and_then(|reason| others_claim(reason, known, now));
                let is_wanted = claim.is_none();
                claims.extend(claim.map(|claim| (launch.clone(), claim)));
                is_wanted
            });
        }
        claims.extend(wanted.into_iter().map(|(launch, row)| {
            let went = row.map(|row| row.left(now)).unwrap_or_default();
            (launch, Claim::Ours(went))
        }));
    }

    /// Remembers the commands that were sent for launches; one TransactWriteItems for each 100.
    pub async fn sent(&self, sent: &[(Key, Vec<String>)], now: DateTime<Utc>) {
        let puts = sent.iter().map(|(launch, commands)| {
            let row = Row {
                commands: Some(commands.clone()),
                ..self.row(now, (now + SENT).timestamp())
            };
            put(&self.table, launch, &row)
        });
        self.keep(puts.collect()).await;
    }

    /// Lets launches go for which not all was sent, and remembers what was; one DeleteItem for each of which nothing was, one
    /// TransactWriteItems for each 100 others.
    pub async fn release(&self, launches: &[(Key, SentParts)], now: DateTime<Utc>) {
        let (unsent, begun): (Vec<_>, Vec<_>) = launches.iter().partition(|(_, went)| went.is_empty());
        let puts = begun.into_iter().map(|(launch, went)| {
            let row = Row {
                went: went.clone(),
                went_until: (now + SENT).timestamp(),
                ..self.row(now, 0)
            };
            self.if_ours(put(&self.table, launch, &row))
        });
        let unsent = stream::iter(unsent).for_each_concurrent(AT_ONCE, |(launch, _)| self.delete(launch));
        future::join(self.keep(puts.collect()), unsent).await;
    }

    async fn delete(&self, launch: &Key) {
        let request = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(launch.item()))
            .condition_expression("holder = :holder")
            .expression_attribute_values(":holder", AttributeValue::S(self.holder.clone()));
        if let Err(error) = request.send().await {
            let is_anothers = error
                .as_service_error()
                .is_some_and(DeleteItemError::is_conditional_check_failed_exception);
            if !is_anothers {
                warn!("{} is not let go: {}", launch.pk, error_text(&error));
            }
        }
    }

    /// Takes a launch that has no row, or still has this one, whose commands stay.
    fn claiming(&self, launch: &Key, known: Option<&Row>, now: DateTime<Utc>) -> Put {
        let mut row = self.row(now, (now + lease::HOLDS).timestamp());
        let mut put = match known {
            None => {
                let mut put = put(&self.table, launch, &row);
                put.condition_expression = Some("attribute_not_exists(pk)".to_owned());
                put
            }
            Some(known) => {
                row.went_until = known.went_until;
                row.went = known.clone().left(now);
                let mut put = put(&self.table, launch, &row);
                put.condition_expression = Some("holder = :holder AND held_until = :until".to_owned());
                let holder = AttributeValue::S(known.holder.clone());
                let until = AttributeValue::N(known.held_until.to_string());
                let values = [(":holder".to_owned(), holder), (":until".to_owned(), until)];
                put.expression_attribute_values = Some(values.into());
                put
            }
        };
        put.return_values_on_condition_check_failure = Some(ReturnValuesOnConditionCheckFailure::AllOld);
        put
    }

    fn row(&self, now: DateTime<Utc>, held_until: i64) -> Row {
        Row {
            holder: self.holder.clone(),
            held_until,
            expires_at: (now + KEPT).timestamp(),
            commands: None,
            went: SentParts::default(),
            went_until: 0,
        }
    }

    fn if_ours(&self, mut put: Put) -> Put {
        put.condition_expression = Some("holder = :holder".to_owned());
        let holder = (":holder".to_owned(), AttributeValue::S(self.holder.clone()));
        put.expression_attribute_values = Some([holder].into());
        put
    }

    /// Writes rows, in transactions; where one row ends a transaction, each by itself.
    async fn keep(&self, puts: Vec<Put>) {
        for puts in puts.chunks(MAX_ROWS) {
            let Err(error) = self.write(puts.to_vec()).await else {
                continue;
            };
            if cancellation_reasons(&error).is_empty() {
                warn!("it is not kept for which launches was sent: {}", error_text(&error));
            } else {
                stream::iter(puts)
                    .for_each_concurrent(AT_ONCE, |put| self.keep_one(put.clone()))
                    .await;
            }
        }
    }

    async fn keep_one(&self, put: Put) {
        let request = self
            .client
            .put_item()
            .table_name(put.table_name)
            .set_item(Some(put.item))
            .set_condition_expression(put.condition_expression)
            .set_expression_attribute_values(put.expression_attribute_values);
        if let Err(error) = request.send().await {
            let is_anothers = error
                .as_service_error()
                .is_some_and(PutItemError::is_conditional_check_failed_exception);
            if !is_anothers {
                warn!("it is not kept that for a launch was sent: {}", error_text(&error));
            }
        }
    }

    async fn write(&self, puts: Vec<Put>) -> Result<(), SdkError<TransactWriteItemsError>> {
        let items = puts
            .into_iter()
            .map(|put| TransactWriteItem::builder().put(put).build());
        // The SDK's own tries of it are one transaction, though the answer to the first be lost.
        let token = format!("{}-{}", self.holder, self.transactions.fetch_add(1, Ordering::Relaxed));
        let request = self
            .client
            .transact_write_items()
            .set_transact_items(Some(items.collect()));
        request.client_request_token(token).send().await.map(|_| ())
    }
}

fn put(table: &str, launch: &Key, row: &Row) -> Put {
    let mut item: Item = serde_dynamo::to_item(row).expect("a launch is an item");
    item.extend(launch.item());
    let put = Put::builder().table_name(table).set_item(Some(item)).build();
    put.expect("table and item are set")
}

/// Returns why a transaction was cancelled, a reason for each of its items; none where it was not cancelled.
fn cancellation_reasons(error: &SdkError<TransactWriteItemsError>) -> &[CancellationReason] {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => cancelled.cancellation_reasons(),
        _ => &[],
    }
}

/// Returns true where a row is why a transaction was cancelled: it is there, or another writes it at this moment.
fn is_told(reason: &CancellationReason) -> bool {
    matches!(reason.code(), Some("ConditionalCheckFailed" | "TransactionConflict"))
}

/// Returns how somebody else holds a launch; none where its row, which is noted as known, holds no longer.
fn others_claim(reason: &CancellationReason, known: &mut Option<Row>, now: DateTime<Utc>) -> Option<Claim> {
    match found(reason) {
        Some(row) if known.is_none() && row.held_until < now.timestamp() => {
            *known = Some(row);
            None
        }
        row => Some(row.and_then(|row| row.commands).map_or(Claim::UnderWay, Claim::Sent)),
    }
}

fn found(reason: &CancellationReason) -> Option<Row> {
    serde_dynamo::from_item(reason.item()?.clone()).ok()
}

#[cfg(all(test, feature = "mocks"))]
mod tests;

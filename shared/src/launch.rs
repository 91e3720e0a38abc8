//! Launches: which of the messages of a launch has its node served.
//!
//! EC2 and Auto Scaling both tell of a launch, and the queue may deliver any message twice. Whoever is to send claims the
//! launch by a row of its own, and says in it what was sent.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    config::timeout::TimeoutConfig,
    error::SdkError,
    operation::{delete_item::DeleteItemError, transact_write_items::TransactWriteItemsError},
    types::{
        AttributeValue, CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
        builders::PutBuilder,
    },
};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use tracing::warn;

use crate::{
    report::report,
    rows::{Item, Key},
};

/// For how long a claim holds of which nothing was heard: as long as the function may run, and as the queue's messages stay
/// away.
const CLAIM: Duration = Duration::from_mins(1);
/// For how long what was sent stands for every message of its launch. They come within minutes of each other: a lifecycle
/// action while the instance is pending, Auto Scaling's success after EC2's `running`.
const SENT: Duration = Duration::from_mins(10);
/// How long a row stays that nobody looks at any more.
const KEPT: Duration = Duration::from_hours(24);
/// For how long DynamoDB is waited for, which answers in milliseconds: a node's images do not wait for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many rows one transaction writes (DynamoDB API reference).
const MAX_ROWS: usize = 100;
/// How many claims are let go at once.
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

/// What becomes of the wish to serve a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody serves it: the caller does.
    Ours,
    /// Another is about to send.
    UnderWay,
    /// These commands were sent for it lately.
    Sent(Vec<String>),
}

impl Launches {
    /// Sets up the table's client, which gives up after [`PATIENCE`].
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

    /// Claims launches, each by its key; one TransactWriteItems for each 100, and one more where others hold some.
    ///
    /// Where DynamoDB cannot be asked all are the caller's: a command too many costs a node that holds its images
    /// milliseconds, one too few its images.
    pub async fn claim(&self, launches: &[Key], now: DateTime<Utc>) -> BTreeMap<Key, Claim> {
        let mut claims = BTreeMap::new();
        for launches in launches.chunks(MAX_ROWS) {
            self.claim_together(launches.to_vec(), now, &mut claims).await;
        }
        claims
    }

    async fn claim_together(&self, mut launches: Vec<Key>, now: DateTime<Utc>, claims: &mut BTreeMap<Key, Claim>) {
        while !launches.is_empty() {
            let puts = launches.iter().map(|launch| self.claiming(launch, now)).collect();
            let Err(error) = self.write(puts).await else { break };
            let all = launches.len();
            let mut reasons = cancellation_reasons(&error).iter();
            launches.retain(|launch| match reasons.next().and_then(held) {
                Some(claim) => {
                    claims.insert(launch.clone(), claim);
                    false
                }
                None => true,
            });
            if launches.len() == all {
                warn!("launches are not claimed: {}", report(&error));
                break;
            }
        }
        claims.extend(launches.into_iter().map(|launch| (launch, Claim::Ours)));
    }

    /// Remembers the commands that were sent for launches; one TransactWriteItems for each 100.
    pub async fn sent(&self, sent: &[(Key, Vec<String>)], now: DateTime<Utc>) {
        for sent in sent.chunks(MAX_ROWS) {
            let puts = sent.iter().map(|(launch, commands)| {
                let commands = commands.iter().cloned().map(AttributeValue::S).collect();
                self.row(launch, now, SENT)
                    .item("commands", AttributeValue::L(commands))
            });
            if let Err(error) = self.write(puts.collect()).await {
                warn!("it is not kept for which launches was sent: {}", report(&error));
            }
        }
    }

    /// Lets launches go for which nothing was sent; one DeleteItem each.
    pub async fn release(&self, launches: &[Key]) {
        stream::iter(launches)
            .for_each_concurrent(AT_ONCE, async |launch| {
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
                        warn!("{} is not let go: {}", launch.pk, report(&error));
                    }
                }
            })
            .await;
    }

    fn claiming(&self, launch: &Key, now: DateTime<Utc>) -> PutBuilder {
        self.row(launch, now, CLAIM)
            .condition_expression("attribute_not_exists(pk) OR held_until < :now")
            .expression_attribute_values(":now", seconds(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    fn row(&self, launch: &Key, now: DateTime<Utc>, holds: Duration) -> PutBuilder {
        Put::builder()
            .table_name(&self.table)
            .set_item(Some(launch.item()))
            .item("holder", AttributeValue::S(self.holder.clone()))
            .item("held_until", seconds(now + holds))
            .item("expires_at", seconds(now + KEPT))
    }

    async fn write(&self, puts: Vec<PutBuilder>) -> Result<(), SdkError<TransactWriteItemsError>> {
        let items = puts.into_iter().map(|put| {
            let put = put.build().expect("table and item are set");
            TransactWriteItem::builder().put(put).build()
        });
        // The SDK's own tries of it are one transaction, though the answer to the first be lost.
        let token = format!("{}-{}", self.holder, self.transactions.fetch_add(1, Ordering::Relaxed));
        let request = self
            .client
            .transact_write_items()
            .set_transact_items(Some(items.collect()));
        request.client_request_token(token).send().await.map(|_| ())
    }
}

fn seconds(at: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(at.timestamp().to_string())
}

/// Why a transaction was cancelled, a reason for each of its items; none where it was not cancelled.
fn cancellation_reasons(error: &SdkError<TransactWriteItemsError>) -> &[CancellationReason] {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => cancelled.cancellation_reasons(),
        _ => &[],
    }
}

/// Tells who holds a launch that was not to be claimed; none where that was not the reason.
fn held(reason: &CancellationReason) -> Option<Claim> {
    match reason.code() {
        // Another writes the row at this moment.
        Some("TransactionConflict") => Some(Claim::UnderWay),
        Some("ConditionalCheckFailed") => Some(commands(reason.item()).map_or(Claim::UnderWay, Claim::Sent)),
        _ => None,
    }
}

fn commands(row: Option<&Item>) -> Option<Vec<String>> {
    let commands = row?.get("commands")?.as_l().ok()?;
    Some(commands.iter().filter_map(|id| id.as_s().ok().cloned()).collect())
}

#[cfg(all(test, feature = "mocks"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::mocks::{self, Calls, Table};

    type State = Arc<Mutex<(Calls, Table)>>;

    #[tokio::test]
    async fn a_launch_is_its_first_claimants_until_it_sends_and_everybodys_again_ten_minutes_later() {
        let state = State::default();
        let (one, other) = (launches(&state), launches(&state));
        let launch = key(1);
        assert_eq!(claimed(&one, &launch, 0).await, Claim::Ours);
        assert_eq!(claimed(&other, &launch, 1).await, Claim::UnderWay);
        one.sent(&[(launch.clone(), vec!["command-1".to_owned()])], at(2)).await;
        let sent = Claim::Sent(vec!["command-1".to_owned()]);
        assert_eq!(claimed(&other, &launch, 3).await, sent);
        assert_eq!(claimed(&one, &launch, 602).await, sent);
        assert_eq!(claimed(&other, &launch, 603).await, Claim::Ours);
    }

    #[tokio::test]
    async fn a_claim_that_is_let_go_or_whose_holder_has_died_is_anothers() {
        let state = State::default();
        let (one, other) = (launches(&state), launches(&state));
        let launch = key(1);
        claimed(&one, &launch, 0).await;
        other.release(std::slice::from_ref(&launch)).await;
        assert_eq!(claimed(&other, &launch, 1).await, Claim::UnderWay);
        one.release(std::slice::from_ref(&launch)).await;
        assert_eq!(claimed(&other, &launch, 2).await, Claim::Ours);
        assert_eq!(claimed(&one, &launch, 62).await, Claim::UnderWay);
        assert_eq!(claimed(&one, &launch, 63).await, Claim::Ours);
    }

    #[tokio::test]
    async fn of_many_launches_those_that_others_hold_are_told_and_all_others_claimed() {
        let state = State::default();
        let (one, other) = (launches(&state), launches(&state));
        one.claim(&[key(3), key(70)], at(0)).await;
        one.sent(&[(key(120), vec!["command-1".to_owned()])], at(0)).await;
        let all: Vec<Key> = (0..150).map(key).collect();
        state.lock().unwrap().0.take();
        let claims = other.claim(&all, at(1)).await;
        let held: Vec<_> = claims.iter().filter(|(_, claim)| **claim != Claim::Ours).collect();
        assert_eq!((claims.len(), held.len()), (150, 3));
        assert_eq!(claims[&key(3)], Claim::UnderWay);
        assert_eq!(claims[&key(120)], Claim::Sent(vec!["command-1".to_owned()]));
        assert_eq!(state.lock().unwrap().0.take(), ["TransactWriteItems"; 4]);
    }

    #[tokio::test]
    async fn another_launch_of_the_same_instance_is_served_too() {
        let state = State::default();
        let launches = launches(&state);
        let started = |hour: i64| Key::launch("i-0abc0000000000001", DateTime::from_timestamp(hour * 3600, 0));
        assert_eq!(claimed(&launches, &started(1), 0).await, Claim::Ours);
        assert_eq!(claimed(&launches, &started(2), 1).await, Claim::Ours);
    }

    #[tokio::test]
    async fn a_table_that_does_not_answer_holds_nobody_up() {
        for code in [
            "InternalServerError",
            "AccessDeniedException",
            "ThrottlingError",
            "Lost",
        ] {
            let state = State::default();
            let launches = launches(&state);
            state.lock().unwrap().0.fail("TransactWriteItems", 0, code);
            assert_eq!(claimed(&launches, &key(1), 0).await, Claim::Ours, "{code}");
            state.lock().unwrap().0.fail("TransactWriteItems", 0, code);
            launches.sent(&[(key(1), Vec::new())], at(0)).await;
            state.lock().unwrap().0.fail("DeleteItem", 0, code);
            launches.release(&[key(1)]).await;
        }
    }

    #[tokio::test]
    async fn a_row_that_another_writes_at_this_moment_is_anothers() {
        let state = State::default();
        let launches = launches(&state);
        state
            .lock()
            .unwrap()
            .0
            .fail("TransactWriteItems", 0, "TransactionConflict");
        assert_eq!(claimed(&launches, &key(1), 0).await, Claim::UnderWay);
    }

    #[tokio::test]
    async fn a_row_expires_after_a_day() {
        let state = State::default();
        claimed(&launches(&state), &key(1), 0).await;
        let row = state.lock().unwrap().1.row(&key(1)).unwrap();
        assert_eq!(row["expires_at"], at(24 * 3600).timestamp());
    }

    async fn claimed(launches: &Launches, launch: &Key, second: i64) -> Claim {
        let claims = launches.claim(std::slice::from_ref(launch), at(second)).await;
        claims[launch].clone()
    }

    fn launches(state: &State) -> Launches {
        let client = mocks::dynamodb(state, |(calls, table)| (calls, table));
        Launches::with_client(client, "outcomes")
    }

    fn key(k: usize) -> Key {
        Key::launch(&format!("i-0abc0000000000{k:03}"), None)
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_794_793_474 + second, 0).unwrap()
    }
}

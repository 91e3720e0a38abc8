//! The lease of a request with a key, and its row: who works on it, and what is noted of it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
};

use aws_sdk_dynamodb::{
    error::SdkError,
    operation::{delete_item::DeleteItemError, put_item::PutItemError, update_item::UpdateItemError},
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{expiry::expires_at, lease::stamp, rows::Key};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    hash::hash,
    http::problem::Problem,
    store::Store,
    submit::plan::{Plan, SentCommand},
};

/// Sets for how long a key is known.
pub const LIFETIME: TimeDelta = TimeDelta::days(1);
/// Sets how long a plan is at most, in bytes; DynamoDB takes 400 KB for a row (DynamoDB, constraints).
const MAX_PLAN: usize = 300 * 1024;

/// Holds what is known of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct RequestRow {
    pub body: String,
    pub state: RequestState,
    pub created_at: DateTime<Utc>,
    pub started_at: DateTime<Utc>,
    /// Who works on it.
    pub owner: String,
    pub plan: Option<String>,
    pub requested_by: Option<String>,
    #[serde(default)]
    pub sent: BTreeMap<String, SentCommand>,
    pub expires_at: i64,
}

/// Tells how far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Somebody works on it.
    Working,
    /// Somebody gave it up, for AWS did not answer as it should.
    Open,
    /// All was sent.
    Done,
}

/// Tells why a request's row could not be read or written.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The row could not be written.
    #[error("the idempotency key could not be noted")]
    Put(#[source] Box<SdkError<PutItemError>>),
    /// The row could not be moved on.
    #[error("what was done for the idempotency key could not be noted")]
    Update(#[source] Box<SdkError<UpdateItemError>>),
    /// The row could not be deleted.
    #[error("the idempotency key could not be forgotten")]
    Delete(#[source] Box<SdkError<DeleteItemError>>),
    /// Another has taken the request over.
    #[error("another works on the request now")]
    Lost,
    /// The row is not shaped as this function writes it.
    #[error("what is known of the idempotency key cannot be understood")]
    Row(#[source] serde_dynamo::Error),
}

/// Tells that another works on the request.
pub fn taken() -> Problem {
    Problem::conflict("the same request is being worked on; its answer is to come")
}

/// Tells the caller why a lease could not be noted.
pub fn problem(error: KeyError) -> Problem {
    match error {
        KeyError::Lost => taken(),
        error => Problem::unavailable(error),
    }
}

/// Gives the right to work on a request, until another takes it over.
pub struct RequestLease {
    store: Store,
    key: Key,
    started_at: String,
    /// Says what tells whoever works on it from others who begin at the same moment.
    pub owner: String,
}

impl RequestLease {
    /// Makes a lease that is yet to be written.
    pub fn new(store: &Store, (kind, key): (&str, &str), now: DateTime<Utc>) -> Self {
        Self {
            store: store.clone(),
            key: Key::request(&hash(&[kind, key])),
            started_at: stamp(now),
            owner: format!("{:016x}", RandomState::new().hash_one(now)),
        }
    }

    /// Writes the row anew, in the place of one that is over; gives the row that is in the way, where one is.
    ///
    /// # Errors
    /// [`KeyError`] where it could not be written.
    pub async fn put(
        &self,
        body: &str,
        requested_by: Option<&str>,
        now: DateTime<Utc>,
        over: Option<&RequestRow>,
    ) -> Result<Option<RequestRow>, KeyError> {
        let mut item = self.key.item();
        let attributes = [
            ("body", string(body)),
            ("state", state(RequestState::Working)),
            ("created_at", string(&self.started_at)),
            ("started_at", string(&self.started_at)),
            ("owner", string(&self.owner)),
            ("sent", AttributeValue::M(HashMap::new())),
            ("expires_at", expires_at(now + LIFETIME)),
        ];
        item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
        item.extend(requested_by.map(|who| ("requested_by".to_owned(), string(who))));
        let mut request = self
            .store
            .put(item)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request = match over {
            None => request.condition_expression("attribute_not_exists(pk)"),
            Some(row) => request
                .condition_expression("#owner = :before")
                .expression_attribute_names("#owner", "owner")
                .expression_attribute_values(":before", string(&row.owner)),
        };
        request.send().await.map_or_else(row_in_the_way, |_| Ok(None))
    }

    /// Takes over from whoever left the row.
    ///
    /// # Errors
    /// [`KeyError`] where another was faster, or it could not be written.
    pub async fn take_over(&self, row: &RequestRow) -> Result<(), KeyError> {
        let update = Update::new(&row.owner)
            .set(
                "#state = :working",
                ("#state", "state"),
                (":working", state(RequestState::Working)),
            )
            .set(
                "#started = :now",
                ("#started", "started_at"),
                (":now", string(&self.started_at)),
            )
            .set("#owner = :me", ("#owner", "owner"), (":me", string(&self.owner)));
        self.update(update).await
    }

    /// Gives a text that tells the request, which came first at this moment, from every other.
    pub fn occasion(&self, since: DateTime<Utc>) -> String {
        format!("{} {}", self.key.pk, stamp(since))
    }

    /// Notes what is to be sent.
    ///
    /// # Errors
    /// A 400 where that is more than a row holds, [`problem`] for everything else.
    pub async fn plan(&self, plan: &Plan) -> Result<(), Problem> {
        let plan = serde_json::to_string(plan).expect("a plan is JSON");
        if plan.len() > MAX_PLAN {
            let detail = "too much for one request with an idempotency key: ask for fewer images or nodes at once";
            return Err(Problem::bad_request(detail));
        }
        let update = self
            .own()
            .set("#plan = :plan", ("#plan", "plan"), (":plan", string(&plan)));
        self.update(update).await.map_err(problem)
    }

    /// Notes that a command of the plan was sent.
    ///
    /// # Errors
    /// [`KeyError`] where it could not be noted.
    pub async fn sent(&self, place: usize, sent: &SentCommand) -> Result<(), KeyError> {
        let sent = serde_dynamo::to_attribute_value(sent).expect("what was sent is an attribute");
        let mut update = self
            .own()
            .set("#sent.#place = :sent", ("#sent", "sent"), (":sent", sent));
        update.names.insert("#place".to_owned(), place.to_string());
        self.update(update).await
    }

    /// Notes that all was sent.
    ///
    /// # Errors
    /// [`KeyError`] where it could not be noted.
    pub async fn done(&self) -> Result<(), KeyError> {
        self.become_state(RequestState::Done).await
    }

    /// Notes that whoever comes again goes on.
    ///
    /// # Errors
    /// [`KeyError`] where it could not be noted.
    pub async fn open(&self) -> Result<(), KeyError> {
        self.become_state(RequestState::Open).await
    }

    async fn become_state(&self, new: RequestState) -> Result<(), KeyError> {
        let update = self
            .own()
            .set("#state = :state", ("#state", "state"), (":state", state(new)));
        self.update(update).await
    }

    /// Forgets the request: nothing came of it.
    ///
    /// # Errors
    /// [`KeyError`] where it could not be deleted.
    pub async fn forget(&self) -> Result<(), KeyError> {
        let request = self
            .store
            .delete(&self.key)
            .condition_expression("#owner = :owner")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":owner", string(&self.owner));
        let answer = request.send().await;
        answer.map(drop).map_err(|error| match error.as_service_error() {
            Some(DeleteItemError::ConditionalCheckFailedException(_)) => KeyError::Lost,
            _ => KeyError::Delete(Box::new(error)),
        })
    }

    fn own(&self) -> Update {
        Update::new(&self.owner)
    }

    async fn update(&self, update: Update) -> Result<(), KeyError> {
        let request = self
            .store
            .update(&self.key)
            .update_expression(format!("SET {}", update.clauses.join(", ")))
            .condition_expression("#owner = :owner")
            .set_expression_attribute_names(Some(update.names))
            .set_expression_attribute_values(Some(update.values));
        let answer = request.send().await;
        answer.map(drop).map_err(|error| match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(_)) => KeyError::Lost,
            _ => KeyError::Update(Box::new(error)),
        })
    }
}

fn row_in_the_way(error: SdkError<PutItemError>) -> Result<Option<RequestRow>, KeyError> {
    match error.as_service_error() {
        Some(PutItemError::ConditionalCheckFailedException(failed)) => {
            let row = failed.item().cloned().unwrap_or_default();
            serde_dynamo::from_item(row).map(Some).map_err(KeyError::Row)
        }
        _ => Err(KeyError::Put(Box::new(error))),
    }
}

/// Changes the row of an owner: another's is left alone.
struct Update {
    clauses: Vec<&'static str>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Update {
    fn new(owner: &str) -> Self {
        Self {
            clauses: Vec::new(),
            names: HashMap::from([("#owner".to_owned(), "owner".to_owned())]),
            values: HashMap::from([(":owner".to_owned(), string(owner))]),
        }
    }

    fn set(mut self, clause: &'static str, name: (&str, &str), value: (&str, AttributeValue)) -> Self {
        self.clauses.push(clause);
        self.names.insert(name.0.to_owned(), name.1.to_owned());
        self.values.insert(value.0.to_owned(), value.1);
        self
    }
}

fn string(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn state(state: RequestState) -> AttributeValue {
    serde_dynamo::to_attribute_value(state).expect("a state is a word")
}

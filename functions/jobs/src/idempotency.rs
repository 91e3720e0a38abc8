//! Idempotency: a request that comes again with its key makes no second job.
//!
//! A request with a key leaves a row that says who works on it, what is to be sent, and what was sent of it. Whoever comes
//! again gets the same answer where all was sent, and goes on where it was left.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
};

use aws_sdk_dynamodb::{
    Client,
    error::{BuildError, SdkError},
    operation::{delete_item::DeleteItemError, put_item::PutItemError, update_item::UpdateItemError},
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use prefetch::rows::Key;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    plan::{Plan, Sent, SentCommands},
    problem::Problem,
};

/// For how long a key is known.
const LIFETIME: TimeDelta = TimeDelta::days(1);
/// After which time whoever works on a request is dead: the function may run for 60 seconds.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);
/// How long a plan is at most, in bytes; DynamoDB takes 400 KB for a row (DynamoDB, constraints).
const MAX_PLAN: usize = 300 * 1024;

/// Why a request's row could not be read or written.
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
    /// The request could not be built.
    #[error("the request to DynamoDB could not be built")]
    Request(#[from] BuildError),
}

/// What is known of a request.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    body: String,
    state: State,
    created_at: DateTime<Utc>,
    started_at: DateTime<Utc>,
    /// Who works on it.
    owner: String,
    plan: Option<String>,
    requested_by: Option<String>,
    #[serde(default)]
    sent: BTreeMap<String, Sent>,
    expires_at: i64,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Somebody works on it.
    Working,
    /// Somebody gave it up, for AWS did not answer as it should.
    Open,
    /// All was sent.
    Done,
}

/// What is to be done of a request whose key is known.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// The key is another request's.
    Other,
    /// All was sent.
    Done,
    /// Somebody works on it.
    Working,
    /// It was left: whoever comes goes on.
    Left,
    /// It is so old that it counts no more.
    Over,
}

fn standing(row: &Row, body: &str, now: DateTime<Utc>) -> Standing {
    if row.expires_at < now.timestamp() {
        Standing::Over
    } else if row.body != body {
        Standing::Other
    } else {
        match row.state {
            State::Done => Standing::Done,
            State::Working if now - row.started_at < PATIENCE => Standing::Working,
            State::Working | State::Open => Standing::Left,
        }
    }
}

/// How a request with a key begins.
pub enum Begun {
    /// Nothing is known of it: it is to be planned.
    New(Claim),
    /// It was left, and this was to be sent since then.
    Again(Claim, Progress),
    /// All was sent.
    Done(Progress),
}

/// What is to be sent, and what was sent of it.
pub struct Progress {
    /// What is to be sent.
    pub plan: Plan,
    /// What was sent.
    pub sent: SentCommands,
    /// When the request came first.
    pub since: DateTime<Utc>,
    /// Who asked for it then, where that is known.
    pub requested_by: Option<String>,
}

/// The right to work on a request, until another takes it over.
pub struct Claim {
    client: Client,
    table: String,
    key: Key,
    started_at: String,
    /// What tells whoever works on it from others who begin at the same moment.
    owner: String,
}

/// Begins a request, or finds out how far it is.
///
/// Of requests with one key at the same moment one begins: DynamoDB writes the row of the first. Keys of one kind are known
/// among themselves only.
///
/// # Errors
/// A 409 where another works on it, a 422 where the key is another request's, a 503 where DynamoDB cannot be asked.
pub async fn begin(
    client: &Client,
    table: &str,
    (kind, key): (&str, &str),
    body: &str,
    requested_by: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Begun, Problem> {
    let body = hash(&[body]);
    let claim = Claim {
        client: client.clone(),
        table: table.to_owned(),
        key: Key::request(&hash(&[kind, key])),
        started_at: now.to_rfc3339_opts(SecondsFormat::Nanos, true),
        owner: format!("{:016x}", RandomState::new().hash_one(now)),
    };
    let known = claim
        .put(&body, requested_by, now, None)
        .await
        .map_err(|error| Problem::unavailable(&error))?;
    let Some(row) = known else {
        return Ok(Begun::New(claim));
    };
    if row.owner == claim.owner {
        // It was written at the SDK's first try, whose answer was lost.
        return Ok(Begun::New(claim));
    }
    match standing(&row, &body, now) {
        Standing::Other => Err(Problem::unprocessable("the idempotency key is another request's")),
        Standing::Working => Err(taken()),
        Standing::Done => Ok(progress(row).map_or_else(|| Begun::New(claim), Begun::Done)),
        Standing::Over => match claim.put(&body, requested_by, now, Some(&row)).await {
            Ok(None) => Ok(Begun::New(claim)),
            Ok(Some(_)) => Err(taken()),
            Err(error) => Err(Problem::unavailable(&error)),
        },
        Standing::Left => {
            claim.take_over(&row).await.map_err(problem)?;
            Ok(match progress(row) {
                Some(progress) => Begun::Again(claim, progress),
                None => Begun::New(claim),
            })
        }
    }
}

fn taken() -> Problem {
    Problem::conflict("the same request is being worked on; its answer is to come")
}

/// Tells a claim's error to whoever asked.
#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
pub fn problem(error: KeyError) -> Problem {
    match error {
        KeyError::Lost => taken(),
        error => Problem::unavailable(&error),
    }
}

fn progress(row: Row) -> Option<Progress> {
    let sent = row
        .sent
        .into_iter()
        .filter_map(|(place, sent)| Some((place.parse().ok()?, sent)));
    Some(Progress {
        plan: serde_json::from_str(&row.plan?).ok()?,
        sent: sent.collect(),
        since: row.created_at,
        requested_by: row.requested_by,
    })
}

impl Claim {
    /// Writes the row anew, in the place of one that is over; gives the row that is in the way, where one is.
    async fn put(
        &self,
        body: &str,
        requested_by: Option<&str>,
        now: DateTime<Utc>,
        over: Option<&Row>,
    ) -> Result<Option<Row>, KeyError> {
        let mut item = self.key.item();
        let attributes = [
            ("body", AttributeValue::S(body.to_owned())),
            ("state", AttributeValue::S("working".to_owned())),
            ("created_at", AttributeValue::S(self.started_at.clone())),
            ("started_at", AttributeValue::S(self.started_at.clone())),
            ("owner", AttributeValue::S(self.owner.clone())),
            ("sent", AttributeValue::M(HashMap::new())),
            (
                "expires_at",
                AttributeValue::N((now + LIFETIME).timestamp().to_string()),
            ),
        ];
        item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
        item.extend(requested_by.map(|who| ("requested_by".to_owned(), string(who))));
        let mut request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request = match over {
            None => request.condition_expression("attribute_not_exists(pk)"),
            Some(row) => request
                .condition_expression("#owner = :before")
                .expression_attribute_names("#owner", "owner")
                .expression_attribute_values(":before", AttributeValue::S(row.owner.clone())),
        };
        match request.send().await {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    let row = failed.item().cloned().unwrap_or_default();
                    serde_dynamo::from_item(row).map(Some).map_err(KeyError::Row)
                }
                _ => Err(KeyError::Put(Box::new(error))),
            },
        }
    }

    async fn take_over(&self, row: &Row) -> Result<(), KeyError> {
        let update = Update::new(&row.owner)
            .set(
                "#state = :working",
                ("#state", "state"),
                (":working", string("working")),
            )
            .set(
                "#started = :now",
                ("#started", "started_at"),
                (":now", string(&self.started_at)),
            )
            .set("#owner = :me", ("#owner", "owner"), (":me", string(&self.owner)));
        self.update(update).await
    }

    /// Tells the request, which came first at this moment, from every other.
    pub fn occasion(&self, since: DateTime<Utc>) -> String {
        format!("{} {}", self.key.pk, since.to_rfc3339_opts(SecondsFormat::Nanos, true))
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
    pub async fn sent(&self, place: usize, sent: &Sent) -> Result<(), KeyError> {
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
        self.become_state("done").await
    }

    /// Notes that whoever comes again goes on.
    ///
    /// # Errors
    /// [`KeyError`] where it could not be noted.
    pub async fn open(&self) -> Result<(), KeyError> {
        self.become_state("open").await
    }

    async fn become_state(&self, state: &str) -> Result<(), KeyError> {
        let update = self
            .own()
            .set("#state = :state", ("#state", "state"), (":state", string(state)));
        self.update(update).await
    }

    /// Forgets the request: nothing came of it.
    ///
    /// # Errors
    /// [`KeyError`] where it could not be deleted.
    pub async fn forget(&self) -> Result<(), KeyError> {
        let request = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(self.key.item()))
            .condition_expression("#owner = :owner")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":owner", string(&self.owner));
        request
            .send()
            .await
            .map(drop)
            .map_err(|error| match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => KeyError::Lost,
                _ => KeyError::Delete(Box::new(error)),
            })
    }

    fn own(&self) -> Update {
        Update::new(&self.owner)
    }

    async fn update(&self, update: Update) -> Result<(), KeyError> {
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(self.key.item()))
            .update_expression(format!("SET {}", update.clauses.join(", ")))
            .condition_expression("#owner = :owner")
            .set_expression_attribute_names(Some(update.names))
            .set_expression_attribute_values(Some(update.values));
        request
            .send()
            .await
            .map(drop)
            .map_err(|error| match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => KeyError::Lost,
                _ => KeyError::Update(Box::new(error)),
            })
    }
}

/// An update of the row of an owner: another's is left alone.
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

/// A hash that stays the same from release to release.
pub fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    BASE64_URL_SAFE_NO_PAD.encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_known_is_judged_by_body_state_and_age() {
        let now: DateTime<Utc> = "2026-11-16T01:54:34Z".parse().unwrap();
        let row = |body: &str, state, age: i64| Row {
            body: body.to_owned(),
            state,
            created_at: now,
            started_at: now - TimeDelta::seconds(age),
            owner: String::new(),
            plan: None,
            requested_by: None,
            sent: BTreeMap::new(),
            expires_at: (now - TimeDelta::seconds(age) + LIFETIME).timestamp(),
        };
        for (row, expected) in [
            (row("this", State::Working, 0), Standing::Working),
            (row("this", State::Working, 59), Standing::Working),
            (row("this", State::Working, 60), Standing::Left),
            (row("this", State::Open, 0), Standing::Left),
            (row("this", State::Done, 86_400), Standing::Done),
            (row("this", State::Done, 86_401), Standing::Over),
            (row("other", State::Done, 0), Standing::Other),
            (row("other", State::Working, 100), Standing::Other),
            (row("other", State::Working, 86_401), Standing::Over),
        ] {
            assert_eq!(standing(&row, "this", now), expected, "{row:?}");
        }
    }

    #[test]
    fn hashes_tell_parts_apart() {
        assert_ne!(hash(&["job", "a"]), hash(&["joba", ""]));
        assert_eq!(hash(&["a"]).len(), 43);
    }
}

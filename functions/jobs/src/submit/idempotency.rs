//! Idempotency: a request that comes again with its key makes no second job.
//!
//! A request with a key leaves a row that says who works on it, what is to be sent, and what was sent of it. Whoever comes
//! again gets the same answer where all was sent, and goes on where it was left.

pub mod lease;

use chrono::{DateTime, Utc};
use prefetch::lease::is_live;

use crate::{
    hash::hash,
    http::problem::Problem,
    store::Store,
    submit::{
        idempotency::lease::{RequestLease, RequestRow, RequestState, problem, taken},
        plan::{Plan, SentCommands},
    },
};

/// Tells what is to be done of a request whose key is known.
#[derive(Debug, PartialEq, Eq)]
enum RequestStanding {
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

fn standing(row: &RequestRow, body: &str, now: DateTime<Utc>) -> RequestStanding {
    if row.expires_at < now.timestamp() {
        RequestStanding::Over
    } else if row.body != body {
        RequestStanding::Other
    } else {
        match row.state {
            RequestState::Done => RequestStanding::Done,
            RequestState::Working if is_live(row.started_at, now) => RequestStanding::Working,
            RequestState::Working | RequestState::Open => RequestStanding::Left,
        }
    }
}

/// Tells how a request with a key begins.
pub enum RequestStart {
    /// Nothing is known of it: it is to be planned.
    New(RequestLease),
    /// It was left, and this was to be sent since then.
    Again(RequestLease, RequestProgress),
    /// All was sent.
    Done(RequestProgress),
}

/// Tells what is to be sent, and what was sent of it.
pub struct RequestProgress {
    /// Says what is to be sent.
    pub plan: Plan,
    /// Says what was sent.
    pub sent: SentCommands,
    /// Tells when the request came first.
    pub since: DateTime<Utc>,
    /// Who requested it then, where that is known.
    pub requested_by: Option<String>,
}

/// Begins a request, or finds out how far it is.
///
/// Begins a request with a key, or tells what is known of it. Of several at the same moment one begins: DynamoDB writes the
/// row of the first. Keys of one kind are known among themselves only.
///
/// # Errors
/// A 409 where another works on it, a 422 where the key is another request's, a 503 where DynamoDB cannot be asked.
pub async fn begin(
    store: &Store,
    key: (&str, &str),
    body: &str,
    requested_by: Option<&str>,
    now: DateTime<Utc>,
) -> Result<RequestStart, Problem> {
    let body = hash(&[body]);
    let lease = RequestLease::new(store, key, now);
    let known = lease.put(&body, requested_by, now, None).await;
    let Some(row) = known.map_err(Problem::unavailable)? else {
        return Ok(RequestStart::New(lease));
    };
    if row.owner == lease.owner {
        // It was written at the SDK's first try, whose answer was lost.
        return Ok(RequestStart::New(lease));
    }
    match standing(&row, &body, now) {
        RequestStanding::Other => Err(Problem::unprocessable("the idempotency key is another request's")),
        RequestStanding::Working => Err(taken()),
        RequestStanding::Done => Ok(progress(row).map_or_else(|| RequestStart::New(lease), RequestStart::Done)),
        RequestStanding::Over => match lease.put(&body, requested_by, now, Some(&row)).await {
            Ok(None) => Ok(RequestStart::New(lease)),
            Ok(Some(_)) => Err(taken()),
            Err(error) => Err(Problem::unavailable(error)),
        },
        RequestStanding::Left => {
            lease.take_over(&row).await.map_err(problem)?;
            Ok(match progress(row) {
                Some(progress) => RequestStart::Again(lease, progress),
                None => RequestStart::New(lease),
            })
        }
    }
}

fn progress(row: RequestRow) -> Option<RequestProgress> {
    let sent = row
        .sent
        .into_iter()
        .filter_map(|(place, sent)| Some((place.parse().ok()?, sent)));
    Some(RequestProgress {
        plan: serde_json::from_str(&row.plan?).ok()?,
        sent: sent.collect(),
        since: row.created_at,
        requested_by: row.requested_by,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::TimeDelta;

    use super::*;
    use crate::submit::idempotency::lease::LIFETIME;

    #[test]
    fn a_key_that_is_known_is_judged_by_body_state_and_age() {
        let now: DateTime<Utc> = "2026-11-16T01:54:34Z".parse().unwrap();
        let row = |body: &str, state, age: i64| RequestRow {
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
            (row("this", RequestState::Working, 0), RequestStanding::Working),
            (row("this", RequestState::Working, 59), RequestStanding::Working),
            (row("this", RequestState::Working, 60), RequestStanding::Left),
            (row("this", RequestState::Open, 0), RequestStanding::Left),
            (row("this", RequestState::Done, 86_400), RequestStanding::Done),
            (row("this", RequestState::Done, 86_401), RequestStanding::Over),
            (row("other", RequestState::Done, 0), RequestStanding::Other),
            (row("other", RequestState::Working, 100), RequestStanding::Other),
            (row("other", RequestState::Working, 86_401), RequestStanding::Over),
        ] {
            assert_eq!(standing(&row, "this", now), expected, "{row:?}");
        }
    }
}

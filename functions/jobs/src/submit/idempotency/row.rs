//! The row of a request with a key.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::submit::plan::SentCommand;

/// For how long a key is known.
pub const LIFETIME: TimeDelta = TimeDelta::days(1);

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

//! Rows as they are read.

use chrono::{DateTime, Utc};
use prefetch::rows::Counters;
use serde::Deserialize;

/// What is read of a job's row.
#[derive(Debug, Deserialize)]
pub struct JobRow {
    /// When it was requested; not there where the row only says who asked for it, for nothing has been reported yet.
    pub requested_at: Option<DateTime<Utc>>,
    /// Who asked for it, as `jobs` writes it.
    pub requested_by: Option<String>,
    /// To how many nodes its first command went, once that is known.
    pub targets: Option<u32>,
    /// How long its slowest node took from the request on.
    pub slowest_seconds: Option<f64>,
    #[serde(flatten)]
    pub counters: Counters,
}

/// Holds what is read of a launch's row.
#[derive(Debug, Deserialize)]
pub struct LaunchRow {
    /// The jobs that it became, once their commands were all sent.
    pub commands: Option<Vec<String>>,
}

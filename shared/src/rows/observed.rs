//! Observed jobs: what would have been sent, had the stack not observed only.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    command::{Destination, Trigger},
    image::Image,
    settings::Mode,
};

/// A job's row where nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// Tells how the stack was set.
    pub mode: Mode,
    /// Says what made the command necessary.
    pub trigger: Trigger,
    /// The rule's name.
    pub rule: String,
    /// Tells when it would have been sent.
    pub requested_at: DateTime<Utc>,
    /// The images.
    pub images: Vec<Image>,
    /// The nodes.
    pub destination: Destination,
    /// Tells how many nodes, where they are named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<usize>,
    /// The number of the try; the first is 1.
    pub attempt: u8,
    /// The job that was sent, of which this is a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// Tells when the row expires, in seconds of Unix time.
    pub expires_at: i64,
}

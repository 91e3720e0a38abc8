//! A node in a job: what became of its images.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use prefetch::{image::Image, outcome::Status, rows::Outcome};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{status::job::Job, store::NODE};

/// Holds what is read of a node's row.
#[derive(Debug, Deserialize)]
pub struct NodeRow {
    sk: String,
    attempt: u8,
    status: Status,
    retrying: bool,
    images: BTreeMap<Image, Outcome>,
    ended_at: DateTime<Utc>,
    warm_at: Option<DateTime<Utc>>,
}

impl NodeRow {
    /// Gives the node's id.
    pub fn id(&self) -> &str {
        self.sk.trim_start_matches(NODE)
    }

    /// Returns true where the node has all images.
    pub fn is_warm(&self) -> bool {
        self.status.is_warm()
    }

    /// Writes what became of the node, with its name where that is known.
    pub fn to_json(&self, job: &Job, names: &HashMap<String, String>) -> Value {
        let images = self.images.iter().map(|(image, outcome)| {
            json!({
                "image": image, "status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds,
                "bytes": outcome.bytes, "attempts": outcome.attempts,
            })
        });
        let mut node = json!({
            "node": self.id(), "status": self.status, "attempt": self.attempt,
            "retrying": self.retrying && job.waits_for(self.id()),
            "endedAt": self.ended_at, "images": images.collect::<Value>(),
        });
        if let Some(name) = names.get(self.id()) {
            node["name"] = json!(name);
        }
        if let Some(warm_at) = self.warm_at {
            node["warmAt"] = json!(warm_at);
        }
        node
    }
}

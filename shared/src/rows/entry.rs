//! A node's last word on an image.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::outcome::{Status, is_not_applicable};

/// Keeps the last word of a node on an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Says what became of it.
    pub status: Status,
    /// Says why, where there is something to say.
    pub reason: String,
    /// Tells when that was said.
    pub at: DateTime<Utc>,
    /// Tells since when the node has said nothing else than that it is there; none where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// The job in which it was said.
    pub job: String,
}

/// Tells whether an image is on a node, by the node's last word on it; of two words at once the better counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is not there.
    Missing,
    /// It is not there, and the node is none that could hold it.
    NotApplicable,
    /// It is there.
    Warm,
}

impl Presence {
    pub(super) const LETTERS: [(Self, char); 3] = [(Self::Missing, 'm'), (Self::NotApplicable, 'n'), (Self::Warm, 'w')];
}

impl Entry {
    /// Returns what two words are compared by: the later counts, of two at once the better.
    fn rank(&self) -> impl Ord {
        (self.at, self.status, self.reason.as_str(), self.job.as_str())
    }

    /// Takes in another word. Where one that it is not there comes late, and falls into the time since when it was, that
    /// time is cut short rather than told too long.
    pub(super) fn fold(&mut self, mut said: Self) {
        if said.rank() > self.rank() {
            said.since = said.since.map(|since| self.since.unwrap_or(since));
            *self = said;
        } else if said.since.is_none() && self.since.is_some_and(|since| since <= said.at) {
            self.since = Some(self.at);
        }
    }

    /// Tells whether the image is there.
    #[must_use]
    pub fn presence(&self) -> Presence {
        if self.status.is_warm() {
            Presence::Warm
        } else if is_not_applicable(self.status, &self.reason) {
            Presence::NotApplicable
        } else {
            Presence::Missing
        }
    }
}

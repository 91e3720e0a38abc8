//! Why something could not be done for an image.

use prefetch::outcome::NodeReason;

/// A reason in the words of the report, and its cause for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Failure {
    /// The reason that is reported.
    pub reason: NodeReason,
    /// The cause, on one line, without logins and without what signs an address.
    pub detail: String,
}

impl Failure {
    /// Makes a failure.
    pub fn new(reason: NodeReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

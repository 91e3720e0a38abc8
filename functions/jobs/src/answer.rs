//! Answers: what a request that is done is answered with.

use serde::Serialize;
use serde_json::Value;

/// A status and a body, which is what a plain invocation gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; none where there is nothing to say.
    pub body: Option<Value>,
}

impl Answer {
    /// Answers with this status and body.
    pub fn new(status: u16, body: &impl Serialize) -> Self {
        Self {
            status,
            body: Some(serde_json::to_value(body).expect("an answer is JSON")),
        }
    }

    /// Answers with 200.
    pub fn ok(body: &impl Serialize) -> Self {
        Self::new(200, body)
    }

    /// Answers with 204.
    pub fn no_content() -> Self {
        Self {
            status: 204,
            body: None,
        }
    }
}

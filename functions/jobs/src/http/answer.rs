//! Answers: what a request that is done is answered with.

use serde::Serialize;
use serde_json::{Value, json};

use crate::http::problem::Problem;

/// Holds a status and a body; a direct invocation gets the body alone.
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

/// Writes an answer or a problem as the HTTP API wants it.
pub fn response(answer: Result<Answer, Problem>) -> Value {
    let (status, content_type, body) = match answer {
        Ok(Answer { status, body }) => (status, "application/json", body),
        Err(problem) => (problem.status(), "application/problem+json", Some(json!(problem))),
    };
    match body {
        Some(body) => json!({
            "statusCode": status, "headers": {"content-type": content_type}, "body": body.to_string(),
        }),
        None => json!({"statusCode": status}),
    }
}

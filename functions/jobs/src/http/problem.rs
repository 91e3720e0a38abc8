//! Problems: what is wrong with a request, or with us, as RFC 9457 tells it.

use std::error::Error;

use prefetch::{error_text::error_text, fields::FieldError, resolve::ResolveError, tags::TagsError};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Tells why a request is not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    status: u16,
    detail: String,
    errors: Vec<FieldError>,
    done: Box<Done>,
    is_in_doubt: bool,
    /// Says what is logged of it, and nobody else's business.
    cause: Option<String>,
}

/// Holds what was done before a request failed, and what may have been.
#[derive(Clone, Debug, Default, PartialEq)]
struct Done {
    jobs: Vec<Value>,
    unknown: Vec<Value>,
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            jobs: &'a [Value],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            unknown: &'a [Value],
        }
        let body = Body {
            // The title says it all (RFC 9457, 4.2.1).
            r#type: "about:blank",
            title: title(self.status),
            status: self.status,
            detail: &self.detail,
            errors: &self.errors,
            jobs: &self.done.jobs,
            unknown: &self.done.unknown,
        };
        body.serialize(serializer)
    }
}

/// Gives the status in words (RFC 9110).
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        _ => "Service Unavailable",
    }
}

impl Problem {
    fn new(status: u16, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            done: Box::default(),
            is_in_doubt: false,
            cause: None,
        }
    }

    /// Refuses what is no request, where no field of it is to blame.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, detail)
    }

    /// Refuses these fields.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let names: Vec<&str> = errors.iter().map(|error| error.field.as_str()).take(5).collect();
        let more = errors.len() - names.len();
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        let detail = format!("not accepted: {}{more}", names.join(", "));
        Self {
            errors,
            ..Self::bad_request(detail)
        }
    }

    /// Refuses this field.
    pub fn field(field: impl Into<String>, value: Option<Value>, accepted: impl Into<String>) -> Self {
        Self::fields(vec![FieldError::new(field, value, accepted)])
    }

    /// Tells that there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, detail)
    }

    /// Tells that the path takes other methods.
    pub fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(405, detail)
    }

    /// Tells that something of that name, or with that key, is in the way.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(409, detail)
    }

    /// Refuses a body that is too large.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(413, detail)
    }

    /// Refuses a body that is no JSON by its content type.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(415, detail)
    }

    /// Tells that the key is another request's.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(422, detail)
    }

    /// Tells that AWS could not be asked, or refuses us: the error's own message to the caller, its causes to the log only.
    #[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
    pub fn unavailable(error: impl Error + 'static) -> Self {
        Self {
            cause: Some(error_text(&error)),
            ..Self::new(503, format!("{error}; another try may fare better"))
        }
    }

    /// Tells what was sent before.
    #[must_use]
    pub fn with_jobs(mut self, jobs: Vec<Value>) -> Self {
        self.done.jobs = jobs;
        self
    }

    /// Notes if AWS may have done what it did not confirm.
    #[must_use]
    pub fn in_doubt(self, is_in_doubt: bool) -> Self {
        Self { is_in_doubt, ..self }
    }

    /// Returns true where AWS may have done what it did not confirm.
    pub fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// Tells what AWS may have done without saying so, and what is to be done about it.
    #[must_use]
    pub fn with_unknown(mut self, unknown: Vec<Value>, advice: &str) -> Self {
        self.detail = format!("{}; {advice}", self.detail);
        self.done.unknown = unknown;
        self
    }

    /// Gives the HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns true where it is ours and not the caller's.
    pub fn is_ours(&self) -> bool {
        self.status >= 500
    }

    /// Writes the problem on one line, with its fields and its cause, for the log.
    pub fn line(&self) -> String {
        let fields = self
            .errors
            .iter()
            .map(|error| format!("{} takes {}", error.field, error.accepted));
        let parts = [self.detail.clone()]
            .into_iter()
            .chain(fields)
            .chain(self.cause.clone());
        parts.collect::<Vec<_>>().join(": ")
    }
}

impl From<Vec<FieldError>> for Problem {
    fn from(errors: Vec<FieldError>) -> Self {
        Self::fields(errors)
    }
}

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotAccepted(errors) => Self::fields(errors),
            error => Self::unavailable(error),
        }
    }
}

impl From<TagsError> for Problem {
    fn from(error: TagsError) -> Self {
        match error {
            TagsError::Observes(_) => Self::bad_request(error.to_string()),
            error => Self::unavailable(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_told_with_its_value_and_what_is_accepted() {
        let problem = Problem::field("limit", Some(json!("x")), "a whole number from 1 to 50");
        let expected = json!({
            "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "not accepted: limit",
            "errors": [{"field": "limit", "value": "x", "accepted": "a whole number from 1 to 50"}],
        });
        assert_eq!(serde_json::to_value(problem).unwrap(), expected);
    }

    #[test]
    fn of_many_fields_the_first_are_named() {
        let many = (0..9).map(|k| FieldError::new(format!("f{k}"), None, "")).collect();
        assert_eq!(
            Problem::fields(many).detail,
            "not accepted: f0, f1, f2, f3, f4 and 4 more"
        );
    }

    #[test]
    fn the_cause_of_ours_is_logged_and_not_told() {
        #[derive(Debug, thiserror::Error)]
        #[error("SSM could not be asked")]
        struct Outer(#[source] std::fmt::Error);
        let problem = Problem::unavailable(Outer(std::fmt::Error));
        assert!(problem.is_ours() && problem.line().contains("an error occurred"));
        assert!(!serde_json::to_string(&problem).unwrap().contains("an error occurred"));
    }
}

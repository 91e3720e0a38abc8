//! Problems: what is wrong with a request, or with us, as RFC 9457 tells it.

use std::error::Error;

use prefetch::report::report;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// How many characters of a value are told back to whoever sent it.
const MAX_VALUE: usize = 200;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    status: u16,
    detail: String,
    errors: Vec<FieldError>,
    jobs: Vec<Value>,
    /// What is logged of it, and nobody else's business.
    cause: Option<String>,
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            jobs: &'a [Value],
        }
        let told = Told {
            // The title says it all (RFC 9457, 4.2.1).
            r#type: "about:blank",
            title: title(self.status),
            status: self.status,
            detail: &self.detail,
            errors: &self.errors,
            jobs: &self.jobs,
        };
        told.serialize(serializer)
    }
}

/// The status in words (RFC 9110).
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

/// A field that is not accepted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldError {
    /// Where it stands, such as `images[3]`.
    pub field: String,
    /// Its value; not there where the field is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// What would have been accepted.
    pub accepted: String,
}

impl FieldError {
    /// Refuses a field's value, or that there is none.
    pub fn new(field: impl Into<String>, value: Option<Value>, accepted: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            value: value.map(shortened),
            accepted: accepted.into(),
        }
    }
}

impl Problem {
    fn new(status: u16, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            jobs: Vec::new(),
            cause: None,
        }
    }

    /// The request is no request, and no field of it is to blame.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, detail)
    }

    /// These fields are not accepted.
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

    /// This field is not accepted.
    pub fn field(field: impl Into<String>, value: Option<Value>, accepted: impl Into<String>) -> Self {
        Self::fields(vec![FieldError::new(field, value, accepted)])
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, detail)
    }

    /// The path takes other methods.
    pub fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(405, detail)
    }

    /// Something of that name, or with that key, is in the way.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(409, detail)
    }

    /// The body is too large.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(413, detail)
    }

    /// The body is no JSON by its content type.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(415, detail)
    }

    /// The key is another request's.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(422, detail)
    }

    /// AWS could not be asked, or refuses us; the error's own message goes to the caller, its causes to the log only.
    pub fn unavailable(error: &(dyn Error + 'static)) -> Self {
        Self {
            cause: Some(report(error)),
            ..Self::new(503, format!("{error}; another try may fare better"))
        }
    }

    /// Tells what was sent before.
    #[must_use]
    pub fn with_jobs(self, jobs: Vec<Value>) -> Self {
        Self { jobs, ..self }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether it is ours and not the caller's.
    pub fn is_ours(&self) -> bool {
        self.status >= 500
    }

    /// The problem on one line, with its fields and its cause, for the log.
    pub fn told(&self) -> String {
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

/// Cuts a value to what may be told back: a long text is cut, and of a long list or object only its kind is told.
fn shortened(value: Value) -> Value {
    let kind = match &value {
        Value::String(text) if text.chars().count() > MAX_VALUE => {
            return Value::String(text.chars().take(MAX_VALUE).collect());
        }
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        _ => return value,
    };
    if value.to_string().len() > MAX_VALUE {
        Value::String(kind.to_owned())
    } else {
        value
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
    fn what_is_long_is_not_told_back_in_full() {
        for (value, expected) in [
            (json!("x".repeat(300)), json!("x".repeat(200))),
            (json!([["x".repeat(300)]]), json!("a list")),
            (json!({"x": "x".repeat(300)}), json!("an object")),
            (json!([1]), json!([1])),
        ] {
            assert_eq!(FieldError::new("f", Some(value), "").value, Some(expected));
        }
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
        let problem = Problem::unavailable(&Outer(std::fmt::Error));
        assert!(problem.is_ours() && problem.told().contains("an error occurred"));
        assert!(!serde_json::to_string(&problem).unwrap().contains("an error occurred"));
    }
}

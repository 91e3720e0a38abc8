//! Describes what is refused of the text that says when a schedule fires.

use prefetch::fields::FieldError;
use serde_json::Value;

/// Refuses a part of the text, with its value and what is accepted.
pub fn refuse(part: &str, value: impl Into<String>, accepted: impl Into<String>) -> FieldError {
    FieldError::new(part, Some(Value::String(value.into())), accepted)
}

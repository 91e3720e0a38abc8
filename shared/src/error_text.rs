//! Describes how errors and reasons are told.

use std::error::Error;

use serde::Serialize;

/// Writes an error and its causes on one line, outermost first, separated by `: `.
#[must_use]
pub fn error_text(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// Writes a reason as the word by which answers and logs know it.
///
/// # Panics
/// Where the value is not serialised as a text.
pub fn word(reason: &impl Serialize) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(word)) => word,
        other => panic!("a reason is serialised as a word, not as {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no luck")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn an_error_is_told_with_its_cause() {
        let error = Outer("x".parse::<u8>().unwrap_err());
        assert_eq!(error_text(&error), "no luck: invalid digit found in string");
    }
}

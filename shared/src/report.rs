//! How an error is told: once, at the boundary, with its causes.

use std::error::Error;

/// Writes an error and its causes on one line, outermost first, separated by `: `.
#[must_use]
pub fn report(error: &dyn Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no luck")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn an_error_is_told_with_its_cause() {
        let error = Outer("x".parse::<u8>().unwrap_err());
        assert_eq!(report(&error), "no luck: invalid digit found in string");
    }
}

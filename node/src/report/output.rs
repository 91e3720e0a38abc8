//! Lines on standard output and standard error.

use std::io::Write;

/// Prints a line; returns false where nobody reads it any more, which is no reason to end.
pub fn print(mut to: impl Write, line: &str) -> bool {
    to.write_all(format!("{line}\n").as_bytes()).is_ok() && to.flush().is_ok()
}

/// Puts a blank in the place of each control character.
pub fn one_line(words: &str) -> String {
    words
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

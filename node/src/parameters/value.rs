//! Values of parameters, each judged by itself; what is refused is told on one short line.

use std::{ops::RangeInclusive, time::Duration};

/// Bounds the characters of a list by those that a reference may have.
const MAX_CHARACTERS: usize = 800;
/// Bounds the part of a reference that stands in a refusal, in characters.
const SHOWN: usize = 200;

pub(super) fn execution_timeout(value: &str) -> Result<Duration, String> {
    let seconds = number("executionTimeout", value, 5..=172_800)?;
    Ok(Duration::from_secs(seconds.into()))
}

pub(super) fn number(name: &str, value: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    match value.parse() {
        Ok(number) if is_plain && range.contains(&number) => Ok(number),
        _ => Err(format!(
            "{name} is no whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

pub(super) fn switch(name: &str, value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("{name} is neither true nor false"))
}

/// Reads a list of references, one blank between two, each of the given shape.
pub(super) fn references<T>(
    name: &str,
    list: &str,
    at_most: usize,
    shape: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    if list.len() > at_most * MAX_CHARACTERS {
        return Err(format!("{name} is longer than {at_most} references can be"));
    }
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b"._/:@-".contains(&byte);
    let is_reference = |text: &str| !text.is_empty() && text.bytes().all(is_character);
    if !list.split(' ').all(is_reference) {
        return Err(format!("{name} is no list of references with one space between two"));
    }
    let references: Vec<&str> = list.split(' ').collect();
    if references.len() > at_most {
        return Err(format!("{name} names {} images, more than {at_most}", references.len()));
    }
    let read = |reference: &str| read(reference).ok_or_else(|| refusal(reference, shape));
    references.into_iter().map(read).collect()
}

fn refusal(reference: &str, shape: &str) -> String {
    let shown: String = reference.chars().take(SHOWN).collect();
    format!("not {shape}, of at most 255 and 128 characters before the digest: {shown}")
}

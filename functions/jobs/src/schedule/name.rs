//! Names of schedules.

/// Names what the second schedule's name ends with where cron takes two; no name that is requested has a dot.
pub const TWIN: &str = ".weekday";
/// Limits how many characters a name has at most.
const MAX_NAME: usize = 48;

/// Returns true for what a schedule may be called.
pub fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Tells what a schedule may be called.
pub fn accepted_names() -> String {
    format!("1 to {MAX_NAME} letters, digits, '-' and '_'")
}

/// Names the second part of the schedule with this name.
pub fn twin(name: &str) -> String {
    format!("{name}{TWIN}")
}

//! Describes how the functions log.

use tracing_subscriber::filter::LevelFilter;

/// Returns the least severe level that is logged, as the template sets it (`AWS_LAMBDA_LOG_LEVEL`); INFO where it does not.
#[must_use]
pub fn level() -> LevelFilter {
    std::env::var("AWS_LAMBDA_LOG_LEVEL")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::INFO)
}

/// Logs to stdout, one JSON object a line, from [`level`].
///
/// Lambda filters by level only lines that carry `timestamp` (RFC 3339) and `level` (Lambda developer guide, JSON logs).
pub fn init() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_max_level(level())
        .init();
}

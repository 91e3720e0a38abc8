//! How the functions log.

use tracing_subscriber::filter::LevelFilter;

/// Logs to stdout, one JSON object a line, from the level that the template sets (`AWS_LAMBDA_LOG_LEVEL`, else INFO).
///
/// Lambda filters by level only lines that carry `timestamp` (RFC 3339) and `level` (Lambda developer guide, JSON logs).
pub fn init() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL")
        .ok()
        .and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .init();
}

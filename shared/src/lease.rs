//! Leases: for how long whoever began something is the only one to go on with it.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// Sets for how long a lease holds: a function may run for 60 seconds, and Lambda's next try begins a minute after its end;
/// for a launch, as long as the queue's messages stay away.
pub const HOLDS: TimeDelta = TimeDelta::seconds(60);

/// Returns true while whoever took the lease may be at work.
#[must_use]
pub fn is_live(taken_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - taken_at < HOLDS
}

/// Writes when a lease was taken, to the nanosecond: it also tells one run from another.
#[must_use]
pub fn stamp(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

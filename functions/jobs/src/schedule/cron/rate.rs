//! A rate(…) of EventBridge Scheduler.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use prefetch::fields::FieldError;

use crate::schedule::cron::refusal::refuse;

/// Holds a rate(…), as it is written and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    pub text: String,
    pub every: TimeDelta,
}

impl Rate {
    /// Reads a number and a unit.
    ///
    /// # Errors
    /// [`FieldError`] where EventBridge Scheduler does not take them.
    pub fn parse(inner: &str) -> Result<Self, FieldError> {
        let refused = || {
            let accepted = "a whole number above 0, and minute, hour or day, or minutes, hours or days";
            refuse("rate", inner, accepted)
        };
        let words: Vec<&str> = inner.split_whitespace().collect();
        let &[number, unit] = words.as_slice() else {
            return Err(refused());
        };
        let is_plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        let count: i64 = number
            .parse::<u32>()
            .ok()
            .filter(|_| is_plain)
            .ok_or_else(refused)?
            .into();
        // EventBridge's rules want the unit to agree with the number, Scheduler takes either.
        let every = match unit {
            "minute" | "minutes" => TimeDelta::minutes(count),
            "hour" | "hours" => TimeDelta::hours(count),
            "day" | "days" => TimeDelta::days(count),
            _ => return Err(refused()),
        };
        let text = format!("rate({number} {unit})");
        Ok(Self { text, every })
    }

    /// Gives the times after `now`, of a rate that counts from `start`.
    pub fn next(&self, start: DateTime<Utc>, now: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        let over = (now - start).num_seconds();
        let passed = if over < 0 {
            0
        } else {
            over / self.every.num_seconds() + 1
        };
        (0..).map_while(move |count: i64| {
            let seconds = self.every.num_seconds().checked_mul(passed + count)?;
            start.checked_add_signed(TimeDelta::try_seconds(seconds)?)
        })
    }
}

/// Gives the first time of a rate that is created now: a while later, for a start that is past would fire at once.
pub fn start(now: DateTime<Utc>) -> DateTime<Utc> {
    let now = now.trunc_subsecs(0);
    now + TimeDelta::seconds(120 - now.timestamp().rem_euclid(60))
}

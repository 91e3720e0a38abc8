//! Describes when a schedule fires: five fields of cron, or one of EventBridge Scheduler's own expressions.

mod expression;
mod field;
mod five_fields;
pub mod rate;
mod refusal;
pub mod zone;

use chrono::{DateTime, NaiveDateTime, Timelike, Utc};
use chrono_tz::Tz;
use prefetch::fields::FieldError;

use crate::schedule::cron::{expression::Expression, rate::Rate, refusal::refuse, zone::local};

/// Limits how many of the next times are told.
const NEXT_TIMES: usize = 5;
/// Limits how many characters an expression has at most (EventBridge Scheduler service model).
const MAX_EXPRESSION: usize = 256;
/// Sets how an at() expression has its time.
const AT_FORMAT: &str = "%Y-%m-%dT%H:%M:%S";

/// Tells when a schedule fires, whatever the time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// At every time that one of these expressions matches.
    Cron(Vec<Expression>),
    /// Once in so long.
    Rate(Rate),
    /// Once.
    At(NaiveDateTime),
}

impl Timing {
    /// Reads when a schedule is to fire.
    ///
    /// # Errors
    /// [`FieldError`] where it is no such text, or what it says cannot be said to EventBridge Scheduler.
    pub fn parse(given: &str) -> Result<Self, FieldError> {
        if given.chars().count() > MAX_EXPRESSION {
            let accepted = format!("at most {MAX_EXPRESSION} characters");
            return Err(refuse("schedule", given, accepted));
        }
        let text = given.trim();
        let Some((kind, rest)) = text.split_once('(') else {
            return five_fields::parse(text).map(Self::Cron);
        };
        let inner = rest.strip_suffix(')').unwrap_or_default().trim();
        match kind {
            "cron" => Expression::parse(inner).map(|expression| Self::Cron(vec![expression])),
            "rate" => Rate::parse(inner).map(Self::Rate),
            "at" => at(inner).map(Self::At),
            _ => {
                let accepted = "five fields of cron, rate(…), cron(…) or at(…)";
                Err(refuse("schedule", given, accepted))
            }
        }
    }

    /// Gives the expressions of EventBridge Scheduler's by which it fires.
    pub fn expressions(&self) -> Vec<String> {
        match self {
            Self::Cron(expressions) => expressions.iter().map(|expression| expression.text.clone()).collect(),
            Self::Rate(rate) => vec![rate.text.clone()],
            Self::At(time) => vec![format!("at({})", time.format(AT_FORMAT))],
        }
    }

    /// Tells the next times after `now`, five or fewer where there are no more.
    ///
    /// Times are EventBridge Scheduler's: where the clocks go forward, a time that does not exist is left out; where they
    /// go back, a time that comes twice is taken the first time only, before the shift; a rate is a duration, whatever the
    /// clocks do (user guide, Schedule types, Daylight savings time). A rate counts from `start`.
    pub fn next(&self, zone: Tz, start: DateTime<Utc>, now: DateTime<Utc>) -> Vec<DateTime<Tz>> {
        match self {
            Self::Cron(expressions) => {
                let times = expressions.iter();
                let times = times.flat_map(|expression| expression.next(zone, now).take(NEXT_TIMES));
                let mut times: Vec<_> = times.collect();
                times.sort();
                times.dedup();
                times.truncate(NEXT_TIMES);
                times
            }
            Self::Rate(rate) => {
                let times = rate.next(start, now).take(NEXT_TIMES);
                times.map(|time| time.with_timezone(&zone)).collect()
            }
            Self::At(time) => local(zone, *time).filter(|time| *time > now).into_iter().collect(),
        }
    }

    /// Returns true where it counts from its start.
    pub fn has_start(&self) -> bool {
        matches!(self, Self::Rate(_))
    }

    /// Returns true where it fires once and is over then.
    pub fn is_once(&self) -> bool {
        matches!(self, Self::At(_))
    }
}

fn at(inner: &str) -> Result<NaiveDateTime, FieldError> {
    let time = NaiveDateTime::parse_from_str(inner, AT_FORMAT).ok();
    // chrono also reads `2027-1-1T7:0:0`, the year 10,000 and the second 60.
    let is_exact = |time: &NaiveDateTime| time.format(AT_FORMAT).to_string() == inner && inner.len() == 19;
    time.filter(|time| is_exact(time) && time.nanosecond() == 0)
        .ok_or_else(|| refuse("at", inner, "a time that exists, as yyyy-mm-ddThh:mm:ss"))
}

#[cfg(test)]
mod tests;

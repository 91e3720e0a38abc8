//! A cron(…) of EventBridge Scheduler.

use std::{collections::BTreeSet, iter::from_fn};

use chrono::{DateTime, Datelike, NaiveDateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use prefetch::fields::FieldError;

use crate::schedule::cron::{
    field::{Descending, Field, MONTHS, Steps, WEEKDAYS, number},
    refusal::refuse,
    zone::local,
};

/// The lengths that each month has.
const MONTH_DAYS: [&[u16]; 12] = [
    &[31],
    &[28, 29],
    &[31],
    &[30],
    &[31],
    &[30],
    &[31],
    &[31],
    &[30],
    &[31],
    &[30],
    &[31],
];

/// The six fields of EventBridge Scheduler's cron(…): its user guide (Schedule types) has the values and the signs, and no
/// steps in day-of-week; the rest is as in Quartz, whose expressions they are.
pub const SCHEDULER_CRON: [Field; 6] = [
    Field::of_scheduler("minutes", 0, 59, &[]),
    Field::of_scheduler("hours", 0, 23, &[]),
    Field::of_scheduler("day-of-month", 1, 31, &[]),
    Field::of_scheduler("month", 1, 12, &MONTHS),
    Field {
        steps: Steps::None,
        ..Field::of_scheduler("day-of-week", 1, 7, &WEEKDAYS)
    },
    Field {
        descending: Descending::Refused,
        ..Field::of_scheduler("year", 1970, 2199, &[])
    },
];

/// Holds a cron(…), as it is written and as croner reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    pub text: String,
    cron: Cron,
    /// Tells how many days before a month's last it fires, where it says so.
    before_last: Option<u16>,
}

impl Expression {
    /// Reads the six fields of a cron(…).
    ///
    /// # Errors
    /// [`FieldError`] where EventBridge Scheduler does not take them.
    pub fn parse(inner: &str) -> Result<Self, FieldError> {
        let inner = inner.to_uppercase();
        let words: Vec<&str> = inner.split_whitespace().collect();
        let &[_, _, day, month, weekday, _] = words.as_slice() else {
            let accepted = "six fields, which are minutes, hours, day-of-month, month, day-of-week and year";
            return Err(refuse("cron", inner, accepted));
        };
        if (day == "?") == (weekday == "?") {
            let accepted = "? in one of day-of-month and day-of-week, and not in both";
            return Err(refuse("cron", inner, accepted));
        }
        let mut before_last = None;
        let fields = SCHEDULER_CRON.iter().zip(&words).enumerate();
        let numbers = fields.map(|(place, (field, word))| match place {
            2 if word.starts_with("L-") => {
                let (days, before) = before_last_of(word, month)?;
                before_last = Some(before);
                Ok(joined(days))
            }
            2 => day_of_month(word),
            4 => day_of_week(word),
            _ if *word == "*" => Ok("*".to_owned()),
            _ => field.values(word).map(joined),
        });
        let numbers: Result<Vec<String>, FieldError> = numbers.collect();
        let cron = croner(&format!("0 {}", numbers?.join(" ")))?;
        Ok(Self {
            text: format!("cron({})", words.join(" ")),
            cron,
            before_last,
        })
    }

    /// Gives the times after `now`.
    pub fn next(&self, zone: Tz, now: DateTime<Utc>) -> impl Iterator<Item = DateTime<Tz>> {
        let mut time = now.with_timezone(&zone).naive_local();
        let times = from_fn(move || {
            time = self.cron.find_next_occurrence(&time, false).ok()?;
            Some(time)
        });
        let times = times.filter(|time| self.is_before_last(time));
        times
            .filter_map(move |time| local(zone, time))
            .filter(move |time| *time > now)
    }

    fn is_before_last(&self, time: &NaiveDateTime) -> bool {
        let left = u16::from(time.num_days_in_month()) - u16::try_from(time.day()).unwrap_or(0);
        self.before_last.is_none_or(|before| before == left)
    }
}

fn joined(values: impl IntoIterator<Item = u16>) -> String {
    let values = values.into_iter().map(|value| value.to_string());
    values.collect::<Vec<_>>().join(",")
}

/// Reads `L-n`, so many days before a month's last: on which days that may be in these months, and the number.
fn before_last_of(word: &str, month: &str) -> Result<(BTreeSet<u16>, u16), FieldError> {
    let months = &SCHEDULER_CRON[3].values(month)?;
    let before = word.strip_prefix("L-").and_then(number);
    let days = |before: u16| {
        lengths(months)
            .filter(move |length| *length > before)
            .map(move |length| length - before)
    };
    let read = before.map(|before| (days(before).collect::<BTreeSet<u16>>(), before));
    read.filter(|(days, _)| !days.is_empty()).ok_or_else(|| {
        let accepted = "L-1 to L-30, so many days before the last of a month that is long enough";
        refuse(SCHEDULER_CRON[2].name, word, accepted)
    })
}

/// Reads a day-of-month field of a cron(…): also `?`, `L`, the last day, `nW`, the closest day from Monday to Friday in the
/// same month, and `LW`, the last such day.
fn day_of_month(word: &str) -> Result<String, FieldError> {
    if matches!(word, "*" | "?" | "L" | "LW") {
        return Ok(word.to_owned());
    }
    let field = &SCHEDULER_CRON[2];
    let Some(day) = word.strip_suffix('W') else {
        return field.values(word).map(joined);
    };
    match number(day) {
        Some(day @ 1..=31) => Ok(format!("{day}W")),
        _ => Err(refuse(field.name, word, "1W to 31W, or LW")),
    }
}

/// Reads a day-of-week field of a cron(…): also `?`, `L`, the week's last day, `nL`, a day's last one in a month, and
/// `n#k`, its k-th.
fn day_of_week(word: &str) -> Result<String, FieldError> {
    let field = &SCHEDULER_CRON[4];
    let refused = |accepted: &str| refuse(field.name, word, accepted);
    match (word, word.strip_suffix('L'), word.split_once('#')) {
        ("*" | "?", ..) => Ok(word.to_owned()),
        ("L", ..) => Ok(field.max.to_string()),
        (_, Some(day), _) => {
            let day = field.value(day);
            let day = day.ok_or_else(|| refused("1L to 7L or SUNL to SATL, the last of these days in a month"))?;
            Ok(format!("{day}L"))
        }
        (_, _, Some((day, count))) => {
            let count = number(count).filter(|count| (1..=5).contains(count));
            let day = field.value(day).zip(count);
            let (day, count) = day.ok_or_else(|| refused("1-7 or SUN-SAT before #, and 1-5 after it"))?;
            Ok(format!("{day}#{count}"))
        }
        _ => field.values(word).map(joined),
    }
}

/// Has croner read six fields of numbers, after the seconds; its weekdays begin with 1, as EventBridge Scheduler's do.
fn croner(numbers: &str) -> Result<Cron, FieldError> {
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Required)
        .alternative_weekdays(true)
        .build();
    parser
        .parse(numbers)
        .map_err(|error| refuse("cron", numbers, error.to_string()))
}

/// Gives the lengths that these months have.
pub fn lengths<'a>(months: impl IntoIterator<Item = &'a u16>) -> impl Iterator<Item = u16> {
    let lengths = months.into_iter().map(|month| MONTH_DAYS[usize::from(*month) - 1]);
    lengths.flatten().copied()
}

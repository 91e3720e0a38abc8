//! When a schedule fires: five fields of cron, or one of EventBridge Scheduler's own expressions.

use std::iter::from_fn;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, SubsecRound, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use thiserror::Error;

/// How many of the next times are told.
const NEXT_TIMES: usize = 5;
/// How many characters an expression has at most (EventBridge Scheduler service model).
const MAX_EXPRESSION: usize = 256;
/// How many time zones are proposed in the place of one that is none.
const MAX_HINTS: usize = 3;
/// How an at() expression has its time.
const AT_FORMAT: &str = "%Y-%m-%dT%H:%M:%S";

/// A field of a cron expression.
struct Field {
    name: &'static str,
    min: u16,
    max: u16,
    /// What its values are called, from `min` on.
    names: &'static [&'static str],
    steps: Steps,
}

/// What a field's steps may begin with.
#[derive(PartialEq)]
enum Steps {
    /// `*/n` and `a-b/n`, as cron has it; to some crons `a/n` is `a` alone.
    OfRanges,
    /// `a/n` too: from `a` to the end.
    OfAll,
    /// There are none.
    None,
}

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// The longest each month gets.
const MONTH_DAYS: [u16; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// The five fields of cron.
const CRON: [Field; 5] = [
    Field::new("minute", 0, 59, &[], Steps::OfRanges),
    Field::new("hour", 0, 23, &[], Steps::OfRanges),
    Field::new("day of month", 1, 31, &[], Steps::OfRanges),
    Field::new("month", 1, 12, &MONTHS, Steps::OfRanges),
    Field::new("day of week", 0, 7, &WEEKDAYS, Steps::OfRanges),
];
/// The six fields of EventBridge Scheduler's cron(…), as its user guide has them (Schedule types).
const SCHEDULER_CRON: [Field; 6] = [
    Field::new("minutes", 0, 59, &[], Steps::OfAll),
    Field::new("hours", 0, 23, &[], Steps::OfAll),
    Field::new("day-of-month", 1, 31, &[], Steps::OfAll),
    Field::new("month", 1, 12, &MONTHS, Steps::OfAll),
    Field::new("day-of-week", 1, 7, &WEEKDAYS, Steps::None),
    Field::new("year", 1970, 2199, &[], Steps::OfAll),
];

/// Why there is no such time; the message names what is wrong, its value and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{part} {value:?} is not accepted: it takes {accepted}")]
pub struct CronError {
    /// What is wrong.
    pub part: &'static str,
    /// Its value.
    pub value: String,
    /// What would have been accepted.
    pub accepted: String,
}

/// When a schedule fires, whatever the time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// At every time that one of these expressions matches.
    Cron(Vec<Expression>),
    /// Once in so long.
    Rate(Rate),
    /// Once.
    At(NaiveDateTime),
}

/// A cron(…) of EventBridge Scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: String,
    cron: Cron,
}

/// A rate(…) of EventBridge Scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    text: String,
    every: TimeDelta,
}

impl CronError {
    fn new(part: &'static str, value: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self {
            part,
            value: value.into(),
            accepted: accepted.into(),
        }
    }
}

impl Timing {
    /// Reads when a schedule is to fire.
    ///
    /// # Errors
    /// [`CronError`] where it is no such text, or what it says cannot be said to EventBridge Scheduler.
    pub fn parse(asked: &str) -> Result<Self, CronError> {
        if asked.chars().count() > MAX_EXPRESSION {
            let accepted = format!("at most {MAX_EXPRESSION} characters");
            return Err(CronError::new("schedule", asked, accepted));
        }
        let text = asked.trim();
        let Some((kind, rest)) = text.split_once('(') else {
            return of_cron(text).map(Self::Cron);
        };
        let inner = rest.strip_suffix(')').unwrap_or_default().trim();
        match kind {
            "cron" => Expression::parse(inner).map(|expression| Self::Cron(vec![expression])),
            "rate" => Rate::parse(inner).map(Self::Rate),
            "at" => at(inner).map(Self::At),
            _ => {
                let accepted = "five fields of cron, rate(…), cron(…) or at(…)";
                Err(CronError::new("schedule", asked, accepted))
            }
        }
    }

    /// Writes it as EventBridge Scheduler's expressions, of which any may fire.
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
                let times = expressions.iter().flat_map(|expression| expression.next(zone, now));
                let mut times: Vec<_> = times.collect();
                times.sort();
                times.dedup();
                times.truncate(NEXT_TIMES);
                times
            }
            Self::Rate(rate) => {
                let times = rate.next(start, now).into_iter();
                times.map(|time| time.with_timezone(&zone)).collect()
            }
            Self::At(time) => local(zone, *time).filter(|time| *time > now).into_iter().collect(),
        }
    }

    /// Whether it counts from its start.
    pub fn has_start(&self) -> bool {
        matches!(self, Self::Rate(_))
    }

    /// Whether it fires once and is over then.
    pub fn is_once(&self) -> bool {
        matches!(self, Self::At(_))
    }
}

/// Finds a time zone of the IANA database.
///
/// # Errors
/// [`CronError`] where there is none of this name, with those that may be meant.
pub fn zone(name: &str) -> Result<Tz, CronError> {
    name.parse().map_err(|_| {
        let wanted = name.to_lowercase().replace([' ', '-'], "_");
        let is_like = |zone: &&Tz| {
            let zone = zone.name().to_lowercase();
            zone == wanted
                || zone
                    .rsplit('/')
                    .next()
                    .is_some_and(|city| wanted.rsplit('/').next() == Some(city))
        };
        let hints: Vec<&str> = TZ_VARIANTS
            .iter()
            .filter(is_like)
            .map(|zone| zone.name())
            .take(MAX_HINTS)
            .collect();
        let accepted = match hints.as_slice() {
            [] => "a name of the IANA time zone database, such as Europe/Berlin or UTC".to_owned(),
            hints => format!("a name of the IANA time zone database, perhaps {}", hints.join(" or ")),
        };
        CronError::new("time zone", name, accepted)
    })
}

/// The instant of a local time: the first of two, none where the clocks leave it out.
fn local(zone: Tz, time: NaiveDateTime) -> Option<DateTime<Tz>> {
    match zone.from_local_datetime(&time) {
        MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => Some(time),
        MappedLocalTime::None => None,
    }
}

fn at(inner: &str) -> Result<NaiveDateTime, CronError> {
    let time = NaiveDateTime::parse_from_str(inner, AT_FORMAT).ok();
    // chrono also reads `2027-1-1T7:0:0`, the year 10,000 and the second 60.
    let is_exact = |time: &NaiveDateTime| time.format(AT_FORMAT).to_string() == inner && inner.len() == 19;
    time.filter(|time| is_exact(time) && time.nanosecond() == 0)
        .ok_or_else(|| CronError::new("at", inner, "a time that exists, as yyyy-mm-ddThh:mm:ss"))
}

impl Rate {
    fn parse(inner: &str) -> Result<Self, CronError> {
        let refused = || {
            let accepted = "a whole number and minutes, hours or days; or 1 minute, 1 hour or 1 day";
            CronError::new("rate", inner, accepted)
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
        let every = match (count, unit) {
            (1, "minute") | (2.., "minutes") => TimeDelta::minutes(count),
            (1, "hour") | (2.., "hours") => TimeDelta::hours(count),
            (1, "day") | (2.., "days") => TimeDelta::days(count),
            _ => return Err(refused()),
        };
        let text = format!("rate({number} {unit})");
        Ok(Self { text, every })
    }

    fn next(&self, start: DateTime<Utc>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let over = (now - start).num_seconds();
        let passed = if over < 0 {
            0
        } else {
            over / self.every.num_seconds() + 1
        };
        let time = |count: i64| {
            let seconds = self.every.num_seconds().checked_mul(passed + count)?;
            start.checked_add_signed(TimeDelta::try_seconds(seconds)?)
        };
        (0..).map_while(time).take(NEXT_TIMES).collect()
    }
}

/// When the first time of a rate that is created now is: a while later, for a start that is past would fire at once.
pub fn start(now: DateTime<Utc>) -> DateTime<Utc> {
    let now = now.trunc_subsecs(0);
    now + TimeDelta::seconds(120 - now.timestamp().rem_euclid(60))
}

impl Field {
    const fn new(name: &'static str, min: u16, max: u16, names: &'static [&'static str], steps: Steps) -> Self {
        Self {
            name,
            min,
            max,
            names,
            steps,
        }
    }

    /// Checks a field's text, and writes it with numbers only.
    fn numbers(&self, text: &str) -> Result<String, CronError> {
        if text == "*" {
            return Ok(text.to_owned());
        }
        let items: Option<Vec<String>> = text.split(',').map(|item| self.item(item)).collect();
        items.map(|items| items.join(",")).ok_or_else(|| self.refuse(text))
    }

    fn item(&self, item: &str) -> Option<String> {
        let Some((range, step)) = item.split_once('/') else {
            return self.range(item);
        };
        let step = number(step).filter(|step| (1..=self.max).contains(step))?;
        let range = match self.steps {
            Steps::None => None,
            _ if range == "*" => Some(range.to_owned()),
            Steps::OfRanges if !range.contains('-') => None,
            _ => self.range(range),
        };
        range.map(|range| format!("{range}/{step}"))
    }

    fn range(&self, range: &str) -> Option<String> {
        let Some((first, last)) = range.split_once('-') else {
            return self.value(range).map(|value| value.to_string());
        };
        let (first, mut last_value) = (self.value(first)?, self.value(last)?);
        let is_sunday = last.eq_ignore_ascii_case(WEEKDAYS[0]);
        if is_sunday && last_value < first && self.max - self.min == 7 {
            // Where Sunday is 7 too, a week may end with it.
            last_value = self.max;
        }
        (first <= last_value).then(|| format!("{first}-{last_value}"))
    }

    fn value(&self, text: &str) -> Option<u16> {
        let named = self
            .names
            .iter()
            .zip(self.min..)
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        let value = named.map(|(_, value)| value).or_else(|| number(text))?;
        (self.min..=self.max).contains(&value).then_some(value)
    }

    fn refuse(&self, text: &str) -> CronError {
        let names = match self.names {
            [first, .., last] => format!(" or {first}-{last}"),
            _ => String::new(),
        };
        let steps = match self.steps {
            Steps::OfRanges => format!(", steps */n and a-b/n up to {}", self.max),
            Steps::OfAll => format!(", steps */n, a/n and a-b/n up to {}", self.max),
            Steps::None => String::new(),
        };
        let accepted = format!(
            "{}-{}{names}, ranges a-b that ascend{steps}, lists of these, or * alone",
            self.min, self.max
        );
        CronError::new(self.name, text, accepted)
    }
}

/// Reads a number that is written in digits only.
fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// Reads five fields of cron.
///
/// Where both the day of the month and the day of the week are chosen, cron fires when either matches: EventBridge
/// Scheduler has no expression for that, but two of which either fires do the same.
fn of_cron(text: &str) -> Result<Vec<Expression>, CronError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[_, _, day, month, weekday] = words.as_slice() else {
        let accepted = "five fields of cron, which are minute, hour, day of month, month and day of week; or rate(…), cron(…) or at(…)";
        return Err(CronError::new("schedule", text, accepted));
    };
    let numbers: Result<Vec<String>, CronError> = CRON
        .iter()
        .zip(&words)
        .map(|(field, word)| field.numbers(word))
        .collect();
    let sets = croner(&numbers?.join(" "), false)?.pattern;
    let (days, months) = (sets.days.values(), sets.months.values());
    let weekdays: Vec<u16> = sets.days_of_week.values().iter().map(|day| day + 1).collect();
    let of_days = |days: &str, weekdays: &str| {
        let [minutes, hours, months] = [(0, &sets.minutes.values()), (1, &sets.hours.values()), (3, &months)]
            .map(|(place, values)| list(values, &SCHEDULER_CRON[place]));
        Expression::parse(&format!("{minutes} {hours} {days} {months} {weekdays} *"))
    };
    let of_month = || of_days(&list(&days, &SCHEDULER_CRON[2]), "?");
    let of_week = || of_days("?", &list(&weekdays, &SCHEDULER_CRON[4]));
    let longest = months.iter().map(|month| MONTH_DAYS[usize::from(*month) - 1]).max();
    let is_date = longest.is_some_and(|longest| days.iter().any(|day| *day <= longest));
    match (is_any(day), is_any(weekday)) {
        (true, true) => Ok(vec![of_days("*", "?")?]),
        (true, false) => Ok(vec![of_week()?]),
        (false, true) if is_date => Ok(vec![of_month()?]),
        (false, true) => {
            let accepted = format!("a day that comes in the month {month}");
            Err(CronError::new(CRON[2].name, day, accepted))
        }
        (false, false) => {
            let begins_with_star = |word: &str| word.split(',').any(|item| item.starts_with('*'));
            let mut choices = [(&CRON[2], day), (&CRON[4], weekday)].into_iter();
            if let Some((field, word)) = choices.find(|(_, word)| begins_with_star(word)) {
                let accepted = "no * beside a choice in the other day field: some crons then want both to match, others either; a-b/n says either";
                return Err(CronError::new(field.name, word, accepted));
            }
            if days.len() == 31 || weekdays.len() == 7 {
                Ok(vec![of_days("*", "?")?])
            } else if is_date {
                Ok(vec![of_month()?, of_week()?])
            } else {
                Ok(vec![of_week()?])
            }
        }
    }
}

/// Whether a day field chooses nothing.
fn is_any(word: &str) -> bool {
    matches!(word, "*" | "*/1")
}

/// Writes values as EventBridge Scheduler reads them, short enough that five fields always fit into an expression.
fn list(values: &[u16], field: &Field) -> String {
    let name = |value: u16| match field.names {
        names if names.len() == 7 => names[usize::from(value - field.min)].to_owned(),
        _ => value.to_string(),
    };
    if values.len() == usize::from(field.max - field.min) + 1 {
        return "*".to_owned();
    }
    if let [first, second, _, ..] = values {
        let step = second - first;
        let is_step = step > 1 && (*first..=field.max).step_by(step.into()).eq(values.iter().copied());
        if is_step && field.steps == Steps::OfAll {
            return format!("{}/{step}", name(*first));
        }
    }
    let runs = values.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, _, .., last] => format!("{}-{}", name(*first), name(*last)),
        run => run.iter().map(|value| name(*value)).collect::<Vec<_>>().join(","),
    });
    runs.collect::<Vec<_>>().join(",")
}

impl Expression {
    /// Reads the six fields of a cron(…).
    fn parse(inner: &str) -> Result<Self, CronError> {
        let inner = inner.to_uppercase();
        let words: Vec<&str> = inner.split_whitespace().collect();
        let &[_, _, day, _, weekday, _] = words.as_slice() else {
            let accepted = "six fields, which are minutes, hours, day-of-month, month, day-of-week and year";
            return Err(CronError::new("cron", inner, accepted));
        };
        if (day == "?") == (weekday == "?") {
            return Err(CronError::new(
                "cron",
                inner,
                "? in one of day-of-month and day-of-week, and not in both",
            ));
        }
        let fields = SCHEDULER_CRON.iter().zip(&words);
        let numbers = fields.enumerate().map(|(place, (field, word))| match place {
            2 => day_of_month(word),
            4 => day_of_week(word),
            _ => field.numbers(word),
        });
        let numbers: Result<Vec<String>, CronError> = numbers.collect();
        let cron = croner(&format!("0 {}", numbers?.join(" ")), true)?;
        let text = format!("cron({})", words.join(" "));
        Ok(Self { text, cron })
    }

    fn next(&self, zone: Tz, now: DateTime<Utc>) -> Vec<DateTime<Tz>> {
        let mut time = now.with_timezone(&zone).naive_local();
        let times = from_fn(|| {
            time = self.cron.find_next_occurrence(&time, false).ok()?;
            Some(time)
        });
        let instants = times.filter_map(|time| local(zone, time)).filter(|time| *time > now);
        instants.take(NEXT_TIMES).collect()
    }
}

/// Reads a day-of-month field of a cron(…): also `?`, `L`, the last day, and `nW`, the closest day from Monday to Friday.
fn day_of_month(word: &str) -> Result<String, CronError> {
    if matches!(word, "?" | "L") {
        return Ok(word.to_owned());
    }
    let field = &SCHEDULER_CRON[2];
    let Some(day) = word.strip_suffix('W') else {
        return field.numbers(word);
    };
    // What a W does in a month without the day is not documented.
    match number(day) {
        Some(1..=28) => Ok(word.to_owned()),
        _ => Err(CronError::new(field.name, word, "1W to 28W, which every month has")),
    }
}

/// Reads a day-of-week field of a cron(…): also `?`, `L`, the week's last day, `nL`, a day's last one in a month, and
/// `n#k`, its k-th.
fn day_of_week(word: &str) -> Result<String, CronError> {
    let field = &SCHEDULER_CRON[4];
    let refused = || CronError::new(field.name, word, "1-7 or SUN-SAT before #, and 1-5 after it");
    match (word, word.strip_suffix('L'), word.split_once('#')) {
        ("?", ..) => Ok(word.to_owned()),
        ("L", ..) => Ok(field.max.to_string()),
        (_, Some(day), _) => match number(day) {
            Some(1..=7) => Ok(word.to_owned()),
            _ => Err(CronError::new(
                field.name,
                word,
                "1L to 7L, the last Sunday to Saturday of a month",
            )),
        },
        (_, _, Some((day, count))) => {
            let day = field.value(day).ok_or_else(refused)?;
            let count = number(count)
                .filter(|count| (1..=5).contains(count))
                .ok_or_else(refused)?;
            Ok(format!("{day}#{count}"))
        }
        _ => field.numbers(word),
    }
}

/// Has croner read a text of numbers; weekdays of EventBridge Scheduler begin with 1.
fn croner(numbers: &str, is_scheduler: bool) -> Result<Cron, CronError> {
    let (seconds, year) = if is_scheduler {
        (Seconds::Required, Year::Required)
    } else {
        (Seconds::Disallowed, Year::Disallowed)
    };
    let parser = CronParser::builder()
        .seconds(seconds)
        .year(year)
        .alternative_weekdays(is_scheduler)
        .sloppy_ranges(is_scheduler)
        .build();
    parser
        .parse(numbers)
        .map_err(|error| CronError::new("cron", numbers, error.to_string()))
}

#[cfg(test)]
mod tests;

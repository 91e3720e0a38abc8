//! When a schedule fires: five fields of cron, or one of EventBridge Scheduler's own expressions.

use std::{collections::BTreeSet, iter::from_fn};

use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDateTime, SubsecRound, TimeDelta, TimeZone, Timelike, Utc};
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
    descending: Descending,
}

/// What a field's steps may begin with.
#[derive(Clone, Copy, PartialEq)]
enum Steps {
    /// `*/n` and `a-b/n`, as cron has it; to some crons `a/n` is `a` alone.
    OfRanges,
    /// `a/n` too: from `a` to the end.
    OfAll,
    /// There are none.
    None,
}

/// What a range does whose end comes before its beginning.
#[derive(Clone, Copy, PartialEq)]
enum Descending {
    /// It is none: crons differ in it.
    Refused,
    /// It goes on at the field's beginning, as `FRI-MON` does.
    Wraps,
}

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
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

/// The five fields of cron.
const CRON: [Field; 5] = [
    Field::of_cron("minute", 0, 59, &[]),
    Field::of_cron("hour", 0, 23, &[]),
    Field::of_cron("day of month", 1, 31, &[]),
    Field::of_cron("month", 1, 12, &MONTHS),
    Field::of_cron("day of week", 0, 7, &WEEKDAYS),
];
/// The six fields of EventBridge Scheduler's cron(…): its user guide (Schedule types) has the values and the signs, and no
/// steps in day-of-week; the rest is as in Quartz, whose expressions they are.
const SCHEDULER_CRON: [Field; 6] = [
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
    /// How many days before a month's last it fires, where it says so.
    before_last: Option<u16>,
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
            let accepted = "a whole number above 0, and minute, hour or day, or minutes, hours or days";
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
    const fn of_cron(name: &'static str, min: u16, max: u16, names: &'static [&'static str]) -> Self {
        Self {
            name,
            min,
            max,
            names,
            steps: Steps::OfRanges,
            descending: Descending::Refused,
        }
    }

    const fn of_scheduler(name: &'static str, min: u16, max: u16, names: &'static [&'static str]) -> Self {
        Self {
            name,
            min,
            max,
            names,
            steps: Steps::OfAll,
            descending: Descending::Wraps,
        }
    }

    /// Reads the values that a field's text chooses.
    fn values(&self, text: &str) -> Result<BTreeSet<u16>, CronError> {
        let is_list = text.contains(',');
        let items = text.split(',').map(|item| match item {
            // What a list with it means is not the same to all crons.
            "*" if is_list && self.steps == Steps::OfRanges => None,
            item => self.item(item),
        });
        let items: Option<Vec<Vec<u16>>> = items.collect();
        let items = items.ok_or_else(|| self.refuse(text))?;
        Ok(items.into_iter().flatten().collect())
    }

    fn item(&self, item: &str) -> Option<Vec<u16>> {
        let (range, step) = match item.split_once('/') {
            None => (item, None),
            Some((range, step)) => (range, Some(self.step(step)?)),
        };
        let (first, last) = self.ends(range, step.is_some())?;
        let count = self.max - self.min + 1;
        let last = if first <= last { last } else { last + count };
        let values = (first..=last).step_by(step.unwrap_or(1));
        Some(values.map(|value| self.min + (value - self.min) % count).collect())
    }

    fn step(&self, text: &str) -> Option<usize> {
        let is_step = text.bytes().all(|b| b.is_ascii_digit()) && text.bytes().any(|b| b != b'0');
        // Of a step that leads out of the field, however far, only the first value is left.
        let step = text.parse().unwrap_or(usize::from(u16::MAX));
        match self.steps {
            Steps::OfAll => is_step.then_some(step),
            Steps::OfRanges => (is_step && step <= self.max.into()).then_some(step),
            Steps::None => None,
        }
    }

    /// Reads the first value of a range, of all values, or of one, and the last.
    fn ends(&self, range: &str, has_step: bool) -> Option<(u16, u16)> {
        if range == "*" {
            return Some((self.min, self.max));
        }
        let Some((first, last)) = range.split_once('-') else {
            let value = self.value(range)?;
            return match (has_step, self.steps) {
                (false, _) => Some((value, value)),
                (true, Steps::OfAll) => Some((value, self.max)),
                (true, _) => None,
            };
        };
        let (first, mut last_value) = (self.value(first)?, self.value(last)?);
        let is_sunday = last.eq_ignore_ascii_case(WEEKDAYS[0]);
        if is_sunday && last_value < first && self.max - self.min == 7 {
            // Where Sunday is 7 too, a week may end with it.
            last_value = self.max;
        }
        let is_range = first <= last_value || self.descending == Descending::Wraps;
        is_range.then_some((first, last_value))
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
        let ascend = match self.descending {
            Descending::Refused => " that ascend",
            Descending::Wraps => "",
        };
        let rest = match self.steps {
            Steps::OfRanges => format!(", steps */n and a-b/n up to {}, lists of these, or * alone", self.max),
            Steps::OfAll => ", *, steps */n, a/n and a-b/n, and lists of these".to_owned(),
            Steps::None => ", *, and lists of these".to_owned(),
        };
        let accepted = format!("{}-{}{names}, ranges a-b{ascend}{rest}", self.min, self.max);
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
    let values: Result<Vec<Vec<u16>>, CronError> = CRON
        .iter()
        .zip(&words)
        .map(|(field, word)| Ok(field.values(word)?.into_iter().collect()))
        .collect();
    let [minutes, hours, days, months, weekdays]: [Vec<u16>; 5] = values?.try_into().expect("there are five fields");
    let weekdays: BTreeSet<u16> = weekdays.iter().map(|day| day % 7 + 1).collect();
    let weekdays: Vec<u16> = weekdays.into_iter().collect();
    let of_days = |days: &str, weekdays: &str| {
        let [minutes, hours, months] =
            [(0, &minutes), (1, &hours), (3, &months)].map(|(place, values)| list(values, &SCHEDULER_CRON[place]));
        Expression::parse(&format!("{minutes} {hours} {days} {months} {weekdays} *"))
    };
    let of_month = || of_days(&list(&days, &SCHEDULER_CRON[2]), "?");
    let of_week = || of_days("?", &list(&weekdays, &SCHEDULER_CRON[4]));
    let longest = lengths(&months).max();
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

/// The lengths that these months have.
fn lengths<'a>(months: impl IntoIterator<Item = &'a u16>) -> impl Iterator<Item = u16> {
    let lengths = months.into_iter().map(|month| MONTH_DAYS[usize::from(*month) - 1]);
    lengths.flatten().copied()
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
        let &[_, _, day, month, weekday, _] = words.as_slice() else {
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
        let mut before_last = None;
        let fields = SCHEDULER_CRON.iter().zip(&words);
        let numbers = fields.enumerate().map(|(place, (field, word))| match place {
            2 if word.starts_with("L-") => {
                let months = SCHEDULER_CRON[3].values(month)?;
                let (days, before) = before_last_of(word, &months)?;
                before_last = Some(before);
                Ok(joined(days))
            }
            2 => day_of_month(word),
            4 => day_of_week(word),
            _ if *word == "*" => Ok("*".to_owned()),
            _ => field.values(word).map(joined),
        });
        let numbers: Result<Vec<String>, CronError> = numbers.collect();
        let cron = croner(&format!("0 {}", numbers?.join(" ")))?;
        let text = format!("cron({})", words.join(" "));
        Ok(Self {
            text,
            cron,
            before_last,
        })
    }

    fn next(&self, zone: Tz, now: DateTime<Utc>) -> Vec<DateTime<Tz>> {
        let mut time = now.with_timezone(&zone).naive_local();
        let times = from_fn(|| {
            time = self.cron.find_next_occurrence(&time, false).ok()?;
            Some(time)
        });
        let times = times.filter(|time| {
            let left = u16::from(time.num_days_in_month()) - u16::try_from(time.day()).unwrap_or(0);
            self.before_last.is_none_or(|before| before == left)
        });
        let instants = times.filter_map(|time| local(zone, time)).filter(|time| *time > now);
        instants.take(NEXT_TIMES).collect()
    }
}

fn joined(values: impl IntoIterator<Item = u16>) -> String {
    let values = values.into_iter().map(|value| value.to_string());
    values.collect::<Vec<_>>().join(",")
}

/// Reads `L-n`, so many days before a month's last: on which days that may be in these months, and the number.
fn before_last_of(word: &str, months: &BTreeSet<u16>) -> Result<(BTreeSet<u16>, u16), CronError> {
    let before = word.strip_prefix("L-").and_then(number);
    let days = |before: u16| {
        lengths(months)
            .filter(move |length| *length > before)
            .map(move |length| length - before)
    };
    let read = before.map(|before| (days(before).collect::<BTreeSet<u16>>(), before));
    read.filter(|(days, _)| !days.is_empty()).ok_or_else(|| {
        let accepted = "L-1 to L-30, so many days before the last of a month that is long enough";
        CronError::new(SCHEDULER_CRON[2].name, word, accepted)
    })
}

/// Reads a day-of-month field of a cron(…): also `?`, `L`, the last day, `nW`, the closest day from Monday to Friday in the
/// same month, and `LW`, the last such day.
fn day_of_month(word: &str) -> Result<String, CronError> {
    if matches!(word, "*" | "?" | "L" | "LW") {
        return Ok(word.to_owned());
    }
    let field = &SCHEDULER_CRON[2];
    let Some(day) = word.strip_suffix('W') else {
        return field.values(word).map(joined);
    };
    match number(day) {
        Some(day @ 1..=31) => Ok(format!("{day}W")),
        _ => Err(CronError::new(field.name, word, "1W to 31W, or LW")),
    }
}

/// Reads a day-of-week field of a cron(…): also `?`, `L`, the week's last day, `nL`, a day's last one in a month, and
/// `n#k`, its k-th.
fn day_of_week(word: &str) -> Result<String, CronError> {
    let field = &SCHEDULER_CRON[4];
    let refused = |accepted: &str| CronError::new(field.name, word, accepted);
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
fn croner(numbers: &str) -> Result<Cron, CronError> {
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Required)
        .alternative_weekdays(true)
        .build();
    parser
        .parse(numbers)
        .map_err(|error| CronError::new("cron", numbers, error.to_string()))
}

#[cfg(test)]
mod tests;

//! Five fields of cron, as expressions of EventBridge Scheduler.

use std::collections::BTreeSet;

use prefetch::fields::FieldError;

use crate::schedule::cron::{
    expression::{Expression, SCHEDULER_CRON, lengths},
    field::{Field, MONTHS, Steps, WEEKDAYS},
    refusal::refuse,
};

/// The five fields of cron.
const CRON: [Field; 5] = [
    Field::of_cron("minute", 0, 59, &[]),
    Field::of_cron("hour", 0, 23, &[]),
    Field::of_cron("day of month", 1, 31, &[]),
    Field::of_cron("month", 1, 12, &MONTHS),
    Field::of_cron("day of week", 0, 7, &WEEKDAYS),
];
/// Reads five fields of cron.
///
/// Where both the day of the month and the day of the week are selected, cron fires when either matches: EventBridge
/// Scheduler has no expression for that, but two of which either fires do the same.
///
/// # Errors
/// [`FieldError`] where they are none, or crons differ in what they mean.
pub fn parse(text: &str) -> Result<Vec<Expression>, FieldError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[_, _, day, month, weekday] = words.as_slice() else {
        let accepted = "five fields of cron, which are minute, hour, day of month, month and day of week; or rate(…), cron(…) or at(…)";
        return Err(refuse("schedule", text, accepted));
    };
    let values = CRON.iter().zip(&words);
    let values = values.map(|(field, word)| Ok(field.values(word)?.into_iter().collect()));
    let values: Result<Vec<Vec<u16>>, FieldError> = values.collect();
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
    match selected_days((day, &days), (weekday, &weekdays), (month, &months))? {
        Days::All => Ok(vec![of_days("*", "?")?]),
        Days::OfMonth => Ok(vec![of_month()?]),
        Days::OfWeek => Ok(vec![of_week()?]),
        Days::Either => Ok(vec![of_month()?, of_week()?]),
    }
}

/// Tells by which day fields a day is selected.
enum Days {
    All,
    OfMonth,
    OfWeek,
    Either,
}

fn selected_days(
    (day, days): (&str, &[u16]),
    (weekday, weekdays): (&str, &[u16]),
    (month, months): (&str, &[u16]),
) -> Result<Days, FieldError> {
    let longest = lengths(months).max();
    let is_date = longest.is_some_and(|longest| days.iter().any(|day| *day <= longest));
    match (is_any(day), is_any(weekday)) {
        (true, true) => Ok(Days::All),
        (true, false) => Ok(Days::OfWeek),
        (false, true) if is_date => Ok(Days::OfMonth),
        (false, true) => {
            let accepted = format!("a day that comes in the month {month}");
            Err(refuse(CRON[2].name, day, accepted))
        }
        (false, false) => {
            refuse_stars(day, weekday)?;
            Ok(if days.len() == 31 || weekdays.len() == 7 {
                Days::All
            } else if is_date {
                Days::Either
            } else {
                Days::OfWeek
            })
        }
    }
}

fn refuse_stars(day: &str, weekday: &str) -> Result<(), FieldError> {
    let begins_with_star = |word: &str| word.split(',').any(|item| item.starts_with('*'));
    let mut selections = [(&CRON[2], day), (&CRON[4], weekday)].into_iter();
    match selections.find(|(_, word)| begins_with_star(word)) {
        Some((field, word)) => {
            let accepted = "no * beside a choice in the other day field: some crons then want both to match, others either; a-b/n says either";
            Err(refuse(field.name, word, accepted))
        }
        None => Ok(()),
    }
}

/// Returns true where a day field selects nothing.
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

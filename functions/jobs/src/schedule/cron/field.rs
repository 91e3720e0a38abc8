//! A field of a cron expression: which values it has, and how they are written.

use std::collections::BTreeSet;

use prefetch::fields::FieldError;

use crate::schedule::cron::refusal::refuse;

/// Describes a field of a cron expression.
pub struct Field {
    pub name: &'static str,
    pub min: u16,
    pub max: u16,
    /// Says what its values are called, from `min` on.
    pub names: &'static [&'static str],
    pub steps: Steps,
    pub descending: Descending,
}

/// Tells what a field's steps may begin with.
#[derive(Clone, Copy, PartialEq)]
pub enum Steps {
    /// `*/n` and `a-b/n`, as cron has it; to some crons `a/n` is `a` alone.
    OfRanges,
    /// `a/n` too: from `a` to the end.
    OfAll,
    /// There are none.
    None,
}

/// Tells what a range does whose end comes before its beginning.
#[derive(Clone, Copy, PartialEq)]
pub enum Descending {
    /// It is none: crons differ in it.
    Refused,
    /// It goes on at the field's beginning, as `FRI-MON` does.
    Wraps,
}

/// Names the months.
pub const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
/// Names the days of a week.
pub const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Field {
    /// Describes a field of five, as cron has it.
    pub const fn of_cron(name: &'static str, min: u16, max: u16, names: &'static [&'static str]) -> Self {
        Self {
            name,
            min,
            max,
            names,
            steps: Steps::OfRanges,
            descending: Descending::Refused,
        }
    }

    /// Describes a field of EventBridge Scheduler's.
    pub const fn of_scheduler(name: &'static str, min: u16, max: u16, names: &'static [&'static str]) -> Self {
        Self {
            name,
            min,
            max,
            names,
            steps: Steps::OfAll,
            descending: Descending::Wraps,
        }
    }

    /// Reads the values that a field's text selects.
    pub fn values(&self, text: &str) -> Result<BTreeSet<u16>, FieldError> {
        let is_list = text.contains(',');
        let items = text.split(',').map(|item| match item {
            // What a list with it means is not the same to all crons.
            "*" if is_list && self.steps == Steps::OfRanges => None,
            item => self.item(item),
        });
        let items: Option<Vec<Vec<u16>>> = items.collect();
        let items = items.ok_or_else(|| self.refused(text))?;
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

    /// Reads a value, by its number or its name.
    pub fn value(&self, text: &str) -> Option<u16> {
        let named = self
            .names
            .iter()
            .zip(self.min..)
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        let value = named.map(|(_, value)| value).or_else(|| number(text))?;
        (self.min..=self.max).contains(&value).then_some(value)
    }

    fn refused(&self, text: &str) -> FieldError {
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
        refuse(self.name, text, accepted)
    }
}

/// Reads a number that is written in digits only.
pub fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

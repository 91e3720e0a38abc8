//! Five fields of cron for cronexpr, an implementation that shares no code with ours.

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use proptest::prelude::*;

use super::*;

pub fn instant(time: DateTime<Utc>) -> MakeTimestamp {
    MakeTimestamp::from_second(time.timestamp()).unwrap()
}

/// Holds five fields of cron, each as we read it and as cronexpr does.
#[derive(Clone, Debug)]
pub struct AnyCron([(String, String); 5]);

impl AnyCron {
    pub fn ours(&self) -> String {
        self.0.each_ref().map(|(ours, _)| ours.as_str()).join(" ")
    }

    pub fn theirs(&self) -> Crontab {
        let text = self.0.each_ref().map(|(_, theirs)| theirs.as_str()).join(" ");
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        cronexpr::parse_crontab_with(&text, options).unwrap()
    }

    /// Returns true where both day fields select days, and one of them begins with a star.
    pub fn selects_days_by_star(&self) -> bool {
        let days = [&self.0[2].0, &self.0[4].0];
        let chooses = days.iter().all(|day| !["*", "*/1"].contains(&day.as_str()));
        chooses && days.iter().any(|day| day.contains('*'))
    }
}

pub fn any_cron() -> impl Strategy<Value = AnyCron> {
    let field = |min, max, names: &'static [&'static str], all| {
        let items = prop::collection::vec(any_item(min, max, names), 1..4);
        let list = items.prop_map(|items| {
            let (ours, theirs): (Vec<String>, Vec<String>) = items.into_iter().unzip();
            (ours.join(","), theirs.join(","))
        });
        prop_oneof![all => Just(("*".to_owned(), "*".to_owned())), 10 => list]
    };
    let fields = (
        field(0, 59, &[], 2),
        field(0, 23, &[], 4),
        field(1, 31, &[], 12),
        field(1, 12, &MONTHS, 15),
        field(0, 7, &WEEKDAYS, 10),
    );
    fields.prop_map(|(minute, hour, day, month, weekday)| AnyCron([minute, hour, day, month, weekday]))
}

/// Makes an item of a list: a value, a range, a range with a step, or, less often, a star with one.
pub fn any_item(min: u16, max: u16, names: &'static [&'static str]) -> impl Strategy<Value = (String, String)> {
    let spelled = move |value: u16, style: u8| match (names.get(usize::from(value - min)), style) {
        (Some(name), 0) => (*name).to_owned(),
        (Some(name), 1) => name.to_lowercase(),
        (_, 2) => format!("{value:02}"),
        _ => value.to_string(),
    };
    let value = (min..=max, 0..5_u8).prop_map(move |(value, style)| {
        let text = spelled(value, style);
        (text.clone(), text)
    });
    let range = (min..=max, min..=max, 0..5_u8, 0..5_u8).prop_map(move |(one, other, first_style, last_style)| {
        let (first, last) = (one.min(other), one.max(other));
        let first_text = spelled(first, first_style);
        let theirs = format!("{first_text}-{}", spelled(last, last_style));
        // A range to Sunday by its name is no range to them.
        let is_sunday = names.len() == 7 && last == 7 && first > 0 && last_style < 2;
        (
            if is_sunday {
                format!("{first_text}-SUN")
            } else {
                theirs.clone()
            },
            theirs,
        )
    });
    let step = range.clone().prop_flat_map(move |(ours, theirs)| {
        (1..=max).prop_map(move |step| (format!("{ours}/{step}"), format!("{theirs}/{step}")))
    });
    let star = (1..=max).prop_map(|step| (format!("*/{step}"), format!("*/{step}")));
    prop_oneof![4 => value, 3 => range, 3 => step, 1 => star]
}

//! A slow reading of EventBridge Scheduler's user guide.

use std::collections::BTreeSet;

use chrono::{Datelike, NaiveDate};
use proptest::{prelude::*, sample::select};

use super::*;

/// Holds an expression as EventBridge Scheduler's user guide reads it; of each field, its values.
pub struct Scheduled {
    pub minutes: BTreeSet<u32>,
    pub hours: BTreeSet<u32>,
    pub days: String,
    /// The days that its list names, where it is one.
    pub day_list: BTreeSet<u32>,
    pub months: BTreeSet<u32>,
    pub weekdays: String,
    /// The weekdays that its list names, or the one that it has before its sign.
    pub weekday_list: BTreeSet<u32>,
    pub years: BTreeSet<u32>,
}

impl Scheduled {
    pub fn read(text: &str) -> Self {
        assert!(text.len() <= 256);
        let inner = text.strip_prefix("cron(").unwrap().strip_suffix(')').unwrap();
        let fields: Vec<&str> = inner.split(' ').collect();
        let &[minutes, hours, days, months, weekdays, years] = fields.as_slice() else {
            panic!("{text}")
        };
        assert!((days == "?") != (weekdays == "?") && !weekdays.contains('/'), "{text}");
        let is_list = |field: &str| !field.contains(['?', 'L', 'W']);
        let day_list = Some(days).filter(|days| is_list(days));
        let before_sign = weekdays.split('#').next().unwrap_or_default();
        let before_sign = before_sign.strip_suffix('L').unwrap_or(before_sign);
        let weekday_list = Some(before_sign).filter(|days| !matches!(*days, "?" | ""));
        Self {
            minutes: Self::values(minutes, 0, 59, &[]),
            hours: Self::values(hours, 0, 23, &[]),
            days: days.to_owned(),
            day_list: day_list.map(|days| Self::values(days, 1, 31, &[])).unwrap_or_default(),
            months: Self::values(months, 1, 12, &MONTHS),
            weekdays: weekdays.to_owned(),
            weekday_list: weekday_list
                .map(|days| Self::values(days, 1, 7, &WEEKDAYS))
                .unwrap_or_default(),
            years: Self::values(years, 1970, 2199, &[]),
        }
    }

    pub fn values(field: &str, min: u32, max: u32, names: &[&str]) -> BTreeSet<u32> {
        let value = |text: &str| {
            let place = (min..=max).zip(names).find(|(_, name)| **name == text);
            let number = place.map_or_else(|| text.parse().unwrap(), |(number, _)| number);
            assert!((min..=max).contains(&number), "{field}");
            number
        };
        let mut values = BTreeSet::new();
        for item in field.split(',') {
            let (range, step) = item.split_once('/').unwrap_or((item, ""));
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (min, max),
                Some((first, last)) => (value(first), value(last)),
                None if step.is_empty() => (value(range), value(range)),
                None => (value(range), max),
            };
            // One value after the other, round the clock.
            let (mut at, mut passed, step) = (first, 0, step.parse().unwrap_or(1));
            loop {
                if passed % step == 0 {
                    values.insert(at);
                }
                if at == last {
                    break;
                }
                passed += 1;
                at = if at == max { min } else { at + 1 };
            }
        }
        values
    }

    pub fn fires(&self, time: NaiveDateTime) -> bool {
        self.minutes.contains(&time.minute()) && self.hours.contains(&time.hour()) && self.fires_on(time.date())
    }

    pub fn fires_on(&self, date: NaiveDate) -> bool {
        let is_day = if self.weekdays == "?" {
            self.is_day_of_month(date)
        } else {
            self.is_day_of_week(date)
        };
        is_day && self.months.contains(&date.month()) && self.years.contains(&date.year().unsigned_abs())
    }

    pub fn is_day_of_month(&self, date: NaiveDate) -> bool {
        let last = u32::from(date.num_days_in_month());
        if self.days == "LW" {
            return (1..=last).rev().find(|day| is_workday(date, *day)) == Some(date.day());
        }
        if let Some(wanted) = self.days.strip_suffix('W') {
            let wanted: u32 = wanted.parse().unwrap();
            let nearest = (1..=last).filter(|day| is_workday(date, *day));
            // Of a Saturday the day before is nearer than Monday, of a Sunday the day after.
            let nearest = nearest.min_by_key(|day| day.abs_diff(wanted));
            return wanted <= last && nearest == Some(date.day());
        }
        match self.days.strip_prefix('L') {
            Some("") => date.day() == last,
            Some(before) => date.day() + before[1..].parse::<u32>().unwrap() == last,
            None => self.day_list.contains(&date.day()),
        }
    }

    pub fn is_day_of_week(&self, date: NaiveDate) -> bool {
        let number = date.weekday().number_from_sunday();
        let is_listed = self.weekday_list.contains(&number);
        if let Some((_, count)) = self.weekdays.split_once('#') {
            return is_listed && (date.day() - 1) / 7 + 1 == count.parse::<u32>().unwrap();
        }
        match self.weekdays.strip_suffix('L') {
            Some("") => number == 7,
            Some(_) => is_listed && date.day() + 7 > date.num_days_in_month().into(),
            None => is_listed,
        }
    }

    /// Finds the next times by looking at every day until a year that is far away.
    pub fn next(&self, now: NaiveDateTime) -> Vec<NaiveDateTime> {
        let days = (0..20 * 366).map(|day| now.date() + TimeDelta::days(day));
        let times = days.filter(|day| self.fires_on(*day)).flat_map(|day| {
            let hours = self.hours.iter();
            hours.flat_map(move |hour| {
                self.minutes
                    .iter()
                    .filter_map(move |minute| day.and_hms_opt(*hour, *minute, 0))
            })
        });
        times.filter(|time| *time > now).take(5).collect()
    }
}

pub fn is_workday(date: NaiveDate, day: u32) -> bool {
    let day = date.with_day(day).unwrap();
    day.weekday().number_from_monday() <= 5
}

/// Makes six fields as EventBridge Scheduler takes them, in capitals.
pub fn any_scheduler_cron() -> impl Strategy<Value = String> {
    fn field(min: u16, max: u16, names: &'static [&'static str], steps: bool, wraps: bool) -> BoxedStrategy<String> {
        let spelled = move |value: u16, style: u8| match names.get(usize::from(value - min)) {
            Some(name) if style == 0 => (*name).to_owned(),
            _ if style == 1 && max > 7 => format!("{value:02}"),
            _ => value.to_string(),
        };
        let value = (min..=max, 0..3_u8).prop_map(move |(value, style)| spelled(value, style));
        let range = (min..=max, min..=max, 0..3_u8, 0..3_u8).prop_map(move |(one, other, style, other_style)| {
            let (one, other) = if wraps {
                (one, other)
            } else {
                (one.min(other), one.max(other))
            };
            format!("{}-{}", spelled(one, style), spelled(other, other_style))
        });
        let plain = prop_oneof![4 => value, 4 => range, 1 => Just("*".to_owned())].boxed();
        let item = if steps {
            let stepped = (plain.clone(), 1..=100_u16).prop_map(|(plain, step)| format!("{plain}/{step}"));
            prop_oneof![2 => plain, 1 => stepped].boxed()
        } else {
            plain
        };
        let list = prop::collection::vec(item, 1..4).prop_map(|items| items.join(","));
        prop_oneof![1 => Just("*".to_owned()), 4 => list].boxed()
    }
    let day_of_month = prop_oneof![
        6 => field(1, 31, &[], true, true),
        1 => Just("L".to_owned()),
        1 => Just("LW".to_owned()),
        2 => (1..=31).prop_map(|day| format!("{day}W")),
        2 => (1..=27).prop_map(|before| format!("L-{before}")),
    ];
    let day_of_week = prop_oneof![
        6 => field(1, 7, &WEEKDAYS, false, true),
        1 => Just("L".to_owned()),
        1 => (1..=7).prop_map(|day| format!("{day}L")),
        1 => select(&WEEKDAYS[..]).prop_map(|day| format!("{day}L")),
        2 => (1..=7, 1..=5).prop_map(|(day, count)| format!("{day}#{count}")),
        1 => (select(&WEEKDAYS[..]), 1..=5).prop_map(|(day, count)| format!("{day}#{count}")),
    ];
    let days = prop_oneof![
        day_of_month.prop_map(|days| (days, "?".to_owned())),
        day_of_week.prop_map(|days| ("?".to_owned(), days)),
    ];
    let year = prop_oneof![
        3 => Just("*".to_owned()),
        1 => field(2026, 2040, &[], true, false),
        1 => field(1970, 2199, &[], true, false),
    ];
    let fields = (
        field(0, 59, &[], true, true),
        field(0, 23, &[], true, true),
        days,
        field(1, 12, &MONTHS, true, true),
        year,
    );
    fields.prop_map(|(minutes, hours, (days, weekdays), months, years)| {
        format!("cron({minutes} {hours} {days} {months} {weekdays} {years})")
    })
}

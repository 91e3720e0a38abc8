//! Generated expressions against other readings of them.

use std::collections::HashSet;

use chrono::Datelike;
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use super::{
    guide::{Scheduled, any_scheduler_cron},
    other_cron::{AnyCron, any_cron, instant},
    *,
};

/// Compares cron's meaning with cronexpr's, an implementation that shares no code with ours, for every day, hour and minute
/// of a leap year; what we write is read by the slow reading of EventBridge Scheduler's user guide.
#[test]
fn ten_thousand_expressions_fire_when_another_cron_says_so() {
    let config = Config {
        cases: 10_000,
        max_global_rejects: 10_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let input = (any_cron(), any::<Index>());
    runner.run(&input, |(cron, index)| agrees(&cron, index)).unwrap();
}

fn agrees(cron: &AnyCron, index: Index) -> Result<(), TestCaseError> {
    let theirs = cron.theirs();
    let timing = match Timing::parse(&cron.ours()) {
        Ok(timing) => timing,
        Err(error) if error.accepted.contains("some crons") => {
            prop_assert!(cron.selects_days_by_star());
            return Err(TestCaseError::reject("crons differ"));
        }
        Err(error) => {
            prop_assert!(error.accepted.contains("that comes in the month"), "{}", error);
            prop_assert!(theirs.find_next(instant(YEAR_START)).is_err());
            return Err(TestCaseError::reject("it never comes"));
        }
    };
    let expressions: Vec<Scheduled> = timing.expressions().iter().map(|text| Scheduled::read(text)).collect();
    let fires = |time: NaiveDateTime| expressions.iter().any(|expression| expression.fires(time));
    let they_fire = |time: NaiveDateTime| theirs.matches(instant(time.and_utc())).unwrap();

    let Scheduled { minutes, hours, .. } = &expressions[0];
    prop_assert!(
        expressions
            .iter()
            .all(|other| (&other.minutes, &other.hours) == (minutes, hours))
    );
    let clock = |day: i64, hour: u32, minute: u32| {
        let minutes = 60 * i64::from(hour) + i64::from(minute);
        YEAR_START.naive_utc() + TimeDelta::days(day) + TimeDelta::minutes(minutes)
    };
    let (hour, minute) = (*hours.first().unwrap(), *minutes.first().unwrap());
    let mut days = Vec::new();
    for day in 0..366 {
        let time = clock(day, hour, minute);
        let is_day = fires(time);
        prop_assert_eq!(is_day, they_fire(time), "{}", time);
        if is_day {
            days.push(day);
        }
    }
    prop_assert!(!days.is_empty());
    let day = *index.get(&days);
    let same = |time| fires(time) == they_fire(time);
    prop_assert!((0..24).all(|hour| same(clock(day, hour, minute))), "hours");
    prop_assert!((0..60).all(|minute| same(clock(day, hour, minute))), "minutes");

    let mut now = clock(day, 0, 0).and_utc();
    for ours in timing.next(Tz::UTC, now, now) {
        // They look four years ahead.
        let Ok(next) = theirs.find_next(instant(now)) else {
            prop_assert!(ours.year() > 2031);
            break;
        };
        prop_assert_eq!(ours.timestamp(), next.timestamp().as_second());
        now = ours.to_utc();
    }
    Ok(())
}

const YEAR_START: DateTime<Utc> = match DateTime::from_timestamp(1_830_297_600, 0) {
    Some(start) => start,
    None => panic!("2028 begins"),
};

proptest! {
    #[test]
    fn whatever_scheduler_takes_is_taken_and_fires_when_a_slow_reading_of_its_guide_says_so(
        text in any_scheduler_cron(),
        style in 0..3_u8,
        day in 0..1500_i64,
        minute in 0..1440_i64,
    ) {
        let given = match style {
            0 => text.replace(' ', "  "),
            1 => text.to_lowercase(),
            _ => text.clone(),
        };
        let timing = Timing::parse(&given).map_err(|error| TestCaseError::fail(format!("{given}: {error}")))?;
        prop_assert_eq!(timing.expressions(), [text.as_str()]);
        let now = YEAR_START + TimeDelta::days(day) + TimeDelta::minutes(minute);
        let expected = Scheduled::read(&text).next(now.naive_utc());
        let times = timing.next(Tz::UTC, now, now).into_iter().map(|time| time.naive_utc());
        // The slow reading looks twenty years ahead, but for what comes every fourth year at most that is enough.
        let end = now.naive_utc() + TimeDelta::days(20 * 366 - 1);
        let times: Vec<NaiveDateTime> = times.filter(|time| *time < end).collect();
        let expected: Vec<NaiveDateTime> = expected.into_iter().filter(|time| *time < end).collect();
        prop_assert_eq!(times, expected);
    }

    /// Walks through the clock's minutes as they come: one that never comes does not fire, one that comes again
    /// fires no more.
    #[test]
    fn around_a_shift_of_the_clocks_each_local_time_that_comes_fires_once(
        cron in any_cron(),
        (zone, shift) in select(vec![
            ("Europe/Berlin", "2027-03-28T01:00:00Z"),
            ("Europe/Berlin", "2027-10-31T01:00:00Z"),
            ("America/New_York", "2027-03-14T07:00:00Z"),
            ("America/New_York", "2027-11-07T06:00:00Z"),
            ("Australia/Lord_Howe", "2027-10-02T15:30:00Z"),
            ("Australia/Lord_Howe", "2027-04-03T15:00:00Z"),
            ("Africa/Cairo", "2027-04-29T22:00:00Z"),
            ("Africa/Cairo", "2027-10-28T21:00:00Z"),
            ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
            ("America/Sao_Paulo", "2019-02-17T02:00:00Z"),
        ]),
        before in 0..180_i64,
    ) {
        let Ok(timing) = Timing::parse(&cron.ours()) else {
            return Err(TestCaseError::reject("it never comes, or crons differ"));
        };
        let expressions: Vec<Scheduled> = timing.expressions().iter().map(|text| Scheduled::read(text)).collect();
        let (zone, shift): (Tz, DateTime<Utc>) = (zone.parse().unwrap(), shift.parse().unwrap());
        let (now, end) = (shift - TimeDelta::minutes(before), shift + TimeDelta::hours(30));
        let mut seen = HashSet::new();
        let minutes = (-26 * 60..=30 * 60).map(|minute| shift + TimeDelta::minutes(minute));
        let firing = minutes.filter(|time| {
            let clock = time.with_timezone(&zone).naive_local();
            seen.insert(clock) && expressions.iter().any(|expression| expression.fires(clock))
        });
        let expected: Vec<DateTime<Utc>> = firing.filter(|time| *time > now).take(5).collect();
        let times = timing.next(zone, now, now).into_iter().map(|time| time.to_utc());
        let times: Vec<DateTime<Utc>> = times.filter(|time| *time <= end).collect();
        prop_assert_eq!(times, expected);
    }

    #[test]
    fn whatever_text_is_read_or_refused(text in "(cron\\(|rate\\(|at\\()?[ 0-9*/,?LW#A-Za-z-]{0,30}\\)?|\\PC{0,40}", name in "\\PC{0,60}") {
        if let Ok(timing) = Timing::parse(&text) {
            for expression in timing.expressions() {
                prop_assert!(expression.len() <= MAX_EXPRESSION);
                prop_assert_eq!(Timing::parse(&expression).unwrap().expressions(), [expression]);
            }
        }
        prop_assert!(zone(&name).is_err());
    }
}

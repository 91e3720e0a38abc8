use std::collections::{BTreeSet, HashSet};

use chrono::{Datelike, NaiveDate};
use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use super::*;

#[test]
fn five_fields_become_what_scheduler_says_for_the_same() {
    for (cron, expected) in [
        ("* * * * *", "cron(* * * * ? *)"),
        ("0 7 * * 1-5", "cron(0 7 ? * MON-FRI *)"),
        ("*/15 * * * *", "cron(0/15 * * * ? *)"),
        ("*/7 * * * *", "cron(0/7 * * * ? *)"),
        ("5-55/10 * * * *", "cron(5/10 * * * ? *)"),
        ("5-45/10 * * * *", "cron(5,15,25,35,45 * * * ? *)"),
        ("0 8-18/2 * * *", "cron(0 8,10,12,14,16,18 * * ? *)"),
        ("0 0 1,15 * *", "cron(0 0 1,15 * ? *)"),
        ("0 0 */2 * *", "cron(0 0 1/2 * ? *)"),
        ("0 0 1 jan-mar,DEC *", "cron(0 0 1 1-3,12 ? *)"),
        ("0 0 * */3 *", "cron(0 0 * 1/3 ? *)"),
        ("0 0 * * 0", "cron(0 0 ? * SUN *)"),
        ("0 0 * * 7", "cron(0 0 ? * SUN *)"),
        ("0 0 * * sun", "cron(0 0 ? * SUN *)"),
        ("0 0 * * 5-7", "cron(0 0 ? * SUN,FRI,SAT *)"),
        ("0 0 * * fri-sun", "cron(0 0 ? * SUN,FRI,SAT *)"),
        ("0 0 * * SUN-TUE", "cron(0 0 ? * SUN-TUE *)"),
        ("0 0 * * SUN-SUN", "cron(0 0 ? * SUN *)"),
        ("0 0 * * 0-7", "cron(0 0 ? * * *)"),
        ("0 0 * * 1-7/2", "cron(0 0 ? * SUN,MON,WED,FRI *)"),
        ("0 0 29 2 *", "cron(0 0 29 2 ? *)"),
        ("0 0 */1 * 1", "cron(0 0 ? * MON *)"),
        ("  00\t07 01 \n 01 * ", "cron(0 7 1 1 ? *)"),
    ] {
        assert_eq!(expressions(cron), [expected], "{cron}");
    }
}

#[test]
fn a_chosen_day_of_month_and_day_of_week_become_two_expressions_of_which_either_fires() {
    let both = ["cron(0 7 1 * ? *)", "cron(0 7 ? * MON *)"];
    assert_eq!(expressions("0 7 1 * 1"), both);
    assert_eq!(
        next("0 7 1 * 1", "UTC", "2027-01-26T12:00:00Z"),
        [
            "2027-02-01T07:00:00Z",
            "2027-02-08T07:00:00Z",
            "2027-02-15T07:00:00Z",
            "2027-02-22T07:00:00Z",
            "2027-03-01T07:00:00Z"
        ],
    );
    // Either is always so where one of them is, and never by a date that does not come.
    assert_eq!(expressions("0 7 1-31 * 1"), ["cron(0 7 * * ? *)"]);
    assert_eq!(expressions("0 7 1 * 0-6"), ["cron(0 7 * * ? *)"]);
    assert_eq!(expressions("0 7 31 2 1"), ["cron(0 7 ? 2 MON *)"]);
}

#[test]
fn what_is_no_cron_is_refused_with_the_field_its_value_and_what_is_accepted() {
    for (cron, part, value, accepted) in [
        ("60 * * * *", "minute", "60", "0-59"),
        ("* 24 * * *", "hour", "24", "0-23"),
        ("0 0 0 * *", "day of month", "0", "1-31"),
        ("0 0 32 * *", "day of month", "32", "1-31"),
        ("0 0 * 13 *", "month", "13", "1-12 or JAN-DEC"),
        ("0 0 * 0 *", "month", "0", "1-12"),
        ("0 0 * * 8", "day of week", "8", "0-7 or SUN-SAT"),
        ("0 0 * * MONDAY", "day of week", "MONDAY", "0-7 or SUN-SAT"),
        ("0 0 * * 0MON", "day of week", "0MON", "0-7"),
        ("0 0 * MON *", "month", "MON", "1-12"),
        ("JAN * * * *", "minute", "JAN", "0-59"),
        ("30-10 * * * *", "minute", "30-10", "ranges a-b that ascend"),
        ("0 22-4 * * *", "hour", "22-4", "ranges a-b that ascend"),
        ("0 0 * * FRI-MON", "day of week", "FRI-MON", "ranges a-b that ascend"),
        ("0 0 * * 5-0", "day of week", "5-0", "ranges a-b that ascend"),
        (", * * * *", "minute", ",", "lists of these"),
        ("1,,2 * * * *", "minute", "1,,2", "lists of these"),
        ("1, * * * *", "minute", "1,", "lists of these"),
        ("*,5 * * * *", "minute", "*,5", "* alone"),
        ("*/0 * * * *", "minute", "*/0", "steps */n"),
        ("*/90 * * * *", "minute", "*/90", "up to 59"),
        ("5/15 * * * *", "minute", "5/15", "steps */n and a-b/n"),
        ("/5 * * * *", "minute", "/5", "steps */n"),
        ("*/5/5 * * * *", "minute", "*/5/5", "steps */n"),
        ("1-2-3 * * * *", "minute", "1-2-3", "ranges a-b"),
        ("-5 * * * *", "minute", "-5", "0-59"),
        ("+5 * * * *", "minute", "+5", "0-59"),
        ("1.5 * * * *", "minute", "1.5", "0-59"),
        ("99999999999 * * * *", "minute", "99999999999", "0-59"),
        ("٣ * * * *", "minute", "٣", "0-59"),
        ("0 0 L * *", "day of month", "L", "1-31"),
        ("0 0 15W * *", "day of month", "15W", "1-31"),
        ("0 0 ? * *", "day of month", "?", "1-31"),
        ("0 0 * * 5#2", "day of week", "5#2", "0-7"),
        ("0 0 1 * +5", "day of week", "+5", "0-7"),
        ("0 0 31 2 *", "day of month", "31", "a day that comes in the month 2"),
        (
            "0 0 30,31 FEB *",
            "day of month",
            "30,31",
            "a day that comes in the month FEB",
        ),
        (
            "0 0 31 4,6,9,11 *",
            "day of month",
            "31",
            "a day that comes in the month",
        ),
        ("0 0 */2 * 1", "day of month", "*/2", "some crons then want both"),
        ("0 0 1 * */2", "day of week", "*/2", "some crons then want both"),
        ("0 0 */2 * */3", "day of month", "*/2", "some crons then want both"),
        ("", "schedule", "", "five fields"),
        ("0 7 * *", "schedule", "0 7 * *", "five fields"),
        ("0 0 7 * * *", "schedule", "0 0 7 * * *", "five fields"),
        ("@daily", "schedule", "@daily", "five fields"),
        ("every(5 minutes)", "schedule", "every(5 minutes)", "five fields"),
    ] {
        let error = Timing::parse(cron).unwrap_err();
        assert_eq!((error.part, error.value.as_str()), (part, value), "{cron}");
        assert!(error.accepted.contains(accepted), "{cron}: {error}");
    }
    let long = format!("{} * * * *", vec!["1"; 200].join(","));
    assert!(Timing::parse(&long).unwrap_err().accepted.contains("256"));
}

#[test]
fn the_longest_lists_fit_into_an_expression() {
    let pairs = |(min, max): (u16, u16)| {
        let pairs = (min..=max).filter(|value| (value - min) % 3 != 2);
        pairs.map(|value| value.to_string()).collect::<Vec<_>>().join(",")
    };
    let fields = [(0, 59), (0, 23), (1, 31), (1, 12)].map(pairs);
    let length = expressions(&format!("{} *", fields.join(" ")))[0].len();
    assert!((230..=MAX_EXPRESSION).contains(&length), "{length}");
}

#[test]
fn rates_are_numbers_of_minutes_hours_or_days() {
    for (text, seconds) in [
        ("rate(1 minute)", 60),
        ("rate(5 minutes)", 300),
        ("rate(1 hour)", 3600),
        ("rate( 12  hours )", 43_200),
        ("rate(1 day)", 86_400),
        ("rate(1 minutes)", 60),
        ("rate(1 hours)", 3600),
        ("rate(2 day)", 172_800),
        ("rate(4294967295 days)", 86_400 * 4_294_967_295_i64),
    ] {
        let Ok(Timing::Rate(rate)) = Timing::parse(text) else {
            panic!("{text}")
        };
        assert_eq!(rate.every, TimeDelta::seconds(seconds), "{text}");
    }
    for text in [
        "rate(0 minutes)",
        "rate(5 minutess)",
        "rate(-5 minutes)",
        "rate(+5 minutes)",
        "rate(05 minutes)",
        "rate(1.5 hours)",
        "rate(5 seconds)",
        "rate(1 week)",
        "rate(5minutes)",
        "rate(5)",
        "rate()",
        "rate(4294967296 days)",
        "rate(5 minutes",
        "rate(5 minutes))",
    ] {
        assert_eq!(Timing::parse(text).unwrap_err().part, "rate", "{text}");
    }
}

#[test]
fn schedulers_own_cron_is_taken_as_its_guide_has_it() {
    for (inner, day) in [
        ("0 7 ? * MON-FRI *", "2027-02-01"),
        ("0 7 ? * 2-6 *", "2027-02-01"),
        ("0 7 ? * mon#1 *", "2027-02-01"),
        ("0 7 ? * 3#2 *", "2027-02-09"),
        ("0 7 ? * 6L *", "2027-02-26"),
        ("0 7 ? * L *", "2027-02-06"),
        ("0 7 ? * FRIL *", "2027-02-26"),
        ("0 7 ? * SUN#1 *", "2027-02-07"),
        ("0 7 ? * MON-SUN *", "2027-02-01"),
        ("0 7 ? * FRI-MON *", "2027-02-01"),
        ("0 7 ? * 7-1,4 *", "2027-02-03"),
        ("0 7 ? * tue,THU-sat,1 *", "2027-02-02"),
        ("0 7 ? NOV-FEB TUE *", "2027-02-02"),
        ("0 7 30-2/2 * ? *", "2027-02-01"),
        ("0/90 7 * * ? *", "2027-02-01"),
        ("*/90 7 * * ? *", "2027-02-01"),
        ("0,*/20 7 *,5 * ? *", "2027-02-01"),
        ("0 7 L * ? *", "2027-02-28"),
        ("0 7 LW * ? *", "2027-02-26"),
        ("0 7 L-3 * ? *", "2027-02-25"),
        ("0 7 l-30 * ? *", "2027-03-01"),
        ("0 7 L-28 2 ? *", "2028-02-01"),
        ("0 7 31W * ? *", "2027-03-31"),
        ("0 7 31w 10 ? *", "2027-10-29"),
        // The 6th is a Saturday, the 7th a Sunday.
        ("0 7 6W 2 ? *", "2027-02-05"),
        ("0 7 7W 2 ? *", "2027-02-08"),
        // The 1st of May is a Saturday: a W stays in its month.
        ("0 7 1W 5 ? 2027", "2027-05-03"),
        ("0 7 1/10 3 ? 2027-2030/2", "2027-03-01"),
        ("0 7 * * ? *", "2027-02-01"),
        ("0 7 ? * * *", "2027-02-01"),
        ("0 7 29 FEB ? *", "2028-02-29"),
    ] {
        let times = next(&format!("cron({inner})"), "UTC", "2027-01-31T12:00:00Z");
        assert_eq!(times[0], format!("{day}T07:00:00Z"), "{inner}");
    }
    assert_eq!(expressions("cron(0  7 ? * mon-fri *)"), ["cron(0 7 ? * MON-FRI *)"]);
    assert!(next("cron(0 7 ? * * 2026)", "UTC", "2027-01-31T12:00:00Z").is_empty());
    assert_eq!(
        next("cron(0 7 30,31 12 ? 2027)", "UTC", "2027-01-31T12:00:00Z").len(),
        2
    );
}

#[test]
fn what_is_no_cron_of_schedulers_is_refused() {
    for (inner, part, value) in [
        ("0 7 * * ?", "cron", "0 7 * * ?"),
        ("0 7 * * * *", "cron", "0 7 * * * *"),
        ("0 7 ? * ? *", "cron", "0 7 ? * ? *"),
        ("0 7 1 * MON *", "cron", "0 7 1 * MON *"),
        ("60 7 * * ? *", "minutes", "60"),
        ("/5 7 * * ? *", "minutes", "/5"),
        ("0/0 7 * * ? *", "minutes", "0/0"),
        ("0/ 7 * * ? *", "minutes", "0/"),
        ("0/-5 7 * * ? *", "minutes", "0/-5"),
        ("? 7 * * ? *", "minutes", "?"),
        ("0 7 ? * 0 *", "day-of-week", "0"),
        ("0 7 ? * 8 *", "day-of-week", "8"),
        ("0 7 ? * FRI-MONDAY *", "day-of-week", "FRI-MONDAY"),
        ("0 7 ? * 5-0 *", "day-of-week", "5-0"),
        ("0 7 ? * */2 *", "day-of-week", "*/2"),
        ("0 7 ? * MON-FRI/2 *", "day-of-week", "MON-FRI/2"),
        ("0 7 ? * 3#6 *", "day-of-week", "3#6"),
        ("0 7 ? * 3#1,6#3 *", "day-of-week", "3#1,6#3"),
        ("0 7 ? * 9L *", "day-of-week", "9L"),
        ("0 7 ? * 2L,3 *", "day-of-week", "2L,3"),
        ("0 7 L-31 * ? *", "day-of-month", "L-31"),
        ("0 7 L-29 2 ? *", "day-of-month", "L-29"),
        ("0 7 L-3W * ? *", "day-of-month", "L-3W"),
        ("0 7 L-1,3 * ? *", "day-of-month", "L-1,3"),
        ("0 7 L,3 * ? *", "day-of-month", "L,3"),
        ("0 7 5L * ? *", "day-of-month", "5L"),
        ("0 7 W * ? *", "day-of-month", "W"),
        ("0 7 0W * ? *", "day-of-month", "0W"),
        ("0 7 32W * ? *", "day-of-month", "32W"),
        ("0 7 1W,15W * ? *", "day-of-month", "1W,15W"),
        ("0 7 1 * ? 1969", "year", "1969"),
        ("0 7 1 * ? 2200", "year", "2200"),
        ("0 7 1 * ? 2030-2028", "year", "2030-2028"),
        ("0 7 1 L ? *", "month", "L"),
    ] {
        let error = Timing::parse(&format!("cron({inner})")).unwrap_err();
        assert_eq!((error.part, error.value.as_str()), (part, value), "{inner}: {error}");
    }
}

#[test]
fn a_range_that_passes_the_end_of_its_field_goes_on_at_its_beginning() {
    let hours = |inner: &str| -> Vec<String> {
        let times = next(&format!("cron({inner})"), "UTC", "2027-02-01T12:00:00Z");
        times.into_iter().map(|time| time[8..16].to_owned()).collect()
    };
    assert_eq!(
        hours("0 20-4/4 * * ? *"),
        ["01T20:00", "02T00:00", "02T04:00", "02T20:00", "03T00:00"]
    );
    assert_eq!(
        hours("50-10/15 12 * * ? *"),
        ["01T12:05", "01T12:50", "02T12:05", "02T12:50", "03T12:05"]
    );
    let days = |inner: &str| -> Vec<String> {
        let times = next(&format!("cron({inner})"), "UTC", "2027-02-01T12:00:00Z");
        times.into_iter().map(|time| time[5..10].to_owned()).collect()
    };
    assert_eq!(days("0 7 ? * SAT-MON *"), ["02-06", "02-07", "02-08", "02-13", "02-14"]);
    assert_eq!(days("0 7 ? * 5-2 *"), ["02-04", "02-05", "02-06", "02-07", "02-08"]);
    assert_eq!(days("0 7 ? * MON-SUN *"), ["02-02", "02-03", "02-04", "02-05", "02-06"]);
    assert_eq!(days("0 7 1 NOV-FEB ? *"), ["11-01", "12-01", "01-01", "02-01", "11-01"]);
}

#[test]
fn a_single_time_comes_once_where_it_comes_at_all() {
    let times = next("at(2027-03-28T03:30:00)", "Europe/Berlin", "2027-01-01T00:00:00Z");
    assert_eq!(times, ["2027-03-28T03:30:00+02:00"]);
    assert!(next("at(2027-03-28T02:30:00)", "Europe/Berlin", "2027-01-01T00:00:00Z").is_empty());
    assert!(next("at(2027-03-28T03:30:00)", "Europe/Berlin", "2027-03-28T01:30:00Z").is_empty());
    for text in [
        "at(2027-02-29T07:00:00)",
        "at(2027-1-1T07:00:00)",
        "at(2027-01-01 07:00:00)",
        "at(2027-01-01T07:00)",
        "at(2027-01-01T07:00:60)",
        "at(2027-01-01T24:00:00)",
        "at(2027-01-01T07:00:00Z)",
        "at(+12027-01-01T07:00:00)",
        "at()",
    ] {
        assert_eq!(Timing::parse(text).unwrap_err().part, "at", "{text}");
    }
}

#[test]
fn the_leap_day_comes_every_fourth_year_but_not_in_2100() {
    let times = next("0 12 29 2 *", "UTC", "2027-01-01T00:00:00Z");
    let years = times.iter().map(|time| &time[..10]);
    assert!(years.eq(["2028-02-29", "2032-02-29", "2036-02-29", "2040-02-29", "2044-02-29"]));
    let times = next("0 12 29 2 *", "UTC", "2096-02-29T12:00:00Z");
    assert_eq!(times[0], "2104-02-29T12:00:00Z");
    let times = next("cron(0 12 L 2 ? *)", "UTC", "2027-01-01T00:00:00Z");
    assert!(
        times
            .iter()
            .map(|time| &time[5..10])
            .eq(["02-28", "02-29", "02-28", "02-28", "02-28"])
    );
}

#[test]
fn a_time_that_the_clocks_leave_out_is_skipped() {
    for (zone, cron, now, expected) in [
        // 2:00 becomes 3:00.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2027-03-27T12:00:00Z",
            "2027-03-29T02:30:00+02:00",
        ),
        (
            "Europe/Berlin",
            "0 2 * * *",
            "2027-03-27T12:00:00Z",
            "2027-03-29T02:00:00+02:00",
        ),
        (
            "Europe/Berlin",
            "0 3 * * *",
            "2027-03-27T12:00:00Z",
            "2027-03-28T03:00:00+02:00",
        ),
        (
            "Europe/Berlin",
            "59 1 * * *",
            "2027-03-27T12:00:00Z",
            "2027-03-28T01:59:00+01:00",
        ),
        (
            "America/New_York",
            "30 2 * * *",
            "2027-03-13T12:00:00Z",
            "2027-03-15T02:30:00-04:00",
        ),
        (
            "America/New_York",
            "0 3 * * *",
            "2027-03-13T12:00:00Z",
            "2027-03-14T03:00:00-04:00",
        ),
        // 2:00 becomes 2:30.
        (
            "Australia/Lord_Howe",
            "15 2 * * *",
            "2027-10-02T00:00:00Z",
            "2027-10-04T02:15:00+11:00",
        ),
        (
            "Australia/Lord_Howe",
            "30 2 * * *",
            "2027-10-02T00:00:00Z",
            "2027-10-03T02:30:00+11:00",
        ),
        // 0:00 becomes 1:00: the day has no midnight.
        (
            "Africa/Cairo",
            "0 0 * * *",
            "2027-04-29T12:00:00Z",
            "2027-05-01T00:00:00+03:00",
        ),
        (
            "Africa/Cairo",
            "0 1 * * *",
            "2027-04-29T12:00:00Z",
            "2027-04-30T01:00:00+03:00",
        ),
        (
            "America/Sao_Paulo",
            "0 0 * * *",
            "2018-11-03T12:00:00Z",
            "2018-11-05T00:00:00-02:00",
        ),
        // The 30th of December 2011 was left out as a whole.
        (
            "Pacific/Apia",
            "0 12 30 12 *",
            "2011-12-01T00:00:00Z",
            "2012-12-30T12:00:00+14:00",
        ),
    ] {
        assert_eq!(next(cron, zone, now)[0], expected, "{zone} {cron}");
    }
}

#[test]
fn a_time_that_comes_twice_is_taken_before_the_shift_and_not_again() {
    for (zone, cron, now, expected) in [
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2027-10-30T12:00:00Z",
            ["2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"],
        ),
        // Asked between the first and the second 2:30, and after both.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2027-10-31T00:45:00Z",
            ["2027-11-01T02:30:00+01:00", "2027-11-02T02:30:00+01:00"],
        ),
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2027-10-31T01:15:00Z",
            ["2027-11-01T02:30:00+01:00", "2027-11-02T02:30:00+01:00"],
        ),
        (
            "Europe/Berlin",
            "0 2,3 * * *",
            "2027-10-30T12:00:00Z",
            ["2027-10-31T02:00:00+02:00", "2027-10-31T03:00:00+01:00"],
        ),
        (
            "Europe/Berlin",
            "*/30 * * * *",
            "2027-10-31T00:15:00Z",
            ["2027-10-31T02:30:00+02:00", "2027-10-31T03:00:00+01:00"],
        ),
        (
            "America/New_York",
            "30 1 * * *",
            "2027-11-06T12:00:00Z",
            ["2027-11-07T01:30:00-04:00", "2027-11-08T01:30:00-05:00"],
        ),
        (
            "Australia/Lord_Howe",
            "45 1 * * *",
            "2027-04-03T00:00:00Z",
            ["2027-04-04T01:45:00+11:00", "2027-04-05T01:45:00+10:30"],
        ),
        // 0:00 of the 29th becomes 23:00 of the 28th.
        (
            "Africa/Cairo",
            "30 23 * * *",
            "2027-10-28T12:00:00Z",
            ["2027-10-28T23:30:00+03:00", "2027-10-29T23:30:00+02:00"],
        ),
        (
            "America/Sao_Paulo",
            "30 23 * * *",
            "2019-02-16T12:00:00Z",
            ["2019-02-16T23:30:00-02:00", "2019-02-17T23:30:00-03:00"],
        ),
    ] {
        assert_eq!(next(cron, zone, now)[..2], expected, "{zone} {cron} {now}");
    }
}

#[test]
fn a_rate_counts_from_its_start_whatever_the_clocks_do() {
    let timing = Timing::parse("rate(1 day)").unwrap();
    let start: DateTime<Utc> = "2027-03-27T06:00:00Z".parse().unwrap();
    let berlin = zone("Europe/Berlin").unwrap();
    let next = |now: &str| told(&timing.next(berlin, start, now.parse().unwrap()));
    assert_eq!(
        next("2027-03-20T00:00:00Z")[..2],
        ["2027-03-27T07:00:00+01:00", "2027-03-28T08:00:00+02:00"]
    );
    assert_eq!(next("2027-03-27T05:59:59Z")[0], "2027-03-27T07:00:00+01:00");
    assert_eq!(next("2027-03-27T06:00:00Z")[0], "2027-03-28T08:00:00+02:00");
    assert_eq!(next("2027-05-27T06:00:01Z")[0], "2027-05-28T08:00:00+02:00");
    let rare = Timing::parse("rate(4294967295 days)").unwrap();
    assert_eq!(rare.next(berlin, start, start - TimeDelta::days(1)).len(), 1);
}

#[test]
fn a_rate_starts_at_a_whole_minute_soon() {
    for (now, expected) in [
        ("2027-01-01T00:00:00Z", "2027-01-01T00:02:00Z"),
        ("2027-01-01T00:00:59.999Z", "2027-01-01T00:02:00Z"),
        ("2027-01-01T00:01:00Z", "2027-01-01T00:03:00Z"),
    ] {
        let expected: DateTime<Utc> = expected.parse().unwrap();
        assert_eq!(start(now.parse().unwrap()), expected);
    }
}

#[test]
fn a_time_zone_that_is_none_is_refused_with_those_that_may_be_meant() {
    for (name, hint) in [
        ("Berlin", "perhaps Europe/Berlin"),
        ("europe/berlin", "perhaps Europe/Berlin"),
        ("New York", "perhaps America/New_York"),
        ("utc", "UTC"),
        ("CEST", "such as Europe/Berlin"),
        ("", "such as Europe/Berlin"),
        ("../../etc/passwd", "such as Europe/Berlin"),
    ] {
        let error = zone(name).unwrap_err();
        assert!(
            error.part == "time zone" && error.accepted.contains(hint),
            "{name}: {error}"
        );
    }
    assert_eq!(zone("Asia/Kolkata").unwrap(), chrono_tz::Asia::Kolkata);
}

/// What cron means is compared with cronexpr, an implementation that shares no code with ours, for every day, hour and
/// minute of a leap year; what we write is read by this test's own reading of EventBridge Scheduler's user guide.
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
            prop_assert!(cron.chooses_days_by_star());
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

fn instant(time: DateTime<Utc>) -> MakeTimestamp {
    MakeTimestamp::from_second(time.timestamp()).unwrap()
}

/// Five fields of cron, each as we read it and as cronexpr does.
#[derive(Clone, Debug)]
struct AnyCron([(String, String); 5]);

impl AnyCron {
    fn ours(&self) -> String {
        self.0.each_ref().map(|(ours, _)| ours.as_str()).join(" ")
    }

    fn theirs(&self) -> Crontab {
        let text = self.0.each_ref().map(|(_, theirs)| theirs.as_str()).join(" ");
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        cronexpr::parse_crontab_with(&text, options).unwrap()
    }

    /// Whether both day fields choose, and one of them begins its choice with a star.
    fn chooses_days_by_star(&self) -> bool {
        let days = [&self.0[2].0, &self.0[4].0];
        let chooses = days.iter().all(|day| !["*", "*/1"].contains(&day.as_str()));
        chooses && days.iter().any(|day| day.contains('*'))
    }
}

fn any_cron() -> impl Strategy<Value = AnyCron> {
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

/// An item of a list: a value, a range, a range with a step, or, less often, a star with one.
fn any_item(min: u16, max: u16, names: &'static [&'static str]) -> impl Strategy<Value = (String, String)> {
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

/// An expression as EventBridge Scheduler's user guide reads it; of each field, its values.
struct Scheduled {
    minutes: BTreeSet<u32>,
    hours: BTreeSet<u32>,
    days: String,
    /// The days that its list names, where it is one.
    day_list: BTreeSet<u32>,
    months: BTreeSet<u32>,
    weekdays: String,
    /// The weekdays that its list names, or the one that it has before its sign.
    weekday_list: BTreeSet<u32>,
    years: BTreeSet<u32>,
}

impl Scheduled {
    fn read(text: &str) -> Self {
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

    fn values(field: &str, min: u32, max: u32, names: &[&str]) -> BTreeSet<u32> {
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

    fn fires(&self, time: NaiveDateTime) -> bool {
        self.minutes.contains(&time.minute()) && self.hours.contains(&time.hour()) && self.fires_on(time.date())
    }

    fn fires_on(&self, date: NaiveDate) -> bool {
        let is_day = if self.weekdays == "?" {
            self.is_day_of_month(date)
        } else {
            self.is_day_of_week(date)
        };
        is_day && self.months.contains(&date.month()) && self.years.contains(&date.year().unsigned_abs())
    }

    fn is_day_of_month(&self, date: NaiveDate) -> bool {
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

    fn is_day_of_week(&self, date: NaiveDate) -> bool {
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

    /// The next times, found by looking at every day until a year that is far away.
    fn next(&self, now: NaiveDateTime) -> Vec<NaiveDateTime> {
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

fn is_workday(date: NaiveDate, day: u32) -> bool {
    let day = date.with_day(day).unwrap();
    day.weekday().number_from_monday() <= 5
}

/// Six fields as EventBridge Scheduler takes them, in capitals.
fn any_scheduler_cron() -> impl Strategy<Value = String> {
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

proptest! {
    #[test]
    fn whatever_scheduler_takes_is_taken_and_fires_when_a_slow_reading_of_its_guide_says_so(
        text in any_scheduler_cron(),
        style in 0..3_u8,
        day in 0..1500_i64,
        minute in 0..1440_i64,
    ) {
        let asked = match style {
            0 => text.replace(' ', "  "),
            1 => text.to_lowercase(),
            _ => text.clone(),
        };
        let timing = Timing::parse(&asked).map_err(|error| TestCaseError::fail(format!("{asked}: {error}")))?;
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

    /// The clock's minutes are walked through as they come: one that never comes does not fire, one that comes again
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

fn expressions(cron: &str) -> Vec<String> {
    Timing::parse(cron).unwrap().expressions()
}

fn next(cron: &str, zone_name: &str, now: &str) -> Vec<String> {
    let now = now.parse().unwrap();
    told(&Timing::parse(cron).unwrap().next(zone(zone_name).unwrap(), now, now))
}

fn told(times: &[DateTime<Tz>]) -> Vec<String> {
    let told = |time: &DateTime<Tz>| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    times.iter().map(told).collect()
}

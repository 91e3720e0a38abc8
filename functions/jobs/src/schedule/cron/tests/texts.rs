//! Describes what is read, and what is refused.

use prefetch::fields::FieldError;
use serde_json::Value;

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
fn a_selected_day_of_month_and_day_of_week_become_two_expressions_of_which_either_fires() {
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
        assert_eq!(told_of(&error), (part, value), "{cron}");
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
        assert_eq!(Timing::parse(text).unwrap_err().field, "rate", "{text}");
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
        assert_eq!(told_of(&error), (part, value), "{inner}: {error}");
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
            error.field == "time zone" && error.accepted.contains(hint),
            "{name}: {error}"
        );
    }
    assert_eq!(zone("Asia/Kolkata").unwrap(), chrono_tz::Asia::Kolkata);
}

/// Gives the part that is refused, and its value.
fn told_of(error: &FieldError) -> (&str, &str) {
    let value = error.value.as_ref().and_then(Value::as_str);
    (error.field.as_str(), value.unwrap())
}

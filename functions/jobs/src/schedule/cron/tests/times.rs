//! Describes when a schedule fires.

use super::*;

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
        assert_eq!(Timing::parse(text).unwrap_err().field, "at", "{text}");
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

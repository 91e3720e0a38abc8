mod generated;
mod guide;
mod other_cron;
mod texts;
mod times;

use chrono::TimeDelta;

use super::{field::*, rate::start, zone::zone, *};

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

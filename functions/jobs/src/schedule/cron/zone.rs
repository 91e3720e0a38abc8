//! Time zones: what a local time is in one.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use prefetch::fields::FieldError;

use crate::schedule::cron::refusal::refuse;

/// Limits how many time zones are proposed in the place of one that is none.
const MAX_HINTS: usize = 3;

/// Finds a time zone of the IANA database.
///
/// # Errors
/// [`FieldError`] where there is none of this name, with those that may be meant.
pub fn zone(name: &str) -> Result<Tz, FieldError> {
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
        refuse("time zone", name, accepted)
    })
}

/// Gives the instant of a local time: the first of two, none where the clocks leave it out.
pub fn local(zone: Tz, time: NaiveDateTime) -> Option<DateTime<Tz>> {
    match zone.from_local_datetime(&time) {
        MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => Some(time),
        MappedLocalTime::None => None,
    }
}

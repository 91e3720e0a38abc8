//! The body that requests a schedule.

use chrono::{DateTime, Utc};
use prefetch::fields::{FieldError, Fields};
use serde_json::Value;

use crate::{
    hash::hash,
    http::problem::Problem,
    schedule::{
        cron::{Timing, rate, zone::zone},
        definition::{Definition, Input, InputSchedule},
        name::{accepted_names, is_name},
    },
    settings::Settings,
    submit::{
        request::{JobRequest, fields},
        rules,
    },
};

const FIELDS: [&str; 8] = [
    "cron",
    "timezone",
    "name",
    "images",
    "sameDigest",
    "rule",
    "nodes",
    "dryRun",
];

/// Reads the schedule that is requested, and if nothing is to be created.
///
/// # Errors
/// A 400 that names every field that is not accepted.
pub fn parse(settings: &Settings, body: Value, now: DateTime<Utc>) -> Result<(Definition, bool), Problem> {
    let mut fields = fields(body)?;
    let mut job = JobRequest::read(&mut fields, &settings.registry);
    let dry_run = std::mem::take(&mut job.dry_run);
    if fields.get("cron").is_none() {
        fields.refuse("cron", None, "five fields of cron, rate(…), cron(…) or at(…)");
    }
    let cron = fields.text("cron", "a text", |_| true);
    let timing = cron
        .as_deref()
        .and_then(|cron| accept(&mut fields, "cron", Timing::parse(cron)));
    let timezone = fields
        .text("timezone", "a text", |_| true)
        .unwrap_or_else(|| "UTC".to_owned());
    let zone = accept(&mut fields, "timezone", zone(&timezone));
    let name = fields.text("name", &accepted_names(), is_name);
    fields.finish(&FIELDS)?;
    rules::check(&job, settings)?;
    let (Some(cron), Some(timing), Some(zone)) = (cron, timing, zone) else {
        return Err(Problem::bad_request("no schedule is asked for"));
    };
    let definition = Definition {
        input: input(&job, name, cron, timezone),
        timing,
        zone,
        start: rate::start(now),
    };
    Ok((definition, dry_run))
}

fn input(job: &JobRequest, name: Option<String>, cron: String, timezone: String) -> Input {
    let body = serde_json::to_value(job).expect("a job is JSON");
    let schedule = InputSchedule {
        // The same request is the same schedule.
        name: name.unwrap_or_else(|| format!("schedule-{:.16}", hash(&[&cron, &timezone, &body.to_string()]))),
        time: "<aws.scheduler.scheduled-time>".to_owned(),
        cron,
        timezone,
    };
    Input { schedule, body }
}

/// Takes what was read of a field; notes what is not accepted.
fn accept<T>(fields: &mut Fields, field: &str, read: Result<T, FieldError>) -> Option<T> {
    read.map_err(|error| {
        let accepted = format!("{}: {}", error.field, error.accepted);
        fields.refuse(field, error.value, accepted);
    })
    .ok()
}

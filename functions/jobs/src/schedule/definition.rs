//! A schedule of ours: of which of EventBridge Scheduler's it is made, and how it is told.

use aws_sdk_scheduler::operation::get_schedule::GetScheduleOutput;
use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use crate::schedule::{
    cron::{Timing, zone::zone},
    name::twin,
};

/// Holds what a schedule hands to this function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    pub schedule: InputSchedule,
    pub body: Value,
}

/// Tells which schedule hands it over, as it was requested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSchedule {
    pub name: String,
    /// Scheduler puts there when it was to fire (user guide, Context attributes).
    pub time: String,
    pub cron: String,
    pub timezone: String,
}

/// Describes a schedule in an answer.
#[derive(Debug, Serialize)]
pub struct Schedule {
    name: String,
    cron: String,
    timezone: String,
    expressions: Vec<String>,
    next: Vec<String>,
    /// Those of the expressions by which it does not fire, because the schedule of EventBridge Scheduler's is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    job: Value,
}

/// Defines a schedule.
#[derive(Clone, Debug)]
pub struct Definition {
    pub input: Input,
    pub timing: Timing,
    pub zone: Tz,
    pub start: DateTime<Utc>,
}

/// Names one of the schedules of EventBridge Scheduler's that a schedule is.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub name: String,
    pub expression: String,
}

impl Definition {
    /// Understands a schedule of ours; any other is left out, which is logged.
    pub fn of(name: &str, output: &GetScheduleOutput) -> Option<Self> {
        let definition = input(output).and_then(|input| {
            let definition = Self {
                timing: Timing::parse(&input.schedule.cron).ok()?,
                zone: zone(&input.schedule.timezone).ok()?,
                start: start(output),
                input,
            };
            let mut parts = definition.parts().into_iter();
            let part = parts.find(|part| part.name == name)?;
            definition.is_part(output, &part.expression).then_some(definition)
        });
        if definition.is_none() {
            warn!(
                schedule.name = name,
                "{name} is no schedule of ours, or was changed by hand: it is left out"
            );
        }
        definition
    }

    /// Gives the one or two schedules of EventBridge Scheduler's that it is.
    pub fn parts(&self) -> Vec<Part> {
        let name = &self.input.schedule.name;
        let named = [name.clone(), twin(name)].into_iter().zip(self.timing.expressions());
        named.map(|(name, expression)| Part { name, expression }).collect()
    }

    /// Returns true where a schedule of EventBridge Scheduler's is the part with this expression.
    pub fn is_part(&self, output: &GetScheduleOutput, expression: &str) -> bool {
        input(output).as_ref() == Some(&self.input)
            && output.schedule_expression() == Some(expression)
            && output.schedule_expression_timezone() == Some(self.zone.name())
    }

    /// Tells when it fires next, five times or fewer where there are no more.
    pub fn next(&self, now: DateTime<Utc>) -> Vec<String> {
        let times = self.timing.next(self.zone, self.start, now);
        times
            .iter()
            .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
            .collect()
    }

    /// Describes the schedule as answers have it; these of its expressions are missing.
    pub fn described(self, missing: Vec<String>, now: DateTime<Utc>) -> Schedule {
        Schedule {
            missing,
            expressions: self.timing.expressions(),
            next: self.next(now),
            name: self.input.schedule.name,
            cron: self.input.schedule.cron,
            timezone: self.input.schedule.timezone,
            job: self.input.body,
        }
    }
}

fn input(output: &GetScheduleOutput) -> Option<Input> {
    serde_json::from_str(output.target()?.input()?).ok()
}

/// Reads from when on a schedule counts.
pub fn start(output: &GetScheduleOutput) -> DateTime<Utc> {
    let start = output
        .start_date()
        .and_then(|start| DateTime::from_timestamp(start.secs(), 0));
    start.unwrap_or_default()
}

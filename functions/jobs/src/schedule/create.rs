//! POST /jobs/schedule: a schedule, as a whole or not at all.

use aws_sdk_scheduler::{
    operation::{create_schedule::CreateScheduleError, get_schedule::GetScheduleOutput},
    primitives::DateTime as Moment,
    types::error::ValidationException,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    http::{answer::Answer, problem::Problem},
    schedule::{
        definition::{Definition, InputSchedule, Part, start},
        name::twin,
        request::parse,
        scheduler::{ScheduleError, Scheduler},
    },
};

/// Sets by how much Scheduler's clock may be behind ours.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);

/// Tells if a part had to be made.
enum Put {
    Made,
    /// The very same was there, and counts from this moment.
    There(DateTime<Utc>),
}

/// Tells why a part is not known to be there.
struct NotPut {
    problem: Problem,
    /// Is true where it may be there, or come to be, for all that.
    may_stand: bool,
}

impl NotPut {
    /// Tells that nothing was made.
    fn sure(problem: Problem) -> Self {
        Self {
            problem,
            may_stand: false,
        }
    }

    /// Tells that something may have been made.
    fn unsure(error: ScheduleError) -> Self {
        Self {
            problem: Problem::unavailable(error),
            may_stand: true,
        }
    }
}

/// Tells what stands under the name of a part.
enum There {
    /// The very part.
    Part(Box<GetScheduleOutput>),
    /// Another schedule.
    Other,
    Nothing,
}

/// Creates a schedule, or tells it where the very same is there already; `function` is what it invokes.
///
/// Where cron takes two expressions, two schedules are created, or none; where that is not certain the problem says what may
/// stand. The same request then makes it whole.
///
/// # Errors
/// A 400 that names every field that is not accepted, a 409 where another has the name, a 503 where Scheduler cannot be
/// asked.
pub async fn create(
    scheduler: &Scheduler<'_>,
    body: Value,
    function: &str,
    now: DateTime<Utc>,
) -> Result<Answer, Problem> {
    let (mut schedule, dry_run) = parse(scheduler.settings, body, now)?;
    if schedule.next(now).is_empty() {
        let accepted = "a time that is still to come, and that exists in the time zone";
        let cron = Value::String(schedule.input.schedule.cron);
        return Err(Problem::field("cron", Some(cron), accepted));
    }
    if dry_run {
        return Ok(Answer::ok(&schedule.described(Vec::new(), now)));
    }
    if schedule.parts().len() == 1 {
        refuse_left_twin(scheduler, &schedule).await?;
    }
    let is_new = put_all(scheduler, &mut schedule, function, now).await?;
    let status = if is_new { 201 } else { 200 };
    Ok(Answer::new(status, &schedule.described(Vec::new(), now)))
}

/// Refuses a schedule beside which the twin of another would go on firing under its name.
async fn refuse_left_twin(scheduler: &Scheduler<'_>, schedule: &Definition) -> Result<(), Problem> {
    match scheduler.get(&twin(&schedule.input.schedule.name)).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Problem::conflict(
            "another schedule has this name, or half of one that was not removed as a whole",
        )),
        Err(error) => Err(Problem::unavailable(error)),
    }
}

/// Creates a schedule's parts where they are not there, all of them or none; returns true where one had to be made.
async fn put_all(
    scheduler: &Scheduler<'_>,
    schedule: &mut Definition,
    function: &str,
    now: DateTime<Utc>,
) -> Result<bool, Problem> {
    let (mut made, mut standing) = (Vec::new(), Vec::new());
    let mut parts = schedule.parts().into_iter();
    while let Some(part) = parts.next() {
        match put(scheduler, schedule, &part, function, now).await {
            Ok(Put::Made) => made.push(part),
            Ok(Put::There(start)) => {
                schedule.start = start;
                standing.push(part);
            }
            Err(not_put) => {
                standing.extend(not_put.may_stand.then_some(part));
                for part in parts {
                    let there = there(scheduler, schedule, &part).await;
                    let is_sure = matches!(there, Ok(There::Nothing | There::Other));
                    standing.extend((!is_sure).then_some(part));
                }
                return Err(undo(scheduler, schedule, made, standing, not_put.problem).await);
            }
        }
    }
    Ok(!made.is_empty())
}

/// Creates one of a schedule's parts where it is not there.
async fn put(
    scheduler: &Scheduler<'_>,
    schedule: &Definition,
    part: &Part,
    function: &str,
    now: DateTime<Utc>,
) -> Result<Put, NotPut> {
    let error = match scheduler.create(schedule, part, function).await {
        Ok(()) => return Ok(Put::Made),
        Err(ScheduleError::Create(error)) => error,
        Err(error) => return Err(NotPut::sure(Problem::unavailable(error))),
    };
    // An answer may have got lost, of this try or of one before it.
    let is_unsure = match error.as_service_error() {
        Some(CreateScheduleError::ConflictException(_)) => return found(scheduler, schedule, part).await,
        Some(CreateScheduleError::ValidationException(refused)) => {
            let problem = refused_field(&schedule.input.schedule, refused);
            return Err(NotPut::sure(
                problem.unwrap_or_else(|| Problem::unavailable(ScheduleError::Create(error))),
            ));
        }
        service => service.is_none_or(CreateScheduleError::is_internal_server_exception),
    };
    let error = ScheduleError::Create(error);
    match there(scheduler, schedule, part).await {
        Ok(There::Part(output)) if is_created_since(&output, now) => Ok(Put::Made),
        Ok(There::Part(output)) => Ok(Put::There(start(&output))),
        Ok(There::Other) => Err(taken()),
        Ok(There::Nothing) if !is_unsure => Err(NotPut::sure(Problem::unavailable(error))),
        Ok(There::Nothing) | Err(_) => Err(NotPut::unsure(error)),
    }
}

/// Tells what stands in the way of a part.
async fn found(scheduler: &Scheduler<'_>, schedule: &Definition, part: &Part) -> Result<Put, NotPut> {
    match there(scheduler, schedule, part).await.map_err(NotPut::unsure)? {
        There::Part(output) => Ok(Put::There(start(&output))),
        There::Other => Err(taken()),
        There::Nothing => Err(NotPut::sure(Problem::conflict(
            "a schedule of this name was deleted a moment ago",
        ))),
    }
}

fn taken() -> NotPut {
    NotPut::sure(Problem::conflict("another schedule has this name"))
}

/// Tells which field EventBridge Scheduler refuses, where it says so.
fn refused_field(schedule: &InputSchedule, refused: &ValidationException) -> Option<Problem> {
    let message = refused.message().to_lowercase();
    let (field, value) = if message.contains("timezone") {
        ("timezone", &schedule.timezone)
    } else if message.contains("expression") {
        ("cron", &schedule.cron)
    } else {
        return None;
    };
    let accepted = "what EventBridge Scheduler accepts, which this is not";
    Some(Problem::field(field, Some(Value::String(value.clone())), accepted))
}

async fn there(scheduler: &Scheduler<'_>, schedule: &Definition, part: &Part) -> Result<There, ScheduleError> {
    Ok(match scheduler.get(&part.name).await? {
        Some(output) if schedule.is_part(&output, &part.expression) => There::Part(Box::new(output)),
        Some(_) => There::Other,
        None => There::Nothing,
    })
}

/// Returns true where a schedule was made by a request that came now, and not before.
fn is_created_since(output: &GetScheduleOutput, now: DateTime<Utc>) -> bool {
    let created = output.creation_date().map(Moment::secs);
    created.is_some_and(|created| created >= (now - CLOCK_SKEW).timestamp())
}

/// Deletes again what was made of a schedule that cannot be made as a whole; the problem names the parts that stand, or may.
async fn undo(
    scheduler: &Scheduler<'_>,
    schedule: &Definition,
    made: Vec<Part>,
    mut standing: Vec<Part>,
    mut problem: Problem,
) -> Problem {
    let name = &schedule.input.schedule.name;
    for part in made.into_iter().rev() {
        if let Err(error) = scheduler.delete(&part.name).await {
            problem = Problem::unavailable(ScheduleError::Half(name.clone(), Box::new(error)));
            standing.push(part);
        }
    }
    if standing.is_empty() {
        return problem;
    }
    let expressions: Vec<String> = standing.into_iter().map(|part| part.expression).collect();
    let advice = format!(
        "the schedule {name} may stand for all that, and fire at the times told: the same request makes it whole, and DELETE /jobs/schedule/{name} removes it"
    );
    problem.with_unknown(vec![json!({"schedule": name, "expressions": expressions})], &advice)
}

//! Schedules: jobs that are submitted again and again, or once later.

use aws_sdk_scheduler::{
    error::{BuildError, SdkError},
    operation::{
        create_schedule::CreateScheduleError,
        delete_schedule::DeleteScheduleError,
        get_schedule::{GetScheduleError, GetScheduleOutput},
        list_schedules::ListSchedulesError,
    },
    primitives::DateTime as Moment,
    types::{ActionAfterCompletion, DeadLetterConfig, FlexibleTimeWindow, FlexibleTimeWindowMode, RetryPolicy, Target},
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;
use futures_util::{StreamExt, TryStreamExt, stream};
use prefetch::fields::Fields;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tracing::warn;

use crate::{
    answer::Answer,
    choice,
    cron::{self, CronError, Timing},
    handler::Jobs,
    idempotency::hash,
    problem::Problem,
    query::{self, Page, Query},
    request::{JobRequest, fields},
};

/// What the second schedule's name ends with where cron takes two; no name that is asked for has a dot.
const TWIN: &str = ".weekday";
/// How many characters a name has at most.
const MAX_NAME: usize = 48;
/// How many schedules are read at once.
const AT_ONCE: usize = 10;
/// How often Scheduler tries again to hand a job to this function, and for how long.
const RETRIES: i32 = 2;
const RETRY_SECONDS: i32 = 3600;

/// By how much Scheduler's clock may be behind ours.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);

const FIELDS: [&str; 7] = ["cron", "timezone", "name", "images", "rule", "nodes", "dryRun"];

/// Why schedules cannot be created, listed or deleted.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// The request could not be built.
    #[error("the request to EventBridge Scheduler could not be built")]
    Request(#[from] BuildError),
    /// It could not be created.
    #[error("the schedule could not be created")]
    Create(#[source] Box<SdkError<CreateScheduleError>>),
    /// It could not be created as a whole, and what there is of it could not be deleted again.
    #[error("the schedule {0} could not be created as a whole, nor what was made of it deleted again")]
    Half(String, #[source] Box<ScheduleError>),
    /// It could not be read.
    #[error("the schedule could not be read")]
    Get(#[source] Box<SdkError<GetScheduleError>>),
    /// They could not be listed.
    #[error("the schedules could not be listed")]
    List(#[source] Box<SdkError<ListSchedulesError>>),
    /// It could not be deleted.
    #[error("the schedule could not be deleted")]
    Delete(#[source] Box<SdkError<DeleteScheduleError>>),
}

/// What a schedule hands to this function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Input {
    schedule: Asked,
    body: Value,
}

/// A schedule as it is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Asked {
    name: String,
    /// Scheduler puts there when it was to fire (user guide, Context attributes).
    time: String,
    cron: String,
    timezone: String,
}

/// A schedule as it is told.
#[derive(Debug, Serialize)]
struct Schedule {
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

/// A page of schedules.
#[derive(Debug, Serialize)]
struct Schedules {
    schedules: Vec<Schedule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A schedule that is understood.
#[derive(Clone, Debug)]
struct Understood {
    input: Input,
    timing: Timing,
    zone: Tz,
    start: DateTime<Utc>,
}

/// One of the schedules of EventBridge Scheduler's that a schedule is.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    name: String,
    expression: String,
}

/// Whether a part had to be made.
enum Put {
    Made,
    /// The very same was there, and counts from this moment.
    There(DateTime<Utc>),
}

/// Why a part is not known to be there.
struct NotPut {
    problem: Problem,
    /// Whether it may be there, or come to be, for all that.
    may_stand: bool,
}

impl NotPut {
    /// Nothing was made.
    fn sure(problem: Problem) -> Self {
        Self {
            problem,
            may_stand: false,
        }
    }
}

/// Creates a schedule, or tells it where the very same is there already; `function` is what it invokes.
///
/// Where cron takes two expressions, two schedules are created, or none; where that is not certain the problem says what may
/// stand. The same request then makes it whole.
///
/// # Errors
/// A 400 that names every field that is not accepted, a 409 where another has the name, a 503 where Scheduler cannot be
/// asked.
pub async fn create(jobs: &Jobs, body: Value, function: &str, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let (mut schedule, dry_run) = wanted(jobs, body, now)?;
    if schedule.next(now).is_empty() {
        let accepted = "a time that is still to come, and that exists in the time zone";
        let cron = Value::String(schedule.input.schedule.cron);
        return Err(Problem::field("cron", Some(cron), accepted));
    }
    if dry_run {
        return Ok(Answer::ok(&schedule.told(Vec::new(), now)));
    }
    let parts = schedule.parts();
    if parts.len() == 1 {
        refuse_left_twin(jobs, &schedule).await?;
    }
    let (mut made, mut standing) = (Vec::new(), Vec::new());
    let mut parts = parts.into_iter();
    while let Some(part) = parts.next() {
        match put(jobs, &schedule, &part, function, now).await {
            Ok(Put::Made) => made.push(part),
            Ok(Put::There(start)) => {
                schedule.start = start;
                standing.push(part);
            }
            Err(not_put) => {
                standing.extend(not_put.may_stand.then_some(part));
                for part in parts {
                    let is_sure = matches!(there(jobs, &schedule, &part).await, Ok(There::Nothing | There::Other));
                    standing.extend((!is_sure).then_some(part));
                }
                return Err(undo(jobs, &schedule, made, standing, not_put.problem).await);
            }
        }
    }
    let status = if made.is_empty() { 200 } else { 201 };
    Ok(Answer::new(status, &schedule.told(Vec::new(), now)))
}

/// Refuses a schedule beside which the twin of another would go on firing under its name.
async fn refuse_left_twin(jobs: &Jobs, schedule: &Understood) -> Result<(), Problem> {
    let twin = twin(&schedule.input.schedule.name);
    match get(jobs, &twin).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Problem::conflict(
            "another schedule has this name, or half of one that was not removed as a whole",
        )),
        Err(error) => Err(Problem::unavailable(&error)),
    }
}

/// Lists the schedules of the group by name, a page of them.
///
/// # Errors
/// A 400 where the query is not accepted, a 503 where Scheduler cannot be asked.
pub async fn list(jobs: &Jobs, query: &Query, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let page: Page<String> = query.page(1..=50, 20)?;
    let limit = i32::try_from(page.limit).unwrap_or(i32::MAX);
    let request = jobs
        .scheduler
        .list_schedules()
        .group_name(&jobs.settings.schedule_group)
        .max_results(limit);
    let answer = request.set_next_token(page.next.clone()).send().await;
    let answer = answer.map_err(|error| match error.as_service_error() {
        Some(ListSchedulesError::ValidationException(_)) if page.next.is_some() => query::stale(),
        _ => Problem::unavailable(&ScheduleError::List(Box::new(error))),
    })?;
    let names = answer.schedules.into_iter().filter_map(|schedule| schedule.name);
    let read = stream::iter(names).map(async |name| listed(jobs, &name, now).await);
    let schedules: Vec<Option<Schedule>> = read.buffered(AT_ONCE).try_collect().await?;
    let next = answer.next_token.filter(|token| !token.is_empty());
    let page = Schedules {
        schedules: schedules.into_iter().flatten().collect(),
        next: next.map(|token| query::token(&token)),
    };
    Ok(Answer::ok(&page))
}

/// Tells the schedule that a name of EventBridge Scheduler's is of: by its first part, or by its second where only that
/// stands; none where it is none of ours, or was deleted a moment ago.
async fn listed(jobs: &Jobs, name: &str, now: DateTime<Utc>) -> Result<Option<Schedule>, Problem> {
    if let Some(first) = name.strip_suffix(TWIN) {
        let first = read(jobs, first).await?;
        if first.is_some_and(|first| first.parts().len() > 1) {
            return Ok(None);
        }
    }
    let Some(schedule) = read(jobs, name).await? else {
        return Ok(None);
    };
    let mut missing = Vec::new();
    for part in schedule.parts().into_iter().filter(|part| part.name != name) {
        let other = get(jobs, &part.name).await;
        let other = other.map_err(|error| Problem::unavailable(&error))?;
        if !other.is_some_and(|other| is_part(&other, &schedule, &part.expression)) {
            missing.push(part.expression);
        }
    }
    Ok(Some(schedule.told(missing, now)))
}

/// Reads a schedule of ours.
async fn read(jobs: &Jobs, name: &str) -> Result<Option<Understood>, Problem> {
    let output = get(jobs, name).await.map_err(|error| Problem::unavailable(&error))?;
    Ok(output.and_then(|output| understand(name, &output)))
}

/// Deletes a schedule; jobs it has submitted go on.
///
/// # Errors
/// A 400 where this is no name, a 404 where there is no such schedule, a 503 where Scheduler cannot be asked.
pub async fn delete(jobs: &Jobs, name: &str) -> Result<Answer, Problem> {
    if !is_name(name) {
        return Err(Problem::field("name", Some(Value::String(name.to_owned())), names()));
    }
    // The twin goes first: where only it is deleted, the other is still listed, and can be deleted again.
    let mut was_there = false;
    for part in [twin(name), name.to_owned()] {
        was_there |= remove(jobs, &part).await.map_err(|error| {
            let advice =
                format!("the schedule {name} may fire still, or on some of its days: the same request removes it");
            Problem::unavailable(&error).with_unknown(vec![json!({"schedule": name})], &advice)
        })?;
    }
    if was_there {
        Ok(Answer::no_content())
    } else {
        Err(Problem::not_found("there is no such schedule"))
    }
}

/// Reads the schedule that is asked for, and whether nothing is to be created.
fn wanted(jobs: &Jobs, body: Value, now: DateTime<Utc>) -> Result<(Understood, bool), Problem> {
    let mut fields = fields(body)?;
    let mut job = JobRequest::read(&mut fields, &jobs.settings.registry);
    let dry_run = std::mem::take(&mut job.dry_run);
    if fields.get("cron").is_none() {
        fields.refuse("cron", None, "five fields of cron, rate(…), cron(…) or at(…)");
    }
    let cron = fields.text("cron", "a text", |_| true);
    let timing = cron.as_deref().map(Timing::parse).transpose();
    let timing = timing.unwrap_or_else(|error| refuse(&mut fields, "cron", error));
    let timezone = fields
        .text("timezone", "a text", |_| true)
        .unwrap_or_else(|| "UTC".to_owned());
    let zone = cron::zone(&timezone).map(Some);
    let zone = zone.unwrap_or_else(|error| refuse(&mut fields, "timezone", error));
    let name = fields.text("name", &names(), is_name);
    fields.finish(&FIELDS)?;
    choice::check(&job, &jobs.settings)?;
    let (Some(cron), Some(timing), Some(zone)) = (cron, timing, zone) else {
        return Err(Problem::bad_request("no schedule is asked for"));
    };
    let body = serde_json::to_value(&job).expect("a job is JSON");
    let schedule = Asked {
        // The same request is the same schedule.
        name: name.unwrap_or_else(|| format!("schedule-{:.16}", hash(&[&cron, &timezone, &body.to_string()]))),
        time: "<aws.scheduler.scheduled-time>".to_owned(),
        cron,
        timezone,
    };
    let understood = Understood {
        input: Input { schedule, body },
        timing,
        zone,
        start: cron::start(now),
    };
    Ok((understood, dry_run))
}

fn refuse<T>(fields: &mut Fields, field: &str, error: CronError) -> Option<T> {
    let accepted = format!("{}: {}", error.part, error.accepted);
    fields.refuse(field, Some(Value::String(error.value)), accepted);
    None
}

fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_plain)
}

fn names() -> String {
    format!("1 to {MAX_NAME} letters, digits, '-' and '_'")
}

impl Understood {
    /// The one or two schedules of EventBridge Scheduler's that it is.
    fn parts(&self) -> Vec<Part> {
        let name = &self.input.schedule.name;
        let named = [name.clone(), twin(name)].into_iter().zip(self.timing.expressions());
        named.map(|(name, expression)| Part { name, expression }).collect()
    }

    fn next(&self, now: DateTime<Utc>) -> Vec<String> {
        let times = self.timing.next(self.zone, self.start, now);
        times
            .iter()
            .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
            .collect()
    }

    /// The schedule as answers have it; these of its expressions are missing.
    fn told(self, missing: Vec<String>, now: DateTime<Utc>) -> Schedule {
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

/// Understands a schedule of ours; any other is left out, which is logged.
fn understand(name: &str, output: &GetScheduleOutput) -> Option<Understood> {
    let input = input(output);
    let understood = input.and_then(|input| {
        let understood = Understood {
            timing: Timing::parse(&input.schedule.cron).ok()?,
            zone: cron::zone(&input.schedule.timezone).ok()?,
            start: start(output),
            input,
        };
        let mut parts = understood.parts().into_iter();
        let part = parts.find(|part| part.name == name)?;
        is_part(output, &understood, &part.expression).then_some(understood)
    });
    if understood.is_none() {
        warn!(
            schedule.name = name,
            "{name} is no schedule of ours, or was changed by hand: it is left out"
        );
    }
    understood
}

fn input(output: &GetScheduleOutput) -> Option<Input> {
    serde_json::from_str(output.target()?.input()?).ok()
}

fn is_part(output: &GetScheduleOutput, schedule: &Understood, expression: &str) -> bool {
    input(output).as_ref() == Some(&schedule.input)
        && output.schedule_expression() == Some(expression)
        && output.schedule_expression_timezone() == Some(schedule.zone.name())
}

fn start(output: &GetScheduleOutput) -> DateTime<Utc> {
    let start = output
        .start_date()
        .and_then(|start| DateTime::from_timestamp(start.secs(), 0));
    start.unwrap_or_default()
}

/// Creates one of a schedule's parts where it is not there.
async fn put(
    jobs: &Jobs,
    schedule: &Understood,
    part: &Part,
    function: &str,
    now: DateTime<Utc>,
) -> Result<Put, NotPut> {
    let request = |error: BuildError| NotPut::sure(Problem::unavailable(&ScheduleError::Request(error)));
    let target = target(jobs, schedule, function).map_err(request)?;
    let window = FlexibleTimeWindow::builder()
        .mode(FlexibleTimeWindowMode::Off)
        .build()
        .map_err(request)?;
    let timing = &schedule.timing;
    // The SDK adds a client token that its own tries share, and no other: one that stays the same would find a schedule that
    // was deleted meanwhile.
    let created = jobs
        .scheduler
        .create_schedule()
        .group_name(&jobs.settings.schedule_group)
        .name(&part.name)
        .schedule_expression(&part.expression)
        .schedule_expression_timezone(schedule.zone.name())
        .set_start_date(
            timing
                .has_start()
                .then(|| Moment::from_secs(schedule.start.timestamp())),
        )
        .set_action_after_completion(timing.is_once().then_some(ActionAfterCompletion::Delete))
        .flexible_time_window(window)
        .target(target)
        .send()
        .await;
    let Err(error) = created else {
        return Ok(Put::Made);
    };
    match error.as_service_error() {
        Some(CreateScheduleError::ConflictException(_)) => {
            let there = there(jobs, schedule, part).await;
            let there = there.map_err(|error| NotPut {
                problem: Problem::unavailable(&error),
                may_stand: true,
            })?;
            match there {
                There::Part(output) => Ok(Put::There(start(&output))),
                There::Other => Err(NotPut::sure(Problem::conflict("another schedule has this name"))),
                There::Nothing => Err(NotPut::sure(Problem::conflict(
                    "a schedule of this name was deleted a moment ago",
                ))),
            }
        }
        Some(CreateScheduleError::ValidationException(refused)) => {
            let Asked { cron, timezone, .. } = &schedule.input.schedule;
            let message = refused.message().to_lowercase();
            let field = |field, value: &String| {
                let accepted = "what EventBridge Scheduler accepts, which this is not";
                Problem::field(field, Some(Value::String(value.clone())), accepted)
            };
            Err(NotPut::sure(match message {
                message if message.contains("timezone") => field("timezone", timezone),
                message if message.contains("expression") => field("cron", cron),
                _ => Problem::unavailable(&ScheduleError::Create(Box::new(error))),
            }))
        }
        service => {
            // An answer may have got lost, of this try or of one before it.
            let is_unsure = service.is_none_or(CreateScheduleError::is_internal_server_exception);
            match there(jobs, schedule, part).await {
                Ok(There::Part(output)) if is_created_since(&output, now) => Ok(Put::Made),
                Ok(There::Part(output)) => Ok(Put::There(start(&output))),
                Ok(There::Other) => Err(NotPut::sure(Problem::conflict("another schedule has this name"))),
                Ok(There::Nothing) => Err(NotPut {
                    problem: Problem::unavailable(&ScheduleError::Create(Box::new(error))),
                    may_stand: is_unsure,
                }),
                Err(_) => Err(NotPut {
                    problem: Problem::unavailable(&ScheduleError::Create(Box::new(error))),
                    may_stand: true,
                }),
            }
        }
    }
}

/// What stands under the name of a part.
enum There {
    /// The very part.
    Part(Box<GetScheduleOutput>),
    /// Another schedule.
    Other,
    Nothing,
}

async fn there(jobs: &Jobs, schedule: &Understood, part: &Part) -> Result<There, ScheduleError> {
    Ok(match get(jobs, &part.name).await? {
        Some(output) if is_part(&output, schedule, &part.expression) => There::Part(Box::new(output)),
        Some(_) => There::Other,
        None => There::Nothing,
    })
}

/// Whether a schedule was made by a request that came now, and not before.
fn is_created_since(output: &GetScheduleOutput, now: DateTime<Utc>) -> bool {
    let created = output.creation_date().map(Moment::secs);
    created.is_some_and(|created| created >= (now - CLOCK_SKEW).timestamp())
}

fn target(jobs: &Jobs, schedule: &Understood, function: &str) -> Result<Target, BuildError> {
    let retry = RetryPolicy::builder()
        .maximum_retry_attempts(RETRIES)
        .maximum_event_age_in_seconds(RETRY_SECONDS)
        .build();
    Target::builder()
        .arn(function)
        .role_arn(&jobs.settings.schedule_role)
        .dead_letter_config(DeadLetterConfig::builder().arn(&jobs.settings.dead_letters).build())
        .retry_policy(retry)
        .input(serde_json::to_string(&schedule.input).expect("an input is JSON"))
        .build()
}

/// Deletes again what was made of a schedule that cannot be made as a whole, and tells what stands for all that: what could
/// not be deleted, and what was there before, or may be.
async fn undo(
    jobs: &Jobs,
    schedule: &Understood,
    made: Vec<Part>,
    mut standing: Vec<Part>,
    mut problem: Problem,
) -> Problem {
    let name = &schedule.input.schedule.name;
    for part in made.into_iter().rev() {
        if let Err(error) = remove(jobs, &part.name).await {
            problem = Problem::unavailable(&ScheduleError::Half(name.clone(), Box::new(error)));
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

/// The name of the second part of the schedule with this name.
fn twin(name: &str) -> String {
    format!("{name}{TWIN}")
}

/// Reads a schedule; none where there is none.
async fn get(jobs: &Jobs, name: &str) -> Result<Option<GetScheduleOutput>, ScheduleError> {
    let request = jobs
        .scheduler
        .get_schedule()
        .group_name(&jobs.settings.schedule_group)
        .name(name);
    match request.send().await {
        Ok(output) => Ok(Some(output)),
        Err(error) => match error.as_service_error() {
            Some(GetScheduleError::ResourceNotFoundException(_)) => Ok(None),
            _ => Err(ScheduleError::Get(Box::new(error))),
        },
    }
}

/// Deletes a schedule, and tells whether it was there.
async fn remove(jobs: &Jobs, name: &str) -> Result<bool, ScheduleError> {
    let request = jobs
        .scheduler
        .delete_schedule()
        .group_name(&jobs.settings.schedule_group)
        .name(name);
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) => match error.as_service_error() {
            Some(DeleteScheduleError::ResourceNotFoundException(_)) => Ok(false),
            _ => Err(ScheduleError::Delete(Box::new(error))),
        },
    }
}

#[cfg(test)]
mod tests;

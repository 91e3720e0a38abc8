//! GET /jobs/schedule: the schedules by name.

use aws_sdk_scheduler::operation::list_schedules::ListSchedulesError;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::{
    http::{
        answer::Answer,
        problem::Problem,
        query::{self, Page, Query},
    },
    schedule::{
        definition::{Definition, Schedule},
        name::TWIN,
        scheduler::{ScheduleError, Scheduler},
    },
};

/// Limits how many schedules are read at once.
const AT_ONCE: usize = 10;

/// Holds a page of schedules.
#[derive(Debug, Serialize)]
struct Schedules {
    schedules: Vec<Schedule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists the schedules of the group by name, a page of them.
///
/// # Errors
/// A 400 where the query is not accepted, a 503 where Scheduler cannot be asked.
pub async fn list(scheduler: &Scheduler<'_>, query: &Query, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let page: Page<String> = query.page(1..=50, 20)?;
    let is_next = page.next.is_some();
    let answer = scheduler
        .list(page.limit, page.next)
        .await
        .map_err(|error| match error {
            ScheduleError::List(refused) if is_next && is_of_request(refused.as_service_error()) => query::stale(),
            error => Problem::unavailable(error),
        })?;
    let names = answer.schedules.into_iter().filter_map(|schedule| schedule.name);
    let read = stream::iter(names).map(async |name| described(scheduler, &name, now).await);
    let listed: Vec<Option<Schedule>> = read.buffered(AT_ONCE).try_collect().await?;
    let next = answer.next_token.filter(|token| !token.is_empty());
    let page = Schedules {
        schedules: listed.into_iter().flatten().collect(),
        next: next.map(|token| query::token(&token)),
    };
    Ok(Answer::ok(&page))
}

fn is_of_request(refused: Option<&ListSchedulesError>) -> bool {
    refused.is_some_and(ListSchedulesError::is_validation_exception)
}

/// Describes the schedule that a name of EventBridge Scheduler's is of: by its first part, or by its second where only that
/// stands; none where it is none of ours, or was deleted a moment ago.
async fn described(scheduler: &Scheduler<'_>, name: &str, now: DateTime<Utc>) -> Result<Option<Schedule>, Problem> {
    if let Some(first) = name.strip_suffix(TWIN) {
        let first = read(scheduler, first).await?;
        if first.is_some_and(|first| first.parts().len() > 1) {
            return Ok(None);
        }
    }
    let Some(schedule) = read(scheduler, name).await? else {
        return Ok(None);
    };
    let mut missing = Vec::new();
    for part in schedule.parts().into_iter().filter(|part| part.name != name) {
        let other = scheduler.get(&part.name).await.map_err(Problem::unavailable)?;
        if !other.is_some_and(|other| schedule.is_part(&other, &part.expression)) {
            missing.push(part.expression);
        }
    }
    Ok(Some(schedule.described(missing, now)))
}

/// Reads a schedule of ours.
async fn read(scheduler: &Scheduler<'_>, name: &str) -> Result<Option<Definition>, Problem> {
    let output = scheduler.get(name).await.map_err(Problem::unavailable)?;
    Ok(output.and_then(|output| Definition::of(name, &output)))
}

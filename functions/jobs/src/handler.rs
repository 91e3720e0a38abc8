//! From events to answers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use lambda_runtime::Diagnostic;
use prefetch::{aws, command::Trigger, error_text::error_text, metrics::Metrics};
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{error, info};

use crate::{
    event::{Event, ScheduledJob},
    http::{
        answer::{Answer, response},
        problem::Problem,
        request::{Request, Route},
    },
    jobs::Jobs,
    nodes::{self, count::count, sources::NodeSources},
    reconcile::{ReconcileError, reconcile},
    schedule,
    status::{cancel::cancel, get::get, list::list, stats::stats},
    submit::{Submission, submit},
    usage,
};

/// Sets how long the HTTP API waits, less what a start and the way back take: it gives up after 30 seconds (quotas of HTTP
/// APIs).
const API_TIME: Duration = Duration::from_secs(27);

/// Tells what is not done, where nobody reads an answer that says so: Lambda's next try, or an alarm, is to follow.
#[derive(Debug, Error)]
pub enum JobsError {
    /// A request could not be answered.
    #[error("{0}")]
    Problem(String),
    /// A rule could not be reconciled.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
}

impl From<JobsError> for Diagnostic {
    fn from(error: JobsError) -> Self {
        Self {
            error_type: "JobsError".to_owned(),
            error_message: error_text(&error),
        }
    }
}

/// Answers an event: one of the HTTP API whatever it is, a direct invocation also what is the caller's fault, a schedule what
/// is done; `function` is this function's ARN, which schedules are to invoke.
///
/// # Errors
/// [`JobsError`] for what is ours, and from a schedule or a reconcile for whatever is not done.
pub async fn handle(jobs: &Jobs, payload: Value, function: &str) -> Result<Value, JobsError> {
    let now = std::time::SystemTime::now().into();
    handle_at(jobs, payload, function, now).await
}

/// Answers an event at this moment.
pub async fn handle_at(jobs: &Jobs, payload: Value, function: &str, now: DateTime<Utc>) -> Result<Value, JobsError> {
    match Event::read(payload) {
        Event::Api(request) => {
            let answer = aws::within(API_TIME, answer(jobs, request, function, now)).await;
            Ok(response(answer))
        }
        Event::Direct(request) => match answer(jobs, request, function, now).await {
            Ok(answer) => Ok(answer.body.unwrap_or_default()),
            Err(problem) if problem.is_ours() => Err(JobsError::Problem(problem.line())),
            Err(problem) => Ok(json!(problem)),
        },
        Event::Schedule(job) => {
            let answer = submit_scheduled(jobs, job, now).await.inspect_err(log);
            let answer = answer.map_err(|problem| JobsError::Problem(problem.line()))?;
            Ok(answer.body.unwrap_or_default())
        }
        Event::Reconcile => Ok(json!(reconcile(&jobs.reconciler(), now).await?)),
        Event::Count => Ok(count_nodes(&jobs.node_sources(), &jobs.settings.metrics, now).await),
        Event::Ignored(message) => {
            let reason = "not-deployed";
            info!(reason, "ignored: {message}");
            Ok(json!({"decision": "ignored", "reason": reason, "message": message}))
        }
    }
}

async fn answer(
    jobs: &Jobs,
    request: Result<Request, Problem>,
    function: &str,
    now: DateTime<Utc>,
) -> Result<Answer, Problem> {
    let answer = match request {
        Ok(request) => route(jobs, request, function, now).await,
        Err(problem) => Err(problem),
    };
    answer.inspect_err(log)
}

async fn route(jobs: &Jobs, request: Request, function: &str, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let Request {
        route,
        query,
        body,
        key,
        requested_by,
    } = request;
    match route {
        Route::SubmitJob => {
            let submission = Submission {
                body,
                key: key.as_deref(),
                trigger: Trigger::Job,
                requested_by: requested_by.as_deref(),
                now,
            };
            submit(&jobs.submitter(), submission).await
        }
        Route::ListJobs => list(&jobs.job_sources(), &query, now).await,
        Route::GetStats => stats(&jobs.store).await,
        Route::GetJob(id) => get(&jobs.job_sources(), &jobs.ec2, &id, &query, now).await,
        Route::CancelJob(id) => cancel(&jobs.job_sources(), &id, now).await,
        Route::CreateSchedule => schedule::create::create(&jobs.scheduler(), body, function, now).await,
        Route::ListSchedules => schedule::list::list(&jobs.scheduler(), &query, now).await,
        Route::DeleteSchedule(name) => schedule::delete::delete(&jobs.scheduler(), &name).await,
        Route::ListNodes => nodes::list::list(&jobs.node_sources(), &query, now).await,
        Route::GetUsage => usage::get(&jobs.usage, &jobs.settings, &query, now).await,
    }
}

async fn submit_scheduled(
    jobs: &Jobs,
    job: Result<ScheduledJob, Problem>,
    now: DateTime<Utc>,
) -> Result<Answer, Problem> {
    let ScheduledJob { body, key, name } = job?;
    let submission = Submission {
        body,
        key: Some(&key),
        trigger: Trigger::Schedule,
        requested_by: Some(&name),
        now,
    };
    submit(&jobs.submitter(), submission).await
}

/// Counts the nodes and prints the metrics; a count that fails is not tried again, for the next one is due soon.
async fn count_nodes(sources: &NodeSources<'_>, metrics: &Metrics, now: DateTime<Utc>) -> Value {
    match count(sources, now).await {
        Ok(counted) => {
            counted.line(metrics, now).print();
            json!({"nodes": counted})
        }
        Err(problem) => {
            error!(
                status = problem.status(),
                "the nodes are not counted: {}",
                problem.line()
            );
            json!(problem)
        }
    }
}

fn log(problem: &Problem) {
    if problem.is_ours() {
        error!(status = problem.status(), "{}", problem.line());
    } else {
        info!(status = problem.status(), "{}", problem.line());
    }
}

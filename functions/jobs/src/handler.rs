//! From calls to answers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use lambda_runtime::Diagnostic;
use prefetch::{aws, boot::BootLists, command::Trigger, ecr::NewestImages, report::report, sender::Sender};
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{error, info};

use crate::{
    answer::Answer,
    cancel::cancel,
    door::{Asked, Call, Scheduled, call},
    list::list,
    nodes::{self, count::count},
    problem::Problem,
    reconcile::{ReconcileError, reconcile},
    route::Route,
    schedule,
    settings::Settings,
    stats::stats,
    status,
    submit::submit,
};

/// How long the HTTP API waits, less what a start and the way back take: it gives up after 30 seconds (quotas of HTTP APIs).
const API_TIME: Duration = Duration::from_secs(27);

/// What the function works with.
pub struct Jobs {
    pub ssm: aws_sdk_ssm::Client,
    pub sender: Sender,
    pub ec2: aws_sdk_ec2::Client,
    pub ecr: aws_sdk_ecr::Client,
    pub images: NewestImages,
    /// The boot lists, where the stack keeps them.
    pub boot: Option<BootLists>,
    pub dynamodb: aws_sdk_dynamodb::Client,
    pub scheduler: aws_sdk_scheduler::Client,
    pub settings: Settings,
}

/// What was asked for is not done, and nobody reads an answer that says so: worth another try, and an alarm.
#[derive(Debug, Error)]
pub enum JobsError {
    /// A call could not be answered.
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
            error_message: report(&error),
        }
    }
}

impl Jobs {
    /// Answers a call: by HTTP whatever it is, to a plain call what is the caller's fault as well, to a schedule what is done;
    /// `function` is this function's ARN, which schedules are to invoke.
    ///
    /// # Errors
    /// [`JobsError`] for what is ours, and from a schedule or a reconcile for whatever is not done.
    pub async fn handle(&self, payload: Value, function: &str) -> Result<Value, JobsError> {
        let now = std::time::SystemTime::now().into();
        self.handle_at(payload, function, now).await
    }

    /// Does so at this moment.
    pub async fn handle_at(&self, payload: Value, function: &str, now: DateTime<Utc>) -> Result<Value, JobsError> {
        match call(payload) {
            Call::Http(asked) => {
                let answer = aws::within(API_TIME, self.answer(asked, function, now)).await;
                Ok(http(answer))
            }
            Call::Plain(asked) => match self.answer(asked, function, now).await {
                Ok(answer) => Ok(answer.body.unwrap_or_default()),
                Err(problem) if problem.is_ours() => Err(JobsError::Problem(problem.told())),
                Err(problem) => Ok(json!(problem)),
            },
            Call::Schedule(scheduled) => {
                let answer = match scheduled {
                    Ok(scheduled) => {
                        let Scheduled { body, key, name } = scheduled;
                        submit(self, body, Some(&key), Trigger::Schedule, Some(&name), now).await
                    }
                    Err(problem) => Err(problem),
                };
                let answer = answer
                    .inspect_err(log)
                    .map_err(|problem| JobsError::Problem(problem.told()))?;
                Ok(answer.body.unwrap_or_default())
            }
            Call::Reconcile => Ok(json!(reconcile(self, now).await?)),
            Call::Count => Ok(self.count(now).await),
            Call::Ignored(message) => {
                let reason = "not-deployed";
                info!(reason, "ignored: {message}");
                Ok(json!({"decision": "ignored", "reason": reason, "message": message}))
            }
        }
    }

    /// Counts the nodes and prints the metrics; a count that fails is not tried again, for the next one is due soon.
    async fn count(&self, now: DateTime<Utc>) -> Value {
        match count(self, now).await {
            Ok(counted) => {
                counted.line(&self.settings.metrics, now).print();
                json!({"nodes": counted})
            }
            Err(problem) => {
                error!(
                    status = problem.status(),
                    "the nodes are not counted: {}",
                    problem.told()
                );
                json!(problem)
            }
        }
    }

    async fn answer(
        &self,
        asked: Result<Asked, Problem>,
        function: &str,
        now: DateTime<Utc>,
    ) -> Result<Answer, Problem> {
        let answer = match asked {
            Ok(asked) => self.route(asked, function, now).await,
            Err(problem) => Err(problem),
        };
        answer.inspect_err(log)
    }

    async fn route(&self, asked: Asked, function: &str, now: DateTime<Utc>) -> Result<Answer, Problem> {
        let Asked {
            route,
            query,
            body,
            key,
            requested_by,
        } = asked;
        let (key, requested_by) = (key.as_deref(), requested_by.as_deref());
        match route {
            Route::SubmitJob => submit(self, body, key, Trigger::Job, requested_by, now).await,
            Route::ListJobs => list(self, &query, now).await,
            Route::GetStats => stats(self).await,
            Route::GetJob(id) => status::get(self, &id, &query, now).await,
            Route::CancelJob(id) => cancel(self, &id, now).await,
            Route::CreateSchedule => schedule::create(self, body, function, now).await,
            Route::ListSchedules => schedule::list(self, &query, now).await,
            Route::DeleteSchedule(name) => schedule::delete(self, &name).await,
            Route::ListNodes => nodes::list(self, &query, now).await,
        }
    }
}

/// Writes an answer or a problem as the HTTP API wants it.
fn http(answer: Result<Answer, Problem>) -> Value {
    let (status, content_type, body) = match answer {
        Ok(Answer { status, body }) => (status, "application/json", body),
        Err(problem) => (problem.status(), "application/problem+json", Some(json!(problem))),
    };
    match body {
        Some(body) => json!({
            "statusCode": status, "headers": {"content-type": content_type}, "body": body.to_string(),
        }),
        None => json!({"statusCode": status}),
    }
}

fn log(problem: &Problem) {
    if problem.is_ours() {
        error!(status = problem.status(), "{}", problem.told());
    } else {
        info!(status = problem.status(), "{}", problem.told());
    }
}

#[cfg(test)]
mod tests;

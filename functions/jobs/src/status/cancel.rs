//! DELETE /jobs/{id}: what has not begun of a job does not begin.

use chrono::{DateTime, Utc};
use prefetch::{
    command::Comment,
    ssm::{self, SsmError},
};
use serde_json::{Value, json};
use thiserror::Error;
use tracing::info;

use crate::{
    http::{answer::Answer, problem::Problem},
    status::{
        command::each_since,
        job::{Job, JobState},
        sources::JobSources,
    },
};

/// Tells that SSM has more commands since the job began than are looked through.
#[derive(Debug, Error)]
#[error("SSM has more commands than can be looked through for the job's further tries")]
struct TooMany;

/// Cancels a job and its duplicates: first their retries, by a row that whoever retries reads, then the commands that have not
/// ended.
///
/// # Errors
/// A 400 where the id is none, a 404 where there is no such job, a 503 where AWS cannot be asked, which names what may go on.
pub async fn cancel(sources: &JobSources<'_>, id: &str, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let first = sources.job(id, now).await?;
    let state = first.state;
    let due = due(sources, first, now).await?;
    for job in &due {
        let noted = sources.store.put_cancelled(&job.id, now).await;
        noted.map_err(Problem::unavailable)?;
    }
    let (mut stopped, mut failed) = (Vec::new(), Failed::default());
    for job in &due {
        cancel_one(sources, job, &mut stopped, &mut failed).await;
    }
    if let Some(problem) = failed.problem {
        let advice = "the job is cancelled as far as nothing more is sent of it; what is named as unknown may go on, and further tries that are on their way: the same request stops them";
        return Err(problem.with_unknown(failed.commands, advice));
    }
    if !due.is_empty() {
        info!(command.id = id, "cancelled job {id}: {} commands", stopped.len());
    }
    let state = if due.iter().any(|job| job.id == id) {
        JobState::Cancelled
    } else {
        state
    };
    Ok(Answer::ok(&json!({"id": id, "state": state, "commands": stopped})))
}

/// Gives those of a job and its duplicates that are not over.
async fn due(sources: &JobSources<'_>, first: Job, now: DateTime<Utc>) -> Result<Vec<Job>, Problem> {
    let mut due = Vec::new();
    for duplicate in &first.duplicates {
        match sources.job(duplicate, now).await {
            Ok(duplicate) => due.push(duplicate),
            Err(problem) if problem.is_ours() => return Err(problem),
            // It is long over.
            Err(_) => {}
        }
    }
    due.insert(0, first);
    due.retain(|job| !matches!(job.state, JobState::Done | JobState::Observed));
    Ok(due)
}

/// Stops the commands of a job; none goes on because another could not be stopped.
async fn cancel_one(sources: &JobSources<'_>, job: &Job, stopped: &mut Vec<String>, failed: &mut Failed) {
    // What goes to most nodes is stopped first.
    if !job.has_ended {
        stop(sources, &job.id, stopped, failed).await;
    }
    let mut retries = Vec::new();
    if let Err(problem) = running_retries(sources, job, &mut retries).await {
        failed.add(&job.id, problem);
    }
    for command in retries {
        stop(sources, &command, stopped, failed).await;
    }
}

/// Holds what could not be stopped, or is not known to be, and the first reason.
#[derive(Default)]
struct Failed {
    problem: Option<Problem>,
    commands: Vec<Value>,
}

impl Failed {
    /// Notes that a command, or what belongs to a job, may go on.
    fn add(&mut self, id: &str, problem: Problem) {
        let command = json!({"id": id});
        if !self.commands.contains(&command) {
            self.commands.push(command);
        }
        self.problem.get_or_insert(problem);
    }
}

/// Tells SSM to stop a command.
async fn stop(sources: &JobSources<'_>, command: &str, stopped: &mut Vec<String>, failed: &mut Failed) {
    match ssm::cancel(sources.ssm, command).await {
        Ok(()) | Err(SsmError::NoCommand) => stopped.push(command.to_owned()),
        Err(error) => failed.add(command, Problem::unavailable(error)),
    }
}

/// Lists the commands of a job's retries that have not ended.
///
/// # Errors
/// A 503 where SSM cannot be asked, or has more commands than are looked through; those found until then are listed.
async fn running_retries(sources: &JobSources<'_>, job: &Job, running: &mut Vec<String>) -> Result<(), Problem> {
    let document = &sources.settings.shared.document;
    let is_whole = each_since(sources.ssm, document, job.requested_at, |command| {
        let comment = command.comment().and_then(|comment| comment.parse::<Comment>().ok());
        let is_of_job = comment.is_some_and(|comment| comment.job.as_deref() == Some(&job.id));
        if is_of_job && !ssm::has_ended(&command) {
            running.extend(command.command_id);
        }
    });
    if is_whole.await.map_err(Problem::unavailable)? {
        Ok(())
    } else {
        Err(Problem::unavailable(TooMany))
    }
}

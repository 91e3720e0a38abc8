//! DELETE /jobs/{id}: what has not begun of a job does not begin.

use chrono::{DateTime, SecondsFormat, Utc};
use prefetch::{
    command::Comment,
    ssm::{self, SsmError},
};
use serde_json::{Value, json};
use thiserror::Error;
use tracing::info;

use crate::{
    answer::Answer,
    handler::Jobs,
    problem::Problem,
    status::{Job, State, job},
    store,
};

/// How many pages of commands are looked through for a job's further tries.
const MAX_PAGES: usize = 40;

/// SSM has more commands since the job began than are looked through.
#[derive(Debug, Error)]
#[error("SSM has more commands than can be looked through for the job's further tries")]
struct TooMany;

/// Cancels a job and its duplicates: their further tries first, by a row that whoever would make them reads, then the commands
/// that have not ended.
///
/// # Errors
/// A 400 where the id is none, a 404 where there is no such job, a 503 where AWS cannot be asked, which names what may go on.
pub async fn cancel(jobs: &Jobs, id: &str, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let first = job(jobs, id, now).await?;
    let mut state = first.state;
    let mut due = Vec::new();
    for duplicate in &first.duplicates {
        match job(jobs, duplicate, now).await {
            Ok(duplicate) => due.push(duplicate),
            Err(problem) if problem.is_ours() => return Err(problem),
            // It is long over.
            Err(_) => {}
        }
    }
    due.insert(0, first);
    due.retain(|job| !matches!(job.state, State::Done | State::Observed));
    for job in &due {
        let noted = store::put_cancelled(jobs, &job.id, now).await;
        noted.map_err(|error| Problem::unavailable(&error))?;
    }
    let (mut stopped, mut failed) = (Vec::new(), Failed::default());
    for job in &due {
        if job.id == id {
            state = State::Cancelled;
        }
        cancel_one(jobs, job, &mut stopped, &mut failed).await;
    }
    if let Some(problem) = failed.problem {
        let advice = "the job is cancelled as far as nothing more is sent of it; what is named as unknown may go on, and further tries that are on their way: the same request stops them";
        return Err(problem.with_unknown(failed.commands, advice));
    }
    if !due.is_empty() {
        info!(command.id = id, "cancelled job {id}: {} commands", stopped.len());
    }
    Ok(Answer::ok(&json!({"id": id, "state": state, "commands": stopped})))
}

/// Stops the commands of a job; none goes on because another could not be stopped.
async fn cancel_one(jobs: &Jobs, job: &Job, stopped: &mut Vec<String>, failed: &mut Failed) {
    // What goes to most nodes is stopped first.
    if !job.has_ended {
        stop(jobs, &job.id, stopped, failed).await;
    }
    let mut further = Vec::new();
    if let Err(problem) = further_tries(jobs, job, &mut further).await {
        failed.add(&job.id, problem);
    }
    for command in further {
        stop(jobs, &command, stopped, failed).await;
    }
}

/// What could not be stopped, or is not known to be, and the first reason.
#[derive(Default)]
struct Failed {
    problem: Option<Problem>,
    commands: Vec<Value>,
}

impl Failed {
    /// Notes that a command, or what belongs to a job, may go on.
    fn add(&mut self, id: &str, problem: Problem) {
        let told = json!({"id": id});
        if !self.commands.contains(&told) {
            self.commands.push(told);
        }
        self.problem.get_or_insert(problem);
    }
}

/// Tells SSM to stop a command.
async fn stop(jobs: &Jobs, command: &str, stopped: &mut Vec<String>, failed: &mut Failed) {
    match ssm::cancel(&jobs.ssm, command).await {
        Ok(()) | Err(SsmError::NoCommand) => stopped.push(command.to_owned()),
        Err(error) => failed.add(command, Problem::unavailable(&error)),
    }
}

/// Lists the commands of a job's further tries that have not ended.
///
/// # Errors
/// A 503 where SSM cannot be asked, or has more commands than are looked through; those found until then are listed.
async fn further_tries(jobs: &Jobs, job: &Job, running: &mut Vec<String>) -> Result<(), Problem> {
    let after = job.requested_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut page = None;
    for _ in 0..MAX_PAGES {
        let answer = ssm::commands(&jobs.ssm, &jobs.settings.shared.document, &after, page).await;
        let answer = answer.map_err(|error| Problem::unavailable(&error))?;
        for command in answer.commands.unwrap_or_default() {
            let comment = command.comment().and_then(|comment| comment.parse::<Comment>().ok());
            let is_of_job = comment.is_some_and(|comment| comment.job.as_deref() == Some(&job.id));
            if is_of_job && !ssm::has_ended(&command) {
                running.extend(command.command_id);
            }
        }
        page = answer.next_token.filter(|token| !token.is_empty());
        if page.is_none() {
            return Ok(());
        }
    }
    Err(Problem::unavailable(&TooMany))
}

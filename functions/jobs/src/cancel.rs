//! DELETE /jobs/{id}: what has not begun of a job does not begin.

use chrono::{DateTime, SecondsFormat, Utc};
use prefetch::{
    command::Comment,
    ssm::{self, SsmError},
};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::{
    answer::Answer,
    handler::Jobs,
    problem::Problem,
    status::{Job, State, job},
    store,
};

/// How many pages of commands are looked through for a job's further tries.
const MAX_PAGES: usize = 40;

/// Cancels a job: its further tries first, by a row that whoever would make them reads, then the commands that have not
/// ended.
///
/// # Errors
/// A 400 where the id is none, a 404 where there is no such job, a 503 where AWS cannot be asked.
pub async fn cancel(jobs: &Jobs, id: &str, now: DateTime<Utc>) -> Result<Answer, Problem> {
    let job = job(jobs, id, now).await?;
    if let state @ (State::Done | State::Observed) = job.state {
        return Ok(Answer::ok(&json!({"id": id, "state": state, "commands": []})));
    }
    let noted = store::put_cancelled(jobs, id, now).await;
    noted.map_err(|error| Problem::unavailable(&error))?;
    let (mut stopped, mut failed) = (Vec::new(), Failed::default());
    // What goes to most nodes is stopped first, and no command goes on because another could not be stopped.
    if !job.has_ended {
        stop(jobs, id, &mut stopped, &mut failed).await;
    }
    match further_tries(jobs, &job).await {
        Ok(commands) => {
            for command in commands {
                stop(jobs, &command, &mut stopped, &mut failed).await;
            }
        }
        Err(problem) => failed.problem = failed.problem.or(Some(problem)),
    }
    if let Some(problem) = failed.problem {
        let advice = "the job is cancelled as far as nothing more is sent of it; what is named as unknown may go on, and further tries that are on their way: the same request stops them";
        return Err(problem.with_unknown(failed.commands, advice));
    }
    info!(command.id = id, "cancelled job {id}: {} commands", stopped.len());
    Ok(Answer::ok(
        &json!({"id": id, "state": State::Cancelled, "commands": stopped}),
    ))
}

/// What could not be stopped, or is not known to be, and the first reason.
#[derive(Default)]
struct Failed {
    problem: Option<Problem>,
    commands: Vec<Value>,
}

/// Tells SSM to stop a command.
async fn stop(jobs: &Jobs, command: &str, stopped: &mut Vec<String>, failed: &mut Failed) {
    match ssm::cancel(&jobs.ssm, command).await {
        Ok(()) | Err(SsmError::NoCommand) => stopped.push(command.to_owned()),
        Err(error) => {
            failed.commands.push(json!({"id": command}));
            failed.problem.get_or_insert(Problem::unavailable(&error));
        }
    }
}

/// The commands of a job's further tries that have not ended.
async fn further_tries(jobs: &Jobs, job: &Job) -> Result<Vec<String>, Problem> {
    let mut running = Vec::new();
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
            return Ok(running);
        }
    }
    warn!(
        command.id = job.id,
        "job {}: not all commands were looked through", job.id
    );
    Ok(running)
}

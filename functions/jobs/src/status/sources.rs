//! Where what is known of jobs is read: SSM, and the table.

use std::collections::BTreeSet;

use aws_sdk_ssm::types::Command;
use chrono::{DateTime, Utc};
use prefetch::{
    command::{is_command_id, is_unsent_id},
    rows::Key,
    ssm::{self, SsmError},
    table::Rows,
};
use serde_json::json;

use crate::{
    http::problem::Problem,
    settings::Settings,
    status::job::{Job, JobFacts, JobRow},
    store::{Store, StoreError},
};

/// Holds what a job is read from.
#[derive(Clone, Copy)]
pub struct JobSources<'a> {
    pub ssm: &'a aws_sdk_ssm::Client,
    pub store: &'a Store,
    pub settings: &'a Settings,
}

impl JobSources<'_> {
    /// Reads and judges a job without its nodes.
    ///
    /// # Errors
    /// A 400 where the id is none, a 404 where there is no such job, a 503 where AWS cannot be asked.
    pub async fn job(&self, id: &str, now: DateTime<Utc>) -> Result<Job, Problem> {
        check_id(id)?;
        let rows = self.rows(&BTreeSet::from([id])).await;
        self.judge(id, &rows.map_err(Problem::unavailable)?, now).await
    }

    /// Judges a job by its rows, and by what SSM says of its first command where they do not tell that all is over.
    ///
    /// # Errors
    /// A 404 where there is no such job, a 503 where SSM cannot be asked.
    pub async fn judge(&self, id: &str, rows: &Rows, now: DateTime<Utc>) -> Result<Job, Problem> {
        let mut facts = facts(rows, id, None).map_err(Problem::unavailable)?;
        let is_settled = facts.row.as_ref().is_some_and(JobRow::is_settled);
        if !is_settled && !is_unsent_id(id) {
            let command = match ssm::command(self.ssm, id).await {
                Ok(command) => Some(command),
                Err(SsmError::NoCommand) => None,
                Err(error) => return Err(Problem::unavailable(error)),
            };
            let is_ours = |command: &Command| command.document_name() == Some(&self.settings.shared.document);
            facts.command = command.filter(is_ours);
        }
        let job = facts.job(id, self.settings, now);
        job.ok_or_else(|| Problem::not_found(format!("there is no job {id}, or it is long over")))
    }

    /// Reads the rows of jobs, and those that say that they were cancelled: one BatchGetItem for each 50.
    ///
    /// # Errors
    /// [`StoreError::Read`] where they could not be read.
    pub async fn rows(&self, ids: &BTreeSet<&str>) -> Result<Rows, StoreError> {
        let keys = ids.iter().flat_map(|id| [Key::job(id), Key::cancelled(id)]).collect();
        Ok(self.store.read(&keys).await?)
    }
}

/// Checks that a path names a job.
///
/// # Errors
/// A 400 where it does not.
pub fn check_id(id: &str) -> Result<(), Problem> {
    if is_command_id(id) {
        return Ok(());
    }
    let accepted = "a job's id: 32 lower-case hexadecimal digits in groups of 8, 4, 4, 4 and 12";
    Err(Problem::field("id", Some(json!(id)), accepted))
}

/// Gathers what rows and SSM say of a job.
///
/// # Errors
/// [`StoreError::Row`] where a row cannot be understood.
pub fn facts(rows: &Rows, id: &str, command: Option<Command>) -> Result<JobFacts, StoreError> {
    Ok(JobFacts {
        command,
        row: rows.get(&Key::job(id))?,
        is_cancelled: rows.contains(&Key::cancelled(id)),
    })
}

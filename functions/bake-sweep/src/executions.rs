//! Executions: whether the one that made something is gone.

use std::collections::HashMap;

use aws_sdk_sfn::{Client, error::SdkError, types::ExecutionStatus};
use prefetch::report::report;

use crate::message::{Asked, Ended};

/// What is known of executions; each is asked for once.
pub struct Executions<'a> {
    sfn: &'a Client,
    ended: Option<&'a Ended>,
    gone: HashMap<String, Result<bool, String>>,
}

impl<'a> Executions<'a> {
    /// Knows what is asked for: what whoever asks to prune or to clean up has made counts as left behind, and one whose
    /// event says so has ended.
    pub fn new(sfn: &'a Client, asked: &'a Asked) -> Self {
        let mut gone = HashMap::new();
        let ended = match asked {
            Asked::Sweep { ended } => ended.as_ref(),
            Asked::Prune { execution, .. } | Asked::CleanUp { execution, .. } => {
                gone.insert(execution.clone(), Ok(true));
                None
            }
        };
        Self { sfn, ended, gone }
    }

    /// Whether an execution is gone; the error tells why that cannot be told.
    pub async fn is_gone(&mut self, execution: &str) -> Result<bool, String> {
        if let Some(known) = self.gone.get(execution) {
            return known.clone();
        }
        let is_gone = self.ask(execution).await;
        self.gone.insert(execution.to_owned(), is_gone.clone());
        is_gone
    }

    async fn ask(&self, execution: &str) -> Result<bool, String> {
        match self.sfn.describe_execution().execution_arn(execution).send().await {
            Ok(answer) => {
                let ended = self.ended.filter(|ended| ended.execution == execution);
                Ok(is_over(&answer.status, answer.redrive_count.unwrap_or_default(), ended))
            }
            // It ended 90 days ago, or the state machine was deleted with it.
            Err(SdkError::ServiceError(refused)) if refused.err().is_execution_does_not_exist() => Ok(true),
            Err(error) => Err(format!(
                "the execution {execution} could not be described: {}",
                report(&error)
            )),
        }
    }
}

/// Whether an execution of this status is over, or was when its event said so and was not redriven since.
fn is_over(status: &ExecutionStatus, redrives: i32, ended: Option<&Ended>) -> bool {
    *status != ExecutionStatus::Running || ended.is_some_and(|ended| redrives <= ended.redrives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_is_over_unless_it_runs_or_runs_again() {
        use ExecutionStatus::{Aborted, Failed, PendingRedrive, Running, Succeeded, TimedOut};
        for status in [Aborted, Failed, PendingRedrive, Succeeded, TimedOut] {
            assert!(is_over(&status, 0, None), "{status}");
        }
        assert!(!is_over(&Running, 0, None));
        let ended = Ended {
            execution: String::new(),
            redrives: 1,
        };
        assert!(is_over(&Running, 1, Some(&ended)), "DescribeExecution lags behind");
        assert!(!is_over(&Running, 2, Some(&ended)), "it was redriven");
    }
}

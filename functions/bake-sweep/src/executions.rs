//! Executions that made something: those that are gone.

use std::collections::HashMap;

use aws_sdk_sfn::{Client, error::SdkError, types::ExecutionStatus};
use prefetch::{bake::EXECUTION_TAG, error_text::error_text};

use crate::message::{Ended, Request};

/// Remembers which executions are gone; each is asked for once.
pub struct Executions<'a> {
    sfn: &'a Client,
    ended: Option<&'a Ended>,
    gone: HashMap<String, Result<bool, String>>,
}

impl<'a> Executions<'a> {
    /// Knows what is asked for: what whoever asks to prune or to clean up has made counts as left behind, and one whose
    /// event says so has ended.
    pub fn new(sfn: &'a Client, request: &'a Request) -> Self {
        let mut gone = HashMap::new();
        let ended = match request {
            Request::Sweep { ended } => ended.as_ref(),
            Request::Prune { execution, .. } | Request::CleanUp { execution, .. } => {
                gone.insert(execution.clone(), Ok(true));
                None
            }
        };
        Self { sfn, ended, gone }
    }

    /// Tells if an execution is gone; the error tells why that cannot be told.
    pub async fn is_gone(&mut self, execution: &str) -> Result<bool, String> {
        if let Some(known) = self.gone.get(execution) {
            return known.clone();
        }
        let is_gone = self.ask(execution).await;
        self.gone.insert(execution.to_owned(), is_gone.clone());
        is_gone
    }

    /// Tells if the execution that made something is gone, by its tag; the error tells why that cannot be told.
    pub async fn is_maker_gone(&mut self, execution: Option<&str>) -> Result<bool, String> {
        match execution {
            Some(execution) => self.is_gone(execution).await,
            None => Err(format!("it has no tag {EXECUTION_TAG}: delete it, or put the tag back")),
        }
    }

    async fn ask(&self, execution: &str) -> Result<bool, String> {
        match self.sfn.describe_execution().execution_arn(execution).send().await {
            Ok(answer) if answer.execution_arn == execution => {
                let ended = self.ended.filter(|ended| ended.execution == execution);
                let is_over = is_over(&answer.status, answer.redrive_count, ended);
                is_over.ok_or_else(|| untold(execution))
            }
            Ok(_) => Err(untold(execution)),
            // It ended 90 days ago, or the state machine was deleted with it.
            Err(SdkError::ServiceError(refused)) if refused.err().is_execution_does_not_exist() => Ok(true),
            Err(error) => Err(format!(
                "the execution {execution} could not be described: {}",
                error_text(&error)
            )),
        }
    }
}

fn untold(execution: &str) -> String {
    format!("Step Functions does not say whether the execution {execution} is over")
}

/// Returns true where an execution of this status is over, or was when its event said so and was not redriven since; none
/// where that is not told.
fn is_over(status: &ExecutionStatus, redrives: Option<i32>, ended: Option<&Ended>) -> Option<bool> {
    use ExecutionStatus::{Aborted, Failed, PendingRedrive, Running, Succeeded, TimedOut};
    match (status, ended) {
        (Aborted | Failed | PendingRedrive | Succeeded | TimedOut, _) => Some(true),
        (Running, None) => Some(false),
        (Running, Some(ended)) => Some(redrives? <= ended.redrives),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_is_over_unless_it_runs_or_runs_again() {
        use ExecutionStatus::{Aborted, Failed, PendingRedrive, Running, Succeeded, TimedOut};
        for status in [Aborted, Failed, PendingRedrive, Succeeded, TimedOut] {
            assert_eq!(is_over(&status, None, None), Some(true), "{status}");
        }
        assert_eq!(is_over(&Running, Some(0), None), Some(false));
        let ended = Ended {
            execution: String::new(),
            redrives: 1,
        };
        assert_eq!(is_over(&Running, Some(1), Some(&ended)), Some(true), "it lags behind");
        assert_eq!(is_over(&Running, Some(2), Some(&ended)), Some(false), "it was redriven");
        assert_eq!(is_over(&Running, None, Some(&ended)), None);
        for ended in [None, Some(&ended)] {
            assert_eq!(is_over(&"no value was set".into(), Some(0), ended), None);
        }
    }
}

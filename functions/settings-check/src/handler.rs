//! From CloudFormation's request to its answer.

use lambda_runtime::Diagnostic;
use prefetch::{
    custom_resource::{AnswerError, Answers, Request, RequestType},
    error_text::error_text,
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tracing::{error, info, warn};

/// Holds what the function works with.
pub struct SettingsCheck {
    /// The client that answers CloudFormation.
    pub answers: Answers,
    /// The settings in words, or what is wrong with them.
    pub checked: Result<String, String>,
}

/// The answer: what `sam local invoke` shows.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub enum Decision {
    /// The deployment, or the deletion, goes on.
    Accepted {
        /// The settings in words.
        message: String,
    },
    /// The deployment fails, and what was before stays.
    Refused {
        /// The faults of the settings.
        message: String,
    },
}

/// Tells why CloudFormation was not answered: it waits until the resource's time is over, and fails the deployment then.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The event is none of CloudFormation's.
    #[error("the event is no request of CloudFormation's to a custom resource")]
    NoRequest(#[source] serde_json::Error),
    /// The answer was not taken.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl From<CheckError> for Diagnostic {
    fn from(error: CheckError) -> Self {
        Self {
            error_type: "CheckError".to_owned(),
            error_message: error_text(&error),
        }
    }
}

impl SettingsCheck {
    /// Answers CloudFormation that the settings can be used, or why not.
    ///
    /// # Errors
    /// [`CheckError`] where nobody can be answered.
    pub async fn handle(&self, payload: Value) -> Result<Decision, CheckError> {
        let answered = self.answer(payload).await;
        answered.inspect_err(|error| error!("{}", error_text(error)))
    }

    async fn answer(&self, payload: Value) -> Result<Decision, CheckError> {
        let request: Request = serde_json::from_value(payload).map_err(CheckError::NoRequest)?;
        let decision = self.decide(request.request_type);
        let outcome = match &decision {
            Decision::Accepted { message } => {
                info!("accepted: {message}");
                Ok(None)
            }
            Decision::Refused { message } => {
                warn!("refused: {message}");
                Err(message.as_str())
            }
        };
        self.answers.send(&request, outcome).await?;
        Ok(decision)
    }

    fn decide(&self, request: RequestType) -> Decision {
        let accepted = |message: &str| Decision::Accepted {
            message: message.to_owned(),
        };
        match (request, &self.checked) {
            // Nothing holds a deletion up.
            (RequestType::Delete, _) => accepted("a deletion needs no settings"),
            (RequestType::Create | RequestType::Update, Ok(words)) => accepted(words),
            (RequestType::Create | RequestType::Update, Err(refused)) => Decision::Refused {
                message: refused.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CREATE: &str = include_str!("../../../events/settings-check.create.json");
    const UPDATE: &str = include_str!("../../../events/settings-check.update.json");
    const DELETE: &str = include_str!("../../../events/settings-check.delete.json");

    #[test]
    fn a_deployment_goes_on_where_the_settings_can_be_used_and_a_deletion_always() {
        let words = || "rule gpu: …".to_owned();
        let reason = || "RULES cannot be used".to_owned();
        for event in [CREATE, UPDATE] {
            assert_eq!(decided(event, Ok(words())), Decision::Accepted { message: words() });
            assert_eq!(decided(event, Err(reason())), Decision::Refused { message: reason() });
        }
        for checked in [Ok(words()), Err(reason())] {
            assert!(matches!(decided(DELETE, checked), Decision::Accepted { .. }));
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_an_error() {
        for event in [
            json!(null),
            json!({}),
            json!({"RequestType": "Create"}),
            json!([CREATE]),
        ] {
            let error = check(Ok(String::new())).handle(event).await.unwrap_err();
            assert!(error.to_string().contains("no request of CloudFormation's"), "{error}");
        }
    }

    fn decided(event: &str, checked: Result<String, String>) -> Decision {
        let request: Request = serde_json::from_str(event).unwrap();
        check(checked).decide(request.request_type)
    }

    fn check(checked: Result<String, String>) -> SettingsCheck {
        SettingsCheck {
            answers: Answers::default(),
            checked,
        }
    }
}

//! From CloudFormation's request to its answer.

use std::time::Duration;

use lambda_runtime::Diagnostic;
use prefetch::{
    aws,
    custom_resource::{AnswerError, Answers, Request, RequestType},
    error_text::error_text,
    settings::SettingsError,
};
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{error, info, warn};

use crate::{artifact::Artifact, programs::Processor, repository::Repository, settings::Settings};

/// Keeps so much of an invocation for its answer, which is sent three times if need be ([`Answers::send`]).
const TO_ANSWER: Duration = Duration::from_secs(16);
/// Stands for the digest of a program that was not built; an output of a stack is never empty.
const NONE: &str = "none";

/// Holds what the function works with.
#[derive(Debug)]
pub struct NodeProgram {
    /// The client that answers CloudFormation.
    pub answers: Answers,
    /// The artifact that is published.
    pub artifact: Artifact,
    /// ECR's client.
    pub ecr: aws_sdk_ecr::Client,
    /// A look-up from variable name to value; what cannot be used is answered too.
    pub variable: fn(&str) -> Option<String>,
}

/// The answer: what `sam local invoke` shows.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub enum Decision {
    /// The programs are in the repository, and the document gets these attributes.
    Published {
        /// The repository and the digests.
        attributes: Value,
    },
    /// The deployment fails, and the document stays with the programs that it names.
    Refused {
        /// The cause for which nothing could be published.
        message: String,
    },
    /// A deletion goes on; the repository goes with all that is in it.
    Left,
}

/// Tells why CloudFormation was not answered: it waits until the resource's time is over, and fails the deployment then.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The event is none of CloudFormation's.
    #[error("the event is no request of CloudFormation's to a custom resource")]
    NoRequest(#[source] serde_json::Error),
    /// The answer was not taken.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl From<PublishError> for Diagnostic {
    fn from(error: PublishError) -> Self {
        Self {
            error_type: "PublishError".to_owned(),
            error_message: error_text(&error),
        }
    }
}

impl NodeProgram {
    /// Publishes the programs and answers CloudFormation by which digests, or why not.
    ///
    /// # Errors
    /// [`PublishError`] where nobody can be answered.
    pub async fn handle(&self, payload: Value) -> Result<Decision, PublishError> {
        let answered = self.answer(payload).await;
        answered.inspect_err(|error| error!("{}", error_text(error)))
    }

    async fn answer(&self, payload: Value) -> Result<Decision, PublishError> {
        let request: Request = serde_json::from_value(payload).map_err(PublishError::NoRequest)?;
        let decision = aws::sparing(TO_ANSWER, self.decide(&request)).await;
        let outcome = match &decision {
            Decision::Published { attributes } => {
                info!("published: {attributes}");
                Ok(Some(attributes))
            }
            Decision::Refused { message } => {
                warn!("refused: {message}");
                Err(message.as_str())
            }
            Decision::Left => Ok(None),
        };
        self.answers.send(&request, outcome).await?;
        Ok(decision)
    }

    async fn decide(&self, request: &Request) -> Decision {
        match request.request_type {
            // What is in the repository is another document's too, until the stack is gone.
            RequestType::Delete => Decision::Left,
            RequestType::Create | RequestType::Update => self.publish(request).await,
        }
    }

    async fn publish(&self, request: &Request) -> Decision {
        match self.attributes(request).await {
            Ok(attributes) => Decision::Published { attributes },
            Err(message) => Decision::Refused { message },
        }
    }

    /// Pushes the programs and returns what the document gets.
    ///
    /// The request's id makes each document another one: SSM refuses one that it has had, and CloudFormation takes that for
    /// no change, so that the newest would stay in force where an older one is gone back to (UpdateDocument,
    /// DuplicateDocumentContent; aws-cloudformation-resource-providers-ssm, UpdateHandler).
    async fn attributes(&self, request: &Request) -> Result<Value, String> {
        let digest = |processor| self.artifact.program_digest(processor).unwrap_or(NONE);
        if self.artifact.is_empty() {
            return Err("no program was built into this function: sam build does".to_owned());
        }
        let repository = self.repository(&request.resource_properties);
        let repository = repository.map_err(|error| error_text(&error))?;
        if let Err(error) = repository.push(&self.artifact).await {
            // What failed a deployment must not fail its rollback too: nobody gets a stack out of that without AWS.
            if !self.is_taken_back(request) {
                return Err(error_text(&error));
            }
            warn!(
                "published by an earlier deployment, which is gone back to: {}",
                error_text(&error)
            );
        }
        Ok(json!({
            "Deployment": request.id,
            "Repository": format!("{}/{}", repository.registry, repository.name),
            "Tag": self.artifact.tag,
            Processor::X86_64.attribute(): digest(Processor::X86_64),
            Processor::Arm64.attribute(): digest(Processor::Arm64),
        }))
    }

    /// Returns true where an update goes back to this version of the function, which has published its programs then.
    fn is_taken_back(&self, request: &Request) -> bool {
        let own = (self.variable)("AWS_LAMBDA_FUNCTION_VERSION").and_then(|version| version.parse().ok());
        let (before, now) = (
            version(&request.old_resource_properties),
            version(&request.resource_properties),
        );
        request.request_type == RequestType::Update && now.is_some() && now == own && before > now
    }

    /// Returns where programs are published.
    ///
    /// The endpoint is the property's: the environment of a function's version stays as it was when that was published.
    fn repository(&self, properties: &Value) -> Result<Repository, SettingsError> {
        let settings = Settings::read(|name| match (name, properties["RegistryEndpoint"].as_str()) {
            ("REGISTRY_ENDPOINT", Some(endpoint)) => Some(endpoint.to_owned()),
            _ => (self.variable)(name),
        })?;
        Ok(Repository {
            ecr: self.ecr.clone(),
            registry: settings.registry,
            name: settings.repository,
        })
    }
}

/// Returns which version of the function a resource's properties name.
fn version(properties: &Value) -> Option<u64> {
    let (_, version) = properties["Version"].as_str()?.rsplit_once(':')?;
    version.parse().ok()
}

#[cfg(test)]
mod tests;

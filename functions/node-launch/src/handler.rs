//! From launched instances, and nodes that lack images still, to commands.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::Diagnostic;
use prefetch::{
    aws,
    error_text::error_text,
    instance::{InstancesError, instances},
    ssm::SsmError,
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tracing::error;

use crate::{
    claims::{claim, settle},
    decision::{Decision, log, log_unusable},
    message::{Call, Look, Message, Request, call},
    node_launch::NodeLaunch,
    requests::{Decisions, nodes, of_nodes, of_online_nodes},
};

/// Bounds the part of an invocation that is left to remember what was sent: two attempts of DynamoDB, which answers in
/// milliseconds.
const SETTLING: Duration = Duration::from_secs(3);

/// Answers whoever called the function.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To SQS: the messages that are handed back, and nothing else, for SQS reads no more.
    Batch(SqsBatchResponse),
    /// To whoever sent an event as it is: what was decided, and why.
    Event {
        /// The instance's id, where the event names one.
        #[serde(skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// The decision.
        #[serde(flatten)]
        decision: Decision,
    },
}

/// Nothing could be told of any instance: worth a retry of the whole call.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// EC2 did not describe the instances.
    #[error(transparent)]
    Instances(#[from] InstancesError),
    /// SSM did not say which nodes are online.
    #[error("the nodes could not be looked up")]
    Nodes(#[source] SsmError),
}

impl From<LaunchError> for Diagnostic {
    fn from(error: LaunchError) -> Self {
        Self {
            error_type: "LaunchError".to_owned(),
            error_message: error_text(&error),
        }
    }
}

impl NodeLaunch {
    /// Sends launched nodes the images of their rules, others the images they lack still, and hands back those that cannot
    /// be reached yet.
    ///
    /// A batch costs one DescribeInstances, one DescribeInstanceInformation, two TransactWriteItems (more where launches come
    /// back) and one SendCommand per rule, and one for what only neighbours run (for a retry, which is no launch and writes no
    /// row: per job and images), 50 nodes and as many images as fit; this process asks ECR at most once per repository in 30
    /// seconds, and the table once per rule for what its nodes run.
    ///
    /// # Errors
    /// [`LaunchError`] where EC2 or SSM cannot be asked at all: every message goes back to the queue.
    pub async fn handle(&self, payload: Value) -> Result<Answer, LaunchError> {
        self.handle_at(payload, SystemTime::now())
            .await
            .inspect_err(|error| error!("{}", error_text(error)))
    }

    async fn handle_at(&self, payload: Value, now: SystemTime) -> Result<Answer, LaunchError> {
        match call(payload, self.max_receives) {
            Call::Event(event, Err(why)) => {
                log_unusable("event", &event, &why);
                let decision = Decision::Dropped(why);
                Ok(Answer::Event {
                    instance: None,
                    decision,
                })
            }
            Call::Event(_, Ok(request)) => {
                let requests = [(request.clone(), Look::Early)].into();
                let mut decisions = self.decide(&requests, now).await?;
                let decision = decisions.remove(&request).expect("each request is decided of");
                Ok(Answer::Event {
                    instance: Some(request.node().to_owned()),
                    decision,
                })
            }
            Call::Batch(messages) => self.handle_batch(messages, now).await.map(Answer::Batch),
        }
    }

    async fn handle_batch(&self, messages: Vec<Message>, now: SystemTime) -> Result<SqsBatchResponse, LaunchError> {
        let mut messages_of: BTreeMap<Request, Vec<(String, Look)>> = BTreeMap::new();
        for message in messages {
            match message.request {
                Ok(request) => {
                    let messages = messages_of.entry(request).or_default();
                    messages.push((message.id, message.look));
                }
                Err(why) => log_unusable("message", &message.id, &why),
            }
        }
        // What several messages ask for is looked at again as long as one of them comes again.
        let requests: BTreeMap<Request, Look> = messages_of
            .iter()
            .filter_map(|(request, messages)| Some((request.clone(), messages.iter().map(|(_, look)| *look).min()?)))
            .collect();
        let mut response = SqsBatchResponse::default();
        for (request, decision) in self.decide(&requests, now).await? {
            if let Decision::HandedBack(_) = decision {
                // One that does not come again is no dead letter as long as another asks for the same.
                messages_of
                    .remove(&request)
                    .into_iter()
                    .flatten()
                    .filter(|(_, look)| *look < Look::Last || requests[&request] == Look::Last)
                    .for_each(|(message, _)| response.add_failure(message));
            }
        }
        Ok(response)
    }

    /// Decides of each of these requests, which have with them how late it is, and sends what is to be sent.
    async fn decide(&self, requests: &BTreeMap<Request, Look>, now: SystemTime) -> Result<Decisions, LaunchError> {
        let mut decisions = Decisions::new();
        let instances = instances(&self.ec2, &nodes(requests.keys())).await?;
        let looks = requests;
        let requests = of_nodes(&self.settings, looks, &instances, &mut decisions);
        let requests = of_online_nodes(&self.ssm, requests, &mut decisions)
            .await
            .map_err(LaunchError::Nodes)?;
        let mut claimed = claim(&self.launches, &requests, looks, &instances, now, &mut decisions).await;
        let requests = requests
            .into_iter()
            .filter(|(request, _)| !decisions.contains_key(request));
        let sending = self.send_images(requests.collect(), now, &mut claimed, &mut decisions);
        aws::sparing(SETTLING, sending).await;
        settle(&self.launches, claimed, &decisions, now).await;
        for (request, decision) in &decisions {
            log(request.node(), decision);
        }
        Ok(decisions)
    }
}

#[cfg(test)]
mod tests;

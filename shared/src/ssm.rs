//! The calls to SSM.

use std::collections::HashMap;

use aws_sdk_ssm::{
    Client,
    error::{BuildError, SdkError},
    operation::{
        describe_instance_information::DescribeInstanceInformationError,
        send_command::{SendCommandError, builders::SendCommandInputBuilder},
    },
    types::{InstanceInformation, InstanceInformationStringFilter, PingStatus},
};
use thiserror::Error;

/// How many values one filter of DescribeInstanceInformation takes (SSM service model).
const MAX_FILTER_VALUES: usize = 100;
/// How many rows one page of DescribeInstanceInformation has at most (SSM service model).
const PAGE_SIZE: i32 = 50;

/// Why SSM could not be asked.
#[derive(Debug, Error)]
pub enum SsmError {
    /// One of the instances is not registered, not running or not permitted: SSM rejects the whole call and names none.
    #[error("SSM refuses an instance of the command")]
    InvalidInstance(#[source] SendCommandError),
    /// The command could not be sent.
    #[error("the command could not be sent")]
    Send(#[source] Box<SdkError<SendCommandError>>),
    /// SSM accepted the command and named no id for it.
    #[error("SSM answered without a command id")]
    NoCommandId,
    /// SSM could not be asked which nodes are online.
    #[error("SSM could not be asked which nodes are online")]
    Online(#[source] Box<SdkError<DescribeInstanceInformationError>>),
    /// The request could not be built.
    #[error("the request to SSM could not be built")]
    Request(#[from] BuildError),
}

/// Sends one command and gives its id; throttling and server errors are tried again by the SDK.
///
/// # Errors
/// [`SsmError::InvalidInstance`] where an instance id is refused, [`SsmError::Send`] for everything else.
pub async fn send(client: &Client, input: SendCommandInputBuilder) -> Result<String, SsmError> {
    let output = input.send_with(client).await.map_err(|error| match error {
        SdkError::ServiceError(refused) if refused.err().is_invalid_instance_id() => {
            SsmError::InvalidInstance(refused.into_err())
        }
        error => SsmError::Send(Box::new(error)),
    })?;
    output
        .command
        .and_then(|command| command.command_id)
        .ok_or(SsmError::NoCommandId)
}

/// Tells what SSM knows of each of these instances, by instance id; one that never registered has no entry.
///
/// Asks once per 100 ids, and once more for each further page of 50.
///
/// # Errors
/// [`SsmError::Online`] where SSM cannot be asked.
pub async fn managed_nodes(client: &Client, ids: &[String]) -> Result<HashMap<String, InstanceInformation>, SsmError> {
    let mut nodes = HashMap::new();
    for ids in ids.chunks(MAX_FILTER_VALUES) {
        let filter = InstanceInformationStringFilter::builder()
            .key("InstanceIds")
            .set_values(Some(ids.to_vec()))
            .build()?;
        let mut pages = client
            .describe_instance_information()
            .filters(filter)
            .max_results(PAGE_SIZE)
            .into_paginator()
            .items()
            .send();
        while let Some(node) = pages.next().await {
            let node = node.map_err(|error| SsmError::Online(Box::new(error)))?;
            if let Some(id) = &node.instance_id {
                nodes.insert(id.clone(), node);
            }
        }
    }
    Ok(nodes)
}

/// Whether SSM can reach the node now.
#[must_use]
pub fn is_online(node: &InstanceInformation) -> bool {
    node.ping_status == Some(PingStatus::Online)
}

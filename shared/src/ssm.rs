//! The calls to SSM, but for the one that sends (see [`crate::sender`]).

use std::collections::HashMap;

use aws_sdk_ssm::{
    Client,
    error::{BuildError, SdkError},
    operation::{
        cancel_command::CancelCommandError,
        describe_instance_information::DescribeInstanceInformationError,
        get_command_invocation::{GetCommandInvocationError, GetCommandInvocationOutput},
        list_command_invocations::{ListCommandInvocationsError, ListCommandInvocationsOutput},
        list_commands::{ListCommandsError, ListCommandsOutput},
    },
    types::{
        Command, CommandFilter, CommandFilterKey, CommandStatus, InstanceInformation, InstanceInformationStringFilter,
        PingStatus,
    },
};
use thiserror::Error;

/// Limits how many values one filter of DescribeInstanceInformation takes (SSM service model).
const MAX_FILTER_VALUES: usize = 100;
/// Limits how many rows one page of DescribeInstanceInformation, ListCommands or ListCommandInvocations has at most (SSM
/// service model).
const PAGE_SIZE: i32 = 50;

/// Tells why SSM could not be asked.
#[derive(Debug, Error)]
pub enum SsmError {
    /// SSM could not be asked which nodes are online.
    #[error("SSM could not be asked which nodes are online")]
    Online(#[source] Box<SdkError<DescribeInstanceInformationError>>),
    /// SSM knows of no such command on the node: it ran long ago, or started a moment ago (boto3#2701).
    #[error("SSM knows no such command on the node")]
    NoInvocation(#[source] GetCommandInvocationError),
    /// SSM could not be asked how the command went on the node.
    #[error("SSM could not be asked how the command went on the node")]
    Invocation(#[source] Box<SdkError<GetCommandInvocationError>>),
    /// SSM could not be asked for commands.
    #[error("SSM could not be asked for commands")]
    Commands(#[source] Box<SdkError<ListCommandsError>>),
    /// SSM knows no such command.
    #[error("SSM knows no such command")]
    NoCommand,
    /// A token is not one by which SSM goes on listing commands, or no longer.
    #[error("SSM does not know the token")]
    InvalidToken(#[source] ListCommandsError),
    /// A command could not be cancelled.
    #[error("a command could not be cancelled")]
    Cancel(#[source] Box<SdkError<CancelCommandError>>),
    /// SSM could not be asked for the nodes of a command.
    #[error("SSM could not be asked for the nodes of a command")]
    Invocations(#[source] Box<SdkError<ListCommandInvocationsError>>),
    /// The request could not be built.
    #[error("the request to SSM could not be built")]
    Request(#[from] BuildError),
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

/// Returns true where SSM can reach the node now.
#[must_use]
pub fn is_online(node: &InstanceInformation) -> bool {
    node.ping_status == Some(PingStatus::Online)
}

/// Tells how a command went on a node, with the first 24,000 characters of the node's report.
///
/// # Errors
/// [`SsmError::NoInvocation`] where SSM knows of none, [`SsmError::Invocation`] for everything else.
pub async fn invocation(client: &Client, command: &str, node: &str) -> Result<GetCommandInvocationOutput, SsmError> {
    let request = client.get_command_invocation().command_id(command).instance_id(node);
    request.send().await.map_err(|error| match error {
        SdkError::ServiceError(refused) if refused.err().is_invocation_does_not_exist() => {
            SsmError::NoInvocation(refused.into_err())
        }
        error => SsmError::Invocation(Box::new(error)),
    })
}

/// Tells what SSM knows of a command.
///
/// # Errors
/// [`SsmError::NoCommand`] where there is none, [`SsmError::Commands`] where SSM cannot be asked.
pub async fn command(client: &Client, id: &str) -> Result<Command, SsmError> {
    let answer = client.list_commands().command_id(id).send().await;
    let answer = answer.map_err(|error| match error {
        SdkError::ServiceError(refused) if refused.err().is_invalid_command_id() => SsmError::NoCommand,
        error => SsmError::Commands(Box::new(error)),
    })?;
    let command = answer.commands.and_then(|commands| commands.into_iter().next());
    command.ok_or(SsmError::NoCommand)
}

/// Returns true where a command has a status that no other follows.
#[must_use]
pub fn has_ended(command: &Command) -> bool {
    use CommandStatus::{Cancelled, Failed, Success, TimedOut};
    matches!(command.status(), Some(Success | Cancelled | Failed | TimedOut))
}

/// Tells SSM to stop a command: nodes that have not begun do not begin.
///
/// # Errors
/// [`SsmError::NoCommand`] where there is none, [`SsmError::Cancel`] for everything else.
pub async fn cancel(client: &Client, id: &str) -> Result<(), SsmError> {
    let answer = client.cancel_command().command_id(id).send().await;
    answer.map(drop).map_err(|error| match error {
        SdkError::ServiceError(refused) if refused.err().is_invalid_command_id() => SsmError::NoCommand,
        error => SsmError::Cancel(Box::new(error)),
    })
}

/// Lists a page of commands of a document, the latest first; a token asks for the page that follows the one it came with.
///
/// # Errors
/// [`SsmError::InvalidToken`] where the token is none, [`SsmError::Commands`] for everything else.
pub async fn latest_commands(
    client: &Client,
    document: &str,
    limit: i32,
    page: Option<String>,
) -> Result<ListCommandsOutput, SsmError> {
    let of_document = CommandFilter::builder()
        .key(CommandFilterKey::DocumentName)
        .value(document);
    let request = client
        .list_commands()
        .filters(of_document.build()?)
        .max_results(limit.min(PAGE_SIZE))
        .set_next_token(page);
    request.send().await.map_err(|error| match error {
        SdkError::ServiceError(refused) if refused.err().is_invalid_next_token() => {
            SsmError::InvalidToken(refused.into_err())
        }
        error => SsmError::Commands(Box::new(error)),
    })
}

/// Lists a page of at most 50 commands of a document that were sent after a moment (RFC 3339), the latest first; a token
/// asks for the page that follows the one it came with.
///
/// # Errors
/// [`SsmError::Commands`] where SSM cannot be asked.
pub async fn commands(
    client: &Client,
    document: &str,
    after: &str,
    page: Option<String>,
) -> Result<ListCommandsOutput, SsmError> {
    let filter = |key, value| CommandFilter::builder().key(key).value(value).build();
    let request = client
        .list_commands()
        .filters(filter(CommandFilterKey::DocumentName, document)?)
        .filters(filter(CommandFilterKey::InvokedAfter, after)?)
        .max_results(PAGE_SIZE)
        .set_next_token(page);
    request
        .send()
        .await
        .map_err(|error| SsmError::Commands(Box::new(error)))
}

/// Lists a page of at most 50 nodes of a command; a token asks for the page that follows the one it came with.
///
/// # Errors
/// [`SsmError::Invocations`] where SSM cannot be asked.
pub async fn invocations(
    client: &Client,
    command: &str,
    page: Option<String>,
) -> Result<ListCommandInvocationsOutput, SsmError> {
    let request = client
        .list_command_invocations()
        .command_id(command)
        .max_results(PAGE_SIZE)
        .set_next_token(page);
    request
        .send()
        .await
        .map_err(|error| SsmError::Invocations(Box::new(error)))
}

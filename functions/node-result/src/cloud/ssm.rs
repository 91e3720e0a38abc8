//! SSM, which knows commands and how they went on their nodes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_ssm::{
    Client,
    config::retry::RetryConfig,
    operation::{
        get_command_invocation::{GetCommandInvocationError, GetCommandInvocationOutput},
        list_command_invocations::{ListCommandInvocationsError, ListCommandInvocationsOutput},
        list_commands::{ListCommandsError, ListCommandsInput, ListCommandsOutput},
    },
    types::{CommandInvocation, CommandInvocationStatus, error::InvocationDoesNotExist},
};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::fault;

use super::{DOCUMENT, State, requested_at};

/// Is a command as SSM knows it.
#[derive(Clone, Debug)]
pub struct Command {
    pub comment: String,
    pub images: Vec<String>,
    pub requested_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub targets: i32,
    pub invocations: BTreeMap<String, Invocation>,
}

/// Is a command on a node as SSM knows it.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub status: CommandInvocationStatus,
    pub details: String,
    pub exit_code: i32,
    pub stdout: String,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Invocation {
    /// Makes one that ended ten seconds after its request with this report, as the document ends.
    pub fn reporting(stdout: impl Into<String>) -> Self {
        let stdout = stdout.into();
        let failed = stdout.contains(r#""status":"failed""#);
        let status = if failed { "Failed" } else { "Success" };
        Self {
            exit_code: failed.into(),
            stdout,
            ended_at: Some(requested_at() + TimeDelta::seconds(10)),
            ..Self::without_report(status, status)
        }
    }

    /// Makes one that ended, or did not, without a word of the node.
    pub fn without_report(status: &str, details: &str) -> Self {
        Self {
            status: status.into(),
            details: details.to_owned(),
            exit_code: -1,
            stdout: String::new(),
            ended_at: None,
        }
    }
}

pub fn client(state: &Arc<Mutex<State>>) -> Client {
    let rules = [
        get_command_invocation(state),
        list_commands(state),
        list_command_invocations(state),
    ];
    mock_client!(aws_sdk_ssm, RuleMode::MatchAny, &rules, |config| {
        config.retry_config(RetryConfig::disabled())
    })
}

fn get_command_invocation(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(Client::get_command_invocation).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("GetCommandInvocation") {
            return fault!(aws_sdk_ssm, GetCommandInvocationError, code);
        }
        let command = state.commands.get(input.command_id().unwrap());
        let invocation = command.and_then(|command| Some((command, command.invocations.get(input.instance_id()?)?)));
        let Some((command, invocation)) = invocation else {
            let unknown = InvocationDoesNotExist::builder().build();
            return MockResponse::Error(GetCommandInvocationError::InvocationDoesNotExist(unknown));
        };
        MockResponse::Output(
            GetCommandInvocationOutput::builder()
                .comment(&command.comment)
                .status(invocation.status.clone())
                .status_details(&invocation.details)
                .response_code(invocation.exit_code)
                .standard_output_content(&invocation.stdout)
                .execution_end_date_time(invocation.ended_at.map(|at| at.to_rfc3339()).unwrap_or_default())
                .build(),
        )
    })
}

fn list_commands(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(Client::list_commands).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("ListCommands") {
            return fault!(aws_sdk_ssm, ListCommandsError, code);
        }
        let all: Vec<_> = state
            .commands
            .iter()
            .filter(|(id, _)| is_asked_for(input, id))
            .map(listed)
            .collect();
        let (commands, token) = state.page(&all, input.next_token());
        let output = ListCommandsOutput::builder()
            .set_commands(Some(commands))
            .next_token(token);
        MockResponse::Output(output.build())
    })
}

fn list_command_invocations(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(Client::list_command_invocations).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("ListCommandInvocations") {
            return fault!(aws_sdk_ssm, ListCommandInvocationsError, code);
        }
        let nodes = state.commands[input.command_id().unwrap()].invocations.keys();
        let all: Vec<_> = nodes
            .map(|node| CommandInvocation::builder().instance_id(node).build())
            .collect();
        let (nodes, token) = state.page(&all, input.next_token());
        let output = ListCommandInvocationsOutput::builder();
        MockResponse::Output(output.set_command_invocations(Some(nodes)).next_token(token).build())
    })
}

fn is_asked_for(input: &ListCommandsInput, id: &str) -> bool {
    if let Some(asked) = input.command_id() {
        return asked == id;
    }
    let filters: Vec<(&str, &str)> = input.filters().iter().map(|f| (f.key().as_str(), f.value())).collect();
    assert_eq!(filters[0], ("DocumentName", DOCUMENT));
    assert_eq!(filters[1].0, "InvokedAfter");
    true
}

fn listed((id, command): (&String, &Command)) -> aws_sdk_ssm::types::Command {
    let moment = |at: DateTime<Utc>| aws_sdk_ssm::primitives::DateTime::from_millis(at.timestamp_millis());
    aws_sdk_ssm::types::Command::builder()
        .command_id(id)
        .comment(&command.comment)
        .parameters("images", vec![command.images.join(" ")])
        .requested_date_time(moment(command.requested_at))
        .expires_after(moment(command.expires_at))
        .target_count(command.targets)
        .build()
}

//! SSM, which knows commands and how they went on their nodes.

use std::sync::{Arc, Mutex};

use aws_sdk_ssm::{
    Client,
    config::retry::RetryConfig,
    operation::{
        get_command_invocation::{GetCommandInvocationError, GetCommandInvocationOutput},
        list_command_invocations::{ListCommandInvocationsError, ListCommandInvocationsOutput},
        list_commands::{ListCommandsError, ListCommandsInput, ListCommandsOutput},
    },
    types::{CommandInvocation, error::InvocationDoesNotExist},
};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use chrono::{DateTime, Utc};
use prefetch::fault;

use crate::cloud::state::{Command, DOCUMENT, State};

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
            .filter(|(id, _)| is_listed(input, id))
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

fn is_listed(input: &ListCommandsInput, id: &str) -> bool {
    if let Some(one) = input.command_id() {
        return one == id;
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

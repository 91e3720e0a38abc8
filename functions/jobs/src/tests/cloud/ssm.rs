//! SSM, as far as the function speaks to it.

use std::sync::{Arc, Mutex};

use aws_sdk_ssm::{
    Client,
    operation::{
        cancel_command::{CancelCommandError, CancelCommandOutput},
        describe_instance_information::{DescribeInstanceInformationError, DescribeInstanceInformationOutput},
        list_commands::{ListCommandsError, ListCommandsInput, ListCommandsOutput},
        send_command::{SendCommandError, SendCommandInput, SendCommandOutput},
    },
    types::{
        Command, CommandFilterKey, CommandStatus, PingStatus,
        error::{InvalidCommandId, InvalidInstanceId, InvalidNextToken},
    },
};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{
    command::MAX_IMAGES_BYTES,
    fault,
    mocks::{access_denied, parameters::parameters},
};

use crate::tests::cloud::{
    settings::DOCUMENT,
    state::{State, command_id, moment},
};

pub fn ssm(state: &Arc<Mutex<State>>) -> Client {
    let [get, by_path, put, delete] = parameters(state, |state| (&mut state.calls, &mut state.parameters));
    mock_client!(
        aws_sdk_ssm,
        RuleMode::MatchAny,
        [
            &send_command(state),
            &describe_instance_information(state),
            &list_commands(state),
            &cancel_command(state),
            &get,
            &by_path,
            &put,
            &delete
        ],
        |config| { config.retry_config(aws_sdk_ssm::config::retry::RetryConfig::disabled()) }
    )
}

fn send_command(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ssm::Client::send_command).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let fault = state.calls.note("SendCommand");
        if let Some(code) = fault.filter(|code| !["Lost", "LostThrice"].contains(code)) {
            return fault!(aws_sdk_ssm, SendCommandError, code);
        }
        for id in input.instance_ids() {
            if state.vanishing.remove(id) {
                state.instances.get_mut(id).unwrap().1 = None;
            }
        }
        if !input.instance_ids().iter().all(|id| is_sendable(&state, id)) {
            let refused = InvalidInstanceId::builder().build();
            return MockResponse::Error(SendCommandError::InvalidInstanceId(refused));
        }
        if let Some(id) = input.instance_ids().iter().find(|id| state.denied.contains(*id)) {
            return MockResponse::Error(access_denied(id));
        }
        let command = sent(&state, input);
        state.commands.push(command.clone());
        if fault == Some("LostThrice") {
            for _ in 0..2 {
                let again = sent(&state, input);
                state.commands.push(again);
            }
        }
        match fault {
            None => MockResponse::Output(SendCommandOutput::builder().command(command).build()),
            Some(_) => fault!(aws_sdk_ssm, SendCommandError, "InternalServerError"),
        }
    })
}

fn describe_instance_information(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ssm::Client::describe_instance_information).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("DescribeInstanceInformation") {
            return fault!(aws_sdk_ssm, DescribeInstanceInformationError, code);
        }
        let ids = input.filters()[0].values();
        assert!((1..=100).contains(&ids.len()));
        let known = ids.iter().filter_map(|id| state.instances.get(id)?.1.clone());
        let from = input.next_token().map_or(0, |token| token.parse().unwrap());
        let mut known = known.skip(from);
        let page = known.by_ref().take(50).collect();
        let output = DescribeInstanceInformationOutput::builder()
            .set_instance_information_list(Some(page))
            // An empty token ends a list as none does.
            .next_token(known.next().map_or(String::new(), |_| (from + 50).to_string()));
        MockResponse::Output(output.build())
    })
}

fn list_commands(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ssm::Client::list_commands).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("ListCommands") {
            return fault!(aws_sdk_ssm, ListCommandsError, code);
        }
        // How many are left: what is sent meanwhile moves no page but the first.
        let Ok(left) = input.next_token().map(str::parse::<usize>).transpose() else {
            let refused = InvalidNextToken::builder().build();
            return MockResponse::Error(ListCommandsError::InvalidNextToken(refused));
        };
        let found = state.commands.iter().rev().filter(|command| is_listed(input, command));
        let found: Vec<Command> = found.cloned().collect();
        let from = left.map_or(0, |left| found.len() - left);
        let left = found.len() - from;
        let mut found = found.into_iter().skip(from);
        let limit = input.max_results().map_or(50, |limit| usize::try_from(limit).unwrap());
        let limit = state.page.unwrap_or(limit).min(limit);
        let page: Vec<Command> = found.by_ref().take(limit).collect();
        let token = found.next().map_or(String::new(), |_| (left - limit).to_string());
        let output = ListCommandsOutput::builder().set_commands(Some(page)).next_token(token);
        MockResponse::Output(output.build())
    })
}

fn cancel_command(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ssm::Client::cancel_command).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("CancelCommand") {
            return fault!(aws_sdk_ssm, CancelCommandError, code);
        }
        let id = input.command_id().unwrap().to_owned();
        if state.commands.iter().all(|command| command.command_id() != Some(&id)) {
            let refused = InvalidCommandId::builder().build();
            return MockResponse::Error(CancelCommandError::InvalidCommandId(refused));
        }
        state.cancelled.push(id);
        MockResponse::Output(CancelCommandOutput::builder().build())
    })
}

fn is_sendable(state: &State, id: &str) -> bool {
    let information = state
        .instances
        .get(id)
        .and_then(|(_, information)| information.as_ref());
    let is_online = information.is_some_and(|information| information.ping_status() == Some(&PingStatus::Online));
    is_online && !state.refused.contains(id)
}

fn sent(state: &State, input: &SendCommandInput) -> Command {
    assert!(input.instance_ids().len() <= 50 && input.targets().len() <= 5);
    let images = &input.parameters().unwrap()["images"][0];
    assert!(images.split(' ').count() <= 30 && images.len() <= MAX_IMAGES_BYTES);
    assert_eq!(input.document_name(), Some(DOCUMENT));
    Command::builder()
        .command_id(command_id(state.commands.len() + 1))
        .document_name(DOCUMENT)
        .comment(input.comment().unwrap())
        .set_parameters(input.parameters().cloned())
        .set_instance_ids(Some(input.instance_ids().to_vec()))
        .set_targets(Some(input.targets().to_vec()))
        .requested_date_time(moment(state.now))
        .expires_after(moment(state.now + TimeDelta::seconds(4200)))
        .status(CommandStatus::Pending)
        .build()
}

fn is_listed(input: &ListCommandsInput, command: &Command) -> bool {
    if let Some(id) = input.command_id() {
        return command.command_id() == Some(id);
    }
    assert!(!input.filters().is_empty());
    input.filters().iter().all(|filter| match filter.key() {
        CommandFilterKey::DocumentName => command.document_name() == Some(filter.value()),
        CommandFilterKey::InvokedAfter => {
            let after: DateTime<Utc> = filter.value().parse().unwrap();
            command.requested_date_time().unwrap().to_millis().unwrap() >= after.timestamp_millis()
        }
        other => panic!("{other}"),
    })
}

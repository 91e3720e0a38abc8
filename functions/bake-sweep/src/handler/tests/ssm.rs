//! SSM's parameters, faked.

use std::sync::{Arc, Mutex};

use aws_sdk_ssm::{
    operation::{
        delete_parameters::{DeleteParametersError, DeleteParametersOutput},
        get_parameters::{GetParametersError, GetParametersOutput},
    },
    types::Parameter,
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

use super::services::{Services, fault};

pub fn ssm(state: &Arc<Mutex<Services>>) -> aws_sdk_ssm::Client {
    let shared = Arc::clone(state);
    let get = mock!(aws_sdk_ssm::Client::get_parameters).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("GetParameters", "") {
            return fault!(aws_sdk_ssm, GetParametersError, code);
        }
        let names = input.names().iter();
        let (found, missing): (Vec<&String>, Vec<&String>) =
            names.partition(|name| state.parameters.contains_key(*name));
        let found = found
            .into_iter()
            .map(|name| Parameter::builder().name(name).value(&state.parameters[name]).build());
        if state.half == Some("GetParameters") {
            return MockResponse::Output(GetParametersOutput::builder().build());
        }
        let output = GetParametersOutput::builder().set_parameters(Some(found.collect()));
        let missing = missing.into_iter().cloned().collect();
        MockResponse::Output(output.set_invalid_parameters(Some(missing)).build())
    });
    let shared = Arc::clone(state);
    let delete = mock!(aws_sdk_ssm::Client::delete_parameters).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DeleteParameters", "") {
            return fault!(aws_sdk_ssm, DeleteParametersError, code);
        }
        assert!((1..=10).contains(&input.names().len()));
        if state.half == Some("DeleteParameters") {
            return MockResponse::Output(DeleteParametersOutput::builder().build());
        }
        state.deleted_parameters.extend(input.names().to_vec());
        // What there is not counts as invalid.
        let (deleted, missing) = input.names().split_at(1);
        let output = DeleteParametersOutput::builder().set_deleted_parameters(Some(deleted.to_vec()));
        MockResponse::Output(output.set_invalid_parameters(Some(missing.to_vec())).build())
    });
    mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&get, &delete], |config| {
        config.retry_config(aws_sdk_ssm::config::retry::RetryConfig::disabled())
    })
}

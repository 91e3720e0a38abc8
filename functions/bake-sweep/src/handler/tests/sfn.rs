//! Step Functions, faked.

use std::sync::{Arc, Mutex};

use aws_sdk_sfn::{
    operation::describe_execution::{DescribeExecutionError, DescribeExecutionOutput},
    types::error::ExecutionDoesNotExist,
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

use super::services::{Services, fault};

pub fn sfn(state: &Arc<Mutex<Services>>) -> aws_sdk_sfn::Client {
    let shared = Arc::clone(state);
    let describe = mock!(aws_sdk_sfn::Client::describe_execution).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let execution = input.execution_arn().unwrap();
        if let Some(code) = state.call("DescribeExecution", execution) {
            return fault!(aws_sdk_sfn, DescribeExecutionError, code);
        }
        let Some(status) = state.executions.get(execution) else {
            let missing = ExecutionDoesNotExist::builder().build();
            return MockResponse::Error(DescribeExecutionError::ExecutionDoesNotExist(missing));
        };
        let output = DescribeExecutionOutput::builder()
            .execution_arn(execution)
            .state_machine_arn("arn:aws:states:eu-central-1:123456789012:stateMachine:eks-image-prefetch-bake-snapshot")
            .start_date(aws_sdk_sfn::primitives::DateTime::from_secs(0))
            .redrive_count(state.redrives)
            .status(if state.half == Some("DescribeExecution") {
                "no value was set".into()
            } else {
                status.clone()
            });
        MockResponse::Output(output.build().unwrap())
    });
    mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&describe], |config| {
        config.retry_config(aws_sdk_sfn::config::retry::RetryConfig::disabled())
    })
}

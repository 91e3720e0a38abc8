//! Auto Scaling, whose group `nodes` has a launch hook.

use std::sync::{Arc, Mutex};

use aws_sdk_autoscaling::{
    Client,
    config::retry::RetryConfig,
    operation::{
        complete_lifecycle_action::{CompleteLifecycleActionError, CompleteLifecycleActionOutput},
        describe_auto_scaling_instances::{DescribeAutoScalingInstancesError, DescribeAutoScalingInstancesOutput},
    },
    types::AutoScalingInstanceDetails,
};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use prefetch::fault;

use crate::cloud::state::{HOOK, State};

pub fn client(state: &Arc<Mutex<State>>) -> Client {
    let rules = [describe_auto_scaling_instances(state), complete_lifecycle_action(state)];
    mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, &rules, |config| {
        config.retry_config(RetryConfig::disabled())
    })
}

fn describe_auto_scaling_instances(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(Client::describe_auto_scaling_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("DescribeAutoScalingInstances") {
            return fault!(aws_sdk_autoscaling, DescribeAutoScalingInstancesError, code);
        }
        assert!(
            (1..=50).contains(&input.instance_ids().len()),
            "none would be all of the account"
        );
        // One that is of no group is left out.
        let of_group = |id: &String| Some(instance_of_group(id, state.lifecycle.get(id)?));
        let instances = input.instance_ids().iter().filter_map(of_group).collect();
        let output = DescribeAutoScalingInstancesOutput::builder();
        MockResponse::Output(output.set_auto_scaling_instances(Some(instances)).build())
    })
}

fn complete_lifecycle_action(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(Client::complete_lifecycle_action).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("CompleteLifecycleAction") {
            return fault!(aws_sdk_autoscaling, CompleteLifecycleActionError, code);
        }
        assert_eq!(input.auto_scaling_group_name(), Some("nodes"));
        assert_eq!(input.lifecycle_hook_name(), Some(HOOK));
        assert_eq!(input.lifecycle_action_result(), Some("CONTINUE"));
        state
            .lifecycle
            .insert(input.instance_id().unwrap().to_owned(), "Warmed:Stopped");
        MockResponse::Output(CompleteLifecycleActionOutput::builder().build())
    })
}

fn instance_of_group(id: &str, state: &str) -> AutoScalingInstanceDetails {
    let instance = AutoScalingInstanceDetails::builder()
        .instance_id(id)
        .lifecycle_state(state);
    instance.auto_scaling_group_name("nodes").build()
}

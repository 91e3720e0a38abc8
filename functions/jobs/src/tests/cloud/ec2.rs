//! EC2, as far as the function speaks to it.

use std::sync::{Arc, Mutex};

use aws_sdk_ec2::{
    Client,
    operation::describe_instances::{DescribeInstancesError, DescribeInstancesInput, DescribeInstancesOutput},
    types::{Instance, Reservation},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use prefetch::{fault, instance::tags};

use crate::tests::cloud::state::State;

pub fn ec2(state: &Arc<Mutex<State>>) -> Client {
    let shared = Arc::clone(state);
    let describe = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("DescribeInstances") {
            return fault!(aws_sdk_ec2, DescribeInstancesError, code);
        }
        match input.filters()[0].name() {
            Some("instance-id") => {}
            Some("tag-key") => return of_any_cluster(&state, input),
            _ => return of_cluster(&state, input),
        }
        let ids = input.filters()[0].values();
        let known = ids
            .iter()
            .filter_map(|id| Some(state.instances.get(id)?.0.clone()))
            .collect();
        let reservation = Reservation::builder().set_instances(Some(known)).build();
        MockResponse::Output(DescribeInstancesOutput::builder().reservations(reservation).build())
    });
    mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&describe], |config| {
        config.retry_config(aws_sdk_ec2::config::retry::RetryConfig::disabled())
    })
}

/// Answers a page of the cluster's instances that run or are about to; each was launched with one other.
fn of_cluster(
    state: &State,
    input: &DescribeInstancesInput,
) -> MockResponse<DescribeInstancesOutput, DescribeInstancesError> {
    let filters = input
        .filters()
        .iter()
        .map(|filter| (filter.name().unwrap(), filter.values().join(" ")));
    let expected = [
        ("tag:aws:eks:cluster-name", "prod"),
        ("instance-state-name", "pending running"),
    ];
    assert!(filters.eq(expected.map(|(name, values)| (name, values.to_owned()))));
    let Ok(from) = input.next_token().map_or(Ok(0), str::parse::<usize>) else {
        return fault!(aws_sdk_ec2, DescribeInstancesError, "InvalidNextToken");
    };
    let limit = usize::try_from(input.max_results().unwrap()).unwrap();
    assert!((5..=1000).contains(&limit));
    let is_ours = |instance: &Instance| {
        tags(instance)
            .get("aws:eks:cluster-name")
            .is_some_and(|name| name == "prod")
    };
    let instances = state.instances.values().map(|(instance, _)| instance);
    let found: Vec<Instance> = instances.filter(|instance| is_ours(instance)).cloned().collect();
    let to = found.len().min(from + limit);
    let reservations = found[from..to].chunks(2);
    let reservations = reservations.map(|both| Reservation::builder().set_instances(Some(both.to_vec())).build());
    let output = DescribeInstancesOutput::builder()
        .set_reservations(Some(reservations.collect()))
        .set_next_token((to < found.len()).then(|| to.to_string()));
    MockResponse::Output(output.build())
}

/// Answers the instances that carry a tag by which clusters are named.
fn of_any_cluster(
    state: &State,
    input: &DescribeInstancesInput,
) -> MockResponse<DescribeInstancesOutput, DescribeInstancesError> {
    assert_eq!(input.filters()[1].values(), ["pending", "running"]);
    let keys = input.filters()[0].values();
    let takes = |key: &String| {
        let takes = |pattern: &String| {
            pattern
                .strip_suffix('*')
                .map_or(key == pattern, |start| key.starts_with(start))
        };
        keys.iter().any(takes)
    };
    let instances = state.instances.values().map(|(instance, _)| instance);
    let found = instances.filter(|instance| tags(instance).keys().any(takes)).cloned();
    let reservation = Reservation::builder().set_instances(Some(found.collect())).build();
    MockResponse::Output(DescribeInstancesOutput::builder().reservations(reservation).build())
}

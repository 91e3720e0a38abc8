//! EC2, faked, and what the services know.

use std::sync::{Arc, Mutex};

use aws_sdk_ec2::{
    operation::{
        describe_instances::{DescribeInstancesError, DescribeInstancesOutput},
        describe_subnets::{DescribeSubnetsError, DescribeSubnetsOutput},
    },
    types::{Instance, Reservation, Subnet},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use prefetch::{
    fault,
    mocks::{Calls, ecr::Registry},
};

/// Holds what the services know, and the calls to them.
#[derive(Default)]
pub struct Services {
    pub instances: Vec<Instance>,
    pub registry: Registry,
    /// The central registry of account 210987654321.
    pub central: Registry,
    pub calls: Calls,
}

pub fn ec2(state: &Arc<Mutex<Services>>) -> aws_sdk_ec2::Client {
    let shared = Arc::clone(state);
    let instances = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("DescribeInstances") {
            return fault!(aws_sdk_ec2, DescribeInstancesError, code);
        }
        let filters = input.filters().iter();
        let filters: Vec<String> = filters
            .map(|filter| format!("{}={}", filter.name().unwrap(), filter.values().join(",")))
            .collect();
        assert_eq!(
            filters,
            ["tag:aws:eks:cluster-name=prod", "instance-state-name=running"]
        );
        let from: usize = input.next_token().map_or(0, |token| token.parse().unwrap());
        let page = state.instances.iter().skip(from).take(2).cloned().collect();
        let reservation = Reservation::builder().set_instances(Some(page)).build();
        let output = DescribeInstancesOutput::builder()
            .reservations(reservation)
            .set_next_token((from + 2 < state.instances.len()).then(|| (from + 2).to_string()));
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let subnets = mock!(aws_sdk_ec2::Client::describe_subnets).then_compute_response(move |input| {
        if let Some(code) = shared.lock().unwrap().calls.note("DescribeSubnets") {
            return fault!(aws_sdk_ec2, DescribeSubnetsError, code);
        }
        assert_eq!(input.filters()[0].name(), Some("subnet-id"));
        let known = [(1, false), (2, true), (4, false), (5, true)];
        let known = known.map(|(k, public)| (format!("subnet-0abc000000000000{k}"), public));
        let named = known.iter().filter(|(id, _)| input.filters()[0].values().contains(id));
        let subnets = named.map(|(id, public)| {
            let subnet = Subnet::builder().subnet_id(id).map_public_ip_on_launch(*public);
            subnet.available_ip_address_count(250).build()
        });
        let output = DescribeSubnetsOutput::builder().set_subnets(Some(subnets.collect()));
        MockResponse::Output(output.build())
    });
    mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&instances, &subnets], |config| {
        config.retry_config(aws_sdk_ec2::config::retry::RetryConfig::disabled())
    })
}

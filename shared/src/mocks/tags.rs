//! A node that tells what tags of other registries are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_ec2::{
    operation::describe_instances::DescribeInstancesOutput,
    types::{Instance, Reservation},
};
use aws_sdk_ssm::{
    operation::{
        describe_instance_information::DescribeInstanceInformationOutput,
        get_command_invocation::GetCommandInvocationOutput, send_command::SendCommandOutput,
    },
    types::{Command, CommandInvocationStatus, InstanceInformation, PingStatus, PlatformType},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

use crate::{
    settings::Mode,
    tag_line::{TagFailure, TagLine},
    tags::TagResolver,
};

/// Long enough for mocks to answer within, on a machine that is busy.
const POLLING: Duration = Duration::from_millis(20);

/// Holds what registries have by tags, and what nodes were asked.
#[derive(Debug, Default)]
pub struct Tags {
    /// The digests, or the reason why there is none, by `host/repository:tag`; one that is not there is not found.
    pub known: BTreeMap<String, Result<String, String>>,
    /// The tags of which a node says nothing.
    pub untold: BTreeSet<String>,
    /// Tells how many commands have to be sent until one of them ends.
    pub together: usize,
    /// True where no node is there to be asked.
    pub has_no_node: bool,
    /// Tells what nodes were asked, each with the node.
    pub asked: Vec<(String, String)>,
}

impl Tags {
    /// Has a registry have an image under a tag.
    pub fn push(&mut self, tag: &str, digest: &str) {
        self.known.insert(tag.to_owned(), Ok(digest.to_owned()));
    }

    fn answer(&self, tag: &str) -> String {
        let unknown = Err("not-found".to_owned());
        let digest = self.known.get(tag).unwrap_or(&unknown).clone();
        let digest = digest.map_err(|reason| TagFailure {
            reason,
            message: "it is so".to_owned(),
        });
        let tag = tag.parse().unwrap();
        TagLine { tag, digest }.to_string()
    }
}

/// Makes a resolver that asks the nodes of this state.
#[must_use]
pub fn tag_resolver(tags: &Arc<Mutex<Tags>>, mode: Mode) -> TagResolver {
    let shared = Arc::clone(tags);
    let instances = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |_| {
        let node = Instance::builder().instance_id("i-0abc0000000000001").build();
        let nodes = if shared.lock().unwrap().has_no_node {
            Vec::new()
        } else {
            vec![node]
        };
        let reservation = Reservation::builder().set_instances(Some(nodes)).build();
        MockResponse::Output(DescribeInstancesOutput::builder().reservations(reservation).build())
    });
    let information = mock!(aws_sdk_ssm::Client::describe_instance_information).then_output(|| {
        let node = InstanceInformation::builder()
            .instance_id("i-0abc0000000000001")
            .platform_type(PlatformType::Linux)
            .ping_status(PingStatus::Online);
        DescribeInstanceInformationOutput::builder()
            .instance_information_list(node.build())
            .build()
    });
    let shared = Arc::clone(tags);
    let send = mock!(aws_sdk_ssm::Client::send_command).then_compute_response(move |input| {
        assert!(input.document_name().unwrap().ends_with("-resolve-tags"));
        let asked = input.parameters().unwrap()["tags"][0].clone();
        let mut state = shared.lock().unwrap();
        state.asked.push((input.instance_ids()[0].clone(), asked.clone()));
        let command = Command::builder().command_id((state.asked.len() - 1).to_string());
        MockResponse::Output(SendCommandOutput::builder().command(command.build()).build())
    });
    let shared = Arc::clone(tags);
    let invocation = mock!(aws_sdk_ssm::Client::get_command_invocation).then_compute_response(move |input| {
        let state = shared.lock().unwrap();
        if state.asked.len() < state.together {
            let output = GetCommandInvocationOutput::builder().status(CommandInvocationStatus::InProgress);
            return MockResponse::Output(output.build());
        }
        let (_, asked) = &state.asked[input.command_id().unwrap().parse::<usize>().unwrap()];
        let told = asked.split(' ').filter(|tag| !state.untold.contains(*tag));
        let lines: Vec<String> = told.map(|tag| state.answer(tag)).collect();
        let output = GetCommandInvocationOutput::builder()
            .status(CommandInvocationStatus::Success)
            .standard_output_content(lines.join("\n"));
        MockResponse::Output(output.build())
    });
    TagResolver::with(
        mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&instances]),
        mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&information, &send, &invocation]),
        "eks-image-prefetch",
        mode,
        POLLING,
    )
}

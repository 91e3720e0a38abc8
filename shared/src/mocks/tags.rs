//! A node that tells what tags of other registries are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_ec2::{
    operation::describe_instances::DescribeInstancesOutput,
    primitives::DateTime as Moment,
    types::{Instance, Reservation},
};
use aws_sdk_ssm::{
    operation::{
        describe_instance_information::DescribeInstanceInformationOutput,
        get_command_invocation::GetCommandInvocationOutput, send_command::SendCommandOutput,
    },
    types::{Command, CommandInvocationStatus, InstanceInformation, PingStatus, PlatformType},
};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};

use crate::{
    settings::Mode,
    tag_line::{TagFailure, TagLine},
    tags::TagResolver,
};

/// Long enough for mocks to answer within, on a machine that is busy.
const POLLING: Duration = Duration::from_millis(20);

/// Holds what registries have by tags, and what nodes were asked.
#[derive(Debug)]
pub struct Tags {
    /// The digests, or the reason why there is none, by `host/repository:tag`; one that is not there is not found.
    pub known: BTreeMap<String, Result<String, String>>,
    /// The tags of which a node says nothing.
    pub untold: BTreeSet<String>,
    /// Tells how many commands have to be sent until one of them ends.
    pub together: usize,
    /// The nodes that run, the one that was launched last first.
    pub nodes: Vec<String>,
    /// The nodes that SSM does not reach.
    pub offline: Vec<String>,
    /// Tells how many nodes EC2 describes by one call; 0 is all of them.
    pub page: usize,
    /// Tells what nodes say instead of what registries have; nothing where their command never ends.
    pub answers: BTreeMap<String, Option<String>>,
    /// Tells what nodes were asked, each with the node.
    pub asked: Vec<(String, String)>,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            untold: BTreeSet::new(),
            together: 0,
            nodes: vec!["i-0abc0000000000001".to_owned()],
            offline: Vec::new(),
            page: 0,
            answers: BTreeMap::new(),
            asked: Vec::new(),
        }
    }
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
    let (ec2, ssm) = (
        mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&instances(tags)]),
        mock_client!(
            aws_sdk_ssm,
            RuleMode::MatchAny,
            [&information(tags), &send(tags), &invocation(tags)]
        ),
    );
    TagResolver::with(ec2, ssm, "eks-image-prefetch", mode, POLLING)
}

fn instances(tags: &Arc<Mutex<Tags>>) -> Rule {
    let shared = Arc::clone(tags);
    mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let Tags { nodes, page, .. } = &*shared.lock().unwrap();
        let first = input.next_token().map_or(0, |token| token.parse().unwrap());
        let end = match page {
            0 => nodes.len(),
            page => nodes.len().min(first + page),
        };
        let instances = (first..end).map(|k| {
            let launched = Moment::from_secs(1_000 - i64::try_from(k).unwrap());
            Instance::builder().instance_id(&nodes[k]).launch_time(launched).build()
        });
        let reservation = Reservation::builder().set_instances(Some(instances.collect())).build();
        let output = DescribeInstancesOutput::builder()
            .reservations(reservation)
            .set_next_token((end < nodes.len()).then(|| end.to_string()));
        MockResponse::Output(output.build())
    })
}

fn information(tags: &Arc<Mutex<Tags>>) -> Rule {
    let shared = Arc::clone(tags);
    mock!(aws_sdk_ssm::Client::describe_instance_information).then_compute_response(move |input| {
        let state = shared.lock().unwrap();
        let known = input.filters()[0].values().iter().map(|id| {
            let status = if state.offline.contains(id) {
                PingStatus::ConnectionLost
            } else {
                PingStatus::Online
            };
            InstanceInformation::builder()
                .instance_id(id)
                .platform_type(PlatformType::Linux)
                .ping_status(status)
                .build()
        });
        let output = DescribeInstanceInformationOutput::builder().set_instance_information_list(Some(known.collect()));
        MockResponse::Output(output.build())
    })
}

fn send(tags: &Arc<Mutex<Tags>>) -> Rule {
    let shared = Arc::clone(tags);
    mock!(aws_sdk_ssm::Client::send_command).then_compute_response(move |input| {
        assert_eq!(input.document_name(), Some("eks-image-prefetch-resolve-tags"));
        let asked = input.parameters().unwrap()["tags"][0].clone();
        let mut state = shared.lock().unwrap();
        state.asked.push((input.instance_ids()[0].clone(), asked));
        let command = Command::builder().command_id((state.asked.len() - 1).to_string());
        MockResponse::Output(SendCommandOutput::builder().command(command.build()).build())
    })
}

fn invocation(tags: &Arc<Mutex<Tags>>) -> Rule {
    let shared = Arc::clone(tags);
    mock!(aws_sdk_ssm::Client::get_command_invocation).then_compute_response(move |input| {
        let state = shared.lock().unwrap();
        let (node, asked) = &state.asked[input.command_id().unwrap().parse::<usize>().unwrap()];
        let told = asked.split(' ').filter(|tag| !state.untold.contains(*tag));
        let lines: Vec<String> = told.map(|tag| state.answer(tag)).collect();
        let answer = state.answers.get(node).cloned();
        let answer = answer.unwrap_or_else(|| Some(lines.join("\n")));
        let answer = answer.filter(|_| state.asked.len() >= state.together);
        let status = match answer {
            Some(_) => CommandInvocationStatus::Success,
            None => CommandInvocationStatus::InProgress,
        };
        let output = GetCommandInvocationOutput::builder()
            .status(status)
            .set_standard_output_content(answer);
        MockResponse::Output(output.build())
    })
}

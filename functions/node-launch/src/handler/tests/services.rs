//! EC2, ECR and SSM, faked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_sdk_ec2::{
    operation::describe_instances::DescribeInstancesOutput,
    primitives::DateTime,
    types::{Instance, InstanceState, InstanceStateName, OperatorResponse, Reservation, Tag},
};
use aws_sdk_ssm::{
    operation::{
        describe_instance_information::DescribeInstanceInformationOutput,
        send_command::{SendCommandError, SendCommandInput, SendCommandOutput},
    },
    types::{Command, InstanceInformation, PingStatus, PlatformType, error::InvalidInstanceId},
};
use aws_smithy_mocks::{MockResponse, Rule as Mock, RuleMode, mock, mock_client};
use prefetch::mocks::{
    self, Calls,
    ecr::{CHART, CONFIGURATION, Registry, RegistryImage},
};

use super::inputs::{CLUSTER_TAG, DIGEST, now};

/// An instance as EC2 and SSM know it.
#[derive(Clone)]
pub struct Node {
    pub id: String,
    /// The tag that calls it a node.
    pub tag: (&'static str, &'static str),
    pub team: Option<&'static str>,
    pub state: InstanceStateName,
    pub auto_mode: bool,
    pub online: Option<PingStatus>,
    /// SSM answers InvalidInstanceId for it.
    pub refused: bool,
    /// IAM does not permit the command on it.
    pub denied: bool,
}

/// Makes a node of the cluster, online for some minutes.
pub fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        tag: (CLUSTER_TAG, "prod"),
        team: None,
        state: InstanceStateName::Running,
        auto_mode: false,
        online: Some(PingStatus::Online),
        refused: false,
        denied: false,
    }
}

pub fn ec2(nodes: &Arc<Vec<Node>>) -> (Mock, aws_sdk_ec2::Client) {
    let all = Arc::clone(nodes);
    let describe = mock!(aws_sdk_ec2::Client::describe_instances)
        .match_requests(|input| input.instance_ids().is_empty() && input.filters()[0].values().len() <= 200)
        .then_output(move || {
            let instances = all.iter().map(instance).collect();
            DescribeInstancesOutput::builder()
                .reservations(Reservation::builder().set_instances(Some(instances)).build())
                .build()
        });
    let client = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&describe]);
    (describe, client)
}

pub fn instance(node: &Node) -> Instance {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    Instance::builder()
        .instance_id(&node.id)
        .state(InstanceState::builder().name(node.state.clone()).build())
        .launch_time(DateTime::from(now() - Duration::from_mins(5)))
        .set_tags(Some(
            [node.tag]
                .into_iter()
                .chain(node.team.map(|team| ("team", team)))
                .map(|(key, value)| tag(key, value))
                .collect(),
        ))
        .set_operator(node.auto_mode.then(|| {
            OperatorResponse::builder()
                .managed(true)
                .principal("eks.amazonaws.com")
                .build()
        }))
        .build()
}

pub type RegistryState = Arc<std::sync::Mutex<(Calls, Registry)>>;

/// Makes a registry of which one repository can be read, and no other.
pub fn registry() -> RegistryState {
    let pushed = |hours: i64, tags: &[&str], artifact| RegistryImage {
        artifact: Some(artifact),
        ..RegistryImage::new(&DIGEST.replace("7f5b", &format!("{hours:04}")), tags, hours * 3600)
    };
    let signature = format!("{}.sig", DIGEST.replace(':', "-"));
    let images = vec![
        pushed(2, &["v2"], CONFIGURATION),
        pushed(3, &["v3", "v3.0", "latest"], CONFIGURATION),
        pushed(1, &["v1"], CONFIGURATION),
        pushed(4, &[&signature], CONFIGURATION),
        pushed(5, &["v5"], CHART),
    ];
    let mut registry = Registry::default();
    registry.repositories.insert("team/app".to_owned(), images);
    registry.repositories.insert("other/app".to_owned(), Vec::new());
    registry.unreadable.insert("other/app".to_owned());
    Arc::new(std::sync::Mutex::new((Calls::default(), registry)))
}

pub type Inputs = Arc<std::sync::Mutex<Vec<SendCommandInput>>>;

pub fn ssm(nodes: &Arc<Vec<Node>>) -> (Mock, aws_sdk_ssm::Client, Inputs) {
    let all = Arc::clone(nodes);
    let describe = mock!(aws_sdk_ssm::Client::describe_instance_information)
        .match_requests(|input| input.filters()[0].values().len() <= 100)
        .then_output(move || {
            let known = all.iter().filter_map(|node| {
                let status = node.online.clone()?;
                Some(
                    InstanceInformation::builder()
                        .instance_id(&node.id)
                        .ping_status(status)
                        .platform_type(PlatformType::Linux)
                        .build(),
                )
            });
            DescribeInstanceInformationOutput::builder()
                .set_instance_information_list(Some(known.collect()))
                .build()
        });
    let refused = |nodes: &[Node], input: &SendCommandInput| {
        nodes
            .iter()
            .any(|node| (node.refused || node.denied) && input.instance_ids().contains(&node.id))
    };
    let (all, which) = (Arc::clone(nodes), Arc::clone(nodes));
    let refusing = mock!(aws_sdk_ssm::Client::send_command)
        .match_requests(move |input| refused(&all, input))
        .then_compute_response(move |input| {
            let denied = which
                .iter()
                .find(|node| node.denied && input.instance_ids().contains(&node.id));
            MockResponse::Error(match denied {
                Some(node) => mocks::access_denied(&node.id),
                None => SendCommandError::InvalidInstanceId(InvalidInstanceId::builder().build()),
            })
        });
    let sent = Inputs::default();
    let (all, inputs, count) = (Arc::clone(nodes), Arc::clone(&sent), AtomicUsize::new(0));
    let sending = mock!(aws_sdk_ssm::Client::send_command)
        .match_requests(move |input| {
            let accepted = !refused(&all, input);
            if accepted {
                inputs.lock().unwrap().push(input.clone());
            }
            accepted
        })
        .then_output(move || {
            let id = format!("command-{}", count.fetch_add(1, Ordering::SeqCst) + 1);
            SendCommandOutput::builder()
                .command(Command::builder().command_id(id).build())
                .build()
        });
    let client = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&describe, &refusing, &sending]);
    (describe, client, sent)
}

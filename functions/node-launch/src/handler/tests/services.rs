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
use aws_sdk_ecr::{
    operation::{
        describe_images::{DescribeImagesError, DescribeImagesOutput},
        describe_repositories::DescribeRepositoriesOutput,
    },
    types::{ImageDetail, Repository},
};
use aws_sdk_ssm::{
    operation::{
        describe_instance_information::DescribeInstanceInformationOutput,
        send_command::{SendCommandError, SendCommandInput, SendCommandOutput},
    },
    types::{Command, InstanceInformation, PingStatus, PlatformType, error::InvalidInstanceId},
};
use aws_smithy_mocks::{MockResponse, Rule as Mock, RuleMode, mock, mock_client};
use prefetch::{
    fault,
    mocks::{self},
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

pub fn ecr() -> (Mock, aws_sdk_ecr::Client) {
    let repositories = mock!(aws_sdk_ecr::Client::describe_repositories).then_output(|| {
        let named = |name: &str| Repository::builder().repository_name(name).build();
        DescribeRepositoriesOutput::builder()
            .repositories(named("team/app"))
            .repositories(named("other/app"))
            .build()
    });
    let images = mock!(aws_sdk_ecr::Client::describe_images)
        .match_requests(|input| input.repository_name() == Some("team/app"))
        .then_output(|| {
            let pushed = |hours: i64, tags: &[&str], artifact: &str| {
                ImageDetail::builder()
                    .registry_id("123456789012")
                    .image_digest(DIGEST.replace("7f5b", &format!("{hours:04}")))
                    .set_image_tags(Some(tags.iter().map(ToString::to_string).collect()))
                    .image_pushed_at(aws_sdk_ecr::primitives::DateTime::from_secs(hours * 3600))
                    .artifact_media_type(artifact)
                    .build()
            };
            let image = "application/vnd.oci.image.config.v1+json";
            let signature = format!("{}.sig", DIGEST.replace(':', "-"));
            DescribeImagesOutput::builder()
                .image_details(pushed(2, &["v2"], image))
                .image_details(pushed(3, &["v3", "v3.0", "latest"], image))
                .image_details(pushed(1, &["v1"], image))
                .image_details(pushed(4, &[&signature], image))
                .image_details(pushed(5, &["v5"], "application/vnd.cncf.helm.config.v1+json"))
                .build()
        });
    let failing = mock!(aws_sdk_ecr::Client::describe_images)
        .match_requests(|input| input.repository_name() != Some("team/app"))
        .then_compute_response(|_| fault!(aws_sdk_ecr, DescribeImagesError, "AccessDeniedException"));
    let client = mock_client!(aws_sdk_ecr, RuleMode::MatchAny, [&repositories, &images, &failing]);
    (images, client)
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

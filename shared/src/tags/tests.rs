use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_ec2::types::{Instance, Reservation};
use aws_sdk_ssm::{
    operation::{describe_instance_information::DescribeInstanceInformationOutput, send_command::SendCommandOutput},
    primitives::DateTime as Moment,
    types::{Command, InstanceInformation, PingStatus, PlatformType},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

use super::*;
use crate::{node::Cluster, outcome::NodeReason, rule::parse_rules};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Long enough for mocks to answer within.
const POLLING: Duration = Duration::from_millis(5);
const NGINX: &str = "docker.io/library/nginx:1.27";
const REDIS: &str = "docker.io/bitnami/redis:7.4";

/// Holds what each node says to a command; nothing where it never ends.
type Answers = BTreeMap<String, Option<String>>;

/// Holds nodes, the newest first, and what they were sent.
#[derive(Default)]
struct State {
    offline: Vec<String>,
    /// Tells how many nodes EC2 describes by one call; 0 is all of them.
    page: usize,
    answers: Answers,
    sent: Vec<(String, String)>,
}

fn node(k: usize) -> String {
    format!("i-{k:017x}")
}

fn resolved(tag: &str) -> String {
    format!(r#"{{"tag":"{tag}","digest":"{DIGEST}"}}"#)
}

fn failed(tag: &str, reason: NodeReason) -> String {
    format!(r#"{{"tag":"{tag}","reason":"{reason}","message":"it is so"}}"#)
}

fn resolver(nodes: usize, state: &Arc<Mutex<State>>, mode: Mode) -> TagResolver {
    let shared = Arc::clone(state);
    let describe = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let page = match shared.lock().unwrap().page {
            0 => nodes,
            page => page,
        };
        let first = input.next_token().map_or(0, |token| token.parse().unwrap());
        let end = nodes.min(first + page);
        let instances = (first..end).map(|k| {
            let launched = aws_sdk_ec2::primitives::DateTime::from_secs(1_000 - i64::try_from(k).unwrap());
            Instance::builder().instance_id(node(k)).launch_time(launched).build()
        });
        let reservation = Reservation::builder().set_instances(Some(instances.collect())).build();
        let output = aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput::builder()
            .reservations(reservation)
            .set_next_token((end < nodes).then(|| end.to_string()));
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let information = mock!(aws_sdk_ssm::Client::describe_instance_information).then_compute_response(move |input| {
        let state = shared.lock().unwrap();
        let known = input.filters()[0].values().iter().map(|id| {
            let is_offline = state.offline.contains(id);
            InstanceInformation::builder()
                .instance_id(id)
                .platform_type(PlatformType::Linux)
                .ping_status(if is_offline {
                    PingStatus::ConnectionLost
                } else {
                    PingStatus::Online
                })
                .build()
        });
        let output = DescribeInstanceInformationOutput::builder().set_instance_information_list(Some(known.collect()));
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let send = mock!(aws_sdk_ssm::Client::send_command).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        assert_eq!(input.document_name(), Some("prod-resolve-tags"));
        let tags = input.parameters().unwrap()["tags"][0].clone();
        let id = input.instance_ids()[0].clone();
        state.sent.push((id, tags));
        let command = Command::builder()
            .command_id(state.sent.len().to_string())
            .requested_date_time(Moment::from_secs(0));
        MockResponse::Output(SendCommandOutput::builder().command(command.build()).build())
    });
    let shared = Arc::clone(state);
    let invocation = mock!(aws_sdk_ssm::Client::get_command_invocation).then_compute_response(move |input| {
        let state = shared.lock().unwrap();
        let answer = &state.answers[input.instance_id().unwrap()];
        let status = match answer {
            Some(_) => CommandInvocationStatus::Success,
            None => CommandInvocationStatus::InProgress,
        };
        let output = GetCommandInvocationOutput::builder()
            .status(status)
            .set_standard_output_content(answer.clone());
        MockResponse::Output(output.build())
    });
    TagResolver::with(
        mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&describe]),
        mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&information, &send, &invocation]),
        "prod",
        mode,
        POLLING,
    )
}

async fn resolve_in(mode: Mode, tags: &[&str], nodes: usize, state: State) -> (Result<ResolvedTags, TagsError>, State) {
    let state = Arc::new(Mutex::new(state));
    let resolver = resolver(nodes, &state, mode);
    let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let cluster = Cluster {
        name: "prod".to_owned(),
        tag_key: "aws:eks:cluster-name".to_owned(),
    };
    let selector = NodeSelector::new(&cluster, &parse_rules(r#"[{"name": "a"}]"#).unwrap()[0]);
    let told = resolver.resolve(&tags, Nodes::Selected(&[selector])).await;
    drop(resolver);
    (told, std::mem::take(&mut state.lock().unwrap()))
}

async fn resolve(tags: &[&str], answers: &[Option<String>]) -> (Result<ResolvedTags, TagsError>, State) {
    // The first that is asked was launched first, and is described last.
    let answers = answers.iter().rev().enumerate();
    let answers: Answers = answers.map(|(k, answer)| (node(k), answer.clone())).collect();
    let nodes = answers.len();
    let state = State {
        answers,
        ..State::default()
    };
    resolve_in(Mode::Send, tags, nodes, state).await
}

fn told(resolved: &ResolvedTags, tag: &str) -> Result<String, String> {
    let told = &resolved[&tag.parse().unwrap()];
    told.clone().map_err(|failure| failure.reason)
}

#[tokio::test]
async fn one_node_is_asked_for_all_tags_and_believed_of_those_alone() {
    let says = format!(
        "{}\nnoise\n{}\n{}",
        resolved(NGINX),
        resolved(REDIS),
        resolved("quay.io/x/y:z")
    );
    let (answer, state) = resolve(&[NGINX, REDIS], &[Some(says), None, None]).await;
    let resolved = answer.unwrap();
    assert_eq!(resolved.len(), 2);
    assert_eq!(told(&resolved, NGINX), Ok(DIGEST.to_owned()));
    assert_eq!(state.sent, [(node(2), format!("{REDIS} {NGINX}"))]);
}

#[tokio::test]
async fn the_next_node_is_asked_where_one_is_silent_or_its_registry_is() {
    // One node's login says nothing of the others'.
    let denied = Some(failed(NGINX, NodeReason::Denied));
    for first in [
        None,
        Some(String::new()),
        Some(failed(NGINX, NodeReason::Registry)),
        denied,
    ] {
        let (answer, state) = resolve(&[NGINX], &[first, Some(resolved(NGINX)), None]).await;
        assert_eq!(told(&answer.unwrap(), NGINX), Ok(DIGEST.to_owned()));
        assert_eq!(state.sent.len(), 2);
    }
}

#[tokio::test]
async fn what_no_other_node_would_tell_differently_is_the_answer_at_once() {
    let (answer, state) = resolve(&[NGINX], &[Some(failed(NGINX, NodeReason::NotFound)), None]).await;
    assert_eq!(told(&answer.unwrap(), NGINX), Err("not-found".to_owned()));
    assert_eq!(state.sent.len(), 1);
}

#[tokio::test]
async fn what_some_nodes_tell_is_the_answer_where_others_are_silent() {
    let (answer, _) = resolve(&[NGINX, REDIS], &[Some(resolved(NGINX)), None, None]).await;
    let resolved = answer.unwrap();
    assert_eq!((resolved.len(), told(&resolved, NGINX)), (1, Ok(DIGEST.to_owned())));
}

#[tokio::test]
async fn nobody_is_waited_for_for_ever_and_no_more_than_three_nodes_are_asked() {
    let (answer, state) = resolve(&[NGINX], &[None, None, None, None]).await;
    assert!(matches!(answer, Err(TagsError::NoAnswer)));
    assert_eq!(state.sent.len(), MAX_NODES);
}

#[tokio::test]
async fn a_command_names_ten_tags_at_most() {
    let tags: Vec<String> = (0..25).map(|k| format!("quay.io/team/app:v{k}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let says: Vec<String> = tags.iter().map(|tag| resolved(tag)).collect();
    let (answer, state) = resolve(&tags, &[Some(says.join("\n"))]).await;
    assert_eq!(answer.unwrap().len(), 25);
    let sizes: Vec<usize> = state.sent.iter().map(|(_, tags)| tags.split(' ').count()).collect();
    assert_eq!(sizes, [10, 10, 5]);
}

#[tokio::test]
async fn without_a_node_or_in_a_stack_that_observes_nobody_is_asked() {
    let (answer, state) = resolve(&[NGINX], &[]).await;
    assert!(matches!(answer, Err(TagsError::NoNode)) && state.sent.is_empty());
    let offline = State {
        offline: vec![node(0)],
        ..State::default()
    };
    let (answer, state) = resolve_in(Mode::Send, &[NGINX], 1, offline).await;
    assert!(matches!(answer, Err(TagsError::NoNode)) && state.sent.is_empty());
    let (answer, state) = resolve_in(Mode::Observe, &[NGINX], 1, State::default()).await;
    assert!(matches!(answer, Err(TagsError::Observes)) && state.sent.is_empty());
}

#[tokio::test]
async fn nodes_are_looked_for_among_more_of_them_where_ssm_reaches_none_of_the_first() {
    let resolve_behind = async |offline: usize| {
        let state = State {
            offline: (0..offline).map(node).collect(),
            page: 2,
            answers: [(node(offline), Some(resolved(NGINX)))].into(),
            ..State::default()
        };
        resolve_in(Mode::Send, &[NGINX], offline + 1, state).await
    };
    let (answer, state) = resolve_behind(5).await;
    assert_eq!(told(&answer.unwrap(), NGINX), Ok(DIGEST.to_owned()));
    assert_eq!(state.sent, [(node(5), NGINX.to_owned())]);
    let (answer, _) = resolve_behind(100).await;
    assert!(matches!(answer, Err(TagsError::NoNode)));
}

#[tokio::test]
async fn no_tags_cost_no_call() {
    let (answer, state) = resolve_in(Mode::Observe, &[], 0, State::default()).await;
    assert!(answer.unwrap().is_empty() && state.sent.is_empty());
}

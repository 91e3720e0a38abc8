use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    mocks::{Tags, tag_resolver},
    node::Cluster,
    outcome::NodeReason,
    rule::parse_rules,
};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NGINX: &str = "docker.io/library/nginx:1.27";
const REDIS: &str = "docker.io/bitnami/redis:7.4";

fn node(k: usize) -> String {
    format!("i-{k:017x}")
}

fn resolved(tag: &str) -> String {
    format!(r#"{{"tag":"{tag}","digest":"{DIGEST}"}}"#)
}

fn failed(tag: &str, reason: NodeReason) -> String {
    format!(r#"{{"tag":"{tag}","reason":"{reason}","message":"it is so"}}"#)
}

async fn resolve_in(mode: Mode, tags: &[&str], nodes: usize, state: Tags) -> (Result<ResolvedTags, TagsError>, Tags) {
    let nodes = (0..nodes).map(node).collect();
    let state = Arc::new(Mutex::new(Tags { nodes, ..state }));
    let resolver = tag_resolver(&state, mode);
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

async fn resolve(tags: &[&str], answers: &[Option<String>]) -> (Result<ResolvedTags, TagsError>, Tags) {
    // The first that is asked was launched first, and is described last.
    let answers = answers.iter().rev().enumerate();
    let answers: BTreeMap<_, _> = answers.map(|(k, answer)| (node(k), answer.clone())).collect();
    let nodes = answers.len();
    let state = Tags {
        answers,
        ..Tags::default()
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
    assert_eq!(state.asked, [(node(2), format!("{REDIS} {NGINX}"))]);
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
        assert_eq!(state.asked.len(), 2);
    }
}

#[tokio::test]
async fn what_no_other_node_would_tell_differently_is_the_answer_at_once() {
    let (answer, state) = resolve(&[NGINX], &[Some(failed(NGINX, NodeReason::NotFound)), None]).await;
    assert_eq!(told(&answer.unwrap(), NGINX), Err("not-found".to_owned()));
    assert_eq!(state.asked.len(), 1);
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
    assert!(matches!(answer, Err(TagsError::NoAnswer(_))));
    assert_eq!(state.asked.len(), MAX_NODES);
}

#[tokio::test]
async fn a_node_that_tells_nothing_is_named_where_no_other_tells_more() {
    let (answer, _) = resolve(&[NGINX], &[Some("no line".to_owned())]).await;
    let told = answer.unwrap_err().to_string();
    assert!(told.starts_with(&format!("the node {}", node(0))), "{told}");
}

#[tokio::test]
async fn a_command_names_ten_tags_at_most() {
    let tags: Vec<String> = (0..25).map(|k| format!("quay.io/team/app:v{k}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let says: Vec<String> = tags.iter().map(|tag| resolved(tag)).collect();
    let (answer, state) = resolve(&tags, &[Some(says.join("\n"))]).await;
    assert_eq!(answer.unwrap().len(), 25);
    let sizes: Vec<usize> = state.asked.iter().map(|(_, tags)| tags.split(' ').count()).collect();
    assert_eq!(sizes, [10, 10, 5]);
}

#[tokio::test]
async fn without_a_node_or_in_a_stack_that_observes_nobody_is_asked() {
    let (answer, state) = resolve(&[NGINX], &[]).await;
    assert!(matches!(answer, Err(TagsError::NoNode(_))) && state.asked.is_empty());
    let offline = Tags {
        offline: vec![node(0)],
        ..Tags::default()
    };
    let (answer, state) = resolve_in(Mode::Send, &[NGINX], 1, offline).await;
    assert!(matches!(answer, Err(TagsError::NoNode(_))) && state.asked.is_empty());
    let (answer, state) = resolve_in(Mode::Observe, &[NGINX], 1, Tags::default()).await;
    assert!(matches!(answer, Err(TagsError::Observes(_))) && state.asked.is_empty());
}

#[tokio::test]
async fn nodes_are_looked_for_among_more_of_them_where_ssm_reaches_none_of_the_first() {
    let resolve_behind = async |offline: usize| {
        let state = Tags {
            offline: (0..offline).map(node).collect(),
            page: 2,
            answers: [(node(offline), Some(resolved(NGINX)))].into(),
            ..Tags::default()
        };
        resolve_in(Mode::Send, &[NGINX], offline + 1, state).await
    };
    let (answer, state) = resolve_behind(5).await;
    assert_eq!(told(&answer.unwrap(), NGINX), Ok(DIGEST.to_owned()));
    assert_eq!(state.asked, [(node(5), NGINX.to_owned())]);
    let (answer, _) = resolve_behind(100).await;
    assert!(matches!(answer, Err(TagsError::NoNode(_))));
}

#[tokio::test]
async fn no_tags_cost_no_call() {
    let (answer, state) = resolve_in(Mode::Observe, &[], 0, Tags::default()).await;
    assert!(answer.unwrap().is_empty() && state.asked.is_empty());
}

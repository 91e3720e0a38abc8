//! Pushes, by what the nodes of rules run.

use aws_smithy_mocks::{RuleMode, mock_client};
use prefetch::{
    mocks::{note_use, ran},
    sender::Sender,
    usage::day,
};
use serde_json::{Value, json};

use super::cloud::{DIGEST, REGISTRY, Registry, image_push, now, sending, settings};

const PUSH: &str = include_str!("../../../../../events/image-push.tagged.json");
const TWO: &str = r#"[{"name": "web"}, {"name": "gpu"}]"#;

/// Makes a registry, and a table that knows of these images of rules.
fn known(images: &[(&str, &str)]) -> Registry {
    let registry = Registry::default();
    for (rule, image) in images {
        let image = format!("{image}@{DIGEST}");
        let mut table = registry.table.lock().unwrap();
        note_use(&mut table.1, rule, &ran(&image, 1, day(now())));
    }
    registry
}

/// Answers a push to team/app, and tells how many commands were sent.
async fn pushed(registry: &Registry, rules: &str, event: &str) -> (Value, usize) {
    let sends = sending(|_| true);
    let sender = Sender::sending(mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&sends]));
    let push = image_push(sender, registry, &settings(rules));
    let answer = push.handle(serde_json::from_str(event).unwrap(), now()).await;
    (json!(answer.unwrap()), sends.num_calls())
}

fn rules_of(answer: &Value) -> Vec<&str> {
    let commands = answer["commands"].as_array().unwrap();
    commands.iter().map(|sent| sent["rule"].as_str().unwrap()).collect()
}

fn queries(registry: &Registry) -> Vec<&'static str> {
    registry.table.lock().unwrap().0.take()
}

#[tokio::test]
async fn a_push_that_no_node_would_run_costs_two_calls_and_sends_nothing() {
    // What the event does not tell of the image is not asked either.
    for event in [PUSH, include_str!("../../../../../events/image-push.replication.json")] {
        let registry = known(&[("web", &format!("{REGISTRY}/team/other:v1"))]);
        let (answer, sent) = pushed(&registry, r#"[{"name": "web"}]"#, event).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"], sent),
            (&json!("ignored"), &json!("not-used"), 0)
        );
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("web") && message.contains("team/app"), "{message}");
        assert_eq!((queries(&registry), registry.calls()), (vec!["Query"; 2], vec![]));
    }
}

#[tokio::test]
async fn only_the_rules_whose_nodes_use_the_repository_send_it() {
    let registry = known(&[
        ("web", &format!("{REGISTRY}/team/other:v1")),
        ("gpu", &format!("{REGISTRY}/team/app:v1")),
    ]);
    let (answer, sent) = pushed(&registry, TWO, PUSH).await;
    assert_eq!((rules_of(&answer), sent), (vec!["gpu"], 1));
    // The same repository of another registry is another one.
    let registry = known(&[
        ("web", "public.ecr.aws/team/app:v1"),
        ("gpu", "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:v1"),
    ]);
    assert_eq!(pushed(&registry, TWO, PUSH).await.0["reason"], "not-used");
}

#[tokio::test]
async fn a_rule_of_which_nothing_is_known_or_that_takes_what_is_not_used_sends_it() {
    let registry = known(&[("gpu", &format!("{REGISTRY}/team/other:v1"))]);
    let (answer, _) = pushed(&registry, TWO, PUSH).await;
    assert_eq!(rules_of(&answer), ["web"]);
    queries(&registry);
    let (answer, _) = pushed(&registry, r#"[{"name": "gpu", "used": false}]"#, PUSH).await;
    assert_eq!((rules_of(&answer), queries(&registry)), (vec!["gpu"], vec![]));
}

#[tokio::test]
async fn where_the_table_cannot_be_asked_the_image_is_sent() {
    let registry = known(&[("web", &format!("{REGISTRY}/team/other:v1"))]);
    registry
        .table
        .lock()
        .unwrap()
        .0
        .fail("Query", 0, "AccessDeniedException");
    let (answer, _) = pushed(&registry, r#"[{"name": "web"}]"#, PUSH).await;
    assert_eq!(rules_of(&answer), ["web"]);
}

#[tokio::test]
async fn what_no_rule_wants_by_its_name_is_not_asked_for() {
    let registry = known(&[]);
    let (answer, _) = pushed(&registry, r#"[{"name": "web", "tags": ["none"]}]"#, PUSH).await;
    assert_eq!((&answer["reason"], queries(&registry)), (&json!("no-rule"), vec![]));
}

#[tokio::test]
async fn a_repository_of_which_a_rule_names_an_image_counts_as_used() {
    let registry = known(&[
        ("web", &format!("{REGISTRY}/team/other:v1")),
        ("gpu", &format!("{REGISTRY}/team/other:v1")),
    ]);
    for image in ["team/app:stable", "team/app", &format!("{REGISTRY}/team/app:v0")] {
        let rules = format!(r#"[{{"name": "web", "images": ["{image}"]}}, {{"name": "gpu"}}]"#);
        let (answer, _) = pushed(&registry, &rules, PUSH).await;
        assert_eq!(rules_of(&answer), ["web"]);
    }
    let elsewhere = r#"[{"name": "web", "images": ["quay.io/team/app:v1", "app/team:v1"]}]"#;
    assert_eq!(pushed(&registry, elsewhere, PUSH).await.0["reason"], "not-used");
}

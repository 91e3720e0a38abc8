//! Images that arrive in registries of other accounts or Regions.

use serde_json::{Value, json};

use super::cloud::{CENTRAL, DIGEST, Registry, answer_with, now, sending, settings};
use prefetch::{
    mocks::{note_use, ran},
    usage::day,
};

const PUSH: &str = include_str!("../../../../../events/image-push.central-registry.json");
const RULE: &str = r#"[{"name": "web"}]"#;

fn named(registries: &'static str) -> Registry {
    Registry {
        named: registries,
        ..Registry::default()
    }
}

/// Answers an event, and tells how many commands were sent.
async fn pushed(registry: &Registry, rules: &str, event: &str) -> (Value, usize) {
    let sends = sending(|_| true);
    let answer = answer_with(&sends, registry, &settings(rules), event).await;
    (answer.unwrap(), sends.num_calls())
}

#[tokio::test]
async fn an_event_of_a_registry_that_is_not_named_is_ignored_with_a_reason_of_its_own() {
    let far = PUSH.replace("eu-central-1", "eu-west-1");
    let own_elsewhere = far.replace("210987654321", "123456789012");
    for (registries, event) in [
        ("", PUSH),
        ("310987654321", PUSH),
        ("210987654321/eu-west-1", PUSH),
        ("210987654321", &far),
        ("", &own_elsewhere),
    ] {
        let registry = named(registries);
        let (answer, sent) = pushed(&registry, RULE, event).await;
        assert_eq!((&answer["reason"], sent), (&json!("foreign-registry"), 0));
        assert_eq!((registry.calls(), registry.central_calls()), (vec![], vec![]));
    }
}

#[tokio::test]
async fn an_image_of_a_named_registry_is_sent_under_its_host() {
    let china = include_str!("../../../../../events/image-push.china.json");
    let far = PUSH.replace("eu-central-1", "eu-west-1");
    for (registries, event, host) in [
        ("210987654321", PUSH, CENTRAL),
        (
            "210987654321,210987654321/eu-west-1",
            &far,
            "210987654321.dkr.ecr.eu-west-1.amazonaws.com",
        ),
        (
            "123456789012/cn-north-1",
            china,
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        ),
    ] {
        let (answer, sent) = pushed(&named(registries), RULE, event).await;
        assert_eq!(
            (&answer["image"], sent),
            (&json!(format!("{host}/team/app:v1.4.2@{DIGEST}")), 1)
        );
    }
}

#[tokio::test]
async fn what_the_event_does_not_tell_is_asked_of_its_own_registry() {
    for (event, calls) in [
        (
            include_str!("../../../../../events/image-push.index.json"),
            "BatchGetImage",
        ),
        (
            include_str!("../../../../../events/image-push.replication.json"),
            "DescribeImages",
        ),
    ] {
        let registry = named("210987654321");
        let event = event.replacen("123456789012", "210987654321", 1);
        let (answer, sent) = pushed(&registry, RULE, &event).await;
        assert_eq!((&answer["decision"], sent), (&json!("sent"), 1));
        // The fake answers only who names its account.
        assert_eq!((registry.calls(), registry.central_calls()), (vec![], vec![calls]));
    }
}

#[tokio::test]
async fn a_rule_decides_from_which_registries_it_brings_and_this_accounts_are_always_among_them() {
    let elsewhere = r#"[{"name": "web", "registries": ["public.ecr.aws"]}, {"name": "all"}]"#;
    let (answer, sent) = pushed(&named("210987654321"), elsewhere, PUSH).await;
    assert_eq!((&answer["commands"][0]["rule"], sent), (&json!("all"), 1));
    let none = r#"[{"name": "web", "registries": ["*", "!210987654321.*"]}]"#;
    let (answer, _) = pushed(&named("210987654321"), none, PUSH).await;
    assert_eq!(answer["reason"], "no-rule");
    let own = PUSH
        .replace("210987654321", "123456789012")
        .replace("eu-central-1", "eu-west-1");
    let (_, sent) = pushed(&named("123456789012/eu-west-1"), none, &own).await;
    assert_eq!(sent, 1);
}

#[tokio::test]
async fn use_counts_for_the_registry_of_which_it_was_told() {
    for (host, reason, sent) in [
        (CENTRAL, Value::Null, 1),
        (super::cloud::REGISTRY, json!("not-used"), 0),
    ] {
        let registry = named("210987654321");
        let row = ran(&format!("{host}/team/app:v1@{DIGEST}"), 1, day(now()));
        note_use(&mut registry.table.lock().unwrap().1, "web", &row);
        let (answer, commands) = pushed(&registry, RULE, PUSH).await;
        assert_eq!((&answer["reason"], commands), (&reason, sent));
    }
}

#[tokio::test]
async fn an_image_whose_repository_keeps_its_details_from_the_function_is_a_nodes_to_try() {
    let replication = include_str!("../../../../../events/image-push.replication.json");
    let central = replication.replacen("123456789012", "210987654321", 1);
    let registry = named("210987654321");
    registry
        .central
        .lock()
        .unwrap()
        .0
        .fail("DescribeImages", 0, "AccessDeniedException");
    let (answer, sent) = pushed(&registry, RULE, &central).await;
    assert_eq!((&answer["decision"], sent), (&json!("sent"), 1));
    // In this account's registry it is the function's own role that lacks a right: that fails, and is told.
    let registry = named("210987654321");
    registry.fail("DescribeImages", "AccessDeniedException");
    let sends = sending(|_| true);
    assert!(
        answer_with(&sends, &registry, &settings(RULE), replication)
            .await
            .is_err()
    );
}

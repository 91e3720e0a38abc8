//! Reconciles.

use aws_sdk_ssm::types::CommandStatus;
use prefetch::rows::Key;
use serde_json::{Value, json};

use crate::{
    handler::handle_at,
    tests::cloud::{Cloud, FUNCTION, TARGETS, TWO_RULES, command_id, image, now},
};

#[tokio::test]
async fn a_reconcile_sends_every_rules_newest_images_and_waits_for_its_end() {
    let cloud = Cloud::with(TWO_RULES, "false");
    let reconcile = json!({"reconcile": true});
    let answer = cloud.invoke(reconcile.clone(), 0).await.unwrap();
    let expected = json!({"rules": [
        {"rule": "all", "decision": "sent", "commands": [command_id(1)]},
        {"rule": "apps", "decision": "sent", "commands": [command_id(2)]},
    ]});
    assert_eq!(answer, expected);
    let sent = cloud.sent();
    assert_eq!(sent[0].0, "reconcile rule=all attempt=1");
    assert_eq!(sent[0].1, [image("team/app", "v2"), image("team/web", "v1")]);
    assert_eq!(sent[0].2, [TARGETS, "tag:team=web"]);

    cloud.set_command(1, |command| command.status = Some(CommandStatus::Success));
    let answer = cloud.invoke(reconcile.clone(), 3600).await.unwrap();
    assert_eq!(answer["rules"][0]["commands"], json!([command_id(3)]));
    assert_eq!(answer["rules"][1], json!({"rule": "apps", "decision": "still-running"}));
    // Whatever status SSM shows: what has expired goes to no node any more.
    let answer = cloud.invoke(reconcile, 4300).await.unwrap();
    assert_eq!(
        (&answer["rules"][0]["decision"], &answer["rules"][1]["decision"]),
        (&json!("still-running"), &json!("sent"))
    );
}

#[tokio::test]
async fn a_reconcile_costs_the_same_whatever_the_number_of_nodes() {
    let cloud = Cloud::new();
    cloud.invoke(json!({"reconcile": true}), 0).await.unwrap();
    let few = cloud.calls();
    let cloud = Cloud::new();
    for k in 1..=1000 {
        cloud.launch(k, |_| {});
    }
    cloud.invoke(json!({"reconcile": true}), 0).await.unwrap();
    assert_eq!(cloud.calls(), few);
    let expected = [
        "BatchGetItem",
        "DescribeRepositories",
        "DescribeImages",
        "DescribeImages",
        "UpdateItem",
        "SendCommand",
        "UpdateItem",
        "DescribeInstances",
    ];
    assert_eq!(few, expected);
}

#[tokio::test]
async fn two_reconciles_at_one_moment_send_a_rule_once() {
    let cloud = Cloud::new();
    let (one, other) = tokio::join!(
        handle_at(&cloud.jobs, json!({"reconcile": true}), FUNCTION, now()),
        handle_at(
            &cloud.jobs,
            json!({"reconcile": true}),
            FUNCTION,
            now() + chrono::TimeDelta::nanoseconds(1)
        ),
    );
    let mut decisions = [one, other].map(|answer| answer.unwrap()["rules"][0]["decision"].as_str().unwrap().to_owned());
    decisions.sort_unstable();
    assert_eq!(decisions, ["sent", "still-running"]);
    assert_eq!(cloud.sent().len(), 1);
}

#[tokio::test]
async fn a_rule_that_fails_is_told_aloud_and_keeps_no_other_from_its_images() {
    for (call, code) in [
        ("SendCommand", "ThrottlingException"),
        ("DescribeImages", "ServerException"),
        ("UpdateItem", "InternalServerError"),
        ("BatchGetItem", "InternalServerError"),
    ] {
        let cloud = Cloud::with(TWO_RULES, "false");
        cloud.fail(call, 0, code);
        let error = cloud.invoke(json!({"reconcile": true}), 0).await.unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("rules that could not be reconciled: all ("),
            "{call}: {told}"
        );
        assert!(!told.contains("apps"), "{told}");
        // What ECR named of the rule that fails is sent.
        let comments: Vec<String> = cloud.sent().into_iter().map(|(comment, ..)| comment).collect();
        let partly = (call == "DescribeImages").then_some("reconcile rule=all attempt=1");
        let expected = partly.into_iter().chain(["reconcile rule=apps attempt=1"]);
        assert_eq!(comments, expected.collect::<Vec<_>>(), "{call}");
        // Lambda tries again a minute later: only what failed is sent.
        let answer = cloud.invoke(json!({"reconcile": true}), 60).await.unwrap();
        let decisions: Vec<&Value> = answer["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| &rule["decision"])
            .collect();
        assert_eq!(decisions, ["sent", "still-running"], "{call}");
    }
}

/// Makes a registry of which a rule's newest images are some fifty commands.
fn large() -> Cloud {
    let cloud = Cloud::with(LARGE_RULES, "false");
    cloud.state(|state| {
        state.registry.repositories.clear();
        for k in 0..40 {
            let tags = (0..10).map(|tag| format!("v{tag}-{k:0>30}"));
            state.set_repository(&format!("team/app-{k}"), tags);
        }
    });
    cloud
}

const LARGE_RULES: &str = r#"[
    {"name": "first", "repositories": ["team/*"], "newest": 10, "used": false, "neighbours": false},
    {"name": "second", "repositories": ["team/app-0"], "used": false, "neighbours": false}
]"#;

/// Gives the images that were sent by a rule's reconcile, each as often as it was.
fn reconciled(cloud: &Cloud, rule: &str) -> Vec<String> {
    let comment = format!("reconcile rule={rule} attempt=1");
    let sent = cloud.sent().into_iter().filter(|(sent, ..)| *sent == comment);
    let mut images: Vec<String> = sent.flat_map(|(_, images, _)| images).collect();
    images.sort_unstable();
    images
}

#[tokio::test]
async fn a_reconcile_that_stops_in_the_middle_says_so_and_the_next_one_goes_on_there() {
    let reconcile = json!({"reconcile": true});
    // The next hour's, and Lambda's next try.
    for later in [3600, 120] {
        let cloud = large();
        // SSM takes one group, and then nothing.
        for before in [6, 0, 0, 0, 0, 0] {
            cloud.fail("SendCommand", before, "ThrottlingException");
        }
        let error = cloud.invoke(reconcile.clone(), 0).await.unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("rules that could not be reconciled: first ("),
            "{told}"
        );
        assert!(!told.contains("second"), "{told}");
        let some = reconciled(&cloud, "first");
        assert!((1..400).contains(&some.len()), "{}", some.len());
        assert_eq!(reconciled(&cloud, "second").len(), 1);

        let answer = cloud.invoke(reconcile.clone(), later).await.unwrap();
        let mut all = reconciled(&cloud, "first");
        assert_eq!(all.len(), 400);
        all.dedup();
        assert_eq!(all.len(), 400, "nothing is sent twice");
        // The next run waits for all of it, and then begins anew.
        let commands = answer["rules"][0]["commands"].as_array().unwrap().len();
        assert_eq!(commands, cloud.sent().len() - 1);
        let answer = cloud.invoke(reconcile.clone(), later + 60).await.unwrap();
        assert_eq!(answer["rules"][0]["decision"], "still-running");
        cloud.state(|state| {
            state
                .commands
                .iter_mut()
                .for_each(|c| c.status = Some(CommandStatus::Success));
        });
        let answer = cloud.invoke(reconcile.clone(), later + 3600).await.unwrap();
        assert_eq!(answer["rules"][0]["decision"], "sent");
        assert_eq!(reconciled(&cloud, "first").len(), 800);
    }
}

#[tokio::test]
async fn a_reconcile_that_has_no_time_left_sends_no_more_and_the_rule_that_waited_longest_comes_first() {
    let reconcile = json!({"reconcile": true});
    let cloud = large();
    let late = prefetch::aws::within(std::time::Duration::from_secs(9), cloud.invoke(reconcile.clone(), 0)).await;
    assert_eq!(
        late.unwrap_err().to_string(),
        "rules that could not be reconciled: first (there is no time left, and not all was sent), \
         second (there is no time left, and not all was sent)"
    );
    assert!(cloud.sent().is_empty());
    cloud.put(
        &Key::reconcile("first"),
        json!({"started_at": "2026-11-16T01:54:35.049000000Z", "commands": [], "state": "stopped"}),
    );
    cloud.invoke(reconcile, 120).await.unwrap();
    assert_eq!(cloud.sent()[0].0, "reconcile rule=second attempt=1");
    assert_eq!(reconciled(&cloud, "first").len(), 400);
}

#[tokio::test]
async fn commands_of_which_ssm_takes_not_all_are_sent_again_alone() {
    let cloud = large();
    cloud.fail("SendCommand", 2, "ThrottlingException");
    cloud.invoke(json!({"reconcile": true}), 0).await.unwrap_err();
    let most = reconciled(&cloud, "first").len();
    assert!((370..400).contains(&most), "{most}");
    cloud.invoke(json!({"reconcile": true}), 120).await.unwrap();
    let mut all = reconciled(&cloud, "first");
    all.dedup();
    assert_eq!((all.len(), reconciled(&cloud, "first").len()), (400, 400));
}

#[tokio::test]
async fn of_a_rule_of_which_ecr_named_not_all_lambdas_next_try_sends_the_rest_and_the_next_hour_begins_anew() {
    for (seconds, sent) in [(120, 400), (3600, 790)] {
        let cloud = large();
        cloud.fail("DescribeImages", 39, "ServerException");
        cloud.invoke(json!({"reconcile": true}), 0).await.unwrap_err();
        assert_eq!(reconciled(&cloud, "first").len(), 390);
        cloud.state(|state| {
            state
                .commands
                .iter_mut()
                .for_each(|c| c.status = Some(CommandStatus::Success));
        });
        cloud.invoke(json!({"reconcile": true}), seconds).await.unwrap();
        assert_eq!(reconciled(&cloud, "first").len(), sent, "{seconds}");
    }
}

#[tokio::test]
async fn a_rule_whose_reconcile_died_is_taken_by_lambdas_next_try() {
    let cloud = Cloud::new();
    cloud.put(
        &Key::reconcile("default"),
        json!({"started_at": "2026-11-16T01:54:34.049000000Z", "commands": []}),
    );
    for (seconds, decision) in [(59, "still-running"), (60, "sent")] {
        let answer = cloud.invoke(json!({"reconcile": true}), seconds).await.unwrap();
        assert_eq!(answer["rules"][0]["decision"], decision);
    }
}

#[tokio::test]
async fn a_stack_that_was_deployed_is_reconciled_and_a_rule_without_images_is_no_fault() {
    let cloud = Cloud::new();
    cloud.state(|state| state.registry.repositories.clear());
    let event = |status: &str| {
        json!({
            "source": "aws.cloudformation", "detail-type": "CloudFormation Stack Status Change",
            "detail": {"stack-id": "arn:aws:cloudformation:eu-central-1:123456789012:stack/x/1", "status-details": {"status": status}},
        })
    };
    let answer = cloud.invoke(event("CREATE_COMPLETE"), 0).await.unwrap();
    assert_eq!(answer, json!({"rules": [{"rule": "default", "decision": "no-images"}]}));
    let answer = cloud.invoke(event("DELETE_IN_PROGRESS"), 0).await.unwrap();
    assert_eq!(answer["decision"], "ignored");
}

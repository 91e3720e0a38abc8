//! Launches of which several messages tell.

use std::time::{Duration, Instant};

use prefetch::{
    aws,
    instance::launched_at,
    mocks::{self, ecr::ecr},
    rows::Key,
    sender::Sender,
};
use serde_json::json;

use super::{
    cloud::Cloud,
    inputs::{MISSING, ONE, RETRY, RUNNING, batch, launches, now, rule_images, settings},
    services::{Node, instance, node, registry},
};
use crate::handler::SETTLING;

#[tokio::test]
async fn a_launch_of_which_ec2_and_auto_scaling_tell_is_served_once() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let launched = include_str!("../../../../../events/node-launch.asg-launch.json");
    assert_eq!(cloud.answer(RUNNING).await["decision"], "sent");
    let again = cloud.answer(launched).await;
    assert_eq!(
        (&again["decision"], &again["reason"]),
        (&json!("dropped"), &json!("already-sent"))
    );
    assert!(again["message"].as_str().unwrap().contains("command-1"), "{again}");
    // A retry is no launch.
    assert_eq!(cloud.answer(RETRY).await["decision"], "sent");
    assert_eq!(cloud.sent().len(), 2);
    // Ten minutes later it is the operator's who sends it again.
    let event = serde_json::from_str(launched).unwrap();
    let later = now() + Duration::from_mins(11);
    cloud.launch.handle_at(event, later).await.unwrap();
    assert_eq!(cloud.sent().len(), 3);
}

#[tokio::test]
async fn a_launch_that_another_is_serving_is_handed_back_and_is_ours_where_the_other_has_died() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let other = launches(&cloud.table);
    let launch = Key::launch(ONE, launched_at(&instance(&node(ONE))));
    other.claim(&[launch], now().into()).await;
    let answer = cloud.answer(&batch(&[RUNNING.to_owned(), RETRY.to_owned()])).await;
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "0"}]}));
    assert_eq!(cloud.inputs()[0].parameters().unwrap()["images"], [MISSING]);
    // One that does not come again is no dead letter.
    assert_eq!(cloud.handed_back(&[29]).await, 1);
    assert_eq!(cloud.handed_back(&[30]).await, 0);
    let event = serde_json::from_str(RUNNING).unwrap();
    let later = now() + Duration::from_secs(61);
    cloud.launch.handle_at(event, later).await.unwrap();
    assert_eq!(cloud.sent().len(), 2);
}

#[tokio::test]
async fn a_launch_for_which_nothing_was_sent_is_not_held() {
    for nodes in [
        vec![Node {
            refused: true,
            ..node(ONE)
        }],
        vec![Node {
            online: None,
            ..node(ONE)
        }],
    ] {
        let cloud = Cloud::with(nodes);
        assert_eq!(cloud.answer(RUNNING).await["decision"], "handed-back");
        assert!(cloud.table.lock().unwrap().1.rows.is_empty());
    }
}

#[tokio::test]
async fn a_table_that_does_not_answer_keeps_no_node_from_its_images() {
    let cloud = Cloud::with(vec![node(ONE)]);
    for failing in 0..2 {
        let code = "InternalServerError";
        cloud.table.lock().unwrap().0.fail("TransactWriteItems", failing, code);
    }
    assert_eq!(cloud.answer(RUNNING).await["decision"], "sent");
}

#[tokio::test]
async fn sending_leaves_time_to_let_a_launch_go_of_which_nothing_was_sent() {
    let mut cloud = Cloud::with(vec![node(ONE)]);
    cloud.launch.sender = Sender::sending(mocks::silent_ssm());
    let began = Instant::now();
    let answer = aws::within(SETTLING + Duration::from_millis(300), cloud.answer(RUNNING)).await;
    assert_eq!(answer["reason"], "aws-error", "{answer}");
    assert!(began.elapsed() < SETTLING, "{:?}", began.elapsed());
    assert!(cloud.table.lock().unwrap().1.rows.is_empty());
}

#[tokio::test]
async fn a_node_that_comes_back_is_sent_what_it_was_not_sent_before() {
    // The mocked ECR knows nothing of other/app, and fails.
    let rules = r#"[{"name": "default", "repositories": ["team/app", "other/app"]}]"#;
    let mut cloud = Cloud::new(vec![node(ONE)], rules);
    for _ in 0..3 {
        assert_eq!(cloud.answer(RUNNING).await["reason"], "incomplete");
    }
    assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
    let first = cloud.inputs()[0].parameters().unwrap()["images"][0].clone();
    let table = cloud.table.clone();
    let of_app = |newest: usize| {
        let rules = format!(r#"[{{"name": "default", "repositories": ["team/app"], "newest": {newest}}}]"#);
        let ecr = ecr(&registry(), |(calls, registry)| (calls, registry));
        (settings(&rules), rule_images(ecr, &table, &rules))
    };
    // Once ECR names all, what is left is sent, and no more.
    (cloud.launch.settings, cloud.launch.images) = of_app(2);
    let answer = cloud.answer(RUNNING).await;
    let expected =
        json!({"instance": ONE, "decision": "sent", "commands": [{"rule": "default", "command": "command-2"}]});
    assert_eq!(answer, expected);
    let second = cloud.inputs()[1].parameters().unwrap()["images"][0].clone();
    assert!(
        !second.is_empty() && second.split(' ').all(|image| !first.contains(image)),
        "{second}"
    );
    let answer = cloud.answer(RUNNING).await;
    let message = answer["message"].as_str().unwrap();
    assert_eq!(answer["reason"], "already-sent");
    assert!(message.contains("command-1, command-2"), "{message}");

    // Where nothing is left, it was sent what it was sent.
    let mut cloud = Cloud::new(vec![node(ONE)], rules);
    cloud.answer(RUNNING).await;
    (cloud.launch.settings, cloud.launch.images) = of_app(1);
    let answer = cloud.answer(RUNNING).await;
    assert_eq!(
        (&answer["decision"], &answer["commands"][0]["command"]),
        (&json!("sent"), &json!("command-1"))
    );
    assert_eq!(cloud.sent().len(), 1);
}

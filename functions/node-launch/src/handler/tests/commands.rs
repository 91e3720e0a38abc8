//! Commands to nodes.

use std::{collections::BTreeMap, time::Duration};

use prefetch::{
    command::{Comment, MAX_IMAGES_BYTES, Trigger, images_of_commands, images_text},
    image::Image,
    mocks::{
        self,
        time::{Answer as Answered, VirtualTime, patient_config},
    },
    sender::Sender,
    settings::Mode,
};
use serde_json::json;

use super::{
    cloud::Cloud,
    inputs::{DIGEST, LaunchTable, ONE, RUNNING, now, outcomes},
    services::{Node, node},
};
use crate::{
    decision::{Decision, DecisionReason},
    message::{Look, Request},
    newest::Due,
};

#[tokio::test]
async fn one_vanished_node_is_handed_back_and_never_blocks_its_batch() {
    let id = |k: usize| format!("i-0abc0000000000{k:03}");
    let nodes: Vec<Node> = (1..=10)
        .map(|k| Node {
            refused: k == 4,
            ..node(&id(k))
        })
        .collect();
    let cloud = Cloud::with(nodes);
    let answer = cloud
        .answer(include_str!("../../../../../events/node-launch.sqs-ten.json"))
        .await;
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 1);
    let mut sent = cloud.sent().concat();
    sent.sort_unstable();
    assert_eq!(sent, (1..=10).filter(|k| *k != 4).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn nodes_that_iam_refuses_are_handed_back_with_their_reason_and_the_others_served() {
    let id = |k: usize| format!("i-0abc0000000000{k:03}");
    let nodes = (1..=10).map(|k| Node {
        denied: [2, 9].contains(&k),
        ..node(&id(k))
    });
    let cloud = Cloud::with(nodes.collect());
    let requests = (1..=10).map(|k| (Request::Newest(id(k)), Look::Early)).collect();
    let decisions = cloud.launch.decide(&requests, now()).await.unwrap();
    for (request, decision) in decisions {
        let reason = match &decision {
            Decision::HandedBack(why) => Some(why.reason),
            _ => None,
        };
        let denied = [id(2), id(9)].contains(&request.node().to_owned());
        assert_eq!(reason, denied.then_some(DecisionReason::AccessDenied), "{decision:?}");
    }
    // Each answer names one; one command is left, and nobody is asked who is online.
    let others: Vec<String> = (1..=10).filter(|k| ![2, 9].contains(k)).map(id).collect();
    assert_eq!(cloud.sent(), [others]);
    assert_eq!(cloud.calls(), (1, 1, 1));
}

#[tokio::test]
async fn many_images_with_long_names_become_commands_that_ssm_takes() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let image = |k: usize| {
        let tag = format!("{k:040}");
        let registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
        Image::new(registry, &"r".repeat(60), Some(&tag), DIGEST).unwrap()
    };
    let images: Vec<Image> = (0..30).map(image).collect();
    let rule = &cloud.launch.settings.rules[0];
    let due = Due {
        comment: Comment::first(Trigger::Launch, rule),
        images: images.clone(),
        requests: vec![Request::Newest(ONE.to_owned())],
    };
    let decisions = cloud
        .launch
        .send_commands(rule, &[due], now(), &mut BTreeMap::new())
        .await;
    let sent = cloud.inputs();
    let texts: Vec<&str> = sent
        .iter()
        .map(|input| input.parameters().unwrap()["images"][0].as_str())
        .collect();
    assert!(texts.iter().all(|text| text.len() <= MAX_IMAGES_BYTES));
    assert_eq!(texts.join(" "), images_text(&images));
    assert_eq!(decisions.len(), sent.len());
}

#[test]
fn the_commands_of_a_rule_are_sent_five_at_once() {
    let time = VirtualTime::default();
    let config = patient_config(&time, |_| Answered::Taken(Duration::from_millis(500)));
    let mut cloud = Cloud::with(vec![node(ONE)]);
    cloud.launch.sender = Sender::new(&config, Mode::Send, outcomes());
    let repository = |k: usize| {
        let registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
        Image::new(registry, &format!("team/{k:03}"), Some("v1"), DIGEST).unwrap()
    };
    let due = Due {
        comment: Comment::first(Trigger::Launch, &cloud.launch.settings.rules[0]),
        images: (0..400).map(repository).collect(),
        requests: vec![Request::Newest(ONE.to_owned())],
    };
    let commands = images_of_commands(&due.images).count();
    let (launch, mut claimed) = (&cloud.launch, BTreeMap::new());
    let sending = launch.send_commands(
        &launch.settings.rules[0],
        std::slice::from_ref(&due),
        now(),
        &mut claimed,
    );
    let decisions = time.run([sending]).remove(0);
    assert_eq!(decisions.len(), commands);
    assert_eq!(
        time.now(),
        Duration::from_millis(500) * u32::try_from(commands.div_ceil(5)).unwrap()
    );
}

#[tokio::test]
async fn a_command_that_fails_is_sent_alone_at_the_next_look_or_observed() {
    let rules = r#"[{"name": "all", "repositories": ["team/app"]}, {"name": "more", "repositories": ["team/app"]}]"#;
    let mut cloud = Cloud::new(vec![node(ONE)], rules);
    let table = LaunchTable::default();
    let client = mocks::dynamodb(&table, |(calls, table)| (calls, table));
    cloud.launch.sender = Sender::observing(client, outcomes());
    table
        .lock()
        .unwrap()
        .0
        .fail("TransactWriteItems", 1, "AccessDeniedException");
    assert_eq!(cloud.answer(RUNNING).await["reason"], "aws-error");
    table.lock().unwrap().0.take();
    let answer = cloud.answer(RUNNING).await;
    let all = answer["commands"].as_array().unwrap().iter();
    let of: Vec<&str> = all.map(|sent| sent["rule"].as_str().unwrap()).collect();
    assert_eq!((&answer["decision"], of), (&json!("observed"), vec!["all", "more"]));
    assert_eq!(table.lock().unwrap().0.take(), ["TransactWriteItems"]);
}

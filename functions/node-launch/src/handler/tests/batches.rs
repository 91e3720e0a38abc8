//! Batches of messages.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::InstanceStateName;
use aws_sdk_ssm::types::PingStatus;
use prefetch::command::MAX_INSTANCES;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    cloud::Cloud,
    inputs::{CLUSTER_TAG, ONE, now, received},
    services::{Node, node},
};
use crate::{
    decision::Decision,
    message::{Look, Request},
};

#[tokio::test]
async fn a_batch_of_one_costs_three_calls_and_two_transactions_beside_ecr_and_hands_nothing_back() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let event = include_str!("../../../../../events/node-launch.sqs-one.json");
    assert_eq!(cloud.answer(event).await, json!({"batchItemFailures": []}));
    assert_eq!(cloud.calls(), (1, 1, 1));
    assert_eq!(
        cloud.table.lock().unwrap().0.take(),
        ["TransactWriteItems", "Query", "TransactWriteItems"]
    );
}

#[tokio::test]
async fn of_a_mixed_batch_only_what_may_still_come_online_is_handed_back() {
    let id = |k: usize| format!("i-0abc0000000000{k:03}");
    let cloud = Cloud::with(vec![
        node(&id(1)),
        Node {
            tag: (CLUSTER_TAG, "other"),
            ..node(&id(2))
        },
        Node {
            state: InstanceStateName::Terminated,
            ..node(&id(3))
        },
        // 4 is gone.
        Node {
            online: None,
            ..node(&id(5))
        },
        Node {
            online: Some(PingStatus::ConnectionLost),
            ..node(&id(6))
        },
        Node {
            tag: ("team", "web"),
            ..node(&id(7))
        },
        Node {
            tag: ("kubernetes.io/cluster/other", "owned"),
            ..node(&id(8))
        },
        Node {
            auto_mode: true,
            ..node(&id(9))
        },
        Node {
            state: InstanceStateName::Pending,
            ..node(&id(10))
        },
    ]);
    let answer = cloud
        .answer(include_str!("../../../../../events/node-launch.sqs-ten.json"))
        .await;
    let handed_back: Vec<&str> = answer["batchItemFailures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| {
            failure["itemIdentifier"]
                .as_str()
                .unwrap()
                .rsplit_once("6619757")
                .unwrap()
                .1
        })
        .collect();
    assert_eq!(handed_back, ["00005", "00006", "00007", "00010"]);
    assert_eq!(cloud.sent(), [vec![id(1)]]);
}

#[tokio::test]
async fn a_poison_message_neither_holds_up_the_others_nor_comes_back() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let answer = cloud
        .answer(include_str!("../../../../../events/node-launch.sqs-poison.json"))
        .await;
    assert_eq!(answer, json!({"batchItemFailures": []}));
    assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
}

#[tokio::test]
async fn two_messages_of_one_instance_become_one_command_and_are_handed_back_together() {
    let once: Value = serde_json::from_str(include_str!("../../../../../events/node-launch.sqs-one.json")).unwrap();
    let mut twice = once.clone();
    twice["Records"]
        .as_array_mut()
        .unwrap()
        .push(once["Records"][0].clone());
    twice["Records"][1]["messageId"] = "second".into();

    let online = Cloud::with(vec![node(ONE)]);
    online.answer(&twice.to_string()).await;
    assert_eq!(online.sent(), [vec![ONE.to_owned()]]);

    let offline = Cloud::with(vec![Node {
        online: None,
        ..node(ONE)
    }]);
    let answer = offline.answer(&twice.to_string()).await;
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_message_that_does_not_come_again_is_no_dead_letter_while_another_asks_for_the_same() {
    let untagged = Node {
        tag: ("team", "web"),
        ..node(ONE)
    };
    let offline = Node {
        online: None,
        ..node(ONE)
    };
    for (node, receives) in [(untagged, [30, 24]), (offline.clone(), [30, 29])] {
        let answer = Cloud::with(vec![node]).answer(&received(&receives)).await;
        assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "1"}]}));
    }
    assert_eq!(Cloud::with(vec![offline]).handed_back(&[30, 30]).await, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_online_node_is_in_exactly_one_command_and_none_has_over_fifty(nodes in prop::collection::vec((any::<bool>(), 0..20u8), 1..160)) {
        let id = |k: usize| format!("i-0abc0000000000{k:03}");
        // One in twenty is refused by SSM although it is online.
        let refused = |state: u8| state == 0;
        let all = nodes.iter().enumerate().map(|(k, (online, state))| Node {
            online: online.then_some(PingStatus::Online),
            refused: refused(*state),
            ..node(&id(k))
        }).collect();
        let cloud = Cloud::with(all);
        let ids: BTreeMap<Request, Look> = (0..nodes.len()).map(|k| (Request::Newest(id(k)), Look::Early)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let decisions = runtime.block_on(cloud.launch.decide(&ids, now())).unwrap();
        let sent = cloud.sent();
        prop_assert!(sent.iter().all(|ids| ids.len() <= MAX_INSTANCES));
        let mut sent = sent.concat();
        sent.sort_unstable();
        let wanted: Vec<String> = nodes.iter().enumerate().filter(|(_, (online, state))| *online && !refused(*state)).map(|(k, _)| id(k)).collect();
        prop_assert_eq!(&sent, &wanted);
        for id in ids.keys() {
            prop_assert_eq!(matches!(decisions[id], Decision::Sent { .. }), wanted.contains(&id.node().to_owned()));
            prop_assert_eq!(matches!(decisions[id], Decision::HandedBack(_)), !wanted.contains(&id.node().to_owned()));
        }
    }
}

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_ec2::{
    operation::describe_instances::DescribeInstancesOutput,
    primitives::DateTime,
    types::{InstanceState, InstanceStateName, OperatorResponse, Reservation, Tag},
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
    types::{Command, PingStatus, error::InvalidInstanceId},
};
use aws_smithy_mocks::{MockResponse, Rule as Mock, RuleMode, mock, mock_client};
use prefetch::{
    command::{MAX_IMAGES_BYTES, images_text, is_unsent_id},
    fault,
    mocks::{
        self, Calls, Table,
        time::{Answer as Answered, VirtualTime, patient_config},
    },
    settings::{Mode, Outcomes},
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Duration = Duration::from_secs(1_794_793_474);
const ONE: &str = "i-0abc0000000000001";
const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

const JOB: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";
const CLUSTER_TAG: &str = "aws:eks:cluster-name";
const RUNNING: &str = include_str!("../../../../events/node-launch.running.json");
const RETRY: &str = include_str!("../../../../events/node-launch.retry.json");
const MISSING: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1.4.2@sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

#[tokio::test]
async fn every_event_by_which_a_node_is_launched_ends_with_its_newest_image() {
    for event in [
        include_str!("../../../../events/node-launch.running.json"),
        include_str!("../../../../events/node-launch.asg-launch.json"),
        include_str!("../../../../events/node-launch.lifecycle.json"),
    ] {
        let cloud = Cloud::with(vec![node(ONE)]);
        let expected =
            json!({"instance": ONE, "decision": "sent", "commands": [{"rule": "default", "command": "command-1"}]});
        assert_eq!(cloud.answer(event).await, expected);
        assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
    }
}

#[tokio::test]
async fn an_event_whose_time_is_none_launches_its_node_all_the_same() {
    let mut event: Value = serde_json::from_str(include_str!("../../../../events/node-launch.running.json")).unwrap();
    event["time"] = json!("yesterday");
    let cloud = Cloud::with(vec![node(ONE)]);
    assert_eq!(cloud.answer(&event.to_string()).await["decision"], "sent");
}

#[tokio::test]
async fn an_event_that_launches_no_node_is_dropped_without_a_call() {
    for (event, reason) in [
        (
            include_str!("../../../../events/node-launch.terminated.json"),
            "not-running",
        ),
        (
            include_str!("../../../../events/node-launch.no-event.json"),
            "malformed",
        ),
        (
            include_str!("../../../../events/image-push.tagged.json"),
            "not-a-launch",
        ),
        (r#"{"Records": 1}"#, "malformed"),
        ("null", "malformed"),
    ] {
        let cloud = Cloud::with(vec![node(ONE)]);
        let answer = cloud.answer(event).await;
        assert_eq!(
            (answer["decision"].as_str(), answer["reason"].as_str()),
            (Some("dropped"), Some(reason)),
            "{event}"
        );
        assert_eq!(cloud.calls(), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_batch_of_one_costs_three_calls_and_two_transactions_beside_ecr_and_hands_nothing_back() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let event = include_str!("../../../../events/node-launch.sqs-one.json");
    assert_eq!(cloud.answer(event).await, json!({"batchItemFailures": []}));
    assert_eq!(cloud.calls(), (1, 1, 1));
    assert_eq!(cloud.table.lock().unwrap().0.take(), ["TransactWriteItems"; 2]);
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
        .answer(include_str!("../../../../events/node-launch.sqs-ten.json"))
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
        .answer(include_str!("../../../../events/node-launch.sqs-poison.json"))
        .await;
    assert_eq!(answer, json!({"batchItemFailures": []}));
    assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
}

#[tokio::test]
async fn two_messages_of_one_instance_become_one_command_and_are_handed_back_together() {
    let once: Value = serde_json::from_str(include_str!("../../../../events/node-launch.sqs-one.json")).unwrap();
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
async fn a_launch_of_which_ec2_and_auto_scaling_tell_is_served_once() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let launched = include_str!("../../../../events/node-launch.asg-launch.json");
    assert_eq!(cloud.answer(RUNNING).await["decision"], "sent");
    let again = cloud.answer(launched).await;
    assert_eq!(
        (&again["decision"], &again["reason"]),
        (&json!("dropped"), &json!("already-sent"))
    );
    assert!(again["message"].as_str().unwrap().contains("command-1"), "{again}");
    // A further try is no launch.
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
async fn a_node_that_joins_only_now_is_served_by_the_rules_that_want_its_tags() {
    for tag in [
        ("eks:cluster-name", "prod"),
        ("eks:eks-cluster-name", "prod"),
        ("kubernetes.io/cluster/prod", "owned"),
    ] {
        let joining = Node { tag, ..node(ONE) };
        let wanted = Node {
            team: Some("ml"),
            ..joining.clone()
        };
        let gpu = r#"[{"name": "gpu", "repositories": ["team/app"], "nodes": {"team": ["ml"]}}]"#;
        let cloud = Cloud::new(vec![wanted], gpu);
        assert_eq!(cloud.answer(RUNNING).await["decision"], "sent", "{tag:?}");
        assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
        // A controller may still put on the rule's tag, until the node has joined.
        let cloud = Cloud::new(vec![joining], gpu);
        let answer = cloud.answer(RUNNING).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!("handed-back"), &json!("no-rule"))
        );
        assert_eq!(cloud.handed_back(&[24]).await, 1);
        assert_eq!(cloud.handed_back(&[25]).await, 0);
        assert!(cloud.sent().is_empty());
    }
}

#[tokio::test]
async fn an_instance_that_no_tag_calls_a_node_is_dropped_before_one_lost_receive_is_a_dead_letter() {
    let untagged = Node {
        tag: ("team", "web"),
        ..node(ONE)
    };
    let cloud = Cloud::with(vec![untagged]);
    let told = cloud.answer(RUNNING).await;
    assert_eq!(
        (&told["decision"], &told["reason"]),
        (&json!("handed-back"), &json!("not-tagged"))
    );
    for (receives, handed_back) in [(1, 1), (24, 1), (25, 0), (29, 0), (30, 0)] {
        assert_eq!(cloud.handed_back(&[receives]).await, handed_back, "{receives}");
    }
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

#[tokio::test]
async fn nodes_of_several_rules_get_a_command_for_each_with_the_rules_own_limits() {
    let rules = r#"[{"name": "all", "repositories": ["team/app"]},
        {"name": "gpu", "repositories": ["team/app"], "nodes": {"team": ["ml"]}, "maxConcurrency": "1"},
        {"name": "other", "nodes": {"team": ["web"]}}]"#;
    let cloud = Cloud::new(
        vec![Node {
            team: Some("ml"),
            ..node(ONE)
        }],
        rules,
    );
    let answer = cloud
        .answer(include_str!("../../../../events/node-launch.running.json"))
        .await;
    let of: Vec<&str> = answer["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["rule"].as_str().unwrap())
        .collect();
    assert_eq!(of, ["all", "gpu"]);
    let inputs = cloud.inputs();
    assert_eq!(
        (inputs[0].max_concurrency(), inputs[1].max_concurrency()),
        (Some("50"), Some("1"))
    );
    assert_eq!(inputs[1].comment(), Some("launch rule=gpu attempt=1"));
}

#[tokio::test]
async fn a_further_try_sends_the_missing_images_alone_and_names_its_job() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let expected =
        json!({"instance": ONE, "decision": "sent", "commands": [{"rule": "default", "command": "command-1"}]});
    assert_eq!(cloud.answer(RETRY).await, expected);
    let input = cloud.inputs().remove(0);
    assert_eq!(
        input.comment(),
        Some(&*format!("push rule=default attempt=2 job={JOB}"))
    );
    assert_eq!(input.parameters().unwrap()["images"], [MISSING]);
    assert_eq!(
        (input.instance_ids(), cloud.describe_images.num_calls()),
        (&[ONE.to_owned()][..], 0)
    );
}

#[tokio::test]
async fn a_further_try_of_a_node_that_is_gone_stopping_foreign_or_without_its_rule_is_dropped() {
    let other = r#"[{"name": "other", "repositories": ["team/app"]}]"#;
    let default = r#"[{"name": "default", "repositories": ["team/app"]}]"#;
    let stopping = Node {
        state: InstanceStateName::ShuttingDown,
        ..node(ONE)
    };
    let foreign = Node {
        tag: (CLUSTER_TAG, "other"),
        ..node(ONE)
    };
    for (nodes, rules, reason) in [
        (vec![], default, "gone"),
        (vec![stopping], default, "not-running"),
        (vec![foreign], default, "foreign"),
        (vec![node(ONE)], other, "no-rule"),
    ] {
        let cloud = Cloud::new(nodes, rules);
        let answer = cloud.answer(RETRY).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!("dropped"), &json!(reason))
        );
        assert!(cloud.sent().is_empty());
    }
}

#[tokio::test]
async fn a_further_try_of_a_node_that_is_not_online_is_handed_back() {
    let cloud = Cloud::with(vec![Node {
        online: None,
        ..node(ONE)
    }]);
    let answer = cloud.answer(&batch(&[RETRY.to_owned()])).await;
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn launches_and_further_tries_of_one_node_do_not_disturb_each_other() {
    let cloud = Cloud::new(
        vec![node(ONE)],
        r#"[{"name": "default", "repositories": ["team/app"]}, {"name": "gpu", "nodes": {"team": ["ml"]}}]"#,
    );
    let launch = include_str!("../../../../events/node-launch.running.json");
    let third = RETRY.replace(r#""attempt": 2"#, r#""attempt": 3"#);
    // A try by a rule that no more wants the node's tags is made all the same.
    let of_other_rule = RETRY.replace("default", "gpu");
    let of_no_rule = RETRY.replace("default", "none");
    let messages = [launch, RETRY, RETRY, &third, &of_other_rule, &of_no_rule].map(str::to_owned);
    assert_eq!(cloud.answer(&batch(&messages)).await, json!({"batchItemFailures": []}));
    let comments: Vec<String> = cloud
        .inputs()
        .iter()
        .map(|input| input.comment().unwrap().to_owned())
        .collect();
    assert_eq!(
        comments,
        [
            "launch rule=default attempt=1".to_owned(),
            format!("push rule=default attempt=2 job={JOB}"),
            format!("push rule=default attempt=3 job={JOB}"),
            format!("push rule=gpu attempt=2 job={JOB}"),
        ]
    );
    assert_eq!(cloud.calls(), (1, 1, 4));
}

#[tokio::test]
async fn nodes_that_lack_the_same_images_of_a_job_share_commands_of_fifty() {
    let id = |k: usize| format!("i-0abc0000000000{k:03}");
    let nodes = (0..60).map(|k| Node {
        refused: k == 7,
        ..node(&id(k))
    });
    let cloud = Cloud::with(nodes.collect());
    let messages: Vec<String> = (0..60).map(|k| RETRY.replace(ONE, &id(k))).collect();
    let answer = cloud.answer(&batch(&messages)).await;
    assert_eq!(answer["batchItemFailures"], json!([{"itemIdentifier": "7"}]));
    assert_eq!(cloud.sent().concat().len(), 59);
    assert!(cloud.sent().iter().all(|ids| ids.len() <= MAX_INSTANCES));
}

#[tokio::test]
async fn a_further_try_that_is_malformed_is_dropped() {
    for message in [
        RETRY.replace(JOB, "job"),
        RETRY.replace(ONE, "i-1"),
        RETRY.replace("push", "shove"),
        RETRY.replace("default", "Default"),
        RETRY.replace(r#""attempt": 2"#, r#""attempt": 10"#),
        RETRY.replace(MISSING, "").replace("\"\"", ""),
        RETRY.replace("sha256:7f", "sha256:xf"),
        r#"{"job": 1}"#.to_owned(),
    ] {
        let cloud = Cloud::with(vec![node(ONE)]);
        assert_eq!(cloud.answer(&message).await["reason"], "malformed", "{message}");
        assert_eq!(cloud.calls(), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_node_that_no_rule_wants_is_dropped() {
    let cloud = Cloud::new(vec![node(ONE)], r#"[{"name": "gpu", "nodes": {"team": ["ml"]}}]"#);
    let answer = cloud
        .answer(include_str!("../../../../events/node-launch.running.json"))
        .await;
    assert_eq!(answer["reason"], "no-rule");
    assert_eq!(cloud.calls(), (1, 0, 0));
}

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
        .answer(include_str!("../../../../events/node-launch.sqs-ten.json"))
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
        assert_eq!(reason, denied.then_some(Reason::AccessDenied), "{decision:?}");
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
    let of_app = |newest: usize| {
        let rules = format!(r#"[{{"name": "default", "repositories": ["team/app"], "newest": {newest}}}]"#);
        let images = NewestImages::with_client(ecr().1, "us-east-1".to_owned(), &settings(&rules));
        (settings(&rules), images)
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

#[tokio::test]
async fn a_command_that_fails_is_sent_alone_at_the_next_look_or_observed() {
    let rules = r#"[{"name": "all", "repositories": ["team/app"]}, {"name": "more", "repositories": ["team/app"]}]"#;
    let mut cloud = Cloud::new(vec![node(ONE)], rules);
    let table = State::default();
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

#[tokio::test]
async fn a_storm_of_launches_asks_ecr_once_in_thirty_seconds() {
    let id = |k: usize| format!("i-0abc0000000000{k:03}");
    let cloud = Cloud::with((1..=4).map(|k| node(&id(k))).collect());
    for (k, seconds, asked) in [(1, 0, 1), (2, 10, 1), (3, 29, 1), (4, 31, 2)] {
        let event = serde_json::from_str(&RUNNING.replace(ONE, &id(k))).unwrap();
        let at = now() + Duration::from_secs(seconds);
        cloud.launch.handle_at(event, at).await.unwrap();
        assert_eq!(cloud.describe_images.num_calls(), asked);
    }
}

#[tokio::test]
async fn where_ecr_tells_of_some_repositories_only_a_node_gets_those_and_comes_back_for_the_rest() {
    // The mocked ECR knows nothing of other/app, and fails.
    let rules = r#"[{"name": "default", "repositories": ["team/app", "other/app"]}]"#;
    let cloud = Cloud::new(vec![node(ONE)], rules);
    let event = include_str!("../../../../events/node-launch.running.json");
    let answer = cloud.answer(event).await;
    assert_eq!(
        (&answer["decision"], &answer["reason"]),
        (&json!("handed-back"), &json!("incomplete")),
        "{answer}"
    );
    assert!(answer["message"].as_str().unwrap().contains("other/app"), "{answer}");
    assert_eq!(cloud.sent(), [vec![ONE.to_owned()]]);
    let images = cloud.inputs()[0].parameters().unwrap()["images"][0].clone();
    assert!(images.contains("team/app:v3@"), "{images}");
    // Where it tells of none, nothing is sent.
    let rules = r#"[{"name": "default", "repositories": ["other/app"]}]"#;
    let cloud = Cloud::new(vec![node(ONE)], rules);
    assert_eq!(cloud.answer(event).await["reason"], "aws-error");
    assert!(cloud.sent().is_empty());
}

#[tokio::test]
async fn where_the_stack_observes_a_launch_and_a_further_try_become_rows_and_no_command() {
    let two = "i-0abc0000000000002";
    let mut cloud = Cloud::with(vec![node(ONE), node(two)]);
    let table = Arc::new(std::sync::Mutex::new((Calls::default(), Table::default())));
    cloud.launch.sender = Sender::observing(mocks::dynamodb(&table, |(calls, table)| (calls, table)), outcomes());
    let running: Value = serde_json::from_str(include_str!("../../../../events/node-launch.running.json")).unwrap();
    let mut other = running.clone();
    other["detail"]["instance-id"] = two.into();
    let batch = batch(&[running.to_string(), other.to_string(), RETRY.to_owned()]);
    // A message may be delivered more than once.
    for _ in 0..2 {
        assert_eq!(cloud.answer(&batch).await, json!({"batchItemFailures": []}));
    }
    let answer = cloud.answer(RETRY).await;
    assert_eq!(answer["decision"], "observed");
    assert!(is_unsent_id(answer["commands"][0]["command"].as_str().unwrap()));

    let table = &table.lock().unwrap().1;
    let jobs = table.rows.keys().filter(|key| key.sk == "job");
    let mut rows: Vec<Value> = jobs.map(|key| table.row(key).unwrap()).collect();
    rows.sort_by_key(|row| row["attempt"].as_u64());
    let [launched, retried] = &rows[..] else {
        panic!("{rows:?}")
    };
    assert_eq!(
        (&launched["trigger"], &launched["destination"], &launched["targets"]),
        (&json!("launch"), &json!({"ids": [ONE, two]}), &json!(2))
    );
    assert_eq!(
        (&retried["retry_of"], &retried["images"], &retried["destination"]),
        (&json!(JOB), &json!([MISSING]), &json!({"ids": [ONE]}))
    );
    assert!(cloud.inputs().is_empty());
}

#[tokio::test]
async fn an_error_of_ec2_fails_the_call_with_its_cause() {
    let cloud = Cloud::with(vec![node(ONE)]);
    let failing = mock!(aws_sdk_ec2::Client::describe_instances).then_error(|| {
        aws_sdk_ec2::operation::describe_instances::DescribeInstancesError::generic(
            aws_sdk_ec2::error::ErrorMetadata::builder()
                .code("UnauthorizedOperation")
                .message("not allowed")
                .build(),
        )
    });
    let launch = NodeLaunch {
        ec2: mock_client!(aws_sdk_ec2, [&failing]),
        ..cloud.launch
    };
    let event = serde_json::from_str(include_str!("../../../../events/node-launch.sqs-one.json")).unwrap();
    let diagnostic = Diagnostic::from(launch.handle(event).await.unwrap_err());
    assert_eq!(diagnostic.error_type, "LaunchError");
    assert!(
        diagnostic.error_message.contains("UnauthorizedOperation"),
        "{}",
        diagnostic.error_message
    );
}

#[tokio::test]
async fn wildcard_rules_take_the_newest_of_every_repository_by_each_tag_they_take() {
    let rules = r#"[{"name": "default", "repositories": ["team/*"], "tags": ["v*"], "newest": 2}]"#;
    let cloud = Cloud::new(vec![node(ONE)], rules);
    cloud
        .answer(include_str!("../../../../events/node-launch.running.json"))
        .await;
    let images = cloud.inputs()[0].parameters().unwrap()["images"][0].clone();
    let tags: Vec<&str> = images
        .split(' ')
        .map(|image| image.rsplit_once('@').unwrap().0.rsplit_once('/').unwrap().1)
        .collect();
    assert_eq!(tags, ["app:v3.0", "app:v3", "app:v2"]);
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

/// An instance as EC2 and SSM know it.
#[derive(Clone)]
struct Node {
    id: String,
    /// The tag that calls it a node.
    tag: (&'static str, &'static str),
    team: Option<&'static str>,
    state: InstanceStateName,
    auto_mode: bool,
    online: Option<PingStatus>,
    /// SSM answers InvalidInstanceId for it.
    refused: bool,
    /// IAM does not permit the command on it.
    denied: bool,
}

/// A node of the cluster, online for some minutes.
fn node(id: &str) -> Node {
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

/// The function before mocked AWS services that answer of these nodes.
struct Cloud {
    launch: NodeLaunch,
    describe_instances: Mock,
    describe_nodes: Mock,
    describe_images: Mock,
    table: State,
    sent: Arc<std::sync::Mutex<Vec<SendCommandInput>>>,
}

impl Cloud {
    fn with(nodes: Vec<Node>) -> Self {
        Self::new(nodes, r#"[{"name": "default", "repositories": ["team/app"]}]"#)
    }

    fn new(nodes: Vec<Node>, rules: &str) -> Self {
        let nodes = Arc::new(nodes);
        let (describe_instances, ec2) = ec2(&nodes);
        let (describe_images, ecr) = ecr();
        let (describe_nodes, ssm, sent) = ssm(&nodes);
        let table = State::default();
        let launch = NodeLaunch {
            ec2,
            launches: launches(&table),
            sender: Sender::sending(ssm.clone()),
            ssm,
            images: NewestImages::with_client(ecr, "us-east-1".to_owned(), &settings(rules)),
            settings: settings(rules),
            max_receives: 30,
        };
        Self {
            launch,
            describe_instances,
            describe_nodes,
            describe_images,
            table,
            sent,
        }
    }

    async fn answer(&self, event: &str) -> Value {
        let answer = self
            .launch
            .handle_at(serde_json::from_str(event).unwrap(), now())
            .await
            .unwrap();
        serde_json::to_value(answer).unwrap()
    }

    /// How many messages of one launch that were received so often are handed back.
    async fn handed_back(&self, receives: &[u32]) -> usize {
        let answer = self.answer(&received(receives)).await;
        answer["batchItemFailures"].as_array().unwrap().len()
    }

    fn inputs(&self) -> Vec<SendCommandInput> {
        self.sent.lock().unwrap().clone()
    }

    fn sent(&self) -> Vec<Vec<String>> {
        self.inputs()
            .iter()
            .map(|input| input.instance_ids().to_vec())
            .collect()
    }

    /// Calls of DescribeInstances, DescribeInstanceInformation and SendCommand that succeeded.
    fn calls(&self) -> (usize, usize, usize) {
        (
            self.describe_instances.num_calls(),
            self.describe_nodes.num_calls(),
            self.inputs().len(),
        )
    }
}

fn ec2(nodes: &Arc<Vec<Node>>) -> (Mock, aws_sdk_ec2::Client) {
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

fn instance(node: &Node) -> Instance {
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

fn ecr() -> (Mock, aws_sdk_ecr::Client) {
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

type Inputs = Arc<std::sync::Mutex<Vec<SendCommandInput>>>;

fn ssm(nodes: &Arc<Vec<Node>>) -> (Mock, aws_sdk_ssm::Client, Inputs) {
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

type State = Arc<std::sync::Mutex<(Calls, Table)>>;

fn launches(table: &State) -> Launches {
    Launches::with_client(mocks::dynamodb(table, |(calls, table)| (calls, table)), "outcomes")
}

/// Messages of one launch as a batch of SQS, each with how often it was received, and with their places as message ids.
fn received(receives: &[u32]) -> String {
    let record = |(place, receives): (usize, &u32)| {
        let attributes = json!({"ApproximateReceiveCount": receives.to_string()});
        json!({"messageId": place.to_string(), "body": RUNNING, "attributes": attributes})
    };
    let records: Vec<Value> = receives.iter().enumerate().map(record).collect();
    json!({"Records": records}).to_string()
}

/// These bodies as a batch of SQS, with their places as message ids.
fn batch(bodies: &[String]) -> String {
    let record = |(place, body): (usize, &String)| json!({"messageId": place.to_string(), "body": body});
    let records: Vec<Value> = bodies.iter().enumerate().map(record).collect();
    json!({"Records": records}).to_string()
}

fn outcomes() -> Outcomes {
    Outcomes {
        table: "outcomes".to_owned(),
        retention: Duration::from_hours(24),
    }
}

fn settings(rules: &str) -> Settings {
    Settings::read(|name| {
        Some(match name {
            "MODE" => "send".to_owned(),
            "CLUSTER_NAME" => "prod".to_owned(),
            "CLUSTER_TAG_KEY" => "aws:eks:cluster-name".to_owned(),
            "DOCUMENT_NAME" => "prefetch-images".to_owned(),
            "RULES" => rules.to_owned(),
            "DELIVERY_TIMEOUT_SECONDS" => "600".to_owned(),
            "EXECUTION_TIMEOUT_SECONDS" => "3600".to_owned(),
            "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85".to_owned(),
            "MAX_PARALLEL_IMAGE_PULLS" => "2".to_owned(),
            "MAX_CONNECTIONS" => "3".to_owned(),
            "LAUNCH_MAX_CONNECTIONS" => "20".to_owned(),
            "MAX_BANDWIDTH_MIB" => "0".to_owned(),
            _ => return None,
        })
    })
    .unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

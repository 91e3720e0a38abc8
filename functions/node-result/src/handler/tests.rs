mod boot;
mod inventory;
mod launch_hook;
mod not_applicable;
mod retry;

use aws_sdk_dynamodb::types::AttributeValue;
use prefetch::command::{MAX_IMAGES, Trigger};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cloud::{
    COMMAND, Cloud, Invocation, THROTTLED, command_id, event_of, event_of_command, image, line, node_id, now,
};

const SUCCESS: &str = include_str!("../../../../events/node-result.success.json");
const FAILED: &str = include_str!("../../../../events/node-result.failed.json");
const OVERDUE: &str = include_str!("../../../../events/node-result.overdue.json");
const OF_COMMAND: &str = include_str!("../../../../events/node-result.command.json");
const WITHOUT_NODES: &str = include_str!("../../../../events/node-result.command-without-nodes.json");

#[tokio::test]
async fn a_node_that_pulled_is_known_counted_recorded_and_measured() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    let expected =
        json!({"decision": "settled", "job": COMMAND, "node": node_id(1), "status": "pulled", "retrying": false});
    assert_eq!(cloud.answer(SUCCESS).await, expected);
    assert_eq!(
        cloud.calls(),
        [
            "GetCommandInvocation",
            "BatchGetItem",
            "TransactWriteItems",
            "PutObject",
            "DeleteItem"
        ]
    );
    let expected = json!({
        "pk": format!("job#{COMMAND}"), "sk": format!("node#{}", node_id(1)), "version": 1, "attempt": 1, "status": "pulled",
        "retrying": false, "ended_at": "2026-11-16T01:54:44.049Z", "warm_at": "2026-11-16T01:54:44.049Z", "command": COMMAND, "expires_at": 1_797_386_094,
        "outbox": format!("{COMMAND}-{}-1", node_id(1)),
        "images": {image(1): {
            "status": "pulled", "reason": "", "seconds": 0.412, "bytes": 25_166_482, "attempts": 1, "attempt": 1,
            "reported": true,
        }},
    });
    assert_eq!(cloud.node(1), expected);
    let expected = json!({
        "pk": format!("job#{COMMAND}"), "sk": "job", "trigger": "push", "rule": "default",
        "requested_at": "2026-11-16T01:54:34.049Z", "expires_at": 1_797_386_094, "pulled": 1, "cached": 0, "skipped": 0,
        "failed": 0, "not_applicable": 0, "retrying": 0, "retried": 0, "bytes": 25_166_482, "slowest_seconds": 10, "slowest_node": node_id(1),
    });
    assert_eq!(cloud.job(), expected);
    let totals = cloud.row(&Key::totals(Trigger::Push)).unwrap();
    assert_eq!(
        (&totals["jobs"], &totals["pulled"], &totals["bytes"]),
        (&json!(1), &json!(1), &json!(25_166_482))
    );
    let key = format!("records/trigger=push/date=2026-11-16/{COMMAND}-{}-1.jsonl", node_id(1));
    assert!(cloud.state(|state| state.objects.contains_key(&key)));
    let expected = json!({
        "time": "2026-11-16T01:54:44.049Z", "cluster": "prod", "job": COMMAND, "command": COMMAND, "rule": "default",
        "requested_by": null, "node": node_id(1), "attempt": 1, "image": image(1), "repository": "team/app", "tag": "v1.4.2",
        "digest": "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678", "status": "pulled",
        "reason": "", "seconds": 0.412, "bytes": 25_166_482, "pull_attempts": 1, "retrying": false,
    });
    assert_eq!(cloud.records(), [expected]);
    assert_eq!(cloud.metric("NodesPulled"), [1.0]);
    assert_eq!(
        (cloud.metric("PullSeconds"), cloud.metric("TimeToWarm")),
        (vec![0.412], vec![10.0])
    );
    assert_eq!((cloud.outboxes(), cloud.retries()), (0, Vec::new()));
}

#[tokio::test]
async fn who_asked_for_a_job_stays_in_its_row_and_stands_in_its_records_whichever_was_written_first() {
    const WHO: &str = "arn:aws:sts::123456789012:assumed-role/deployer/pipeline-7";
    let asked = |cloud: &Cloud| {
        cloud.state(|state| {
            let row = state
                .table
                .rows
                .entry(Key::job(COMMAND))
                .or_insert_with(|| Key::job(COMMAND).item());
            row.insert("requested_by".to_owned(), AttributeValue::S(WHO.to_owned()));
        });
    };
    let cloud = || {
        let cloud = Cloud::new();
        let line = line(&image(1), "pulled", "");
        let ended = || Invocation::reporting(line.clone());
        cloud.send(1, "job rule=default attempt=1", &[1], [(1, ended()), (2, ended())]);
        cloud
    };
    let who = |cloud: &Cloud| -> Vec<Value> {
        cloud
            .records()
            .into_iter()
            .map(|record| record["requested_by"].clone())
            .collect()
    };
    let (before, between) = (cloud(), cloud());
    asked(&before);
    before.answer(&event_of(1, 1)).await;
    between.answer(&event_of(1, 1)).await;
    asked(&between);
    for cloud in [&before, &between] {
        for event in [event_of(1, 2), event_of(1, 2), event_of_command(1)] {
            cloud.answer(&event).await;
        }
        let job = cloud.job();
        assert_eq!(
            (&job["requested_by"], &job["trigger"], &job["pulled"], &job["targets"]),
            (&json!(WHO), &json!("job"), &json!(2), &json!(2))
        );
        assert_eq!(job["requested_at"], "2026-11-16T01:54:34.049Z");
        assert_eq!(cloud.row(&Key::totals(Trigger::Job)).unwrap()["jobs"], 1);
    }
    assert_eq!(who(&before), [WHO, WHO]);
    assert_eq!(who(&between), [Value::Null, json!(WHO)]);
}

#[tokio::test]
async fn whatever_ssm_says_of_a_command_without_a_report_is_its_images_reason() {
    let cases = [
        ("TimedOut", "DeliveryTimedOut", "delivery-timed-out", true),
        ("TimedOut", "Delivery Timed Out", "delivery-timed-out", true),
        ("TimedOut", "ExecutionTimedOut", "execution-timed-out", true),
        ("Failed", "Undeliverable", "undeliverable", true),
        ("Failed", "Terminated", "terminated", true),
        ("Failed", "RateExceeded", "rate-exceeded", true),
        ("Failed", "Failed", "unreported", true),
        ("Success", "Success", "unreported", true),
        ("Failed", "SomethingNew", "unreported", true),
        ("Cancelled", "Cancelled", "cancelled", false),
        ("Failed", "AccessDenied", "access-denied", false),
    ];
    for (status, details, reason, is_retried) in cases {
        let cloud = Cloud::of_two_images(Invocation::without_report(status, details));
        let answer = cloud.answer(FAILED).await;
        assert_eq!(
            (&answer["status"], &answer["retrying"]),
            (&json!("failed"), &json!(is_retried)),
            "{details}"
        );
        assert_eq!(cloud.reasons(), [reason, reason], "{details}");
        assert_eq!(cloud.retries().len(), usize::from(is_retried), "{details}");
        assert!(prefetch::outcome::is_known(reason));
        assert_eq!(prefetch::outcome::is_retryable(reason), is_retried);
        assert_eq!(cloud.calls().iter().filter(|call| **call == "ListCommands").count(), 1);
        // Nothing ended on the node: the event's time stands for it.
        assert_eq!(cloud.node(1)["ended_at"], "2026-11-16T01:54:52Z");
    }
}

#[tokio::test]
async fn a_document_that_refuses_a_node_is_not_sent_again() {
    let cloud = Cloud::where_the_node(Invocation {
        exit_code: 2,
        ..Invocation::without_report("Failed", "Failed")
    });
    cloud.answer(FAILED).await;
    assert_eq!(
        (cloud.reasons(), cloud.retries()),
        (vec!["unsupported".to_owned()], Vec::new())
    );
    assert_eq!(cloud.metric("NodesFailed"), [1.0]);
}

#[tokio::test]
async fn a_report_that_says_all_is_believed_without_asking_for_the_command() {
    let cases = [
        ("cached", "", "cached", false),
        ("pulled", "tag-moved", "pulled", false),
        ("skipped", "platform", "cached", false),
        ("skipped", "too-large", "skipped", false),
        ("skipped", "no-space", "skipped", false),
        ("skipped", "snapshotter", "skipped", false),
        ("skipped", "report-only", "skipped", false),
        ("failed", "not-found", "failed", false),
        ("failed", "denied", "failed", false),
        ("failed", "registry", "failed", true),
        ("failed", "timeout", "failed", true),
        ("failed", "interrupted", "failed", true),
        ("failed", "word-of-a-newer-document", "failed", false),
    ];
    for (status, reason, of_node, is_retried) in cases {
        let report = line(&image(1), status, reason) + &line(&image(2), "cached", "");
        let cloud = Cloud::of_two_images(Invocation::reporting(report));
        let answer = cloud.answer(SUCCESS).await;
        assert_eq!(
            (&answer["status"], &answer["retrying"]),
            (&json!(of_node), &json!(is_retried)),
            "{status} {reason}"
        );
        assert_eq!(cloud.reasons(), [reason, ""]);
        assert!(!cloud.calls().contains(&"ListCommands"));
        let missing: Vec<String> = cloud
            .retries()
            .iter()
            .flat_map(|retry| &retry.images)
            .map(ToString::to_string)
            .collect();
        assert_eq!(missing, if is_retried { vec![image(1)] } else { Vec::new() });
    }
}

#[tokio::test]
async fn what_a_report_does_not_say_is_unreported_and_asked_again() {
    let one = line(&image(1), "pulled", "");
    let two = line(&image(2), "pulled", "");
    let cut = format!("{one}{}---Output truncated---", &two[..60]);
    let long = format!("{one}{}", " ".repeat(24_000 - one.len()));
    for report in [cut, long, format!("{one}oom\n"), format!("{one}{{}}\n")] {
        let cloud = Cloud::of_two_images(Invocation::reporting(report));
        cloud.answer(SUCCESS).await;
        assert_eq!(cloud.reasons(), ["", "unreported"]);
        assert_eq!(cloud.retries()[0].images, [image(2).parse().unwrap()]);
        assert_eq!(cloud.node(1)["images"][image(1)]["reported"], true);
    }
    let empty = Cloud::of_two_images(Invocation::reporting(""));
    empty.answer(SUCCESS).await;
    assert_eq!(empty.reasons(), ["unreported", "unreported"]);
    let killed = Cloud::of_two_images(Invocation {
        exit_code: 137,
        ..Invocation::reporting(line(&image(1), "failed", "denied"))
    });
    killed.answer(FAILED).await;
    assert_eq!(killed.reasons(), ["denied", "unreported"]);
}

#[tokio::test]
async fn a_document_that_ends_as_if_an_image_had_failed_and_says_of_none_died_on_the_way() {
    let cloud = Cloud::of_two_images(Invocation {
        exit_code: 1,
        ..Invocation::reporting(line(&image(1), "pulled", ""))
    });
    cloud.state(|state| {
        let command = state.commands.get_mut(COMMAND).unwrap();
        let invocation = command.invocations.get_mut(&node_id(1)).unwrap();
        invocation.status = "Failed".into();
        "Failed".clone_into(&mut invocation.details);
    });
    assert_eq!(cloud.answer(FAILED).await["retrying"], true);
    assert_eq!(cloud.reasons(), ["", "unreported"]);
}

#[tokio::test]
async fn lines_of_older_and_newer_documents_are_read_and_the_last_of_two_counts() {
    let older = format!("{}\n", json!({"image": image(1), "status": "cached"}));
    let newer = format!(
        "{}\n",
        json!({"image": image(2), "status": "pulled", "layers": [1, 2], "reason": "p2p"})
    );
    let cloud = Cloud::of_two_images(Invocation {
        exit_code: 0,
        ..Invocation::reporting(line(&image(1), "failed", "registry") + &older + &newer)
    });
    cloud.answer(SUCCESS).await;
    assert_eq!(
        (cloud.node(1)["status"].clone(), cloud.reasons()),
        (json!("pulled"), vec![String::new(), "p2p".to_owned()])
    );
}

#[tokio::test]
async fn a_line_for_an_image_that_the_command_does_not_name_is_ignored_where_that_is_known() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(7), "pulled", "") + "garbled"));
    cloud.answer(SUCCESS).await;
    assert_eq!(
        cloud.node(1)["images"].as_object().unwrap().keys().collect::<Vec<_>>(),
        [&image(1)]
    );
}

#[tokio::test]
async fn what_has_not_ended_is_handed_back_unless_it_is_overdue() {
    let running = Invocation::without_report("InProgress", "InProgress");
    let cloud = Cloud::where_the_node(running);
    assert_eq!(cloud.answer(SUCCESS).await["reason"], "not-ended");
    assert_eq!(cloud.calls(), ["GetCommandInvocation"]);
    let answer = cloud.answer(OVERDUE).await;
    assert_eq!(
        (&answer["decision"], cloud.reasons()),
        (&json!("settled"), vec!["overdue".to_owned()])
    );
    assert_eq!(cloud.retries().len(), 1);
}

#[tokio::test]
async fn a_node_that_a_reconcile_does_not_reach_is_left_to_the_next_and_one_that_failed_is_tried_again() {
    let silent = Invocation::without_report("TimedOut", "DeliveryTimedOut");
    let failed = Invocation::reporting(line(&image(1), "failed", "registry"));
    for (trigger, invocation, tries) in [
        ("reconcile", silent.clone(), 0),
        ("reconcile", failed, 1),
        ("push", silent, 1),
    ] {
        let cloud = Cloud::new();
        cloud.send(1, &format!("{trigger} rule=default attempt=1"), &[1], [(1, invocation)]);
        cloud.answer(FAILED).await;
        assert_eq!(cloud.retries().len(), tries, "{trigger}");
        assert_eq!(
            (&cloud.job()["failed"], &cloud.job()["retrying"]),
            (&json!(1), &json!(tries))
        );
        assert_eq!(cloud.metric("NodesFailed").len(), 1 - tries);
    }
}

#[tokio::test]
async fn an_event_whose_time_is_none_settles_its_node_unless_nothing_else_says_when() {
    for (requested_at, decision) in [("2026-11-16T01:54:34.049Z", "settled"), ("yesterday", "handed-back")] {
        let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
        let mut event: Value = serde_json::from_str(SUCCESS).unwrap();
        event["time"] = json!("yesterday");
        event["detail"]["requested-date-time"] = json!(requested_at);
        assert_eq!(cloud.answer(&event.to_string()).await["decision"], decision);
    }
}

#[tokio::test]
async fn an_event_that_settles_nothing_says_why() {
    let in_progress = include_str!("../../../../events/node-result.in-progress.json");
    let other = include_str!("../../../../events/node-result.other-document.json");
    let launch = include_str!("../../../../events/node-launch.running.json");
    for (event, decision, reason) in [
        (in_progress, "ignored", "not-ended"),
        (other, "handed-back", "not-a-result"),
        (launch, "handed-back", "not-a-result"),
        ("{}", "handed-back", "malformed"),
        ("null", "handed-back", "malformed"),
        (r#"{"Records": 1}"#, "handed-back", "malformed"),
    ] {
        let cloud = Cloud::new();
        let answer = cloud.answer(event).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!(decision), &json!(reason)),
            "{event}"
        );
        assert!(cloud.calls().is_empty());
    }
}

#[tokio::test]
async fn a_command_that_was_sent_by_hand_belongs_to_no_job() {
    let cloud = Cloud::new();
    let pulled = Invocation::reporting(line(&image(1), "pulled", ""));
    cloud.send(1, "trying it out", &[1], [(1, pulled)]);
    for event in [SUCCESS, OF_COMMAND] {
        let answer = cloud.answer(event).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!("ignored"), &json!("by-hand"))
        );
    }
    assert!(cloud.known().is_empty());
}

#[tokio::test]
async fn a_command_that_names_no_image_is_none_of_ours_whatever_its_comment() {
    let cloud = Cloud::new();
    cloud.send(
        1,
        "push rule=default attempt=1",
        &[],
        [(1, Invocation::without_report("Failed", "Failed"))],
    );
    assert_eq!(cloud.answer(FAILED).await["reason"], "malformed");
}

#[tokio::test]
async fn a_poison_message_is_handed_back_and_only_it() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    let answer = cloud
        .answer(include_str!("../../../../events/node-result.sqs-poison.json"))
        .await;
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 7);
    assert_eq!(cloud.node(1)["status"], "pulled");
}

#[tokio::test]
async fn ten_nodes_that_end_at_once_cost_fourteen_calls() {
    let cloud = Cloud::new();
    let pulled = |k| (k, Invocation::reporting(line(&image(1), "pulled", "")));
    cloud.send(
        1,
        "push rule=default attempt=1",
        &[1],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(pulled),
    );
    let answer = cloud
        .answer(include_str!("../../../../events/node-result.sqs-ten.json"))
        .await;
    assert_eq!(answer, json!({"batchItemFailures": []}));
    assert_eq!(cloud.calls().len(), 14);
    assert_eq!((&cloud.job()["pulled"], cloud.records().len()), (&json!(10), 10));
    assert_eq!(cloud.state(|state| state.objects.len()), 1);
    assert_eq!(cloud.metric("NodesPulled").len(), 10);
}

#[tokio::test]
async fn jobs_of_several_triggers_and_days_go_to_objects_of_their_own() {
    let cloud = Cloud::new();
    let pulled = || Invocation::reporting(line(&image(1), "pulled", ""));
    cloud.send(1, "push rule=a attempt=1", &[1], [(1, pulled())]);
    cloud.send(2, "push rule=b attempt=1", &[1], [(1, pulled())]);
    cloud.send(3, "reconcile rule=b attempt=1", &[1], [(1, pulled())]);
    let tomorrow = event_of(2, 2).replace("2026-11-16T01:54:34", "2026-11-17T01:54:34");
    let mut later = cloud.state(|state| state.commands[&command_id(2)].clone());
    later.invocations = [(node_id(2), pulled())].into();
    cloud.state(|state| state.commands.insert(command_id(4), later));
    let tomorrow = tomorrow.replace(&command_id(2), &command_id(4));
    assert!(
        cloud
            .batch(&[event_of(1, 1), event_of(2, 1), event_of(3, 1), tomorrow], 1)
            .await
            .is_empty()
    );
    let objects = cloud.state(|state| state.objects.keys().cloned().collect::<Vec<_>>());
    let folder = |key: &String| key.rsplit_once('/').unwrap().0.to_owned();
    assert_eq!(
        objects.iter().map(folder).collect::<Vec<_>>(),
        [
            "records/trigger=push/date=2026-11-16",
            "records/trigger=push/date=2026-11-17",
            "records/trigger=reconcile/date=2026-11-16"
        ]
    );
    let totals = |trigger| cloud.row(&Key::totals(trigger)).unwrap();
    assert_eq!(
        (&totals(Trigger::Push)["jobs"], &totals(Trigger::Reconcile)["pulled"]),
        (&json!(3), &json!(1))
    );
}

#[tokio::test]
async fn a_node_without_an_answer_is_handed_back_and_holds_up_no_other() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    let unknown = event_of(1, 2);
    assert_eq!(cloud.batch(&[event_of(1, 1), unknown.clone()], 1).await, [1]);
    assert_eq!(cloud.answer(&unknown).await["reason"], "no-invocation");
    assert_eq!(cloud.job()["pulled"], 1);
}

#[tokio::test]
async fn throttling_anywhere_hands_back_and_loses_nothing() {
    let report = || Invocation::reporting(line(&image(1), "failed", "registry") + "garbled");
    let calm = Cloud::where_the_node(report());
    calm.batch(&[event_of(1, 1)], 1).await;
    for call in [
        "GetCommandInvocation",
        "ListCommands",
        "BatchGetItem",
        "TransactWriteItems",
        "PutObject",
        "SendMessageBatch",
        "DeleteItem",
    ] {
        let cloud = Cloud::where_the_node(report());
        cloud.fail(call, 0, THROTTLED);
        assert_eq!(cloud.batch(&[event_of(1, 1)], 1).await, [0], "{call}");
        assert!(cloud.batch(&[event_of(1, 1)], 2).await.is_empty(), "{call}");
        assert_eq!(
            (cloud.known(), cloud.records()),
            (calm.known(), calm.records()),
            "{call}"
        );
        assert_eq!(cloud.outboxes(), 0, "{call}");
        assert_eq!(cloud.metric("NodesRetried"), [1.0], "{call}");
    }
}

#[tokio::test]
async fn a_function_killed_between_any_two_writes_ends_in_the_same_state() {
    for (call, code) in [
        ("PutObject", "SlowDown"),
        ("SendMessageBatch", "Refused"),
        ("SendMessageBatch", "Unconfirmed"),
        ("DeleteItem", "InternalServerError"),
        ("TransactWriteItems", "Lost"),
    ] {
        let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "failed", "timeout")));
        cloud.fail(call, 0, code);
        assert_eq!(cloud.batch(&[event_of(1, 1)], 1).await, [0]);
        // What is known is known, and what is left to do is written down.
        assert_eq!((&cloud.job()["failed"], cloud.outboxes()), (&json!(1), 1), "{call}");
        assert!(cloud.batch(&[event_of(1, 1)], 2).await.is_empty());
        assert_eq!(
            (cloud.job()["failed"].clone(), cloud.outboxes(), cloud.records().len()),
            (json!(1), 0, 1),
            "{call}"
        );
        let again = if call == "DeleteItem" { 2 } else { 1 };
        assert_eq!(cloud.retries().len(), again, "{call}");
        // Nothing is left: nothing is done.
        cloud.calls();
        assert!(cloud.batch(&[event_of(1, 1)], 3).await.is_empty());
        assert_eq!(cloud.calls(), ["GetCommandInvocation", "BatchGetItem", "BatchGetItem"]);
    }
}

#[tokio::test]
async fn what_another_event_of_the_node_has_in_hand_is_left_to_it() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "failed", "timeout")));
    cloud.fail("PutObject", 0, "SlowDown");
    cloud.batch(&[event_of(1, 1)], 1).await;
    assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty());
    assert_eq!((cloud.outboxes(), cloud.retries()), (1, Vec::new()));
}

#[tokio::test]
async fn an_outbox_that_cannot_be_finished_again_is_handed_back_again() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    for time in 1..=3 {
        cloud.fail("PutObject", 0, "SlowDown");
        assert_eq!(cloud.batch(&[event_of(1, 1)], time).await, [0]);
    }
    assert!(cloud.batch(&[event_of(1, 1)], 4).await.is_empty());
    assert_eq!((cloud.outboxes(), cloud.records().len()), (0, 1));
}

#[tokio::test]
async fn rows_that_others_write_are_read_again_and_written_at_once() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    (0..3).for_each(|_| cloud.fail("TransactWriteItems", 0, "TransactionConflict"));
    assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty());
    let calls = cloud.calls();
    assert_eq!(calls.iter().filter(|call| **call == "BatchGetItem").count(), 4);
    assert_eq!(cloud.job()["pulled"], 1);

    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    (0..4).for_each(|_| cloud.fail("TransactWriteItems", 0, "TransactionConflict"));
    assert_eq!(cloud.answer(SUCCESS).await["reason"], "contended");
    assert!(cloud.known().is_empty());
}

#[tokio::test]
async fn a_row_that_another_wrote_since_it_was_read_is_folded_anew() {
    let cloud = Cloud::of_two_images(Invocation::reporting(line(&image(1), "pulled", "")));
    let other = Cloud::of_two_images(Invocation::reporting(line(&image(2), "failed", "denied")));
    // The other's rows appear between this one's reading and its writing.
    other.batch(&[event_of(1, 1)], 1).await;
    let rows = other.state(|state| state.table.rows.clone());
    cloud.state(|state| state.table.appearing = Some(rows));
    assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty());
    let calls = cloud.calls();
    assert_eq!(calls.iter().filter(|call| **call == "TransactWriteItems").count(), 2);
    assert_eq!(
        (cloud.reasons(), &cloud.node(1)["version"]),
        (vec![String::new(), "denied".to_owned()], &json!(2))
    );
    assert_eq!((&cloud.job()["failed"], &cloud.job()["pulled"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn a_transaction_that_is_throttled_beside_a_conflict_is_handed_back() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    cloud.fail("TransactWriteItems", 0, "ThrottlingError");
    assert_eq!(cloud.answer(SUCCESS).await["reason"], "aws-error");
    assert!(cloud.known().is_empty());
}

#[tokio::test]
async fn rows_that_dynamodb_leaves_out_are_asked_for_again_a_few_times() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    cloud.state(|state| state.table.readable = Some(1));
    assert_eq!(cloud.answer(SUCCESS).await["decision"], "settled");
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    cloud.state(|state| state.table.readable = Some(0));
    let answer = cloud.answer(SUCCESS).await;
    assert_eq!(answer["reason"], "aws-error");
    assert!(
        answer["message"].as_str().unwrap().contains("left rows out"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_job_knows_to_how_many_nodes_its_command_went_whatever_comes_first() {
    for order in [[OF_COMMAND, SUCCESS], [SUCCESS, OF_COMMAND]] {
        let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "cached", "")));
        for event in order.repeat(2) {
            assert_eq!(cloud.answer(event).await["decision"], "settled");
        }
        let job = cloud.job();
        assert_eq!(
            (&job["targets"], &job["images"], &job["cached"]),
            (&json!(1), &json!([image(1)]), &json!(1))
        );
        assert_eq!(cloud.row(&Key::totals(Trigger::Push)).unwrap()["jobs"], 1);
        assert!(cloud.metric("CommandsWithoutNodes").is_empty());
    }
}

#[tokio::test]
async fn a_command_that_matched_no_node_is_counted_once() {
    let cloud = Cloud::new();
    cloud.send(1, "push rule=default attempt=1", &[1], []);
    for _ in 0..3 {
        let expected = json!({"decision": "settled", "job": COMMAND});
        assert_eq!(cloud.answer(WITHOUT_NODES).await, expected);
    }
    assert_eq!(cloud.metric("CommandsWithoutNodes"), [1.0]);
    assert_eq!((&cloud.job()["targets"], cloud.outboxes()), (&json!(0), 0));
    assert!(cloud.records().is_empty());
}

#[tokio::test]
async fn the_command_of_a_further_try_tells_nothing_of_its_job() {
    let cloud = Cloud::new();
    cloud.send(2, &format!("push rule=default attempt=2 job={COMMAND}"), &[1], []);
    assert_eq!(cloud.answer(&event_of_command(2)).await["reason"], "further-try");
    assert!(cloud.known().is_empty());
}

#[tokio::test]
async fn a_retry_that_succeeds_moves_the_node_from_failed() {
    let cloud = Cloud::of_two_images(Invocation::reporting(
        line(&image(1), "pulled", "") + &line(&image(2), "failed", "registry"),
    ));
    assert_eq!(cloud.answer(FAILED).await["retrying"], true);
    assert_eq!(
        (
            &cloud.job()["failed"],
            &cloud.job()["retrying"],
            &cloud.job()["retried"]
        ),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!(
        (cloud.metric("NodesRetried"), cloud.metric("NodesFailed")),
        (vec![1.0], Vec::new())
    );
    let retry = cloud.retries().remove(0);
    assert_eq!(
        (retry.comment().to_string(), &retry.node),
        (format!("push rule=default attempt=2 job={COMMAND}"), &node_id(1))
    );

    cloud.send(
        2,
        &retry.comment().to_string(),
        &[2],
        [(1, Invocation::reporting(line(&image(2), "pulled", "")))],
    );
    let expected =
        json!({"decision": "settled", "job": COMMAND, "node": node_id(1), "status": "pulled", "retrying": false});
    assert_eq!(cloud.answer(&event_of(2, 1)).await, expected);
    let job = cloud.job();
    assert_eq!(
        (&job["failed"], &job["pulled"], &job["retried"], &job["bytes"]),
        (&json!(0), &json!(1), &json!(1), &json!(50_332_964))
    );
    assert_eq!(
        (
            &job["retrying"],
            &cloud.row(&Key::totals(Trigger::Push)).unwrap()["retrying"]
        ),
        (&json!(0), &json!(0))
    );
    assert_eq!(
        (cloud.metric("NodesPulled"), cloud.metric("NodesFailed")),
        (vec![1.0], Vec::new())
    );
    assert_eq!(cloud.node(1)["command"], command_id(2));
    let second = cloud.records().pop().unwrap();
    assert_eq!(
        (&second["attempt"], &second["job"], &second["command"]),
        (&json!(2), &json!(COMMAND), &json!(command_id(2)))
    );
}

#[tokio::test]
async fn a_job_is_as_old_as_its_first_command_even_where_a_further_try_is_known_before() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "failed", "registry")));
    let pulled = Invocation::reporting(line(&image(1), "pulled", ""));
    cloud.send(
        2,
        &format!("push rule=default attempt=2 job={COMMAND}"),
        &[1],
        [(1, pulled)],
    );
    cloud
        .answer(&event_of(2, 1).replace("01:54:34.049", "01:54:40.049"))
        .await;
    assert_eq!(
        (&cloud.job()["slowest_seconds"], &cloud.job()["pulled"]),
        (&json!(4), &json!(1))
    );
    // The first try changes nothing of the node, but what is known of the job.
    assert_eq!(cloud.answer(FAILED).await["status"], "pulled");
    let job = cloud.job();
    assert_eq!(
        (&job["requested_at"], &job["slowest_seconds"]),
        (&json!("2026-11-16T01:54:34.049Z"), &json!(10))
    );
    assert_eq!(
        (&job["pulled"], cloud.records().len(), cloud.retries().len()),
        (&json!(1), 1, 0)
    );
}

#[tokio::test]
async fn an_object_of_records_has_the_name_of_a_node() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    cloud.batch(&[event_of_command(1), event_of(1, 1)], 1).await;
    let key = cloud.state(|state| state.objects.keys().next().cloned().unwrap());
    assert!(key.ends_with(&format!("/{COMMAND}-{}-1.jsonl", node_id(1))), "{key}");
}

#[tokio::test]
async fn a_node_gets_as_many_more_tries_as_are_set_and_then_has_failed() {
    for (max_retries, tries) in [("0", 0), ("1", 1), ("2", 2), ("5", 5)] {
        let cloud = Cloud::with(max_retries);
        let failed = || [(1, Invocation::reporting(line(&image(1), "failed", "timeout")))];
        cloud.send(1, "launch rule=default attempt=1", &[1], failed());
        cloud.answer(FAILED).await;
        for attempt in 2.. {
            let Some(retry) = cloud.retries().into_iter().nth(attempt - 2) else {
                break;
            };
            assert_eq!(usize::from(retry.attempt), attempt);
            cloud.send(attempt, &retry.comment().to_string(), &[1], failed());
            cloud.answer(&event_of(attempt, 1)).await;
        }
        assert_eq!((cloud.retries().len(), &cloud.job()["retried"]), (tries, &json!(tries)));
        assert_eq!(cloud.job()["retrying"], 0);
        assert_eq!(
            (cloud.metric("NodesRetried").len(), cloud.metric("NodesFailed")),
            (tries, vec![1.0])
        );
        let about = [60, 300, 900, 900, 900];
        for ((delay, _), about) in cloud.waiting().iter().zip(about) {
            assert!((about * 4 / 5..=(about * 6 / 5).min(900)).contains(delay), "{delay}");
        }
    }
}

#[tokio::test]
async fn what_was_made_up_of_a_node_gives_way_to_what_it_says() {
    let running = Invocation::without_report("InProgress", "InProgress");
    let cloud = Cloud::where_the_node(running);
    cloud.answer(OVERDUE).await;
    assert_eq!(
        (cloud.reasons(), &cloud.job()["failed"]),
        (vec!["overdue".to_owned()], &json!(1))
    );
    let failed = Invocation::reporting(line(&image(1), "failed", "registry"));
    cloud.send(1, "push rule=default attempt=1", &[1], [(1, failed)]);
    cloud.answer(FAILED).await;
    // The second try was queued with what was made up.
    assert_eq!(
        (cloud.reasons(), cloud.retries().len()),
        (vec!["registry".to_owned()], 1)
    );
    let pulled = Invocation::reporting(line(&image(1), "pulled", ""));
    cloud.send(1, "push rule=default attempt=1", &[1], [(1, pulled)]);
    cloud.answer(SUCCESS).await;
    assert_eq!((&cloud.job()["failed"], &cloud.job()["pulled"]), (&json!(0), &json!(1)));
    // And not the reverse.
    cloud.send(
        1,
        "push rule=default attempt=1",
        &[1],
        [(1, Invocation::without_report("Failed", "Terminated"))],
    );
    cloud.answer(FAILED).await;
    assert_eq!(cloud.node(1)["status"], "pulled");
}

#[tokio::test]
async fn metrics_say_which_cluster_rule_trigger_and_reason_and_survive_any_log_level() {
    let cloud = Cloud::of_two_images(Invocation::reporting(
        line(&image(1), "pulled", "") + &line(&image(2), "failed", "denied"),
    ));
    cloud.answer(FAILED).await;
    let dimensions = json!([["ClusterName"], ["ClusterName", "Rule", "Trigger"]]);
    let count = |name: &str| json!({"Name": name, "Unit": "Count"});
    let expected = json!({
        "_aws": {"Timestamp": now().timestamp_millis(), "CloudWatchMetrics": [
            {"Namespace": "EKSImagePrefetch", "Dimensions": dimensions, "Metrics": [
                {"Name": "PullSeconds", "Unit": "Seconds"}, {"Name": "PulledBytes", "Unit": "Bytes"}, count("NodesFailed"),
            ]},
            {"Namespace": "EKSImagePrefetch", "Dimensions": [["ClusterName", "Reason"]],
                "Metrics": [count("NodesSkipped"), count("NodesFailed")]},
        ]},
        "timestamp": "2026-11-16T01:54:54.049Z", "level": "INFO", "ClusterName": "prod", "Rule": "default", "Trigger": "push",
        "Reason": "denied", "job.id": COMMAND, "instance.id": node_id(1), "PullSeconds": 0.412, "PulledBytes": 25_166_482,
        "NodesFailed": 1,
    });
    assert_eq!(cloud.metrics(), [expected]);
}

#[tokio::test]
async fn a_reason_that_only_a_newer_document_knows_is_no_dimension() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "skipped", "made-up")));
    cloud.answer(SUCCESS).await;
    assert_eq!(cloud.metrics()[0]["Reason"], "other");
}

#[tokio::test]
async fn a_hundred_nodes_with_the_longest_names_stay_within_every_limit() {
    let cloud = Cloud::new();
    let images: Vec<String> = (0..MAX_IMAGES).map(longest_image).collect();
    let invocation = Invocation::without_report("TimedOut", "DeliveryTimedOut");
    cloud.send(1, "schedule rule=abcdefghijklmnopqrstuvwxyz-01234 attempt=1", &[], []);
    cloud.state(|state| {
        let command = state.commands.get_mut(COMMAND).unwrap();
        command.images = images;
        command.targets = 100;
        command.invocations = (1..=100).map(|k| (node_id(k), invocation.clone())).collect();
    });
    let events: Vec<String> = (1..=100).map(|k| event_of(1, k)).collect();
    let mut time = 0;
    let mut left = events;
    while !left.is_empty() {
        time += 1;
        assert!(time <= 20, "every hand-out settles some");
        let failed = cloud.batch(&left, time).await;
        left = failed.into_iter().map(|place| left[place].clone()).collect();
    }
    assert_eq!((&cloud.job()["failed"], cloud.retries().len()), (&json!(100), 100));
    assert_eq!((cloud.records().len(), cloud.outboxes()), (3000, 0));
    let (items, bytes, largest) = cloud.state(|state| state.table.largest);
    assert!(
        items <= 100 && bytes <= 4 * 1024 * 1024 && largest <= 400 * 1024,
        "{items} {bytes} {largest}"
    );
}

/// The longest reference there is.
fn longest_image(k: usize) -> String {
    let digest = format!("sha256:{k:064x}");
    let (repository, tag) = ("r".repeat(255), "t".repeat(128));
    format!("123456789012.dkr.ecr.ap-southeast-1.amazonaws.com.cn/{repository}:{tag}@{digest}")
}

/// What one command of a job says of its images on one node.
#[derive(Clone, Debug)]
struct Said {
    node: usize,
    attempt: usize,
    report: Option<Vec<(usize, &'static str)>>,
}

fn said() -> impl Strategy<Value = Said> {
    let status = prop::sample::select(vec!["pulled", "cached", "skipped", "platform", "failed"]);
    let report = prop::collection::vec((1..=3_usize, status), 1..4);
    (1..=3_usize, 1..=3_usize, prop::option::of(report)).prop_map(|(node, attempt, report)| Said {
        node,
        attempt,
        report,
    })
}

impl Said {
    fn invocation(&self) -> Invocation {
        match &self.report {
            None => Invocation::without_report("TimedOut", "DeliveryTimedOut"),
            Some(lines) => {
                let line = |(k, status): &(usize, &'static str)| match *status {
                    "failed" => line(&image(*k), "failed", "registry"),
                    "platform" => line(&image(*k), "skipped", "platform"),
                    status => line(&image(*k), status, ""),
                };
                Invocation::reporting(lines.iter().map(line).collect::<String>())
            }
        }
    }
}

/// A cloud where these commands were sent, the k-th one as the k-th says; the first is the job's.
fn cloud_of(said: &[Said]) -> (Cloud, Vec<String>) {
    let cloud = Cloud::new();
    let mut events = Vec::new();
    for (place, said) in said.iter().enumerate() {
        let k = place + 1;
        let attempt = if k == 1 { 1 } else { said.attempt };
        let job = if k == 1 {
            String::new()
        } else {
            format!(" job={COMMAND}")
        };
        let comment = format!("push rule=default attempt={attempt}{job}");
        cloud.send(k, &comment, &[1, 2, 3], [(said.node, said.invocation())]);
        events.push(event_of(k, said.node));
    }
    (cloud, events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_order_repetition_batching_and_fault_gives_the_same_rows(
        said in prop::collection::vec(said(), 1..7),
        order in prop::collection::vec((any::<prop::sample::Index>(), 1..4_usize), 0..12),
        faults in prop::collection::vec((prop::sample::select(vec![
            ("GetCommandInvocation", THROTTLED), ("ListCommands", THROTTLED), ("BatchGetItem", THROTTLED),
            ("TransactWriteItems", "TransactionConflict"), ("TransactWriteItems", "ThrottlingError"),
            ("TransactWriteItems", "Lost"), ("PutObject", "SlowDown"), ("SendMessageBatch", "Refused"),
            ("DeleteItem", THROTTLED),
        ]), 0..4_usize), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (calm, events) = cloud_of(&said);
            for event in &events {
                assert!(calm.batch(std::slice::from_ref(event), 1).await.is_empty());
            }
            let (cloud, events) = cloud_of(&said);
            let most_sweeps = faults.len() + 1;
            for ((call, code), before) in faults {
                cloud.fail(call, before, code);
            }
            // The job's first command comes first: what it says is why the others were sent.
            let mut batches = vec![vec![events[0].clone()]];
            for (place, size) in order {
                let from = place.index(events.len());
                batches.push(events.iter().cycle().skip(from).take(size).cloned().collect());
            }
            batches.push(events.clone());
            for batch in batches {
                let mut left = batch;
                for time in 1.. {
                    let failed = cloud.batch(&left, time).await;
                    left = failed.into_iter().map(|place| left[place].clone()).collect();
                    if left.is_empty() {
                        break;
                    }
                }
            }
            // A fault that no batch met meets a sweep, which says so and leaves the rest to the next.
            let sweep = include_str!("../../../../events/node-result.sweep.json");
            let mut sweeps = 1;
            while cloud.answer_at(sweep, now() + chrono::TimeDelta::minutes(16)).await["unfinished"] == true {
                sweeps += 1;
                assert!(sweeps <= most_sweeps, "each sweep that leaves something has met a fault");
            }
            assert_eq!(cloud.known(), calm.known());
            // A job's counters are the sums over its nodes, whatever was moved on the way.
            let nodes: Vec<Value> = cloud.known().into_iter().filter(|(key, _)| key.sk.starts_with("node#")).map(|(_, row)| row).collect();
            let reasons = |node: &Value| -> Vec<String> {
                node["images"].as_object().unwrap().values().map(|image| image["reason"].as_str().unwrap().to_owned()).collect()
            };
            let (foreign, nodes): (Vec<Value>, Vec<Value>) =
                nodes.into_iter().partition(|node| reasons(node).iter().all(|reason| reason == "platform"));
            assert_eq!(cloud.job()["not_applicable"], json!(foreign.len()));
            for status in ["pulled", "cached", "skipped", "failed"] {
                let of_status = nodes.iter().filter(|node| node["status"] == status).count();
                assert_eq!(cloud.job()[status], json!(of_status));
            }
            let retrying = nodes.iter().filter(|node| node["retrying"] == true).count();
            assert_eq!(cloud.job()["retrying"], json!(retrying));
        });
    }
}

//! Describes what nodes run, as their reports say it.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use prefetch::rows::UsageRow;

use super::*;
use crate::cloud::{requested_at, totals, usage_line};

const INVENTORY: &str = "inventory rule=gpu attempt=1";
const PAUSE: &str = "registry.k8s.io/pause:3.10";

/// Names an image of another registry.
fn pause() -> String {
    format!("{PAUSE}@sha256:{}", "0".repeat(64))
}

/// Lets a node run two images, of which prefetch brought the first, and hold one that kubelet has pulled and nothing uses.
fn running() -> String {
    [
        usage_line(&image(1), 2, true),
        usage_line(&pause(), 1, false),
        pulled(&image(2), 0),
        totals(4, 3, 2000),
    ]
    .concat()
}

/// Writes the line of an image that nothing uses any more, and that kubelet pulled so many days ago.
fn pulled(image: &str, days: i64) -> String {
    let pulled_at = (requested_at() - TimeDelta::days(days)).timestamp();
    let line = json!({"usage": image, "running": 0, "prefetched": false, "bytes": 1000, "pulledAt": pulled_at});
    format!("{line}\n")
}

/// Makes a cloud where the first node was asked for its inventory, and answered so.
fn of_inventory(stdout: &str) -> Cloud {
    let cloud = Cloud::new();
    cloud.send(1, INVENTORY, &[], [(1, Invocation::reporting(stdout))]);
    cloud
}

/// Tells of each image how many nodes run it, on how many of them prefetch brought it, and how often its row was written.
fn nodes(cloud: &Cloud) -> Vec<(String, u64, u64, u32)> {
    let row = |row: &UsageRow| (row.image.to_string(), row.nodes(), row.prefetched_nodes(), row.version);
    cloud.usage().iter().map(row).collect()
}

fn today() -> NaiveDate {
    requested_at().date_naive()
}

fn count(calls: &[&str], name: &str) -> usize {
    calls.iter().filter(|call| **call == name).count()
}

#[tokio::test]
async fn what_nothing_uses_any_more_counts_as_seen_on_the_day_it_was_pulled_and_not_where_that_is_long_ago() {
    let cloud = of_inventory(&[pulled(&image(1), 3), pulled(&image(2), 14), pulled(&pause(), 15)].concat());
    cloud.answer(SUCCESS).await;
    let seen = cloud.usage();
    let seen: Vec<_> = seen.iter().map(|row| (row.image.to_string(), row.last())).collect();
    let day = |days| today() - TimeDelta::days(days);
    assert_eq!(seen, [(image(1), day(3)), (image(2), day(14))]);
}

#[tokio::test]
async fn what_a_node_runs_is_written_beside_its_outcome_which_stays_complete() {
    let report = line(&image(1), "cached", "") + &running();
    let cloud = Cloud::where_the_node(Invocation::reporting(report));
    let answer = cloud.answer(SUCCESS).await;
    assert_eq!(
        (&answer["decision"], &answer["status"]),
        (&json!("settled"), &json!("cached"))
    );
    let expected = [(image(1), 1, 1, 1), (image(2), 0, 0, 1), (pause(), 1, 0, 1)];
    assert_eq!(nodes(&cloud), expected);
    let row = &cloud.usage()[0];
    assert_eq!((row.bytes, row.first, row.last()), (1000, today(), today()));
    assert_eq!(row.told_at, "2026-11-16T01:54:44Z".parse().ok());
    let item = cloud.state(|state| state.table.rows[&Key::usage("default", &row.image)].clone());
    let until: DateTime<Utc> = "2026-12-01T00:00:00Z".parse().unwrap();
    assert_eq!(item["expires_at"].as_n(), Ok(&until.timestamp().to_string()));
    let calls = cloud.calls();
    assert_eq!(
        ["ListCommands", "BatchGetItem", "PutItem"].map(|call| count(&calls, call)),
        [0, 2, 3]
    );
    assert_eq!(
        ["PodImages", "PodImagesPresent", "FirstUsedBytes"].map(|name| cloud.metric(name)),
        [[4.0], [3.0], [2000.0]]
    );
    // What comes again is counted no more.
    cloud.answer(SUCCESS).await;
    assert_eq!(
        (cloud.metric("PodImages"), nodes(&cloud)),
        (vec![4.0], expected.to_vec())
    );
}

#[tokio::test]
async fn usage_that_is_garbled_or_cut_off_hides_no_image_of_the_command() {
    let line = line(&image(1), "pulled", "");
    for garbled in [
        r#"{"usage": "docker.io/library/ngi"#,
        r#"{"usageTotals": 1}"#,
        "---Output truncated---",
    ] {
        let report = format!("{line}{}{garbled}", usage_line(&pause(), 1, false));
        let cloud = Cloud::of_two_images(Invocation::reporting(report));
        cloud.answer(SUCCESS).await;
        assert_eq!(cloud.reasons(), ["", "unreported"], "{garbled}");
        assert_eq!(nodes(&cloud), [(pause(), 1, 0, 1)], "{garbled}");
    }
}

#[tokio::test]
async fn an_inventory_is_no_job() {
    let cloud = of_inventory(&running());
    let expected = json!({"decision": "noted", "rule": "gpu", "node": node_id(1)});
    assert_eq!(cloud.answer(SUCCESS).await, expected);
    assert_eq!(
        cloud.calls(),
        ["GetCommandInvocation", "BatchGetItem", "PutItem", "PutItem", "PutItem"]
    );
    assert_eq!(
        nodes(&cloud),
        [(image(1), 1, 1, 1), (image(2), 0, 0, 1), (pause(), 1, 0, 1)]
    );
    for event in [OF_COMMAND, WITHOUT_NODES] {
        let answer = cloud.answer(event).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!("ignored"), &json!("inventory"))
        );
    }
    assert!(cloud.known().is_empty() && cloud.metrics().is_empty() && cloud.state(|state| state.objects.is_empty()));
}

#[tokio::test]
async fn a_node_that_says_nothing_of_what_it_runs_is_no_failure() {
    for ended in [
        Invocation::reporting(""),
        Invocation::reporting("prefetch-images: containerd does not answer\n"),
        Invocation::without_report("TimedOut", "DeliveryTimedOut"),
        Invocation::without_report("Failed", "Failed"),
    ] {
        let cloud = Cloud::new();
        cloud.send(1, INVENTORY, &[], [(1, ended)]);
        assert_eq!(cloud.answer(FAILED).await["reason"], "inventory");
        assert_eq!(cloud.calls(), ["GetCommandInvocation"]);
        assert!(cloud.known().is_empty() && cloud.usage().is_empty() && cloud.retries().is_empty());
    }
    let cloud = of_inventory(&totals(0, 0, 0));
    assert_eq!(cloud.answer(SUCCESS).await["decision"], "noted");
    assert_eq!((cloud.calls().len(), cloud.usage().len()), (1, 0));
}

#[tokio::test]
async fn a_report_that_says_nothing_new_writes_nothing_and_a_warm_process_reads_nothing() {
    let mut cloud = of_inventory(&running());
    cloud.send(2, INVENTORY, &[], [(1, Invocation::reporting(running()))]);
    cloud.answer(SUCCESS).await;
    let written = cloud.state(|state| state.table.rows.clone());
    cloud.calls();
    assert!(cloud.batch(&[event_of(2, 1)], 1).await.is_empty());
    assert_eq!(cloud.calls(), ["GetCommandInvocation"]);
    cloud.restart();
    assert!(cloud.batch(&[event_of(2, 1), event_of(1, 1)], 1).await.is_empty());
    assert_eq!(
        cloud.calls(),
        ["GetCommandInvocation", "GetCommandInvocation", "BatchGetItem"]
    );
    assert_eq!(cloud.state(|state| state.table.rows.clone()), written);
}

#[tokio::test]
async fn what_several_nodes_of_a_batch_run_is_written_once() {
    let cloud = Cloud::new();
    let ended = || Invocation::reporting(running());
    cloud.send(1, INVENTORY, &[], [(1, ended()), (2, ended()), (3, ended())]);
    let batch = [1, 2, 3].map(|node| event_of(1, node));
    assert!(cloud.batch(&batch, 1).await.is_empty());
    assert_eq!(
        nodes(&cloud),
        [(image(1), 3, 3, 1), (image(2), 0, 0, 1), (pause(), 3, 0, 1)]
    );
    assert_eq!(count(&cloud.calls(), "PutItem"), 3);
}

#[tokio::test]
async fn what_nodes_run_that_a_job_went_to_is_none_of_its_rule_for_they_need_not_be_the_rules_nodes() {
    for trigger in ["job", "schedule"] {
        let cloud = Cloud::new();
        let report = line(&image(3), "cached", "") + &running();
        let comment = format!("{trigger} rule=gpu attempt=1");
        cloud.send(1, &comment, &[3], [(1, Invocation::reporting(report))]);
        assert_eq!(cloud.answer(SUCCESS).await["decision"], "settled");
        assert!(cloud.usage().is_empty());
    }
}

#[tokio::test]
async fn what_a_job_or_a_schedule_pulls_counts_as_used_and_not_what_was_there() {
    for (trigger, used) in [
        ("job", 1),
        ("schedule", 1),
        ("push", 0),
        ("launch", 0),
        ("reconcile", 0),
    ] {
        let lines = [("pulled", ""), ("cached", ""), ("failed", "denied")];
        let lines = lines.iter().enumerate();
        let report: String = lines
            .map(|(k, (status, reason))| line(&image(k + 1), status, reason))
            .collect();
        let cloud = Cloud::new();
        cloud.send(
            1,
            &format!("{trigger} rule=gpu attempt=1"),
            &[1, 2, 3],
            [(1, Invocation::reporting(report))],
        );
        cloud.answer(FAILED).await;
        let expected = [(image(1), 0, 0, 1)];
        assert_eq!(nodes(&cloud), expected[..used], "{trigger}");
        assert!(cloud.usage().iter().all(|row| row.last() == today()));
    }
    let silent = Invocation::without_report("TimedOut", "DeliveryTimedOut");
    let cloud = Cloud::new();
    cloud.send(1, "job rule=gpu attempt=1", &[1], [(1, silent)]);
    cloud.answer(FAILED).await;
    assert!(cloud.usage().is_empty());
}

#[tokio::test]
async fn a_command_that_was_sent_by_hand_is_of_no_rule() {
    let cloud = Cloud::new();
    let report = line(&image(1), "cached", "") + &running();
    cloud.send(1, "trying it out", &[1], [(1, Invocation::reporting(report))]);
    assert_eq!(cloud.answer(SUCCESS).await["reason"], "by-hand");
    assert!(cloud.usage().is_empty());
}

#[tokio::test]
async fn a_node_can_say_no_more_than_is_believed() {
    let many: String = (1..=600).map(|k| usage_line(&longest_image(k), 1, false)).collect();
    let cloud = of_inventory(&(many + &totals(0, 0, 0)));
    assert_eq!(cloud.answer(SUCCESS).await["decision"], "noted");
    assert_eq!(cloud.usage().len(), 500);
    let cloud = of_inventory(
        &(usage_line(&pause().replace("registry.k8s.io", "localhost"), 1, false) + &usage_line(PAUSE, 1, false)),
    );
    assert_eq!(cloud.answer(SUCCESS).await["reason"], "inventory");
    assert!(cloud.usage().is_empty());
}

#[tokio::test]
async fn a_clock_that_cannot_be_right_is_not_believed() {
    for (days, believed) in [(-400, -7), (-8, -7), (-6, -6), (0, 0), (3, 0)] {
        let ended = Invocation {
            ended_at: Some(requested_at() + TimeDelta::days(days)),
            ..Invocation::reporting(running())
        };
        let cloud = Cloud::new();
        cloud.send(1, INVENTORY, &[], [(1, ended)]);
        cloud.answer(SUCCESS).await;
        assert_eq!(cloud.usage()[0].last(), today() + TimeDelta::days(believed), "{days}");
    }
}

#[tokio::test]
async fn a_row_that_others_write_is_taken_up_where_they_left_it() {
    let (one, two) = (of_inventory(&running()), of_inventory(&running()));
    one.answer(SUCCESS).await;
    // Another process has written the same row, and then a node more, of which the first has heard nothing.
    two.send(
        1,
        INVENTORY,
        &[],
        [
            (2, Invocation::reporting(running())),
            (3, Invocation::reporting(running())),
        ],
    );
    for node in [2, 3] {
        two.batch(&[event_of(1, node)], 1).await;
    }
    let rows = two.state(|state| state.table.rows.clone());
    one.state(|state| state.table.rows = rows);
    one.send(2, INVENTORY, &[], [(4, Invocation::reporting(running()))]);
    one.calls();
    assert!(one.batch(&[event_of(2, 4)], 1).await.is_empty());
    assert_eq!(
        nodes(&one),
        [(image(1), 3, 3, 3), (image(2), 0, 0, 1), (pause(), 3, 0, 3)]
    );
    assert_eq!(
        one.calls(),
        ["GetCommandInvocation", "BatchGetItem", "PutItem", "PutItem"]
    );
    // It has expired meanwhile.
    one.state(|state| state.table.rows.clear());
    one.send(3, INVENTORY, &[], [(5, Invocation::reporting(running()))]);
    assert!(one.batch(&[event_of(3, 5)], 1).await.is_empty());
    assert_eq!(nodes(&one), [(image(1), 1, 1, 1), (pause(), 1, 0, 1)]);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_known_as_its_own() {
    let cloud = of_inventory(&running());
    cloud.state(|state| state.table.writes_twice = true);
    assert_eq!(cloud.answer(SUCCESS).await["decision"], "noted");
    assert_eq!(
        nodes(&cloud),
        [(image(1), 1, 1, 1), (image(2), 0, 0, 1), (pause(), 1, 0, 1)]
    );
}

#[tokio::test]
async fn what_cannot_be_read_or_written_is_handed_back_and_loses_nothing() {
    for (call, before) in [("BatchGetItem", 0), ("PutItem", 0), ("PutItem", 2)] {
        let cloud = of_inventory(&running());
        cloud.fail(call, before, THROTTLED);
        let answer = cloud.answer(SUCCESS).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!("handed-back"), &json!("aws-error"))
        );
        assert_eq!(cloud.answer(SUCCESS).await["decision"], "noted", "{call}");
        assert_eq!(
            nodes(&cloud),
            [(image(1), 1, 1, 1), (image(2), 0, 0, 1), (pause(), 1, 0, 1)]
        );
    }
    // The job is settled, and the event comes again for what the node runs.
    let report = line(&image(1), "cached", "") + &running();
    let cloud = Cloud::where_the_node(Invocation::reporting(report));
    cloud.fail("PutItem", 0, THROTTLED);
    assert_eq!(cloud.batch(&[event_of(1, 1)], 1).await, [0]);
    assert_eq!(cloud.job()["cached"], 1);
    assert!(cloud.batch(&[event_of(1, 1)], 2).await.is_empty());
    assert_eq!((cloud.usage().len(), cloud.metric("PodImages")), (3, vec![4.0]));
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_holds_up_only_what_says_something_of_it() {
    let cloud = of_inventory(&running());
    let other = usage_line(&image(3), 1, true) + &totals(0, 0, 0);
    cloud.send(2, INVENTORY, &[], [(2, Invocation::reporting(other))]);
    cloud.answer(SUCCESS).await;
    let key = Key::usage("gpu", &pause().parse().unwrap());
    let broken = cloud.state(|state| {
        let row = state.table.rows.get_mut(&key).unwrap();
        row.insert("days".to_owned(), AttributeValue::S("none".to_owned()));
        row.insert("version".to_owned(), AttributeValue::N("7".to_owned()));
        row.clone()
    });
    cloud.send(1, INVENTORY, &[], [(4, Invocation::reporting(running()))]);
    assert_eq!(cloud.batch(&[event_of(1, 4), event_of(2, 2)], 1).await, [0]);
    assert_eq!(cloud.state(|state| state.table.rows.remove(&key)), Some(broken));
    assert_eq!(
        nodes(&cloud),
        [(image(1), 2, 2, 2), (image(2), 0, 0, 1), (image(3), 1, 1, 1)]
    );
}

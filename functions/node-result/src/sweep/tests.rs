use serde_json::{Value, json};

use super::*;
use crate::cloud::{
    COMMAND, Cloud, Invocation, THROTTLED, command_id, event_of, event_of_command, image, line, node_id, requested_at,
};

const SWEEP: &str = include_str!("../../../../events/node-result.sweep.json");

#[tokio::test]
async fn what_no_event_told_is_made_up_once_and_settled_as_if_one_had() {
    let cloud = cloud_with([(1, pulled()), (2, running()), (3, pulled())]);
    cloud.batch(&[event_of(1, 1)], 1).await;
    assert_eq!(
        cloud.sweep(4300).await,
        json!({"commands": 1, "asked": 3, "finished": 0, "unfinished": false})
    );
    let made_up: Vec<(i32, Value)> = cloud.made_up();
    let nodes: Vec<&Value> = made_up
        .iter()
        .map(|(_, event)| &event["detail"]["instance-id"])
        .collect();
    assert_eq!(nodes, [&Value::Null, &json!(node_id(2)), &json!(node_id(3))]);
    assert!(
        made_up
            .iter()
            .all(|(delay, event)| *delay == 0 && event["detail"]["overdue"] == true)
    );

    let events: Vec<String> = made_up.iter().map(|(_, event)| event.to_string()).collect();
    assert!(cloud.batch(&events, 1).await.is_empty());
    let job = cloud.job();
    assert_eq!(
        (&job["targets"], &job["pulled"], &job["failed"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert_eq!(cloud.node(2)["images"][image(1)]["reason"], "overdue");

    // Nothing is left to be made up.
    cloud.calls();
    assert_eq!(cloud.sweep(5200).await["asked"], 0);
    assert_eq!(calls_for_commands(&cloud), ["ListCommands", "BatchGetItem"]);
}

#[tokio::test]
async fn a_command_whose_nodes_have_all_reported_is_marked_without_asking_ssm_for_them() {
    let cloud = cloud_with([(1, pulled()), (2, pulled())]);
    cloud
        .batch(&[event_of(1, 1), event_of(1, 2), event_of_command(1)], 1)
        .await;
    cloud.calls();
    assert_eq!(cloud.sweep(4300).await["commands"], 1);
    assert_eq!(calls_for_commands(&cloud), ["ListCommands", "BatchGetItem", "PutItem"]);
    assert!(cloud.row(&Key::swept(COMMAND)).is_some());
}

#[tokio::test]
async fn a_command_within_its_deadline_or_none_of_ours_is_left_alone() {
    let cloud = cloud_with([(1, pulled())]);
    cloud.send(2, "by hand", &[1], [(1, pulled())]);
    cloud.send(3, "inventory rule=default attempt=1", &[], [(1, running())]);
    assert_eq!(cloud.sweep(4199).await["commands"], 0);
    assert_eq!(cloud.sweep(4201).await["commands"], 1);
    assert!([2, 3].iter().all(|k| cloud.row(&Key::swept(&command_id(*k))).is_none()));
}

#[tokio::test]
async fn a_command_that_matched_no_node_and_whose_end_nobody_told_is_found() {
    let cloud = cloud_with([]);
    assert_eq!(cloud.sweep(4300).await["asked"], 1);
    let (_, event) = cloud.made_up().remove(0);
    assert_eq!(event["detail-type"], "EC2 Command Status-change Notification");
    cloud.answer(&event.to_string()).await;
    assert_eq!(cloud.metric("CommandsWithoutNodes"), [1.0]);
}

#[tokio::test]
async fn a_retry_is_made_up_where_its_node_knows_of_earlier_ones_only() {
    let cloud = cloud_with([(1, failed()), (2, failed())]);
    cloud
        .batch(&[event_of(1, 1), event_of(1, 2), event_of_command(1)], 1)
        .await;
    let comment = cloud.retries()[0].comment().to_string();
    cloud.send(2, &comment, &[1], [(1, pulled()), (2, pulled())]);
    cloud.batch(&[event_of(2, 1)], 1).await;
    assert_eq!(
        cloud.sweep(4300).await,
        json!({"commands": 2, "asked": 1, "finished": 0, "unfinished": false})
    );
    let (_, event) = cloud.made_up().remove(0);
    assert_eq!(
        (&event["detail"]["command-id"], &event["detail"]["instance-id"]),
        (&json!(command_id(2)), &json!(node_id(2)))
    );
}

#[tokio::test]
async fn every_page_of_commands_and_nodes_is_looked_at() {
    let cloud = cloud_with([
        (1, pulled()),
        (2, pulled()),
        (3, pulled()),
        (4, pulled()),
        (5, pulled()),
    ]);
    for k in 2..=7 {
        cloud.send(k, "push rule=default attempt=1", &[1], [(k, pulled())]);
    }
    cloud.state(|state| state.page = Some(2));
    assert_eq!(cloud.sweep(4300).await["asked"], 7 + 11);
    let calls = cloud.calls();
    assert_eq!(calls.iter().filter(|call| **call == "ListCommands").count(), 4);
    assert_eq!(
        calls.iter().filter(|call| **call == "ListCommandInvocations").count(),
        3 + 6
    );
    let several = calls.iter().filter(|call| **call == "SendMessageBatch").count();
    assert_eq!(several, 7 + 3 + 6);
}

#[tokio::test]
async fn a_throttled_page_ends_the_sweep_and_the_next_one_takes_it_up() {
    for (call, before) in [
        ("ListCommands", 0),
        ("BatchGetItem", 0),
        ("ListCommandInvocations", 0),
        ("BatchGetItem", 1),
        ("SendMessageBatch", 0),
        ("SendMessageBatch", 1),
        ("PutItem", 0),
    ] {
        let cloud = cloud_with([(1, running())]);
        cloud.fail(call, before, THROTTLED);
        let swept = cloud.sweep(4300).await;
        assert_eq!(
            (&swept["commands"], &swept["unfinished"]),
            (&json!(0), &json!(true)),
            "{call}"
        );
        assert!(cloud.row(&Key::swept(COMMAND)).is_none());
        let swept = cloud.sweep(4300).await;
        assert_eq!((&swept["commands"], &swept["asked"]), (&json!(1), &json!(2)), "{call}");
    }
}

#[tokio::test]
async fn a_sweep_whose_time_is_over_leaves_the_rest_to_the_next() {
    let cloud = cloud_with([(1, running())]);
    let now = requested_at() + TimeDelta::seconds(4300);
    let mut sweep = cloud.result.sweep(now);
    let over = sweep.commands(Instant::now()).await;
    assert!(matches!(over, Err(SweepError::Time(_))));
    let over = sweep.outbox(Instant::now()).await;
    assert!(matches!(over, Err(SweepError::Time(_))));
    assert!(cloud.calls().is_empty());
    assert_eq!(sweep.swept.left, partitions(now));
    let silent = within(
        Instant::now() + Duration::from_millis(1),
        std::future::pending::<Result<(), _>>(),
    )
    .await;
    assert!(matches!(silent, Err(SweepError::Time(_))));
}

#[test]
fn no_partition_is_always_the_last_to_be_looked_at_whatever_the_interval() {
    for minutes in [1, 15, 60, 240, 480, 720, 987] {
        let sweeps = (0..200).map(|k| partitions(requested_at() + TimeDelta::minutes(minutes) * k));
        let sweeps: Vec<String> = sweeps.collect();
        for place in [0, 15] {
            let there: BTreeSet<&str> = sweeps.iter().map(|order| &order[place..=place]).collect();
            assert_eq!(there.len(), 16, "every {minutes} minutes");
        }
        for order in sweeps {
            assert_eq!(order.chars().collect::<BTreeSet<_>>().len(), 16);
        }
    }
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_holds_up_no_other_and_is_said_to_be_left() {
    let cloud = cloud_with([(1, failed())]);
    cloud.fail("PutObject", 0, "SlowDown");
    cloud.batch(&[event_of(1, 1)], 1).await;
    let order = partitions(requested_at() + TimeDelta::minutes(16));
    let own = order.find(&COMMAND[..1]).unwrap();
    let other = usize::from(own == 0);
    cloud.fail("Query", other, THROTTLED);
    let swept = cloud.sweep(60 * 16).await;
    let expected = json!({"commands": 0, "asked": 0, "finished": 1, "unfinished": true, "left": &order[other..=other]});
    assert_eq!(swept, expected);
}

#[tokio::test]
async fn what_cannot_be_finished_holds_up_nothing_else() {
    let cloud = cloud_with([(1, pulled()), (2, pulled())]);
    for node in [1, 2] {
        cloud.fail("PutObject", 0, "SlowDown");
        cloud.batch(&[event_of(1, node)], 1).await;
    }
    cloud.fail("PutObject", 0, "SlowDown");
    cloud.state(|state| state.table.page = Some(1));
    let swept = cloud.sweep(60 * 16).await;
    assert_eq!(
        (&swept["finished"], &swept["unfinished"], cloud.outboxes()),
        (&json!(1), &json!(true), 1)
    );
}

#[tokio::test]
async fn what_was_left_undone_for_a_quarter_of_an_hour_is_done() {
    let cloud = cloud_with([(1, failed())]);
    cloud.fail("PutObject", 0, "SlowDown");
    cloud.batch(&[event_of(1, 1)], 1).await;
    assert_eq!(cloud.sweep(60 * 15).await["finished"], 0);
    cloud.fail("PutObject", 0, "SlowDown");
    assert_eq!(cloud.sweep(60 * 16).await["unfinished"], true);
    assert_eq!(cloud.sweep(60 * 16).await["finished"], 1);
    assert_eq!(
        (cloud.outboxes(), cloud.records().len(), cloud.retries().len()),
        (0, 1, 1)
    );
}

#[tokio::test]
async fn what_a_later_attempt_of_the_node_hid_is_done_by_the_first_sweep_that_aws_does_not_refuse() {
    let cloud = cloud_with([(1, failed())]);
    cloud.fail("DeleteItem", 0, THROTTLED);
    cloud.batch(&[event_of(1, 1)], 1).await;
    let comment = format!("push rule=default attempt=2 job={COMMAND}");
    cloud.send(2, &comment, &[1], [(1, pulled())]);
    // The node's row names what was left by its last change only.
    assert!(cloud.batch(&[event_of(2, 1), event_of(1, 1)], 2).await.is_empty());
    assert_eq!(cloud.outboxes(), 1);
    for (is_refused, unfinished, left) in [(true, true, 1), (false, false, 0)] {
        if is_refused {
            cloud.fail("DeleteItem", 0, THROTTLED);
        }
        let swept = cloud.sweep(60 * 16).await;
        assert_eq!((&swept["unfinished"], cloud.outboxes()), (&json!(unfinished), left));
    }
}

impl Cloud {
    /// Sweeps so many seconds after the command was sent.
    async fn sweep(&self, seconds: i64) -> Value {
        self.answer_at(SWEEP, requested_at() + TimeDelta::seconds(seconds))
            .await
    }
}

fn cloud_with<const N: usize>(nodes: [(usize, Invocation); N]) -> Cloud {
    let cloud = Cloud::new();
    cloud.send(1, "push rule=default attempt=1", &[1], nodes);
    cloud
}

fn pulled() -> Invocation {
    Invocation::reporting(line(&image(1), "pulled", ""))
}

fn failed() -> Invocation {
    Invocation::reporting(line(&image(1), "failed", "registry"))
}

fn running() -> Invocation {
    Invocation::without_report("InProgress", "InProgress")
}

/// Lists the calls of a sweep after those that look through the outbox, one for each of its partitions.
fn calls_for_commands(cloud: &Cloud) -> Vec<&'static str> {
    let mut calls = cloud.calls();
    let of_commands = calls.split_off(OUTBOX_PARTITIONS.len());
    assert!(calls.iter().all(|call| *call == "Query"), "{calls:?}");
    of_commands
}

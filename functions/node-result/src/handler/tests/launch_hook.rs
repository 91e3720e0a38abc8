//! Instances that wait in a launch lifecycle hook.

use chrono::TimeDelta;

use super::*;
use crate::cloud::{HOOK, requested_at};

const WAITS: &str = "Warmed:Pending:Wait";
const LAUNCH: &str = "launch rule=default attempt=1";

#[tokio::test]
async fn an_instance_goes_on_once_the_only_command_of_its_launch_has_ended() {
    for waits in [WAITS, "Pending:Wait"] {
        let cloud = launched(&[1]);
        cloud.state(|state| state.lifecycle.insert(node_id(1), waits));
        assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty());
        assert_eq!(state_of(&cloud), "Warmed:Stopped");
        let expected = [
            "DescribeAutoScalingInstances",
            "Query",
            "BatchGetItem",
            "CompleteLifecycleAction",
        ];
        let calls = cloud.calls();
        let first = calls.iter().position(|call| *call == expected[0]).unwrap();
        assert_eq!(calls[first..first + 4], expected);
        assert_eq!(cloud.outboxes(), 0);
    }
}

#[tokio::test]
async fn an_instance_waits_until_the_last_of_its_launchs_commands_has_ended() {
    let cloud = launched(&[1, 2]);
    cloud.batch(&[event_of(1, 1)], 1).await;
    assert_eq!(state_of(&cloud), WAITS);
    cloud.batch(&[event_of(2, 1)], 1).await;
    assert_eq!(state_of(&cloud), "Warmed:Stopped");
}

#[tokio::test]
async fn an_instance_waits_while_commands_of_its_launch_are_still_being_sent() {
    let cloud = launched(&[1]);
    let key = launch_key();
    let commands = cloud.state(|state| state.table.rows.get_mut(&key).unwrap().remove("commands"));
    assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty());
    assert_eq!(state_of(&cloud), WAITS);
    cloud.state(|state| state.table.rows.remove(&key));
    assert!(cloud.batch(&[event_of(1, 1)], 2).await.is_empty());
    assert_eq!((state_of(&cloud), commands.is_some()), (WAITS, true));
}

#[tokio::test]
async fn an_instance_waits_for_its_retries_and_goes_on_when_they_are_used_up() {
    let cloud = launched(&[1]);
    let failed = || Invocation::reporting(line(&image(1), "failed", "registry"));
    for (k, attempt) in [(1, 1), (2, 2), (3, 3)] {
        let job = if k == 1 {
            String::new()
        } else {
            format!(" job={COMMAND}")
        };
        let comment = format!("launch rule=default attempt={attempt}{job}");
        cloud.send(k, &comment, &[1], [(1, failed())]);
        assert_eq!(state_of(&cloud), WAITS);
        assert!(cloud.batch(&[event_of(k, 1)], 1).await.is_empty());
    }
    assert_eq!(state_of(&cloud), "Warmed:Stopped");
}

#[tokio::test]
async fn an_image_that_never_comes_holds_no_instance() {
    for (status, reason) in [("failed", "denied"), ("skipped", "platform"), ("skipped", "no-space")] {
        let cloud = launched(&[]);
        cloud.send(
            1,
            LAUNCH,
            &[1],
            [(1, Invocation::reporting(line(&image(1), status, reason)))],
        );
        remember(&cloud, &[1]);
        cloud.batch(&[event_of(1, 1)], 1).await;
        assert_eq!(state_of(&cloud), "Warmed:Stopped", "{reason}");
    }
}

#[tokio::test]
async fn an_instance_waits_for_what_its_neighbours_run_however_that_ends() {
    for ended in [
        Invocation::reporting(line(&image(2), "failed", "registry")),
        Invocation::reporting(line(&image(2), "pulled", "")),
        Invocation::without_report("TimedOut", "DeliveryTimedOut"),
    ] {
        let cloud = launched(&[1]);
        cloud.send(2, "neighbours rule=default attempt=1", &[2], [(1, ended)]);
        remember(&cloud, &[1, 2]);
        cloud.batch(&[event_of(1, 1)], 1).await;
        assert_eq!(state_of(&cloud), WAITS);
        cloud.batch(&[event_of(2, 1)], 1).await;
        assert_eq!(state_of(&cloud), "Warmed:Stopped");
    }
}

#[tokio::test]
async fn an_action_is_completed_once_however_often_its_events_come() {
    let cloud = launched(&[1]);
    for time in 1..4 {
        assert!(cloud.batch(&[event_of(1, 1)], time).await.is_empty());
    }
    assert_eq!(count(&cloud, "CompleteLifecycleAction"), 1);
}

#[tokio::test]
async fn an_instance_that_does_not_wait_is_looked_up_and_no_more() {
    for state in [
        None,
        Some("InService"),
        Some("Terminating:Wait"),
        Some("Warmed:Stopped"),
    ] {
        let cloud = launched(&[1]);
        cloud.state(|known| {
            known.lifecycle = state.map(|state| (node_id(1), state)).into_iter().collect();
        });
        assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty());
        assert_eq!(count(&cloud, "DescribeAutoScalingInstances"), 1);
        assert_eq!(cloud.state(|known| known.calls.take()).len(), 0);
    }
}

#[tokio::test]
async fn only_launches_ask_auto_scaling_and_none_where_the_stack_has_no_hook() {
    let report = || Invocation::reporting(line(&image(1), "pulled", ""));
    for (hook, comment) in [
        (HOOK, "push rule=default attempt=1"),
        (HOOK, "job rule=default attempt=1"),
        ("", LAUNCH),
    ] {
        let cloud = if hook.is_empty() {
            Cloud::new()
        } else {
            Cloud::with_hook(hook)
        };
        cloud.send(1, comment, &[1], [(1, report())]);
        remember(&cloud, &[1]);
        assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty());
        let calls = cloud.calls();
        assert!(
            !calls
                .iter()
                .any(|call| call.contains("AutoScaling") || *call == "Query"),
            "{calls:?}"
        );
    }
}

#[tokio::test]
async fn whatever_auto_scaling_answers_the_outcome_is_settled_and_nothing_is_handed_back() {
    for (call, code) in [
        ("DescribeAutoScalingInstances", "Throttling"),
        ("DescribeAutoScalingInstances", "AccessDenied"),
        ("CompleteLifecycleAction", "Throttling"),
        ("CompleteLifecycleAction", "AccessDenied"),
        ("CompleteLifecycleAction", "ResourceContention"),
        ("CompleteLifecycleAction", "ValidationError"),
        ("Query", THROTTLED),
    ] {
        let cloud = launched(&[1]);
        cloud.fail(call, 0, code);
        assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty(), "{call} {code}");
        assert_eq!((cloud.outboxes(), state_of(&cloud)), (0, WAITS), "{call} {code}");
        assert_eq!(cloud.job()["pulled"], 1);
    }
}

#[tokio::test]
async fn a_function_killed_before_it_could_let_an_instance_go_does_so_when_the_event_comes_again() {
    let cloud = launched(&[1]);
    cloud.fail("PutObject", 0, THROTTLED);
    assert_eq!(cloud.batch(&[event_of(1, 1)], 1).await, [0]);
    assert_eq!(state_of(&cloud), WAITS);
    assert!(cloud.batch(&[event_of(1, 1)], 2).await.is_empty());
    assert_eq!(state_of(&cloud), "Warmed:Stopped");
}

/// Makes a cloud where a waiting instance's launch became these commands, which pulled.
fn launched(commands: &[usize]) -> Cloud {
    let cloud = Cloud::with_hook(HOOK);
    for k in commands {
        let pulled = Invocation::reporting(line(&image(*k), "pulled", ""));
        cloud.send(*k, LAUNCH, &[*k], [(1, pulled)]);
    }
    remember(&cloud, commands);
    cloud.state(|state| state.lifecycle.insert(node_id(1), WAITS));
    cloud
}

/// Has node-launch remember the commands that it sent, after those of an earlier launch of the node.
fn remember(cloud: &Cloud, commands: &[usize]) {
    let before = Key::launch(&node_id(1), Some(requested_at() - TimeDelta::days(1)));
    for (key, commands) in [(before, &[9][..]), (launch_key(), commands)] {
        let ids: Vec<String> = commands.iter().map(|k| command_id(*k)).collect();
        let mut row: prefetch::rows::Item = serde_dynamo::to_item(json!({"commands": ids})).unwrap();
        row.extend(key.item());
        cloud.state(|state| state.table.rows.insert(key, row));
    }
}

fn launch_key() -> Key {
    Key::launch(&node_id(1), Some(requested_at()))
}

fn state_of(cloud: &Cloud) -> &'static str {
    cloud.state(|state| state.lifecycle[&node_id(1)])
}

fn count(cloud: &Cloud, call: &str) -> usize {
    cloud.calls().iter().filter(|made| **made == call).count()
}

//! GET /jobs, GET /jobs/{id} and GET /jobs/stats.

use aws_sdk_ssm::types::CommandStatus;
use chrono::TimeDelta;
use prefetch::{command::Trigger, rows::Key};
use serde_json::{Value, json};

use crate::tests::cloud::{Cloud, command_id, image, node_id, now};

#[tokio::test]
async fn jobs_are_listed_newest_first_and_retries_and_commands_by_hand_are_none() {
    let cloud = Cloud::new();
    let first = cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    cloud.add_command(
        &format!("push rule=default attempt=2 job={first}"),
        CommandStatus::Success,
    );
    cloud.add_command("by hand", CommandStatus::Success);
    cloud.add_command("inventory rule=default attempt=1", CommandStatus::Success);
    let second = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    cloud.put(
        &Key::job(&first),
        json!({"trigger": "push", "rule": "default", "requested_at": now(), "targets": 2, "images": [image("team/app", "v1")],
            "pulled": 1, "cached": 1, "bytes": 25, "slowest_seconds": 10, "slowest_node": node_id(1)}),
    );
    cloud.put(&Key::cancelled(&second), json!({"cancelled_at": now()}));
    let (status, list) = cloud.get("/jobs").await;
    let told = json!({
        "id": first, "trigger": "push", "rule": "default", "requestedAt": "2026-11-16T01:54:34.049Z", "state": "done",
        "images": [image("team/app", "v1")], "bytes": 25, "slowestSeconds": 10.0, "slowestNode": node_id(1),
        "nodes": {"total": 2, "done": 2, "pulled": 1, "cached": 1, "skipped": 0, "failed": 0, "notApplicable": 0, "retrying": 0, "retried": 0},
    });
    assert_eq!((status, &list["jobs"][1]), (200, &told));
    assert_eq!(
        (&list["jobs"][0]["id"], &list["jobs"][0]["state"]),
        (&json!(second), &json!("cancelled"))
    );
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(cloud.calls(), ["ListCommands", "Query", "BatchGetItem"]);
}

#[tokio::test]
async fn a_list_is_paged_to_its_end_and_refuses_what_is_no_page() {
    let cloud = Cloud::new();
    for _ in 0..7 {
        cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    }
    let mut target = "/jobs?limit=3".to_owned();
    let mut ids = Vec::new();
    for page in 1.. {
        let (status, list) = cloud.get(&target).await;
        assert_eq!(status, 200);
        ids.extend(
            list["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|job| job["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = list["next"].as_str() else {
            assert_eq!(page, 3);
            break;
        };
        target = format!("/jobs?limit=3&next={next}");
    }
    assert_eq!(ids, (1..=7).rev().map(command_id).collect::<Vec<_>>());
    let stale = json!({"commands": {"after": {"token": "not a token of SSM", "told": null}}, "observed": "end"});
    let stale = crate::http::query::token(&stale);
    for target in [
        "/jobs?limit=51",
        "/jobs?next=x",
        "/jobs?page=1",
        &format!("/jobs?next={stale}"),
    ] {
        assert_eq!(cloud.get(target).await.0, 400, "{target}");
    }
}

#[tokio::test]
async fn a_job_is_told_with_what_became_of_each_image_on_each_node() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    cloud.set_command(1, |command| command.target_count = 3);
    let row = json!({"trigger": "job", "rule": "default", "requested_at": now(), "pulled": 1, "failed": 1, "retrying": 1, "retried": 1, "bytes": 25});
    cloud.put(&Key::job(&id), row);
    let outcome = |status: &str, reason: &str| {
        json!({image("team/app", "v1"): {
        "status": status, "reason": reason, "seconds": 0.4, "bytes": 25, "attempts": 1, "attempt": 1, "reported": true}})
    };
    let node = |status: &str, reason: &str, retrying: bool| {
        json!({
            "version": 1, "attempt": 1, "status": status, "retrying": retrying, "images": outcome(status, reason),
            "ended_at": now(), "command": id, "expires_at": 1,
        })
    };
    let mut pulled = node("pulled", "", false);
    pulled["warm_at"] = json!(now());
    cloud.put(&Key::node(&id, &node_id(1)), pulled);
    cloud.put(&Key::node(&id, &node_id(2)), node("failed", "registry", true));

    let (status, job) = cloud.get(&format!("/jobs/{id}")).await;
    assert_eq!(
        (status, &job["state"], &job["next"]),
        (200, &json!("running"), &Value::Null)
    );
    let nodes = json!({
        "total": 3, "done": 1, "pulled": 1, "cached": 0, "skipped": 0, "failed": 1, "notApplicable": 0, "retrying": 1, "retried": 1,
    });
    assert_eq!(job["nodes"], nodes);
    assert_eq!(job["images"], json!([image("team/app", "v1")]));
    let expected = json!({
        "node": node_id(1), "status": "pulled", "attempt": 1, "retrying": false, "endedAt": "2026-11-16T01:54:34.049Z",
        "warmAt": "2026-11-16T01:54:34.049Z",
        "images": [{"image": image("team/app", "v1"), "status": "pulled", "reason": "", "seconds": 0.4, "bytes": 25, "attempts": 1}],
    });
    assert_eq!(job["outcomes"][0], expected);
    assert_eq!(
        (
            &job["outcomes"][1]["retrying"],
            job["outcomes"].as_array().unwrap().len()
        ),
        (&json!(true), 2)
    );
    assert_eq!(cloud.calls(), ["Query", "ListCommands", "DescribeInstances"]);
}

#[tokio::test]
async fn a_node_that_is_not_warm_is_told_with_its_name_where_ec2_can_be_asked_and_knows_it() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::Success);
    let name = |k: usize| format!("ip-10-0-0-{k}.eu-central-1.compute.internal");
    for k in 1..=2 {
        cloud.launch(k, |(instance, _)| instance.private_dns_name = Some(name(k)));
    }
    // The third is gone.
    for (k, status) in [(1, "pulled"), (2, "failed"), (3, "skipped")] {
        let row = json!({"version": 1, "attempt": 1, "status": status, "retrying": false, "images": {}, "ended_at": now(), "command": id});
        cloud.put(&Key::node(&id, &node_id(k)), row);
    }
    for (fault, expected) in [
        (None, [Value::Null, json!(name(2)), Value::Null]),
        (Some("RequestLimitExceeded"), [const { Value::Null }; 3]),
    ] {
        if let Some(code) = fault {
            cloud.fail("DescribeInstances", 0, code);
        }
        let (status, job) = cloud.get(&format!("/jobs/{id}")).await;
        assert_eq!(status, 200);
        assert_eq!(
            [0, 1, 2].map(|place: usize| job["outcomes"][place]["name"].clone()),
            expected
        );
    }
    cloud.calls();
    cloud.get(&format!("/jobs/{id}?limit=1")).await;
    assert_eq!(cloud.calls(), ["Query", "ListCommands"]);
}

#[tokio::test]
async fn the_nodes_of_a_job_are_paged_each_once() {
    for (has_row, is_cancelled) in [(true, true), (true, false), (false, false)] {
        let cloud = Cloud::new();
        let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
        if has_row {
            cloud.put(
                &Key::job(&id),
                json!({"trigger": "job", "rule": "default", "requested_at": now(), "pulled": 7}),
            );
        }
        if is_cancelled {
            cloud.put(&Key::cancelled(&id), json!({"cancelled_at": now()}));
        }
        for k in 1..=7 {
            let node = json!({"version": 1, "attempt": 1, "status": "pulled", "retrying": false, "images": {}, "ended_at": now(), "command": id});
            cloud.put(&Key::node(&id, &node_id(k)), node);
        }
        for limit in [1, 2, 3, 7, 8] {
            let mut next = String::new();
            let mut nodes = Vec::new();
            loop {
                let (status, job) = cloud.get(&format!("/jobs/{id}?limit={limit}{next}")).await;
                assert_eq!((status, &job["id"]), (200, &json!(id)));
                let outcomes = job["outcomes"].as_array().unwrap();
                assert!(outcomes.len() <= limit);
                nodes.extend(
                    outcomes
                        .iter()
                        .map(|outcome| outcome["node"].as_str().unwrap().to_owned()),
                );
                assert_eq!(job["state"], if is_cancelled { "cancelled" } else { "running" });
                match job["next"].as_str() {
                    Some(token) => next = format!("&next={token}"),
                    None => break,
                }
            }
            assert_eq!(nodes, (1..=7).map(node_id).collect::<Vec<_>>(), "{limit}");
        }
        let token = crate::http::query::token(&"node#");
        assert_eq!(cloud.get(&format!("/jobs/{id}?next={token}")).await.0, 400);
    }
}

#[tokio::test]
async fn nodes_that_are_none_of_the_job_are_told_apart_and_it_ends_with_them() {
    let cloud = Cloud::new();
    let id = cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    cloud.put(
        &Key::job(&id),
        json!({"trigger": "push", "rule": "default", "requested_at": now(), "targets": 10, "pulled": 6, "not_applicable": 4}),
    );
    let hybrid = "mi-0aaaabbbbccccdddd";
    for (node, reason) in [(node_id(1), "platform"), (hybrid.to_owned(), "hybrid-node")] {
        let outcome = json!({"status": "skipped", "reason": reason, "seconds": 0.1, "bytes": 0, "attempts": 0, "attempt": 1, "reported": true});
        let row = json!({"version": 1, "attempt": 1, "status": "skipped", "retrying": false, "ended_at": now(), "command": id,
            "images": {image("team/app", "v1"): outcome}});
        cloud.put(&Key::node(&id, &node), row);
    }
    let (status, job) = cloud.get(&format!("/jobs/{id}?limit=1")).await;
    let nodes = json!({
        "total": 10, "done": 10, "pulled": 6, "cached": 0, "skipped": 0, "failed": 0, "notApplicable": 4, "retrying": 0, "retried": 0,
    });
    assert_eq!((status, &job["state"], &job["nodes"]), (200, &json!("done"), &nodes));
    assert_eq!(job["outcomes"][0]["images"][0]["reason"], "platform");
    // A page may begin after a node that is none of EC2's, which is not asked for there.
    let (_, job) = cloud
        .get(&format!("/jobs/{id}?limit=1&next={}", job["next"].as_str().unwrap()))
        .await;
    assert_eq!(job["outcomes"][0]["node"], hybrid);
    cloud.calls();
    let after = crate::http::query::token(&hybrid);
    assert_eq!(cloud.get(&format!("/jobs/{id}?next={after}")).await.0, 200);
    assert!(!cloud.calls().contains(&"DescribeInstances"));
}

#[tokio::test]
async fn a_job_is_done_when_all_its_nodes_have_reported_and_none_retries_or_it_is_too_late() {
    let row = |targets: Value, pulled: i64, retrying: i64| {
        let mut row =
            json!({"trigger": "job", "rule": "default", "requested_at": now(), "pulled": pulled, "retrying": retrying});
        if !targets.is_null() {
            row["targets"] = targets;
        }
        row
    };
    let (running, success) = (CommandStatus::InProgress, CommandStatus::Success);
    for (command, row, seconds, state) in [
        // Before SSM has found all nodes, and after.
        (Some((running.clone(), 0)), None, 0, "running"),
        (Some((success.clone(), 0)), None, 0, "done"),
        (Some((running.clone(), 2)), Some(row(Value::Null, 2, 0)), 0, "running"),
        (Some((success.clone(), 2)), Some(row(Value::Null, 1, 0)), 0, "running"),
        (Some((success.clone(), 2)), Some(row(Value::Null, 2, 0)), 0, "done"),
        (Some((success.clone(), 2)), Some(row(json!(2), 2, 1)), 0, "running"),
        (Some((running.clone(), 2)), Some(row(json!(2), 2, 0)), 0, "done"),
        // SSM has forgotten it.
        (None, Some(row(json!(2), 1, 0)), 0, "running"),
        (None, Some(row(json!(2), 1, 0)), 18_001, "done"),
        (Some((running, 2)), None, 18_001, "done"),
    ] {
        let cloud = Cloud::new();
        if let Some((status, targets)) = command.clone() {
            cloud.add_command("job rule=default attempt=1", status);
            cloud.set_command(1, |command| command.target_count = targets);
        }
        if let Some(row) = row.clone() {
            cloud.put(&Key::job(&command_id(1)), row);
        }
        let target = format!("/jobs/{}", command_id(1));
        let (status, job) = cloud.http_at("GET", &target, Value::Null, None, seconds).await;
        assert_eq!(
            (status, job["state"].as_str()),
            (200, Some(state)),
            "{command:?} {row:?}"
        );
    }
}

#[tokio::test]
async fn a_job_of_which_nothing_is_heard_is_done_once_the_last_sweep_would_have_told() {
    let mut cloud = Cloud::new();
    cloud.jobs.settings.sweep_interval = TimeDelta::hours(12);
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    let last = 3 * (600 + 3600 + 12 * 3600 + 900);
    for (seconds, state) in [(last - 1, "running"), (last + 1, "done")] {
        let (_, job) = cloud
            .http_at("GET", &format!("/jobs/{id}"), Value::Null, None, seconds)
            .await;
        assert_eq!(job["state"], state, "{seconds}");
    }
}

#[tokio::test]
async fn what_is_no_job_is_not_found_and_what_is_no_id_not_accepted() {
    let cloud = Cloud::new();
    let first = cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    let further = cloud.add_command(
        &format!("push rule=default attempt=2 job={first}"),
        CommandStatus::Success,
    );
    let by_hand = cloud.add_command("by hand", CommandStatus::Success);
    let foreign = cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    cloud.set_command(4, |command| {
        command.document_name = Some("AWS-RunShellScript".to_owned());
    });
    let inventory = cloud.add_command("inventory rule=default attempt=1", CommandStatus::Success);
    for id in [further, by_hand, foreign, inventory, command_id(9)] {
        for method in ["GET", "DELETE"] {
            assert_eq!(
                cloud.http(method, &format!("/jobs/{id}"), Value::Null, None).await.0,
                404,
                "{method} {id}"
            );
        }
    }
    for id in ["x", "E8D3C0E4-71F7-4491-898F-C9B35BEE5F3B", "%2e%2e", "job#1"] {
        for method in ["GET", "DELETE"] {
            assert_eq!(
                cloud.http(method, &format!("/jobs/{id}"), Value::Null, None).await.0,
                400,
                "{method} {id}"
            );
        }
    }
    assert!(cloud.state(|state| state.cancelled.is_empty()));
}

#[tokio::test]
async fn counters_are_told_by_trigger_and_in_total_in_one_read() {
    let cloud = Cloud::new();
    cloud.put(
        &Key::totals(Trigger::Push),
        json!({"jobs": 2, "pulled": 5, "cached": 1, "failed": 1, "retried": 2, "bytes": 100}),
    );
    cloud.put(
        &Key::totals(Trigger::Schedule),
        json!({"jobs": 1, "cached": 3, "skipped": 1, "not_applicable": 4, "bytes": 0}),
    );
    // What is best effort is told, and in no total.
    cloud.put(&Key::totals(Trigger::Neighbours), json!({"jobs": 1, "failed": 7}));
    let (status, told) = cloud.get("/jobs/stats").await;
    let expected = json!({
        "jobs": 3, "succeeded": 9, "pulled": 5, "cached": 4, "skipped": 1, "failed": 1, "notApplicable": 4, "retried": 2,
        "bytes": 100,
        "triggers": {
            "neighbours": {
                "jobs": 1, "succeeded": 0, "pulled": 0, "cached": 0, "skipped": 0, "failed": 7, "notApplicable": 0, "retried": 0,
                "bytes": 0,
            },
            "push": {
                "jobs": 2, "succeeded": 6, "pulled": 5, "cached": 1, "skipped": 0, "failed": 1, "notApplicable": 0, "retried": 2,
                "bytes": 100,
            },
            "schedule": {
                "jobs": 1, "succeeded": 3, "pulled": 0, "cached": 3, "skipped": 1, "failed": 0, "notApplicable": 4, "retried": 0,
                "bytes": 0,
            },
        },
    });
    assert_eq!((status, told), (200, expected));
    assert_eq!(cloud.calls(), ["Query"]);
}

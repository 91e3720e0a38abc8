//! Retries: which outcomes get one, and what becomes of those that are due.

use super::*;

const RETRY: &str = include_str!("../../../../../events/node-result.retry.json");

#[tokio::test]
async fn a_node_that_a_reconcile_does_not_reach_is_left_to_the_next_and_one_that_failed_is_retried() {
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
async fn what_only_neighbours_run_is_not_retried_and_says_nothing_of_the_node_but_its_outcome_is_known() {
    for (status, reason) in [
        ("failed", "registry"),
        ("failed", "denied"),
        ("skipped", "no-space"),
        ("pulled", ""),
    ] {
        let cloud = Cloud::new();
        let ended = Invocation::reporting(line(&image(1), status, reason));
        cloud.send(1, "neighbours rule=default attempt=1", &[1], [(1, ended)]);
        let answer = cloud.answer(FAILED).await;
        assert_eq!(
            (&answer["status"], &answer["retrying"]),
            (&json!(status), &json!(false))
        );
        assert_eq!(cloud.retries(), []);
        let counted = cloud
            .metrics()
            .into_iter()
            .flat_map(|line| line.as_object().unwrap().clone());
        let counted: Vec<String> = counted.map(|(name, _)| name).collect();
        assert!(
            !counted
                .iter()
                .any(|name| name.starts_with("Nodes") || name == "TimeToWarm")
        );
        assert_eq!(counted.contains(&"PulledBytes".to_owned()), status == "pulled");
        let (job, node, record) = (cloud.job(), cloud.node(1), cloud.records().remove(0));
        assert_eq!((&job["trigger"], &job[status]), (&json!("neighbours"), &json!(1)));
        for outcome in [&node["images"][image(1)], &record] {
            assert_eq!(
                (&outcome["status"], &outcome["reason"]),
                (&json!(status), &json!(reason))
            );
        }
        let totals = cloud.row(&Key::totals(Trigger::Neighbours)).unwrap();
        assert_eq!(totals[status], 1);
    }
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
async fn a_node_gets_as_many_retries_as_are_set_and_then_has_failed() {
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
async fn a_retry_waits_in_the_result_queue_and_goes_to_the_node_queue_at_once() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "failed", "registry")));
    cloud.batch(&[event_of(1, 1)], 1).await;
    assert!(cloud.messages("node-queue").is_empty());
    let waiting = due(&cloud);
    cloud.calls();
    assert!(cloud.batch(&waiting, 1).await.is_empty());
    assert_eq!(cloud.calls(), ["BatchGetItem", "SendMessageBatch"]);
    let [(delay, body)] = &cloud.messages("node-queue")[..] else {
        panic!("one retry is one message");
    };
    assert_eq!((delay, body), (&0, &serde_json::to_value(&cloud.retries()[0]).unwrap()));
}

#[tokio::test]
async fn a_retry_as_it_is_is_told_what_becomes_of_it() {
    let cloud = Cloud::new();
    let expected = json!({"decision": "queued", "job": COMMAND, "node": node_id(1), "attempt": 2});
    assert_eq!(cloud.answer(RETRY).await, expected);
    cloud.cancel(COMMAND);
    let expected =
        json!({"decision": "dropped", "reason": "cancelled", "message": format!("job {COMMAND} was cancelled")});
    assert_eq!(cloud.answer(RETRY).await, expected);
    assert_eq!(cloud.messages("node-queue").len(), 1);
}

#[tokio::test]
async fn a_retry_of_a_cancelled_job_never_happens() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "failed", "registry")));
    cloud.batch(&[event_of(1, 1)], 1).await;
    cloud.cancel(COMMAND);
    cloud.calls();
    assert!(cloud.batch(&due(&cloud), 1).await.is_empty());
    assert_eq!(cloud.calls(), ["BatchGetItem"]);
    assert!(cloud.messages("node-queue").is_empty());
}

#[tokio::test]
async fn events_and_retries_of_several_jobs_are_settled_side_by_side() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    cloud.cancel(&command_id(7));
    let of_job = |k: usize| RETRY.replace(COMMAND, &command_id(k));
    let no_image = RETRY.replace(&image(1), "team/app");
    let batch = [
        event_of(1, 1),
        of_job(5),
        of_job(7),
        no_image,
        of_job(5),
        of_job(6),
        "{}".to_owned(),
    ];
    assert_eq!(cloud.batch(&batch, 1).await, [3, 6]);
    assert_eq!(cloud.job()["pulled"], 1);
    let jobs: Vec<Value> = cloud
        .messages("node-queue")
        .into_iter()
        .map(|(_, retry)| retry["job"].clone())
        .collect();
    assert_eq!(jobs, [json!(command_id(5)), json!(command_id(6))]);
    let calls = cloud.calls();
    assert_eq!(calls.iter().filter(|call| **call == "BatchGetItem").count(), 2);
    assert_eq!(calls.iter().filter(|call| **call == "SendMessageBatch").count(), 1);
}

#[tokio::test]
async fn a_retry_that_cannot_be_sent_is_handed_back_and_holds_up_no_event() {
    for (call, before, code) in [
        ("BatchGetItem", 1, THROTTLED),
        ("SendMessageBatch", 0, THROTTLED),
        ("SendMessageBatch", 0, "Refused"),
        ("SendMessageBatch", 0, "Unconfirmed"),
    ] {
        let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
        cloud.fail(call, before, code);
        assert_eq!(cloud.batch(&[RETRY.to_owned(), event_of(1, 1)], 1).await, [0], "{call}");
        assert_eq!(
            (&cloud.job()["pulled"], cloud.messages("node-queue").len()),
            (&json!(1), 0)
        );
        assert!(cloud.batch(&[RETRY.to_owned()], 2).await.is_empty(), "{call}");
        assert_eq!(cloud.messages("node-queue").len(), 1, "{call}");
    }
}

#[tokio::test]
async fn more_retries_than_one_call_takes_go_in_several_and_those_of_a_failed_one_are_handed_back() {
    let cloud = Cloud::new();
    let batch: Vec<String> = (1..=25).map(|k| RETRY.replace(&node_id(1), &node_id(k))).collect();
    cloud.fail("SendMessageBatch", 1, THROTTLED);
    assert_eq!(cloud.batch(&batch, 1).await, (10..20).collect::<Vec<_>>());
    assert_eq!(cloud.messages("node-queue").len(), 15);
}

#[tokio::test]
async fn a_retry_that_nobody_can_make_is_handed_back() {
    for (place, value) in [
        ("/node", json!("i-1")),
        ("/images", json!([])),
        ("/images", json!(["team/app"])),
        ("/job", json!("../jobs")),
        ("/attempt", json!(0)),
        ("/rule", json!("")),
        ("", json!("again")),
        ("", Value::Null),
    ] {
        let mut message: Value = serde_json::from_str(RETRY).unwrap();
        *message.pointer_mut(&format!("/retry{place}")).unwrap() = value;
        let cloud = Cloud::new();
        let answer = cloud.answer(&message.to_string()).await;
        assert_eq!(
            (&answer["decision"], &answer["reason"]),
            (&json!("handed-back"), &json!("malformed")),
            "{message}"
        );
        assert!(cloud.calls().is_empty());
    }
}

/// Lists the messages of retries as they come out of the queue.
fn due(cloud: &Cloud) -> Vec<String> {
    let messages = cloud.messages("result-queue").into_iter();
    messages.map(|(_, body)| body.to_string()).collect()
}

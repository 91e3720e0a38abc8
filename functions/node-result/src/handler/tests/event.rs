//! Events that settle something, or nothing.

use super::*;

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
    let in_progress = include_str!("../../../../../events/node-result.in-progress.json");
    let other = include_str!("../../../../../events/node-result.other-document.json");
    let launch = include_str!("../../../../../events/node-launch.running.json");
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
        .answer(include_str!("../../../../../events/node-result.sqs-poison.json"))
        .await;
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 7);
    assert_eq!(cloud.node(1)["status"], "pulled");
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
async fn the_command_of_a_retry_tells_nothing_of_its_job() {
    let cloud = Cloud::new();
    cloud.send(2, &format!("push rule=default attempt=2 job={COMMAND}"), &[1], []);
    assert_eq!(cloud.answer(&event_of_command(2)).await["reason"], "further-try");
    assert!(cloud.known().is_empty());
}

#[tokio::test]
async fn a_job_is_as_old_as_its_first_command_even_where_a_retry_is_known_before() {
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

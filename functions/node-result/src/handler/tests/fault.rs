//! Faults of AWS, and others that write the same rows.

use super::*;

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
async fn rows_that_dynamodb_leaves_out_are_read_again_a_few_times() {
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

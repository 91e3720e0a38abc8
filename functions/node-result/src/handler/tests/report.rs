//! Reports of nodes, and SSM's word where there is none.

use super::*;

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
async fn what_a_report_does_not_say_is_unreported_and_retried() {
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

//! Nodes that are none of a job: they cannot run its document, or none of its images.

use super::*;

const HYBRID: &str = include_str!("../../../../../events/node-result.hybrid.json");
const HYBRID_NODE: &str = "mi-0aaaabbbbccccdddd";

/// Lists the forms in which commands are seen to end on Windows nodes.
fn of_windows() -> [Invocation; 3] {
    let said = |stdout: &str| Invocation {
        exit_code: 0,
        stdout: stdout.to_owned(),
        ..Invocation::without_report("Success", "Success")
    };
    [
        said("Step execution skipped due to unsupported plugin: aws:runShellScript. Step name: prefetch"),
        Invocation::without_report("Failed", "InvalidPlatform"),
        said(
            "Step execution skipped due to unsatisfied preconditions: '\"StringEquals\": [platformType, Linux]'. Step name: prefetch",
        ),
    ]
}

#[tokio::test]
async fn a_node_that_cannot_run_the_document_is_none_of_the_job_whatever_its_answer() {
    for (form, ended) in of_windows().into_iter().enumerate() {
        let cloud = Cloud::new();
        let pulled = Invocation::reporting(line(&image(1), "pulled", ""));
        cloud.send(1, "push rule=default attempt=1", &[1], [(1, ended), (2, pulled)]);
        let events = [event_of(1, 1), event_of(1, 2), event_of_command(1)];
        assert!(cloud.batch(&events, 1).await.is_empty());
        assert!(cloud.batch(&events, 2).await.is_empty());
        let job = cloud.job();
        let counted = ["targets", "pulled", "not_applicable", "skipped", "failed", "retrying"];
        assert_eq!(counted.map(|name| job[name].clone()), [2, 1, 1, 0, 0, 0], "{form}");
        assert_eq!(cloud.row(&Key::totals(Trigger::Push)).unwrap()["not_applicable"], 1);
        assert_eq!(
            (cloud.node(1)["status"].clone(), cloud.reasons()),
            (json!("skipped"), vec!["invalid-platform".to_owned()])
        );
        assert!(cloud.retries().is_empty());
        assert!(cloud.metric("NodesFailed").is_empty() && cloud.metric("NodesSkipped").is_empty());
        let of_node: Vec<Value> = cloud
            .records()
            .into_iter()
            .filter(|record| record["node"] == node_id(1))
            .collect();
        assert_eq!((of_node.len(), &of_node[0]["status"]), (1, &json!("skipped")));
        // It has said nothing of what it holds.
        assert!(cloud.row(&Key::inventory(&node_id(1))).is_none());
    }
}

#[tokio::test]
async fn what_was_made_up_of_a_node_gives_way_to_the_word_that_it_is_none_of_the_job() {
    for ended in of_windows() {
        let cloud = Cloud::where_the_node(Invocation::without_report("InProgress", "InProgress"));
        cloud.answer(OVERDUE).await;
        assert_eq!(
            (&cloud.job()["failed"], &cloud.job()["retrying"]),
            (&json!(1), &json!(1))
        );
        cloud.send(1, "push rule=default attempt=1", &[1], [(1, ended)]);
        cloud.answer(FAILED).await;
        let job = cloud.job();
        assert_eq!(
            ["failed", "retrying", "not_applicable"].map(|name| job[name].clone()),
            [0, 0, 1]
        );
        // And not the reverse.
        cloud.send(
            1,
            "push rule=default attempt=1",
            &[1],
            [(1, Invocation::without_report("Failed", "Terminated"))],
        );
        cloud.answer(FAILED).await;
        assert_eq!(cloud.reasons(), ["invalid-platform"]);
    }
}

#[tokio::test]
async fn a_node_that_is_none_of_ec2s_is_none_of_the_job_whatever_it_reports() {
    let reports = [
        Invocation::reporting(line(&image(1), "pulled", "")),
        Invocation::reporting(line(&image(1), "failed", "registry")),
        Invocation::without_report("Failed", "AccessDenied"),
        Invocation::without_report("TimedOut", "DeliveryTimedOut"),
    ];
    for ended in reports {
        let cloud = Cloud::new();
        cloud.send(1, "push rule=default attempt=1", &[1], []);
        cloud.state(|state| {
            let command = state.commands.get_mut(COMMAND).unwrap();
            command.targets = 1;
            command.invocations.insert(HYBRID_NODE.to_owned(), ended);
        });
        for _ in 0..2 {
            let answer = cloud.answer(HYBRID).await;
            assert_eq!(
                (&answer["decision"], &answer["retrying"]),
                (&json!("settled"), &json!(false))
            );
        }
        let job = cloud.job();
        let counted = ["pulled", "failed", "retrying", "not_applicable", "bytes"];
        assert_eq!(counted.map(|name| job[name].clone()), [0, 0, 0, 1, 0]);
        let row = cloud.row(&Key::node(COMMAND, HYBRID_NODE)).unwrap();
        assert_eq!(row["images"][image(1)]["reason"], "hybrid-node");
        assert!(cloud.metrics().is_empty() && cloud.retries().is_empty());
        assert!(cloud.row(&Key::inventory(HYBRID_NODE)).is_none());
    }
}

#[tokio::test]
async fn a_node_that_can_hold_some_images_counts_by_these_and_shows_why_it_lacks_the_others() {
    for (status, reason, of_node, other_reason) in [
        ("pulled", "", "pulled", "platform"),
        ("cached", "", "cached", "platform"),
        ("failed", "denied", "failed", "platform"),
        ("skipped", "no-space", "skipped", "platform"),
        ("pulled", "", "skipped", "no-space"),
    ] {
        let report = line(&image(1), status, reason) + &line(&image(2), "skipped", other_reason);
        let cloud = Cloud::of_two_images(Invocation::reporting(report));
        assert_eq!(
            cloud.answer(SUCCESS).await["status"],
            of_node,
            "{status} {other_reason}"
        );
        let job = cloud.job();
        assert_eq!(
            (&job[of_node], &job["not_applicable"]),
            (&json!(1), &json!(0)),
            "{status} {other_reason}"
        );
        assert_eq!(cloud.reasons(), [reason, other_reason]);
        assert_eq!(
            cloud.node(1).get("warm_at").is_some(),
            ["pulled", "cached"].contains(&of_node)
        );
        assert_eq!(cloud.records().len(), 2);
        // The reason by which it counts is that of an image that it could hold.
        let counted = cloud
            .metrics()
            .iter()
            .find_map(|line| line["Reason"].as_str().map(str::to_owned));
        let expected = match (status, other_reason) {
            (_, "no-space") => Some("no-space"),
            ("failed" | "skipped", _) => Some(reason),
            _ => None,
        };
        assert_eq!(counted.as_deref(), expected);
    }
}

#[tokio::test]
async fn a_node_that_can_hold_none_of_the_images_is_none_of_the_job() {
    let report = line(&image(1), "skipped", "platform") + &line(&image(2), "skipped", "platform");
    let cloud = Cloud::of_two_images(Invocation::reporting(report));
    for _ in 0..2 {
        assert_eq!(cloud.answer(SUCCESS).await["status"], "skipped");
    }
    let job = cloud.job();
    assert_eq!(["skipped", "not_applicable"].map(|name| job[name].clone()), [0, 1]);
    assert!(cloud.metrics().is_empty());
    assert_eq!(cloud.records().len(), 2);
    assert!(cloud.inventory(1).images.values().all(|said| said.reason == "platform"));
}

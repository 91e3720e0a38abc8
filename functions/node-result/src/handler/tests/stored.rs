//! Rows, records and metrics of what is settled.

use super::*;

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
async fn who_requested_a_job_stays_in_its_row_and_stands_in_its_records_whichever_was_written_first() {
    const WHO: &str = "arn:aws:sts::123456789012:assumed-role/deployer/pipeline-7";
    let requested = |cloud: &Cloud| {
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
    requested(&before);
    before.answer(&event_of(1, 1)).await;
    between.answer(&event_of(1, 1)).await;
    requested(&between);
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
        .answer(include_str!("../../../../../events/node-result.sqs-ten.json"))
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
async fn an_object_of_records_has_the_name_of_a_node() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    cloud.batch(&[event_of_command(1), event_of(1, 1)], 1).await;
    let key = cloud.state(|state| state.objects.keys().next().cloned().unwrap());
    assert!(key.ends_with(&format!("/{COMMAND}-{}-1.jsonl", node_id(1))), "{key}");
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

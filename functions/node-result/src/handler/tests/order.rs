//! Any order, repetition, batching and fault.

use super::*;

/// Holds what one command of a job says of its images on one node.
#[derive(Clone, Debug)]
struct Said {
    node: usize,
    attempt: usize,
    report: Option<Vec<(usize, &'static str)>>,
}

fn said() -> impl Strategy<Value = Said> {
    let status = prop::sample::select(vec!["pulled", "cached", "skipped", "platform", "failed"]);
    let report = prop::collection::vec((1..=3_usize, status), 1..4);
    (1..=3_usize, 1..=3_usize, prop::option::of(report)).prop_map(|(node, attempt, report)| Said {
        node,
        attempt,
        report,
    })
}

impl Said {
    fn invocation(&self) -> Invocation {
        match &self.report {
            None => Invocation::without_report("TimedOut", "DeliveryTimedOut"),
            Some(lines) => {
                let line = |(k, status): &(usize, &'static str)| match *status {
                    "failed" => line(&image(*k), "failed", "registry"),
                    "platform" => line(&image(*k), "skipped", "platform"),
                    status => line(&image(*k), status, ""),
                };
                Invocation::reporting(lines.iter().map(line).collect::<String>())
            }
        }
    }
}

/// Makes a cloud where these commands were sent, the k-th one as the k-th says; the first is the job's.
fn cloud_of(said: &[Said]) -> (Cloud, Vec<String>) {
    let cloud = Cloud::new();
    let mut events = Vec::new();
    for (place, said) in said.iter().enumerate() {
        let k = place + 1;
        let attempt = if k == 1 { 1 } else { said.attempt };
        let job = if k == 1 {
            String::new()
        } else {
            format!(" job={COMMAND}")
        };
        let comment = format!("push rule=default attempt={attempt}{job}");
        cloud.send(k, &comment, &[1, 2, 3], [(said.node, said.invocation())]);
        events.push(event_of(k, said.node));
    }
    (cloud, events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_order_repetition_batching_and_fault_gives_the_same_rows(
        said in prop::collection::vec(said(), 1..7),
        order in prop::collection::vec((any::<prop::sample::Index>(), 1..4_usize), 0..12),
        faults in prop::collection::vec((prop::sample::select(vec![
            ("GetCommandInvocation", THROTTLED), ("ListCommands", THROTTLED), ("BatchGetItem", THROTTLED),
            ("TransactWriteItems", "TransactionConflict"), ("TransactWriteItems", "ThrottlingError"),
            ("TransactWriteItems", "Lost"), ("PutObject", "SlowDown"), ("SendMessageBatch", "Refused"),
            ("DeleteItem", THROTTLED),
        ]), 0..4_usize), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (calm, events) = cloud_of(&said);
            for event in &events {
                assert!(calm.batch(std::slice::from_ref(event), 1).await.is_empty());
            }
            let (cloud, events) = cloud_of(&said);
            let most_sweeps = faults.len() + 1;
            for ((call, code), before) in faults {
                cloud.fail(call, before, code);
            }
            // The job's first command comes first: what it says is why the others were sent.
            let mut batches = vec![vec![events[0].clone()]];
            for (place, size) in order {
                let from = place.index(events.len());
                batches.push(events.iter().cycle().skip(from).take(size).cloned().collect());
            }
            batches.push(events.clone());
            for batch in batches {
                let mut left = batch;
                for time in 1.. {
                    let failed = cloud.batch(&left, time).await;
                    left = failed.into_iter().map(|place| left[place].clone()).collect();
                    if left.is_empty() {
                        break;
                    }
                }
            }
            // A fault that no batch met meets a sweep, which says so and leaves the rest to the next.
            let sweep = include_str!("../../../../../events/node-result.sweep.json");
            let mut sweeps = 1;
            while cloud.answer_at(sweep, now() + chrono::TimeDelta::minutes(16)).await["unfinished"] == true {
                sweeps += 1;
                assert!(sweeps <= most_sweeps, "each sweep that leaves something has met a fault");
            }
            assert_eq!(cloud.known(), calm.known());
            // A job's counters are the sums over its nodes, whatever was moved on the way.
            let nodes: Vec<Value> = cloud.known().into_iter().filter(|(key, _)| key.sk.starts_with("node#")).map(|(_, row)| row).collect();
            let reasons = |node: &Value| -> Vec<String> {
                node["images"].as_object().unwrap().values().map(|image| image["reason"].as_str().unwrap().to_owned()).collect()
            };
            let (foreign, nodes): (Vec<Value>, Vec<Value>) =
                nodes.into_iter().partition(|node| reasons(node).iter().all(|reason| reason == "platform"));
            assert_eq!(cloud.job()["not_applicable"], json!(foreign.len()));
            for status in ["pulled", "cached", "skipped", "failed"] {
                let of_status = nodes.iter().filter(|node| node["status"] == status).count();
                assert_eq!(cloud.job()[status], json!(of_status));
            }
            let retrying = nodes.iter().filter(|node| node["retrying"] == true).count();
            assert_eq!(cloud.job()["retrying"], json!(retrying));
        });
    }
}

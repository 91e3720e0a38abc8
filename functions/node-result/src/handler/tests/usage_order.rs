//! Any order, repetition, batching and fault of what nodes say that they run.

use chrono::TimeDelta;
use prefetch::rows::UsageRow;

use super::*;
use crate::cloud::{requested_at, totals, usage_line};

/// Holds what one report says: its node, how many days ago, by which trigger, and which images run.
#[derive(Clone, Debug)]
struct Seen {
    node: usize,
    days: i64,
    trigger: &'static str,
    images: Vec<(usize, u32, bool)>,
}

fn seen() -> impl Strategy<Value = Seen> {
    let trigger = prop::sample::select(vec!["inventory", "inventory", "push", "job"]);
    let images = prop::collection::vec((1..=4_usize, 0..2_u32, any::<bool>()), 0..4);
    (1..=6_usize, 0..5_i64, trigger, images).prop_map(|(node, days, trigger, images)| Seen {
        node,
        days,
        trigger,
        images,
    })
}

/// Makes a cloud where these reports came, the k-th of the k-th command.
fn cloud_of(seen: &[Seen]) -> (Cloud, Vec<String>) {
    let cloud = Cloud::new();
    let mut events = Vec::new();
    for (place, seen) in seen.iter().enumerate() {
        let k = place + 1;
        let images: &[usize] = if seen.trigger == "inventory" { &[] } else { &[1] };
        let own: String = images.iter().map(|k| line(&image(*k), "pulled", "")).collect();
        let lines = seen.images.iter();
        let usage: String = lines
            .map(|(k, running, ours)| usage_line(&image(*k), *running, *ours))
            .collect();
        let ended = Invocation {
            ended_at: Some(requested_at() - TimeDelta::days(seen.days)),
            ..Invocation::reporting(own + &usage + &totals(0, 0, 0))
        };
        cloud.send(
            k,
            &format!("{} rule=default attempt=1", seen.trigger),
            images,
            [(seen.node, ended)],
        );
        events.push(event_of(k, seen.node));
    }
    (cloud, events)
}

/// Hands events out until none is handed back.
async fn settle(cloud: &Cloud, mut left: Vec<String>) {
    for time in 1.. {
        let failed = cloud.batch(&left, time).await;
        left = failed.into_iter().map(|place| left[place].clone()).collect();
        if left.is_empty() {
            break;
        }
    }
}

/// Gives the rows but for how often they were written.
fn unversioned(cloud: &Cloud) -> Vec<UsageRow> {
    let unversioned = |row| UsageRow { version: 0, ..row };
    cloud.usage().into_iter().map(unversioned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_repetition_batching_and_fault_gives_the_same_usage(
        seen in prop::collection::vec(seen(), 1..8),
        order in prop::collection::vec((any::<prop::sample::Index>(), 1..4_usize, any::<bool>()), 0..12),
        faults in prop::collection::vec((prop::sample::select(vec!["BatchGetItem", "PutItem"]), 0..6_usize), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (calm, events) = cloud_of(&seen);
            assert!(calm.batch(&events, 1).await.is_empty());
            let (mut cloud, events) = cloud_of(&seen);
            for (call, before) in faults {
                cloud.fail(call, before, THROTTLED);
            }
            let mut batches: Vec<(Vec<String>, bool)> = order.into_iter().map(|(place, size, is_cold)| {
                let from = place.index(events.len());
                (events.iter().cycle().skip(from).take(size).cloned().collect(), is_cold)
            }).collect();
            batches.push((events.clone(), true));
            for (batch, is_cold) in batches {
                if is_cold {
                    cloud.restart();
                }
                settle(&cloud, batch).await;
            }
            assert_eq!(unversioned(&cloud), unversioned(&calm));
            // All is known by now.
            cloud.calls();
            settle(&cloud, events).await;
            let calls = cloud.calls();
            assert!(!calls.contains(&"PutItem") && !calls.contains(&"TransactWriteItems"), "{calls:?}");
        });
    }
}

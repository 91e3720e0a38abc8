//! Describes what nodes hold.

use chrono::{DateTime, TimeDelta, Utc};

use prefetch::{
    outcome::Status,
    rows::{Inventory, Item, Outcome},
};

use super::*;
use crate::cloud::requested_at;

#[tokio::test]
async fn what_a_node_holds_is_written_with_its_outcome() {
    let cloud = Cloud::of_two_images(Invocation::reporting(
        line(&image(1), "pulled", "") + &line(&image(2), "failed", "denied"),
    ));
    cloud.answer(FAILED).await;
    let ended_at = "2026-11-16T01:54:44.049Z";
    let expected = json!({
        "pk": format!("node#{}", node_id(1)), "sk": "node", "version": 1, "expires_at": 1_797_386_094,
        "images": {
            image(1): {"status": "pulled", "reason": "", "at": ended_at, "since": ended_at, "job": COMMAND},
            image(2): {"status": "failed", "reason": "denied", "at": ended_at, "job": COMMAND},
        },
        "last_failure": {"image": image(2), "reason": "denied", "at": ended_at, "job": COMMAND},
    });
    assert_eq!(cloud.row(&Key::inventory(&node_id(1))), Some(expected));
    let calls = cloud.calls();
    let rows = ["BatchGetItem", "TransactWriteItems"].map(|call| calls.iter().filter(|made| **made == call).count());
    assert_eq!(rows, [1, 1]);
}

#[tokio::test]
async fn what_several_jobs_tell_of_one_node_is_one_row() {
    let cloud = Cloud::new();
    send(&cloud, 1, "push rule=a attempt=1", &[("pulled", 1), ("failed", 2)], 10);
    send(&cloud, 2, "push rule=b attempt=1", &[("cached", 2)], 30);
    send(&cloud, 3, "push rule=c attempt=1", &[("cached", 1)], 20);
    let batch = [1, 2, 3].map(|k| event_of(k, 1));
    assert!(cloud.batch(&batch, 1).await.is_empty());
    assert_eq!(
        cloud
            .calls()
            .iter()
            .filter(|call| **call == "TransactWriteItems")
            .count(),
        1
    );
    let inventory = cloud.inventory(1);
    assert_eq!((inventory.version, inventory.images.len()), (1, 2));
    let (one, two) = (
        &inventory.images[&image(1).parse().unwrap()],
        &inventory.images[&image(2).parse().unwrap()],
    );
    assert_eq!((one.at, one.since, &one.job), (at(20), Some(at(10)), &command_id(3)));
    assert_eq!((two.at, two.since, &two.job), (at(30), Some(at(30)), &command_id(2)));
    assert_eq!(inventory.last_failure.unwrap().at, at(10));
}

#[tokio::test]
async fn transactions_of_one_batch_stand_on_each_other_where_they_are_of_one_node() {
    let cloud = Cloud::new();
    send(&cloud, 1, "push rule=a attempt=1", &[("failed", 1)], 10);
    send(&cloud, 2, "launch rule=a attempt=1", &[("pulled", 1)], 20);
    send(&cloud, 3, "push rule=b attempt=1", &[("pulled", 2)], 5);
    let batch = [1, 2, 3].map(|k| event_of(k, 1));
    assert!(cloud.batch(&batch, 1).await.is_empty());
    assert_eq!(
        cloud
            .calls()
            .iter()
            .filter(|call| **call == "TransactWriteItems")
            .count(),
        2
    );
    let inventory = cloud.inventory(1);
    assert_eq!((inventory.version, inventory.images.len()), (2, 2));
    assert_eq!(inventory.images[&image(1).parse().unwrap()].since, Some(at(20)));
    assert!(inventory.last_failure.is_some());

    // The first is not written; the second, which stands on it, is not either, until both are planned anew.
    let again = Cloud::new();
    send(&again, 1, "push rule=a attempt=1", &[("failed", 1)], 10);
    send(&again, 2, "launch rule=a attempt=1", &[("pulled", 1)], 20);
    again.fail("TransactWriteItems", 0, "TransactionConflict");
    assert!(again.batch(&batch[..2], 1).await.is_empty());
    assert_eq!(
        again
            .calls()
            .iter()
            .filter(|call| **call == "TransactWriteItems")
            .count(),
        4
    );
    let inventory = again.inventory(1);
    assert_eq!((inventory.version, inventory.last_failure.unwrap().at), (2, at(10)));
}

#[tokio::test]
async fn an_older_report_never_overwrites_a_later_one() {
    let cloud = Cloud::new();
    send(&cloud, 1, "push rule=a attempt=1", &[("failed", 1)], 10);
    send(&cloud, 2, "push rule=a attempt=1", &[("pulled", 1)], 20);
    for k in [2, 1] {
        assert!(cloud.batch(&[event_of(k, 1)], 1).await.is_empty());
    }
    let inventory = cloud.inventory(1);
    let holding = &inventory.images[&image(1).parse().unwrap()];
    assert_eq!((holding.since, &holding.job), (Some(at(20)), &command_id(2)));
    assert_eq!((inventory.version, inventory.last_failure.unwrap().at), (2, at(10)));
}

#[tokio::test]
async fn a_node_that_keeps_silent_still_holds_what_it_held() {
    let cloud = Cloud::new();
    send(&cloud, 1, "push rule=a attempt=1", &[("pulled", 1)], 10);
    let silent = Invocation::without_report("TimedOut", "DeliveryTimedOut");
    cloud.send(2, "reconcile rule=a attempt=1", &[1], [(1, silent)]);
    for k in [1, 2] {
        cloud.batch(&[event_of(k, 1)], 1).await;
    }
    let inventory = cloud.inventory(1);
    assert_eq!(inventory.images[&image(1).parse().unwrap()].since, Some(at(10)));
    assert_eq!(inventory.last_failure.unwrap().reason, "delivery-timed-out");
}

#[tokio::test]
async fn a_report_that_is_known_writes_nothing_and_one_that_only_the_node_does_not_know_its_row() {
    let cloud = Cloud::where_the_node(Invocation::reporting(line(&image(1), "pulled", "")));
    cloud.batch(&[event_of(1, 1)], 1).await;
    let written = cloud.state(|state| state.table.rows.clone());
    cloud.batch(&[event_of(1, 1)], 2).await;
    assert_eq!(cloud.state(|state| state.table.rows.clone()), written);
    // As of a version before this one.
    cloud.state(|state| state.table.rows.remove(&Key::inventory(&node_id(1))));
    cloud.batch(&[event_of(1, 1)], 2).await;
    assert_eq!(cloud.inventory(1).version, 1);
    assert_eq!(
        (&cloud.job()["pulled"], cloud.records().len(), cloud.outboxes()),
        (&json!(1), 1, 0)
    );
}

#[tokio::test]
async fn a_row_that_another_job_wrote_since_it_was_read_is_folded_anew() {
    let cloud = Cloud::new();
    send(&cloud, 1, "push rule=a attempt=1", &[("pulled", 1)], 10);
    send(&cloud, 2, "push rule=b attempt=1", &[("pulled", 2)], 20);
    let other = Cloud::new();
    send(&other, 2, "push rule=b attempt=1", &[("pulled", 2)], 20);
    other.batch(&[event_of(2, 1)], 1).await;
    let rows = other.state(|state| state.table.rows.clone());
    cloud.state(|state| state.table.appearing = Some(rows));
    assert!(cloud.batch(&[event_of(1, 1)], 1).await.is_empty());
    let inventory = cloud.inventory(1);
    assert_eq!((inventory.version, inventory.images.len()), (2, 2));
}

#[tokio::test]
async fn many_jobs_of_nodes_that_hold_images_with_the_longest_names_stay_within_every_limit() {
    const JOBS: usize = 40;
    let cloud = Cloud::new();
    let mut inventory = Inventory::default();
    let failed = Outcome {
        status: Status::Failed,
        reason: "r".repeat(32),
        seconds: 0.0,
        bytes: 0,
        attempts: 1,
        attempt: 1,
        reported: true,
    };
    for k in 0..1000 {
        inventory.fold(&longest_image(k).parse().unwrap(), &failed, at(0), COMMAND);
    }
    for k in 1..=JOBS {
        let mut row: Item = serde_dynamo::to_item(&inventory).unwrap();
        let key = Key::inventory(&node_id(k));
        row.extend(key.item());
        cloud.state(|state| state.table.rows.insert(key, row));
        let ended = Invocation::reporting(line(&image(1), "pulled", ""));
        cloud.send(k, "push rule=a attempt=1", &[1], [(k, ended)]);
    }
    let batch: Vec<String> = (1..=JOBS).map(|k| event_of(k, k)).collect();
    assert!(cloud.batch(&batch, 1).await.is_empty());
    assert_eq!(
        (cloud.inventory(1).images.len(), cloud.inventory(1).more.len()),
        (100, 900)
    );
    let calls = cloud.calls();
    assert_eq!(calls.iter().filter(|call| **call == "TransactWriteItems").count(), 2);
    let (items, bytes, largest) = cloud.state(|state| state.table.largest);
    assert!(
        items <= 100 && bytes <= 4 * 1024 * 1024 && largest <= 400 * 1024,
        "{items} {bytes} {largest}"
    );
}

/// Lets the k-th command end on the first node so many seconds after its request, its images having become that.
fn send(cloud: &Cloud, k: usize, comment: &str, images: &[(&str, usize)], seconds: i64) {
    let lines = images.iter().map(|(status, k)| {
        let reason = if *status == "failed" { "denied" } else { "" };
        line(&image(*k), status, reason)
    });
    let ended = Invocation {
        ended_at: Some(at(seconds)),
        ..Invocation::reporting(lines.collect::<String>())
    };
    cloud.send(k, comment, &[1, 2], [(1, ended)]);
}

fn at(seconds: i64) -> DateTime<Utc> {
    requested_at() + TimeDelta::seconds(seconds)
}

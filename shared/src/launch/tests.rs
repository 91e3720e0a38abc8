use std::sync::{Arc, Mutex};

use super::*;
use crate::mocks::{self, Calls, Table};

type State = Arc<Mutex<(Calls, Table)>>;

#[tokio::test]
async fn a_launch_is_its_first_claimants_until_it_sends_and_everybodys_again_ten_minutes_later() {
    let state = State::default();
    let (one, other) = (launches(&state), launches(&state));
    let launch = key(1);
    assert_eq!(claimed(&one, &launch, 0).await, Claim::Ours(SentParts::default()));
    assert_eq!(claimed(&other, &launch, 1).await, Claim::UnderWay);
    one.sent(&[(launch.clone(), vec!["command-1".to_owned()])], at(2)).await;
    let sent = Claim::Sent(vec!["command-1".to_owned()]);
    assert_eq!(claimed(&other, &launch, 3).await, sent);
    assert_eq!(claimed(&one, &launch, 602).await, sent);
    assert_eq!(claimed(&other, &launch, 603).await, Claim::Ours(SentParts::default()));
}

#[tokio::test]
async fn a_claim_that_is_let_go_or_whose_holder_has_died_is_anothers() {
    let state = State::default();
    let (one, other) = (launches(&state), launches(&state));
    let launch = key(1);
    claimed(&one, &launch, 0).await;
    other.release(&[(launch.clone(), SentParts::default())], at(1)).await;
    assert_eq!(claimed(&other, &launch, 1).await, Claim::UnderWay);
    one.release(&[(launch.clone(), SentParts::default())], at(1)).await;
    assert_eq!(claimed(&other, &launch, 2).await, Claim::Ours(SentParts::default()));
    assert_eq!(claimed(&one, &launch, 62).await, Claim::UnderWay);
    assert_eq!(claimed(&one, &launch, 63).await, Claim::Ours(SentParts::default()));
}

#[tokio::test]
async fn of_many_launches_those_that_others_hold_are_told_and_all_others_claimed() {
    let state = State::default();
    let (one, other) = (launches(&state), launches(&state));
    one.claim(&[key(3), key(70)], at(0)).await;
    one.sent(&[(key(120), vec!["command-1".to_owned()])], at(0)).await;
    let all: Vec<Key> = (0..150).map(key).collect();
    state.lock().unwrap().0.take();
    let claims = other.claim(&all, at(1)).await;
    let held: Vec<_> = claims
        .iter()
        .filter(|(_, claim)| !matches!(claim, Claim::Ours(_)))
        .collect();
    assert_eq!((claims.len(), held.len()), (150, 3));
    assert_eq!(claims[&key(3)], Claim::UnderWay);
    assert_eq!(claims[&key(120)], Claim::Sent(vec!["command-1".to_owned()]));
    assert_eq!(state.lock().unwrap().0.take(), ["TransactWriteItems"; 4]);
}

#[tokio::test]
async fn another_launch_of_the_same_instance_is_served_too() {
    let state = State::default();
    let launches = launches(&state);
    let started = |hour: i64| Key::launch("i-0abc0000000000001", DateTime::from_timestamp(hour * 3600, 0));
    assert_eq!(
        claimed(&launches, &started(1), 0).await,
        Claim::Ours(SentParts::default())
    );
    assert_eq!(
        claimed(&launches, &started(2), 1).await,
        Claim::Ours(SentParts::default())
    );
}

#[tokio::test]
async fn a_table_that_does_not_answer_holds_nobody_up() {
    for code in [
        "InternalServerError",
        "AccessDeniedException",
        "ThrottlingError",
        "Lost",
    ] {
        let state = State::default();
        let launches = launches(&state);
        state.lock().unwrap().0.fail("TransactWriteItems", 0, code);
        assert_eq!(
            claimed(&launches, &key(1), 0).await,
            Claim::Ours(SentParts::default()),
            "{code}"
        );
        state.lock().unwrap().0.fail("TransactWriteItems", 0, code);
        launches.sent(&[(key(1), Vec::new())], at(0)).await;
        state.lock().unwrap().0.fail("DeleteItem", 0, code);
        launches.release(&[(key(1), SentParts::default())], at(0)).await;
    }
}

#[tokio::test]
async fn a_row_that_another_writes_at_this_moment_is_anothers() {
    let state = State::default();
    let launches = launches(&state);
    state
        .lock()
        .unwrap()
        .0
        .fail("TransactWriteItems", 0, "TransactionConflict");
    assert_eq!(claimed(&launches, &key(1), 0).await, Claim::UnderWay);
}

#[tokio::test]
async fn one_row_that_another_looks_at_keeps_no_other_from_being_kept() {
    let state = State::default();
    let launches = launches(&state);
    let sent: Vec<_> = (0..50).map(|k| (key(k), vec!["command-1".to_owned()])).collect();
    let begun: Vec<_> = (50..100).map(|k| (key(k), went("command-2", "app"))).collect();
    let keys: Vec<Key> = (0..100).map(key).collect();
    launches.claim(&keys, at(0)).await;
    for _ in 0..2 {
        let mut state = state.lock().unwrap();
        state.0.fail("TransactWriteItems", 0, "TransactionConflict");
    }
    launches.sent(&sent, at(0)).await;
    launches.release(&begun, at(0)).await;
    let claims = launches.claim(&keys, at(1)).await;
    for (k, key) in keys.iter().enumerate() {
        let expected = if k < 50 {
            Claim::Sent(vec!["command-1".to_owned()])
        } else {
            Claim::Ours(went("command-2", "app"))
        };
        assert_eq!(claims[key], expected);
    }
}

#[tokio::test]
async fn what_went_before_a_launch_was_let_go_is_the_next_claimants_for_ten_minutes() {
    let state = State::default();
    let (one, other) = (launches(&state), launches(&state));
    let launch = key(1);
    let begun = went("command-1", "app");
    claimed(&one, &launch, 0).await;
    one.release(&[(launch.clone(), begun.clone())], at(1)).await;
    assert_eq!(claimed(&other, &launch, 1).await, Claim::Ours(begun.clone()));
    assert_eq!(claimed(&one, &launch, 2).await, Claim::UnderWay);
    // One that has lost its claim lets nothing go, nor does it take from what is known.
    one.release(&[(launch.clone(), went("command-2", "other"))], at(2))
        .await;
    // The claim of one that has died does not end what went before.
    assert_eq!(claimed(&one, &launch, 62).await, Claim::Ours(begun));
    assert_eq!(claimed(&other, &launch, 602).await, Claim::Ours(SentParts::default()));
    // What was sent in the end is no part of the next.
    other
        .sent(&[(launch.clone(), vec!["command-3".to_owned()])], at(603))
        .await;
    assert_eq!(claimed(&one, &launch, 1204).await, Claim::Ours(SentParts::default()));
}

#[tokio::test]
async fn the_rows_of_a_batch_whose_nodes_got_hundreds_of_images_are_within_a_transaction() {
    let state = State::default();
    let launches = launches(&state);
    let keys: Vec<Key> = (0..50).map(key).collect();
    launches.claim(&keys, at(0)).await;
    let mut much = SentParts::default();
    for command in 0..100 {
        let images: Vec<String> = (0..10).map(|k| format!("{:016x}", command * 10 + k)).collect();
        much.add(
            &format!("{command:036}"),
            (&"r".repeat(32), Trigger::Neighbours),
            &images,
        );
    }
    let begun: Vec<_> = keys.iter().map(|key| (key.clone(), much.clone())).collect();
    launches.release(&begun, at(0)).await;
    let (_, bytes, largest) = state.lock().unwrap().1.largest;
    assert!(largest < 40_000 && bytes < 4_000_000, "{largest} {bytes}");
}

#[test]
fn an_image_is_told_by_its_tag_too() {
    let image = |tag: &str| {
        let digest = format!("sha256:{}", "0".repeat(64));
        Image::new(
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
            "app",
            Some(tag),
            &digest,
        )
        .unwrap()
    };
    assert_eq!(fingerprint(&image("v1")), fingerprint(&image("v1")));
    assert_ne!(fingerprint(&image("v1")), fingerprint(&image("v2")));
}

#[tokio::test]
async fn a_row_expires_after_a_day() {
    let state = State::default();
    claimed(&launches(&state), &key(1), 0).await;
    let row = state.lock().unwrap().1.row(&key(1)).unwrap();
    assert_eq!(row["expires_at"], at(24 * 3600).timestamp());
}

async fn claimed(launches: &Launches, launch: &Key, second: i64) -> Claim {
    let claims = launches.claim(std::slice::from_ref(launch), at(second)).await;
    claims[launch].clone()
}

fn went(command: &str, image: &str) -> SentParts {
    let mut went = SentParts::default();
    went.add(command, ("default", Trigger::Launch), &[image.to_owned()]);
    went
}

fn launches(state: &State) -> Launches {
    let client = mocks::dynamodb(state, |(calls, table)| (calls, table));
    Launches::with_client(client, "outcomes")
}

fn key(k: usize) -> Key {
    Key::launch(&format!("i-0abc0000000000{k:03}"), None)
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_794_793_474 + second, 0).unwrap()
}

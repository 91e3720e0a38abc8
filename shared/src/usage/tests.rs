use std::time::Duration;

use super::*;
use crate::{
    image::Image,
    mocks::{Calls, Table, dynamodb},
    rows::Key,
    rule_images::RuleUse,
};

const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";

#[derive(Default)]
struct State {
    calls: Calls,
    table: Table,
}

fn usage(rows: &[(&str, &str, i64)]) -> (Usage, Arc<Mutex<State>>) {
    let mut state = State::default();
    for (rule, name, age) in rows {
        let image: Image = format!("{REGISTRY}/{name}@sha256:{}", "0".repeat(64)).parse().unwrap();
        let seen = today() - chrono::TimeDelta::days(*age);
        let key = Key::usage(rule, &image);
        let mut item: crate::rows::Item = serde_dynamo::to_item(UsageRow::new(image, seen, 1)).unwrap();
        item.extend(key.item());
        state.table.rows.insert(key, item);
    }
    let state = Arc::new(Mutex::new(state));
    let client = dynamodb(&state, |state| (&mut state.calls, &mut state.table));
    (Usage::with_client(client, "outcomes", 14), state)
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_083_201)
}

fn today() -> NaiveDate {
    day(now())
}

fn queries(state: &Mutex<State>) -> usize {
    let calls = state.lock().unwrap().calls.take();
    calls.iter().filter(|call| **call == "Query").count()
}

#[tokio::test]
async fn a_repository_is_used_where_a_node_ran_an_image_of_it_lately_and_none_whose_name_only_begins_so() {
    let rows = [
        ("gpu", "team/app:v1", 14),
        ("gpu", "team/app-x", 0),
        ("gpu", "team/old:v1", 15),
        ("cpu", "team/job", 0),
    ];
    let (usage, state) = usage(&rows);
    for (repository, expected) in [
        ("team/app", RepositoryUse::Used),
        ("team/app-x", RepositoryUse::Used),
        ("team/ap", RepositoryUse::NotUsed),
        ("team", RepositoryUse::NotUsed),
        ("team/old", RepositoryUse::NotUsed),
        ("team/job", RepositoryUse::NotUsed),
    ] {
        assert_eq!(
            usage.runs("gpu", REGISTRY, repository, now()).await.unwrap(),
            expected,
            "{repository}"
        );
    }
    assert_eq!(queries(&state), 6);
}

#[tokio::test]
async fn nothing_is_known_until_a_node_of_the_rule_has_told() {
    let (usage, state) = usage(&[("cpu", "team/app", 0), ("old", "team/app", 15)]);
    for rule in ["gpu", "old"] {
        assert_eq!(
            usage.runs(rule, REGISTRY, "team/app", now()).await.unwrap(),
            RepositoryUse::Unknown
        );
    }
    assert_eq!(queries(&state), 4);
}

#[tokio::test]
async fn what_only_a_job_brought_is_used_and_says_nothing_of_what_nodes_run() {
    let (usage, state) = usage(&[("gpu", "team/app", 0)]);
    for item in state.lock().unwrap().table.rows.values_mut() {
        item.insert("bytes".to_owned(), AttributeValue::N("0".to_owned()));
    }
    let runs = async |repository| usage.runs("gpu", REGISTRY, repository, now()).await.unwrap();
    assert_eq!(runs("team/app").await, RepositoryUse::Used);
    assert_eq!(runs("team/other").await, RepositoryUse::Unknown);
}

#[tokio::test]
async fn all_images_of_a_rule_are_told_page_by_page_and_remembered_for_a_while() {
    let (usage, state) = usage(&[("gpu", "a", 0), ("gpu", "b:v1", 3), ("gpu", "c", 20), ("cpu", "d", 0)]);
    state.lock().unwrap().table.page = Some(1);
    let of = |rows: Arc<Vec<UsageRow>>| {
        rows.iter()
            .map(|row| row.image.repository().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(usage.of_rule("gpu", now()).await.unwrap()), ["a", "b"]);
    assert!(queries(&state) > 2);
    usage.of_rule("gpu", now() + Duration::from_secs(29)).await.unwrap();
    assert_eq!(queries(&state), 0);
    usage.of_rule("gpu", now() + Duration::from_secs(31)).await.unwrap();
    assert!(queries(&state) > 2);
}

#[tokio::test]
async fn that_something_is_known_is_told_by_few_rows_and_of_too_many_pages_the_rest_is_left_out() {
    let names: Vec<String> = (0..40).map(|k| format!("app-{k:02}")).collect();
    let rows: Vec<(&str, &str, i64)> = names.iter().map(|name| ("gpu", name.as_str(), 0)).collect();
    let (usage, state) = usage(&rows);
    state.lock().unwrap().table.page = Some(2);
    let runs = usage.runs("gpu", REGISTRY, "none", now()).await.unwrap();
    assert_eq!((runs, queries(&state)), (RepositoryUse::NotUsed, 2));
    let known = usage.of_rule("gpu", now()).await.unwrap();
    assert_eq!((known.len(), queries(&state)), (2 * MAX_PAGES, MAX_PAGES));
}

#[tokio::test]
async fn a_rule_is_known_a_quarter_of_an_hour_after_its_first_node_has_told() {
    let minutes = |minutes: u64| now() + Duration::from_mins(minutes);
    let (usage, state) = usage(&[("gpu", "team/app", 0)]);
    for item in state.lock().unwrap().table.rows.values_mut() {
        let told_at = DateTime::<Utc>::from(now()).timestamp().to_string();
        item.insert("told_at".to_owned(), AttributeValue::N(told_at));
    }
    let runs = async |repository, minutes| usage.runs("gpu", REGISTRY, repository, minutes).await.unwrap();
    for soon in [0, 14] {
        assert_eq!(runs("team/app", minutes(soon)).await, RepositoryUse::Used);
        assert_eq!(runs("team/other", minutes(soon)).await, RepositoryUse::Unknown);
        let of_rule = usage.of_rule("gpu", minutes(soon)).await.unwrap();
        assert!(!RuleUse::new(of_rule, minutes(soon)).is_known());
    }
    assert_eq!(runs("team/other", minutes(15)).await, RepositoryUse::NotUsed);
}

#[tokio::test]
async fn a_table_that_does_not_answer_is_an_error_that_names_the_rule() {
    let (usage, state) = usage(&[]);
    state.lock().unwrap().calls.fail("Query", 0, "AccessDeniedException");
    let error = usage.of_rule("gpu", now()).await.unwrap_err();
    assert!(error.to_string().contains("rule gpu"), "{error}");
}

//! Describes how what nodes run is told, by name and in pages.

use chrono::{Days, NaiveDate};
use prefetch::rows::{Item, Key, UsageRow};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{answer::UsageList, *};
use crate::{
    http::query::token,
    tests::cloud::{Cloud, TWO_RULES, node_id, now},
};

fn image(k: usize) -> String {
    format!("public.ecr.aws/team/app:v{k:04}@sha256:{k:064x}")
}

fn today() -> NaiveDate {
    now().date_naive()
}

/// Makes a row of an image that so many nodes ran so many days ago, to the first few of which it was brought.
fn row(k: usize, days_ago: u64, nodes: usize, prefetched: usize) -> UsageRow {
    let day = today() - Days::new(days_ago);
    let mut row = UsageRow::new(image(k).parse().unwrap(), day, 1000);
    let seen = row.days.entry(day).or_default();
    (1..=nodes).for_each(|node| seen.running.add(&node_id(node)));
    (1..=prefetched).for_each(|node| seen.prefetched.add(&node_id(node)));
    row
}

fn put(cloud: &Cloud, rule: &str, row: &UsageRow) {
    let key = Key::usage(rule, &row.image);
    let mut item: Item = serde_dynamo::to_item(row).unwrap();
    item.extend(key.item());
    cloud.state(|state| state.table.rows.insert(key, item));
}

#[tokio::test]
async fn what_the_nodes_of_a_rule_run_is_told() {
    let cloud = Cloud::with(TWO_RULES, "false");
    let mut lately = row(2, 1, 3, 1);
    lately.merge(&row(2, 0, 2, 2));
    for row in [&lately, &row(1, 14, 1, 0), &row(3, 15, 9, 9)] {
        put(&cloud, "apps", row);
    }
    put(&cloud, "all", &row(4, 0, 1, 1));
    let day = |ago| today() - Days::new(ago);
    let expected = json!({
        "rule": "apps", "known": true, "since": day(14), "usedWithinDays": 14, "images": [
            {"image": image(1), "firstSeen": day(14), "lastSeen": day(14), "nodes": 1, "prefetchedNodes": 0, "bytes": 1000},
            {"image": image(2), "firstSeen": day(1), "lastSeen": day(0), "nodes": 3, "prefetchedNodes": 2, "bytes": 1000},
        ],
    });
    assert_eq!(cloud.get("/usage?rule=apps").await, (200, expected.clone()));
    assert_eq!(cloud.calls(), ["Query"]);
    assert_eq!(
        cloud.invoke(json!({"route": "GET /usage?rule=apps"}), 0).await.unwrap(),
        expected
    );
    assert!(cloud.calls().is_empty());
}

#[tokio::test]
async fn of_a_rule_whose_nodes_have_told_nothing_yet_nothing_is_known() {
    let cloud = Cloud::new();
    put(&cloud, "default", &row(1, 15, 1, 1));
    let expected = json!({"rule": "default", "known": false, "usedWithinDays": 14, "images": []});
    assert_eq!(cloud.get("/usage?rule=default").await, (200, expected));
}

#[tokio::test]
async fn numbers_of_many_nodes_are_told_to_be_estimates() {
    let cloud = Cloud::new();
    put(&cloud, "default", &row(1, 0, 63, 63));
    put(&cloud, "default", &row(2, 0, 1000, 1));
    let (_, body) = cloud.get("/usage?rule=default").await;
    let estimated: Vec<&Value> = body["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| &image["estimated"])
        .collect();
    assert_eq!(estimated, [&Value::Null, &json!(true)]);
    assert_eq!(body["images"][0]["nodes"], 63);
    let nodes = body["images"][1]["nodes"].as_u64().unwrap();
    assert!((600..1400).contains(&nodes), "{nodes}");
}

#[tokio::test]
async fn a_query_that_names_no_rule_or_anything_else_is_refused() {
    let cloud = Cloud::with(TWO_RULES, "false");
    for (query, field, accepted) in [
        ("", "rule", "all, apps"),
        ("?rule=", "rule", "all, apps"),
        ("?rule=none", "rule", "all, apps"),
        ("?rule=all&limit=0", "limit", "a whole number from 1 to 500"),
        ("?rule=all&limit=501", "limit", "a whole number from 1 to 500"),
        ("?rule=all&next=garbage", "next", "what the page before gave as next"),
        (
            "?rule=all&color=red",
            "color",
            "the parameters are rule, limit and next",
        ),
    ] {
        let (status, problem) = cloud.get(&format!("/usage{query}")).await;
        let error = &problem["errors"][0];
        assert_eq!((status, error["field"].as_str()), (400, Some(field)), "{query}");
        assert!(error["accepted"].as_str().unwrap().contains(accepted), "{problem}");
    }
    assert!(cloud.calls().is_empty());
    cloud.fail("Query", 0, "AccessDeniedException");
    assert_eq!(cloud.get("/usage?rule=all").await.0, 503);
}

#[tokio::test]
async fn pages_follow_each_other_and_cost_one_query_within_half_a_minute() {
    let cloud = Cloud::new();
    for k in 1..=7 {
        put(&cloud, "default", &row(k, 0, 1, 1));
    }
    cloud.state(|state| state.table.page = Some(2));
    let mut told = Vec::new();
    let mut target = Some("/usage?rule=default&limit=3".to_owned());
    while let Some(page) = target {
        let (_, body) = cloud.get(&page).await;
        let images = body["images"].as_array().unwrap();
        assert!(images.len() <= 3);
        told.extend(images.iter().map(|image| image["image"].as_str().unwrap().to_owned()));
        target = body["next"]
            .as_str()
            .map(|next| format!("/usage?rule=default&limit=3&next={next}"));
    }
    assert_eq!(told, (1..=7).map(image).collect::<Vec<_>>());
    assert_eq!(cloud.calls().len(), 4);
}

proptest! {
    #[test]
    fn pages_tell_each_image_once_in_order_though_rows_come_and_go_between(
        rows in prop::collection::btree_set(0..40_usize, 0..20), gone in prop::collection::btree_set(0..40_usize, 0..10),
        limit in 1..8_usize,
    ) {
        let all: Vec<UsageRow> = rows.iter().map(|k| row(*k, 0, 1, 0)).collect();
        let left: Vec<UsageRow> = rows.difference(&gone).map(|k| row(*k, 0, 1, 0)).collect();
        let mut told: Vec<String> = Vec::new();
        let mut page = Page { limit, next: None };
        for turn in 0.. {
            let list = UsageList::of("gpu", 14, if turn == 0 { &all } else { &left }, &page);
            let list = json!(list);
            let images = list["images"].as_array().unwrap();
            prop_assert!(images.len() <= limit);
            told.extend(images.iter().map(|image| image["image"].as_str().unwrap().to_owned()));
            if list["next"].is_null() {
                break;
            }
            prop_assert_eq!(&list["next"], &json!(token(told.last().unwrap())));
            page.next = told.last().cloned();
        }
        prop_assert!(told.is_sorted() && left.iter().all(|row| told.contains(&row.image.to_string())));
    }
}

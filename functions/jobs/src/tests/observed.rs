//! A stack that observes: everything is decided and recorded, and nothing is sent.

use std::collections::BTreeSet;

use prefetch::{command::is_unsent_id, settings::Mode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::tests::cloud::{Cloud, RULES, TWO_RULES, command_id, image, node_id, now};

#[tokio::test]
async fn a_job_of_a_stack_that_observes_is_accepted_listed_and_sent_to_nobody() {
    let cloud = Cloud::observing(TWO_RULES);
    let (status, answer) = cloud.post(json!({"images": ["team/app:v1", "team/web:v1"]})).await;
    assert_eq!(
        (status, &answer["mode"], &answer["dryRun"]),
        (202, &json!("observe"), &json!(false))
    );
    let ids: Vec<&str> = answer["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["id"].as_str().unwrap())
        .collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| is_unsent_id(id)), "{ids:?}");
    assert!(
        answer["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|job| job["state"] == "observed")
    );

    let (status, mut job) = cloud.get(&format!("/jobs/{}", ids[0])).await;
    let counted = json!({"done": 0, "pulled": 0, "cached": 0, "skipped": 0, "failed": 0, "notApplicable": 0, "retrying": 0, "retried": 0});
    let expected = json!({
        "id": ids[0], "trigger": "job", "rule": "all", "requestedAt": now(), "state": "observed", "mode": "observe",
        "images": [image("team/app", "v1"), image("team/web", "v1")], "nodes": counted, "bytes": 0,
        "targets": {"tags": {"aws:eks:cluster-name": ["prod"], "team": ["web"]}},
    });
    assert_eq!(job.as_object_mut().unwrap().remove("outcomes"), Some(json!([])));
    assert_eq!((status, &job), (200, &expected));
    let (_, list) = cloud.get("/jobs").await;
    let listed: BTreeSet<&str> = list["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["id"].as_str().unwrap())
        .collect();
    assert_eq!(listed, ids.iter().copied().collect());
    assert!(list["jobs"].as_array().unwrap().contains(&expected));

    cloud.calls();
    let cancelled = cloud
        .http("DELETE", &format!("/jobs/{}", ids[0]), Value::Null, None)
        .await;
    assert_eq!(
        cancelled,
        (200, json!({"id": ids[0], "state": "observed", "commands": []}))
    );
    assert_eq!(cloud.calls(), ["BatchGetItem"]);
    assert!(cloud.sent().is_empty());
}

#[tokio::test]
async fn nodes_by_id_are_counted_and_a_dry_run_leaves_nothing_behind() {
    let cloud = Cloud::observing(RULES);
    let nodes = json!({"ids": [node_id(1), node_id(2)]});
    let (status, dry) = cloud
        .post(json!({"rule": "default", "nodes": nodes, "dryRun": true}))
        .await;
    assert_eq!(
        (status, &dry["mode"], &dry["jobs"][0]["state"]),
        (200, &Value::Null, &Value::Null)
    );
    assert!(cloud.rows("job#").is_empty() && cloud.rows("observed").is_empty());
    let (_, answer) = cloud.post(json!({"rule": "default", "nodes": nodes})).await;
    let (_, job) = cloud
        .get(&format!("/jobs/{}", answer["jobs"][0]["id"].as_str().unwrap()))
        .await;
    assert_eq!((&job["nodes"]["total"], &job["targets"]), (&json!(2), &nodes));
    assert!(cloud.sent().is_empty());
}

#[tokio::test]
async fn a_repeated_request_is_one_observed_job_whatever_fails_in_between() {
    for (call, before, code) in [
        ("", 0, ""),
        ("TransactWriteItems", 0, "InternalServerError"),
        ("TransactWriteItems", 1, "InternalServerError"),
        ("TransactWriteItems", 0, "Lost"),
        ("TransactWriteItems", 1, "Lost"),
        ("UpdateItem", 1, "InternalServerError"),
        ("UpdateItem", 2, "InternalServerError"),
    ] {
        let cloud = Cloud::observing(TWO_RULES);
        let body = json!({"images": ["team/app:v1"]});
        if !call.is_empty() {
            cloud.fail(call, before, code);
            assert_eq!(
                cloud.http("POST", "/jobs", body.clone(), Some("key")).await.0,
                503,
                "{call}"
            );
        }
        let (status, answer) = cloud.http_at("POST", "/jobs", body.clone(), Some("key"), 100).await;
        assert_eq!(
            (status, answer["jobs"].as_array().unwrap().len()),
            (202, 2),
            "{call} {before} {code}"
        );
        assert_eq!(
            cloud.http_at("POST", "/jobs", body, Some("key"), 200).await,
            (202, answer)
        );
        assert_eq!(
            (cloud.rows("job#").len(), cloud.rows("observed").len()),
            (2, 2),
            "{call} {before} {code}"
        );
    }
    // Once the stack sends, what was observed is sent.
    let mut cloud = Cloud::observing(RULES);
    for (mode, sent) in [(Mode::Observe, 0), (Mode::Send, 1), (Mode::Send, 1), (Mode::Observe, 1)] {
        cloud.turn(mode);
        let body = json!({"rule": "default"});
        assert_eq!(cloud.http("POST", "/jobs", body, Some("key")).await.0, 202);
        assert_eq!(cloud.sent().len(), sent);
    }
    // Without a key each request is a job.
    let cloud = Cloud::observing(RULES);
    for _ in 0..2 {
        cloud.post(json!({"rule": "default"})).await;
    }
    assert_eq!(cloud.rows("job#").len(), 2);
}

#[tokio::test]
async fn schedules_and_reconciles_are_observed_and_everything_goes_out_once_the_stack_sends() {
    let mut cloud = Cloud::observing(TWO_RULES);
    let scheduled = json!({"schedule": {"name": "a", "time": "x"}, "body": {"rule": "apps"}});
    for _ in 0..2 {
        let answer = cloud.invoke(scheduled.clone(), 0).await.unwrap();
        assert_eq!(answer["mode"], "observe");
    }
    let reconcile = json!({"reconcile": true});
    for seconds in [0, 3600] {
        let answer = cloud.invoke(reconcile.clone(), seconds).await.unwrap();
        let decisions: Vec<&Value> = answer["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| &rule["decision"])
            .collect();
        assert_eq!(decisions, ["observed", "observed"]);
        assert!(is_unsent_id(answer["rules"][0]["commands"][0].as_str().unwrap()));
    }
    let triggers: Vec<Value> = cloud.rows("job#").iter().map(|row| row["trigger"].clone()).collect();
    assert_eq!(triggers.iter().filter(|trigger| **trigger == "schedule").count(), 1);
    assert_eq!(triggers.iter().filter(|trigger| **trigger == "reconcile").count(), 4);
    assert!(cloud.sent().is_empty());

    cloud.turn(Mode::Send);
    let deployed = serde_json::from_str(include_str!("../../../../events/jobs.deployed.json")).unwrap();
    let answer = cloud.invoke(deployed, 3601).await.unwrap();
    assert_eq!(
        answer["rules"][0],
        json!({"rule": "all", "decision": "sent", "commands": [command_id(1)]})
    );
    assert_eq!(cloud.sent().len(), 2);
    // What was observed stays to be seen until it expires.
    let (_, list) = cloud.get("/jobs?limit=50").await;
    assert_eq!(list["jobs"].as_array().unwrap().len(), 7);
    assert_eq!(list["jobs"][0]["state"], "running");
}

#[tokio::test]
async fn a_cluster_without_nodes_is_told_with_the_clusters_that_have_some() {
    let cloud = Cloud::new();
    let (_, nodes) = cloud.get("/nodes").await;
    let reconciled = cloud.invoke(json!({"reconcile": true}), 0).await.unwrap();
    for answer in [&nodes, &reconciled] {
        assert!(answer["clusters"].is_null() && answer["message"].is_null(), "{answer}");
    }
    for k in 1..=2 {
        cloud.launch(k, |(instance, _)| {
            instance.tags.as_mut().unwrap()[0].value = Some(format!("test-{k}"));
        });
    }
    let (_, nodes) = cloud.get("/nodes").await;
    assert_eq!(
        (&nodes["nodes"], &nodes["clusters"]),
        (&json!([]), &json!(["test-1", "test-2"]))
    );
    let message = "EC2 knows no running instance with the tag aws:eks:cluster-name=prod; there are instances of the clusters test-1, test-2";
    assert_eq!(nodes["message"], message);
    let reconciled = cloud.invoke(json!({"reconcile": true}), 4300).await.unwrap();
    assert_eq!(
        (&reconciled["message"], &reconciled["clusters"]),
        (&nodes["message"], &nodes["clusters"])
    );
    assert_eq!(reconciled["rules"][0]["decision"], "sent");
    // Where EC2 does not answer the rules are reconciled all the same.
    cloud.fail("DescribeInstances", 0, "RequestLimitExceeded");
    let reconciled = cloud.invoke(json!({"reconcile": true}), 8600).await.unwrap();
    assert_eq!(
        (&reconciled["rules"][0]["decision"], &reconciled["message"]),
        (&json!("sent"), &Value::Null)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn jobs_that_were_sent_and_observed_are_listed_together_each_once_and_newest_first(
        jobs in prop::collection::vec((any::<bool>(), 0..6_i64), 0..24),
        limit in 1..=50_usize,
        page in 1..=50_usize,
        between in prop::collection::vec(any::<bool>(), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut cloud = Cloud::with(RULES, "false");
            cloud.state(|state| state.page = Some(page));
            let mut expected = BTreeSet::new();
            let mut seconds = 0;
            for (is_sent, later) in jobs {
                seconds += later;
                cloud.turn(if is_sent { Mode::Send } else { Mode::Observe });
                let (_, answer) = cloud.http_at("POST", "/jobs", json!({"rule": "default"}), None, seconds).await;
                expected.insert(answer["jobs"][0]["id"].as_str().unwrap().to_owned());
            }
            let mut listed: Vec<(String, String)> = Vec::new();
            let mut target = format!("/jobs?limit={limit}");
            for k in 0.. {
                assert!(k < 100, "it ends");
                let (status, list) = cloud.get(&target).await;
                assert_eq!(status, 200);
                let jobs = list["jobs"].as_array().unwrap();
                assert!(jobs.len() <= limit);
                let text = |job: &Value, name: &str| job[name].as_str().unwrap().to_owned();
                listed.extend(jobs.iter().map(|job| (text(job, "requestedAt"), text(job, "id"))));
                for is_sent in between.iter().filter(|_| k == 0) {
                    // What comes meanwhile is none of what was asked for, and moves nothing.
                    cloud.turn(if *is_sent { Mode::Send } else { Mode::Observe });
                    cloud.http_at("POST", "/jobs", json!({"rule": "default"}), None, seconds + 60).await;
                }
                let Some(next) = list["next"].as_str() else { break };
                target = format!("/jobs?limit={limit}&next={next}");
            }
            assert!(listed.is_sorted_by(|one, other| one.0 >= other.0), "{listed:?}");
            let ids: Vec<String> = listed.into_iter().map(|(_, id)| id).collect();
            let once: BTreeSet<String> = ids.iter().cloned().collect();
            assert_eq!(once.len(), ids.len());
            assert_eq!(once, expected);
        });
    }
}

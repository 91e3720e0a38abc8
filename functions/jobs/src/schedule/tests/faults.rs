//! Schedules of which only a part was made or deleted.

use serde_json::{Value, json};

use crate::tests::cloud::scheduler::Group;

#[tokio::test]
async fn what_cannot_be_created_as_a_whole_is_not_left_in_half() {
    let body = json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default"});
    for fault in [
        "ThrottlingException",
        "InternalServerException",
        "ServiceQuotaExceededException",
    ] {
        let group = Group::new();
        group.fail("CreateSchedule a.weekday", fault);
        let (status, problem) = group.post(body.clone()).await;
        assert_eq!((status, group.names().len()), (503, 0), "{problem}");
        assert!(!problem.to_string().contains("arn:"), "{problem}");
    }
    // Where the answer was lost, the schedule may be there.
    let group = Group::new();
    group.fail("CreateSchedule a.weekday", "Lost");
    assert_eq!((group.post(body.clone()).await.0, group.names().len()), (201, 2));
    // What is another's stays.
    let group = Group::new();
    group.put("a.weekday", "cron(0 0 ? * FRI *)", "{}");
    assert_eq!(
        (group.post(body.clone()).await.0, group.names()),
        (409, vec!["a.weekday".to_owned()])
    );
    // What was there before stays, and what lacks is made.
    let group = Group::new();
    group.post(body.clone()).await;
    group.lose("a.weekday");
    group.fail("CreateSchedule a.weekday", "ThrottlingException");
    assert_eq!((group.post(body.clone()).await.0, group.names().len()), (503, 1));
    assert_eq!((group.post(body.clone()).await.0, group.names().len()), (201, 2));
}

#[tokio::test]
async fn a_half_that_could_not_be_deleted_again_is_told() {
    let group = Group::new();
    group.fail("CreateSchedule a.weekday", "ThrottlingException");
    group.fail("DeleteSchedule a", "ThrottlingException");
    let body = json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default"});
    let (status, problem) = group.post(body.clone()).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        status == 503 && detail.contains("the schedule a could not be created as a whole"),
        "{detail}"
    );
    let unknown = json!([{"schedule": "a", "expressions": ["cron(0 7 1 * ? *)"]}]);
    assert_eq!(problem["unknown"], unknown);
    assert_eq!((group.post(body).await.0, group.names().len()), (201, 2));
}

/// Makes a fault at every call, also one whose answer is lost, together with every fault of the calls by which it is looked into and
/// undone, whatever part stood before.
#[tokio::test]
async fn of_whatever_fault_no_part_is_left_that_is_not_told_and_the_same_request_makes_it_whole() {
    const PARTS: [&str; 2] = ["a", "a.weekday"];
    let body = json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default"});
    let faults = ["", "ThrottlingException", "InternalServerException", "Lost"];
    let mut told = 0;
    for before in [&[][..], &["a"], &["a.weekday"], &PARTS] {
        for (create, get, delete) in faults
            .iter()
            .flat_map(|create| faults.iter().map(move |get| (*create, *get)))
            .flat_map(|(create, get)| faults.iter().map(move |delete| (create, get, *delete)))
        {
            for part in PARTS {
                let case = format!("{before:?}: {create} {get} {delete} at {part}");
                let group = Group::new();
                group.post(body.clone()).await;
                for name in PARTS.iter().filter(|name| !before.contains(name)) {
                    group.lose(name);
                }
                let calls = [
                    ("CreateSchedule", part, create),
                    ("GetSchedule", part, get),
                    ("DeleteSchedule", "a", delete),
                ];
                for (call, name, fault) in calls.iter().filter(|(.., fault)| !fault.is_empty()) {
                    group.fail(&format!("{call} {name}"), fault);
                }
                let (status, answer) = group.post_at(body.clone(), 3600).await;
                let names = group.names();
                assert!(
                    before.iter().all(|name| names.contains(&(*name).to_owned())),
                    "{case}: {names:?}"
                );
                if status < 400 {
                    assert_eq!(names, PARTS, "{case}: {answer}");
                } else {
                    let unknown = answer["unknown"].as_array().map(Vec::as_slice).unwrap_or_default();
                    assert!(names.is_empty() || unknown.len() == 1, "{case}: {answer}");
                    told += unknown.len();
                    for unknown in unknown {
                        let expressions = unknown["expressions"].as_array().unwrap().len();
                        assert!(
                            unknown["schedule"] == "a" && expressions >= names.len(),
                            "{case}: {answer}"
                        );
                    }
                }
                group.forget_faults();
                // Whatever stands is listed, with what it lacks.
                let (_, list) = group.get("/jobs/schedule").await;
                let listed = list["schedules"].as_array().unwrap();
                assert_eq!(listed.len(), usize::from(!names.is_empty()), "{case}: {list}");
                let missing = |schedule: &Value| schedule["missing"].as_array().map_or(0, Vec::len);
                assert!(
                    listed.iter().all(|schedule| missing(schedule) == 2 - names.len()),
                    "{case}: {list}"
                );
                assert!(group.post(body.clone()).await.0 < 300, "{case}");
                assert_eq!(group.names(), PARTS, "{case}");
                assert_eq!((group.delete("a").await, group.names().len()), (204, 0), "{case}");
            }
        }
    }
    assert!(told > 20, "{told}");
}

#[tokio::test]
async fn half_of_a_schedule_is_in_the_way_of_another_with_its_name() {
    let group = Group::new();
    group
        .post(json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default"}))
        .await;
    group.lose("a");
    let other = json!({"name": "a", "cron": "0 7 * * *", "rule": "default"});
    assert_eq!(
        (group.post(other.clone()).await.0, group.names()),
        (409, vec!["a.weekday".to_owned()])
    );
    assert_eq!((group.delete("a").await, group.post(other).await.0), (204, 201));
}

#[tokio::test]
async fn a_deletion_that_is_not_known_to_be_done_says_so() {
    for (call, fault, left) in [
        ("DeleteSchedule a.weekday", "InternalServerException", 2),
        ("DeleteSchedule a.weekday", "Lost", 1),
        ("DeleteSchedule a", "InternalServerException", 1),
        ("DeleteSchedule a", "Lost", 0),
    ] {
        let group = Group::new();
        group
            .post(json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default"}))
            .await;
        group.fail(call, fault);
        let (status, problem) = group.cloud.http("DELETE", "/jobs/schedule/a", Value::Null, None).await;
        assert_eq!(
            (status, &problem["unknown"]),
            (503, &json!([{"schedule": "a"}])),
            "{call}"
        );
        assert_eq!(group.names().len(), left);
        let again = group.delete("a").await;
        assert_eq!((again, group.names().len()), (if left > 0 { 204 } else { 404 }, 0));
    }
}

#[tokio::test]
async fn a_deletion_that_fails_halfway_can_be_repeated() {
    let group = Group::new();
    group
        .post(json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default"}))
        .await;
    group.fail("DeleteSchedule a", "ThrottlingException");
    assert_eq!(group.delete("a").await, 503);
    assert_eq!(
        group.get("/jobs/schedule").await.1["schedules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!((group.delete("a").await, group.names().len()), (204, 0));
}

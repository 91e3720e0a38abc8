use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_scheduler::{
    error::ErrorMetadata,
    operation::{
        create_schedule::{CreateScheduleInput, CreateScheduleOutput},
        delete_schedule::DeleteScheduleOutput,
        list_schedules::ListSchedulesOutput,
    },
    types::{
        ScheduleSummary,
        error::{ConflictException, InternalServerException, ResourceNotFoundException, ValidationException},
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cloud::{Cloud, FUNCTION, request};

#[tokio::test]
async fn a_schedule_invokes_this_function_with_its_job_and_when_it_was_to_fire() {
    let group = Group::new();
    let (status, schedule) = group
        .post(json!({"name": "nightly", "cron": "0 7 * * 1-5", "timezone": "Europe/Berlin", "images": ["team/app:v1"]}))
        .await;
    let expected = json!({
        "name": "nightly", "cron": "0 7 * * 1-5", "timezone": "Europe/Berlin",
        "expressions": ["cron(0 7 ? * MON-FRI *)"],
        "next": [
            "2026-11-16T07:00:00+01:00", "2026-11-17T07:00:00+01:00", "2026-11-18T07:00:00+01:00",
            "2026-11-19T07:00:00+01:00", "2026-11-20T07:00:00+01:00",
        ],
        "job": {"images": ["team/app:v1"]},
    });
    assert_eq!((status, schedule), (201, expected));

    let made = group.schedule("nightly");
    assert_eq!(made.group_name(), Some("eks-image-prefetch"));
    assert_eq!(made.schedule_expression(), Some("cron(0 7 ? * MON-FRI *)"));
    assert_eq!(made.schedule_expression_timezone(), Some("Europe/Berlin"));
    assert_eq!((made.start_date(), made.action_after_completion()), (None, None));
    assert_eq!(
        made.flexible_time_window().unwrap().mode(),
        &FlexibleTimeWindowMode::Off
    );
    let target = made.target().unwrap();
    assert_eq!(
        (target.arn(), target.role_arn()),
        (FUNCTION, "arn:aws:iam::123456789012:role/schedule")
    );
    let dead_letters = target.dead_letter_config().unwrap().arn();
    assert_eq!(
        dead_letters,
        Some("arn:aws:sqs:eu-central-1:123456789012:jobs-dead-letters")
    );
    let retry = target.retry_policy().unwrap();
    assert_eq!(
        (retry.maximum_retry_attempts(), retry.maximum_event_age_in_seconds()),
        (Some(2), Some(3600))
    );
    let expected = json!({
        "schedule": {
            "name": "nightly", "time": "<aws.scheduler.scheduled-time>", "cron": "0 7 * * 1-5", "timezone": "Europe/Berlin",
        },
        "body": {"images": ["team/app:v1"]},
    });
    assert_eq!(group.input("nightly"), expected);
}

#[tokio::test]
async fn both_parts_of_a_schedule_that_fire_at_once_are_one_job() {
    let group = Group::new();
    group
        .post(json!({"name": "monthly", "cron": "0 7 1 * 1", "rule": "default"}))
        .await;
    let mut sent = Vec::new();
    for (part, time) in [
        ("monthly", "2027-02-01T07:00:00Z"),
        ("monthly.weekday", "2027-02-01T07:00:00Z"),
        ("monthly.weekday", "2027-02-08T07:00:00Z"),
    ] {
        let input = group
            .input(part)
            .to_string()
            .replace("<aws.scheduler.scheduled-time>", time);
        let answer = group
            .cloud
            .invoke(serde_json::from_str(&input).unwrap(), 60)
            .await
            .unwrap();
        sent.push(answer["jobs"][0]["id"].clone());
    }
    assert!(
        sent[0].is_string() && sent[0] == sent[1] && sent[1] != sent[2],
        "{sent:?}"
    );
    let comments: Vec<String> = group.cloud.sent().into_iter().map(|(comment, ..)| comment).collect();
    assert_eq!(comments, vec!["schedule rule=default attempt=1"; 2]);
}

#[tokio::test]
async fn what_takes_two_expressions_is_listed_as_one_and_deleted_as_one() {
    let group = Group::new();
    let (status, schedule) = group
        .post(json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default"}))
        .await;
    let expressions = json!(["cron(0 7 1 * ? *)", "cron(0 7 ? * MON *)"]);
    assert_eq!((status, &schedule["expressions"]), (201, &expressions));
    assert_eq!(group.names(), ["a", "a.weekday"]);
    assert_eq!(
        group.get("/jobs/schedule").await,
        (200, json!({"schedules": [schedule]}))
    );
    assert_eq!(group.delete("a").await, 204);
    assert!(group.names().is_empty());
    assert_eq!(group.delete("a").await, 404);
}

#[tokio::test]
async fn the_same_request_is_the_same_schedule_and_another_does_not_take_its_name() {
    let group = Group::new();
    for body in [
        json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default"}),
        json!({"cron": "0 7 * * *", "timezone": "UTC", "rule": "default"}),
    ] {
        let (status, first) = group.post(body.clone()).await;
        assert_eq!((status, group.post(body).await), (201, (200, first)));
    }
    assert_eq!(group.post(json!({"cron": "0 7 * * *", "rule": "default"})).await.0, 200);
    assert_eq!(group.post(json!({"cron": "0 8 * * *", "rule": "default"})).await.0, 201);
    let names = group.names();
    assert!(
        names.len() == 4 && names[2].starts_with("schedule-") && names[2].len() == 25,
        "{names:?}"
    );
    for body in [
        json!({"name": "a", "cron": "0 7 1 * 2", "rule": "default"}),
        json!({"name": "a", "cron": "0 7 1 * 1", "images": ["team/app:v1"]}),
        json!({"name": "a", "cron": "0 7 1 * 1", "rule": "default", "timezone": "Europe/Berlin"}),
    ] {
        assert_eq!(group.post(body).await.0, 409);
    }
    assert_eq!(group.names(), names);
}

#[tokio::test]
async fn a_dry_run_tells_the_schedule_and_creates_none() {
    let group = Group::new();
    let body = |dry_run| json!({"name": "a", "cron": "0 7 * * *", "rule": "default", "dryRun": dry_run});
    let (status, told) = group.post(body(true)).await;
    assert!(status == 200 && group.calls().is_empty());
    assert_eq!(group.post(body(false)).await, (201, told));
}

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

/// A fault at every call, also one whose answer is lost, together with every fault of the calls by which it is looked into and
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

#[tokio::test]
async fn a_rate_counts_from_when_it_was_created() {
    let group = Group::new();
    let body = json!({"name": "often", "cron": "rate(12 hours)", "rule": "default"});
    let (status, schedule) = group.post(body.clone()).await;
    let start = group.schedule("often").start_date().unwrap().to_string();
    assert_eq!((status, start.as_str()), (201, "2026-11-16T01:56:00Z"));
    assert_eq!(schedule["next"][1], "2026-11-16T13:56:00Z");
    let (status, again) = group.post_at(body, 3600).await;
    assert_eq!((status, &again["next"][0]), (200, &json!("2026-11-16T13:56:00Z")));
}

#[tokio::test]
async fn a_single_time_is_deleted_once_it_is_over() {
    let group = Group::new();
    let body = |time: &str| json!({"name": "once", "cron": time, "timezone": "Europe/Berlin", "rule": "default"});
    let (status, schedule) = group.post(body("at(2026-12-24T18:00:00)")).await;
    assert_eq!(
        (status, &schedule["next"]),
        (201, &json!(["2026-12-24T18:00:00+01:00"]))
    );
    let action = group.schedule("once").action_after_completion().cloned();
    assert_eq!(action, Some(ActionAfterCompletion::Delete));
    for time in [
        "at(2026-11-16T02:54:00)",
        "at(2027-03-28T02:30:00)",
        "cron(0 7 ? * * 2025)",
    ] {
        let (status, problem) = group.post(body(time)).await;
        assert_eq!(
            (status, &problem["errors"][0]["field"]),
            (400, &json!("cron")),
            "{time}"
        );
    }
}

#[tokio::test]
async fn what_is_no_schedule_is_refused_by_the_fields_that_are_wrong() {
    let group = Group::new();
    for (body, fields) in [
        (json!({"rule": "default"}), vec!["cron"]),
        (json!({"rule": "default", "cron": 5}), vec!["cron"]),
        (json!({"rule": "default", "cron": null}), vec!["cron"]),
        (
            json!({"rule": "default", "cron": "0 25 * * *", "timezone": "Berlin"}),
            vec!["cron", "timezone"],
        ),
        (
            json!({"rule": "default", "cron": "0 7 * * *", "timezone": ""}),
            vec!["timezone"],
        ),
        (
            json!({"rule": "default", "cron": "0 7 * * *", "timezone": 1}),
            vec!["timezone"],
        ),
        (
            json!({"rule": "default", "cron": "0 7 * * *", "name": "a.weekday"}),
            vec!["name"],
        ),
        (
            json!({"rule": "default", "cron": "0 7 * * *", "name": "x".repeat(49)}),
            vec!["name"],
        ),
        (
            json!({"rule": "default", "cron": "0 7 * * *", "time": "now"}),
            vec!["time"],
        ),
        (json!({"cron": "0 7 * * *"}), vec!["images"]),
        (json!({"rule": "gone", "cron": "0 7 * * *"}), vec!["rule"]),
        (
            json!({"images": ["other/app:v1"], "cron": "0 7 * * *"}),
            vec!["images[0]"],
        ),
    ] {
        let (status, problem) = group.post(body.clone()).await;
        let errors = problem["errors"].as_array().unwrap();
        let named: Vec<&str> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!((status, named), (400, fields), "{body}");
    }
    let (_, problem) = group.post(json!({"rule": "default", "cron": "0 25 * * *"})).await;
    let accepted = "hour: 0-23, ranges a-b that ascend, steps */n and a-b/n up to 23, lists of these, or * alone";
    assert_eq!(
        problem["errors"],
        json!([{"field": "cron", "value": "25", "accepted": accepted}])
    );
    assert!(group.calls().is_empty());
}

#[tokio::test]
async fn what_scheduler_itself_does_not_accept_is_the_callers_fault_where_it_is_an_expression_or_a_zone() {
    for (message, status, field) in [
        ("Invalid Schedule Expression cron(0 7 1W * ? *).", 400, "cron"),
        ("Invalid ScheduleExpressionTimezone.", 400, "timezone"),
        (
            "The execution role you provide must allow AWS EventBridge Scheduler to assume the role.",
            503,
            "",
        ),
    ] {
        let group = Group::new();
        group.fail("CreateSchedule a", message);
        let (told, problem) = group
            .post(json!({"name": "a", "cron": "cron(0 7 1W * ? *)", "rule": "default"}))
            .await;
        assert_eq!(told, status, "{problem}");
        assert_eq!(problem["errors"][0]["field"].as_str().unwrap_or_default(), field);
    }
}

#[tokio::test]
async fn schedules_are_listed_page_by_page_and_those_that_are_none_of_ours_left_out() {
    let group = Group::new();
    for name in ["a", "b", "c"] {
        group
            .post(json!({"name": name, "cron": "0 7 1 * 1", "rule": "default"}))
            .await;
    }
    let input = group.input("a").to_string();
    group.put("by-hand", "cron(0 0 ? * FRI *)", "{}");
    group.put("no-json", "cron(0 0 ? * FRI *)", "run");
    group.put("copied", "cron(0 7 1 * ? *)", &input);
    group.put("c", "cron(0 8 1 * ? *)", &group.input("c").to_string());
    let mut names = Vec::new();
    let mut target = "/jobs/schedule?limit=2".to_owned();
    for _ in 0..5 {
        let (status, page) = group.get(&target).await;
        assert_eq!(status, 200);
        names.extend(
            page["schedules"]
                .as_array()
                .unwrap()
                .iter()
                .map(|schedule| schedule["name"].clone()),
        );
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/jobs/schedule?limit=2&next={next}");
    }
    // Of c the second part is as it was made, and fires.
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_list_or_a_deletion_that_cannot_be_is_refused_or_told() {
    let group = Group::new();
    group
        .post(json!({"name": "a", "cron": "0 7 * * *", "rule": "default"}))
        .await;
    let stale = format!("/jobs/schedule?next={}", query::token(&"gone"));
    for target in [
        "/jobs/schedule?limit=51",
        "/jobs/schedule?next=x",
        "/jobs/schedule?name=a",
        &stale,
    ] {
        assert_eq!(group.get(target).await.0, 400, "{target}");
    }
    for call in ["ListSchedules", "GetSchedule a"] {
        group.fail(call, "ThrottlingException");
        let (status, problem) = group.get("/jobs/schedule").await;
        assert!(
            status == 503 && !problem.to_string().contains("arn:"),
            "{call}: {problem}"
        );
    }
    // One that is deleted while it is listed.
    group.fail("GetSchedule a", "ResourceNotFoundException");
    assert_eq!(group.get("/jobs/schedule").await, (200, json!({"schedules": []})));
    for name in ["a.weekday", "a b", &"x".repeat(49)] {
        assert_eq!(group.delete(name).await, 400, "{name}");
    }
    assert_eq!(group.names(), ["a"]);
}

proptest! {
    #[test]
    fn whatever_is_asked_for_is_understood_again(
        cron in "[0-9*]{1,2} [0-9,*/-]{1,5} [0-9*]{1,2} [0-9*]{1,2} [0-7*]|rate\\([0-9]{1,3} (minutes|hours|days)\\)",
        timezone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata"]),
        name in prop::option::of("[A-Za-z0-9_-]{1,48}"),
    ) {
        let cloud = Cloud::new();
        let now = crate::cloud::now();
        let mut body = json!({"cron": cron, "timezone": timezone, "images": ["team/app:v1"]});
        if let Some(name) = &name {
            body["name"] = json!(name);
        }
        let Ok((schedule, _)) = wanted(&cloud.jobs, body.clone(), now) else {
            prop_assert!(Timing::parse(&cron).is_err());
            return Ok(());
        };
        let Part { name: part, expression } = schedule.parts().remove(0);
        prop_assert!(is_name(&part) && name.is_none_or(|name| name == part));
        let output = GetScheduleOutput::builder()
            .schedule_expression(expression)
            .schedule_expression_timezone(timezone)
            .start_date(Moment::from_secs(schedule.start.timestamp()))
            .target(target(&cloud.jobs, &schedule, FUNCTION).unwrap())
            .build();
        let again = understand(&part, &output).unwrap();
        prop_assert_eq!(json!(again.told(Vec::new(), now)), json!(schedule.told(Vec::new(), now)));
    }
}

/// The function before a schedule group that remembers what it is told and fails where it is told to.
struct Group {
    cloud: Cloud,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    schedules: BTreeMap<String, CreateScheduleInput>,
    /// When each was created, by Scheduler's clock.
    created: BTreeMap<String, Moment>,
    /// The time, by Scheduler's clock.
    now: DateTime<Utc>,
    calls: Vec<String>,
    /// Calls that are to fail once, and how.
    faults: Vec<(String, String)>,
}

impl State {
    fn call(&mut self, call: String) -> Option<String> {
        let place = self.faults.iter().position(|(name, _)| *name == call);
        self.calls.push(call);
        place.map(|place| self.faults.remove(place).1)
    }
}

impl Group {
    fn new() -> Self {
        let mut cloud = Cloud::new();
        let state = Arc::default();
        cloud.jobs.scheduler = scheduler(&state);
        Self { cloud, state }
    }

    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    fn fail(&self, call: &str, fault: &str) {
        self.with(|state| state.faults.push((call.to_owned(), fault.to_owned())));
    }

    fn forget_faults(&self) {
        self.with(|state| state.faults.clear());
    }

    fn calls(&self) -> Vec<String> {
        self.with(|state| state.calls.clone())
    }

    fn names(&self) -> Vec<String> {
        self.with(|state| state.schedules.keys().cloned().collect())
    }

    fn schedule(&self, name: &str) -> CreateScheduleInput {
        self.with(|state| state.schedules[name].clone())
    }

    fn input(&self, name: &str) -> Value {
        serde_json::from_str(self.schedule(name).target().unwrap().input().unwrap()).unwrap()
    }

    /// Puts a schedule as somebody else would.
    fn put(&self, name: &str, expression: &str, input: &str) {
        let target = Target::builder()
            .arn(FUNCTION)
            .role_arn("role")
            .input(input)
            .build()
            .unwrap();
        let schedule = CreateScheduleInput::builder()
            .name(name)
            .schedule_expression(expression)
            .schedule_expression_timezone("UTC")
            .target(target)
            .build()
            .unwrap();
        self.with(|state| state.schedules.insert(name.to_owned(), schedule));
    }

    fn lose(&self, name: &str) {
        self.with(|state| state.schedules.remove(name)).unwrap();
    }

    async fn post(&self, body: Value) -> (u64, Value) {
        self.post_at(body, 0).await
    }

    async fn post_at(&self, body: Value, seconds: i64) -> (u64, Value) {
        self.with(|state| state.now = crate::cloud::now() + TimeDelta::seconds(seconds));
        self.cloud.http_at("POST", "/jobs/schedule", body, None, seconds).await
    }

    async fn get(&self, target: &str) -> (u64, Value) {
        self.cloud.get(target).await
    }

    async fn delete(&self, name: &str) -> u64 {
        let request = request("DELETE", &format!("/jobs/schedule/{name}"), &Value::Null, None);
        self.cloud.invoke(request, 0).await.unwrap()["statusCode"]
            .as_u64()
            .unwrap()
    }
}

/// An error as the service answers it.
macro_rules! fault {
    ($error:ident, $fault:expr) => {
        match $fault.as_str() {
            "ResourceNotFoundException" => not_found!($error),
            "InternalServerException" => {
                let error = InternalServerException::builder().message("we").build().unwrap();
                MockResponse::Error($error::InternalServerException(error))
            }
            message if message.ends_with('.') => {
                let error = ValidationException::builder().message(message).build().unwrap();
                MockResponse::Error($error::ValidationException(error))
            }
            code => {
                let message = "arn:aws:scheduler:eu-central-1:123456789012:schedule";
                let error = ErrorMetadata::builder().code(code).message(message).build();
                MockResponse::Error($error::generic(error))
            }
        }
    };
}

macro_rules! not_found {
    ($error:ident) => {{
        let error = ResourceNotFoundException::builder().message("none").build().unwrap();
        MockResponse::Error($error::ResourceNotFoundException(error))
    }};
}

fn scheduler(state: &Arc<Mutex<State>>) -> aws_sdk_scheduler::Client {
    let shared = Arc::clone(state);
    let create = mock!(aws_sdk_scheduler::Client::create_schedule).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let name = input.name().unwrap().to_owned();
        let fault = state.call(format!("CreateSchedule {name}"));
        if let Some(fault) = fault.as_ref().filter(|fault| *fault != "Lost") {
            return fault!(CreateScheduleError, fault);
        }
        if state.schedules.contains_key(&name) {
            let error = ConflictException::builder().message("taken").build().unwrap();
            return MockResponse::Error(CreateScheduleError::ConflictException(error));
        }
        let now = Moment::from_secs(state.now.timestamp());
        state.created.insert(name.clone(), now);
        state.schedules.insert(name, input.clone());
        if fault.is_some() {
            return fault!(CreateScheduleError, "InternalServerException".to_owned());
        }
        MockResponse::Output(CreateScheduleOutput::builder().schedule_arn("arn").build().unwrap())
    });
    let shared = Arc::clone(state);
    let get = mock!(aws_sdk_scheduler::Client::get_schedule).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let name = input.name().unwrap();
        if let Some(fault) = state.call(format!("GetSchedule {name}")) {
            return fault!(GetScheduleError, fault);
        }
        let Some(schedule) = state.schedules.get(name).cloned() else {
            return not_found!(GetScheduleError);
        };
        let output = GetScheduleOutput::builder()
            .name(name)
            .set_schedule_expression(schedule.schedule_expression)
            .set_schedule_expression_timezone(schedule.schedule_expression_timezone)
            .set_start_date(schedule.start_date)
            .set_creation_date(state.created.get(name).copied())
            .set_target(schedule.target);
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let list = mock!(aws_sdk_scheduler::Client::list_schedules).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(fault) = state.call("ListSchedules".to_owned()) {
            return fault!(ListSchedulesError, fault);
        }
        let Ok(start) = input.next_token().unwrap_or("0").parse::<usize>() else {
            return fault!(ListSchedulesError, "Invalid NextToken.".to_owned());
        };
        let limit = usize::try_from(input.max_results().unwrap()).unwrap();
        let page = state.schedules.keys().skip(start).take(limit);
        let page = page.map(|name| ScheduleSummary::builder().name(name).build());
        let next = start + limit;
        let next = if next < state.schedules.len() {
            next.to_string()
        } else {
            String::new()
        };
        let output = ListSchedulesOutput::builder()
            .set_schedules(Some(page.collect()))
            .next_token(next);
        MockResponse::Output(output.build().unwrap())
    });
    let shared = Arc::clone(state);
    let delete = mock!(aws_sdk_scheduler::Client::delete_schedule).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let name = input.name().unwrap();
        let fault = state.call(format!("DeleteSchedule {name}"));
        if let Some(fault) = fault.as_ref().filter(|fault| *fault != "Lost") {
            return fault!(DeleteScheduleError, fault);
        }
        if state.schedules.remove(name).is_none() {
            return not_found!(DeleteScheduleError);
        }
        if fault.is_some() {
            return fault!(DeleteScheduleError, "InternalServerException".to_owned());
        }
        MockResponse::Output(DeleteScheduleOutput::builder().build())
    });
    let rules = [&create, &get, &list, &delete];
    mock_client!(aws_sdk_scheduler, RuleMode::MatchAny, rules, |config| {
        config.retry_config(aws_sdk_scheduler::config::retry::RetryConfig::disabled())
    })
}

mod faults;

use aws_sdk_scheduler::{
    operation::get_schedule::GetScheduleOutput,
    primitives::DateTime as Moment,
    types::{ActionAfterCompletion, FlexibleTimeWindowMode},
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    schedule::{
        cron::Timing,
        definition::{Definition, Part},
        name::is_name,
        request::parse,
    },
    tests::cloud::{Cloud, FUNCTION, scheduler::Group},
};

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
    let stale = format!("/jobs/schedule?next={}", crate::http::query::token(&"gone"));
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
    fn whatever_is_requested_is_understood_again(
        cron in "[0-9*]{1,2} [0-9,*/-]{1,5} [0-9*]{1,2} [0-9*]{1,2} [0-7*]|rate\\([0-9]{1,3} (minutes|hours|days)\\)",
        timezone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata"]),
        name in prop::option::of("[A-Za-z0-9_-]{1,48}"),
    ) {
        let cloud = Cloud::new();
        let now = crate::tests::cloud::now();
        let mut body = json!({"cron": cron, "timezone": timezone, "images": ["team/app:v1"]});
        if let Some(name) = &name {
            body["name"] = json!(name);
        }
        let Ok((schedule, _)) = parse(&cloud.jobs.settings, body.clone(), now) else {
            prop_assert!(Timing::parse(&cron).is_err());
            return Ok(());
        };
        let Part { name: part, expression } = schedule.parts().remove(0);
        prop_assert!(is_name(&part) && name.is_none_or(|name| name == part));
        let output = GetScheduleOutput::builder()
            .schedule_expression(expression)
            .schedule_expression_timezone(timezone)
            .start_date(Moment::from_secs(schedule.start.timestamp()))
            .target(cloud.jobs.scheduler().target(&schedule, FUNCTION).unwrap())
            .build();
        let again = Definition::of(&part, &output).unwrap();
        prop_assert_eq!(json!(again.described(Vec::new(), now)), json!(schedule.described(Vec::new(), now)));
    }
}

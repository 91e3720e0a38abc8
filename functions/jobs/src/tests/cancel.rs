//! DELETE /jobs/{id}.

use aws_sdk_ssm::types::CommandStatus;
use prefetch::rows::Key;
use serde_json::{Value, json};

use crate::tests::cloud::{Cloud, command_id, now};

#[tokio::test]
async fn a_job_is_cancelled_with_its_retries_and_nobody_elses() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    let further = cloud.add_command(&format!("job rule=default attempt=2 job={id}"), CommandStatus::Pending);
    cloud.add_command(&format!("job rule=default attempt=2 job={id}"), CommandStatus::Success);
    let other = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    cloud.add_command(
        &format!("job rule=default attempt=2 job={other}"),
        CommandStatus::InProgress,
    );
    cloud.state(|state| state.page = Some(2));
    let (status, answer) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
    assert_eq!(
        (status, answer),
        (200, json!({"id": id, "state": "cancelled", "commands": [id, further]}))
    );
    assert_eq!(cloud.state(|state| state.cancelled.clone()), [id.clone(), further]);
    let row = cloud.row(&Key::cancelled(&id)).unwrap();
    assert_eq!(row["expires_at"], now().timestamp() + 30 * 86_400);
    // Once more it is no other thing.
    let (status, answer) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
    assert_eq!((status, &answer["state"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn a_cancellation_that_stops_not_all_names_what_may_go_on_and_the_same_request_stops_it() {
    for (call, before, unknown) in [
        ("CancelCommand", 0, json!([{"id": command_id(1)}])),
        ("CancelCommand", 1, json!([{"id": command_id(2)}])),
        ("ListCommands", 1, json!([{"id": command_id(1)}])),
    ] {
        let cloud = Cloud::new();
        let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
        cloud.add_command(&format!("job rule=default attempt=2 job={id}"), CommandStatus::Pending);
        cloud.fail(call, before, "InternalServerError");
        let target = format!("/jobs/{id}");
        let (status, problem) = cloud.http("DELETE", &target, Value::Null, None).await;
        assert_eq!((status, &problem["unknown"]), (503, &unknown), "{call} {before}");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("the same request stops them")
        );
        // Whatever failed, the other was stopped.
        assert_eq!(cloud.state(|state| state.cancelled.len()), 1);
        let (status, answer) = cloud.http("DELETE", &target, Value::Null, None).await;
        assert_eq!(
            (status, &answer["commands"]),
            (200, &json!([command_id(1), command_id(2)]))
        );
    }
}

#[tokio::test]
async fn retries_that_may_be_among_more_commands_than_are_looked_through_are_told_as_unknown() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::InProgress);
    cloud.add_command(&format!("job rule=default attempt=2 job={id}"), CommandStatus::Pending);
    for _ in 0..50 {
        cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    }
    cloud.state(|state| state.page = Some(1));
    let (status, problem) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
    assert_eq!((status, &problem["unknown"]), (503, &json!([{"id": id}])), "{problem}");
    assert_eq!(cloud.state(|state| state.cancelled.clone()), [id]);
}

#[tokio::test]
async fn a_job_is_cancelled_with_its_duplicates_and_theirs() {
    let body = json!({"images": ["team/app:v1"]});
    for (is_over, state) in [(false, "cancelled"), (true, "done")] {
        let cloud = Cloud::new();
        cloud.fail("SendCommand", 0, "LostThrice");
        let (_, answer) = cloud.http("POST", "/jobs", body.clone(), None).await;
        let [id, second, third] = [1, 2, 3].map(command_id);
        assert_eq!(answer["jobs"][0]["duplicates"], json!([second, third]));
        let further = cloud.add_command(
            &format!("job rule=default attempt=2 job={third}"),
            CommandStatus::Pending,
        );
        let mut stopped = vec![id.clone(), second.clone(), third.clone(), further];
        if is_over {
            stopped.remove(0);
            cloud.put(
                &Key::job(&id),
                json!({"trigger": "job", "rule": "default", "requested_at": now(), "targets": 1, "pulled": 1,
                    "duplicates": [second, third]}),
            );
        }
        let (status, answer) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
        assert_eq!(
            (status, &answer["state"], &answer["commands"]),
            (200, &json!(state), &json!(stopped))
        );
        for duplicate in [&second, &third] {
            assert!(cloud.row(&Key::cancelled(duplicate)).is_some());
        }
        assert_eq!(cloud.row(&Key::cancelled(&id)).is_some(), !is_over);
    }
}

#[tokio::test]
async fn of_a_job_that_is_over_nothing_is_cancelled() {
    let cloud = Cloud::new();
    let id = cloud.add_command("job rule=default attempt=1", CommandStatus::Success);
    cloud.put(
        &Key::job(&id),
        json!({"trigger": "job", "rule": "default", "requested_at": now(), "targets": 1, "pulled": 1}),
    );
    let (status, answer) = cloud.http("DELETE", &format!("/jobs/{id}"), Value::Null, None).await;
    assert_eq!(
        (status, answer),
        (200, json!({"id": id, "state": "done", "commands": []}))
    );
    assert!(cloud.row(&Key::cancelled(&id)).is_none());
    assert_eq!(cloud.calls(), ["BatchGetItem"]);
}

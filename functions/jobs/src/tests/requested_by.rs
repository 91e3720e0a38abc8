//! Who requested a job.

use prefetch::{rows::Key, settings::Mode};
use serde_json::{Value, json};

use crate::tests::cloud::{Cloud, RULES, command_id, now, request, signed};

const WHO: &str = "arn:aws:sts::123456789012:assumed-role/deployer/pipeline-7";

#[tokio::test]
async fn who_requested_a_job_stands_in_its_row_and_is_told() {
    let body = json!({"images": ["team/app:v1"]});
    for mut cloud in [Cloud::new(), Cloud::observing(RULES)] {
        let payload = signed(request("POST", "/jobs", &body, Some("key")), WHO);
        let answer = cloud.invoke(payload, 0).await.unwrap();
        let answer: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let id = answer["jobs"][0]["id"].as_str().unwrap();
        let row = cloud.row(&Key::job(id)).unwrap();
        assert_eq!(
            (&row["requested_by"], &row["expires_at"]),
            (&json!(WHO), &json!(now().timestamp() + 30 * 86_400))
        );
        let (_, job) = cloud.get(&format!("/jobs/{id}")).await;
        assert_eq!(
            (&job["requestedBy"], &job["trigger"]),
            (&json!(WHO), &json!("job")),
            "{job}"
        );
        assert_eq!(cloud.get("/jobs").await.1["jobs"][0]["requestedBy"], WHO);
        cloud.turn(Mode::Send);
        // What a plain call says of itself is nobody's word, and another's answer changes nothing.
        let payload = json!({"route": "POST /jobs", "body": body, "idempotencyKey": "key"});
        cloud.invoke(payload, 5).await.unwrap();
        assert_eq!(cloud.row(&Key::job(id)).unwrap()["requested_by"], WHO);
    }
    let cloud = Cloud::new();
    let input = json!({"schedule": {"name": "nightly", "time": "2026-11-16T07:00:00Z"}, "body": {"rule": "default"}});
    cloud.invoke(input, 0).await.unwrap();
    let (_, job) = cloud.get(&format!("/jobs/{}", command_id(1))).await;
    assert_eq!(
        (&job["requestedBy"], &job["trigger"]),
        (&json!("nightly"), &json!("schedule"))
    );
    let (_, sent) = cloud.post(body).await;
    let (_, job) = cloud
        .get(&format!("/jobs/{}", sent["jobs"][0]["id"].as_str().unwrap()))
        .await;
    assert_eq!(job.get("requestedBy"), None);
}

#[tokio::test]
async fn of_a_request_that_comes_again_the_first_counts_as_who_requested_it_and_a_row_that_cannot_be_written_fails_no_job()
 {
    let body = json!({"images": ["team/app:v1"]});
    let other = "arn:aws:iam::123456789012:user/other";
    // The command is found by another's request with the same key.
    let cloud = Cloud::new();
    cloud.fail("SendCommand", 0, "LostThrice");
    cloud.fail("ListCommands", 0, "ThrottlingException");
    let requested = |who: &str| signed(request("POST", "/jobs", &body, Some("key")), who);
    assert_eq!(cloud.invoke(requested(WHO), 0).await.unwrap()["statusCode"], 503);
    assert_eq!(cloud.invoke(requested(other), 2).await.unwrap()["statusCode"], 202);
    for k in 1..=3 {
        assert_eq!(cloud.row(&Key::job(&command_id(k))).unwrap()["requested_by"], WHO);
    }
    // A row that is there already stays as it is.
    cloud.put(
        &Key::job(&command_id(4)),
        json!({"trigger": "job", "requested_by": other, "expires_at": 1}),
    );
    let payload = signed(request("POST", "/jobs", &body, None), WHO);
    assert_eq!(cloud.invoke(payload.clone(), 4).await.unwrap()["statusCode"], 202);
    let row = cloud.row(&Key::job(&command_id(4))).unwrap();
    assert_eq!(
        (&row["requested_by"], &row["trigger"], &row["expires_at"]),
        (&json!(other), &json!("job"), &json!(1))
    );

    cloud.fail("UpdateItem", 0, "AccessDeniedException");
    assert_eq!(cloud.invoke(payload, 6).await.unwrap()["statusCode"], 202);
    assert!(cloud.row(&Key::job(&command_id(5))).is_none());
}

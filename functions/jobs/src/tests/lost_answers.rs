//! Commands that SSM took although its answer got lost.

use aws_sdk_ssm::types::CommandStatus;
use prefetch::rows::Key;
use serde_json::json;

use crate::tests::cloud::{Cloud, TWO_RULES, command_id, image, node_id};

#[tokio::test]
async fn a_command_whose_answer_is_lost_is_found_and_told() {
    let body = json!({"images": ["team/app:v1", "team/web:v1"]});
    for key in [None, Some("key")] {
        for lost in [0, 1] {
            let cloud = Cloud::with(TWO_RULES, "false");
            cloud.fail("SendCommand", lost, "Lost");
            let (status, answer) = cloud.http("POST", "/jobs", body.clone(), key).await;
            let ids = answer["jobs"].as_array().unwrap().iter().map(|job| &job["id"]);
            assert_eq!(status, 202, "{answer}");
            assert!(ids.eq([&json!(command_id(1)), &json!(command_id(2))]), "{answer}");
            assert_eq!(cloud.sent().len(), 2);
            let calls = cloud.calls();
            assert_eq!(calls.iter().filter(|call| **call == "ListCommands").count(), 1);
        }
    }
}

#[tokio::test]
async fn the_same_command_of_another_request_is_not_taken_for_one_whose_answer_is_lost() {
    let body = json!({"images": ["team/app:v1"]});
    for key in [None, Some("key")] {
        let cloud = Cloud::new();
        cloud.post(body.clone()).await;
        cloud.http("POST", "/jobs", body.clone(), Some("other")).await;
        cloud.fail("SendCommand", 0, "LostThrice");
        let (_, answer) = cloud.http("POST", "/jobs", body.clone(), key).await;
        let job = &answer["jobs"][0];
        let expected = (&json!(command_id(3)), &json!([command_id(4), command_id(5)]));
        assert_eq!((&job["id"], &job["duplicates"]), expected, "{answer}");
        // Whose they are cannot be told either where the rows cannot be read.
        cloud.fail("SendCommand", 0, "Lost");
        cloud.fail("BatchGetItem", 0, "ThrottlingException");
        let (status, problem) = cloud.http("POST", "/jobs", body.clone(), key.map(|_| "third")).await;
        assert_eq!((status, problem["unknown"].as_array().map(Vec::len)), (503, Some(1)));
    }
}

#[tokio::test]
async fn of_a_command_that_is_taken_thrice_the_first_is_told_with_the_others() {
    let body = json!({"images": ["team/app:v1"]});
    for key in [None, Some("key")] {
        let cloud = Cloud::new();
        cloud.fail("SendCommand", 0, "LostThrice");
        let (status, answer) = cloud.http("POST", "/jobs", body.clone(), key).await;
        let job = &answer["jobs"][0];
        assert_eq!((status, &job["id"]), (202, &json!(command_id(1))), "{answer}");
        assert_eq!(job["duplicates"], json!([command_id(2), command_id(3)]));
    }
    // It is found by the same request as well, which keeps it.
    let cloud = Cloud::new();
    cloud.fail("SendCommand", 0, "LostThrice");
    cloud.fail("ListCommands", 0, "ThrottlingException");
    assert_eq!(cloud.http("POST", "/jobs", body.clone(), Some("key")).await.0, 503);
    let (status, answer) = cloud.http_at("POST", "/jobs", body.clone(), Some("key"), 2).await;
    let job = &answer["jobs"][0];
    assert_eq!((status, &job["id"]), (202, &json!(command_id(1))));
    assert_eq!(job["duplicates"], json!([command_id(2), command_id(3)]));
    assert_eq!(
        cloud.http_at("POST", "/jobs", body, Some("key"), 4).await,
        (202, answer)
    );
    assert_eq!(cloud.sent().len(), 3);
}

#[tokio::test]
async fn a_command_that_ssm_took_at_a_try_before_the_last_is_found_whatever_the_last_was_answered() {
    let refused = |code: &str| (400, json!({"__type": code}).to_string());
    let lost = || (500, json!({"__type": "InternalServerError"}).to_string());
    let taken = || (200, json!({"Command": {"CommandId": command_id(9)}}).to_string());
    let ids = |ids: &[usize]| json!({"ids": ids.iter().map(|k| node_id(*k)).collect::<Vec<_>>()});
    let tags = || json!({"tags": {"aws:eks:cluster-name": ["prod"]}});
    let throttled = || vec![lost(), refused("ThrottlingException"), refused("ThrottlingException")];
    let duplicate = Some(json!([command_id(1)]));
    for (nodes, tries, id, duplicates, told) in [
        (None, throttled(), 1, None, tags()),
        (None, vec![lost(), taken()], 9, duplicate.clone(), tags()),
        (None, vec![refused("ThrottlingException"), taken()], 9, None, tags()),
        // The second node goes offline in between, beside another and alone.
        (
            Some(ids(&[1, 2])),
            vec![lost(), refused("InvalidInstanceId"), taken()],
            9,
            duplicate,
            ids(&[1]),
        ),
        (
            Some(ids(&[2])),
            vec![lost(), refused("InvalidInstanceId")],
            1,
            None,
            ids(&[2]),
        ),
    ] {
        let mut body = json!({"images": ["team/app:v1"]});
        if let Some(nodes) = nodes {
            body["nodes"] = nodes;
        }
        for key in [None, Some("key")] {
            let mut cloud = Cloud::new();
            // What SSM takes of it, of which nobody knows.
            if tries[0].0 == 500 {
                assert_eq!(cloud.post(body.clone()).await.0, 202);
                cloud.state(|state| state.table.rows.clear());
            }
            cloud.answer_tries(&tries, 1);
            let (status, answer) = cloud.http("POST", "/jobs", body.clone(), key).await;
            let job = &answer["jobs"][0];
            assert_eq!(
                (status, &job["id"], &job["nodes"]),
                (202, &json!(command_id(id)), &told),
                "{answer}"
            );
            assert_eq!(job.get("duplicates"), duplicates.as_ref(), "{answer}");
            let row = cloud.row(&Key::job(&command_id(id))).unwrap();
            assert_eq!(row.get("duplicates"), duplicates.as_ref());
            if key.is_some() {
                assert_eq!(
                    cloud.http_at("POST", "/jobs", body.clone(), key, 2).await,
                    (202, answer)
                );
            }
        }
    }
    // What cannot be looked for is told as unknown.
    let mut cloud = Cloud::new();
    cloud.answer_tries(&throttled(), 1);
    cloud.fail("ListCommands", 0, "ThrottlingException");
    let (status, problem) = cloud.post(json!({"images": ["team/app:v1"]})).await;
    assert_eq!(
        (status, problem["unknown"].as_array().map(Vec::len)),
        (503, Some(1)),
        "{problem}"
    );
}

#[tokio::test]
async fn what_may_be_among_more_commands_than_are_looked_through_is_sent_again() {
    let body = json!({"images": ["team/app:v1"]});
    let cloud = Cloud::new();
    cloud.fail("SendCommand", 0, "Lost");
    cloud.fail("ListCommands", 0, "ThrottlingException");
    assert_eq!(cloud.http("POST", "/jobs", body.clone(), Some("key")).await.0, 503);
    for _ in 0..50 {
        cloud.add_command("push rule=default attempt=1", CommandStatus::Success);
    }
    cloud.state(|state| state.page = Some(1));
    let (status, answer) = cloud.http_at("POST", "/jobs", body, Some("key"), 2).await;
    assert_eq!((status, &answer["jobs"][0]["id"]), (202, &json!(command_id(52))));
}

#[tokio::test]
async fn a_command_of_which_it_is_not_known_whether_it_was_sent_is_told_as_that() {
    let body = json!({"images": ["team/app:v1"]});
    let expected = json!([{
        "rule": "default", "images": [image("team/app", "v1")], "nodes": {"tags": {"aws:eks:cluster-name": ["prod"]}},
    }]);
    for (fault, list, sent) in [
        ("Lost", Some("ThrottlingException"), 1),
        ("InternalServerError", None, 0),
        ("InternalServerError", Some("ThrottlingException"), 0),
    ] {
        for key in [None, Some("key")] {
            let cloud = Cloud::new();
            cloud.fail("SendCommand", 0, fault);
            if let Some(code) = list {
                cloud.fail("ListCommands", 0, code);
            }
            let (status, problem) = cloud.http("POST", "/jobs", body.clone(), key).await;
            assert_eq!((status, &problem["unknown"]), (503, &expected), "{fault}");
            assert!(
                problem["detail"].as_str().unwrap().contains("Idempotency-Key"),
                "{problem}"
            );
            assert!(problem.get("jobs").is_none() && cloud.sent().len() == sent);
            let (status, _) = cloud.http_at("POST", "/jobs", body.clone(), key, 2).await;
            let harmless = usize::from(key.is_none() && sent > 0);
            assert_eq!((status, cloud.sent().len()), (202, 1 + harmless), "{fault}");
        }
    }
    // What SSM has refused is known not to be sent.
    for fault in ["ThrottlingException", "AccessDeniedException"] {
        let cloud = Cloud::new();
        cloud.fail("SendCommand", 0, fault);
        let (status, problem) = cloud.post(body.clone()).await;
        assert!(status == 503 && problem.get("unknown").is_none(), "{problem}");
        assert!(!cloud.calls().contains(&"ListCommands"));
    }
}

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn event(method: &str, path: &str, body: &Value) -> Value {
    json!({
        "version": "2.0", "rawPath": path, "headers": {"content-type": "application/json; charset=utf-8"},
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"},
        "body": body, "isBase64Encoded": false,
    })
}

fn with(mut event: Value, field: &str, value: Value) -> Value {
    event[field] = value;
    event
}

fn http_status(payload: Value) -> u16 {
    match Event::read(payload) {
        Event::Api(Err(problem)) => problem.status(),
        Event::Api(Ok(_)) => 0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_of_the_api_is_read_plain_or_in_base64() {
    let body = r#"{"rule": "gpu"}"#;
    let plain = event("POST", "/jobs", &json!(body));
    let encoded = with(
        event("POST", "/jobs", &json!(BASE64_STANDARD.encode(body))),
        "isBase64Encoded",
        json!(true),
    );
    let mut staged = event("POST", "/prod/jobs", &json!(body));
    staged["requestContext"]["stage"] = json!("prod");
    for payload in [plain, encoded, staged] {
        let Event::Api(Ok(request)) = Event::read(payload) else {
            panic!()
        };
        assert_eq!(
            (request.route, request.body),
            (Route::SubmitJob, json!({"rule": "gpu"}))
        );
    }
}

#[test]
fn who_signed_a_request_is_what_api_gateway_says_and_nothing_else() {
    let arn = "arn:aws:sts::123456789012:assumed-role/deployer/pipeline-7";
    let of = |authorizer: Value| {
        let mut payload = event(
            "POST",
            "/jobs",
            &json!(r#"{"rule": "gpu", "requestedBy": "arn:aws:iam::1:root"}"#),
        );
        payload["requestContext"]["authorizer"] = authorizer;
        let Event::Api(Ok(request)) = Event::read(payload) else {
            panic!()
        };
        request.requested_by
    };
    assert_eq!(of(json!({"iam": {"userArn": arn}})).as_deref(), Some(arn));
    for none in [
        Value::Null,
        json!({}),
        json!({"iam": null}),
        json!({"iam": {"userArn": null}}),
        json!({"iam": {"userArn": "root"}}),
        json!({"iam": {"userArn": format!("arn:{}", "x".repeat(2048))}}),
        json!({"lambda": {"userArn": arn}}),
    ] {
        assert_eq!(of(none), None);
    }
    for payload in [
        json!({"rule": "gpu", "requestedBy": arn}),
        json!({"route": "POST /jobs", "body": {"rule": "gpu", "requestedBy": arn}}),
    ] {
        let Event::Direct(Ok(request)) = Event::read(payload) else {
            panic!()
        };
        assert_eq!(request.requested_by, None);
    }
}

#[test]
fn a_request_of_the_api_that_is_none_is_the_callers_fault() {
    let post = |body: Value| event("POST", "/jobs", &body);
    let text = json!({"content-type": "text/plain"});
    for (payload, status) in [
        (post(Value::Null), 400),
        (post(json!("")), 400),
        (post(json!("{")), 400),
        (post(json!("{\"rule\": \"a\", \"rule\": \"a\"}")), 400),
        (with(post(json!("*")), "isBase64Encoded", json!(true)), 400),
        (
            with(
                post(json!(BASE64_STANDARD.encode([0xff_u8]))),
                "isBase64Encoded",
                json!(true),
            ),
            400,
        ),
        (with(post(json!("{}")), "headers", text), 415),
        (with(post(json!("{}")), "headers", json!({})), 415),
        (post(json!(format!("\"{}\"", "x".repeat(MAX_BODY)))), 413),
        (
            with(
                post(json!(BASE64_STANDARD.encode(vec![b' '; MAX_BODY + 1]))),
                "isBase64Encoded",
                json!(true),
            ),
            413,
        ),
        (event("PUT", "/jobs", &Value::Null), 405),
        (event("GET", "/", &Value::Null), 404),
        (with(post(json!("{}")), "rawPath", json!(1)), 400),
        (with(event("GET", "/jobs", &Value::Null), "headers", json!([])), 400),
    ] {
        assert_eq!(http_status(payload.clone()), status, "{payload}");
    }
    for key in ["", " ", "a b", "ä", &"x".repeat(256)] {
        let headers = json!({"Content-Type": "application/json", "Idempotency-Key": key});
        assert_eq!(http_status(with(post(json!("{}")), "headers", headers)), 400, "{key}");
    }
}

#[test]
fn a_direct_invocation_names_its_route_or_is_a_body() {
    let routed = json!({"route": "GET /jobs?limit=5&next=abc"});
    let Event::Direct(Ok(request)) = Event::read(routed) else {
        panic!()
    };
    assert_eq!(request.route, Route::ListJobs);
    let query = [("limit", "5"), ("next", "abc")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(request.query, Query(query.into()));

    let routed = json!({"route": "POST /jobs", "body": {"rule": "gpu"}, "idempotencyKey": "k"});
    let Event::Direct(Ok(request)) = Event::read(routed) else {
        panic!()
    };
    assert_eq!(
        (request.body, request.key),
        (json!({"rule": "gpu"}), Some("k".to_owned()))
    );

    for (body, route) in [
        (json!({"images": ["app:v1"]}), Route::SubmitJob),
        (json!({"rule": "gpu"}), Route::SubmitJob),
        (json!({"cron": "0 7 * * *", "rule": "gpu"}), Route::CreateSchedule),
    ] {
        let Event::Direct(Ok(request)) = Event::read(body.clone()) else {
            panic!()
        };
        assert_eq!((request.route, request.body), (route, body));
    }
    for payload in [
        json!(null),
        json!([]),
        json!("GET /jobs"),
        json!({}),
        json!({"route": 1}),
        json!({"route": "GET"}),
        json!({"route": "GET /jobs", "more": 1}),
        json!({"route": "POST /jobs", "idempotencyKey": ""}),
        json!({"images": ["x".repeat(MAX_BODY)]}),
    ] {
        let Event::Direct(Err(problem)) = Event::read(payload.clone()) else {
            panic!("{payload}")
        };
        assert!(!problem.is_ours(), "{payload}");
    }
}

#[test]
fn a_schedule_is_known_by_name_and_time_and_a_reconcile_and_a_count_by_their_events() {
    let input = json!({"schedule": {"name": "nightly", "time": "2026-11-16T07:00:00Z"}, "body": {"rule": "gpu"}});
    let Event::Schedule(Ok(scheduled)) = Event::read(input) else {
        panic!()
    };
    assert_eq!(scheduled.key, "schedule/nightly/2026-11-16T07:00:00Z");
    assert_eq!(scheduled.name, "nightly");
    assert!(matches!(Event::read(json!({"schedule": 1})), Event::Schedule(Err(_))));

    assert!(matches!(Event::read(json!({"reconcile": true})), Event::Reconcile));
    assert!(matches!(Event::read(json!({"count": true})), Event::Count));
    for (status, is_reconciled) in [
        ("CREATE_COMPLETE", true),
        ("UPDATE_COMPLETE", true),
        ("UPDATE_ROLLBACK_COMPLETE", false),
        ("DELETE_COMPLETE", false),
    ] {
        let event = json!({
            "source": "aws.cloudformation", "detail-type": "CloudFormation Stack Status Change",
            "detail": {"status-details": {"status": status}},
        });
        assert_eq!(
            matches!(Event::read(event), Event::Reconcile),
            is_reconciled,
            "{status}"
        );
    }
}

proptest! {
    #[test]
    fn any_body_of_a_request_is_read_or_refused(body in ".{0,80}", encoded: bool) {
        let payload = with(event("POST", "/jobs", &json!(body)), "isBase64Encoded", json!(encoded));
        let status = http_status(payload);
        prop_assert!([0, 400, 413, 415].contains(&status), "{}", status);
    }

    #[test]
    fn any_route_is_read_or_refused(route in "(GET|POST|DELETE)? ?/?(jobs|nodes)?.{0,20}") {
        match Event::read(json!({"route": route})) {
            Event::Direct(Err(problem)) => prop_assert!(!problem.is_ours()),
            Event::Direct(Ok(_)) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

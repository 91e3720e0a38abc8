//! Doors: by which way the function is called, and what it is asked.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    problem::Problem,
    query::Query,
    request::{MAX_BODY, json},
    route::Route,
};

/// How long an ARN is at most (IAM API reference, `arnType`).
const MAX_ARN: usize = 2048;

/// What the function was called with.
#[derive(Debug)]
pub enum Call {
    /// By the API, which wants a status, headers and a text.
    Http(Result<Asked, Problem>),
    /// By hand or by a program, which wants the body.
    Plain(Result<Asked, Problem>),
    /// By a schedule, which reads no answer: what is not done is an error.
    Schedule(Result<Scheduled, Problem>),
    /// By the schedule of the reconcile, or because the stack was deployed.
    Reconcile,
    /// By the schedule of the count.
    Count,
    /// By an event of the stack that is not the end of a deployment.
    Ignored(String),
}

/// One call of the API.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// Which one.
    pub route: Route,
    /// The parameters of its query.
    pub query: Query,
    /// Its body, where it has one.
    pub body: Value,
    /// Its idempotency key, where it has one.
    pub key: Option<String>,
    /// The ARN of whoever signed it, where API Gateway says so.
    pub requested_by: Option<String>,
}

/// A job that a schedule submits.
#[derive(Debug, PartialEq)]
pub struct Scheduled {
    /// The job.
    pub body: Value,
    /// The schedule's name and time, by which a repeated call is known.
    pub key: String,
    /// The schedule's name.
    pub name: String,
}

/// Tells by which door a call comes.
pub fn call(payload: Value) -> Call {
    if payload["requestContext"]["http"].is_object() {
        return Call::Http(http(payload));
    }
    if payload["detail-type"] == "CloudFormation Stack Status Change" {
        let status = payload["detail"]["status-details"]["status"]
            .as_str()
            .unwrap_or("unknown");
        return match status {
            "CREATE_COMPLETE" | "UPDATE_COMPLETE" => Call::Reconcile,
            other => Call::Ignored(format!(
                "the stack's status is {}",
                other.chars().take(64).collect::<String>()
            )),
        };
    }
    if payload["reconcile"] == true {
        return Call::Reconcile;
    }
    if payload["count"] == true {
        return Call::Count;
    }
    if payload.get("schedule").is_some() {
        return Call::Schedule(scheduled(payload));
    }
    Call::Plain(plain(payload))
}

/// The event of an HTTP API, payload format 2.0 (API Gateway developer guide).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpEvent {
    raw_path: String,
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    query_string_parameters: BTreeMap<String, String>,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
    request_context: RequestContext,
}

#[derive(Debug, Deserialize)]
struct RequestContext {
    http: Http,
    #[serde(default)]
    stage: String,
    authorizer: Option<Value>,
}

impl RequestContext {
    /// Who signed the request, as IAM has it (API Gateway developer guide, payload format 2.0).
    fn caller(&self) -> Option<String> {
        let arn = self.authorizer.as_ref()?["iam"]["userArn"].as_str()?;
        let is_arn = arn.starts_with("arn:") && arn.len() <= MAX_ARN;
        is_arn.then(|| arn.to_owned())
    }
}

#[derive(Debug, Deserialize)]
struct Http {
    method: String,
}

fn http(payload: Value) -> Result<Asked, Problem> {
    let event: HttpEvent = serde_json::from_value(payload)
        .map_err(|error| Problem::bad_request(format!("this is no event of an HTTP API: {error}")))?;
    let stage = format!("/{}/", event.request_context.stage);
    let path = event.raw_path.strip_prefix(&stage).unwrap_or(&event.raw_path);
    let route = Route::read(&event.request_context.http.method, path)?;
    let key = event.header("idempotency-key").map(str::to_owned);
    let body = if route.has_body() { event.json()? } else { Value::Null };
    let requested_by = event.request_context.caller();
    let asked = asked(route, Query(event.query_string_parameters), body, key)?;
    Ok(Asked { requested_by, ..asked })
}

impl HttpEvent {
    /// API Gateway writes the names in lower case; a caller by hand may not.
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Result<Value, Problem> {
        let Some(body) = self.body.as_deref().filter(|body| !body.is_empty()) else {
            return Err(Problem::bad_request("there is no body"));
        };
        if !self.header("content-type").is_some_and(is_json) {
            return Err(Problem::unsupported_media_type("a body is application/json"));
        }
        if !self.is_base64_encoded {
            return json(body);
        }
        let bytes = BASE64_STANDARD.decode(body).ok();
        if bytes.as_ref().is_some_and(|bytes| bytes.len() > MAX_BODY) {
            return Err(too_large());
        }
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        json(&text.ok_or_else(|| Problem::bad_request("the body is no text in UTF-8"))?)
    }
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    media_type == "application/json" || media_type.starts_with("application/") && media_type.ends_with("+json")
}

fn too_large() -> Problem {
    Problem::too_large(format!("a body has at most {MAX_BODY} bytes"))
}

/// A call without a route is a job's body, or a schedule's.
fn plain(payload: Value) -> Result<Asked, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Routed {
        route: String,
        #[serde(default)]
        body: Value,
        idempotency_key: Option<String>,
    }
    if payload.get("route").is_none() {
        let route = ["cron", "images", "rule"]
            .iter()
            .find(|field| payload.get(*field).is_some());
        return match route {
            Some(&"cron") => asked(Route::CreateSchedule, Query::default(), payload, None),
            Some(_) => asked(Route::SubmitJob, Query::default(), payload, None),
            None => Err(Problem::bad_request(
                r#"this asks for nothing: accepted is {"route": "GET /jobs/stats"}, or a job's or schedule's body"#,
            )),
        };
    }
    let routed: Routed =
        serde_json::from_value(payload).map_err(|error| Problem::bad_request(format!("this is no call: {error}")))?;
    let (method, target) = routed.route.split_once(' ').unwrap_or((&routed.route, ""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let route = Route::read(method, path)?;
    // Neither limit nor next needs escapes.
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let query = parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    asked(route, Query(query), routed.body, routed.idempotency_key)
}

fn asked(route: Route, query: Query, body: Value, key: Option<String>) -> Result<Asked, Problem> {
    if !body.is_null() && body.to_string().len() > MAX_BODY {
        return Err(too_large());
    }
    let is_key = |key: &str| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    match key {
        Some(key) if route.has_body() && !is_key(&key) => {
            let accepted = "1 to 255 visible ASCII characters";
            Err(Problem::field("Idempotency-Key", Some(Value::String(key)), accepted))
        }
        key => Ok(Asked {
            route,
            query,
            body,
            key,
            requested_by: None,
        }),
    }
}

fn scheduled(payload: Value) -> Result<Scheduled, Problem> {
    #[derive(Deserialize)]
    struct Input {
        schedule: Schedule,
        body: Value,
    }
    #[derive(Deserialize)]
    struct Schedule {
        name: String,
        time: String,
    }
    let input: Input = serde_json::from_value(payload)
        .map_err(|error| Problem::bad_request(format!("this is no schedule's input: {error}")))?;
    Ok(Scheduled {
        body: input.body,
        key: format!("schedule/{}/{}", input.schedule.name, input.schedule.time),
        name: input.schedule.name,
    })
}

#[cfg(test)]
mod tests {
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
        match call(payload) {
            Call::Http(Err(problem)) => problem.status(),
            Call::Http(Ok(_)) => 0,
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
            let Call::Http(Ok(asked)) = call(payload) else { panic!() };
            assert_eq!((asked.route, asked.body), (Route::SubmitJob, json!({"rule": "gpu"})));
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
            let Call::Http(Ok(asked)) = call(payload) else { panic!() };
            asked.requested_by
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
            let Call::Plain(Ok(asked)) = call(payload) else {
                panic!()
            };
            assert_eq!(asked.requested_by, None);
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
    fn a_plain_call_names_its_route_or_is_a_body() {
        let routed = json!({"route": "GET /jobs?limit=5&next=abc"});
        let Call::Plain(Ok(asked)) = call(routed) else { panic!() };
        assert_eq!(asked.route, Route::ListJobs);
        let query = [("limit", "5"), ("next", "abc")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(asked.query, Query(query.into()));

        let routed = json!({"route": "POST /jobs", "body": {"rule": "gpu"}, "idempotencyKey": "k"});
        let Call::Plain(Ok(asked)) = call(routed) else { panic!() };
        assert_eq!((asked.body, asked.key), (json!({"rule": "gpu"}), Some("k".to_owned())));

        for (body, route) in [
            (json!({"images": ["app:v1"]}), Route::SubmitJob),
            (json!({"rule": "gpu"}), Route::SubmitJob),
            (json!({"cron": "0 7 * * *", "rule": "gpu"}), Route::CreateSchedule),
        ] {
            let Call::Plain(Ok(asked)) = call(body.clone()) else {
                panic!()
            };
            assert_eq!((asked.route, asked.body), (route, body));
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
            let Call::Plain(Err(problem)) = call(payload.clone()) else {
                panic!("{payload}")
            };
            assert!(!problem.is_ours(), "{payload}");
        }
    }

    #[test]
    fn a_schedule_is_known_by_name_and_time_and_a_reconcile_and_a_count_by_their_events() {
        let input = json!({"schedule": {"name": "nightly", "time": "2026-11-16T07:00:00Z"}, "body": {"rule": "gpu"}});
        let Call::Schedule(Ok(scheduled)) = call(input) else {
            panic!()
        };
        assert_eq!(scheduled.key, "schedule/nightly/2026-11-16T07:00:00Z");
        assert_eq!(scheduled.name, "nightly");
        assert!(matches!(call(json!({"schedule": 1})), Call::Schedule(Err(_))));

        assert!(matches!(call(json!({"reconcile": true})), Call::Reconcile));
        assert!(matches!(call(json!({"count": true})), Call::Count));
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
            assert_eq!(matches!(call(event), Call::Reconcile), is_reconciled, "{status}");
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
            match call(json!({"route": route})) {
                Call::Plain(Err(problem)) => prop_assert!(!problem.is_ours()),
                Call::Plain(Ok(_)) => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

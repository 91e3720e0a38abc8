//! Events: by what the function is invoked, and what is wanted of it.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;

use crate::http::{
    problem::Problem,
    query::Query,
    request::{MAX_BODY, Request, Route, parse_json, too_large},
};

/// Sets how long an ARN is at most (IAM API reference, `arnType`).
const MAX_ARN: usize = 2048;

/// Tells by what the function was invoked.
#[derive(Debug)]
pub enum Event {
    /// By the HTTP API, which wants a status, headers and a text.
    Api(Result<Request, Problem>),
    /// By hand or by a program, which wants the body.
    Direct(Result<Request, Problem>),
    /// By a schedule, which reads no answer: what is not done is an error.
    Schedule(Result<ScheduledJob, Problem>),
    /// By the schedule of the reconcile, or because the stack was deployed.
    Reconcile,
    /// By the schedule of the count.
    Count,
    /// By an event of the stack that is not the end of a deployment.
    Ignored(String),
}

/// Holds a job that a schedule submits.
#[derive(Debug, PartialEq)]
pub struct ScheduledJob {
    /// The job.
    pub body: Value,
    /// The schedule's name and time, by which a repeated event is known.
    pub key: String,
    /// The schedule's name.
    pub name: String,
}

impl Event {
    /// Reads an event, whatever it is.
    pub fn read(payload: Value) -> Self {
        if payload["requestContext"]["http"].is_object() {
            Self::Api(api_request(payload))
        } else if payload["detail-type"] == "CloudFormation Stack Status Change" {
            stack_event(&payload)
        } else if payload["reconcile"] == true {
            Self::Reconcile
        } else if payload["count"] == true {
            Self::Count
        } else if payload.get("schedule").is_some() {
            Self::Schedule(scheduled_job(payload))
        } else {
            Self::Direct(direct_request(payload))
        }
    }
}

fn stack_event(payload: &Value) -> Event {
    let status = payload["detail"]["status-details"]["status"].as_str();
    match status.unwrap_or("unknown") {
        "CREATE_COMPLETE" | "UPDATE_COMPLETE" => Event::Reconcile,
        other => {
            let status: String = other.chars().take(64).collect();
            Event::Ignored(format!("the stack's status is {status}"))
        }
    }
}

/// Holds the event of an HTTP API, payload format 2.0 (API Gateway developer guide).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiEvent {
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
    /// Names who signed the request, as IAM has it (API Gateway developer guide, payload format 2.0).
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

fn api_request(payload: Value) -> Result<Request, Problem> {
    let event: ApiEvent = serde_json::from_value(payload)
        .map_err(|error| Problem::bad_request(format!("this is no event of an HTTP API: {error}")))?;
    let stage = format!("/{}/", event.request_context.stage);
    let path = event.raw_path.strip_prefix(&stage).unwrap_or(&event.raw_path);
    let route = Route::read(&event.request_context.http.method, path)?;
    let key = event.header("idempotency-key").map(str::to_owned);
    let body = if route.has_body() { event.json()? } else { Value::Null };
    let requested_by = event.request_context.caller();
    let request = Request::new(route, Query(event.query_string_parameters), body, key)?;
    Ok(Request {
        requested_by,
        ..request
    })
}

impl ApiEvent {
    /// Gives a header's value: API Gateway writes the names in lower case, a caller by hand may not.
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
            return parse_json(body);
        }
        let bytes = BASE64_STANDARD.decode(body).ok();
        if bytes.as_ref().is_some_and(|bytes| bytes.len() > MAX_BODY) {
            return Err(too_large());
        }
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        parse_json(&text.ok_or_else(|| Problem::bad_request("the body is no text in UTF-8"))?)
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

/// Reads a direct invocation: without a route it is a job's body, or a schedule's.
fn direct_request(payload: Value) -> Result<Request, Problem> {
    if payload.get("route").is_some() {
        return routed_request(payload);
    }
    let fields = ["cron", "images", "rule"];
    match fields.into_iter().find(|field| payload.get(field).is_some()) {
        Some("cron") => Request::new(Route::CreateSchedule, Query::default(), payload, None),
        Some(_) => Request::new(Route::SubmitJob, Query::default(), payload, None),
        None => Err(Problem::bad_request(
            r#"this asks for nothing: accepted is {"route": "GET /jobs/stats"}, or a job's or schedule's body"#,
        )),
    }
}

fn routed_request(payload: Value) -> Result<Request, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Routed {
        route: String,
        #[serde(default)]
        body: Value,
        idempotency_key: Option<String>,
    }
    let routed: Routed =
        serde_json::from_value(payload).map_err(|error| Problem::bad_request(format!("this is no call: {error}")))?;
    let (method, target) = routed.route.split_once(' ').unwrap_or((&routed.route, ""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let route = Route::read(method, path)?;
    // Neither limit, next nor rule needs escapes.
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let query = parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Request::new(route, Query(query), routed.body, routed.idempotency_key)
}

fn scheduled_job(payload: Value) -> Result<ScheduledJob, Problem> {
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
    Ok(ScheduledJob {
        body: input.body,
        key: format!("schedule/{}/{}", input.schedule.name, input.schedule.time),
        name: input.schedule.name,
    })
}

#[cfg(test)]
mod tests;

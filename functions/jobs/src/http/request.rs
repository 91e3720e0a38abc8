//! Requests of the API: which operation, with what.

use prefetch::unique_keys::UniqueKeys;
use serde_json::Value;

use crate::http::{problem::Problem, query::Query};

/// Limits how many bytes a body has at most.
pub const MAX_BODY: usize = 64 * 1024;

/// Holds one request of the API.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// Its operation.
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

impl Request {
    /// Puts a request together that nobody signed.
    ///
    /// # Errors
    /// A 413 where the body is too large, a 400 where the idempotency key is none.
    pub fn new(route: Route, query: Query, body: Value, key: Option<String>) -> Result<Self, Problem> {
        if !body.is_null() && body.to_string().len() > MAX_BODY {
            return Err(too_large());
        }
        let is_key = |key: &str| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        match key {
            Some(key) if route.has_body() && !is_key(&key) => {
                let accepted = "1 to 255 visible ASCII characters";
                Err(Problem::field("Idempotency-Key", Some(Value::String(key)), accepted))
            }
            key => Ok(Self {
                route,
                query,
                body,
                key,
                requested_by: None,
            }),
        }
    }
}

/// Names an operation of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /jobs`
    SubmitJob,
    /// `GET /jobs`
    ListJobs,
    /// `GET /jobs/stats`
    GetStats,
    /// `GET /jobs/{id}`
    GetJob(String),
    /// `DELETE /jobs/{id}`
    CancelJob(String),
    /// `POST /jobs/schedule`
    CreateSchedule,
    /// `GET /jobs/schedule`
    ListSchedules,
    /// `DELETE /jobs/schedule/{name}`
    DeleteSchedule(String),
    /// `GET /nodes`
    ListNodes,
    /// `GET /usage`
    GetUsage,
}

impl Route {
    /// Reads a method and a path.
    ///
    /// # Errors
    /// A 404 where there is no such path, a 405 where it takes other methods.
    pub fn read(method: &str, path: &str) -> Result<Self, Problem> {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (route, methods) = match (segments.as_slice(), method) {
            (["jobs"], "POST") => (Some(Self::SubmitJob), ""),
            (["jobs"], "GET") => (Some(Self::ListJobs), ""),
            (["jobs", "stats"], "GET") => (Some(Self::GetStats), ""),
            (["jobs", "schedule"], "POST") => (Some(Self::CreateSchedule), ""),
            (["jobs", "schedule"], "GET") => (Some(Self::ListSchedules), ""),
            (["jobs"] | ["jobs", "schedule"], _) => (None, "GET and POST"),
            (["jobs", "schedule", name], "DELETE") => (Some(Self::DeleteSchedule((*name).to_owned())), ""),
            (["jobs", "schedule", _], _) => (None, "DELETE"),
            (["nodes"], "GET") => (Some(Self::ListNodes), ""),
            (["usage"], "GET") => (Some(Self::GetUsage), ""),
            (["jobs", "stats"] | ["nodes" | "usage"], _) => (None, "GET"),
            (["jobs", id], "GET") => (Some(Self::GetJob((*id).to_owned())), ""),
            (["jobs", id], "DELETE") => (Some(Self::CancelJob((*id).to_owned())), ""),
            (["jobs", _], _) => (None, "GET and DELETE"),
            _ => return Err(Problem::not_found("there is no such path")),
        };
        route.ok_or_else(|| Problem::method_not_allowed(format!("the path takes {methods}")))
    }

    /// Returns true where the request has a body.
    pub fn has_body(&self) -> bool {
        matches!(self, Self::SubmitJob | Self::CreateSchedule)
    }
}

/// Reads a body's text as JSON in which no object has a key twice.
///
/// # Errors
/// A 413 where it is too large, a 400 where it is no such JSON.
pub fn parse_json(text: &str) -> Result<Value, Problem> {
    if text.len() > MAX_BODY {
        return Err(too_large());
    }
    // serde_json itself refuses what is nested deeper than 128.
    let value = serde_json::from_str::<UniqueKeys>(text).and_then(|UniqueKeys| serde_json::from_str(text));
    value.map_err(|error| Problem::bad_request(format!("the body is no JSON: {error}")))
}

/// Refuses a body that is too large.
pub fn too_large() -> Problem {
    Problem::too_large(format!("a body has at most {MAX_BODY} bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_takes_the_methods_of_the_contract_and_no_others() {
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get", ""];
        for (path, taken) in [
            ("/jobs", vec!["GET", "POST"]),
            ("/jobs/stats", vec!["GET"]),
            ("/jobs/schedule", vec!["GET", "POST"]),
            ("/jobs/schedule/nightly", vec!["DELETE"]),
            ("/jobs/e8d3c0e4-71f7-4491-898f-c9b35bee5f3b", vec!["GET", "DELETE"]),
            ("/nodes", vec!["GET"]),
            ("/usage", vec!["GET"]),
        ] {
            for method in methods {
                let status = Route::read(method, path).map_err(|problem| problem.status());
                assert_eq!(status.is_ok(), taken.contains(&method), "{method} {path}");
                assert!(status.is_ok() || status == Err(405));
            }
        }
        for path in [
            "",
            "/",
            "/job",
            "/jobs/a/b",
            "/jobs/schedule/a/b",
            "/nodes/i-0abc0000000000001",
            "/usage/default",
        ] {
            assert_eq!(Route::read("GET", path).unwrap_err().status(), 404, "{path}");
        }
    }

    #[test]
    fn json_that_is_none_or_too_large_or_too_deep_or_says_a_thing_twice_is_refused() {
        for text in [
            "",
            "{",
            "{\"rule\": \"a\", \"rule\": \"b\"}",
            "nonsense",
            "{} {}",
            "\u{feff}{}",
            "NaN",
        ] {
            assert_eq!(parse_json(text).unwrap_err().status(), 400, "{text}");
        }
        assert_eq!(parse_json(&"[".repeat(60_000)).unwrap_err().status(), 400);
        assert_eq!(parse_json(&" ".repeat(MAX_BODY + 1)).unwrap_err().status(), 413);
        assert_eq!(parse_json(&format!("{}1", " ".repeat(MAX_BODY - 1))), Ok(json!(1)));
    }

    proptest! {
        #[test]
        fn any_text_is_json_or_a_fault_of_the_caller(text in "\\PC{0,60}") {
            if let Err(problem) = parse_json(&text) {
                prop_assert_eq!(problem.status(), 400);
            }
        }
    }
}

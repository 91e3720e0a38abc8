//! Routes: which call a method and a path are.

use crate::problem::Problem;

/// A call of the API.
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
            (["jobs", "stats"] | ["nodes"], _) => (None, "GET"),
            (["jobs", id], "GET") => (Some(Self::GetJob((*id).to_owned())), ""),
            (["jobs", id], "DELETE") => (Some(Self::CancelJob((*id).to_owned())), ""),
            (["jobs", _], _) => (None, "GET and DELETE"),
            _ => return Err(Problem::not_found("there is no such path")),
        };
        route.ok_or_else(|| Problem::method_not_allowed(format!("the path takes {methods}")))
    }

    /// Whether the call has a body.
    pub fn has_body(&self) -> bool {
        matches!(self, Self::SubmitJob | Self::CreateSchedule)
    }
}

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(Route::read("GET", path).unwrap_err().status(), 404, "{path}");
        }
    }
}

//! EventBridge Scheduler, as far as the function speaks to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_scheduler::{
    error::ErrorMetadata,
    operation::{
        create_schedule::{CreateScheduleError, CreateScheduleInput, CreateScheduleOutput},
        delete_schedule::{DeleteScheduleError, DeleteScheduleOutput},
        get_schedule::{GetScheduleError, GetScheduleOutput},
        list_schedules::{ListSchedulesError, ListSchedulesOutput},
    },
    primitives::DateTime as Moment,
    types::{
        ScheduleSummary, Target,
        error::{ConflictException, InternalServerException, ResourceNotFoundException, ValidationException},
    },
};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::tests::cloud::{Cloud, FUNCTION, now, request};

/// Holds the function before a schedule group that remembers what it is told and fails where it is told to.
pub struct Group {
    pub cloud: Cloud,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    pub schedules: BTreeMap<String, CreateScheduleInput>,
    /// Tells when each was created, by Scheduler's clock.
    pub created: BTreeMap<String, Moment>,
    /// The time, by Scheduler's clock.
    pub now: DateTime<Utc>,
    pub calls: Vec<String>,
    /// Calls that are to fail once, and how.
    pub faults: Vec<(String, String)>,
}

impl State {
    fn call(&mut self, call: String) -> Option<String> {
        let place = self.faults.iter().position(|(name, _)| *name == call);
        self.calls.push(call);
        place.map(|place| self.faults.remove(place).1)
    }
}

impl Group {
    pub fn new() -> Self {
        let mut cloud = Cloud::new();
        let state = Arc::default();
        cloud.jobs.scheduler = scheduler(&state);
        Self { cloud, state }
    }

    pub fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    pub fn fail(&self, call: &str, fault: &str) {
        self.with(|state| state.faults.push((call.to_owned(), fault.to_owned())));
    }

    pub fn forget_faults(&self) {
        self.with(|state| state.faults.clear());
    }

    pub fn calls(&self) -> Vec<String> {
        self.with(|state| state.calls.clone())
    }

    pub fn names(&self) -> Vec<String> {
        self.with(|state| state.schedules.keys().cloned().collect())
    }

    pub fn schedule(&self, name: &str) -> CreateScheduleInput {
        self.with(|state| state.schedules[name].clone())
    }

    pub fn input(&self, name: &str) -> Value {
        serde_json::from_str(self.schedule(name).target().unwrap().input().unwrap()).unwrap()
    }

    /// Puts a schedule as somebody else would.
    pub fn put(&self, name: &str, expression: &str, input: &str) {
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

    pub fn lose(&self, name: &str) {
        self.with(|state| state.schedules.remove(name)).unwrap();
    }

    pub async fn post(&self, body: Value) -> (u64, Value) {
        self.post_at(body, 0).await
    }

    pub async fn post_at(&self, body: Value, seconds: i64) -> (u64, Value) {
        self.with(|state| state.now = now() + TimeDelta::seconds(seconds));
        self.cloud.http_at("POST", "/jobs/schedule", body, None, seconds).await
    }

    pub async fn get(&self, target: &str) -> (u64, Value) {
        self.cloud.get(target).await
    }

    pub async fn delete(&self, name: &str) -> u64 {
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
    let rules = [
        &create_schedule(state),
        &get_schedule(state),
        &list_schedules(state),
        &delete_schedule(state),
    ];
    mock_client!(aws_sdk_scheduler, RuleMode::MatchAny, rules, |config| {
        config.retry_config(aws_sdk_scheduler::config::retry::RetryConfig::disabled())
    })
}

fn create_schedule(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_scheduler::Client::create_schedule).then_compute_response(move |input| {
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
    })
}

fn get_schedule(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_scheduler::Client::get_schedule).then_compute_response(move |input| {
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
    })
}

fn list_schedules(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_scheduler::Client::list_schedules).then_compute_response(move |input| {
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
    })
}

fn delete_schedule(state: &Arc<Mutex<State>>) -> Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_scheduler::Client::delete_schedule).then_compute_response(move |input| {
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
    })
}

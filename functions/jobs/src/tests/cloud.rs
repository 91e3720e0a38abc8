//! The function before mocked AWS services, which remember what they are told and fail where they are told to.

mod ec2;
pub mod scheduler;
pub mod settings;
mod ssm;
mod state;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_ec2::types::{Instance, InstanceState, InstanceStateName, Tag};
use aws_sdk_ssm::{
    config::retry::RetryConfig,
    operation::describe_instance_information::DescribeInstanceInformationOutput,
    types::{Command, CommandStatus, InstanceInformation, PingStatus, PlatformType},
};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{
    ecr::NewestImages,
    mocks,
    outcome::Status,
    rows::{Inventory, Item, Key, Outcome},
    rule_images::RuleImages,
    sender::Sender,
    settings::Mode,
    usage::{Usage, day},
};
use serde_json::{Value, json};

use crate::{
    handler::{JobsError, handle_at},
    jobs::Jobs,
    store::Store,
    tests::cloud::{ec2::ec2, ssm::ssm},
};

pub use settings::{BOOT_PATH, DOCUMENT, FUNCTION, REGISTRY, RULES, settings_with};
pub use state::{State, auto_mode, command_id, digest, image, moment, node_id, now};

/// The tags by which SSM finds the nodes of the usual rule.
pub const TARGETS: &str = "tag:aws:eks:cluster-name=prod";
pub const TWO_RULES: &str = r#"[
    {"name": "all", "repositories": ["team/*"], "nodes": {"team": ["web"]}, "used": false, "neighbours": false},
    {"name": "apps", "repositories": ["team/app"], "newest": 2, "used": false, "neighbours": false}
]"#;
/// A job that nodes speak of.
pub const JOB: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";

/// Holds the function and what is around it.
pub struct Cloud {
    pub jobs: Jobs,
    /// Holds what other registries have by tags.
    pub tags: Arc<Mutex<mocks::Tags>>,
    state: Arc<Mutex<State>>,
}

impl Cloud {
    /// Makes a cluster of two nodes and the repositories `team/app` (v1, v2) and `team/web` (v1), with one rule for them.
    pub fn new() -> Self {
        Self::with(RULES, "false")
    }

    pub fn with(rules: &'static str, allow_any_repository: &'static str) -> Self {
        let mut state = State::default();
        state.set_repository("team/app", ["v1", "v2"]);
        state.set_repository("team/web", ["v1"]);
        let state = Arc::new(Mutex::new(state));
        let ecr = mocks::ecr::ecr(&state, |state| (&mut state.calls, &mut state.registry));
        let ssm = ssm(&state);
        let settings = settings_with(rules, allow_any_repository);
        let dynamodb = mocks::dynamodb(&state, |state| (&mut state.calls, &mut state.table));
        let newest = NewestImages::with_client(ecr.clone(), "eu-central-1".to_owned(), &settings.shared);
        let usage = Usage::with_client(dynamodb.clone(), &settings.usage.table, settings.usage.within);
        let usage = Arc::new(usage);
        let tags = Arc::<Mutex<mocks::Tags>>::default();
        let jobs = Jobs {
            sender: Sender::sending(ssm.clone()),
            tags: mocks::tag_resolver(&tags, Mode::Send),
            ssm,
            ec2: ec2(&state),
            images: RuleImages::with(newest, Arc::clone(&usage), settings.usage.registry.clone()),
            boot: None,
            ecr,
            usage,
            store: Store::new(dynamodb, settings.outcomes.clone()),
            scheduler: mock_client!(aws_sdk_scheduler, RuleMode::MatchAny, []),
            settings,
        };
        let cloud = Self { jobs, tags, state };
        for k in 1..=2 {
            cloud.launch(k, |_| {});
        }
        cloud
    }

    /// Makes the same, of a stack that observes.
    pub fn observing(rules: &'static str) -> Self {
        let mut cloud = Self::with(rules, "false");
        cloud.turn(Mode::Observe);
        cloud
    }

    /// Has the stack keep boot lists.
    pub fn keep_boot_lists(&mut self) {
        self.jobs.settings.boot_list_path = Some(BOOT_PATH.to_owned());
        self.jobs.boot = self.jobs.settings.boot_lists(&self.jobs.ssm);
    }

    /// Has the stack be updated to this mode.
    pub fn turn(&mut self, mode: Mode) {
        let Jobs {
            ssm,
            store,
            settings,
            sender,
            tags,
            ..
        } = &mut self.jobs;
        settings.shared.mode = mode;
        *tags = mocks::tag_resolver(&self.tags, mode);
        *sender = match mode {
            Mode::Send => Sender::sending(ssm.clone()),
            Mode::Observe => Sender::observing(store.client.clone(), settings.outcomes.clone()),
        };
    }

    /// Has SSM answer the tries of the next SendCommands so: a status and a body; this node alone is online then.
    pub fn answer_tries(&mut self, answers: &[(u16, String)], online: usize) {
        let tries = mock!(aws_sdk_ssm::Client::send_command).sequence();
        let tries = answers.iter().fold(tries, |tries, (status, body)| {
            tries.http_status(*status, Some(body.clone()))
        });
        let nodes = mock!(aws_sdk_ssm::Client::describe_instance_information).then_output(move || {
            let node = InstanceInformation::builder()
                .instance_id(node_id(online))
                .ping_status(PingStatus::Online);
            DescribeInstanceInformationOutput::builder()
                .instance_information_list(node.build())
                .build()
        });
        let tries = tries.build();
        let ssm = mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&tries, &nodes], |config| {
            config.retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
        });
        self.jobs.sender = Sender::sending(ssm);
    }

    /// Launches a node that is online, but for what is changed of it.
    pub fn launch(&self, k: usize, change: impl FnOnce(&mut (Instance, Option<InstanceInformation>))) {
        let id = node_id(k);
        let instance = Instance::builder()
            .instance_id(&id)
            .state(InstanceState::builder().name(InstanceStateName::Running).build())
            .tags(Tag::builder().key("aws:eks:cluster-name").value("prod").build())
            .build();
        let information = InstanceInformation::builder()
            .instance_id(&id)
            .ping_status(PingStatus::Online)
            .platform_type(PlatformType::Linux)
            .build();
        let mut node = (instance, Some(information));
        change(&mut node);
        self.state(|state| state.instances.insert(id, node));
    }

    pub fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    /// Lets a call fail with this code, after it went well so often.
    pub fn fail(&self, call: &'static str, before: usize, code: &'static str) {
        self.state(|state| state.calls.fail(call, before, code));
    }

    pub fn calls(&self) -> Vec<&'static str> {
        self.state(|state| state.calls.take())
    }

    /// Calls the function so many seconds after the beginning.
    pub async fn invoke(&self, payload: Value, seconds: i64) -> Result<Value, JobsError> {
        let at = now() + TimeDelta::seconds(seconds);
        self.state(|state| state.now = at);
        handle_at(&self.jobs, payload, FUNCTION, at).await
    }

    /// Calls the API; gives the status and the body.
    pub async fn http(&self, method: &str, target: &str, body: Value, key: Option<&str>) -> (u64, Value) {
        self.http_at(method, target, body, key, 0).await
    }

    /// Calls the API so many seconds after the beginning.
    pub async fn http_at(
        &self,
        method: &str,
        target: &str,
        body: Value,
        key: Option<&str>,
        seconds: i64,
    ) -> (u64, Value) {
        let answer = self.invoke(request(method, target, &body, key), seconds).await.unwrap();
        let status = answer["statusCode"].as_u64().unwrap();
        let content_type = if status < 400 {
            "application/json"
        } else {
            "application/problem+json"
        };
        assert_eq!(answer["headers"]["content-type"], content_type);
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        if status >= 400 {
            assert_eq!(body["status"], status);
        }
        (status, body)
    }

    pub async fn get(&self, target: &str) -> (u64, Value) {
        self.http("GET", target, Value::Null, None).await
    }

    pub async fn post(&self, body: Value) -> (u64, Value) {
        self.http("POST", "/jobs", body, None).await
    }

    /// Gives the commands that were sent: comment, images and destination.
    pub fn sent(&self) -> Vec<(String, Vec<String>, Vec<String>)> {
        let sent = |command: &Command| {
            let images = command.parameters().unwrap()["images"][0]
                .split(' ')
                .map(str::to_owned)
                .collect();
            let targets = command.targets().iter();
            let targets = targets.map(|target| format!("{}={}", target.key().unwrap(), target.values().join(",")));
            let nodes = command.instance_ids().iter().cloned().chain(targets).collect();
            (command.comment().unwrap().to_owned(), images, nodes)
        };
        self.state(|state| state.commands.iter().map(sent).collect())
    }

    /// Sets what SSM says of the k-th command.
    pub fn set_command(&self, k: usize, change: impl FnOnce(&mut Command)) {
        self.state(|state| change(&mut state.commands[k - 1]));
    }

    /// Adds a command that somebody sent at the beginning.
    pub fn add_command(&self, comment: &str, status: CommandStatus) -> String {
        self.state(|state| {
            let id = command_id(state.commands.len() + 1);
            let command = Command::builder()
                .command_id(&id)
                .comment(comment)
                .document_name(DOCUMENT)
                .parameters("images", vec![image("team/app", "v1")])
                .requested_date_time(moment(now()))
                .expires_after(moment(now() + TimeDelta::seconds(4200)))
                .status(status)
                .target_count(2);
            state.commands.push(command.build());
            id
        })
    }

    /// Notes that so many nodes of a rule run an image today.
    pub fn run(&self, rule: &str, image: &str, nodes: usize) {
        let row = mocks::ran(image, nodes, day(now().into()));
        self.state(|state| mocks::note_use(&mut state.table, rule, &row));
    }

    /// Puts a row, given as JSON.
    pub fn put(&self, key: &Key, row: Value) {
        let mut item: Item = serde_dynamo::to_item(row).unwrap();
        item.extend(key.item());
        self.state(|state| state.table.rows.insert(key.clone(), item));
    }

    /// Reads a row as JSON.
    pub fn row(&self, key: &Key) -> Option<Value> {
        self.state(|state| state.table.row(key))
    }

    /// Gives the rows of a kind.
    pub fn rows(&self, kind: &str) -> Vec<Value> {
        let rows = self.state(|state| state.table.rows.clone());
        let of_kind = rows.into_iter().filter(|(key, _)| key.pk.starts_with(kind));
        of_kind
            .map(|(_, item)| serde_dynamo::from_item(item).unwrap())
            .collect()
    }
}

/// Makes an event of an HTTP API, with who signed the request.
pub fn signed(mut request: Value, arn: &str) -> Value {
    request["requestContext"]["authorizer"] = json!({"iam": {"userArn": arn}});
    request
}

/// Makes an event of an HTTP API.
pub fn request(method: &str, target: &str, body: &Value, key: Option<&str>) -> Value {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query: BTreeMap<&str, &str> = pairs.collect();
    let mut headers = json!({"content-type": "application/json"});
    if let Some(key) = key {
        headers["idempotency-key"] = json!(key);
    }
    let body = if body.is_null() {
        Value::Null
    } else {
        json!(body.to_string())
    };
    json!({
        "version": "2.0", "rawPath": path, "headers": headers, "queryStringParameters": query, "body": body,
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"}, "isBase64Encoded": false,
    })
}

/// Lets the k-th node have said this of images, so many seconds from now.
pub fn hold(cloud: &Cloud, k: usize, said: &[(&String, Status, &str, i64)]) {
    let mut inventory = Inventory::default();
    for (image, status, reason, seconds) in said {
        let outcome = Outcome {
            status: *status,
            reason: (*reason).to_owned(),
            seconds: 0.0,
            bytes: 0,
            attempts: 1,
            attempt: 1,
            reported: true,
        };
        inventory.fold(&image.parse().unwrap(), &outcome, at(*seconds), JOB);
    }
    cloud.put(&Key::inventory(&node_id(k)), json!(inventory));
}

/// Gives the moment so many seconds from the beginning.
pub fn at(seconds: i64) -> DateTime<Utc> {
    now() + TimeDelta::seconds(seconds)
}

//! The function before mocked AWS services, which remember what they are told and fail where they are told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_ec2::{
    operation::describe_instances::{DescribeInstancesError, DescribeInstancesInput, DescribeInstancesOutput},
    types::{Instance, InstanceState, InstanceStateName, OperatorResponse, Reservation, Tag},
};
use aws_sdk_ecr::{
    operation::{
        describe_images::{DescribeImagesError, DescribeImagesOutput},
        describe_repositories::DescribeRepositoriesOutput,
    },
    types::{
        ImageDetail, ImageStatus, ImageStatusFilter, Repository,
        error::{ImageNotFoundException, RepositoryNotFoundException},
    },
};
use aws_sdk_ssm::{
    config::retry::RetryConfig,
    operation::{
        cancel_command::{CancelCommandError, CancelCommandOutput},
        describe_instance_information::{DescribeInstanceInformationError, DescribeInstanceInformationOutput},
        list_commands::{ListCommandsError, ListCommandsInput, ListCommandsOutput},
        send_command::{SendCommandError, SendCommandInput, SendCommandOutput},
    },
    primitives::DateTime as Moment,
    types::{
        Command, CommandFilterKey, CommandStatus, InstanceInformation, PingStatus, PlatformType,
        error::{InvalidCommandId, InvalidInstanceId, InvalidNextToken},
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{
    command::MAX_IMAGES_BYTES,
    ecr::NewestImages,
    fault,
    instance::tags,
    mocks::{
        self, Calls, Table, access_denied,
        parameters::{Parameters, parameters},
    },
    rows::{Item, Key},
    sender::Sender,
    settings::Mode,
};
use serde_json::{Value, json};

use crate::{
    handler::{Jobs, JobsError},
    settings::Settings,
};

pub const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
pub const FUNCTION: &str = "arn:aws:lambda:eu-central-1:123456789012:function:jobs";
pub const DOCUMENT: &str = "eks-image-prefetch-prefetch-images";
pub const BOOT_PATH: &str = "/eks-image-prefetch/boot";
pub const RULES: &str = r#"[{"name": "default", "repositories": ["team/*"]}]"#;

/// The value of a setting, as tests have it.
pub fn setting(name: &str) -> &'static str {
    match name {
        "MODE" => "send",
        "CLUSTER_NAME" => "prod",
        "CLUSTER_TAG_KEY" => "aws:eks:cluster-name",
        "DOCUMENT_NAME" => DOCUMENT,
        "RULES" => RULES,
        "DELIVERY_TIMEOUT_SECONDS" => "600",
        "EXECUTION_TIMEOUT_SECONDS" => "3600",
        "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85",
        "MAX_PARALLEL_IMAGE_PULLS" | "MAX_RETRIES" => "2",
        "MAX_CONNECTIONS" => "3",
        "LAUNCH_MAX_CONNECTIONS" => "20",
        "MAX_BANDWIDTH_MIB" => "0",
        "ACCOUNT_ID" => "123456789012",
        "AWS_REGION" => "eu-central-1",
        "REGISTRY_ENDPOINT" => "standard",
        "TABLE_NAME" => "outcomes",
        "OUTCOME_RETENTION_DAYS" => "30",
        "ALLOW_ANY_REPOSITORY" => "false",
        "BOOT_LIST" => "Disabled",
        "SCHEDULE_GROUP" => "eks-image-prefetch",
        "SCHEDULE_ROLE_ARN" => "arn:aws:iam::123456789012:role/schedule",
        "JOBS_DEAD_LETTERS_ARN" => "arn:aws:sqs:eu-central-1:123456789012:jobs-dead-letters",
        other => panic!("{other} is not a setting"),
    }
}

/// The settings with these rules, and with or without leave to ask for any repository.
pub fn settings_with(rules: &'static str, allow_any_repository: &'static str) -> Settings {
    let value = |name: &str| match name {
        "RULES" => rules,
        "ALLOW_ANY_REPOSITORY" => allow_any_repository,
        name => setting(name),
    };
    Settings::read(|name| Some(value(name).to_owned())).unwrap()
}

pub fn now() -> DateTime<Utc> {
    "2026-11-16T01:54:34.049Z".parse().unwrap()
}

/// The id of the k-th command that is sent, from 1.
pub fn command_id(k: usize) -> String {
    format!("e8d3c0e4-71f7-4491-898f-{k:012x}")
}

/// The id of the k-th node.
pub fn node_id(k: usize) -> String {
    format!("i-0abc{k:013}")
}

/// A digest that a text stands for.
pub fn digest(text: &str) -> String {
    let hex: String = text
        .bytes()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("sha256:{hex:0<64.64}")
}

/// The image that a tag is, as nodes are sent it.
pub fn image(repository: &str, tag: &str) -> String {
    format!("{REGISTRY}/{repository}:{tag}@{}", digest(tag))
}

/// What the services know and were told.
#[derive(Debug, Default)]
pub struct State {
    /// The commands in the order of their sending.
    pub commands: Vec<Command>,
    pub table: Table,
    pub parameters: Parameters,
    /// The instances, and what SSM knows of them.
    pub instances: BTreeMap<String, (Instance, Option<InstanceInformation>)>,
    /// Nodes that SSM refuses whatever it says of them.
    pub refused: BTreeSet<String>,
    /// The nodes on which IAM does not permit commands.
    pub denied: BTreeSet<String>,
    /// Nodes that go offline the moment they are sent something.
    pub vanishing: BTreeSet<String>,
    /// Repositories with the tags of their images, oldest first; a tag's digest is [`digest`].
    pub repositories: BTreeMap<String, Vec<String>>,
    /// Tags of what no node can run.
    pub charts: BTreeSet<String>,
    /// The tags of images in ECR's archive.
    pub archived: BTreeSet<String>,
    /// Whether ECR leaves out what is not there, where others answer with an error.
    pub leaves_out: bool,
    /// The commands that were told to stop.
    pub cancelled: Vec<String>,
    pub calls: Calls,
    /// How many commands a page has.
    pub page: Option<usize>,
    /// The time, by SSM's clock.
    pub now: DateTime<Utc>,
}

/// The function and what is around it.
pub struct Cloud {
    pub jobs: Jobs,
    state: Arc<Mutex<State>>,
}

impl Cloud {
    /// A cluster of two nodes and the repositories `team/app` (v1, v2) and `team/web` (v1), with one rule for them.
    pub fn new() -> Self {
        Self::with(RULES, "false")
    }

    pub fn with(rules: &'static str, allow_any_repository: &'static str) -> Self {
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
        let state = Arc::new(Mutex::new(State {
            repositories: [("team/app", tags(&["v1", "v2"])), ("team/web", tags(&["v1"]))]
                .map(|(name, tags)| (name.to_owned(), tags))
                .into(),
            ..State::default()
        }));
        let ecr = ecr(&state);
        let ssm = ssm(&state);
        let settings = settings_with(rules, allow_any_repository);
        let jobs = Jobs {
            sender: Sender::sending(ssm.clone()),
            ssm,
            ec2: ec2(&state),
            images: NewestImages::with_client(ecr.clone(), "eu-central-1".to_owned(), &settings.shared),
            boot: None,
            ecr,
            dynamodb: mocks::dynamodb(&state, |state| (&mut state.calls, &mut state.table)),
            scheduler: mock_client!(aws_sdk_scheduler, RuleMode::MatchAny, []),
            settings,
        };
        let cloud = Self { jobs, state };
        for k in 1..=2 {
            cloud.launch(k, |_| {});
        }
        cloud
    }

    /// The same, of a stack that observes.
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
            dynamodb,
            settings,
            sender,
            ..
        } = &mut self.jobs;
        settings.shared.mode = mode;
        *sender = match mode {
            Mode::Send => Sender::sending(ssm.clone()),
            Mode::Observe => Sender::observing(dynamodb.clone(), settings.outcomes()),
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
        self.jobs.handle_at(payload, FUNCTION, at).await
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

    /// The commands that were sent: comment, images and destination.
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

    /// The rows of a kind.
    pub fn rows(&self, kind: &str) -> Vec<Value> {
        let rows = self.state(|state| state.table.rows.clone());
        let of_kind = rows.into_iter().filter(|(key, _)| key.pk.starts_with(kind));
        of_kind
            .map(|(_, item)| serde_dynamo::from_item(item).unwrap())
            .collect()
    }
}

/// The event of an HTTP API, with who signed the request.
pub fn signed(mut request: Value, arn: &str) -> Value {
    request["requestContext"]["authorizer"] = json!({"iam": {"userArn": arn}});
    request
}

/// The event of an HTTP API.
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

pub fn moment(at: DateTime<Utc>) -> Moment {
    Moment::from_millis(at.timestamp_millis())
}

fn ssm(state: &Arc<Mutex<State>>) -> aws_sdk_ssm::Client {
    let shared = Arc::clone(state);
    let send = mock!(aws_sdk_ssm::Client::send_command).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let fault = state.calls.note("SendCommand");
        if let Some(code) = fault.filter(|code| !["Lost", "LostThrice"].contains(code)) {
            return fault!(aws_sdk_ssm, SendCommandError, code);
        }
        for id in input.instance_ids() {
            if state.vanishing.remove(id) {
                state.instances.get_mut(id).unwrap().1 = None;
            }
        }
        if !input.instance_ids().iter().all(|id| is_sendable(&state, id)) {
            let refused = InvalidInstanceId::builder().build();
            return MockResponse::Error(SendCommandError::InvalidInstanceId(refused));
        }
        if let Some(id) = input.instance_ids().iter().find(|id| state.denied.contains(*id)) {
            return MockResponse::Error(access_denied(id));
        }
        let command = sent(&state, input);
        state.commands.push(command.clone());
        if fault == Some("LostThrice") {
            for _ in 0..2 {
                let again = sent(&state, input);
                state.commands.push(again);
            }
        }
        match fault {
            None => MockResponse::Output(SendCommandOutput::builder().command(command).build()),
            Some(_) => fault!(aws_sdk_ssm, SendCommandError, "InternalServerError"),
        }
    });
    let shared = Arc::clone(state);
    let nodes = mock!(aws_sdk_ssm::Client::describe_instance_information).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("DescribeInstanceInformation") {
            return fault!(aws_sdk_ssm, DescribeInstanceInformationError, code);
        }
        let asked = input.filters()[0].values();
        assert!((1..=100).contains(&asked.len()));
        let known = asked.iter().filter_map(|id| state.instances.get(id)?.1.clone());
        let from = input.next_token().map_or(0, |token| token.parse().unwrap());
        let mut known = known.skip(from);
        let page = known.by_ref().take(50).collect();
        let output = DescribeInstanceInformationOutput::builder()
            .set_instance_information_list(Some(page))
            // An empty token ends a list as none does.
            .next_token(known.next().map_or(String::new(), |_| (from + 50).to_string()));
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let list = mock!(aws_sdk_ssm::Client::list_commands).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("ListCommands") {
            return fault!(aws_sdk_ssm, ListCommandsError, code);
        }
        // How many are left: what is sent meanwhile moves no page but the first.
        let Ok(left) = input.next_token().map(str::parse::<usize>).transpose() else {
            let refused = InvalidNextToken::builder().build();
            return MockResponse::Error(ListCommandsError::InvalidNextToken(refused));
        };
        let found = state.commands.iter().rev().filter(|command| is_listed(input, command));
        let found: Vec<Command> = found.cloned().collect();
        let from = left.map_or(0, |left| found.len() - left);
        let left = found.len() - from;
        let mut found = found.into_iter().skip(from);
        let limit = input.max_results().map_or(50, |limit| usize::try_from(limit).unwrap());
        let limit = state.page.unwrap_or(limit).min(limit);
        let page: Vec<Command> = found.by_ref().take(limit).collect();
        let token = found.next().map_or(String::new(), |_| (left - limit).to_string());
        let output = ListCommandsOutput::builder().set_commands(Some(page)).next_token(token);
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let cancel = mock!(aws_sdk_ssm::Client::cancel_command).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("CancelCommand") {
            return fault!(aws_sdk_ssm, CancelCommandError, code);
        }
        let id = input.command_id().unwrap().to_owned();
        if state.commands.iter().all(|command| command.command_id() != Some(&id)) {
            let refused = InvalidCommandId::builder().build();
            return MockResponse::Error(CancelCommandError::InvalidCommandId(refused));
        }
        state.cancelled.push(id);
        MockResponse::Output(CancelCommandOutput::builder().build())
    });
    let [get, by_path, put, delete] = parameters(state, |state| (&mut state.calls, &mut state.parameters));
    mock_client!(
        aws_sdk_ssm,
        RuleMode::MatchAny,
        [&send, &nodes, &list, &cancel, &get, &by_path, &put, &delete],
        |config| { config.retry_config(aws_sdk_ssm::config::retry::RetryConfig::disabled()) }
    )
}

fn is_sendable(state: &State, id: &str) -> bool {
    let information = state
        .instances
        .get(id)
        .and_then(|(_, information)| information.as_ref());
    let is_online = information.is_some_and(|information| information.ping_status() == Some(&PingStatus::Online));
    is_online && !state.refused.contains(id)
}

fn sent(state: &State, input: &SendCommandInput) -> Command {
    assert!(input.instance_ids().len() <= 50 && input.targets().len() <= 5);
    let images = &input.parameters().unwrap()["images"][0];
    assert!(images.split(' ').count() <= 30 && images.len() <= MAX_IMAGES_BYTES);
    assert_eq!(input.document_name(), Some(DOCUMENT));
    Command::builder()
        .command_id(command_id(state.commands.len() + 1))
        .document_name(DOCUMENT)
        .comment(input.comment().unwrap())
        .set_parameters(input.parameters().cloned())
        .set_instance_ids(Some(input.instance_ids().to_vec()))
        .set_targets(Some(input.targets().to_vec()))
        .requested_date_time(moment(state.now))
        .expires_after(moment(state.now + TimeDelta::seconds(4200)))
        .status(CommandStatus::Pending)
        .build()
}

fn is_listed(input: &ListCommandsInput, command: &Command) -> bool {
    if let Some(id) = input.command_id() {
        return command.command_id() == Some(id);
    }
    assert!(!input.filters().is_empty());
    input.filters().iter().all(|filter| match filter.key() {
        CommandFilterKey::DocumentName => command.document_name() == Some(filter.value()),
        CommandFilterKey::InvokedAfter => {
            let after: DateTime<Utc> = filter.value().parse().unwrap();
            command.requested_date_time().unwrap().to_millis().unwrap() >= after.timestamp_millis()
        }
        other => panic!("{other}"),
    })
}

fn ec2(state: &Arc<Mutex<State>>) -> aws_sdk_ec2::Client {
    let shared = Arc::clone(state);
    let describe = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("DescribeInstances") {
            return fault!(aws_sdk_ec2, DescribeInstancesError, code);
        }
        match input.filters()[0].name() {
            Some("instance-id") => {}
            Some("tag-key") => return of_any_cluster(&state, input),
            _ => return of_cluster(&state, input),
        }
        let asked = input.filters()[0].values();
        let known = asked
            .iter()
            .filter_map(|id| Some(state.instances.get(id)?.0.clone()))
            .collect();
        let reservation = Reservation::builder().set_instances(Some(known)).build();
        MockResponse::Output(DescribeInstancesOutput::builder().reservations(reservation).build())
    });
    mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&describe], |config| {
        config.retry_config(aws_sdk_ec2::config::retry::RetryConfig::disabled())
    })
}

/// Answers a page of the cluster's instances that run or are about to; each was launched with one other.
fn of_cluster(
    state: &State,
    input: &DescribeInstancesInput,
) -> MockResponse<DescribeInstancesOutput, DescribeInstancesError> {
    let filters = input
        .filters()
        .iter()
        .map(|filter| (filter.name().unwrap(), filter.values().join(" ")));
    let expected = [
        ("tag:aws:eks:cluster-name", "prod"),
        ("instance-state-name", "pending running"),
    ];
    assert!(filters.eq(expected.map(|(name, values)| (name, values.to_owned()))));
    let Ok(from) = input.next_token().map_or(Ok(0), str::parse::<usize>) else {
        return fault!(aws_sdk_ec2, DescribeInstancesError, "InvalidNextToken");
    };
    let limit = usize::try_from(input.max_results().unwrap()).unwrap();
    assert!((5..=1000).contains(&limit));
    let is_ours = |instance: &Instance| {
        tags(instance)
            .get("aws:eks:cluster-name")
            .is_some_and(|name| name == "prod")
    };
    let instances = state.instances.values().map(|(instance, _)| instance);
    let found: Vec<Instance> = instances.filter(|instance| is_ours(instance)).cloned().collect();
    let to = found.len().min(from + limit);
    let reservations = found[from..to].chunks(2);
    let reservations = reservations.map(|both| Reservation::builder().set_instances(Some(both.to_vec())).build());
    let output = DescribeInstancesOutput::builder()
        .set_reservations(Some(reservations.collect()))
        .set_next_token((to < found.len()).then(|| to.to_string()));
    MockResponse::Output(output.build())
}

/// Answers the instances that carry a tag by which clusters are named.
fn of_any_cluster(
    state: &State,
    input: &DescribeInstancesInput,
) -> MockResponse<DescribeInstancesOutput, DescribeInstancesError> {
    assert_eq!(input.filters()[1].values(), ["pending", "running"]);
    let keys = input.filters()[0].values();
    let takes = |key: &String| {
        let takes = |pattern: &String| {
            pattern
                .strip_suffix('*')
                .map_or(key == pattern, |start| key.starts_with(start))
        };
        keys.iter().any(takes)
    };
    let instances = state.instances.values().map(|(instance, _)| instance);
    let found = instances.filter(|instance| tags(instance).keys().any(takes)).cloned();
    let reservation = Reservation::builder().set_instances(Some(found.collect())).build();
    MockResponse::Output(DescribeInstancesOutput::builder().reservations(reservation).build())
}

/// The operator of an instance that EKS Auto Mode manages.
pub fn auto_mode() -> OperatorResponse {
    OperatorResponse::builder()
        .managed(true)
        .principal("eks.amazonaws.com")
        .build()
}

fn ecr(state: &Arc<Mutex<State>>) -> aws_sdk_ecr::Client {
    let shared = Arc::clone(state);
    let describe = mock!(aws_sdk_ecr::Client::describe_images).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("DescribeImages") {
            return fault!(aws_sdk_ecr, DescribeImagesError, code);
        }
        let Some(tags) = state.repositories.get(input.repository_name().unwrap()) else {
            let missing = RepositoryNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::RepositoryNotFoundException(missing));
        };
        let details = tags.iter().enumerate().map(|(place, tag)| detail(&state, place, tag));
        let Some(ids) = input.image_ids.as_ref() else {
            let details = details.collect();
            return MockResponse::Output(DescribeImagesOutput::builder().set_image_details(Some(details)).build());
        };
        assert!((1..=100).contains(&ids.len()) && input.max_results().is_none());
        let is_any = input.filter().and_then(|filter| filter.image_status()) == Some(&ImageStatusFilter::Any);
        let details: Vec<ImageDetail> = details
            .filter(|detail| is_any || detail.image_status() == Some(&ImageStatus::Active))
            .collect();
        let found = ids.iter().filter_map(|id| {
            details.iter().find(|detail| {
                id.image_tag().is_none_or(|tag| detail.image_tags()[0] == tag)
                    && id
                        .image_digest()
                        .is_none_or(|digest| detail.image_digest() == Some(digest))
            })
        });
        let found: Vec<ImageDetail> = found.cloned().collect();
        if found.len() < ids.len() && !state.leaves_out {
            let missing = ImageNotFoundException::builder().build();
            return MockResponse::Error(DescribeImagesError::ImageNotFoundException(missing));
        }
        MockResponse::Output(DescribeImagesOutput::builder().set_image_details(Some(found)).build())
    });
    let shared = Arc::clone(state);
    let list = mock!(aws_sdk_ecr::Client::describe_repositories).then_compute_response(move |_| {
        let mut state = shared.lock().unwrap();
        state.calls.note("DescribeRepositories");
        let repository = |name: &String| Repository::builder().repository_name(name).build();
        let repositories = state.repositories.keys().map(repository).collect();
        MockResponse::Output(
            DescribeRepositoriesOutput::builder()
                .set_repositories(Some(repositories))
                .build(),
        )
    });
    mock_client!(aws_sdk_ecr, RuleMode::MatchAny, [&describe, &list], |config| {
        config.retry_config(aws_sdk_ecr::config::retry::RetryConfig::disabled())
    })
}

/// An image as ECR describes it, by its tags with a space between them.
fn detail(state: &State, place: usize, tags: &str) -> ImageDetail {
    let tag = tags.split(' ').next().unwrap();
    let artifact = if state.charts.contains(tag) {
        "application/vnd.cncf.helm.config.v1+json"
    } else {
        "application/vnd.oci.image.config.v1+json"
    };
    let status = if state.archived.contains(tag) {
        ImageStatus::Archived
    } else {
        ImageStatus::Active
    };
    ImageDetail::builder()
        .registry_id("123456789012")
        .image_status(status)
        .image_digest(digest(tag))
        .set_image_tags(Some(tags.split(' ').map(str::to_owned).collect()))
        .image_pushed_at(aws_sdk_ecr::primitives::DateTime::from_secs(
            i64::try_from(place).unwrap(),
        ))
        .image_manifest_media_type("application/vnd.oci.image.manifest.v1+json")
        .artifact_media_type(artifact)
        .build()
}

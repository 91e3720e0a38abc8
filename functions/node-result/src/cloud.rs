//! The function before mocked AWS services, which remember what they are told and fail where they are told to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_sdk_autoscaling::{
    operation::{
        complete_lifecycle_action::{CompleteLifecycleActionError, CompleteLifecycleActionOutput},
        describe_auto_scaling_instances::{DescribeAutoScalingInstancesError, DescribeAutoScalingInstancesOutput},
    },
    types::AutoScalingInstanceDetails,
};
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_sqs::{
    operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    types::{BatchResultErrorEntry, SendMessageBatchRequestEntry, SendMessageBatchResultEntry},
};
use aws_sdk_ssm::{
    operation::{
        get_command_invocation::{GetCommandInvocationError, GetCommandInvocationOutput},
        list_command_invocations::{ListCommandInvocationsError, ListCommandInvocationsOutput},
        list_commands::{ListCommandsError, ListCommandsInput, ListCommandsOutput},
    },
    types::{CommandInvocation, CommandInvocationStatus, error::InvocationDoesNotExist},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{
    fault,
    mocks::{self, Calls, Table},
    retry::Retry,
    rows::{Held, Item, Key},
};
use serde_json::{Value, json};

use crate::{event::Ended, handler::NodeResult, launch_hook::LaunchHook, settings::Settings, table::Store};

pub const COMMAND: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";
pub const DOCUMENT: &str = "eks-image-prefetch-prefetch-images";

/// The id of the k-th command; the first is the one of the event files.
pub fn command_id(k: usize) -> String {
    if k == 1 {
        COMMAND.to_owned()
    } else {
        format!("{}{k:04}", &COMMAND[..32])
    }
}

/// The id of the k-th node.
pub fn node_id(k: usize) -> String {
    format!("i-0abc{k:013}")
}

/// The reference of the k-th image; the first is the one of the event files.
pub fn image(k: usize) -> String {
    let digest = format!(
        "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd{:08}",
        12_345_677 + k
    );
    format!(
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1.4.{}@{digest}",
        k + 1
    )
}

/// When the commands of the event files were sent.
pub fn requested_at() -> DateTime<Utc> {
    "2026-11-16T01:54:34.049Z".parse().unwrap()
}

pub fn now() -> DateTime<Utc> {
    requested_at() + TimeDelta::seconds(20)
}

/// A line of a report, as the document prints it.
pub fn line(image: &str, status: &str, reason: &str) -> String {
    let (_, digest) = image.rsplit_once('@').unwrap();
    let bytes = if status == "pulled" { 25_166_482 } else { 0 };
    let line = json!({"image": image, "digest": digest, "status": status, "reason": reason, "seconds": 0.412, "bytes": bytes, "attempts": 1});
    format!("{line}\n")
}

/// A command as SSM knows it.
#[derive(Clone, Debug)]
pub struct Command {
    pub comment: String,
    pub images: Vec<String>,
    pub requested_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub targets: i32,
    pub invocations: BTreeMap<String, Invocation>,
}

/// A command on a node as SSM knows it.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub status: CommandInvocationStatus,
    pub details: String,
    pub exit_code: i32,
    pub stdout: String,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Invocation {
    /// One that ended ten seconds after its request with this report, as the document ends.
    pub fn reporting(stdout: impl Into<String>) -> Self {
        let stdout = stdout.into();
        let failed = stdout.contains(r#""status":"failed""#);
        let status = if failed { "Failed" } else { "Success" };
        Self {
            exit_code: failed.into(),
            stdout,
            ended_at: Some(requested_at() + TimeDelta::seconds(10)),
            ..Self::without_report(status, status)
        }
    }

    /// One that ended, or did not, without a word of the node.
    pub fn without_report(status: &str, details: &str) -> Self {
        Self {
            status: status.into(),
            details: details.to_owned(),
            exit_code: -1,
            stdout: String::new(),
            ended_at: None,
        }
    }
}

/// What the services know and were told.
#[derive(Debug, Default)]
pub struct State {
    pub commands: BTreeMap<String, Command>,
    pub table: Table,
    pub objects: BTreeMap<String, String>,
    /// Messages by queue, with their delays.
    pub messages: Vec<(String, i32, Value)>,
    /// The lifecycle state of each instance of the group `nodes`.
    pub lifecycle: BTreeMap<String, &'static str>,
    pub calls: Calls,
    /// How many commands or invocations a page has.
    pub page: Option<usize>,
}

impl State {
    /// An empty token ends a list as none does.
    fn page<T: Clone>(&self, all: &[T], token: Option<&str>) -> (Vec<T>, String) {
        let from = token.map_or(0, |token| token.parse().unwrap());
        let to = all.len().min(from + self.page.unwrap_or(50));
        let token = if to < all.len() { to.to_string() } else { String::new() };
        (all[from..to].to_vec(), token)
    }
}

/// The function and what is around it.
pub struct Cloud {
    pub result: NodeResult,
    state: Arc<Mutex<State>>,
}

impl Cloud {
    pub fn new() -> Self {
        Self::with("2")
    }

    pub fn with(max_retries: &'static str) -> Self {
        Self::of(max_retries, "")
    }

    /// A cloud where instances wait in a hook of this name for their launch; in none where it is empty.
    pub fn with_hook(hook: &'static str) -> Self {
        Self::of("2", hook)
    }

    fn of(max_retries: &'static str, hook: &'static str) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let settings = settings(max_retries, hook);
        let dynamodb = mocks::dynamodb(&state, |state| (&mut state.calls, &mut state.table));
        let result = NodeResult {
            ssm: ssm(&state),
            sqs: sqs(&state),
            s3: s3(&state),
            hook: (!hook.is_empty()).then(|| LaunchHook::with_client(auto_scaling(&state), hook)),
            store: Store::new(dynamodb, &settings),
            settings,
        };
        Self { result, state }
    }

    /// A cloud where the command of the event files went to its first node, which ended so.
    pub fn where_the_node(ended: Invocation) -> Self {
        let cloud = Self::new();
        cloud.send(1, "push rule=default attempt=1", &[1], [(1, ended)]);
        cloud
    }

    /// A cloud where the command of the event files names two images, and its first node ended so.
    pub fn of_two_images(ended: Invocation) -> Self {
        let cloud = Self::new();
        cloud.send(1, "push rule=default attempt=1", &[1, 2], [(1, ended)]);
        cloud
    }

    /// Lets the k-th command be sent with these images to these nodes.
    pub fn send<const N: usize>(&self, k: usize, comment: &str, images: &[usize], nodes: [(usize, Invocation); N]) {
        let command = Command {
            comment: comment.to_owned(),
            images: images.iter().map(|k| image(*k)).collect(),
            requested_at: requested_at(),
            expires_at: requested_at() + TimeDelta::seconds(4200),
            targets: i32::try_from(N).unwrap(),
            invocations: nodes.into_iter().map(|(node, ended)| (node_id(node), ended)).collect(),
        };
        self.state(|state| state.commands.insert(command_id(k), command));
    }

    pub fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    /// Lets a call fail with this code, after it went well so often.
    pub fn fail(&self, call: &'static str, before: usize, code: &'static str) {
        self.state(|state| state.calls.fail(call, before, code));
    }

    pub async fn answer(&self, event: &str) -> Value {
        self.answer_at(event, now()).await
    }

    pub async fn answer_at(&self, event: &str, now: DateTime<Utc>) -> Value {
        let answer = self.result.handle_at(serde_json::from_str(event).unwrap(), now).await;
        serde_json::to_value(answer).unwrap()
    }

    /// Hands these events out in one batch for the n-th time; gives the places of those that are handed back.
    pub async fn batch(&self, events: &[String], time: usize) -> Vec<usize> {
        let record = |(place, body): (usize, &String)| json!({"messageId": place.to_string(), "body": body, "attributes": {"ApproximateReceiveCount": time.to_string()}});
        let records: Vec<Value> = events.iter().enumerate().map(record).collect();
        let answer = self.answer(&json!({"Records": records}).to_string()).await;
        let failures = answer["batchItemFailures"].as_array().unwrap();
        let place = |failure: &Value| failure["itemIdentifier"].as_str().unwrap().parse().unwrap();
        failures.iter().map(place).collect()
    }

    /// Reads a row as JSON.
    pub fn row(&self, key: &Key) -> Option<Value> {
        self.state(|state| state.table.row(key))
    }

    pub fn job(&self) -> Value {
        self.row(&Key::job(COMMAND)).unwrap()
    }

    pub fn node(&self, k: usize) -> Value {
        self.row(&Key::node(COMMAND, &node_id(k))).unwrap()
    }

    /// The reasons of the first node's images, in their order.
    pub fn reasons(&self) -> Vec<String> {
        let node = self.node(1);
        let images: BTreeMap<&String, &Value> = node["images"].as_object().unwrap().iter().collect();
        images
            .values()
            .map(|outcome| outcome["reason"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn outboxes(&self) -> usize {
        self.state(|state| {
            state
                .table
                .rows
                .keys()
                .filter(|key| key.pk.starts_with("outbox#"))
                .count()
        })
    }

    pub fn calls(&self) -> Vec<&'static str> {
        self.state(|state| state.calls.take())
    }

    pub fn messages(&self, queue: &str) -> Vec<(i32, Value)> {
        let of_queue = |state: &mut State| {
            let messages = state.messages.iter().filter(|(to, _, _)| to == queue);
            messages.map(|(_, delay, body)| (*delay, body.clone())).collect()
        };
        self.state(of_queue)
    }

    /// The further tries that wait, or have waited, each with its delay.
    pub fn waiting(&self) -> Vec<(i32, Retry)> {
        let messages = self.messages("result-queue").into_iter();
        messages
            .filter_map(|(delay, body)| Some((delay, serde_json::from_value(body.get("retry")?.clone()).unwrap())))
            .collect()
    }

    pub fn retries(&self) -> Vec<Retry> {
        self.waiting().into_iter().map(|(_, retry)| retry).collect()
    }

    /// The events that the sweep put into the queue, each with its delay.
    pub fn asked(&self) -> Vec<(i32, Value)> {
        let mut messages = self.messages("result-queue");
        messages.retain(|(_, body)| body.get("retry").is_none());
        messages
    }

    /// Writes that a job was cancelled.
    pub fn cancel(&self, job: &str) {
        let key = Key::cancelled(job);
        self.state(|state| state.table.rows.insert(key.clone(), key.item()));
    }

    /// Reads what the k-th node holds.
    pub fn held(&self, k: usize) -> Held {
        let key = Key::held(&node_id(k));
        let item = self.state(|state| state.table.rows.get(&key).cloned());
        serde_dynamo::from_item(item.unwrap()).unwrap()
    }

    pub fn records(&self) -> Vec<Value> {
        let objects = self.state(|state| state.objects.values().cloned().collect::<String>());
        objects
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The lines of metrics that transactions wrote into the outbox.
    pub fn metrics(&self) -> Vec<Value> {
        let put = self.state(|state| state.table.put.clone());
        let lines = put.iter().filter_map(|item| item.get("metrics")?.as_s().ok());
        lines
            .flat_map(|lines| lines.lines())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The values of a metric over all lines that were to be logged.
    pub fn metric(&self, name: &str) -> Vec<f64> {
        let lines = self.metrics();
        let values = |line: &Value| match &line[name] {
            Value::Null => Vec::new(),
            Value::Number(one) => vec![one.as_f64().unwrap()],
            several => {
                let (values, counts) = (
                    several["Values"].as_array().unwrap(),
                    several["Counts"].as_array().unwrap(),
                );
                let repeated = |(value, count): (&Value, &Value)| {
                    vec![value.as_f64().unwrap(); usize::try_from(count.as_u64().unwrap()).unwrap()]
                };
                values.iter().zip(counts).flat_map(repeated).collect()
            }
        };
        lines.iter().flat_map(values).collect()
    }

    /// What is known in the end: the rows, but for what tells of the writing rather than of the nodes, and which of
    /// equally slow nodes came first.
    pub fn known(&self) -> BTreeMap<Key, Value> {
        let rows = self.state(|state| state.table.rows.clone());
        let known = |(key, item): (Key, Item)| {
            let mut row: Value = serde_dynamo::from_item(item).unwrap();
            for writing in ["version", "outbox", "expires_at", "slowest_node"] {
                row.as_object_mut().unwrap().remove(writing);
            }
            (key, row)
        };
        rows.into_iter().map(known).collect()
    }
}

/// The event by which SSM tells that the k-th command ended on a node.
pub fn event_of(k: usize, node: usize) -> String {
    event(command_id(k), Some(node_id(node)))
}

/// The event by which SSM tells that the k-th command ended as a whole.
pub fn event_of_command(k: usize) -> String {
    event(command_id(k), None)
}

fn event(command: String, node: Option<String>) -> String {
    let ended = Ended {
        command,
        node,
        requested_at: requested_at(),
        time: now(),
        overdue: false,
    };
    ended.event(DOCUMENT)
}

fn settings(max_retries: &'static str, hook: &'static str) -> Settings {
    let value = |name: &str| match name {
        "CLUSTER_NAME" => "prod",
        "DOCUMENT_NAME" => DOCUMENT,
        "DELIVERY_TIMEOUT_SECONDS" => "600",
        "EXECUTION_TIMEOUT_SECONDS" => "3600",
        "TABLE_NAME" => "outcomes",
        "RECORDS_BUCKET" => "records",
        "NODE_QUEUE_URL" => "node-queue",
        "RESULT_QUEUE_URL" => "result-queue",
        "OUTCOME_RETENTION_DAYS" => "30",
        "MAX_RETRIES" => max_retries,
        "LAUNCH_HOOK" => hook,
        other => panic!("{other} is not a setting"),
    };
    Settings::read(|name| Some(value(name).to_owned())).unwrap()
}

fn ssm(state: &Arc<Mutex<State>>) -> aws_sdk_ssm::Client {
    let shared = Arc::clone(state);
    let get = mock!(aws_sdk_ssm::Client::get_command_invocation).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("GetCommandInvocation") {
            return fault!(aws_sdk_ssm, GetCommandInvocationError, code);
        }
        let command = state.commands.get(input.command_id().unwrap());
        let invocation = command.and_then(|command| Some((command, command.invocations.get(input.instance_id()?)?)));
        let Some((command, invocation)) = invocation else {
            let unknown = InvocationDoesNotExist::builder().build();
            return MockResponse::Error(GetCommandInvocationError::InvocationDoesNotExist(unknown));
        };
        MockResponse::Output(
            GetCommandInvocationOutput::builder()
                .comment(&command.comment)
                .status(invocation.status.clone())
                .status_details(&invocation.details)
                .response_code(invocation.exit_code)
                .standard_output_content(&invocation.stdout)
                .execution_end_date_time(invocation.ended_at.map(|at| at.to_rfc3339()).unwrap_or_default())
                .build(),
        )
    });
    let shared = Arc::clone(state);
    let commands = mock!(aws_sdk_ssm::Client::list_commands).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("ListCommands") {
            return fault!(aws_sdk_ssm, ListCommandsError, code);
        }
        let all: Vec<_> = state
            .commands
            .iter()
            .filter(|(id, _)| is_asked_for(input, id))
            .map(listed)
            .collect();
        let (commands, token) = state.page(&all, input.next_token());
        let output = ListCommandsOutput::builder()
            .set_commands(Some(commands))
            .next_token(token);
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let invocations = mock!(aws_sdk_ssm::Client::list_command_invocations).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("ListCommandInvocations") {
            return fault!(aws_sdk_ssm, ListCommandInvocationsError, code);
        }
        let nodes = state.commands[input.command_id().unwrap()].invocations.keys();
        let all: Vec<_> = nodes
            .map(|node| CommandInvocation::builder().instance_id(node).build())
            .collect();
        let (nodes, token) = state.page(&all, input.next_token());
        let output = ListCommandInvocationsOutput::builder();
        MockResponse::Output(output.set_command_invocations(Some(nodes)).next_token(token).build())
    });
    mock_client!(
        aws_sdk_ssm,
        RuleMode::MatchAny,
        [&get, &commands, &invocations],
        |config| { config.retry_config(aws_sdk_ssm::config::retry::RetryConfig::disabled()) }
    )
}

fn is_asked_for(input: &ListCommandsInput, id: &str) -> bool {
    if let Some(asked) = input.command_id() {
        return asked == id;
    }
    let filters: Vec<(&str, &str)> = input.filters().iter().map(|f| (f.key().as_str(), f.value())).collect();
    assert_eq!(filters[0], ("DocumentName", DOCUMENT));
    assert_eq!(filters[1].0, "InvokedAfter");
    true
}

fn listed((id, command): (&String, &Command)) -> aws_sdk_ssm::types::Command {
    let moment = |at: DateTime<Utc>| aws_sdk_ssm::primitives::DateTime::from_millis(at.timestamp_millis());
    aws_sdk_ssm::types::Command::builder()
        .command_id(id)
        .comment(&command.comment)
        .parameters("images", vec![command.images.join(" ")])
        .requested_date_time(moment(command.requested_at))
        .expires_after(moment(command.expires_at))
        .target_count(command.targets)
        .build()
}

fn sqs(state: &Arc<Mutex<State>>) -> aws_sdk_sqs::Client {
    let shared = Arc::clone(state);
    let send = mock!(aws_sdk_sqs::Client::send_message_batch).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        assert!(input.entries().len() <= 10);
        assert!(
            input
                .entries()
                .iter()
                .map(|entry| entry.message_body().len())
                .sum::<usize>()
                <= 256 * 1024
        );
        let confirmed = |entry: &SendMessageBatchRequestEntry| {
            let confirmed = SendMessageBatchResultEntry::builder().id(entry.id());
            let confirmed = confirmed.message_id("message").md5_of_message_body("md5");
            confirmed.build().unwrap()
        };
        let (first, others) = input.entries().split_first().unwrap();
        let output = |entries: &[SendMessageBatchRequestEntry]| {
            let confirmed = entries.iter().map(confirmed).collect();
            SendMessageBatchOutput::builder().set_successful(Some(confirmed))
        };
        let refused = BatchResultErrorEntry::builder()
            .id(first.id())
            .code("InternalError")
            .sender_fault(false);
        match state.calls.note("SendMessageBatch") {
            Some("Refused") => {
                let output = output(others).failed(refused.build().unwrap());
                return MockResponse::Output(output.build().unwrap());
            }
            Some("Unconfirmed") => {
                let output = output(others).set_failed(Some(Vec::new()));
                return MockResponse::Output(output.build().unwrap());
            }
            Some(code) => return fault!(aws_sdk_sqs, SendMessageBatchError, code),
            None => {}
        }
        let message = |entry: &SendMessageBatchRequestEntry| {
            let queue = input.queue_url().unwrap().to_owned();
            let body = serde_json::from_str(entry.message_body()).unwrap();
            (
                queue,
                entry.delay_seconds().expect("the queue's own delay is not meant"),
                body,
            )
        };
        state.messages.extend(input.entries().iter().map(message));
        let output = output(input.entries()).set_failed(Some(Vec::new()));
        MockResponse::Output(output.build().unwrap())
    });
    mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&send], |config| {
        config.retry_config(aws_sdk_sqs::config::retry::RetryConfig::disabled())
    })
}

fn s3(state: &Arc<Mutex<State>>) -> aws_sdk_s3::Client {
    let shared = Arc::clone(state);
    let put = mock!(aws_sdk_s3::Client::put_object).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("PutObject") {
            return fault!(aws_sdk_s3, PutObjectError, code);
        }
        let body = String::from_utf8(input.body().bytes().unwrap().to_vec()).unwrap();
        assert_eq!(input.bucket(), Some("records"));
        let key = input.key().unwrap().to_owned();
        let before = state.objects.insert(key, body.clone());
        assert!(before.is_none_or(|before| before == body), "an object never changes");
        MockResponse::Output(PutObjectOutput::builder().build())
    });
    mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&put], |config| {
        config.retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
    })
}

fn auto_scaling(state: &Arc<Mutex<State>>) -> aws_sdk_autoscaling::Client {
    let shared = Arc::clone(state);
    let describe =
        mock!(aws_sdk_autoscaling::Client::describe_auto_scaling_instances).then_compute_response(move |input| {
            let mut state = shared.lock().unwrap();
            if let Some(code) = state.calls.note("DescribeAutoScalingInstances") {
                return fault!(aws_sdk_autoscaling, DescribeAutoScalingInstancesError, code);
            }
            assert!(
                (1..=50).contains(&input.instance_ids().len()),
                "none would be all of the account"
            );
            // One that is of no group is left out.
            let of_group = |id: &String| Some(instance_of_group(id, state.lifecycle.get(id)?));
            let instances = input.instance_ids().iter().filter_map(of_group).collect();
            let output = DescribeAutoScalingInstancesOutput::builder();
            MockResponse::Output(output.set_auto_scaling_instances(Some(instances)).build())
        });
    let shared = Arc::clone(state);
    let complete = mock!(aws_sdk_autoscaling::Client::complete_lifecycle_action).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.calls.note("CompleteLifecycleAction") {
            return fault!(aws_sdk_autoscaling, CompleteLifecycleActionError, code);
        }
        assert_eq!(input.auto_scaling_group_name(), Some("nodes"));
        assert_eq!(input.lifecycle_hook_name(), Some(HOOK));
        assert_eq!(input.lifecycle_action_result(), Some("CONTINUE"));
        state
            .lifecycle
            .insert(input.instance_id().unwrap().to_owned(), "Warmed:Stopped");
        MockResponse::Output(CompleteLifecycleActionOutput::builder().build())
    });
    mock_client!(
        aws_sdk_autoscaling,
        RuleMode::MatchAny,
        [&describe, &complete],
        |config| { config.retry_config(aws_sdk_autoscaling::config::retry::RetryConfig::disabled()) }
    )
}

fn instance_of_group(id: &str, state: &str) -> AutoScalingInstanceDetails {
    let instance = AutoScalingInstanceDetails::builder()
        .instance_id(id)
        .lifecycle_state(state);
    instance.auto_scaling_group_name("nodes").build()
}

/// The hook in which instances wait, where there is one.
pub const HOOK: &str = "prefetch";
/// An error by which DynamoDB says that there is too much to do.
pub const THROTTLED: &str = "ProvisionedThroughputExceededException";

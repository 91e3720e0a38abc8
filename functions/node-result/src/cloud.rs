//! The function before mocked AWS services, which remember what they are told and fail where they are told to.

mod auto_scaling;
mod s3;
mod sqs;
mod ssm;
mod state;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{
    mocks,
    retry::Retry,
    rows::{Inventory, Item, Key, UsageRow},
};
use serde_json::{Value, json};

pub use self::state::{
    COMMAND, Command, DOCUMENT, HOOK, Invocation, State, THROTTLED, command_id, image, line, node_id, now,
    requested_at, totals, usage_line,
};
use crate::{
    context::NodeResult, event::CommandEnded, handler::handle_at, launch_hook::LaunchHook, settings::Settings,
    table::Table, usage_rows::UsageRows,
};

/// Holds the function and the services around it.
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

    /// Makes a cloud where instances wait in a hook of this name for their launch; in none where it is empty.
    pub fn with_hook(hook: &'static str) -> Self {
        Self::of("2", hook)
    }

    fn of(max_retries: &'static str, hook: &'static str) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let settings = settings(max_retries, hook);
        let dynamodb = mocks::dynamodb(&state, |state| (&mut state.calls, &mut state.table));
        let result = NodeResult {
            ssm: ssm::client(&state),
            sqs: sqs::client(&state),
            s3: s3::client(&state),
            hook: (!hook.is_empty()).then(|| LaunchHook::with_client(auto_scaling::client(&state), hook)),
            table: Table::new(dynamodb, &settings),
            usage: UsageRows::new(settings.used_within),
            settings,
        };
        Self { result, state }
    }

    /// Makes a cloud where the command of the event files went to its first node, which ended so.
    pub fn where_the_node(ended: Invocation) -> Self {
        let cloud = Self::new();
        cloud.send(1, "push rule=default attempt=1", &[1], [(1, ended)]);
        cloud
    }

    /// Makes a cloud where the command of the event files names two images, and its first node ended so.
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
        let answer = handle_at(&self.result, serde_json::from_str(event).unwrap(), now).await;
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

    /// Lists the reasons of the first node's images, in their order.
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

    /// Lists the retries that wait, or have waited, each with its delay.
    pub fn waiting(&self) -> Vec<(i32, Retry)> {
        let messages = self.messages("result-queue").into_iter();
        messages
            .filter_map(|(delay, body)| Some((delay, serde_json::from_value(body.get("retry")?.clone()).unwrap())))
            .collect()
    }

    pub fn retries(&self) -> Vec<Retry> {
        self.waiting().into_iter().map(|(_, retry)| retry).collect()
    }

    /// Lists the events that the sweep put into the queue, each with its delay.
    pub fn made_up(&self) -> Vec<(i32, Value)> {
        let mut messages = self.messages("result-queue");
        messages.retain(|(_, body)| body.get("retry").is_none());
        messages
    }

    /// Writes that a job was cancelled.
    pub fn cancel(&self, job: &str) {
        let key = Key::cancelled(job);
        self.state(|state| state.table.rows.insert(key.clone(), key.item()));
    }

    /// Reads the k-th node's inventory.
    pub fn inventory(&self, k: usize) -> Inventory {
        let key = Key::inventory(&node_id(k));
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

    /// Lists the lines of metrics that transactions wrote into the outbox.
    pub fn metrics(&self) -> Vec<Value> {
        let put = self.state(|state| state.table.put.clone());
        let lines = put.iter().filter_map(|item| item.get("metrics")?.as_s().ok());
        lines
            .flat_map(|lines| lines.lines())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Lists the values of a metric over all lines that were to be logged.
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

    /// Forgets what the process remembers, as a new one does.
    pub fn restart(&mut self) {
        self.result.usage = UsageRows::new(self.result.settings.used_within);
    }

    /// Gives the rows of what nodes run.
    pub fn usage(&self) -> Vec<UsageRow> {
        let rows = self.state(|state| state.table.rows.clone()).into_iter();
        let usage = rows.filter(|(key, _)| key.pk.starts_with("usage#"));
        usage.map(|(_, item)| serde_dynamo::from_item(item).unwrap()).collect()
    }

    /// Gives the rows in the end, but for what tells of the writing rather than of the nodes, and which of
    /// equally slow nodes came first; those of what nodes run are not JSON.
    pub fn known(&self) -> BTreeMap<Key, Value> {
        let mut rows = self.state(|state| state.table.rows.clone());
        rows.retain(|key, _| !key.pk.starts_with("usage#"));
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

/// Writes the event by which SSM tells that the k-th command ended on a node.
pub fn event_of(k: usize, node: usize) -> String {
    event(command_id(k), Some(node_id(node)))
}

/// Writes the event by which SSM tells that the k-th command ended as a whole.
pub fn event_of_command(k: usize) -> String {
    event(command_id(k), None)
}

fn event(command: String, node: Option<String>) -> String {
    let ended = CommandEnded {
        command,
        node,
        requested_at: requested_at(),
        time: now(),
        overdue: false,
    };
    ended.to_event(DOCUMENT)
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
        "USED_WITHIN_DAYS" => "14",
        "MAX_RETRIES" => max_retries,
        "LAUNCH_HOOK" => hook,
        other => panic!("{other} is not a setting"),
    };
    Settings::read(|name| Some(value(name).to_owned())).unwrap()
}

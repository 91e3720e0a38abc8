//! The world of one node's job: the function that ships before the mocked services, set to any rows and commands.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use chrono::TimeDelta;
use prefetch::{
    command::Trigger,
    rows::{Item, Key},
};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::node::Sent;
use crate::cloud::{COMMAND, Cloud, Command, State, THROTTLED, command_id, now};

const SWEEP: &str = include_str!("../../../../../../events/node-result.sweep.json");

/// Maps rows to what they say, as JSON.
pub type Rows = BTreeMap<Key, String>;
/// Names a call to AWS, how often it goes well before it fails, and how it fails.
pub type Fault = (&'static str, usize, &'static str);

/// Lists the ways in which a write fails: it is not done, or it is done and the function dies of it.
const FAULTS: [(&str, &str); 6] = [
    ("TransactWriteItems", BEFORE_WRITE),
    ("TransactWriteItems", "Lost"),
    ("PutObject", "SlowDown"),
    ("SendMessageBatch", "Refused"),
    ("DeleteItem", THROTTLED),
    ("PutItem", THROTTLED),
];
/// Is the fault by which a transaction is not written.
pub const BEFORE_WRITE: &str = "ThrottlingError";

/// Tells what the function is called with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Messages of one batch, which is handed out for the n-th time.
    Batch(Vec<String>, usize),
    Sweep,
}

/// Is a call of the function, with what happens meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub input: Input,
    pub fault: Option<Fault>,
    /// The rows that another call writes between this one's reads and its writes.
    pub meanwhile: Rows,
    /// Tells what it is about, and so which rows and commands it may read.
    pub about: About,
}

/// Tells what a call is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// It is about commands on the node, by their places: neither marks of the sweep nor a cancellation are read.
    Node(BTreeSet<usize>),
    /// It is about the job's first command as a whole.
    Job,
    /// It is about a retry: only whether the job was cancelled is read.
    Retry,
    /// It is the sweep, which reads neither inventories nor how commands ended.
    Sweep,
}

impl About {
    fn reads(&self, key: &Key) -> bool {
        let is_cancellation = *key == Key::cancelled(COMMAND);
        match self {
            Self::Node(_) => !is_cancellation && key.sk != "swept",
            Self::Job => [Key::job(COMMAND), Key::totals(Trigger::Push)].contains(key),
            Self::Retry => is_cancellation,
            Self::Sweep => !is_cancellation && !key.pk.starts_with("node#"),
        }
    }

    /// Leaves of commands what it reads.
    fn commands(&self, commands: &[Sent]) -> Vec<Sent> {
        let is_read = |place: usize| match self {
            Self::Node(places) => places.contains(&place),
            Self::Job => place == 0,
            Self::Retry => false,
            Self::Sweep => true,
        };
        let last = (0..commands.len()).rfind(|place| is_read(*place));
        let commands = commands.iter().take(last.map_or(0, |last| last + 1)).enumerate();
        let command = |(place, sent): (usize, &Sent)| Sent {
            has_ended: sent.has_ended && matches!(self, Self::Node(_)),
            ..if is_read(place) { sent.clone() } else { Sent::default() }
        };
        commands.map(command).collect()
    }
}

/// Tells what a call left.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub rows: Rows,
    /// The messages that were sent, by queue.
    pub messages: Vec<(String, Value)>,
    /// The objects that were put.
    pub objects: BTreeMap<String, String>,
    /// The rows that transactions put.
    pub put: Vec<Value>,
    pub calls: Vec<&'static str>,
}

impl Call {
    pub fn new(input: Input, about: About) -> Self {
        Self {
            input,
            about,
            fault: None,
            meanwhile: Rows::new(),
        }
    }
}

impl Done {
    /// Lists the faults that the same call may meet at each of its writes.
    pub fn faults(&self) -> Vec<Fault> {
        let times = |name| self.calls.iter().filter(|call| **call == name).count();
        let of_write = |(name, code)| (0..times(name)).map(move |before| (name, before, code));
        FAULTS.into_iter().flat_map(of_write).collect()
    }

    /// Lists the rows that are others than before.
    pub fn changed(&self, before: &Rows) -> Rows {
        let changed = self.rows.iter().filter(|(key, row)| before.get(key) != Some(row));
        changed.map(|(key, row)| (key.clone(), row.clone())).collect()
    }
}

/// Is what calls have in common that leave the same: the rows and commands that they read, and what they are.
type Same = (Rows, Vec<Sent>, Call);

/// Holds the function, and what it did whenever it was called.
pub struct World {
    cloud: Cloud,
    runtime: Runtime,
    known: RefCell<BTreeMap<Same, Rc<Done>>>,
    /// Counts the calls whose end was not known.
    pub calls: Cell<usize>,
}

impl World {
    pub fn new(max_retries: &'static str) -> Self {
        Self {
            cloud: Cloud::with(max_retries),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            known: RefCell::default(),
            calls: Cell::default(),
        }
    }

    /// Calls the function where these are the rows and these commands were sent, once for each that is the same to it.
    pub fn call(&self, rows: &Rows, commands: &[Sent], call: &Call) -> Rc<Done> {
        let (read, unread): (Rows, Rows) = rows.clone().into_iter().partition(|(key, _)| call.about.reads(key));
        let same = (read, call.about.commands(commands), call.clone());
        let known = self.known.borrow().get(&same).cloned();
        let done = known.unwrap_or_else(|| {
            let commands: Vec<Command> = same.1.iter().map(Sent::command).collect();
            let done = Rc::new(self.do_call(&same.0, &commands, call));
            self.known.borrow_mut().insert(same, Rc::clone(&done));
            self.calls.set(self.calls.get() + 1);
            done
        });
        let mut done = Done::clone(&done);
        done.rows.extend(unread);
        Rc::new(done)
    }

    fn do_call(&self, rows: &Rows, commands: &[Command], call: &Call) -> Done {
        self.cloud.state(|state| {
            *state = State::default();
            let commands = commands.iter().cloned().enumerate();
            state.commands = commands
                .map(|(place, command)| (command_id(place + 1), command))
                .collect();
            state.table.rows = rows.iter().map(item).collect();
            state.table.appearing = Some(call.meanwhile.iter().map(item).collect());
        });
        if let Some((name, before, code)) = call.fault {
            self.cloud.fail(name, before, code);
        }
        self.runtime.block_on(async {
            match &call.input {
                Input::Batch(bodies, time) => drop(self.cloud.batch(bodies, *time).await),
                Input::Sweep => drop(self.cloud.answer_at(SWEEP, now() + TimeDelta::hours(2)).await),
            }
        });
        self.cloud.state(|state| Done {
            rows: state
                .table
                .rows
                .iter()
                .map(|(key, row)| (key.clone(), text(json(row))))
                .collect(),
            messages: state
                .messages
                .iter()
                .map(|(queue, _, body)| (queue.clone(), body.clone()))
                .collect(),
            objects: std::mem::take(&mut state.objects),
            put: state.table.put.iter().map(json).collect(),
            calls: state.calls.take(),
        })
    }
}

fn item((key, row): (&Key, &String)) -> (Key, Item) {
    let row: Value = serde_json::from_str(row).unwrap();
    (key.clone(), serde_dynamo::to_item(row).unwrap())
}

fn json(row: &Item) -> Value {
    serde_dynamo::from_item(row.clone()).unwrap()
}

/// Writes a row so that equal rows are equal texts.
pub fn text(mut row: Value) -> String {
    row.sort_all_objects();
    row.to_string()
}

//! A node of a job: what is known of it and under way for it, and each step that may come next.

use std::{collections::BTreeSet, rc::Rc};

use chrono::TimeDelta;
use prefetch::{
    image::Image,
    retry::Retry,
    rows::{Counters, Key},
};
use serde_json::Value;

use super::{
    check::Checks,
    world::{About, BEFORE_WRITE, Call, Done, Input, Rows, World, text},
};
use crate::{
    cloud::{COMMAND, Command, DOCUMENT, Invocation, command_id, event_of_command, image, line, node_id, requested_at},
    event::{CommandEnded, RetryDue},
};

/// Counts the images of the job.
pub const IMAGES: usize = 3;

/// Holds what is known of a node, and what is under way for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Its rows: its own, its inventory, its outbox and the marks of its commands.
    pub rows: Rows,
    /// The commands that were sent to it, the job's first and its retries.
    pub commands: Vec<Sent>,
    /// The retries that were put into the result queue; each may come from there at any time, and more than once.
    pub retries: BTreeSet<Retry>,
    /// The commands whose ends the sweep made up.
    pub made_up: BTreeSet<usize>,
    /// The reports that were written.
    pub heard: BTreeSet<Said>,
}

/// Is a command as it was sent to the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    pub attempt: u8,
    pub images: Vec<usize>,
    pub has_ended: bool,
}

/// Names what is said of a command on the node, by the command's place: its report, or only that it is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    pub place: usize,
    pub is_report: bool,
}

/// Holds what the nodes of a job share: its row without the counters, and whether it was cancelled.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shared {
    pub row: Option<String>,
    pub is_cancelled: bool,
}

impl Shared {
    /// Returns true where it is known to how many nodes the job's first command went.
    pub fn has_targets(&self) -> bool {
        let row = self.row.as_deref().unwrap_or("{}");
        serde_json::from_str::<Value>(row).unwrap()["targets"].is_number()
    }
}

/// Tells how an event of a command comes.
#[derive(Clone, Copy)]
struct Event {
    place: usize,
    is_made_up: bool,
}

impl Sent {
    /// Tells how the command ends: the k-th image is there from the k-th attempt on.
    pub fn status(&self, k: usize) -> (&'static str, &'static str) {
        if usize::from(self.attempt) < k {
            ("failed", "registry")
        } else {
            ("pulled", "")
        }
    }

    /// Gives the command as SSM knows it.
    pub fn command(&self) -> Command {
        let comment = match self.attempt {
            1 => "push rule=default attempt=1".to_owned(),
            attempt => format!("push rule=default attempt={attempt} job={COMMAND}"),
        };
        let line = |k: &usize| {
            let (status, reason) = self.status(*k);
            line(&image(*k), status, reason)
        };
        let requested_at = requested_at() + TimeDelta::minutes(i64::from(self.attempt) - 1);
        let ended = Invocation {
            ended_at: Some(requested_at + TimeDelta::seconds(10)),
            ..Invocation::reporting(self.images.iter().map(line).collect::<String>())
        };
        let runs = Invocation::without_report("InProgress", "InProgress");
        Command {
            comment,
            images: self.images.iter().map(|k| image(*k)).collect(),
            requested_at,
            expires_at: requested_at + TimeDelta::hours(1),
            targets: 1,
            invocations: [(node_id(1), if self.has_ended { ended } else { runs })].into(),
        }
    }
}

impl Node {
    /// Makes a node to which the job's first command was sent, with all images.
    pub fn new() -> Self {
        let first = Sent {
            attempt: 1,
            images: (1..=IMAGES).collect(),
            has_ended: false,
        };
        Self {
            commands: vec![first],
            ..Self::default()
        }
    }

    /// Gives the node's row.
    pub fn row(&self) -> Option<Value> {
        let row = self.rows.get(&Key::node(COMMAND, &node_id(1)))?;
        Some(serde_json::from_str(row).unwrap())
    }

    /// Lists the retries that are in the outbox or in the queue.
    pub fn decided(&self) -> BTreeSet<Retry> {
        let outboxes = self.rows.iter().filter(|(key, _)| key.pk.starts_with("outbox#"));
        let outboxes = outboxes.flat_map(|(_, row)| retries(&serde_json::from_str(row).unwrap()));
        self.retries.iter().cloned().chain(outboxes).collect()
    }

    fn said(&self, event: Event) -> Said {
        Said {
            place: event.place,
            is_report: self.commands[event.place].has_ended,
        }
    }

    fn body(&self, event: Event) -> String {
        let requested_at = self.commands[event.place].command().requested_at;
        let ended = CommandEnded {
            command: command_id(event.place + 1),
            node: Some(node_id(1)),
            requested_at,
            time: requested_at + TimeDelta::seconds(if event.is_made_up { 3700 } else { 11 }),
            overdue: event.is_made_up,
        };
        ended.to_event(DOCUMENT)
    }

    /// Lists the events that may come now: SSM's of commands that have ended, and those that the sweep made up.
    fn events(&self) -> Vec<Event> {
        let ended = (0..self.commands.len()).filter(|place| self.commands[*place].has_ended);
        let event = |is_made_up| move |place| Event { place, is_made_up };
        let made_up = self.made_up.iter().copied().map(event(true));
        ended.map(event(false)).chain(made_up).collect()
    }

    /// Takes in what a call left.
    fn take(&mut self, shared: &mut Shared, done: &Done) {
        for (queue, body) in &done.messages {
            if queue == "node-queue" {
                self.send(&serde_json::from_value(body.clone()).unwrap());
            } else if let Some(retry) = body.get("retry") {
                self.retries.insert(serde_json::from_value(retry.clone()).unwrap());
            } else if body["detail"]["instance-id"] != Value::Null {
                let is_of = |place: &usize| command_id(place + 1) == body["detail"]["command-id"];
                self.made_up.extend((0..self.commands.len()).find(is_of));
            }
        }
        self.rows.clone_from(&done.rows);
        self.rows.retain(|key, _| key.pk != "totals");
        shared.row = self.rows.remove(&Key::job(COMMAND)).map(|row| without_counters(&row));
        shared.is_cancelled = self.rows.remove(&Key::cancelled(COMMAND)).is_some();
    }

    /// Sends the command of a retry; one that comes once more finds the images there, which is no news.
    fn send(&mut self, retry: &Retry) {
        let place = |named: &Image| (1..=IMAGES).find(|k| image(*k) == named.to_string()).unwrap();
        let sent = |has_ended| Sent {
            attempt: retry.attempt,
            images: retry.images.iter().map(place).collect(),
            has_ended,
        };
        if !self.commands.contains(&sent(false)) && !self.commands.contains(&sent(true)) {
            self.commands.push(sent(false));
        }
    }
}

/// Reads the retries of an outbox row.
pub fn retries(outbox: &Value) -> Vec<Retry> {
    let bodies = outbox["retries"].as_array().into_iter().flatten();
    let due = bodies.map(|message| serde_json::from_str::<RetryDue>(message["body"].as_str().unwrap()).unwrap());
    due.map(|due| due.retry).collect()
}

fn without_counters(row: &str) -> String {
    let mut row: Value = serde_json::from_str(row).unwrap();
    for (name, _) in Counters::default().named() {
        row.as_object_mut().unwrap().remove(name);
    }
    text(row)
}

/// Is a node and what it shares with the job's others, before each step that may come next.
pub struct Steps<'a> {
    pub world: &'a World,
    pub checks: &'a Checks,
    pub node: &'a Node,
    pub shared: &'a Shared,
    /// The table before each step.
    pub rows: Rows,
    /// Counts the steps so far.
    pub count: usize,
    /// The steps so far that change something: each leads to a node and what it shares.
    pub taken: Vec<(Node, Shared)>,
}

impl<'a> Steps<'a> {
    pub fn new(world: &'a World, checks: &'a Checks, node: &'a Node, shared: &'a Shared) -> Self {
        let rows = checks.rows(node, shared);
        Self {
            world,
            checks,
            node,
            shared,
            rows,
            count: 0,
            taken: Vec::new(),
        }
    }

    /// Takes each step once.
    pub fn all(&mut self) {
        self.ends();
        self.hears();
        self.dues();
        self.calls(&sweep(), &[]);
        self.calls(&whole(), &[]);
        let cancelled = Shared {
            is_cancelled: true,
            ..self.shared.clone()
        };
        self.count += 1;
        self.taken.push((self.node.clone(), cancelled));
    }

    /// Lets each command end that runs.
    fn ends(&mut self) {
        for (place, _) in self
            .node
            .commands
            .iter()
            .enumerate()
            .filter(|(_, sent)| !sent.has_ended)
        {
            let mut node = self.node.clone();
            node.commands[place].has_ended = true;
            self.count += 1;
            self.taken.push((node, self.shared.clone()));
        }
    }

    /// Delivers each event, again where something is left undone, and each two in a batch.
    fn hears(&mut self) {
        let events = self.node.events();
        let has_outbox = self.node.rows.keys().any(|key| key.pk.starts_with("outbox#"));
        for (place, event) in events.iter().enumerate() {
            for time in 1..=1 + usize::from(has_outbox) {
                self.calls(&self.heard_of(&[*event], time), &[self.node.said(*event)]);
            }
            self.races(*event);
            for other in &events[place + 1..] {
                let said = [self.node.said(*event), self.node.said(*other)];
                self.call(&self.heard_of(&[*event, *other], 1), &said, &[]);
            }
        }
    }

    fn heard_of(&self, events: &[Event], time: usize) -> Call {
        let bodies = events.iter().map(|event| self.node.body(*event));
        let places = events.iter().map(|event| event.place);
        Call::new(Input::Batch(bodies.collect(), time), About::Node(places.collect()))
    }

    /// Delivers an event while another is settled between its reads and its writes.
    fn races(&mut self, event: Event) {
        let alone = self.heard_of(&[event], 1);
        if !self.done(&alone).calls.contains(&"TransactWriteItems") {
            return;
        }
        let rivals = self.node.events().into_iter();
        let rivals = rivals.map(|event| (self.heard_of(&[event], 1), vec![self.node.said(event)]));
        let rivals: Vec<_> = rivals.chain([(whole(), Vec::new())]).collect();
        for (rival, mut heard) in rivals {
            let rival = self.done(&rival);
            let meanwhile = rival.changed(&self.rows);
            if !meanwhile.is_empty() {
                heard.push(self.node.said(event));
                let call = Call {
                    meanwhile,
                    ..alone.clone()
                };
                self.call(&call, &heard, &[&rival]);
            }
        }
    }

    /// Delivers each retry.
    fn dues(&mut self) {
        for retry in self.node.retries.clone() {
            self.calls(&due(retry), &[]);
        }
    }

    /// Calls the function as it goes well, and with each fault that it may meet.
    fn calls(&mut self, call: &Call, said: &[Said]) {
        for fault in self.done(call).faults() {
            let heard = if fault.2 == BEFORE_WRITE { &[][..] } else { said };
            let fault = Some(fault);
            self.call(&Call { fault, ..call.clone() }, heard, &[]);
        }
        self.call(call, said, &[]);
    }

    fn done(&self, call: &Call) -> Rc<Done> {
        self.world.call(&self.rows, &self.node.commands, call)
    }

    fn call(&mut self, call: &Call, heard: &[Said], rivals: &[&Done]) {
        self.count += 1;
        let done = self.done(call);
        let is_known = heard.iter().all(|said| self.node.heard.contains(said));
        if is_known && done.messages.is_empty() && done.rows == self.rows {
            return;
        }
        let (mut node, mut shared) = (self.node.clone(), self.shared.clone());
        for done in rivals.iter().copied().chain([&*done]) {
            node.take(&mut shared, done);
        }
        node.heard.extend(heard);
        self.checks.check(self, call, rivals, &done, (&node, &shared));
        self.taken.push((node, shared));
    }

    /// Takes the next step of a run in which nothing fails any more and SSM tells nothing; none where there is none.
    pub fn calm(mut self) -> Option<(Node, Shared)> {
        self.call(&sweep(), &[], &[]);
        self.call(&whole(), &[], &[]);
        for event in self.node.events().into_iter().filter(|event| event.is_made_up) {
            let said = self.node.said(event);
            if !self.node.heard.contains(&said) {
                self.call(&self.heard_of(&[event], 1), &[said], &[]);
            }
        }
        for retry in self.node.retries.clone() {
            self.call(&due(retry), &[], &[]);
        }
        let (node, shared) = (self.node, self.shared);
        self.taken
            .into_iter()
            .find(|taken| (&taken.0, &taken.1) != (node, shared))
    }
}

fn sweep() -> Call {
    Call::new(Input::Sweep, About::Sweep)
}

/// Tells that the job's first command ended as a whole.
fn whole() -> Call {
    Call::new(Input::Batch(vec![event_of_command(1)], 1), About::Job)
}

fn due(retry: Retry) -> Call {
    let body = serde_json::to_string(&RetryDue { retry }).unwrap();
    Call::new(Input::Batch(vec![body], 1), About::Retry)
}

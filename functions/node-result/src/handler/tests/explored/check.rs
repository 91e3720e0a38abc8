//! Checks: what has to hold after each step, told apart from the code that ships, by what was said of the node's commands alone.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use prefetch::{
    command::Trigger,
    rows::{Counters, Key},
};
use serde_json::{Value, json};

use super::{
    node::{IMAGES, Node, Said, Shared, Steps, retries},
    world::{Call, Done, Rows, text},
};
use crate::cloud::{COMMAND, image, node_id};

/// Counts the bytes of an image, as the reports tell them.
const BYTES: i64 = 25_166_482;

/// Holds what is checked against: how many retries there are, and each row that was seen, by what was heard.
pub struct Checks {
    pub max_retries: u8,
    seen: RefCell<BTreeMap<String, Rows>>,
}

/// Is an image on a node as it has to be known.
struct Expected {
    k: usize,
    attempt: u8,
    status: &'static str,
    reason: &'static str,
}

impl Checks {
    pub fn new(max_retries: u8) -> Self {
        Self {
            max_retries,
            seen: RefCell::default(),
        }
    }

    /// Gives the table in which the node is its job's only one.
    pub fn rows(&self, node: &Node, shared: &Shared) -> Rows {
        let mut rows = node.rows.clone();
        let counters = self.counters(node);
        if let Some(row) = &shared.row {
            rows.insert(Key::job(COMMAND), with_counters(row, counters));
        }
        if shared.is_cancelled {
            let Key { pk, sk } = Key::cancelled(COMMAND);
            rows.insert(Key::cancelled(COMMAND), text(json!({"pk": pk, "sk": sk})));
        }
        let Key { pk, sk } = Key::totals(Trigger::Push);
        let totals = json!({"pk": pk, "sk": sk, "jobs": i32::from(shared.row.is_some())});
        rows.insert(Key::totals(Trigger::Push), with_counters(&totals.to_string(), counters));
        rows
    }

    fn wants_retry(&self, expected: &Expected) -> bool {
        expected.status == "failed" && expected.attempt <= self.max_retries
    }

    /// Returns true where the node has to be retried.
    pub fn is_retrying(&self, node: &Node) -> bool {
        expected(node).iter().any(|expected| self.wants_retry(expected))
    }

    /// Returns true where nothing more is to come of the node.
    pub fn is_done(&self, node: &Node) -> bool {
        node.row().is_some() && !self.is_retrying(node)
    }

    fn counters(&self, node: &Node) -> Counters {
        let expected = expected(node);
        let count = |is_so: bool| i64::from(is_so && !expected.is_empty());
        let has_failed = expected.iter().any(|image| image.status == "failed");
        let pulled = expected.iter().filter(|image| image.status == "pulled").map(|_| BYTES);
        let attempts = node.heard.iter().map(|said| node.commands[said.place].attempt);
        Counters {
            pulled: count(!has_failed),
            failed: count(has_failed),
            retrying: i64::from(self.is_retrying(node)),
            retried: attempts.max().map_or(0, |attempt| i64::from(attempt) - 1),
            bytes: pulled.sum(),
            ..Counters::default()
        }
    }

    /// Checks what a step has led to.
    pub fn check(&self, before: &Steps<'_>, call: &Call, rivals: &[&Done], done: &Done, after: (&Node, &Shared)) {
        let (node, shared) = after;
        let context = || format!("{call:#?}\nbefore: {}\nafter: {}", told(before.node), told(node));
        self.check_counters(node, shared, done, &context);
        check_images(node, &context);
        check_outbox(before.node, done, &context);
        self.check_retries(before.node, node, rivals, done, &context);
        self.check_seen(node, &context);
        assert_eq!(shared.is_cancelled, before.shared.is_cancelled, "{}", context());
        let sends = done.messages.iter().any(|(queue, _)| queue == "node-queue");
        assert!(
            !(before.shared.is_cancelled && sends),
            "a cancelled job sends: {}",
            context()
        );
    }

    /// Checks that the counters of the job and of all jobs are those of its node.
    fn check_counters(&self, node: &Node, shared: &Shared, done: &Done, context: &impl Fn() -> String) {
        let expected = self.rows(node, shared);
        for key in [Key::job(COMMAND), Key::totals(Trigger::Push)] {
            let read = |rows: &Rows| rows.get(&key).map(|row| counters_of(row));
            assert_eq!(read(&done.rows), read(&expected), "{key:?}: {}", context());
        }
    }

    /// Checks that each retry that an image needs is decided, and no retry twice.
    fn check_retries(&self, before: &Node, node: &Node, rivals: &[&Done], done: &Done, context: &impl Fn() -> String) {
        let decided = node.decided();
        for image_of in expected(node).iter().filter(|expected| self.wants_retry(expected)) {
            let is_of = |retry: &&prefetch::retry::Retry| {
                retry.attempt == image_of.attempt + 1
                    && retry.images.iter().any(|known| known.to_string() == image(image_of.k))
            };
            assert!(
                decided.iter().any(|retry| is_of(&retry)),
                "a retry is not decided: {}",
                context()
            );
        }
        let mut once: BTreeSet<(u8, String)> = BTreeSet::new();
        let of_rivals = rivals.iter().flat_map(|rival| &rival.put);
        let new = of_rivals
            .chain(&done.put)
            .filter(|row| is_outbox(row))
            .flat_map(retries);
        for retry in before.decided().into_iter().chain(new) {
            for image in &retry.images {
                assert!(
                    once.insert((retry.attempt, image.to_string())),
                    "a retry is decided twice: {}",
                    context()
                );
            }
        }
    }

    /// Checks that the node's rows are the same whenever the same was heard, in whatever order.
    fn check_seen(&self, node: &Node, context: &impl Fn() -> String) {
        let heard = node.heard.iter().map(|said| (said, &node.commands[said.place].images));
        let heard = format!("{:?}", heard.collect::<Vec<_>>());
        let keys = [Key::node(COMMAND, &node_id(1)), Key::inventory(&node_id(1))];
        let rows = keys
            .into_iter()
            .filter_map(|key| Some((key.clone(), node.rows.get(&key)?)));
        let rows: Rows = rows.map(|(key, row)| (key, without_writing(row))).collect();
        let mut seen = self.seen.borrow_mut();
        let known = seen.entry(heard).or_insert_with(|| rows.clone());
        assert_eq!(*known, rows, "{}", context());
    }
}

/// Tells what has to be known of the images: the later attempt counts, and of one attempt the node's own report.
fn expected(node: &Node) -> Vec<Expected> {
    let of_image = |k: usize| {
        let of_image = node
            .heard
            .iter()
            .filter(|said| node.commands[said.place].images.contains(&k));
        let rank = |said: &&Said| (node.commands[said.place].attempt, said.is_report);
        let said = of_image.max_by_key(rank)?;
        let sent = &node.commands[said.place];
        let overdue = ("failed", "overdue");
        let (status, reason) = if said.is_report { sent.status(k) } else { overdue };
        Some(Expected {
            k,
            attempt: sent.attempt,
            status,
            reason,
        })
    };
    (1..=IMAGES).filter_map(of_image).collect()
}

/// Checks that what an outbox row says has been done before it goes.
fn check_outbox(before: &Node, done: &Done, context: &impl Fn() -> String) {
    let gone = before
        .rows
        .iter()
        .filter(|(key, _)| key.pk.starts_with("outbox#") && !done.rows.contains_key(key));
    let old = gone.map(|(_, row)| serde_json::from_str::<Value>(row).unwrap());
    let new = done
        .put
        .iter()
        .filter(|row| is_outbox(row) && !done.rows.contains_key(&Key::outbox(row["sk"].as_str().unwrap())));
    for outbox in old.chain(new.cloned()) {
        let body = outbox["body"].as_str().unwrap();
        let put = done.objects.get(outbox["key"].as_str().unwrap());
        assert!(
            body.is_empty() || put.is_some_and(|put| put == body),
            "records are lost: {}",
            context()
        );
        for retry in retries(&outbox) {
            let is_sent = done.messages.iter().any(|(_, body)| body["retry"] == json!(retry));
            assert!(is_sent, "a retry is lost: {}", context());
        }
    }
}

/// Checks that each report that was heard is in the node's row, and nothing else.
fn check_images(node: &Node, context: &impl Fn() -> String) {
    let row = node.row().unwrap_or(Value::Null);
    let expected = expected(node);
    let known = row["images"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(known, expected.len(), "{}", context());
    for Expected {
        k,
        attempt,
        status,
        reason,
    } in expected
    {
        let known = &row["images"][image(k)];
        let known = (&known["attempt"], &known["status"], &known["reason"]);
        assert_eq!(
            known,
            (&json!(attempt), &json!(status), &json!(reason)),
            "{}",
            context()
        );
    }
}

/// Tells how far a node is, for whoever reads why a check fails.
fn told(node: &Node) -> String {
    let Node {
        commands,
        retries,
        made_up,
        heard,
        rows,
    } = node;
    let retries: Vec<u8> = retries.iter().map(|retry| retry.attempt).collect();
    let rows: Vec<&str> = rows.keys().map(|key| key.sk.as_str()).collect();
    format!("{commands:?}, retries {retries:?}, made up {made_up:?}, heard {heard:?}, rows {rows:?}")
}

fn is_outbox(row: &Value) -> bool {
    row["pk"].as_str().is_some_and(|pk| pk.starts_with("outbox#"))
}

/// Leaves out what tells of the writing, and since when images are there, which a late report may cut short.
fn without_writing(row: &str) -> String {
    let mut row: Value = serde_json::from_str(row).unwrap();
    for name in ["version", "outbox"] {
        row.as_object_mut().unwrap().remove(name);
    }
    for image in row["images"].as_object_mut().unwrap().values_mut() {
        image.as_object_mut().unwrap().remove("since");
    }
    text(row)
}

fn counters_of(row: &str) -> Counters {
    serde_json::from_str(row).unwrap()
}

fn with_counters(row: &str, counters: Counters) -> String {
    let mut row: Value = serde_json::from_str(row).unwrap();
    for (name, count) in counters.named() {
        row[name] = json!(count);
    }
    text(row)
}

//! A unit as the items of one transaction.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{
    AttributeValue, Put, TransactWriteItem, Update,
    builders::{PutBuilder, UpdateBuilder},
};
use chrono::{DateTime, Utc};
use prefetch::{
    image::Image,
    outcome::Status,
    rows::{Counters, Item, Key, Outcome},
};
use serde::Serialize;

use crate::{
    changes::{JobChange, NodeChange, Unit},
    inventory::HeldChange,
};

/// Builds the transaction that writes a unit: nodes, what they hold, jobs, totals, and the outbox where something has to
/// be done after it.
pub fn items(unit: &Unit, table: &str, expires_at: &AttributeValue) -> Vec<TransactWriteItem> {
    let writer = Writer { table, expires_at };
    let outbox = (!unit.outbox.is_empty()).then_some(unit.outbox.id.as_str());
    let nodes = unit.nodes.iter().map(|change| writer.node(change, outbox));
    let held = unit.held.iter().map(|(node, change)| writer.held(node, change));
    let jobs = unit.jobs.values().map(|change| writer.job(change));
    let outbox = outbox.is_some().then(|| writer.outbox(unit));
    let nodes = nodes.chain(held).chain(jobs);
    nodes.chain([writer.totals(unit)]).chain(outbox).collect()
}

struct Writer<'a> {
    table: &'a str,
    expires_at: &'a AttributeValue,
}

impl Writer<'_> {
    /// Puts a node's row in the place of the version that was read.
    fn node(&self, change: &NodeChange, outbox: Option<&str>) -> TransactWriteItem {
        #[derive(Serialize)]
        struct Row<'a> {
            version: u32,
            attempt: u8,
            status: Status,
            retrying: bool,
            images: &'a BTreeMap<Image, Outcome>,
            ended_at: DateTime<Utc>,
            command: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            warm_at: Option<DateTime<Utc>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            outbox: Option<&'a str>,
        }
        let node = &change.after;
        let row = Row {
            version: node.version + 1,
            attempt: node.attempt,
            status: node.status(),
            retrying: node.retrying,
            images: &node.images,
            ended_at: node.ended_at,
            command: &node.command,
            warm_at: node.warm_at,
            outbox: outbox.or(node.outbox.as_deref()),
        };
        let before = change.before.as_ref().map(|before| before.version);
        self.replace(&Key::node(&change.job.id, &change.node), before, &row)
    }

    /// Puts the row of what a node holds in the place of the version that was read.
    fn held(&self, node: &str, change: &HeldChange) -> TransactWriteItem {
        self.replace(&Key::held(node), change.before, &change.after)
    }

    /// Puts a row in the place of a version of it, or where none is.
    fn replace(&self, key: &Key, version: Option<u32>, row: &impl Serialize) -> TransactWriteItem {
        let put = self.put(key, row);
        let put = match version {
            None => put.condition_expression("attribute_not_exists(pk)"),
            Some(version) => put
                .condition_expression("#version = :version")
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":version", number(&version)),
        };
        TransactWriteItem::builder()
            .put(put.build().expect("table and item are set"))
            .build()
    }

    /// Moves a job's counters, and says once what it is of.
    fn job(&self, change: &JobChange) -> TransactWriteItem {
        let job = &change.job;
        let mut update = Expression::default();
        update.set_once("trigger", text(&job.trigger));
        update.set_once("rule", text(&job.rule));
        if let Some(before) = &change.requested_before {
            update.set("requested_at", value(&job.requested_at));
            update.require("#requested_at = :requested_before");
            update.values.insert(":requested_before".to_owned(), value(before));
        } else {
            update.set_once("requested_at", value(&job.requested_at));
        }
        update.set("expires_at", self.expires_at.clone());
        if let Some(targets) = &change.targets {
            update.set("targets", number(&targets.count));
            update.set("images", value(&targets.images));
            update.require("attribute_not_exists(#targets)");
        }
        if let Some((seconds, node)) = &change.slowest {
            update.set("slowest_seconds", number(seconds));
            update.set("slowest_node", text(node));
            update.require("(attribute_not_exists(#slowest_seconds) OR #slowest_seconds < :slowest_seconds)");
        }
        if change.is_new {
            update.require("attribute_not_exists(#requested_at)");
        }
        for (name, delta) in change.delta.named() {
            update.add(name, delta);
        }
        self.update(&Key::job(&job.id), update)
    }

    /// Moves the counters of all jobs with the unit's trigger.
    fn totals(&self, unit: &Unit) -> TransactWriteItem {
        let jobs = unit.jobs.values();
        let new = jobs.clone().filter(|change| change.is_new).count();
        let mut delta = Counters::default();
        jobs.for_each(|change| delta += change.delta);
        let mut update = Expression::default();
        let new = ("jobs", i64::try_from(new).expect("a unit has few jobs"));
        for (name, delta) in delta.named().into_iter().chain([new]) {
            update.add(name, delta);
        }
        self.update(&Key::totals(unit.trigger), update)
    }

    fn outbox(&self, unit: &Unit) -> TransactWriteItem {
        let put = self.put(&Key::outbox(&unit.outbox.id), &unit.outbox);
        TransactWriteItem::builder()
            .put(put.build().expect("table and item are set"))
            .build()
    }

    fn put(&self, key: &Key, row: &impl Serialize) -> PutBuilder {
        let mut item: Item = serde_dynamo::to_item(row).expect("a row is an item");
        item.extend(key.item());
        item.insert("expires_at".to_owned(), self.expires_at.clone());
        Put::builder().table_name(self.table).set_item(Some(item))
    }

    fn update(&self, key: &Key, update: Expression) -> TransactWriteItem {
        let update = update.update().table_name(self.table).set_key(Some(key.item()));
        TransactWriteItem::builder()
            .update(update.build().expect("table, key and expression are set"))
            .build()
    }
}

/// An update expression. Every name in it is an alias: many of ours are words that DynamoDB reserves.
#[derive(Default)]
struct Expression {
    set: Vec<String>,
    add: Vec<String>,
    conditions: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    fn set(&mut self, name: &str, value: AttributeValue) {
        self.set.push(format!("#{name} = :{name}"));
        self.bind(name, value);
    }

    /// Sets an attribute that is not there yet.
    fn set_once(&mut self, name: &str, value: AttributeValue) {
        self.set.push(format!("#{name} = if_not_exists(#{name}, :{name})"));
        self.bind(name, value);
    }

    fn add(&mut self, name: &str, delta: i64) {
        self.add.push(format!("#{name} :{name}"));
        self.bind(name, number(&delta));
    }

    fn require(&mut self, condition: &str) {
        self.conditions.push(condition.to_owned());
    }

    fn bind(&mut self, name: &str, value: AttributeValue) {
        self.names.insert(format!("#{name}"), name.to_owned());
        self.values.insert(format!(":{name}"), value);
    }

    fn update(self) -> UpdateBuilder {
        let clauses = [("SET", self.set), ("ADD", self.add)];
        let clauses = clauses.into_iter().filter(|(_, parts)| !parts.is_empty());
        let clauses: Vec<String> = clauses
            .map(|(word, parts)| format!("{word} {}", parts.join(", ")))
            .collect();
        let conditions = (!self.conditions.is_empty()).then(|| self.conditions.join(" AND "));
        Update::builder()
            .update_expression(clauses.join(" "))
            .set_condition_expression(conditions)
            .set_expression_attribute_names(Some(self.names))
            .set_expression_attribute_values(Some(self.values))
    }
}

fn text(text: &impl ToString) -> AttributeValue {
    AttributeValue::S(text.to_string())
}

fn number(number: &impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn value(value: &impl Serialize) -> AttributeValue {
    serde_dynamo::to_attribute_value(value).expect("a field is an attribute")
}

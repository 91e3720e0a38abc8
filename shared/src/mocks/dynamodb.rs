//! The table `outcomes`, as far as the functions use it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use aws_sdk_dynamodb::{
    Client,
    config::retry::RetryConfig,
    operation::{
        batch_get_item::{BatchGetItemError, BatchGetItemInput, BatchGetItemOutput},
        delete_item::{DeleteItemError, DeleteItemOutput},
        put_item::{PutItemError, PutItemOutput},
        query::{QueryError, QueryInput, QueryOutput},
        transact_write_items::{TransactWriteItemsError, TransactWriteItemsInput, TransactWriteItemsOutput},
        update_item::{UpdateItemError, UpdateItemOutput},
    },
    types::{
        AttributeValue, CancellationReason, KeysAndAttributes,
        error::{ConditionalCheckFailedException, TransactionCanceledException},
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use serde_json::Value;

use super::Calls;
use crate::{
    fault,
    rows::{Item, Key},
};

/// The words of a request or of an item of a transaction, which have them under the same names.
macro_rules! words {
    ($of:expr) => {
        Words {
            names: $of.expression_attribute_names(),
            values: $of.expression_attribute_values(),
        }
    };
}

/// The table `outcomes`, as far as the functions use it.
#[derive(Debug, Default)]
pub struct Table {
    /// Says what it holds.
    pub rows: BTreeMap<Key, Item>,
    /// Tells how many rows a page of a Query has.
    pub page: Option<usize>,
    /// The most rows that one BatchGetItem answers.
    pub readable: Option<usize>,
    /// Rows that another writes before the next transaction.
    pub appearing: Option<BTreeMap<Key, Item>>,
    /// Tells whether each conditional write is done once more, as the SDK does where the answer of the first was lost.
    pub writes_twice: bool,
    /// The rows that transactions have put, in their order.
    pub put: Vec<Item>,
    /// The largest transaction so far: its items and its bytes, and the largest item's.
    pub largest: (usize, usize, usize),
}

impl Table {
    /// Reads a row as JSON.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Value> {
        let item = self.rows.get(key).cloned();
        item.map(|item| serde_dynamo::from_item(item).unwrap())
    }

    /// Answers the rows that are there, up to as many as one answer holds, and which others are left.
    fn read(&self, input: &BatchGetItemInput) -> BatchGetItemOutput {
        let asked = &input.request_items().unwrap()["outcomes"];
        assert!(asked.consistent_read() == Some(true) && (1..=100).contains(&asked.keys().len()));
        let readable = asked.keys().len().min(self.readable.unwrap_or(100));
        let (read, left) = asked.keys().split_at(readable);
        let items = read
            .iter()
            .filter_map(|key| self.rows.get(&Key::of(key).unwrap()).cloned())
            .collect();
        let left = (!left.is_empty()).then(|| {
            let left = KeysAndAttributes::builder()
                .consistent_read(true)
                .set_keys(Some(left.to_vec()));
            HashMap::from([("outcomes".to_owned(), left.build().unwrap())])
        });
        BatchGetItemOutput::builder()
            .set_responses(Some(HashMap::from([("outcomes".to_owned(), items)])))
            .set_unprocessed_keys(left)
            .build()
    }

    /// Answers a page of a partition, of the shapes that the functions ask for.
    fn query(&self, input: &QueryInput) -> QueryOutput {
        let words = words!(input);
        let condition = input.key_condition_expression().unwrap();
        let (partition, range) = condition.split_once(" AND ").unwrap_or((condition, ""));
        let partition = words.text(partition.strip_prefix("pk = ").unwrap());
        let after = input.exclusive_start_key().and_then(Key::of);
        let is_backward = input.scan_index_forward() == Some(false);
        let follows = |key: &Key, after: &Key| if is_backward { key < after } else { key > after };
        let is_asked_for = |key: &Key| {
            key.pk == partition && words.is_in(range, &key.sk) && after.as_ref().is_none_or(|after| follows(key, after))
        };
        let limit = input.limit().map(|limit| usize::try_from(limit).unwrap());
        let limit = limit.into_iter().chain(self.page).min().unwrap_or(usize::MAX);
        let mut rows: Vec<_> = self.rows.iter().filter(|(key, _)| is_asked_for(key)).collect();
        if is_backward {
            rows.reverse();
        }
        let page: Vec<_> = rows.into_iter().take(limit).collect();
        // As DynamoDB does, a full page has a last key whether or not rows follow; an empty one ends a list as none does.
        let last = page.last().filter(|_| page.len() == limit);
        let last = last.map_or_else(Item::new, |(key, _)| key.item());
        let items = page.into_iter().map(|(_, item)| item.clone());
        let items = items.filter(|item| words.is_met(input.filter_expression(), Some(item)));
        QueryOutput::builder()
            .set_items(Some(items.collect()))
            .set_last_evaluated_key(Some(last))
            .build()
    }

    /// Writes what becomes of a row, None where it goes, if the condition is met.
    fn write(
        &mut self,
        key: &Key,
        condition: Option<&str>,
        words: Words<'_>,
        become_of: impl Fn(Option<&Item>) -> Option<Item>,
    ) -> Result<(), Box<ConditionalCheckFailedException>> {
        for _ in 0..=usize::from(self.writes_twice && condition.is_some()) {
            let row = self.rows.get(key);
            if !words.is_met(condition, row) {
                let failed = ConditionalCheckFailedException::builder().set_item(row.cloned());
                return Err(Box::new(failed.build()));
            }
            match become_of(row) {
                Some(row) => self.rows.insert(key.clone(), row),
                None => self.rows.remove(key),
            };
        }
        Ok(())
    }

    /// Writes all or nothing, or gives a code for each item as DynamoDB does.
    fn transact(&mut self, input: &TransactWriteItemsInput) -> Result<(), Vec<&'static str>> {
        assert!(input.client_request_token().is_some(), "sent twice it counts once");
        self.rows.extend(self.appearing.take().into_iter().flatten());
        let (mut rows, mut codes, mut sizes) = (self.rows.clone(), Vec::new(), Vec::new());
        for item in input.transact_items() {
            let (key, row, is_met) = match (item.put(), item.update()) {
                (Some(put), None) => {
                    let key = Key::of(put.item()).unwrap();
                    let words = words!(put);
                    let is_met = words.is_met(put.condition_expression(), rows.get(&key));
                    (key, put.item().clone(), is_met)
                }
                (None, Some(update)) => {
                    let key = Key::of(update.key()).unwrap();
                    let words = words!(update);
                    let is_met = words.is_met(update.condition_expression(), rows.get(&key));
                    let row = words.updated(update.update_expression(), rows.get(&key).unwrap_or(update.key()));
                    (key, row, is_met)
                }
                other => panic!("{other:?}"),
            };
            codes.push(if is_met { "None" } else { "ConditionalCheckFailed" });
            sizes.push(size(&AttributeValue::M(row.clone())));
            rows.insert(key, row);
        }
        if codes.iter().any(|code| *code != "None") {
            return Err(codes);
        }
        assert!(rows.len() >= self.rows.len() && sizes.len() <= 100, "each row once");
        let put = input.transact_items().iter().filter_map(|item| item.put());
        self.put.extend(put.map(|put| put.item().clone()));
        let largest = sizes.iter().max().copied().unwrap_or_default();
        self.largest = self.largest.max((sizes.len(), sizes.iter().sum(), largest));
        self.rows = rows;
        Ok(())
    }
}

/// Returns how many bytes DynamoDB takes an attribute for, numbers as their digits (DynamoDB developer guide, item sizes).
fn size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.len(),
        AttributeValue::L(list) => list.iter().map(|value| 1 + size(value)).sum::<usize>() + 3,
        AttributeValue::M(map) => {
            map.iter()
                .map(|(name, value)| 1 + name.len() + size(value))
                .sum::<usize>()
                + 3
        }
        _ => 1,
    }
}

/// Holds what the words of an expression stand for. Expressions are understood in the shapes that the functions write.
#[derive(Clone, Copy)]
struct Words<'a> {
    names: Option<&'a HashMap<String, String>>,
    values: Option<&'a HashMap<String, AttributeValue>>,
}

impl<'a> Words<'a> {
    fn name(&self, word: &'a str) -> &'a str {
        if word.starts_with('#') {
            &self.names.unwrap()[word]
        } else {
            word
        }
    }

    fn value(&self, word: &str) -> &'a AttributeValue {
        &self.values.unwrap()[word]
    }

    fn text(&self, word: &str) -> &'a str {
        self.value(word).as_s().unwrap()
    }

    /// Returns true where a row meets a condition.
    fn is_met(&self, condition: Option<&'a str>, row: Option<&Item>) -> bool {
        let attribute = |word: &'a str| row.and_then(|row| row.get(self.name(word)));
        let number = |value: &AttributeValue| value.as_n().unwrap().parse::<f64>().unwrap();
        let is_met = |condition: &'a str| {
            let condition = condition.trim_matches(['(', ')', ' ']);
            if let Some(word) = condition.strip_prefix("attribute_not_exists(") {
                return attribute(word).is_none();
            }
            let (word, rest) = condition.split_once(' ').unwrap();
            let (operator, value) = rest.split_once(' ').unwrap();
            let value = self.value(value);
            attribute(word).is_some_and(|known| match operator {
                "=" => known == value,
                "<" => number(known) < number(value),
                other => panic!("{other}"),
            })
        };
        condition.is_none_or(|all| all.split(" AND ").all(|any| any.split(" OR ").any(is_met)))
    }

    /// Returns true where a sort key is within the range of a key condition.
    fn is_in(&self, range: &'a str, key: &str) -> bool {
        let start = range
            .strip_prefix("begins_with(sk, ")
            .map(|start| start.trim_end_matches(')'));
        match (
            start,
            range.strip_prefix("sk BETWEEN ").map(|rest| rest.split_once(" AND ")),
        ) {
            (Some(start), _) => key.starts_with(self.text(start)),
            (_, Some(Some((first, last)))) => (self.text(first)..=self.text(last)).contains(&key),
            _ => range.is_empty(),
        }
    }

    /// Carries out an update.
    fn updated(&self, expression: &'a str, row: &Item) -> Item {
        let mut row = row.clone();
        let (set, add) = expression.split_once("ADD ").unwrap_or((expression, ""));
        let set = set.trim().strip_prefix("SET ").unwrap_or_default();
        let mut parts = set.split(", ").filter(|part| !part.is_empty());
        while let Some(part) = parts.next() {
            let (path, mut value) = part.split_once(" = ").unwrap();
            if value.starts_with("if_not_exists(") {
                value = parts.next().unwrap().trim_end_matches(')');
                if row.contains_key(self.name(path)) {
                    continue;
                }
            }
            let value = self.value(value).clone();
            match path.split_once('.') {
                None => row.insert(self.name(path).to_owned(), value),
                Some((map, entry)) => {
                    let Some(AttributeValue::M(map)) = row.get_mut(self.name(map)) else {
                        panic!("{map} is no map")
                    };
                    map.insert(self.name(entry).to_owned(), value)
                }
            };
        }
        for part in add.split(", ").filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once(' ').unwrap();
            let number = |value: &AttributeValue| value.as_n().unwrap().parse::<i64>().unwrap();
            let sum = row.get(self.name(name)).map_or(0, number) + number(self.value(value));
            row.insert(self.name(name).to_owned(), AttributeValue::N(sum.to_string()));
        }
        row
    }
}

/// Returns a client of the table that is part of a test's state, as are the calls.
pub fn dynamodb<S: Send + 'static>(state: &Arc<Mutex<S>>, parts: fn(&mut S) -> (&mut Calls, &mut Table)) -> Client {
    let shared = Arc::clone(state);
    let read = mock!(Client::batch_get_item).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, table) = parts(&mut state);
        match calls.note("BatchGetItem") {
            Some(code) => fault!(aws_sdk_dynamodb, BatchGetItemError, code),
            None => MockResponse::Output(table.read(input)),
        }
    });
    let shared = Arc::clone(state);
    let query = mock!(Client::query).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, table) = parts(&mut state);
        match calls.note("Query") {
            Some(code) => fault!(aws_sdk_dynamodb, QueryError, code),
            None => MockResponse::Output(table.query(input)),
        }
    });
    let shared = Arc::clone(state);
    let put = mock!(Client::put_item).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, table) = parts(&mut state);
        if let Some(code) = calls.note("PutItem") {
            return fault!(aws_sdk_dynamodb, PutItemError, code);
        }
        let (item, words) = (input.item().unwrap(), words!(input));
        let key = Key::of(item).unwrap();
        match table.write(&key, input.condition_expression(), words, |_| Some(item.clone())) {
            Ok(()) => MockResponse::Output(PutItemOutput::builder().build()),
            Err(failed) => MockResponse::Error(PutItemError::ConditionalCheckFailedException(*failed)),
        }
    });
    let shared = Arc::clone(state);
    let update = mock!(Client::update_item).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, table) = parts(&mut state);
        if let Some(code) = calls.note("UpdateItem") {
            return fault!(aws_sdk_dynamodb, UpdateItemError, code);
        }
        let (key, words) = (input.key().unwrap(), words!(input));
        let expression = input.update_expression().unwrap();
        let changed = |row: Option<&Item>| Some(words.updated(expression, row.unwrap_or(key)));
        match table.write(&Key::of(key).unwrap(), input.condition_expression(), words, changed) {
            Ok(()) => MockResponse::Output(UpdateItemOutput::builder().build()),
            Err(failed) => MockResponse::Error(UpdateItemError::ConditionalCheckFailedException(*failed)),
        }
    });
    let shared = Arc::clone(state);
    let delete = mock!(Client::delete_item).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, table) = parts(&mut state);
        if let Some(code) = calls.note("DeleteItem") {
            return fault!(aws_sdk_dynamodb, DeleteItemError, code);
        }
        let key = Key::of(input.key().unwrap()).unwrap();
        match table.write(&key, input.condition_expression(), words!(input), |_| None) {
            Ok(()) => MockResponse::Output(DeleteItemOutput::builder().build()),
            Err(failed) => MockResponse::Error(DeleteItemError::ConditionalCheckFailedException(*failed)),
        }
    });
    let shared = Arc::clone(state);
    let transact = mock!(Client::transact_write_items).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let (calls, table) = parts(&mut state);
        let written = match calls.note("TransactWriteItems") {
            Some("Lost") => {
                table.transact(input).unwrap();
                return fault!(aws_sdk_dynamodb, TransactWriteItemsError, "InternalServerError");
            }
            Some(code @ ("TransactionConflict" | "ThrottlingError")) => Err(vec![code]),
            Some(code) => return fault!(aws_sdk_dynamodb, TransactWriteItemsError, code),
            None => table.transact(input),
        };
        match written {
            Ok(()) => MockResponse::Output(TransactWriteItemsOutput::builder().build()),
            Err(codes) => {
                let rows = input.transact_items().iter().map(|item| {
                    let put = item
                        .put()
                        .filter(|put| put.return_values_on_condition_check_failure().is_some());
                    put.and_then(|put| table.rows.get(&Key::of(put.item()).unwrap()).cloned())
                });
                let reasons = codes.iter().zip(rows).map(|(code, row)| {
                    let row = row.filter(|_| *code == "ConditionalCheckFailed");
                    CancellationReason::builder().code(*code).set_item(row).build()
                });
                let cancelled =
                    TransactionCanceledException::builder().set_cancellation_reasons(Some(reasons.collect()));
                MockResponse::Error(TransactWriteItemsError::TransactionCanceledException(cancelled.build()))
            }
        }
    });
    let all = [&read, &query, &put, &update, &delete, &transact];
    mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, all, |config| {
        config.retry_config(RetryConfig::disabled())
    })
}

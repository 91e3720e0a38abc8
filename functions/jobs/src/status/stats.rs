//! GET /jobs/stats: what became of all jobs.

use std::collections::BTreeMap;

use prefetch::{
    command::Trigger,
    rows::{Counters, Key},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    http::{answer::Answer, problem::Problem},
    status::job::count,
    store::{Store, StoreError},
};

/// Holds what is read of the row of a trigger.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Totals {
    #[serde(default)]
    jobs: i64,
    #[serde(flatten)]
    counters: Counters,
}

/// Counts nodes by what became of them, by trigger and in total: one Query. What was best effort is not in the total.
///
/// # Errors
/// A 503 where the table cannot be read.
pub async fn stats(store: &Store) -> Result<Answer, Problem> {
    let totals = totals(store).await.map_err(Problem::unavailable)?;
    let counting = totals.iter().filter(|(trigger, _)| !trigger.is_best_effort());
    let sum = counting.fold(Totals::default(), |sum, (_, totals)| Totals {
        jobs: sum.jobs + totals.jobs,
        counters: sum.counters + totals.counters,
    });
    let mut answer = sum.to_json();
    let triggers: Map<String, Value> = totals
        .iter()
        .map(|(trigger, totals)| (trigger.to_string(), Value::Object(totals.to_json())))
        .collect();
    answer.insert("triggers".to_owned(), Value::Object(triggers));
    Ok(Answer::ok(&answer))
}

impl Totals {
    fn to_json(self) -> Map<String, Value> {
        let counters = self.counters;
        let totals = json!({
            "jobs": count(self.jobs), "succeeded": count(counters.pulled + counters.cached),
            "pulled": count(counters.pulled), "cached": count(counters.cached), "skipped": count(counters.skipped),
            "failed": count(counters.failed), "notApplicable": count(counters.not_applicable),
            "retried": count(counters.retried), "bytes": count(counters.bytes),
        });
        totals.as_object().cloned().unwrap_or_default()
    }
}

/// Reads the row of each trigger that has one; there are seven of them.
async fn totals(store: &Store) -> Result<BTreeMap<Trigger, Totals>, StoreError> {
    #[derive(Deserialize)]
    struct Row {
        sk: Trigger,
        #[serde(flatten)]
        totals: Totals,
    }
    let (items, _) = store.page(&Key::totals(Trigger::Job).pk, None, None).await?;
    let rows: Vec<Row> = serde_dynamo::from_items(items)?;
    Ok(rows.into_iter().map(|row| (row.sk, row.totals)).collect())
}

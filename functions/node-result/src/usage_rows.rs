//! Usage rows: what nodes run is written where a report changes what is known, and read where this process does not know it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use chrono::{Days, NaiveTime};
use futures_util::{StreamExt, stream};
use prefetch::{
    expiry::expires_at,
    rows::{Item, Key, UsageRow},
};

use crate::{
    decision::{Decision, DecisionReason, Explanation},
    observation::Decisions,
    table::{Replaced, Table, TableError},
    usage::Said,
};

/// Limits how many rows a process remembers: one takes up to 5 KB of the function's 128 MB.
const MAX_REMEMBERED: usize = 8_000;
/// Limits how often a row is written that others write at the same time: of all who try, one is through each time.
const WRITES: usize = 8;
/// Limits the rows that are written at a time.
const AT_ONCE: usize = 10;

/// Maps keys to rows, as this process read or wrote them last.
///
/// Such a row may be behind the table's, and never ahead: what says nothing new to it says nothing new to the table's.
type Known = BTreeMap<Key, UsageRow>;

/// Holds the rows of what nodes run, as far as this process knows them.
pub struct UsageRows {
    known: Mutex<Known>,
    /// Tells for how many days after the last on which an image was seen its row is kept.
    within: u32,
}

impl UsageRows {
    pub fn new(within: u32) -> Self {
        let known = Mutex::default();
        Self { known, within }
    }

    /// Takes in what reports say; gives the decisions of those of which something could not be taken in.
    ///
    /// It costs one BatchGetItem for each 100 rows that are not remembered or change, and one PutItem for each row that changes,
    /// or more where others write it at the same time.
    pub async fn take(&self, said: &[Said], table: &Table) -> Decisions {
        let told = merged(said);
        let mut known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        let failed = match read(table, &told, &mut known).await {
            Ok(()) => self.write(table, &told, &mut known).await,
            Err(error) => {
                let decision = Decision::aws_error(&error);
                told.into_keys().map(|key| (key, decision.clone())).collect()
            }
        };
        self.remember(known);
        let handed_back = |said: &Said| {
            let decision = said.rows.keys().find_map(|key| failed.get(key))?;
            Some((said.event.clone(), decision.clone()))
        };
        said.iter().filter_map(handed_back).collect()
    }

    /// Writes those rows that change; gives the decisions about those that could not be written.
    async fn write(&self, table: &Table, told: &BTreeMap<Key, UsageRow>, known: &mut Known) -> BTreeMap<Key, Decision> {
        let changes = told.iter().map(|(key, told)| (key, told, known.get(key)));
        let changes = changes.filter(|(_, told, before)| *before != Some(&folded(*before, told)));
        let written = stream::iter(changes)
            .map(async |(key, told, before)| (key, self.write_one(table, key, told, before.cloned()).await))
            .buffer_unordered(AT_ONCE);
        let written: Vec<_> = written.collect().await;
        let mut failed = BTreeMap::new();
        for (key, row) in written {
            match row {
                Ok(row) => {
                    known.insert(key.clone(), row);
                }
                Err(error) => {
                    known.remove(key);
                    failed.insert(key.clone(), decision(&error));
                }
            }
        }
        failed
    }

    /// Writes a row, on what others have written meanwhile; gives it as it then stands in the table.
    async fn write_one(
        &self,
        table: &Table,
        key: &Key,
        told: &UsageRow,
        mut before: Option<UsageRow>,
    ) -> Result<UsageRow, TableError> {
        for _ in 0..WRITES {
            let after = folded(before.as_ref(), told);
            if before.as_ref() == Some(&after) {
                return Ok(after);
            }
            let version = before.map(|before| before.version);
            match table.replace(version, self.item(key, &after)).await? {
                Replaced::Written => return Ok(after),
                Replaced::Refused(row) => before = row.map(serde_dynamo::from_item).transpose()?,
            }
        }
        Err(TableError::Contended)
    }

    /// Writes a row as an item, which expires once the image counts as used no more.
    fn item(&self, key: &Key, row: &UsageRow) -> Item {
        let until = row.last() + Days::new(u64::from(self.within) + 1);
        let mut item: Item = serde_dynamo::to_item(row).expect("a row is an item");
        item.extend(key.item());
        item.insert(
            "expires_at".to_owned(),
            expires_at(until.and_time(NaiveTime::MIN).and_utc()),
        );
        item
    }

    /// Remembers rows; of too many none, for which are needed next nobody knows.
    fn remember(&self, known: Known) {
        let known = if known.len() > MAX_REMEMBERED {
            Known::new()
        } else {
            known
        };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Puts together what reports say of each row.
fn merged(said: &[Said]) -> BTreeMap<Key, UsageRow> {
    let mut told: BTreeMap<Key, UsageRow> = BTreeMap::new();
    for (key, row) in said.iter().flat_map(|said| &said.rows) {
        match told.get_mut(key) {
            Some(known) => known.merge(row),
            None => {
                told.insert(key.clone(), row.clone());
            }
        }
    }
    told
}

/// Reads those rows that are not remembered, or to which something new is said: another process may know it already, and a write
/// that is refused costs more than what is read.
async fn read(table: &Table, told: &BTreeMap<Key, UsageRow>, known: &mut Known) -> Result<(), TableError> {
    let says_new = |(key, told): &(&Key, &UsageRow)| {
        let known = known.get(key);
        known != Some(&folded(known, told))
    };
    let asked: BTreeSet<Key> = told.iter().filter(says_new).map(|(key, _)| key.clone()).collect();
    let rows = table.read(&asked).await?;
    for key in asked {
        match rows.get(&key) {
            Ok(Some(row)) => {
                known.insert(key, row);
            }
            Ok(None) => {
                known.remove(&key);
            }
            // One that is remembered, and cannot be understood any more, holds up no other: its write tells.
            Err(_) if known.contains_key(&key) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Folds what is told of a row into what is known of it; where nothing of it is new the row stays as it is.
fn folded(before: Option<&UsageRow>, told: &UsageRow) -> UsageRow {
    let mut after = before.unwrap_or(told).clone();
    after.merge(told);
    if before != Some(&after) {
        after.version = before.map_or(0, |before| before.version) + 1;
    }
    after
}

fn decision(error: &TableError) -> Decision {
    match error {
        TableError::Contended => {
            let message = "others kept writing what the nodes of its rule run";
            Decision::HandedBack(Explanation::new(DecisionReason::Contended, message))
        }
        error => Decision::aws_error(error),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{
        Client,
        operation::{batch_get_item::BatchGetItemOutput, put_item::PutItemError},
        types::error::ConditionalCheckFailedException,
    };
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use chrono::NaiveDate;

    use super::*;
    use crate::{
        cloud::{COMMAND, Cloud, image, now, requested_at},
        event::CommandEnded,
    };

    fn rows(number: usize) -> Known {
        let day = NaiveDate::from_ymd_opt(2026, 12, 1).unwrap();
        let row = |k| UsageRow::new(image(k).parse().unwrap(), day, 0);
        (0..number)
            .map(row)
            .map(|row| (Key::usage("gpu", &row.image), row))
            .collect()
    }

    #[tokio::test]
    async fn what_is_said_of_a_row_that_others_keep_writing_is_handed_back() {
        let read = mock!(Client::batch_get_item).then_output(|| BatchGetItemOutput::builder().build());
        let write = mock!(Client::put_item).then_error(|| {
            let refused = ConditionalCheckFailedException::builder().build();
            PutItemError::ConditionalCheckFailedException(refused)
        });
        let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&read, &write]);
        let said = Said {
            event: CommandEnded {
                command: COMMAND.to_owned(),
                node: None,
                requested_at: requested_at(),
                time: now(),
                overdue: false,
            },
            rows: rows(1),
        };
        let usage = UsageRows::new(14);
        let table = Table::new(client, &Cloud::new().result.settings);
        let decisions = usage.take(std::slice::from_ref(&said), &table).await;
        let Some(Decision::HandedBack(explanation)) = decisions.get(&said.event) else {
            panic!("{decisions:?}")
        };
        assert_eq!(
            (explanation.reason, write.num_calls()),
            (DecisionReason::Contended, WRITES)
        );
        assert!(usage.known.lock().unwrap().is_empty());
    }

    #[test]
    fn as_many_rows_are_remembered_as_there_is_room_for() {
        let usage = UsageRows::new(14);
        for (number, remembered) in [(MAX_REMEMBERED, MAX_REMEMBERED), (MAX_REMEMBERED + 1, 0)] {
            usage.remember(rows(number));
            assert_eq!(usage.known.lock().unwrap().len(), remembered);
        }
    }

    #[test]
    fn a_row_is_kept_until_the_end_of_the_last_day_on_which_it_counts() {
        let (key, row) = rows(1).into_iter().next().unwrap();
        let item = UsageRows::new(14).item(&key, &row);
        let until: chrono::DateTime<chrono::Utc> = "2026-12-16T00:00:00Z".parse().unwrap();
        assert_eq!(item["expires_at"].as_n(), Ok(&until.timestamp().to_string()));
        assert!(row.is_within(14, until.date_naive().pred_opt().unwrap()));
        assert!(!row.is_within(14, until.date_naive()));
    }
}

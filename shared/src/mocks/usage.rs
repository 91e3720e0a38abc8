//! Rows of what nodes run.

use chrono::NaiveDate;

use super::dynamodb::Table;
use crate::{
    named_images::NamedRow,
    rows::{Item, Key, UsageDay, UsageRow},
};

/// Makes the row of an image that so many nodes ran on a day.
#[must_use]
pub fn ran(image: &str, nodes: usize, day: NaiveDate) -> UsageRow {
    let mut of_day = UsageDay::default();
    (0..nodes).for_each(|node| of_day.running.add(&format!("i-{node:017x}")));
    let mut row = UsageRow::new(image.parse().unwrap(), day, 1 << 20);
    row.days.insert(day, of_day);
    row
}

/// Has the table tell it of a rule's nodes.
pub fn note_use(table: &mut Table, rule: &str, row: &UsageRow) {
    let key = Key::usage(rule, &row.image);
    let mut item: Item = serde_dynamo::to_item(row).unwrap();
    item.extend(key.item());
    table.rows.insert(key, item);
}

/// Has the table tell what an image is that a rule names itself by this text.
pub fn note_named(table: &mut Table, rule: &str, text: &str, image: &str) {
    let images = [(text.to_owned(), image.parse().unwrap())].into();
    let key = Key::named_images(rule);
    let mut item: Item = serde_dynamo::to_item(NamedRow { images }).unwrap();
    item.extend(key.item());
    table.rows.insert(key, item);
}

//! The answer about what nodes run.

use chrono::NaiveDate;
use prefetch::{image::Image, rows::UsageRow};
use serde::Serialize;

use crate::http::query::{Page, token};

/// Holds a page of the images that a rule's nodes run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageList<'a> {
    rule: &'a str,
    /// True once a node has told what it runs.
    known: bool,
    /// The first day of which something is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<NaiveDate>,
    used_within_days: u32,
    images: Vec<UsedImage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Describes an image that nodes run, or lately ran.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UsedImage<'a> {
    image: &'a Image,
    first_seen: NaiveDate,
    last_seen: NaiveDate,
    /// Counts the nodes on which it ran, on that of the last two days on which it was seen that has more of them.
    nodes: u64,
    /// Counts those of them to which prefetch had brought it.
    prefetched_nodes: u64,
    /// True where the numbers of nodes are estimates.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
    bytes: u64,
}

impl<'a> UsageList<'a> {
    /// Describes a page of a rule's rows, which come in the order of their names; a page goes on after a name.
    pub fn of(rule: &'a str, used_within_days: u32, rows: &'a [UsageRow], page: &Page<String>) -> Self {
        let mut named: Vec<(String, &UsageRow)> = rows.iter().map(|row| (row.image.to_string(), row)).collect();
        named.sort_by(|(one, _), (other, _)| one.cmp(other));
        let begin = page
            .next
            .as_ref()
            .map_or(0, |after| named.partition_point(|(name, _)| name <= after));
        let end = named.len().min(begin + page.limit);
        let is_last = end == named.len();
        Self {
            rule,
            known: !rows.is_empty(),
            since: rows.iter().map(|row| row.first).min(),
            used_within_days,
            next: named[begin..end]
                .last()
                .filter(|_| !is_last)
                .map(|(name, _)| token(name)),
            images: named[begin..end].iter().map(|(_, row)| UsedImage::of(row)).collect(),
        }
    }
}

impl<'a> UsedImage<'a> {
    fn of(row: &'a UsageRow) -> Self {
        Self {
            image: &row.image,
            first_seen: row.first,
            last_seen: row.last(),
            nodes: row.nodes(),
            prefetched_nodes: row.prefetched_nodes(),
            estimated: row.is_estimated(),
            bytes: row.bytes,
        }
    }
}

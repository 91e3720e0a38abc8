//! Counts of a replay: which pods found their image, and what became of the bytes that were brought.

use std::{collections::BTreeMap, fmt};

use crate::world::{DAY, Layer, Why, YEAR};

/// Prefetched bytes are to be used within so long. What comes later than this before the year's end is not judged.
const TO_BE_USED: u32 = 7 * DAY;

pub const GIGABYTE: u64 = 1_000_000_000;
pub const TERABYTE: u64 = 1_000 * GIGABYTE;

/// Tells what brought an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    Push,
    Launch,
    Reconcile,
}

/// Bytes that were brought at least 7 days before the year's end, and those of them that were used: by the node's own pods, or
/// by any node's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    pub all: u64,
    pub used_on_node: u64,
    pub used_anywhere: u64,
}

#[derive(Debug, Default)]
pub struct Tally {
    /// Pods that started and those that found their image, by why they started.
    pub starts: BTreeMap<Why, (u64, u64)>,
    pub brought: u64,
    pub judged: BTreeMap<By, Bytes>,
    pub fullest_node: u64,
}

impl Tally {
    pub fn started(&mut self, why: Why, is_there: bool) {
        if why != Why::Before {
            let (all, found) = self.starts.entry(why).or_default();
            *all += 1;
            *found += u64::from(is_there);
        }
    }

    pub fn brought(&mut self, layer: &Layer, at: u32, by: By) {
        self.brought += layer.bytes;
        if is_judged(at) {
            let judged = self.judged.entry(by).or_default();
            judged.all += layer.bytes;
            let (first, last) = layer.ran;
            if first <= at + TO_BE_USED && at <= last {
                judged.used_anywhere += layer.bytes;
            }
        }
    }

    pub fn uses(&mut self, layer: &Layer, (since, by): (u32, By), at: u32) {
        if is_judged(since) && at - since <= TO_BE_USED {
            self.judged.entry(by).or_default().used_on_node += layer.bytes;
        }
    }

    /// Returns the percentage of pods that found their image.
    pub fn hit_rate(&self) -> f64 {
        let (all, found) = self
            .starts
            .values()
            .fold((0, 0), |sum, (all, found)| (sum.0 + all, sum.1 + found));
        percent(found, all)
    }

    /// Returns the percentage of bytes that pods of any node used.
    pub fn used_anywhere(&self) -> f64 {
        self.used(|bytes| bytes.used_anywhere)
    }

    /// Returns the percentage of bytes that pods of the node used to which they were brought.
    pub fn used_on_node(&self) -> f64 {
        self.used(|bytes| bytes.used_on_node)
    }

    fn used(&self, part: fn(&Bytes) -> u64) -> f64 {
        let sum = |part: fn(&Bytes) -> u64| self.judged.values().map(part).sum();
        percent(sum(part), sum(|bytes| bytes.all))
    }
}

impl fmt::Display for Tally {
    /// Says what the figures come from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (why, (all, found)) in &self.starts {
            write!(f, "\n    {why:?}: {} of {all} pods waited", all - found)?;
        }
        for (by, bytes) in &self.judged {
            let shares = [bytes.used_anywhere, bytes.used_on_node].map(|used| percent(used, bytes.all));
            let all = bytes.all / TERABYTE;
            write!(f, "\n    {by:?}: {all} TB, {:.0} / {:.0} % used", shares[0], shares[1])?;
        }
        Ok(())
    }
}

fn is_judged(at: u32) -> bool {
    at + TO_BE_USED < YEAR
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        100.0 * part as f64 / whole as f64
    }
}

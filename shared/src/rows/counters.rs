//! A job's counters.

use std::ops::{Add, AddAssign, Sub};

use serde::Deserialize;

/// A job's counters: nodes by status, retries, and the bytes that were pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Nodes that pulled.
    pub pulled: i64,
    /// Nodes that had all.
    pub cached: i64,
    /// Nodes that left something out.
    pub skipped: i64,
    /// Nodes where something failed.
    pub failed: i64,
    /// Nodes that can hold none of the images: they are none of the job, and in no share of its nodes.
    pub not_applicable: i64,
    /// Nodes that wait for a retry.
    pub retrying: i64,
    /// Retries.
    pub retried: i64,
    /// Bytes that were pulled, compressed.
    pub bytes: i64,
}

impl Counters {
    /// Gives each counter with its name.
    #[must_use]
    pub fn named(self) -> [(&'static str, i64); 8] {
        [
            ("pulled", self.pulled),
            ("cached", self.cached),
            ("skipped", self.skipped),
            ("failed", self.failed),
            ("not_applicable", self.not_applicable),
            ("retrying", self.retrying),
            ("retried", self.retried),
            ("bytes", self.bytes),
        ]
    }

    /// Returns how many nodes were counted, those that are none of the job included.
    #[must_use]
    pub fn nodes(self) -> i64 {
        self.pulled + self.cached + self.skipped + self.failed + self.not_applicable
    }

    fn zip(self, other: Self, of: impl Fn(i64, i64) -> i64) -> Self {
        Self {
            pulled: of(self.pulled, other.pulled),
            cached: of(self.cached, other.cached),
            skipped: of(self.skipped, other.skipped),
            failed: of(self.failed, other.failed),
            not_applicable: of(self.not_applicable, other.not_applicable),
            retrying: of(self.retrying, other.retrying),
            retried: of(self.retried, other.retried),
            bytes: of(self.bytes, other.bytes),
        }
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, i64::add)
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, i64::sub)
    }
}

//! Usage: what reports say of a rule's use of images, as rows that may be taken in in any order, and more than once.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use prefetch::{
    command::Trigger,
    outcome::Status,
    rows::{Key, UsageRow},
    usage_line::UsageLine,
};

use crate::{
    event::CommandEnded,
    observation::{NodeUsage, Observation},
};

/// Limits how long ago a report is believed to have ended: events are tried again for less.
const BELIEVED: TimeDelta = TimeDelta::days(7);
/// Lists what somebody asked for: what it brought counts as used, and its nodes need not be the rule's.
const ASKED_FOR: [Trigger; 2] = [Trigger::Job, Trigger::Schedule];

/// Tells what a report says of its rule's use of images.
#[derive(Clone, Debug)]
pub struct Said {
    pub event: CommandEnded,
    /// The rows as they would be if nothing else were known.
    pub rows: BTreeMap<Key, UsageRow>,
}

/// Tells what reports say: which images their nodes run, or ran within so many days, and which were brought because somebody
/// asked for them.
pub fn said(observations: &[Observation], usage: &[NodeUsage], within: u32, now: DateTime<Utc>) -> Vec<Said> {
    let brought = observations.iter().filter_map(|observation| brought(observation, now));
    let of_rule = usage.iter().filter(|usage| !ASKED_FOR.contains(&usage.job.trigger));
    let seen = of_rule.map(|usage| seen(usage, within, now));
    brought.chain(seen).filter(|said| !said.rows.is_empty()).collect()
}

/// Tells which images a job or a schedule has brought: they count as used, though no node runs them yet. What was there already
/// does not: a schedule would keep for ever what nothing uses.
fn brought(observation: &Observation, now: DateTime<Utc>) -> Option<Said> {
    let (event, report) = observation.of_node()?;
    if !ASKED_FOR.contains(&observation.job.trigger) {
        return None;
    }
    let day = moment(report.ended_at, now).date_naive();
    let warm = report
        .outcomes
        .iter()
        .filter(|(_, outcome)| outcome.reported && outcome.status == Status::Pulled);
    Some(Said {
        event: event.clone(),
        rows: rows(
            &observation.job.rule,
            warm.map(|(image, _)| UsageRow::new(image.clone(), day, 0)),
        ),
    })
}

/// Tells which images a node runs, or ran within so many days.
fn seen(usage: &NodeUsage, within: u32, now: DateTime<Utc>) -> Said {
    let told_at = moment(usage.ended_at, now);
    let seen = usage.lines.iter().map(|line| row(line, &usage.node, told_at));
    Said {
        event: usage.event.clone(),
        rows: rows(
            &usage.job.rule,
            seen.filter(|row| row.is_within(within, told_at.date_naive())),
        ),
    }
}

/// Tells of an image on a day of a report; of one that nothing uses any more, on the day on which it was pulled.
fn row(line: &UsageLine, node: &str, told_at: DateTime<Utc>) -> UsageRow {
    let day = told_at.date_naive();
    let day = line.pulled_at.map_or(day, |pulled_at| pulled_at.date_naive().min(day));
    let mut row = UsageRow::new(line.image.clone(), day, line.bytes);
    row.told_at = Some(told_at);
    let of_day = row.days.entry(day).or_default();
    if line.running > 0 {
        of_day.running.add(node);
        if line.prefetched {
            of_day.prefetched.add(node);
        }
    }
    row
}

/// Puts rows under their keys; of two of one image both count.
fn rows(rule: &str, rows: impl Iterator<Item = UsageRow>) -> BTreeMap<Key, UsageRow> {
    let mut by_key: BTreeMap<Key, UsageRow> = BTreeMap::new();
    for row in rows {
        by_key
            .entry(Key::usage(rule, &row.image))
            .and_modify(|known| known.merge(&row))
            .or_insert(row);
    }
    by_key
}

/// Gives the moment of a report, to the second as rows keep it: a node's clock is not believed where it is ahead, or far behind.
fn moment(ended_at: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    ended_at.clamp(now - BELIEVED, now).trunc_subsecs(0)
}

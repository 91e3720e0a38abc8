//! What nodes hold, as it changes with what their commands report.

use std::collections::{BTreeMap, btree_map::Entry};

use prefetch::{
    outcome::Status,
    rows::{Held, Key},
    table::Rows,
};

use crate::{
    changes::Unit,
    observation::{Finding, Report},
};

/// How what a node holds changes.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldChange {
    /// The version of the row that it takes the place of; none where there is no row.
    pub before: Option<u32>,
    pub after: Held,
}

impl HeldChange {
    fn of(before: Option<Held>) -> Self {
        let version = before.as_ref().map(|held| held.version);
        let mut after = before.unwrap_or_default();
        after.version += 1;
        Self { before: version, after }
    }

    fn take(&mut self, job: &str, report: &Report) {
        for (image, outcome) in &report.outcomes {
            self.after.fold(image, outcome, report.ended_at, job);
        }
    }
}

/// Whether findings tell something new of what their nodes hold.
///
/// # Errors
/// A row that cannot be read.
pub fn is_news(findings: &[Finding], rows: &Rows) -> Result<bool, serde_dynamo::Error> {
    for (job, report) in findings.iter().filter_map(job_and_report) {
        let change = HeldChange::of(rows.get(&Key::held(&report.node))?);
        let mut told = change.clone();
        told.take(job, report);
        if told != change {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Has units, in the order in which they are written, say what their nodes hold then.
///
/// What several jobs tell of one node is one change within a unit, and the change of a later unit stands on that of an
/// earlier one: where that is not written the later one is not either, for its version does not fit.
///
/// # Errors
/// A row that cannot be read.
pub fn take_held(units: &mut [Unit], rows: &Rows) -> Result<(), serde_dynamo::Error> {
    let mut known: BTreeMap<String, Held> = BTreeMap::new();
    for unit in units {
        let findings = unit.findings.iter().map(|(finding, _)| finding);
        let mut reports: Vec<_> = findings.filter_map(job_and_report).collect();
        reports.sort_by_key(|(_, report)| report.ended_at);
        for (job, report) in reports {
            let change = match unit.held.entry(report.node.clone()) {
                Entry::Occupied(change) => change.into_mut(),
                Entry::Vacant(place) => {
                    let before = known.get(&report.node).cloned();
                    let before = before.map_or_else(|| rows.get(&Key::held(&report.node)), |held| Ok(Some(held)))?;
                    place.insert(HeldChange::of(before))
                }
            };
            change.take(job, report);
        }
        let after = unit.held.iter();
        known.extend(after.map(|(node, change)| (node.clone(), change.after.clone())));
    }
    Ok(())
}

/// Gives the job and the report of a finding that says something of what its node holds, or of what failed there.
fn job_and_report(finding: &Finding) -> Option<(&str, &Report)> {
    let (_, report) = finding.report()?;
    let says_something = report
        .outcomes
        .values()
        .any(|outcome| outcome.reported || outcome.status == Status::Failed);
    says_something.then_some((finding.job.id.as_str(), report))
}

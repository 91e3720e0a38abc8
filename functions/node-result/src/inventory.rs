//! Inventories: the images that nodes are known to have, as they change with what their commands report.

use std::collections::{BTreeMap, btree_map::Entry};

use prefetch::{
    outcome::Status,
    rows::{Inventory, Key},
    table::Rows,
};

use crate::observation::{NodeOutcomes, Observation};

/// Tells how a node's inventory changes.
#[derive(Clone, Debug, PartialEq)]
pub struct InventoryChange {
    /// The version of the row that it takes the place of; none where there is no row.
    pub before: Option<u32>,
    pub after: Inventory,
}

impl InventoryChange {
    fn of(before: Option<Inventory>) -> Self {
        let version = before.as_ref().map(|inventory| inventory.version);
        let mut after = before.unwrap_or_default();
        after.version += 1;
        Self { before: version, after }
    }

    fn take(&mut self, job: &str, report: &NodeOutcomes) {
        for (image, outcome) in &report.outcomes {
            self.after.fold(image, outcome, report.ended_at, job);
        }
    }
}

/// Returns true where observations tell something new of their nodes' inventories.
///
/// # Errors
/// A row that cannot be read.
pub fn is_news(observations: &[Observation], rows: &Rows) -> Result<bool, serde_dynamo::Error> {
    for (job, report) in observations.iter().filter_map(job_and_report) {
        let change = InventoryChange::of(rows.get(&Key::inventory(&report.node))?);
        let mut told = change.clone();
        told.take(job, report);
        if told != change {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Holds the inventories of nodes as they are once all transactions are written whose observations were taken.
pub struct Inventories<'a> {
    rows: &'a Rows,
    known: BTreeMap<String, Inventory>,
}

impl<'a> Inventories<'a> {
    pub fn new(rows: &'a Rows) -> Self {
        let known = BTreeMap::new();
        Self { rows, known }
    }

    /// Takes in the observations of a transaction; gives the changes of their nodes' inventories.
    ///
    /// Several jobs' reports of one node are one change within a transaction, and the change of a later transaction stands on
    /// that of an earlier one: where that is not written the later one is not either, for its version does not fit.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn take<'o>(
        &mut self,
        observations: impl Iterator<Item = &'o Observation>,
    ) -> Result<BTreeMap<String, InventoryChange>, serde_dynamo::Error> {
        let mut changes = BTreeMap::new();
        let mut reports: Vec<_> = observations.filter_map(job_and_report).collect();
        reports.sort_by_key(|(_, report)| report.ended_at);
        for (job, report) in reports {
            let change: &mut InventoryChange = match changes.entry(report.node.clone()) {
                Entry::Occupied(change) => change.into_mut(),
                Entry::Vacant(place) => place.insert(InventoryChange::of(self.of(&report.node)?)),
            };
            change.take(job, report);
        }
        let after = changes.iter();
        self.known
            .extend(after.map(|(node, change)| (node.clone(), change.after.clone())));
        Ok(changes)
    }

    fn of(&self, node: &str) -> Result<Option<Inventory>, serde_dynamo::Error> {
        match self.known.get(node) {
            Some(inventory) => Ok(Some(inventory.clone())),
            None => self.rows.get(&Key::inventory(node)),
        }
    }
}

/// Gives the job and the report of an observation that says something of what its node has, or of what failed there.
fn job_and_report(observation: &Observation) -> Option<(&str, &NodeOutcomes)> {
    let (_, report) = observation.of_node()?;
    let says_something = report
        .outcomes
        .values()
        .any(|outcome| outcome.reported || outcome.status == Status::Failed);
    says_something.then_some((observation.job.id.as_str(), report))
}

//! Changes: how observations change what is known of jobs and their nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use chrono::{DateTime, Utc};
use prefetch::{
    command::Trigger,
    rows::{Counters, Key},
    table::Rows,
};
use serde::Deserialize;

use crate::{
    decision::{Settled, SettledNode},
    event::CommandEnded,
    inventory::is_news,
    node_state::{NodeChange, NodeState},
    observation::{Job, NodeOutcomes, Observation, ObservationKind, Targets},
    retry::RetryPolicy,
};

/// Holds what observations change, and those that change nothing.
#[derive(Debug, Default)]
pub struct Changes {
    pub changed: Vec<Change>,
    pub unchanged: Vec<Unchanged>,
}

/// Tells how observations of one job and node change what is known of it.
#[derive(Debug)]
pub struct Change {
    pub job: KnownJob,
    /// Tells to how many nodes the job's first command went, and with which images, where that was not known.
    pub targets: Option<Targets>,
    pub node: Option<NodeChange>,
    /// The observations, all settled by it.
    pub observations: Vec<Observation>,
    pub settled: Settled,
}

/// Holds an observation that changes nothing.
#[derive(Debug)]
pub struct Unchanged {
    pub observation: Observation,
    pub settled: Settled,
    /// The outbox row that was written with the change that told the same.
    pub outbox: Option<String>,
}

/// Holds a job and its row, where it has one.
#[derive(Debug)]
pub struct KnownJob {
    pub job: Job,
    row: Option<JobRow>,
}

/// Holds what is read of a job's row.
#[derive(Debug, Deserialize)]
pub struct JobRow {
    /// Tells when it was requested; not there where the row only says who requested it, for nothing has been reported yet.
    pub requested_at: Option<DateTime<Utc>>,
    /// Who requested it, as `jobs` writes it.
    pub requested_by: Option<String>,
    /// Tells to how many nodes its first command went, once that is known.
    pub targets: Option<u32>,
    /// Tells how long its slowest node took from the request on.
    pub slowest_seconds: Option<f64>,
    #[serde(flatten)]
    pub counters: Counters,
}

/// Tells how a job's row changes.
#[derive(Debug)]
pub struct JobChange {
    pub job: Job,
    /// True where it has no row yet, or one that only says who requested it.
    pub is_new: bool,
    /// Tells when it was requested as far as its row knows, where that was later: a retry was known before the first
    /// command.
    pub requested_before: Option<DateTime<Utc>>,
    pub delta: Counters,
    /// The slowest node and its seconds, where it is slower than the slowest known.
    pub slowest: Option<(f64, String)>,
    pub targets: Option<Targets>,
}

impl Changes {
    /// Lists the rows that observations concern.
    pub fn keys(observations: &[Observation]) -> BTreeSet<Key> {
        let of_observation = |observation: &Observation| {
            let job = &observation.job.id;
            let of_node = |(_, report): (&CommandEnded, &NodeOutcomes)| {
                [Key::node(job, &report.node), Key::inventory(&report.node)]
            };
            let of_node = observation.of_node().map(of_node);
            iter::once(Key::job(job)).chain(of_node.into_iter().flatten())
        };
        observations.iter().flat_map(of_observation).collect()
    }

    /// Folds observations into the rows that they concern.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn of(mut observations: Vec<Observation>, rows: &Rows, max_retries: u8) -> Result<Self, serde_dynamo::Error> {
        share_first_requests(&mut observations);
        let mut changes = Self::default();
        for observations in by_row(observations) {
            let Observation { job, kind, .. } = &observations[0];
            let job = KnownJob::read(job, rows)?;
            match kind {
                ObservationKind::Targets(targets) => {
                    let targets = targets.clone();
                    changes.take_targets(job, targets, observations);
                }
                ObservationKind::Node(report) => {
                    let change = node_change(&job.job, &report.node, &observations, rows, max_retries)?;
                    let is_known = change.is_none() && job.is_request_known() && !is_news(&observations, rows)?;
                    changes.take_node(job, change, is_known, observations);
                }
            }
        }
        Ok(changes)
    }

    fn take_targets(&mut self, job: KnownJob, targets: Targets, observations: Vec<Observation>) {
        let settled = Settled {
            job: job.job.id.clone(),
            node: None,
        };
        if job.has_targets() {
            return self.leave(observations, &settled, None);
        }
        self.changed.push(Change {
            job,
            targets: Some(targets),
            node: None,
            observations,
            settled,
        });
    }

    fn take_node(&mut self, job: KnownJob, change: NodeChange, is_known: bool, observations: Vec<Observation>) {
        let settled = Settled {
            job: job.job.id.clone(),
            node: Some(SettledNode {
                node: change.node.clone(),
                status: change.after.status(),
                retrying: change.after.retrying,
            }),
        };
        if is_known {
            return self.leave(observations, &settled, change.after.outbox.as_ref());
        }
        self.changed.push(Change {
            targets: job.targets_of_boot(&change),
            job,
            node: Some(change),
            observations,
            settled,
        });
    }

    fn leave(&mut self, observations: Vec<Observation>, settled: &Settled, outbox: Option<&String>) {
        let unchanged = observations.into_iter().map(|observation| Unchanged {
            observation,
            settled: settled.clone(),
            outbox: outbox.cloned(),
        });
        self.unchanged.extend(unchanged);
    }
}

/// Has all observations of a job say when its first command was sent, as far as they know.
fn share_first_requests(observations: &mut [Observation]) {
    let mut first: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
    for Observation { job, .. } in observations.iter() {
        let known = first.entry(job.id.clone()).or_insert(job.requested_at);
        *known = job.requested_at.min(*known);
    }
    for Observation { job, .. } in observations {
        job.requested_at = first[&job.id];
    }
}

/// Puts observations of the same job or node together, those of nodes first: an object of records has the name of a node's.
fn by_row(observations: Vec<Observation>) -> impl Iterator<Item = Vec<Observation>> {
    let mut of_row: BTreeMap<(bool, String, Option<String>), Vec<Observation>> = BTreeMap::new();
    for observation in observations {
        let node = observation.event.node.clone();
        let row = (node.is_none(), observation.job.id.clone(), node);
        of_row.entry(row).or_default().push(observation);
    }
    of_row.into_values()
}

/// Folds what commands did on a node into its row.
fn node_change(
    job: &Job,
    node: &str,
    observations: &[Observation],
    rows: &Rows,
    max_retries: u8,
) -> Result<NodeChange, serde_dynamo::Error> {
    let before: Option<NodeState> = rows.get(&Key::node(&job.id, node))?;
    let mut after = before.clone().unwrap_or_default();
    for (event, report) in observations.iter().filter_map(Observation::of_node) {
        after.fold(&event.command, report);
    }
    let policy = RetryPolicy {
        trigger: job.trigger,
        max_retries,
    };
    after.retrying = policy.allows_any(&after);
    Ok(NodeChange {
        job: job.clone(),
        node: node.to_owned(),
        before,
        after,
    })
}

impl KnownJob {
    fn read(job: &Job, rows: &Rows) -> Result<Self, serde_dynamo::Error> {
        let row: Option<JobRow> = rows.get(&Key::job(&job.id))?;
        // A retry may be known before the first command.
        let requested_before = row.as_ref().and_then(|row| row.requested_at);
        let job = Job {
            requested_at: requested_before.map_or(job.requested_at, |before| before.min(job.requested_at)),
            requested_by: row.as_ref().and_then(|row| row.requested_by.clone()),
            ..job.clone()
        };
        Ok(Self { job, row })
    }

    /// Tells when it was requested, as far as its row knows.
    fn requested_at(&self) -> Option<DateTime<Utc>> {
        self.row.as_ref()?.requested_at
    }

    fn is_request_known(&self) -> bool {
        self.requested_at()
            .is_some_and(|before| before <= self.job.requested_at)
    }

    fn has_targets(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.targets.is_some())
    }

    /// Gives the targets of a boot, which is of one node alone, and no event tells so.
    fn targets_of_boot(&self, change: &NodeChange) -> Option<Targets> {
        let is_new = self.job.trigger == Trigger::Boot && !self.has_targets();
        is_new.then(|| Targets {
            count: 1,
            images: change.after.images.keys().cloned().collect(),
        })
    }
}

impl JobChange {
    pub fn new(known: &KnownJob) -> Self {
        let job = known.job.clone();
        Self {
            is_new: known.requested_at().is_none(),
            requested_before: known.requested_at().filter(|before| *before > job.requested_at),
            job,
            delta: Counters::default(),
            slowest: None,
            targets: None,
        }
    }

    /// Takes in a change of the job, or of a node of it.
    pub fn take(&mut self, change: &Change) {
        if let Some(targets) = &change.targets {
            self.targets = Some(targets.clone());
        }
        if let Some(node) = &change.node {
            self.delta += node.counters();
            if let Some(warm_at) = node.after.warm_at {
                self.take_seconds(&change.job, node.job.seconds_until(warm_at), &node.node);
            }
        }
    }

    /// Takes a node's seconds where it is slower than the slowest that is known.
    fn take_seconds(&mut self, known: &KnownJob, seconds: f64, node: &str) {
        let slowest = self.slowest.as_ref().map(|(seconds, _)| *seconds);
        let slowest = slowest.or(known.row.as_ref().and_then(|row| row.slowest_seconds));
        if slowest.is_none_or(|slowest| seconds > slowest) {
            self.slowest = Some((seconds, node.to_owned()));
        }
    }
}

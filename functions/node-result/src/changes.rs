//! Units of writing: what changes together in one transaction, and what has to be done after it.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use prefetch::{
    command::Trigger,
    image::Image,
    rows::{Counters, Key, Outcome},
    table::Rows,
};

use crate::{
    decision::{Settled, SettledNode},
    effects::Outbox,
    inventory::{HeldChange, is_news, take_held},
    metrics,
    node_state::Node,
    observation::{Finding, Found, Job, Targets},
    records::records,
    retry::retries,
    rows::JobRow,
    settings::Settings,
};

/// How many nodes change in one transaction, which takes 100 rows and 4 MB (DynamoDB API reference, TransactWriteItems):
/// each has two, and beside them stand up to as many jobs, the totals and the outbox.
const MAX_NODES: usize = 32;
/// How many bytes one outbox row holds; DynamoDB takes 400 KB, names and keys included (DynamoDB, constraints).
const MAX_OUTBOX: usize = 350 * 1024;

/// What is to be done of findings.
#[derive(Debug, Default)]
pub struct Plan {
    /// What changes.
    pub units: Vec<Unit>,
    /// What changes nothing, each with the outbox row that was written when it did.
    pub unchanged: Vec<(Finding, Settled, Option<String>)>,
}

/// What changes in one transaction: rows of jobs of one trigger and date, which share one object of records.
#[derive(Debug)]
pub struct Unit {
    pub trigger: Trigger,
    /// The day of the jobs' requests, in UTC.
    pub date: NaiveDate,
    pub jobs: BTreeMap<String, JobChange>,
    pub nodes: Vec<NodeChange>,
    /// What its nodes hold.
    pub held: BTreeMap<String, HeldChange>,
    pub outbox: Outbox,
    /// What it is made of, and what is settled by it.
    pub findings: Vec<(Finding, Settled)>,
}

/// How a job changes.
#[derive(Debug)]
pub struct JobChange {
    pub job: Job,
    /// Whether it has no row yet, or one that only says who asked for it.
    pub is_new: bool,
    /// When it was requested as far as its row knows, where that was later: a further try was known before the first.
    pub requested_before: Option<DateTime<Utc>>,
    pub delta: Counters,
    /// The slowest node and its seconds, where it is slower than the slowest known.
    pub slowest: Option<(f64, String)>,
    /// To how many nodes its first command went, and with which images, where that was not known.
    pub targets: Option<Targets>,
}

/// How a node changes.
#[derive(Debug)]
pub struct NodeChange {
    pub job: Job,
    pub node: String,
    pub before: Option<Node>,
    pub after: Node,
}

impl NodeChange {
    /// The images of which something else is known than before.
    pub fn changed(&self) -> impl Iterator<Item = (&Image, &Outcome)> {
        let images = self.after.images.iter();
        images.filter(|(image, outcome)| self.known(image) != Some(outcome))
    }

    /// What was known of an image before.
    pub fn known(&self, image: &Image) -> Option<&Outcome> {
        self.before.as_ref().and_then(|before| before.images.get(image))
    }
}

impl Unit {
    fn new(job: &Job, id: &str, now: DateTime<Utc>) -> Self {
        let (trigger, date) = (job.trigger, job.requested_at.date_naive());
        Self {
            trigger,
            date,
            jobs: BTreeMap::new(),
            nodes: Vec::new(),
            held: BTreeMap::new(),
            outbox: Outbox {
                id: id.to_owned(),
                key: format!("records/trigger={trigger}/date={date}/{id}.jsonl"),
                created_at: now,
                ..Outbox::default()
            },
            findings: Vec::new(),
        }
    }

    fn takes(&self, job: &Job, bytes: usize) -> bool {
        self.trigger == job.trigger
            && self.date == job.requested_at.date_naive()
            && self.nodes.len() < MAX_NODES
            && self.jobs.len() < MAX_NODES
            && self.outbox.size() + bytes <= MAX_OUTBOX
    }

    fn job(&mut self, known: &KnownJob) -> &mut JobChange {
        let job = &known.job;
        self.jobs.entry(job.id.clone()).or_insert_with(|| JobChange {
            job: job.clone(),
            is_new: known.requested_at().is_none(),
            requested_before: known.requested_at().filter(|before| *before > job.requested_at),
            delta: Counters::default(),
            slowest: None,
            targets: None,
        })
    }

    /// Adds what has to be done after the transaction, and what is settled by it.
    fn settle(&mut self, todo: Outbox, findings: Vec<Finding>, settled: &Settled) {
        self.outbox.append(todo);
        let settled = findings.into_iter().map(|finding| (finding, settled.clone()));
        self.findings.extend(settled);
    }
}

impl JobChange {
    /// Takes a node's seconds where it is slower than the slowest that is known.
    fn take_seconds(&mut self, seconds: f64, node: &str, row: Option<&JobRow>) {
        let known = self.slowest.as_ref().map(|(seconds, _)| *seconds);
        let known = known.or(row.and_then(|row| row.slowest_seconds));
        if known.is_none_or(|known| seconds > known) {
            self.slowest = Some((seconds, node.to_owned()));
        }
    }
}

/// Plans what is to be done of findings, given the rows that they concern.
///
/// # Errors
/// A row that cannot be read.
pub fn plan(
    mut findings: Vec<Finding>,
    rows: &Rows,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Result<Plan, serde_dynamo::Error> {
    take_first_requests(&mut findings);
    let plan = Plan::default();
    let mut planner = Planner {
        rows,
        settings,
        now,
        plan,
    };
    for findings in by_row(findings) {
        planner.take(findings)?;
    }
    let mut plan = planner.plan;
    take_held(&mut plan.units, rows)?;
    Ok(plan)
}

/// Has all findings of a job say when its first command was sent, as far as they know.
fn take_first_requests(findings: &mut [Finding]) {
    let mut first: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
    for Finding { job, .. } in findings.iter() {
        let known = first.entry(job.id.clone()).or_insert(job.requested_at);
        *known = job.requested_at.min(*known);
    }
    for Finding { job, .. } in findings {
        job.requested_at = first[&job.id];
    }
}

/// Puts findings of the same job or node together, those of nodes first: an object of records has the name of a node's.
fn by_row(findings: Vec<Finding>) -> impl Iterator<Item = Vec<Finding>> {
    let mut of_row: BTreeMap<(bool, String, Option<String>), Vec<Finding>> = BTreeMap::new();
    for finding in findings {
        let node = finding.ended.node.clone();
        let row = (node.is_none(), finding.job.id.clone(), node);
        of_row.entry(row).or_default().push(finding);
    }
    of_row.into_values()
}

struct Planner<'a> {
    rows: &'a Rows,
    settings: &'a Settings,
    now: DateTime<Utc>,
    plan: Plan,
}

/// A job and its row, where it has one.
struct KnownJob {
    job: Job,
    row: Option<JobRow>,
}

impl KnownJob {
    /// When it was requested, as far as its row knows.
    fn requested_at(&self) -> Option<DateTime<Utc>> {
        self.row.as_ref()?.requested_at
    }
}

impl Planner<'_> {
    /// Plans what is to be done of findings that concern the same job or node.
    fn take(&mut self, findings: Vec<Finding>) -> Result<(), serde_dynamo::Error> {
        let Finding { job, found, .. } = &findings[0];
        let row: Option<JobRow> = self.rows.get(&Key::job(&job.id))?;
        // A further try may be known before the first.
        let requested_before = row.as_ref().and_then(|row| row.requested_at);
        let job = Job {
            requested_at: requested_before.map_or(job.requested_at, |before| before.min(job.requested_at)),
            requested_by: row.as_ref().and_then(|row| row.requested_by.clone()),
            ..job.clone()
        };
        let known = KnownJob { job, row };
        match found {
            Found::Targets(targets) => self.take_targets(&known, targets.clone(), findings),
            Found::Node(report) => {
                let before = self.rows.get(&Key::node(&known.job.id, &report.node))?;
                self.take_node(&known, report.node.clone(), before, findings)?;
            }
        }
        Ok(())
    }

    fn take_targets(&mut self, known: &KnownJob, targets: Targets, findings: Vec<Finding>) {
        let KnownJob { job, row } = known;
        let settled = Settled {
            job: job.id.clone(),
            node: None,
        };
        if row.as_ref().is_some_and(|row| row.targets.is_some()) {
            return self.leave(findings, &settled, None);
        }
        let todo = Outbox {
            metrics: metrics::of_targets(job, targets.count, self.settings, self.now),
            ..Outbox::default()
        };
        let unit = self.unit(job, todo.size(), &format!("{}-targets", job.id));
        unit.job(known).targets = Some(targets);
        unit.settle(todo, findings, &settled);
    }

    fn take_node(
        &mut self,
        known: &KnownJob,
        node: String,
        before: Option<Node>,
        findings: Vec<Finding>,
    ) -> Result<(), serde_dynamo::Error> {
        let KnownJob { job, row } = known;
        let mut after = before.clone().unwrap_or_default();
        for (ended, report) in findings.iter().filter_map(Finding::report) {
            after.fold(&ended.command, report);
        }
        after.retrying = after.wants_retry(job.trigger, self.settings.max_retries);
        let settled = Settled {
            job: job.id.clone(),
            node: Some(SettledNode {
                node: node.clone(),
                status: after.status(),
                retrying: after.retrying,
            }),
        };
        let is_request_known = known.requested_at().is_some_and(|before| before <= job.requested_at);
        if before.as_ref() == Some(&after) && is_request_known && !is_news(&findings, self.rows)? {
            self.leave(findings, &settled, after.outbox.as_ref());
            return Ok(());
        }
        let delta = after.counters() - before.as_ref().map(Node::counters).unwrap_or_default();
        let id = format!("{}-{node}-{}", job.id, after.version + 1);
        let change = NodeChange {
            job: job.clone(),
            node,
            before,
            after,
        };
        let todo = self.todo(&change);
        let unit = self.unit(job, todo.size(), &id);
        let job_change = unit.job(known);
        if job.trigger == Trigger::Boot && row.as_ref().is_none_or(|row| row.targets.is_none()) {
            // It is of one node alone, and no event tells so.
            let images = change.after.images.keys().cloned().collect();
            job_change.targets = Some(Targets { count: 1, images });
        }
        job_change.delta += delta;
        if let Some(warm_at) = change.after.warm_at {
            job_change.take_seconds(job.seconds_until(warm_at), &change.node, row.as_ref());
        }
        unit.nodes.push(change);
        unit.settle(todo, findings, &settled);
        Ok(())
    }

    fn todo(&self, change: &NodeChange) -> Outbox {
        let retries = retries(change, self.settings.max_retries);
        let has_hook = self.settings.launch_hook.is_some();
        let is_launched = has_hook && change.job.trigger == Trigger::Launch && !change.after.retrying;
        Outbox {
            launched: is_launched.then(|| change.node.clone()).into_iter().collect(),
            body: records(change, self.settings),
            metrics: metrics::of_node(change, !retries.is_empty(), self.settings, self.now),
            retries,
            ..Outbox::default()
        }
    }

    fn leave(&mut self, findings: Vec<Finding>, settled: &Settled, outbox: Option<&String>) {
        let unchanged = findings
            .into_iter()
            .map(|finding| (finding, settled.clone(), outbox.cloned()));
        self.plan.unchanged.extend(unchanged);
    }

    /// Gives the unit of the job's trigger and date that has room, or a new one.
    fn unit(&mut self, job: &Job, bytes: usize, id: &str) -> &mut Unit {
        let units = &mut self.plan.units;
        let place = units
            .iter()
            .position(|unit| unit.takes(job, bytes))
            .unwrap_or(units.len());
        if place == units.len() {
            units.push(Unit::new(job, id, self.now));
        }
        &mut units[place]
    }
}

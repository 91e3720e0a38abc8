//! From what is asked for to what is removed.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::{
    error::ProvideErrorMetadata,
    operation::{
        disable_fast_snapshot_restores::DisableFastSnapshotRestoresOutput,
        terminate_instances::TerminateInstancesOutput,
    },
    types::{
        DisableFastSnapshotRestoreErrorItem, FastSnapshotRestoreStateCode, Filter, InstanceStateName, Reservation,
    },
};
use aws_sdk_ssm::types::Parameter;
use prefetch::{
    bake::{ARCHITECTURE_TAG, Architecture, CLUSTER_TAG, EXECUTION_TAG, STACK_TAG},
    report::report,
};
use serde::Serialize;
use serde_json::Value;
use tracing::{error, info};

use crate::{
    error::{AwsError, SweepError, listed},
    executions::Executions,
    message::Asked,
    settings::Settings,
    snapshot::{KeyValue, Snapshot, carries, staying, value},
    templates::naming,
};

/// How many instances or snapshots one page has at most (EC2 API reference).
const PAGE_SIZE: i32 = 1000;
/// How many fast restores one page of DescribeFastSnapshotRestores has at most, and how many values one filter takes (EC2
/// API reference).
const MAX_RESTORES: i32 = 200;
const MAX_FILTER_VALUES: usize = 200;
/// How many parameters one DeleteParameters takes (SSM service model).
const MAX_PARAMETERS: usize = 10;

/// Says why something is left that EC2 lists though it does not carry the tags that were asked for.
const NOT_OURS: &str = "EC2 lists it, and does not say that it has the tags that were asked for";

/// What the function works with.
pub struct BakeSweep {
    pub ec2: aws_sdk_ec2::Client,
    pub sfn: aws_sdk_sfn::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub settings: Settings,
}

/// What was removed, and what stays.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// The builders that were terminated.
    pub terminated: Vec<String>,
    /// The snapshots that were deleted.
    pub deleted: Vec<String>,
    /// The snapshots that stay, of those that there was reason to look at.
    pub kept: Vec<Kept>,
    /// The snapshots that are no longer restored fast.
    pub fast_restore_disabled: Vec<String>,
    /// What could not be removed, and why.
    #[serde(skip)]
    failures: Vec<String>,
}

/// A snapshot that stays.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    snapshot_id: String,
    architecture: Option<Architecture>,
    because: String,
}

/// What became of a snapshot that was to be deleted.
enum Deleted {
    /// It is no more.
    Gone,
    /// It is in use.
    InUse(String),
}

impl Swept {
    fn fail(&mut self, id: &str, why: &str) {
        error!(resource.id = id, "{id} is left: {why}");
        self.failures.push(format!("{id}: {why}"));
    }

    fn keep(&mut self, snapshot: &Snapshot, because: impl Into<String>) {
        let because = because.into();
        info!(snapshot.id = snapshot.id, "snapshot {} stays: {because}", snapshot.id);
        self.kept.push(Kept {
            snapshot_id: snapshot.id.clone(),
            architecture: snapshot.architecture,
            because,
        });
    }
}

impl BakeSweep {
    /// Terminates the builders and deletes the half-made snapshots whose execution is gone, and, where it is asked to prune,
    /// the published snapshots that are no longer wanted; asked to clean up, of one execution and architecture only.
    ///
    /// A sweep that finds nothing costs one DescribeInstances and one DescribeSnapshots.
    ///
    /// # Errors
    /// [`SweepError::Incomplete`] that names all that could not be removed, after the rest was; [`SweepError::Aws`] where it
    /// cannot be told what there is.
    pub async fn handle(&self, payload: Value) -> Result<Swept, SweepError> {
        let swept = self.sweep(payload).await;
        swept.inspect_err(|error| error!("{}", report(error)))
    }

    async fn sweep(&self, payload: Value) -> Result<Swept, SweepError> {
        let asked = Asked::parse(payload)?;
        let mut executions = Executions::new(&self.sfn, &asked);
        let mut swept = Swept::default();
        // Builders cost the most: whatever fails later, they are gone.
        let ours = self.ours(&asked);
        self.terminate_builders(&ours, &mut executions, &mut swept).await?;
        let snapshots = self.snapshots(&ours, &mut swept).await?;
        let left = left(&snapshots, &mut executions, &mut swept).await;
        let keep = match &asked {
            Asked::Prune { keep, .. } => Some(*keep),
            Asked::Sweep { .. } | Asked::CleanUp { .. } => None,
        };
        if keep.is_some() || !left.is_empty() {
            // Read after the executions' ends: what was published by then is named here, even where EC2's tags lag behind.
            let published = self.published().await?;
            self.delete_left(&left, &published, &mut swept).await;
            if let Some(keep) = keep {
                self.prune(&snapshots, keep, &published, &mut swept).await?;
            }
        }
        info!(
            terminated = swept.terminated.len(),
            deleted = swept.deleted.len(),
            kept = swept.kept.len(),
            "swept"
        );
        if swept.failures.is_empty() {
            Ok(swept)
        } else {
            Err(SweepError::Incomplete(swept.failures.join("; ")))
        }
    }

    /// The tags by which what is ours, and what is asked for of it, is told from all else.
    fn ours(&self, asked: &Asked) -> Vec<KeyValue> {
        let mut ours = vec![
            (STACK_TAG, self.settings.stack.clone()),
            (CLUSTER_TAG, self.settings.cluster.clone()),
        ];
        if let Asked::CleanUp {
            execution,
            architecture,
        } = asked
        {
            ours.push((EXECUTION_TAG, execution.clone()));
            ours.push((ARCHITECTURE_TAG, architecture.to_string()));
        }
        ours
    }

    async fn terminate_builders(
        &self,
        ours: &[KeyValue],
        executions: &mut Executions<'_>,
        swept: &mut Swept,
    ) -> Result<(), AwsError> {
        for (id, execution) in self.builders(ours, swept).await? {
            match is_gone(execution.as_deref(), executions).await {
                Ok(true) => self.terminate(&id, swept).await,
                Ok(false) => {}
                Err(why) => swept.fail(&id, &why),
            }
        }
        Ok(())
    }

    /// Lists the builders that are not on their way out, each with its execution.
    async fn builders(&self, ours: &[KeyValue], swept: &mut Swept) -> Result<Vec<(String, Option<String>)>, AwsError> {
        let up = ["pending", "running", "stopping", "stopped"].map(str::to_owned);
        let up = Filter::builder()
            .name("instance-state-name")
            .set_values(Some(up.to_vec()));
        let request = self.ec2.describe_instances().set_filters(Some(filters(ours)));
        let request = request.filters(up.build()).max_results(PAGE_SIZE);
        let mut pages = request.into_paginator().send();
        let mut builders = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| AwsError::Builders(Box::new(error)))?;
            let reservations = listed("DescribeInstances", page.reservations)?;
            for instance in reservations.iter().flat_map(Reservation::instances) {
                let Some(id) = instance.instance_id() else { continue };
                if carries(instance.tags(), ours) {
                    let execution = value(instance.tags(), EXECUTION_TAG).map(str::to_owned);
                    builders.push((id.to_owned(), execution));
                } else {
                    swept.fail(id, NOT_OURS);
                }
            }
        }
        Ok(builders)
    }

    /// Terminates one builder: of several, EC2 terminates none where it refuses one.
    async fn terminate(&self, id: &str, swept: &mut Swept) {
        match self.ec2.terminate_instances().instance_ids(id).send().await {
            Ok(answer) if is_terminated(&answer, id) => {
                info!(instance.id = id, "builder {id} is terminated: its execution is gone");
                swept.terminated.push(id.to_owned());
            }
            Ok(_) => swept.fail(id, "EC2 does not say that it is terminated"),
            Err(error) if error.code() == Some("InvalidInstanceID.NotFound") => {}
            Err(error) => swept.fail(id, &format!("it could not be terminated: {}", report(&error))),
        }
    }

    async fn snapshots(&self, ours: &[KeyValue], swept: &mut Swept) -> Result<Vec<Snapshot>, AwsError> {
        let request = self
            .ec2
            .describe_snapshots()
            .owner_ids("self")
            .set_filters(Some(filters(ours)))
            .max_results(PAGE_SIZE);
        let mut pages = request.into_paginator().send();
        let mut snapshots = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| AwsError::Snapshots(Box::new(error)))?;
            for row in listed("DescribeSnapshots", page.snapshots)? {
                let Some(snapshot) = Snapshot::of(&row) else { continue };
                if carries(row.tags(), ours) {
                    snapshots.push(snapshot);
                } else {
                    swept.fail(&snapshot.id, NOT_OURS);
                }
            }
        }
        Ok(snapshots)
    }

    /// Names the published snapshots; of an architecture that has none yet SSM says that there is no such parameter.
    async fn published(&self) -> Result<BTreeSet<String>, AwsError> {
        let names = Architecture::ALL.map(|architecture| self.settings.published(architecture));
        let request = self.ssm.get_parameters().set_names(Some(names.to_vec()));
        let answer = request.send().await;
        let answer = answer.map_err(|error| AwsError::Published(Box::new(error)))?;
        let mut published = BTreeSet::new();
        for name in names {
            let is_it = |parameter: &&Parameter| parameter.name() == Some(&name);
            let parameter = answer.parameters().iter().find(is_it);
            match parameter.and_then(Parameter::value) {
                Some(snapshot) => drop(published.insert(snapshot.to_owned())),
                None if answer.invalid_parameters().contains(&name) => {}
                None => return Err(AwsError::HalfAnswer("GetParameters", name)),
            }
        }
        Ok(published)
    }

    async fn delete_left(&self, left: &[&Snapshot], published: &BTreeSet<String>, swept: &mut Swept) {
        let (published, left): (Vec<&Snapshot>, _) = left.iter().partition(|snapshot| published.contains(&snapshot.id));
        for snapshot in published {
            swept.keep(snapshot, "it is the published one");
        }
        self.delete(left, swept).await;
    }

    async fn prune(
        &self,
        snapshots: &[Snapshot],
        keep: usize,
        published: &BTreeSet<String>,
        swept: &mut Swept,
    ) -> Result<(), AwsError> {
        let mut staying = staying(snapshots, keep, published);
        let of_ours = snapshots.iter().filter(|snapshot| snapshot.published.is_some());
        let of_ours: Vec<&Snapshot> = of_ours.collect();
        let others = of_ours.iter().filter(|snapshot| !published.contains(&snapshot.id));
        let others: Vec<&str> = others.map(|snapshot| snapshot.id.as_str()).collect();
        let restores = self.fast_restores(&others).await?;
        let to_go = others.iter().copied().filter(|id| !staying.contains_key(*id));
        let to_go: BTreeSet<&str> = to_go.collect();
        let in_templates = if to_go.is_empty() {
            BTreeMap::new()
        } else {
            naming(&self.ec2, &to_go).await?
        };
        let mut going = Vec::new();
        for snapshot in of_ours {
            let because = in_templates.get(&snapshot.id).cloned();
            match because.or_else(|| staying.remove(&snapshot.id)) {
                Some(because) => swept.keep(snapshot, because),
                None => going.push(snapshot),
            }
        }
        self.delete(going, swept).await;
        // A zone costs $540 a month for each snapshot: it is the published one's, whatever old versions name.
        for (id, zones) in restores {
            if !swept.deleted.contains(&id) {
                self.disable_fast_restore(&id, zones, swept).await;
            }
        }
        Ok(())
    }

    /// Tells in which zones fast restore is enabled, or about to be, by snapshot.
    async fn fast_restores(&self, snapshots: &[&str]) -> Result<BTreeMap<String, Vec<String>>, AwsError> {
        use FastSnapshotRestoreStateCode::{Enabled, Enabling, Optimizing};
        let states = [Enabling, Optimizing, Enabled].map(|state| state.as_str().to_owned());
        let mut restores: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for snapshots in snapshots.chunks(MAX_FILTER_VALUES) {
            let of_snapshots = snapshots.iter().map(|id| (*id).to_owned()).collect();
            let of_snapshots = Filter::builder().name("snapshot-id").set_values(Some(of_snapshots));
            let enabled = Filter::builder().name("state").set_values(Some(states.to_vec()));
            let request = self
                .ec2
                .describe_fast_snapshot_restores()
                .filters(of_snapshots.build())
                .filters(enabled.build())
                .max_results(MAX_RESTORES);
            let mut pages = request.into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| AwsError::FastRestores(Box::new(error)))?;
                for restore in listed("DescribeFastSnapshotRestores", page.fast_snapshot_restores)? {
                    if let (Some(snapshot), Some(zone)) = (restore.snapshot_id, restore.availability_zone) {
                        restores.entry(snapshot).or_default().push(zone);
                    }
                }
            }
        }
        Ok(restores)
    }

    async fn disable_fast_restore(&self, snapshot: &str, zones: Vec<String>, swept: &mut Swept) {
        let request = self
            .ec2
            .disable_fast_snapshot_restores()
            .source_snapshot_ids(snapshot)
            .set_availability_zones(Some(zones.clone()));
        let refused = match request.send().await {
            Ok(answer) => refused(&answer, &zones),
            Err(error) => Some(report(&error)),
        };
        if let Some(why) = refused {
            swept.fail(snapshot, &format!("fast restore could not be disabled: {why}"));
        } else {
            info!(snapshot.id = snapshot, "snapshot {snapshot} is no longer restored fast");
            swept.fast_restore_disabled.push(snapshot.to_owned());
        }
    }

    /// Deletes snapshots, and before them what is said of them: were they gone first, nothing would name it any more.
    async fn delete(&self, snapshots: Vec<&Snapshot>, swept: &mut Swept) {
        let described = self.delete_details(&snapshots, swept).await;
        for snapshot in snapshots {
            if !described.contains(&snapshot.id) {
                self.delete_snapshot(snapshot, swept).await;
            }
        }
    }

    /// Deletes a snapshot, a pending one as well; EC2 disables fast restore with it (EBS user guide).
    async fn delete_snapshot(&self, snapshot: &Snapshot, swept: &mut Swept) {
        let id = &snapshot.id;
        let deleted = match self.ec2.delete_snapshot().snapshot_id(id).send().await {
            Ok(_) => Ok(Deleted::Gone),
            Err(error) => match error.code() {
                Some("InvalidSnapshot.NotFound") => Ok(Deleted::Gone),
                Some("InvalidSnapshot.InUse") => {
                    let message = error.message().unwrap_or("EC2 does not say by what");
                    Ok(Deleted::InUse(format!("it is in use: {message}")))
                }
                _ => Err(report(&error)),
            },
        };
        match deleted {
            Ok(Deleted::Gone) => {
                info!(snapshot.id = id, "snapshot {id} is deleted");
                swept.deleted.push(id.clone());
            }
            Ok(Deleted::InUse(because)) => swept.keep(snapshot, because),
            Err(why) => swept.fail(id, &format!("it could not be deleted: {why}")),
        }
    }

    /// Deletes the details of snapshots, and names the snapshots of which some may still be there.
    async fn delete_details(&self, snapshots: &[&Snapshot], swept: &mut Swept) -> BTreeSet<String> {
        let names = snapshots.iter().flat_map(|snapshot| {
            let architectures = snapshot
                .architecture
                .map_or(Architecture::ALL.to_vec(), |one| vec![one]);
            let name = |architecture| self.settings.details(architecture, &snapshot.id);
            architectures
                .into_iter()
                .map(move |architecture| (&snapshot.id, name(architecture)))
        });
        let names: Vec<(&String, String)> = names.collect();
        let mut described = BTreeSet::new();
        for names in names.chunks(MAX_PARAMETERS) {
            let asked: Vec<String> = names.iter().map(|(_, name)| name.clone()).collect();
            let request = self.ssm.delete_parameters().set_names(Some(asked.clone()));
            match request.send().await {
                Ok(answer) => {
                    // SSM says which there are not, too.
                    let gone = [answer.deleted_parameters(), answer.invalid_parameters()].concat();
                    for (snapshot, name) in names.iter().filter(|(_, name)| !gone.contains(name)) {
                        swept.fail(name, "SSM does not say that the parameter is deleted");
                        described.insert((*snapshot).clone());
                    }
                }
                Err(error) => {
                    let why = format!("the parameters could not be deleted: {}", report(&error));
                    swept.fail(&asked.join(", "), &why);
                    described.extend(names.iter().map(|(snapshot, _)| (*snapshot).clone()));
                }
            }
        }
        described
    }
}

/// Asks for what carries tags.
fn filters(tags: &[KeyValue]) -> Vec<Filter> {
    let filter = |(key, value): &KeyValue| Filter::builder().name(format!("tag:{key}")).values(value).build();
    tags.iter().map(filter).collect()
}

/// Returns true where EC2 says that an instance is terminated, or about to be.
fn is_terminated(answer: &TerminateInstancesOutput, id: &str) -> bool {
    let changes = answer.terminating_instances().iter();
    let mut of_it = changes.filter(|change| change.instance_id() == Some(id));
    let state = of_it.next().and_then(|change| change.current_state()?.name());
    matches!(
        state,
        Some(InstanceStateName::ShuttingDown | InstanceStateName::Terminated)
    )
}

/// Picks the half-made snapshots whose execution is gone.
async fn left<'a>(snapshots: &'a [Snapshot], executions: &mut Executions<'_>, swept: &mut Swept) -> Vec<&'a Snapshot> {
    let mut left = Vec::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.published.is_none()) {
        match is_gone(snapshot.execution.as_deref(), executions).await {
            Ok(true) => left.push(snapshot),
            Ok(false) => {}
            Err(why) => swept.fail(&snapshot.id, &why),
        }
    }
    left
}

/// Whether the execution that made something is gone; the error tells why that cannot be told.
async fn is_gone(execution: Option<&str>, executions: &mut Executions<'_>) -> Result<bool, String> {
    match execution {
        Some(execution) => executions.is_gone(execution).await,
        None => Err(format!("it has no tag {EXECUTION_TAG}: delete it, or put the tag back")),
    }
}

/// Tells why EC2 did not disable fast restore in all zones.
fn refused(answer: &DisableFastSnapshotRestoresOutput, zones: &[String]) -> Option<String> {
    let disabled = |zone: &str| {
        answer
            .successful()
            .iter()
            .any(|row| row.availability_zone() == Some(zone))
    };
    let zone = zones.iter().find(|zone| !disabled(zone))?;
    let errors = answer.unsuccessful().iter();
    let mut errors = errors.flat_map(DisableFastSnapshotRestoreErrorItem::fast_snapshot_restore_state_errors);
    let error = errors.find(|error| error.availability_zone() == Some(zone));
    let why = error.and_then(|error| error.error()?.message());
    Some(format!("{zone}: {}", why.unwrap_or("EC2 does not say that it is")))
}

#[cfg(test)]
mod tests;

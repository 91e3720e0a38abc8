//! From a request to what is removed.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ssm::types::Parameter;
use prefetch::{
    bake::{ARCHITECTURE_TAG, Architecture, CLUSTER_TAG, EXECUTION_TAG, STACK_TAG},
    error_text::error_text,
};
use serde_json::Value;
use tracing::{error, info};

use crate::{
    builders,
    deletion::Deletion,
    error::{AwsError, SweepError, listed},
    executions::Executions,
    fast_restore,
    listing::{NOT_OURS, PAGE_SIZE, filters},
    message::Request,
    settings::Settings,
    snapshot::{KeyValue, Snapshot, carries, staying},
    swept::Swept,
    templates::naming,
};

/// Holds what the function works with.
pub struct BakeSweep {
    pub ec2: aws_sdk_ec2::Client,
    pub sfn: aws_sdk_sfn::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub settings: Settings,
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
        swept.inspect_err(|error| error!("{}", error_text(error)))
    }

    async fn sweep(&self, payload: Value) -> Result<Swept, SweepError> {
        let request = Request::parse(payload)?;
        let mut executions = Executions::new(&self.sfn, &request);
        let mut swept = Swept::default();
        // Builders cost the most: whatever fails later, they are gone.
        let ours = self.ours(&request);
        builders::terminate_left(&self.ec2, &ours, &mut executions, &mut swept).await?;
        let snapshots = self.snapshots(&ours, &mut swept).await?;
        let left = left(&snapshots, &mut executions, &mut swept).await;
        let keep = match &request {
            Request::Prune { keep, .. } => Some(*keep),
            Request::Sweep { .. } | Request::CleanUp { .. } => None,
        };
        if keep.is_some() || !left.is_empty() {
            // Read after the executions' ends: what was published by then is named here, even where EC2's tags lag behind.
            let published = self.published().await?;
            self.delete_left(&left, &published, &mut swept).await;
            if let Some(keep) = keep {
                self.prune(&snapshots, keep, &published, &mut swept).await?;
            }
        }
        told(swept)
    }

    /// Returns the tags by which what is ours, and what the request is for, is told from all else.
    fn ours(&self, request: &Request) -> Vec<KeyValue> {
        let mut ours = vec![
            (STACK_TAG, self.settings.stack.clone()),
            (CLUSTER_TAG, self.settings.cluster.clone()),
        ];
        if let Request::CleanUp {
            execution,
            architecture,
        } = request
        {
            ours.push((EXECUTION_TAG, execution.clone()));
            ours.push((ARCHITECTURE_TAG, architecture.to_string()));
        }
        ours
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

    fn deletion(&self) -> Deletion<'_> {
        Deletion {
            ec2: &self.ec2,
            ssm: &self.ssm,
            settings: &self.settings,
        }
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
        self.deletion().delete(left, swept).await;
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
        let restores = fast_restore::enabled(&self.ec2, &others).await?;
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
        self.deletion().delete(going, swept).await;
        // A zone costs $540 a month for each snapshot: it is the published one's, whatever old versions name.
        for (id, zones) in restores {
            if !swept.deleted.contains(&id) {
                fast_restore::disable(&self.ec2, &id, zones, swept).await;
            }
        }
        Ok(())
    }
}

/// Logs a sweep, and makes an error of one that left something.
fn told(swept: Swept) -> Result<Swept, SweepError> {
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

/// Picks the half-made snapshots whose execution is gone.
async fn left<'a>(snapshots: &'a [Snapshot], executions: &mut Executions<'_>, swept: &mut Swept) -> Vec<&'a Snapshot> {
    let mut left = Vec::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.published.is_none()) {
        match executions.is_maker_gone(snapshot.execution.as_deref()).await {
            Ok(true) => left.push(snapshot),
            Ok(false) => {}
            Err(why) => swept.fail(&snapshot.id, &why),
        }
    }
    left
}

#[cfg(test)]
mod tests;

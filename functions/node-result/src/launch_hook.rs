//! Launch lifecycle hooks: an instance that waits in the stack's goes on once its launch is done with.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_sdk_autoscaling::{
    Client,
    config::{Builder, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesError,
    types::AutoScalingInstanceDetails,
};
use futures_util::{StreamExt, stream};
use prefetch::{error_text::error_text, rows::Key};
use serde::Deserialize;
use tracing::{info, warn};

use crate::{
    node_state::NodeState,
    table::{Table, TableError},
};

/// Limits how long Auto Scaling is waited for, all attempts of a call together: outcomes do not wait for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limits the instances of one DescribeAutoScalingInstances (Auto Scaling API reference).
const MAX_INSTANCES: usize = 50;
/// Limits the actions that are completed at a time.
const AT_ONCE: usize = 10;
/// Names the states in which an instance waits for a launch's hooks, outside a warm pool and in one.
const WAITING: [&str; 2] = ["Pending:Wait", "Warmed:Pending:Wait"];
/// Names Auto Scaling's answer where no action of the hook waits for the instance, or the group has no such hook.
const NO_ACTION: &str = "ValidationError";

/// Is the hook of Auto Scaling groups whose actions wait for prefetches.
pub struct LaunchHook {
    client: Client,
    name: String,
}

/// Names an instance that waits for hooks of its group.
struct WaitingInstance {
    node: String,
    group: String,
}

/// Holds what is read of a launch's row.
#[derive(Deserialize)]
struct LaunchRow {
    /// The jobs that it became, once their commands were all sent.
    commands: Option<Vec<String>>,
}

impl LaunchHook {
    /// Sets up Auto Scaling's client, which gives up after [`PATIENCE`].
    pub fn new(config: Builder, name: &str) -> Self {
        let patience = TimeoutConfig::builder().operation_timeout(PATIENCE).build();
        Self::with_client(Client::from_conf(config.timeout_config(patience).build()), name)
    }

    /// Works by this client.
    pub fn with_client(client: Client, name: &str) -> Self {
        let name = name.to_owned();
        Self { client, name }
    }

    /// Lets those of these nodes go on that wait in the hook and whose launch is done with.
    ///
    /// It costs one DescribeAutoScalingInstances for each 50 nodes, and for each that waits one Query, one BatchGetItem and,
    /// where its launch is done with, one CompleteLifecycleAction. Whatever goes wrong is told in the log, and the instance
    /// waits until the hook's own end.
    pub async fn release(&self, nodes: &BTreeSet<String>, table: &Table) {
        let nodes: Vec<&String> = nodes.iter().collect();
        for nodes in nodes.chunks(MAX_INSTANCES) {
            match self.waiting(nodes).await {
                Ok(waiting) => {
                    stream::iter(waiting)
                        .for_each_concurrent(AT_ONCE, |waiting| self.release_one(waiting, table))
                        .await;
                }
                Err(error) => warn!(
                    hook.name = self.name,
                    "whether {nodes:?} wait in hook {} is not known, and they wait until its end: {}",
                    self.name,
                    error_text(&error)
                ),
            }
        }
    }

    /// Tells which of these nodes wait for a launch's hook.
    async fn waiting(
        &self,
        nodes: &[&String],
    ) -> Result<Vec<WaitingInstance>, SdkError<DescribeAutoScalingInstancesError>> {
        let ids = nodes.iter().map(ToString::to_string).collect();
        let request = self.client.describe_auto_scaling_instances();
        let answer = request.set_instance_ids(Some(ids)).send().await?;
        Ok(answer.auto_scaling_instances().iter().filter_map(waiting).collect())
    }

    async fn release_one(&self, waiting: WaitingInstance, table: &Table) {
        let WaitingInstance { node, group } = &waiting;
        match to_come(node, table).await {
            Ok(None) => self.complete(node, group).await,
            Ok(Some(reason)) => info!(
                instance.id = node,
                group.name = group,
                "{node} waits on in hook {} of group {group}: {reason}",
                self.name
            ),
            Err(error) => warn!(
                instance.id = node,
                group.name = group,
                "{node} waits in hook {} of group {group} until its end: {}",
                self.name,
                error_text(&error)
            ),
        }
    }

    /// Completes the action of the hook that waits for an instance; where there is none (any more) nothing is to be done.
    async fn complete(&self, node: &str, group: &str) {
        let hook = &self.name;
        let request = self.client.complete_lifecycle_action().lifecycle_hook_name(hook);
        let request = request.auto_scaling_group_name(group).instance_id(node);
        match request.lifecycle_action_result("CONTINUE").send().await {
            Ok(_) => info!(
                instance.id = node,
                group.name = group,
                "{node} goes on from hook {hook} of group {group}: its launch is done with"
            ),
            Err(error) if error.code() == Some(NO_ACTION) => info!(
                instance.id = node,
                group.name = group,
                "{node} does not wait for hook {hook} of group {group}: {}",
                error_text(&error)
            ),
            Err(error) => warn!(
                instance.id = node,
                group.name = group,
                "{node} waits in hook {hook} of group {group} until its end: {}",
                error_text(&error)
            ),
        }
    }
}

fn waiting(instance: &AutoScalingInstanceDetails) -> Option<WaitingInstance> {
    let waits = WAITING.contains(&instance.lifecycle_state()?);
    waits.then_some(WaitingInstance {
        node: instance.instance_id()?.to_owned(),
        group: instance.auto_scaling_group_name()?.to_owned(),
    })
}

/// Tells what is still to come of a node's last launch, as it is known now; none where it is done with.
async fn to_come(node: &str, table: &Table) -> Result<Option<String>, TableError> {
    let Some(LaunchRow { commands: Some(jobs) }) = last_launch(node, table).await? else {
        return Ok(Some("not all commands of its launch are known to be sent".to_owned()));
    };
    let keys = jobs.iter().map(|job| Key::node(job, node)).collect();
    let rows = table.read(&keys).await?;
    let mut known = BTreeMap::new();
    for job in &jobs {
        if let Some(row) = rows.get::<NodeState>(&Key::node(job, node))? {
            known.insert(job.as_str(), row);
        }
    }
    Ok(open_job(&jobs, &known).map(|job| format!("job {job} of its launch is not done with there")))
}

/// Reads the row of a node's last launch as it is now.
async fn last_launch(node: &str, table: &Table) -> Result<Option<LaunchRow>, TableError> {
    let launches = table.query(Key::launch(node, None).pk).consistent_read(true);
    let answer = launches.scan_index_forward(false).limit(1).send().await;
    let answer = answer.map_err(|error| TableError::Launches(Box::new(error)))?;
    let row = answer.items.unwrap_or_default().into_iter().next();
    Ok(row.map(serde_dynamo::from_item).transpose()?)
}

/// Gives a job of which the node has not reported, or is to retry something.
fn open_job<'a>(jobs: &'a [String], known: &BTreeMap<&str, NodeState>) -> Option<&'a String> {
    let is_done = |job: &str| known.get(job).is_some_and(|node| !node.retrying);
    jobs.iter().find(|job| !is_done(job))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_launch_is_done_with_exactly_when_each_of_its_jobs_has_reported_and_retries_nothing(
            jobs in prop::collection::vec(prop::option::of(any::<bool>()), 0..6),
        ) {
            let names: Vec<String> = (0..jobs.len()).map(|k| format!("job {k}")).collect();
            let row = |(name, retrying): (&'_ String, &Option<bool>)| {
                let node = NodeState { retrying: (*retrying)?, ..NodeState::default() };
                Some((name.clone(), node))
            };
            let rows: BTreeMap<String, NodeState> = names.iter().zip(&jobs).filter_map(row).collect();
            let known = rows.iter().map(|(name, node)| (name.as_str(), node.clone())).collect();
            let is_done = jobs.iter().all(|job| *job == Some(false));
            prop_assert_eq!(open_job(&names, &known).is_none(), is_done);
        }
    }
}

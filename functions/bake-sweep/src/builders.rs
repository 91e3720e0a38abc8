//! Builders: those whose execution is gone are terminated.

use aws_sdk_ec2::{
    Client,
    error::ProvideErrorMetadata,
    operation::terminate_instances::TerminateInstancesOutput,
    types::{Filter, InstanceStateName, Reservation},
};
use prefetch::{bake::EXECUTION_TAG, error_text::error_text};
use tracing::info;

use crate::{
    error::{AwsError, listed},
    executions::Executions,
    listing::{NOT_OURS, PAGE_SIZE, filters},
    snapshot::{KeyValue, carries, value},
    swept::Swept,
};

/// Terminates the builders whose execution is gone.
///
/// # Errors
/// [`AwsError`] where EC2 does not list them.
pub async fn terminate_left(
    ec2: &Client,
    ours: &[KeyValue],
    executions: &mut Executions<'_>,
    swept: &mut Swept,
) -> Result<(), AwsError> {
    for (id, execution) in builders(ec2, ours, swept).await? {
        match executions.is_maker_gone(execution.as_deref()).await {
            Ok(true) => terminate(ec2, &id, swept).await,
            Ok(false) => {}
            Err(why) => swept.fail(&id, &why),
        }
    }
    Ok(())
}

/// Lists the builders that are not on their way out, each with its execution.
async fn builders(
    ec2: &Client,
    ours: &[KeyValue],
    swept: &mut Swept,
) -> Result<Vec<(String, Option<String>)>, AwsError> {
    let up = ["pending", "running", "stopping", "stopped"].map(str::to_owned);
    let up = Filter::builder()
        .name("instance-state-name")
        .set_values(Some(up.to_vec()));
    let request = ec2.describe_instances().set_filters(Some(filters(ours)));
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
async fn terminate(ec2: &Client, id: &str, swept: &mut Swept) {
    match ec2.terminate_instances().instance_ids(id).send().await {
        Ok(answer) if is_terminated(&answer, id) => {
            info!(instance.id = id, "builder {id} is terminated: its execution is gone");
            swept.terminated.push(id.to_owned());
        }
        Ok(_) => swept.fail(id, "EC2 does not say that it is terminated"),
        Err(error) if error.code() == Some("InvalidInstanceID.NotFound") => {}
        Err(error) => swept.fail(id, &format!("it could not be terminated: {}", error_text(&error))),
    }
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

//! Fast restore of snapshots.

use std::collections::BTreeMap;

use aws_sdk_ec2::{
    Client,
    operation::disable_fast_snapshot_restores::DisableFastSnapshotRestoresOutput,
    types::{DisableFastSnapshotRestoreErrorItem, FastSnapshotRestoreStateCode, Filter},
};
use prefetch::error_text::error_text;
use tracing::info;

use crate::{
    error::{AwsError, listed},
    swept::Swept,
};

/// Bound the fast restores of one page of DescribeFastSnapshotRestores, and the values of one filter (EC2 API reference).
const MAX_RESTORES: i32 = 200;
const MAX_FILTER_VALUES: usize = 200;

/// Tells in which zones fast restore is enabled, or about to be, by snapshot.
///
/// # Errors
/// [`AwsError`] where EC2 does not list them.
pub async fn enabled(ec2: &Client, snapshots: &[&str]) -> Result<BTreeMap<String, Vec<String>>, AwsError> {
    use FastSnapshotRestoreStateCode::{Enabled, Enabling, Optimizing};
    let states = [Enabling, Optimizing, Enabled].map(|state| state.as_str().to_owned());
    let mut restores: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for snapshots in snapshots.chunks(MAX_FILTER_VALUES) {
        let of_snapshots = snapshots.iter().map(|id| (*id).to_owned()).collect();
        let of_snapshots = Filter::builder().name("snapshot-id").set_values(Some(of_snapshots));
        let enabled = Filter::builder().name("state").set_values(Some(states.to_vec()));
        let request = ec2
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

/// Disables the fast restore of a snapshot in these zones.
pub async fn disable(ec2: &Client, snapshot: &str, zones: Vec<String>, swept: &mut Swept) {
    let request = ec2
        .disable_fast_snapshot_restores()
        .source_snapshot_ids(snapshot)
        .set_availability_zones(Some(zones.clone()));
    let refused = match request.send().await {
        Ok(answer) => refused(&answer, &zones),
        Err(error) => Some(error_text(&error)),
    };
    if let Some(why) = refused {
        swept.fail(snapshot, &format!("fast restore could not be disabled: {why}"));
    } else {
        info!(snapshot.id = snapshot, "snapshot {snapshot} is no longer restored fast");
        swept.fast_restore_disabled.push(snapshot.to_owned());
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

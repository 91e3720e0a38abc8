//! Launch templates: which snapshots they name.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{LaunchTemplate, LaunchTemplateVersion, ResponseLaunchTemplateData},
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::AwsError;

/// How many rows one page of DescribeLaunchTemplates or DescribeLaunchTemplateVersions has at most (EC2 API reference).
const PAGE_SIZE: i32 = 200;
/// How many launch templates are asked for their versions at once: an account may have 5,000 of them.
const AT_ONCE: usize = 4;

/// Tells of each of these snapshots that a version of a launch template of this account and Region names, which that is.
///
/// Costs one DescribeLaunchTemplates for each 200 templates, and one DescribeLaunchTemplateVersions for each 200 versions
/// of each: EC2 lists the versions of one template only.
///
/// # Errors
/// [`AwsError`] where EC2 cannot be asked.
pub async fn naming(ec2: &Client, snapshots: &BTreeSet<&str>) -> Result<BTreeMap<String, String>, AwsError> {
    let request = ec2.describe_launch_templates().max_results(PAGE_SIZE);
    let mut pages = request.into_paginator().items().send();
    let mut templates = Vec::new();
    while let Some(template) = pages.next().await {
        let template: LaunchTemplate = template.map_err(|error| AwsError::Templates(Box::new(error)))?;
        templates.extend(template.launch_template_id);
    }
    let named = stream::iter(templates).map(async |template| named_by(ec2, &template, snapshots).await);
    let named: Vec<Vec<(String, String)>> = named.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(named.into_iter().flatten().collect())
}

async fn named_by(ec2: &Client, template: &str, snapshots: &BTreeSet<&str>) -> Result<Vec<(String, String)>, AwsError> {
    let request = ec2
        .describe_launch_template_versions()
        .launch_template_id(template)
        .max_results(PAGE_SIZE);
    let mut pages = request.into_paginator().items().send();
    let mut named = Vec::new();
    while let Some(version) = pages.next().await {
        match version {
            Ok(version) => named.extend(
                named_in(&version)
                    .filter(|snapshot| snapshots.contains(snapshot))
                    .map(|snapshot| (snapshot.to_owned(), told(template, &version))),
            ),
            // It was deleted a moment ago.
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(AwsError::Versions(template.to_owned(), Box::new(error))),
        }
    }
    Ok(named)
}

fn named_in(version: &LaunchTemplateVersion) -> impl Iterator<Item = &str> {
    let data = version.launch_template_data();
    let devices = data.map(ResponseLaunchTemplateData::block_device_mappings);
    let disks = devices.unwrap_or_default().iter().filter_map(|device| device.ebs());
    disks.filter_map(|disk| disk.snapshot_id())
}

fn told(template: &str, version: &LaunchTemplateVersion) -> String {
    let name = version.launch_template_name().unwrap_or_default();
    let number = version.version_number().unwrap_or_default();
    format!("version {number} of the launch template {name} ({template}) names it")
}

fn is_gone<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("InvalidLaunchTemplateId.NotFound")
}

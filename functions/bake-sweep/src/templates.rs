//! Launch templates: which snapshots they name.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{LaunchTemplateVersion, ResponseLaunchTemplateData},
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{AwsError, listed};

/// Bounds the rows of one page of DescribeLaunchTemplates or DescribeLaunchTemplateVersions (EC2 API reference).
const PAGE_SIZE: i32 = 200;
/// Bounds the launch templates that are asked for their versions at once: an account may have 5,000 of them.
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
    let mut pages = request.into_paginator().send();
    let mut templates = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| AwsError::Templates(Box::new(error)))?;
        for template in listed("DescribeLaunchTemplates", page.launch_templates)? {
            let id = template.launch_template_id;
            templates.push(id.ok_or_else(|| AwsError::HalfAnswer("DescribeLaunchTemplates", "an id".to_owned()))?);
        }
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
    let mut pages = request.into_paginator().send();
    let mut read = 0;
    let mut named = Vec::new();
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            // It was deleted a moment ago.
            Err(error) if is_gone(&error) => return Ok(named),
            Err(error) => return Err(AwsError::Versions(template.to_owned(), Box::new(error))),
        };
        for version in page.launch_template_versions() {
            read += 1;
            let data = version.launch_template_data().ok_or_else(|| half_answer(template))?;
            named.extend(
                named_in(data)
                    .filter(|snapshot| snapshots.contains(snapshot))
                    .map(|snapshot| (snapshot.to_owned(), told(template, version))),
            );
        }
    }
    // Every launch template has a version.
    if read == 0 {
        Err(half_answer(template))
    } else {
        Ok(named)
    }
}

fn half_answer(template: &str) -> AwsError {
    AwsError::HalfAnswer(
        "DescribeLaunchTemplateVersions",
        format!("what versions of {template} say"),
    )
}

fn named_in(data: &ResponseLaunchTemplateData) -> impl Iterator<Item = &str> {
    let disks = data.block_device_mappings().iter().filter_map(|device| device.ebs());
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

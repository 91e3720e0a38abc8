//! The settings of functions under test.

use crate::settings::{Settings, UsageSettings};

/// Gives the value of a variable that several functions have; `RULES` is each test's own.
#[must_use]
pub fn setting(name: &str) -> Option<&'static str> {
    Some(match name {
        "MODE" => "send",
        "CLUSTER_NAME" => "prod",
        "CLUSTER_TAG_KEY" => "aws:eks:cluster-name",
        "DOCUMENT_NAME" => "eks-image-prefetch-prefetch-images",
        "DELIVERY_TIMEOUT_SECONDS" => "600",
        "EXECUTION_TIMEOUT_SECONDS" => "3600",
        "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85",
        "MAX_PARALLEL_IMAGE_PULLS" => "2",
        "MAX_CONNECTIONS" => "3",
        "LAUNCH_MAX_CONNECTIONS" => "20",
        "MAX_BANDWIDTH_MIB" => "0",
        "ACCOUNT_ID" => "123456789012",
        "AWS_REGION" => "eu-central-1",
        "REGISTRY_ENDPOINT" => "standard",
        "CENTRAL_REGISTRIES" => "",
        "TABLE_NAME" => "outcomes",
        "OUTCOME_RETENTION_DAYS" => "30",
        "USED_WITHIN_DAYS" => "14",
        "SWEEP_INTERVAL" => "rate(15 minutes)",
        "BOOT_LIST" => "Disabled",
        _ => return None,
    })
}

/// Reads where it is kept what nodes run, and the registries, these central ones among them.
#[must_use]
pub fn usage_settings(central: &str) -> UsageSettings {
    let value = |name: &str| match name {
        "CENTRAL_REGISTRIES" => Some(central),
        _ => setting(name),
    };
    UsageSettings::read(|name| value(name).map(str::to_owned)).expect("they are usable")
}

/// Reads the settings with these rules.
#[must_use]
pub fn settings(rules: &str) -> Settings {
    let value = |name: &str| if name == "RULES" { Some(rules) } else { setting(name) };
    Settings::read(|name| value(name).map(str::to_owned)).expect("they are usable")
}

//! The settings that the template would give.

use crate::settings::Settings;

pub const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
pub const FUNCTION: &str = "arn:aws:lambda:eu-central-1:123456789012:function:jobs";
pub const DOCUMENT: &str = "eks-image-prefetch-prefetch-images";
pub const BOOT_PATH: &str = "/eks-image-prefetch/boot";
pub const RULES: &str = r#"[{"name": "default", "repositories": ["team/*"]}]"#;

/// Gives the value of a setting, as tests have it.
pub fn setting(name: &str) -> &'static str {
    match name {
        "MODE" => "send",
        "CLUSTER_NAME" => "prod",
        "CLUSTER_TAG_KEY" => "aws:eks:cluster-name",
        "DOCUMENT_NAME" => DOCUMENT,
        "RULES" => RULES,
        "DELIVERY_TIMEOUT_SECONDS" => "600",
        "EXECUTION_TIMEOUT_SECONDS" => "3600",
        "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85",
        "MAX_PARALLEL_IMAGE_PULLS" | "MAX_RETRIES" => "2",
        "MAX_CONNECTIONS" => "3",
        "LAUNCH_MAX_CONNECTIONS" => "20",
        "MAX_BANDWIDTH_MIB" => "0",
        "ACCOUNT_ID" => "123456789012",
        "AWS_REGION" => "eu-central-1",
        "REGISTRY_ENDPOINT" => "standard",
        "TABLE_NAME" => "outcomes",
        "OUTCOME_RETENTION_DAYS" => "30",
        "USED_WITHIN_DAYS" => "14",
        "ALLOW_ANY_REPOSITORY" => "false",
        "BOOT_LIST" => "Disabled",
        "SCHEDULE_GROUP" => "eks-image-prefetch",
        "SCHEDULE_ROLE_ARN" => "arn:aws:iam::123456789012:role/schedule",
        "JOBS_DEAD_LETTERS_ARN" => "arn:aws:sqs:eu-central-1:123456789012:jobs-dead-letters",
        other => panic!("{other} is not a setting"),
    }
}

/// Reads the settings with these rules, and with or without leave to ask for any repository.
pub fn settings_with(rules: &'static str, allow_any_repository: &'static str) -> Settings {
    let value = |name: &str| match name {
        "RULES" => rules,
        "ALLOW_ANY_REPOSITORY" => allow_any_repository,
        name => setting(name),
    };
    Settings::read(|name| Some(value(name).to_owned())).unwrap()
}

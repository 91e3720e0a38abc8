//! The settings that the template would give.

use prefetch::mocks;

use crate::settings::Settings;

pub const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
pub const FUNCTION: &str = "arn:aws:lambda:eu-central-1:123456789012:function:jobs";
pub const DOCUMENT: &str = "eks-image-prefetch-prefetch-images";
pub const BOOT_PATH: &str = "/eks-image-prefetch/boot";
/// Takes what no node uses too.
pub const RULES: &str = r#"[{"name": "default", "repositories": ["team/*"], "used": false, "neighbours": false}]"#;

/// Gives the value of a setting, as tests have it.
pub fn setting(name: &str) -> &'static str {
    match name {
        "DOCUMENT_NAME" => DOCUMENT,
        "RULES" => RULES,
        "MAX_RETRIES" => "2",
        "ALLOW_ANY_REPOSITORY" => "false",
        "SCHEDULE_GROUP" => "eks-image-prefetch",
        "SCHEDULE_ROLE_ARN" => "arn:aws:iam::123456789012:role/schedule",
        "JOBS_DEAD_LETTERS_ARN" => "arn:aws:sqs:eu-central-1:123456789012:jobs-dead-letters",
        other => mocks::settings::setting(other).unwrap_or_else(|| panic!("{other} is not a setting")),
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

//! The check: what every function does with its settings at its start, and what a bake does with its defaults.

use std::error::Error;

use prefetch::{
    bake::input::Stack,
    error_text::error_text,
    settings::{Settings, Variables, boot_list_path},
    stack_name,
};
use serde_json::Value;

use crate::{environment, words::words};

/// Checks all settings by a look-up from variable name to value and tells in words what they do.
///
/// # Errors
/// The faults of each of them, in the words of the function that would refuse it.
pub fn check(look_up: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let variables = Variables::new(&look_up);
    let settings = Settings::read(&look_up);
    let stack = variables.stack_name().map(|name| stack_name::refusal(&name));
    let others = [
        variables.central_registries().err(),
        variables.outcome_retention().err(),
        variables.used_within().err(),
        variables.max_retries().err(),
        variables.launch_hook().err(),
        variables.allow_any_repository().err(),
        boot_list_path(&look_up).err(),
    ];
    let mut refused: Vec<String> = others.iter().flatten().map(|error| error_text(error)).collect();
    refused.extend(environment::refusal(&look_up));
    refused.extend(stack.unwrap_or_else(|error| Some(error_text(&error))));
    match settings {
        Err(error) => refused.insert(0, error_text(&error)),
        Ok(settings) => match bake_defaults(&settings, &variables) {
            Err(error) => refused.push(error_text(error.as_ref())),
            Ok(()) => match (variables.central_registries(), variables.registry()) {
                (Ok(central), Ok(own)) if refused.is_empty() => return Ok(words(&settings, &own, &central)),
                _ => {}
            },
        },
    }
    Err(refused.join("; "))
}

/// Checks what stands under every bake's input, which names rules.
fn bake_defaults<F: Fn(&str) -> Option<String>>(
    settings: &Settings,
    variables: &Variables<F>,
) -> Result<(), Box<dyn Error>> {
    let stack = Stack {
        rules: &settings.rules,
        registry: &variables.registry()?,
        region: &variables.text("AWS_REGION")?,
        defaults: &variables.text("BAKE_DEFAULTS")?,
    };
    let defaults = stack.defaults()?;
    let below = format!("/{}/{}/", variables.stack_name()?, settings.cluster.name);
    match defaults.get("amiParameter").and_then(Value::as_str) {
        Some(name) if !name.starts_with("/aws/service/") && !name.starts_with(&below) => Err(format!(
            "the stack's parameter BakeDefaults: amiParameter: {name:?} is not accepted: it takes a parameter of AWS's below \
             /aws/service/, or one below {below}"
        )
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str) -> &'static str {
        match name {
            "DOCUMENT_NAME" => "test-prefetch-images",
            "BOOT_LIST" => "Disabled",
            "MODE" => "send",
            "CLUSTER_NAME" => "prod",
            "CLUSTER_TAG_KEY" => "aws:eks:cluster-name",
            "RULES" => r#"[{"name": "gpu"}]"#,
            "DELIVERY_TIMEOUT_SECONDS" | "EXECUTION_TIMEOUT_SECONDS" => "600",
            "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85",
            "MAX_PARALLEL_IMAGE_PULLS" | "MAX_RETRIES" => "2",
            "MAX_CONNECTIONS" => "3",
            "LAUNCH_MAX_CONNECTIONS" => "20",
            "MAX_BANDWIDTH_MIB" => "0",
            "LAUNCH_HOOK" => "prefetch",
            "OUTCOME_RETENTION_DAYS" => "30",
            "USED_WITHIN_DAYS" => "14",
            "ALLOW_ANY_REPOSITORY" => "false",
            "ACCOUNT_ID" => "123456789012",
            "AWS_REGION" => "eu-central-1",
            "REGISTRY_ENDPOINT" => "standard",
            "CENTRAL_REGISTRIES" => "",
            "BAKE_DEFAULTS" => "{}",
            other => panic!("{other}"),
        }
    }

    fn check_with(changed: &[(&str, &str)]) -> Result<String, String> {
        check(|name| {
            let changed = changed.iter().find(|(other, _)| *other == name);
            Some(changed.map_or_else(|| setting(name), |(_, value)| value).to_owned())
        })
    }

    #[test]
    fn what_a_function_would_refuse_is_told_in_its_own_words() {
        for (name, value, expected) in [
            (
                "RULES",
                r#"[{"name": "gpu"},]"#,
                "environment variable RULES cannot be used: the rules are no JSON list: trailing comma at line 1 column 18",
            ),
            (
                "RULES",
                r#"[{"name": "gpu", "newest": 3, "keep": 2}]"#,
                "environment variable RULES cannot be used: rule gpu: field keep: 2 is not accepted: it takes 0, or from newest, which is 3, to 50",
            ),
            (
                "RULES",
                "[  ]",
                "environment variable RULES cannot be used: the rules are an empty list: accepted is a JSON list of at least one object with the fields name, repositories, tags, used, neighbours, registries, images, nodes, newest, order, keep, pin, maxImageGiB, maxConcurrency, maxErrors",
            ),
            (
                "DELIVERY_TIMEOUT_SECONDS",
                "600.5",
                "environment variable DELIVERY_TIMEOUT_SECONDS: \"600.5\" is not accepted: it takes a whole number from 30 to 2592000",
            ),
            (
                "USED_WITHIN_DAYS",
                "0",
                "environment variable USED_WITHIN_DAYS: \"0\" is not accepted: it takes a whole number from 1 to 365",
            ),
            (
                "MAX_RETRIES",
                "1.5",
                "environment variable MAX_RETRIES: \"1.5\" is not accepted: it takes a whole number from 0 to 5",
            ),
            (
                "BAKE_DEFAULTS",
                r#"{"rules": ["web"]}"#,
                "the stack's parameter BakeDefaults: rules: [\"web\"] is not accepted: it takes a list of rules of the stack: gpu",
            ),
            (
                "BAKE_DEFAULTS",
                r#"{"amiParameter": "/test/ami"}"#,
                "the stack's parameter BakeDefaults: amiParameter: \"/test/ami\" is not accepted: it takes a parameter of AWS's below /aws/service/, or one below /test/prod/",
            ),
            (
                "BAKE_DEFAULTS",
                " ",
                "environment variable BAKE_DEFAULTS: \" \" is not accepted: it takes a text that is not empty",
            ),
            (
                "DOCUMENT_NAME",
                "Aws-prod-prefetch-images",
                "the stack's name \"Aws-prod\" is not accepted: it takes a name that does not begin with aws",
            ),
            (
                "CENTRAL_REGISTRIES",
                "210987654321/Frankfurt",
                "environment variable CENTRAL_REGISTRIES: \"210987654321/Frankfurt\" is not accepted: it takes up to 5 different registries",
            ),
            (
                "ACCOUNT_ID",
                "12",
                "environment variables ACCOUNT_ID and AWS_REGION name no registry: account \"12\" is not usable",
            ),
        ] {
            let refused = check_with(&[(name, value)]).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }

    #[test]
    fn everything_that_would_be_refused_is_told_at_once() {
        let refused = check_with(&[
            ("OUTCOME_RETENTION_DAYS", "0"),
            ("ALLOW_ANY_REPOSITORY", "yes"),
            ("BAKE_DEFAULTS", r#"{"keep": 0}"#),
        ]);
        let refused = refused.unwrap_err();
        for part in [
            "OUTCOME_RETENTION_DAYS: \"0\"",
            "; environment variable ALLOW_ANY",
            "; the stack's parameter BakeDefaults: keep: 0",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn what_the_functions_would_use_is_told_in_words() {
        let words = check_with(&[]).unwrap();
        assert!(words.starts_with("cluster prod: rule gpu: "), "{words}");
    }

    #[test]
    fn a_setting_that_is_missing_is_refused_and_no_panic() {
        let refused = check(|_| None).unwrap_err();
        assert!(
            refused.contains("environment variable CLUSTER_NAME: \"\" is not accepted"),
            "{refused}"
        );
    }
}

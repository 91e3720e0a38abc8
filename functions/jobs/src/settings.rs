//! Settings: what the template decided, read once from the environment.

use chrono::TimeDelta;
use prefetch::{
    boot::BootLists,
    fields::FieldError,
    metrics::Metrics,
    settings::{Outcomes, SettingsError, UsageSettings, Variables, boot_list_path},
};

use crate::schedule::cron::rate::Rate;

/// Holds what this function is told by the template through its environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Says what every function is told.
    pub shared: prefetch::settings::Settings,
    /// Says what every line of metrics says (`CLUSTER_NAME`, `AWS_LAMBDA_LOG_LEVEL`).
    pub metrics: Metrics,
    /// The host name of this account's registry (`ACCOUNT_ID`, `AWS_REGION`).
    pub registry: String,
    /// The stack's name (`DOCUMENT_NAME`).
    pub stack: String,
    /// Where what became of jobs is kept, and for how long (`TABLE_NAME`, `OUTCOME_RETENTION_DAYS`).
    pub outcomes: Outcomes,
    /// Where it is kept what nodes run (`TABLE_NAME`, `USED_WITHIN_DAYS`).
    pub usage: UsageSettings,
    /// Tells how many retries a node gets (`MAX_RETRIES`).
    pub max_retries: u8,
    /// Tells how often the sweep looks for what no event has told (`SWEEP_INTERVAL`).
    pub sweep_interval: TimeDelta,
    /// Is true where images outside every rule's repositories may be requested (`ALLOW_ANY_REPOSITORY`).
    pub allow_any_repository: bool,
    /// Below which path boot lists are kept, where they are (`BOOT_LIST`).
    pub boot_list_path: Option<String>,
    /// The group of the schedules (`SCHEDULE_GROUP`).
    pub schedule_group: String,
    /// The role by which schedules invoke this function (`SCHEDULE_ROLE_ARN`).
    pub schedule_role: String,
    /// The queue for what a schedule could not hand to this function (`JOBS_DEAD_LETTERS_ARN`).
    pub dead_letters: String,
}

impl Settings {
    /// Reads the settings by a look-up from variable name to value.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that cannot be used.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let shared = prefetch::settings::Settings::read(&look_up)?;
        let variables = Variables::new(&look_up);
        Ok(Self {
            metrics: Metrics::new(&shared.cluster.name),
            shared,
            registry: variables.registry()?,
            stack: variables.stack_name()?,
            outcomes: Outcomes::read(&look_up)?,
            usage: UsageSettings::read(&look_up)?,
            max_retries: variables.max_retries()?,
            sweep_interval: sweep_interval(&look_up)?,
            allow_any_repository: variables.allow_any_repository()?,
            boot_list_path: boot_list_path(&look_up)?,
            schedule_group: variables.text("SCHEDULE_GROUP")?,
            schedule_role: variables.text("SCHEDULE_ROLE_ARN")?,
            dead_letters: variables.text("JOBS_DEAD_LETTERS_ARN")?,
        })
    }

    /// Names the rules, as what is accepted where one is to be named.
    pub fn rule_names(&self) -> String {
        let names: Vec<&str> = self.shared.rules.iter().map(|rule| rule.name.as_str()).collect();
        names.join(", ")
    }

    /// Gives the boot lists, where the stack keeps them.
    pub fn boot_lists(&self, ssm: &aws_sdk_ssm::Client) -> Option<BootLists> {
        let path = self.boot_list_path.clone()?;
        Some(BootLists::new(ssm.clone(), path, self.shared.mode))
    }
}

fn sweep_interval(look_up: impl Fn(&str) -> Option<String>) -> Result<TimeDelta, SettingsError> {
    const NAME: &str = "SWEEP_INTERVAL";
    let text = Variables::new(look_up).text(NAME)?;
    let inner = text.strip_prefix("rate(").and_then(|rest| rest.strip_suffix(')'));
    let rate = inner.and_then(|inner| Rate::parse(inner).ok());
    rate.map(|rate| rate.every).ok_or_else(|| {
        let accepted = "a rate(…) of minutes, hours or days";
        SettingsError::Variable(Box::new(FieldError::new(NAME, Some(text.into()), accepted)))
    })
}

#[cfg(test)]
mod tests {
    use prefetch::error_text::error_text;

    use super::*;
    use crate::tests::cloud::settings::setting;

    fn read(name: &str, value: &str) -> Result<Settings, SettingsError> {
        Settings::read(|wanted| Some(if wanted == name { value } else { setting(wanted) }.to_owned()))
    }

    #[test]
    fn an_unusable_setting_names_itself_its_value_and_what_is_accepted() {
        for (name, value, expected) in [
            (
                "TABLE_NAME",
                "",
                "TABLE_NAME: \"\" is not accepted: it takes a text that is not empty",
            ),
            (
                "ALLOW_ANY_REPOSITORY",
                "yes",
                "ALLOW_ANY_REPOSITORY: \"yes\" is not accepted: it takes true or false",
            ),
            ("MAX_RETRIES", "6", "a whole number from 0 to 5"),
            ("RULES", "[]", "RULES cannot be used"),
            (
                "SWEEP_INTERVAL",
                "hourly",
                "it takes a rate(…) of minutes, hours or days",
            ),
            (
                "ACCOUNT_ID",
                "12",
                "ACCOUNT_ID and AWS_REGION name no registry: account \"12\" is not usable",
            ),
        ] {
            let error = error_text(&read(name, value).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn usable_settings_are_read() {
        let settings = read("ALLOW_ANY_REPOSITORY", "true").unwrap();
        assert!(settings.allow_any_repository);
        assert_eq!(settings.sweep_interval, TimeDelta::minutes(15));
        assert_eq!(settings.registry, "123456789012.dkr.ecr.eu-central-1.amazonaws.com");
    }
}

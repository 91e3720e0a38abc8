//! Settings: what the template decided, read once from the environment.

use std::time::Duration;

use prefetch::{
    metrics::Metrics,
    settings::{SettingsError, Variables},
};

/// Holds what the template tells this function through its environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name (`CLUSTER_NAME`).
    pub cluster: String,
    /// The Command document whose results are read (`DOCUMENT_NAME`).
    pub document: String,
    /// The time after its sending in which a command may still end: SSM's time to hand it over and its time to run
    /// (`DELIVERY_TIMEOUT_SECONDS`, `EXECUTION_TIMEOUT_SECONDS`).
    pub deadline: Duration,
    /// The DynamoDB table of jobs and nodes (`TABLE_NAME`).
    pub table: String,
    /// Tells for how long it keeps its rows (`OUTCOME_RETENTION_DAYS`).
    pub retention: Duration,
    /// The S3 bucket for records (`RECORDS_BUCKET`).
    pub bucket: String,
    /// The queue that `node-launch` reads, to which retries go that are due (`NODE_QUEUE_URL`).
    pub node_queue: String,
    /// The queue that this function reads, and where retries wait until they are due (`RESULT_QUEUE_URL`).
    pub result_queue: String,
    /// The parts that every line of metrics has (`CLUSTER_NAME`, `AWS_LAMBDA_LOG_LEVEL`).
    pub metrics: Metrics,
    /// The lifecycle hook in which instances wait until their launch is done with; none where it is empty
    /// (`LAUNCH_HOOK`).
    pub launch_hook: Option<String>,
    /// Tells how many retries a node gets (`MAX_RETRIES`).
    pub max_retries: u8,
    /// Tells for how many days an image counts as used (`USED_WITHIN_DAYS`).
    pub used_within: u32,
}

impl Settings {
    /// Reads the settings by a look-up from variable name to value.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that cannot be used.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variables = Variables::new(look_up);
        let deadline = variables.delivery_timeout()? + variables.execution_timeout()?;
        let cluster = variables.text("CLUSTER_NAME")?;
        Ok(Self {
            metrics: Metrics::new(&cluster),
            cluster,
            document: variables.text("DOCUMENT_NAME")?,
            deadline: Duration::from_secs(deadline.unsigned_abs().into()),
            table: variables.text("TABLE_NAME")?,
            retention: variables.outcome_retention()?,
            bucket: variables.text("RECORDS_BUCKET")?,
            node_queue: variables.text("NODE_QUEUE_URL")?,
            result_queue: variables.text("RESULT_QUEUE_URL")?,
            launch_hook: variables.launch_hook()?,
            max_retries: variables.max_retries()?,
            used_within: variables.used_within()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use prefetch::error_text::error_text;

    use super::*;

    fn read(name: &str, value: &str) -> Result<Settings, SettingsError> {
        Settings::read(|variable| {
            let usual = match variable {
                "MAX_RETRIES" => "2",
                "OUTCOME_RETENTION_DAYS" => "30",
                "USED_WITHIN_DAYS" => "14",
                "DELIVERY_TIMEOUT_SECONDS" => "600",
                "EXECUTION_TIMEOUT_SECONDS" => "3600",
                "LAUNCH_HOOK" => "",
                _ => "text",
            };
            Some(if variable == name { value } else { usual }.to_owned())
        })
    }

    #[test]
    fn an_unusable_setting_names_itself_its_value_and_what_is_accepted() {
        for (name, value, accepted) in [
            ("TABLE_NAME", "", "a text that is not empty"),
            ("RECORDS_BUCKET", " ", "a text that is not empty"),
            ("LAUNCH_HOOK", "a b", "a lifecycle hook's name, or nothing"),
            ("MAX_RETRIES", "6", "a whole number from 0 to 5"),
            ("OUTCOME_RETENTION_DAYS", "0", "a whole number from 1 to 3650"),
            ("USED_WITHIN_DAYS", "0", "a whole number from 1 to 365"),
            ("USED_WITHIN_DAYS", "366", "a whole number from 1 to 365"),
            ("DELIVERY_TIMEOUT_SECONDS", "1m", "a whole number from 30 to 2592000"),
        ] {
            let error = error_text(&read(name, value).unwrap_err());
            let expected = format!("{name}: {value:?} is not accepted: it takes {accepted}");
            assert!(error.contains(&expected), "{error}");
        }
    }

    #[test]
    fn usable_settings_are_read_and_rules_are_none_of_them() {
        let settings = read("RULES", "no list").unwrap();
        assert_eq!((settings.deadline, settings.max_retries), (Duration::from_mins(70), 2));
        assert_eq!(
            (settings.retention, settings.used_within),
            (Duration::from_hours(720), 14)
        );
    }
}

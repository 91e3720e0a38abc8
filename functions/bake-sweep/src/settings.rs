//! Settings: what the template decided, read once from the environment.

use prefetch::{
    bake::Architecture,
    settings::{SettingsError, Variables},
};

/// Holds what the template tells this function through its environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The stack, whose builders and snapshots these are (`STACK_NAME`).
    pub stack: String,
    /// The cluster they are for (`CLUSTER_NAME`).
    pub cluster: String,
    /// The prefix of the names of the published parameters (`PARAMETER_PREFIX`).
    pub prefix: String,
}

impl Settings {
    /// Reads the settings by a look-up from variable name to value.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that cannot be used.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variables = Variables::new(look_up);
        Ok(Self {
            stack: variables.text("STACK_NAME")?,
            cluster: variables.text("CLUSTER_NAME")?,
            prefix: variables.text("PARAMETER_PREFIX")?,
        })
    }

    /// Names the parameter that names the published snapshot of an architecture.
    pub fn published(&self, architecture: Architecture) -> String {
        self.details(architecture, "snapshot")
    }

    /// Names the parameter with the details of a snapshot.
    pub fn details(&self, architecture: Architecture, snapshot: &str) -> String {
        format!("{}/{architecture}/{snapshot}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_setting_names_itself_its_value_and_what_is_accepted() {
        for name in ["STACK_NAME", "CLUSTER_NAME", "PARAMETER_PREFIX"] {
            let error = Settings::read(|variable| (variable != name).then(|| "text".to_owned())).unwrap_err();
            let expected = format!("{name}: \"\" is not accepted: it takes a text that is not empty");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}

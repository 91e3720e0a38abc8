//! Settings: what the template decided, read once from the environment.

use prefetch::{
    bake::input::Stack,
    settings::{SettingsError, UsageSettings, Variables},
};

/// Holds what the template tells this function through its environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings of every function.
    pub shared: prefetch::settings::Settings,
    /// Where it is kept what nodes run (`TABLE_NAME`, `USED_WITHIN_DAYS`).
    pub usage: UsageSettings,
    /// The host name of this account's registry (`ACCOUNT_ID`, `AWS_REGION`).
    pub registry: String,
    /// The stack's name (`DOCUMENT_NAME`).
    pub stack: String,
    /// The Region (`AWS_REGION`).
    pub region: String,
    /// The defaults under the input of every execution (`BAKE_DEFAULTS`), a JSON object. It is read with each input: where
    /// it was changed without a deployment, an execution tells what is wrong with it, which an end at the start would not.
    pub defaults: String,
    /// The name of the builders' instance profile (`BUILDER_PROFILE`).
    pub profile: String,
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
            shared,
            usage: UsageSettings::read(&look_up)?,
            registry: variables.registry()?,
            stack: variables.stack_name()?,
            region: variables.text("AWS_REGION")?,
            defaults: variables.text("BAKE_DEFAULTS")?,
            profile: variables.text("BUILDER_PROFILE")?,
        })
    }

    /// Names what inputs are checked against.
    pub fn stack(&self) -> Stack<'_> {
        Stack {
            rules: &self.shared.rules,
            registry: &self.registry,
            region: &self.region,
            defaults: &self.defaults,
        }
    }
}

#[cfg(test)]
mod tests {
    use prefetch::error_text::error_text;

    use super::*;
    use crate::handler::tests::setting;

    #[test]
    fn an_unusable_setting_names_itself_its_value_and_what_is_accepted() {
        for (name, value, expected) in [
            (
                "BUILDER_PROFILE",
                "",
                "BUILDER_PROFILE: \"\" is not accepted: it takes a text that is not empty",
            ),
            ("BAKE_DEFAULTS", "", "BAKE_DEFAULTS: \"\" is not accepted"),
            ("RULES", "[]", "RULES cannot be used"),
            (
                "ACCOUNT_ID",
                "12",
                "ACCOUNT_ID and AWS_REGION name no registry: account",
            ),
        ] {
            let read =
                Settings::read(|variable| Some(if variable == name { value } else { setting(variable) }.to_owned()));
            let error = error_text(&read.unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}

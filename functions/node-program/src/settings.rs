//! Settings: what the template decided, read once from the environment.

use prefetch::settings::{SettingsError, Variables};

/// Holds what the template tells the function.
#[derive(Debug)]
pub struct Settings {
    /// The stack's repository (`REPOSITORY_NAME`).
    pub repository: String,
    /// The host under which nodes reach the account's registry.
    pub registry: String,
}

impl Settings {
    /// Reads the settings by a look-up from variable name to value.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that cannot be used.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variables = Variables::new(look_up);
        Ok(Self {
            repository: variables.text("REPOSITORY_NAME")?,
            registry: variables.registry()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_the_one_under_which_nodes_pull_images() {
        let settings = |endpoint: &'static str| {
            Settings::read(|name| {
                let value = match name {
                    "REPOSITORY_NAME" => "a-stack-nodeprograms-x",
                    "ACCOUNT_ID" => "123456789012",
                    "AWS_REGION" => "eu-west-1",
                    "REGISTRY_ENDPOINT" => endpoint,
                    _ => return None,
                };
                Some(value.to_owned())
            })
        };
        let standard = settings("standard").unwrap();
        assert_eq!(standard.repository, "a-stack-nodeprograms-x");
        assert_eq!(standard.registry, "123456789012.dkr.ecr.eu-west-1.amazonaws.com");
        let fips = settings("fips").unwrap();
        assert_eq!(fips.registry, "123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com");
        assert!(Settings::read(|_| None).is_err());
    }
}

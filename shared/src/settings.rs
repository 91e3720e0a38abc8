//! Settings: what the template decided, read once from the environment.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize, de::IntoDeserializer};
use thiserror::Error;

use crate::{
    error_text::error_text,
    fields::FieldError,
    image::{ImageError, RegistryEndpoint, ecr_registry},
    node::Cluster,
    rule::{Rule, RuleError, parse_rules},
};

mod central;

pub use central::CentralRegistry;
use central::MAX_REGISTRIES;

/// Holds what becomes of a command that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is sent.
    Send,
    /// It is recorded, and nothing is sent.
    Observe,
}

/// Where it is kept what became of jobs, and for how long.
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// The DynamoDB table (`TABLE_NAME`).
    pub table: String,
    /// Tells for how long it holds a row (`OUTCOME_RETENTION_DAYS`).
    pub retention: Duration,
}

impl Outcomes {
    /// Reads the settings by a look-up from variable name to value.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that cannot be used.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variables = Variables::new(look_up);
        Ok(Self {
            table: variables.text("TABLE_NAME")?,
            retention: variables.outcome_retention()?,
        })
    }
}

/// Where it is kept what nodes run, and for how long that counts.
#[derive(Clone, Debug)]
pub struct UsageSettings {
    /// The DynamoDB table (`TABLE_NAME`).
    pub table: String,
    /// Tells for how many days an image counts that was seen (`USED_WITHIN_DAYS`).
    pub within: u32,
    /// The host name of this account's registry (`ACCOUNT_ID`, `AWS_REGION`, `REGISTRY_ENDPOINT`).
    pub registry: String,
    /// The registries from which rules bring images beside it (`CENTRAL_REGISTRIES`).
    pub central: Vec<CentralRegistry>,
}

impl UsageSettings {
    /// Reads the settings by a look-up from variable name to value.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that cannot be used.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variables = Variables::new(look_up);
        Ok(Self {
            table: variables.text("TABLE_NAME")?,
            within: variables.used_within()?,
            registry: variables.registry()?,
            central: variables.central_registries()?,
        })
    }
}

/// Reads how often the node queue delivers a message at most (`MAX_RECEIVE_COUNT`), by a look-up from variable name to value.
///
/// # Errors
/// [`SettingsError::Variable`] where it is missing or none that SQS takes.
pub fn max_receives(look_up: impl Fn(&str) -> Option<String>) -> Result<u32, SettingsError> {
    let count = Variables::new(look_up).whole("MAX_RECEIVE_COUNT", 1..=1000)?;
    Ok(count.unsigned_abs())
}

/// Names what a document's name ends with, after the stack's own.
const DOCUMENT_SUFFIX: &str = "-prefetch-images";

/// Reads below which path boot lists are kept (`BOOT_LIST`, `DOCUMENT_NAME`), by a look-up from variable name to value; none
/// where the stack keeps none.
///
/// # Errors
/// [`SettingsError::Variable`] where one is missing or not accepted.
pub fn boot_list_path(look_up: impl Fn(&str) -> Option<String>) -> Result<Option<String>, SettingsError> {
    let variables = Variables::new(look_up);
    match (variables.0)("BOOT_LIST").as_deref() {
        Some("Disabled") => Ok(None),
        Some("Enabled") => Ok(Some(format!("/{}/boot", variables.stack_name()?))),
        other => Err(refuse("BOOT_LIST", other.map(str::to_owned), "Enabled or Disabled")),
    }
}

/// Holds what every function is told by the template through its environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Says what becomes of a command that is due (`MODE`).
    pub mode: Mode,
    /// The cluster whose nodes are warmed (`CLUSTER_NAME`, `CLUSTER_TAG_KEY`).
    pub cluster: Cluster,
    /// The Command document that nodes run (`DOCUMENT_NAME`).
    pub document: String,
    /// The rules (`RULES`), a JSON list.
    pub rules: Vec<Rule>,
    /// The endpoint under which nodes pull (`REGISTRY_ENDPOINT`).
    pub registry_endpoint: RegistryEndpoint,
    /// Tells how long SSM tries to hand a command to a node, in seconds (`DELIVERY_TIMEOUT_SECONDS`).
    pub delivery_timeout: i32,
    /// Tells how long a command may run on a node, in seconds (`EXECUTION_TIMEOUT_SECONDS`).
    pub execution_timeout: i32,
    /// Tells up to how much of containerd's filesystem a pull may fill, in percent (`IMAGE_GC_HIGH_THRESHOLD_PERCENT`).
    pub image_gc_high_threshold: i32,
    /// Tells how many images a node pulls at once (`MAX_PARALLEL_IMAGE_PULLS`).
    pub max_parallel_image_pulls: i32,
    /// Tells over how many connections a node downloads the layers of an image (`MAX_CONNECTIONS`).
    pub max_connections: i32,
    /// The same while it starts (`LAUNCH_MAX_CONNECTIONS`).
    pub launch_max_connections: i32,
    /// MiB per second that these bring at most, 0 for no limit (`MAX_BANDWIDTH_MIB`).
    pub max_bandwidth_mib: i32,
}

/// Tells why the settings cannot be used; the message names the variable, its value and what is accepted.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A variable is missing or its value is not accepted.
    #[error("environment variable {0}")]
    Variable(Box<FieldError>),
    /// The rule list cannot be used.
    #[error("environment variable RULES cannot be used")]
    Rules(#[from] RuleError),
    /// Account and Region name no registry.
    #[error("environment variables ACCOUNT_ID and AWS_REGION name no registry")]
    Registry(#[from] ImageError),
}

/// Reads a function's settings from the process's environment, or ends the process with what is wrong with them.
#[must_use]
pub fn from_env<S, E: std::error::Error>(read: impl FnOnce(fn(&str) -> Option<String>) -> Result<S, E>) -> S {
    read(|name| std::env::var(name).ok()).unwrap_or_else(|error| {
        tracing::error!("{}", error_text(&error));
        std::process::exit(1)
    })
}

impl Settings {
    /// Reads the settings by a look-up from variable name to value.
    ///
    /// # Errors
    /// [`SettingsError`] for the first variable that cannot be used.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variables = Variables::new(look_up);
        let cluster = Cluster {
            name: variables.text("CLUSTER_NAME")?,
            tag_key: variables.text("CLUSTER_TAG_KEY")?,
        };
        let rules = parse_rules(&variables.text("RULES")?)?;
        if let Some(rule) = rules.iter().find(|rule| rule.nodes.contains_key(&cluster.tag_key)) {
            let accepted = "tag keys other than the cluster's own, which every rule has already";
            return Err(RuleError::Field {
                rule: rule.name.clone(),
                refused: Box::new(FieldError::new("nodes", Some(cluster.tag_key.into()), accepted)),
            }
            .into());
        }
        Ok(Self {
            mode: variables.mode()?,
            cluster,
            document: variables.text("DOCUMENT_NAME")?,
            rules,
            registry_endpoint: variables.registry_endpoint()?,
            delivery_timeout: variables.delivery_timeout()?,
            execution_timeout: variables.execution_timeout()?,
            image_gc_high_threshold: variables.whole("IMAGE_GC_HIGH_THRESHOLD_PERCENT", 1..=100)?,
            max_parallel_image_pulls: variables.whole("MAX_PARALLEL_IMAGE_PULLS", 1..=16)?,
            max_connections: variables.whole("MAX_CONNECTIONS", 0..=20)?,
            launch_max_connections: variables.whole("LAUNCH_MAX_CONNECTIONS", 0..=20)?,
            max_bandwidth_mib: variables.whole("MAX_BANDWIDTH_MIB", 0..=9_999)?,
        })
    }
}

/// The environment's variables, as settings are read from them.
pub struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    /// Reads by a look-up from variable name to value.
    pub fn new(look_up: F) -> Self {
        Self(look_up)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where it is missing or empty.
    pub fn text(&self, name: &'static str) -> Result<String, SettingsError> {
        match (self.0)(name) {
            Some(value) if !value.trim().is_empty() => Ok(value),
            value => Err(refuse(name, value, "a text that is not empty")),
        }
    }

    /// Reads the stack's name, with which the document's begins (`DOCUMENT_NAME`): a function's environment has little room.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where the document's name is missing or no stack's.
    pub fn stack_name(&self) -> Result<String, SettingsError> {
        const NAME: &str = "DOCUMENT_NAME";
        let document = self.text(NAME)?;
        match document.strip_suffix(DOCUMENT_SUFFIX).filter(|stack| !stack.is_empty()) {
            Some(stack) => Ok(stack.to_owned()),
            None => Err(refuse(NAME, Some(document), "<stack>-prefetch-images")),
        }
    }

    /// Reads a whole number.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where it is missing, no whole number, or not within what is accepted.
    pub fn whole(&self, name: &'static str, accepted: RangeInclusive<i32>) -> Result<i32, SettingsError> {
        let value = (self.0)(name);
        value
            .as_deref()
            .and_then(|value| value.parse().ok())
            .filter(|number| accepted.contains(number))
            .ok_or_else(|| {
                let (min, max) = accepted.into_inner();
                refuse(name, value, format!("a whole number from {min} to {max}"))
            })
    }

    /// Reads the name of the lifecycle hook in which instances wait for their launch, where there is one
    /// (`LAUNCH_HOOK`).
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where it is no name that Auto Scaling takes: letters, digits, `-`, `_` and `/`.
    pub fn launch_hook(&self) -> Result<Option<String>, SettingsError> {
        const NAME: &str = "LAUNCH_HOOK";
        let Some(name) = (self.0)(NAME).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        if name.chars().all(|c| c.is_ascii_alphanumeric() || "-_/".contains(c)) {
            Ok(Some(name))
        } else {
            Err(refuse(NAME, Some(name), "a lifecycle hook's name, or nothing"))
        }
    }

    /// Reads whether something is so.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where it is missing or neither `true` nor `false`.
    pub fn boolean(&self, name: &'static str) -> Result<bool, SettingsError> {
        let value = (self.0)(name);
        let is = value.as_deref().and_then(|value| value.parse().ok());
        is.ok_or_else(|| refuse(name, value, "true or false"))
    }

    /// Reads what becomes of a command that is due.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where it is missing or neither `send` nor `observe`.
    fn mode(&self) -> Result<Mode, SettingsError> {
        match (self.0)("MODE").as_deref() {
            Some("send") => Ok(Mode::Send),
            Some("observe") => Ok(Mode::Observe),
            other => Err(refuse("MODE", other.map(str::to_owned), "send or observe")),
        }
    }

    /// Reads the host name of this account's registry (`ACCOUNT_ID`, `AWS_REGION`, `REGISTRY_ENDPOINT`).
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where one is missing, [`SettingsError::Registry`] where they name no registry.
    pub fn registry(&self) -> Result<String, SettingsError> {
        let endpoint = self.registry_endpoint()?;
        Ok(ecr_registry(
            &self.text("ACCOUNT_ID")?,
            &self.text("AWS_REGION")?,
            endpoint,
        )?)
    }

    /// Reads the registries beside it from which rules bring images (`CENTRAL_REGISTRIES`); none where the variable is missing or
    /// empty.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where one names no registry, or one that is there already.
    pub fn central_registries(&self) -> Result<Vec<CentralRegistry>, SettingsError> {
        const NAME: &str = "CENTRAL_REGISTRIES";
        let Some(text) = (self.0)(NAME).filter(|text| !text.is_empty()) else {
            return Ok(Vec::new());
        };
        let (own, region, endpoint) = (self.registry()?, self.text("AWS_REGION")?, self.registry_endpoint()?);
        CentralRegistry::read_all(&text, &own, &region, endpoint).ok_or_else(|| {
            let accepted = format!(
                "up to {MAX_REGISTRIES} different registries beside this account's in this Region, separated by commas, each an \
                 account or account/Region"
            );
            refuse(NAME, Some(text), accepted)
        })
    }

    /// Reads the endpoint under which nodes pull; where it is missing, the standard one.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] where it is none.
    fn registry_endpoint(&self) -> Result<RegistryEndpoint, SettingsError> {
        const NAME: &str = "REGISTRY_ENDPOINT";
        let Some(value) = (self.0)(NAME) else {
            return Ok(RegistryEndpoint::default());
        };
        let endpoint = RegistryEndpoint::deserialize(value.as_str().into_deserializer());
        endpoint.map_err(|_: serde::de::value::Error| {
            refuse(NAME, Some(value), "standard, fips, dualstack or dualstack-fips")
        })
    }

    /// Reads for how many seconds SSM tries to hand a command to a node; the limits are SSM's own for TimeoutSeconds.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] as [`Variables::whole`].
    pub fn delivery_timeout(&self) -> Result<i32, SettingsError> {
        self.whole("DELIVERY_TIMEOUT_SECONDS", 30..=2_592_000)
    }

    /// Reads for how many seconds a command may run on a node; the limits are SSM's own for a plugin's timeoutSeconds.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] as [`Variables::whole`].
    pub fn execution_timeout(&self) -> Result<i32, SettingsError> {
        self.whole("EXECUTION_TIMEOUT_SECONDS", 5..=172_800)
    }

    /// Reads for how long the table holds what is known.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] as [`Variables::whole`].
    pub fn outcome_retention(&self) -> Result<Duration, SettingsError> {
        let days = self.whole("OUTCOME_RETENTION_DAYS", 1..=3650)?;
        Ok(Duration::from_hours(24 * u64::from(days.unsigned_abs())))
    }

    /// Reads for how many days an image counts as used that was seen.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] as [`Variables::whole`].
    pub fn used_within(&self) -> Result<u32, SettingsError> {
        Ok(self.whole("USED_WITHIN_DAYS", 1..=365)?.unsigned_abs())
    }

    /// Reads how many retries a node gets; a comment has room for nine attempts.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] as [`Variables::whole`].
    pub fn max_retries(&self) -> Result<u8, SettingsError> {
        Ok(self.whole("MAX_RETRIES", 0..=5)?.to_le_bytes()[0])
    }

    /// Reads whether images outside every rule's repositories may be asked for.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] as [`Variables::boolean`].
    pub fn allow_any_repository(&self) -> Result<bool, SettingsError> {
        self.boolean("ALLOW_ANY_REPOSITORY")
    }
}

fn refuse(name: &'static str, value: Option<String>, accepted: impl Display) -> SettingsError {
    // A variable that is missing is one that is empty.
    let value = value.unwrap_or_default().into();
    SettingsError::Variable(Box::new(FieldError {
        field: name.to_owned(),
        value: Some(value),
        accepted: accepted.to_string(),
    }))
}

#[cfg(test)]
mod tests;

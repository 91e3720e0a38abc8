//! Inputs: what an execution is asked to bake, checked as far as that goes without asking AWS.

use std::{collections::BTreeMap, sync::LazyLock};

use regex_lite::Regex;
use serde::Serialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{
    bake::{Architecture, MAX_GIB, MIN_GIB},
    fields::{FieldError, Fields},
    requested_image::{self, RequestedImage},
    rule::Rule,
    unique_keys::UniqueKeys,
};

const FIELDS: [&str; 17] = [
    "trigger",
    "images",
    "rules",
    "architectures",
    "amiParameter",
    "instanceType",
    "volumeSizeGiB",
    "encrypted",
    "kmsKeyId",
    "instanceProfile",
    "securityGroupIds",
    "subnetId",
    "publicAddress",
    "fastSnapshotRestoreZones",
    "keep",
    "force",
    "quiet",
];
const TRIGGERS: [&str; 3] = ["manual", "schedule", "push"];
/// The parameter in which AWS names Bottlerocket's newest AMI (Bottlerocket's README).
const AMI_PARAMETER: &str = "/aws/service/bottlerocket/aws-k8s-{version}/{architecture}/latest/image_id";
const KEEP: u32 = 3;
const MAX_KEEP: u32 = 100;
/// Limits how many security groups a network interface has at most (VPC quotas).
const MAX_GROUPS: usize = 16;
/// Limits how many zones are accepted: no Region has more.
const MAX_ZONES: usize = 10;
/// Limits how many rules are read: a stack has fewer.
const MAX_RULES: usize = 100;

/// The longest name of a parameter is 1,011 characters (SSM service model).
static PARAMETER: LazyLock<Regex> = LazyLock::new(|| whole(r"[A-Za-z0-9_./-]{1,1011}"));
static INSTANCE_TYPE: LazyLock<Regex> = LazyLock::new(|| whole(r"[a-z0-9-]{1,32}\.[a-z0-9-]{1,32}"));
static KMS_KEY: LazyLock<Regex> = LazyLock::new(|| {
    whole(
        r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]{1,250}|alias/[A-Za-z0-9/_-]{1,250}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}",
    )
});
static PROFILE: LazyLock<Regex> = LazyLock::new(|| {
    whole(
        r"arn:aws[a-z-]*:iam::[0-9]{12}:instance-profile/(?:[!-~]{1,510}/)?[A-Za-z0-9+=,.@_-]{1,128}|[A-Za-z0-9+=,.@_-]{1,128}",
    )
});
static GROUP: LazyLock<Regex> = LazyLock::new(|| whole("sg-[0-9a-f]{8,17}"));
static SUBNET: LazyLock<Regex> = LazyLock::new(|| whole("subnet-[0-9a-f]{8,17}"));
static ZONE: LazyLock<Regex> = LazyLock::new(|| whole("[a-z0-9-]{1,24}"));

fn whole(accepted: &str) -> Regex {
    Regex::new(&format!("^(?:{accepted})$")).expect("the pattern is a constant")
}

/// Holds what inputs are checked against: what the template decided.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// The rules.
    pub rules: &'a [Rule],
    /// The host name of this account's registry.
    pub registry: &'a str,
    /// The Region.
    pub region: &'a str,
    /// Says what stands under every input: the parameter `BakeDefaults`, a JSON object.
    pub defaults: &'a str,
}

/// Tells why an input, or the defaults under it, cannot be used; the message names every field that is not accepted, its
/// value and what is accepted.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InputError(String);

impl From<Vec<FieldError>> for InputError {
    fn from(errors: Vec<FieldError>) -> Self {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Self(errors.join("; "))
    }
}

impl From<FieldError> for InputError {
    fn from(error: FieldError) -> Self {
        vec![error].into()
    }
}

/// Holds what an execution is asked to bake, with the stack's defaults under it.
#[derive(Debug)]
pub struct Input {
    /// The images; none where the rules' newest are wanted.
    pub images: Vec<RequestedImage>,
    /// The names of the rules, where not all are meant.
    pub rules: Option<Vec<String>>,
    /// The architectures, where they are named, each once.
    pub architectures: Option<Vec<Architecture>>,
    /// The name of the parameter with the AMI's id.
    pub ami_parameter: String,
    /// The instance type, or one for each architecture.
    pub instance_type: InstanceType,
    /// The size of the volume, where it is given.
    pub volume_gib: Option<u32>,
    /// Tells whether it is encrypted.
    pub encrypted: bool,
    /// With which key, where not with the account's default one.
    pub kms_key: Option<String>,
    /// The builders' instance profile, where it is not the stack's: its name or ARN.
    pub profile: Option<String>,
    /// The builders' security groups, where they are not the cluster's.
    pub security_groups: Option<Vec<String>>,
    /// The builders' subnet, where it is not one of the cluster's.
    pub subnet: Option<String>,
    /// Tells whether they have public addresses.
    pub public_address: bool,
    /// Where fast snapshot restore is enabled.
    pub zones: Vec<String>,
    /// Tells how the state machine goes about it.
    pub manner: BakeOptions,
}

/// Tells how the state machine goes about a bake.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BakeOptions {
    /// Tells how many snapshots of each architecture stay.
    pub keep: u32,
    /// Tells whether a snapshot is made although nothing changed.
    pub force: bool,
    /// Tells whether the execution's output is short.
    pub quiet: bool,
}

/// The instance type of builders.
#[derive(Debug, PartialEq, Eq)]
pub enum InstanceType {
    /// The one that was named.
    Any(String),
    /// One for each architecture that was named.
    Of(BTreeMap<Architecture, String>),
}

impl Stack<'_> {
    /// Reads what an execution is asked to bake, the defaults under it.
    ///
    /// # Errors
    /// [`InputError`] for what is not accepted of the defaults, or else of the input.
    pub fn input(&self, input: Value) -> Result<Input, InputError> {
        let defaults = self.defaults()?;
        Input::read(under(defaults, object("the input", input)?), self)
    }

    /// Reads the defaults, which are checked by themselves so that whoever starts an execution is not blamed for them.
    ///
    /// # Errors
    /// [`InputError`] for what is not accepted of them, or would not be in an execution that says nothing else.
    pub fn defaults(&self) -> Result<Map<String, Value>, InputError> {
        let read = self.usable_defaults();
        read.map_err(|InputError(errors)| InputError(format!("the stack's parameter BakeDefaults: {errors}")))
    }

    fn usable_defaults(&self) -> Result<Map<String, Value>, InputError> {
        let text = self.defaults;
        let value = serde_json::from_str::<UniqueKeys>(text).and_then(|UniqueKeys| serde_json::from_str(text));
        let value: Value = value.map_err(|error| InputError(format!("it is no JSON: {error}")))?;
        let defaults = object("the value", value)?;
        if let Some(trigger) = defaults.get("trigger") {
            let accepted = "nothing, for it has no default";
            return Err(FieldError::new("trigger", Some(trigger.clone()), accepted).into());
        }
        let input = Input::read(defaults.clone(), self)?;
        input.check_for(input.architectures.as_deref().unwrap_or_default())?;
        Ok(defaults)
    }
}

/// Reads a JSON object.
///
/// # Errors
/// [`FieldError`] where the value is something else.
pub fn object(what: &str, value: Value) -> Result<Map<String, Value>, FieldError> {
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(FieldError::new(what, Some(other), "a JSON object")),
    }
}

/// Puts defaults under an input: what the input says, or says otherwise, it says alone.
fn under(defaults: Map<String, Value>, mut input: Map<String, Value>) -> Map<String, Value> {
    let says = |name: &str| input.contains_key(name);
    let is_replaced = |name: &str| match name {
        "images" | "rules" => says("images") || says("rules"),
        "encrypted" => says("encrypted") || says("kmsKeyId"),
        "kmsKeyId" => says("kmsKeyId") || input.get("encrypted") == Some(&Value::Bool(false)),
        name => says(name),
    };
    let left: Vec<(String, Value)> = defaults.into_iter().filter(|(name, _)| !is_replaced(name)).collect();
    input.extend(left);
    input
}

impl Input {
    fn read(fields: Map<String, Value>, stack: &Stack) -> Result<Self, InputError> {
        let mut fields = Fields::new(fields);
        let triggers = TRIGGERS.join(", ");
        fields.text("trigger", &triggers, |text| TRIGGERS.contains(&text));
        let encrypted = fields.get("encrypted").is_none() || fields.boolean("encrypted");
        let input = Self {
            images: requested_image::images(&mut fields, stack.registry),
            rules: rules(&mut fields, stack),
            architectures: architectures(&mut fields),
            ami_parameter: ami_parameter(&mut fields),
            instance_type: instance_type(&mut fields),
            volume_gib: fields.whole("volumeSizeGiB", MIN_GIB..=MAX_GIB),
            encrypted,
            kms_key: kms_key(&mut fields, encrypted),
            profile: fields.text("instanceProfile", "an instance profile's name or ARN", |text| {
                PROFILE.is_match(text)
            }),
            security_groups: groups(&mut fields),
            subnet: fields.text("subnetId", "a subnet's id, such as subnet-0123456789abcdef0", |text| {
                SUBNET.is_match(text)
            }),
            public_address: fields.boolean("publicAddress"),
            zones: zones(&mut fields, stack.region),
            manner: BakeOptions {
                keep: fields.whole("keep", 1..=MAX_KEEP).unwrap_or(KEEP),
                force: fields.boolean("force"),
                quiet: fields.boolean("quiet"),
            },
        };
        fields.finish(&FIELDS)?;
        Ok(input)
    }

    /// Checks the input against the architectures that are to be baked for.
    ///
    /// # Errors
    /// [`InputError`] that names every field that is for one architecture only.
    pub fn check_for(&self, architectures: &[Architecture]) -> Result<(), InputError> {
        if architectures.len() < 2 {
            return Ok(());
        }
        let mut errors = Vec::new();
        if !self.ami_parameter.contains("{architecture}") {
            let accepted = "a name with {architecture} in it, where there are two of them";
            errors.push(FieldError::new(
                "amiParameter",
                Some(json!(self.ami_parameter)),
                accepted,
            ));
        }
        if let InstanceType::Any(kind) = &self.instance_type {
            let accepted = r#"one type for each architecture, where there are two of them: {"x86_64": "m6i.large", "arm64": "m6g.large"}"#;
            errors.push(FieldError::new("instanceType", Some(json!(kind)), accepted));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.into()) }
    }

    /// Names the parameter with the id of the AMI for an architecture and a Kubernetes version.
    #[must_use]
    pub fn ami_parameter_for(&self, architecture: Architecture, version: &str) -> String {
        let name = self.ami_parameter.replace("{version}", version);
        name.replace("{architecture}", &architecture.to_string())
    }

    /// Names the instance type for an architecture.
    #[must_use]
    pub fn instance_type_for(&self, architecture: Architecture) -> &str {
        let named = match &self.instance_type {
            InstanceType::Any(kind) => Some(kind),
            InstanceType::Of(kinds) => kinds.get(&architecture),
        };
        named.map_or(
            match architecture {
                Architecture::X86 => "m6i.large",
                Architecture::Arm => "m6g.large",
            },
            String::as_str,
        )
    }
}

fn rules(fields: &mut Fields, stack: &Stack) -> Option<Vec<String>> {
    let names: Vec<&str> = stack.rules.iter().map(|rule| rule.name.as_str()).collect();
    if let (Some(_), Some(rules)) = (fields.get("images"), fields.get("rules").cloned()) {
        fields.refuse("rules", Some(rules), "nothing beside images: either of them");
        return None;
    }
    let accepted = format!("a list of rules of the stack: {}", names.join(", "));
    fields.texts("rules", MAX_RULES, &accepted, |text| names.contains(&text))
}

fn architectures(fields: &mut Fields) -> Option<Vec<Architecture>> {
    let accepted = "a list of x86_64, arm64 or both";
    let texts = fields.texts("architectures", 2, accepted, |text| {
        text.parse::<Architecture>().is_ok()
    })?;
    let is_named = |known: &Architecture| texts.contains(&known.to_string());
    Some(Architecture::ALL.into_iter().filter(is_named).collect())
}

fn ami_parameter(fields: &mut Fields) -> String {
    let accepted =
        "a parameter's name of letters, digits and _./-, in which {version} and {architecture} are filled in";
    let is_name = |text: &str| PARAMETER.is_match(&text.replace("{version}", "1").replace("{architecture}", "arm64"));
    let name = fields.text("amiParameter", accepted, is_name);
    name.unwrap_or_else(|| AMI_PARAMETER.to_owned())
}

fn instance_type(fields: &mut Fields) -> InstanceType {
    let value = fields.get("instanceType").cloned();
    let read = match &value {
        None => Some(InstanceType::Of(BTreeMap::new())),
        Some(Value::String(kind)) if INSTANCE_TYPE.is_match(kind) => Some(InstanceType::Any(kind.clone())),
        Some(Value::Object(kinds)) if !kinds.is_empty() => {
            let kinds = kinds.iter().map(|(architecture, kind)| {
                let kind = kind.as_str().filter(|kind| INSTANCE_TYPE.is_match(kind))?;
                Some((architecture.parse().ok()?, kind.to_owned()))
            });
            kinds.collect::<Option<_>>().map(InstanceType::Of)
        }
        Some(_) => None,
    };
    read.unwrap_or_else(|| {
        let accepted = r#"an instance type, such as "m6i.large", or one for each architecture: {"x86_64": "m6i.large", "arm64": "m6g.large"}"#;
        fields.refuse("instanceType", value, accepted);
        InstanceType::Of(BTreeMap::new())
    })
}

fn kms_key(fields: &mut Fields, encrypted: bool) -> Option<String> {
    if let (false, Some(key)) = (encrypted, fields.get("kmsKeyId").cloned()) {
        fields.refuse("kmsKeyId", Some(key), "nothing where encrypted is false");
        return None;
    }
    let accepted = "a KMS key's id or ARN, or an alias' name (alias/…) or ARN";
    fields.text("kmsKeyId", accepted, |text| KMS_KEY.is_match(text))
}

fn groups(fields: &mut Fields) -> Option<Vec<String>> {
    let accepted = format!("a list of 1 to {MAX_GROUPS} security groups' ids, such as sg-0123456789abcdef0");
    fields.texts("securityGroupIds", MAX_GROUPS, &accepted, |text| GROUP.is_match(text))
}

/// Reads where fast snapshot restore is enabled; nowhere, which is the default, may be said with an empty list.
fn zones(fields: &mut Fields, region: &str) -> Vec<String> {
    if fields.get("fastSnapshotRestoreZones") == Some(&json!([])) {
        return Vec::new();
    }
    let accepted = format!("a list of at most {MAX_ZONES} Availability Zones of {region}, such as {region}a");
    let is_zone = |text: &str| ZONE.is_match(text) && text.strip_prefix(region).is_some_and(|rest| !rest.is_empty());
    let zones = fields.texts("fastSnapshotRestoreZones", MAX_ZONES, &accepted, is_zone);
    zones.unwrap_or_default()
}

#[cfg(test)]
mod tests;

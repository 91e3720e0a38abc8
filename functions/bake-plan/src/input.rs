//! Requests: what the state machine asks for.

use std::sync::LazyLock;

use prefetch::{
    bake::input::{Input, object},
    fields::Fields,
};
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::{error::PlanError, settings::Settings};

static VERSION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[0-9]{1,3}\.[0-9]{1,3}$").expect("the pattern is a constant"));

/// Holds what the state machine asks for.
#[derive(Debug)]
pub struct Request {
    /// The input of the execution.
    pub input: Input,
    /// The cluster, as EKS describes it.
    pub cluster: Cluster,
}

/// The cluster, as EKS describes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Its Kubernetes version.
    pub version: String,
    /// Its subnets.
    #[serde(default, rename = "subnetIds")]
    pub subnets: Vec<String>,
    /// The security group that EKS made for it, which its nodes are in.
    #[serde(rename = "securityGroupId")]
    pub security_group: Option<String>,
}

impl Request {
    /// Reads what the state machine asks for, the stack's defaults under the execution's input.
    ///
    /// # Errors
    /// [`PlanError::BadInput`] that names every field that is not accepted.
    pub fn parse(payload: Value, settings: &Settings) -> Result<Self, PlanError> {
        let mut fields = Fields::new(object("the request", payload)?);
        let input = fields.get("input").cloned().unwrap_or_default();
        let cluster = cluster(&mut fields);
        fields.finish(&["input", "cluster"])?;
        Ok(Self {
            input: settings.stack().input(input)?,
            cluster: cluster.ok_or_else(|| PlanError::BadInput("no cluster is named".to_owned()))?,
        })
    }
}

fn cluster(fields: &mut Fields) -> Option<Cluster> {
    let value = fields.get("cluster").cloned();
    let cluster: Option<Cluster> = value.clone().and_then(|value| serde_json::from_value(value).ok());
    let cluster = cluster.filter(|cluster| VERSION.is_match(&cluster.version));
    if cluster.is_none() {
        let accepted = r#"{"version": "1.33", "subnetIds": ["subnet-…"], "securityGroupId": "sg-…"}"#;
        fields.refuse("cluster", value, accepted);
    }
    cluster
}

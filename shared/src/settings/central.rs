//! Central registries: those of other accounts or Regions from which the stack takes images beside its own.

use std::collections::BTreeSet;

use crate::image::{RegistryEndpoint, ecr_registry};

/// Limits how many there are: a function's environment and a role's policy have room for so many.
pub(super) const MAX_REGISTRIES: usize = 5;

/// A private registry of ECR that is not this account's in this Region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CentralRegistry {
    /// Its account.
    pub account: String,
    /// Its Region.
    pub region: String,
    /// Its host name, under the endpoint by which nodes pull.
    pub host: String,
}

impl CentralRegistry {
    /// Reads registries, separated by commas, each an account, or `account/Region` where it is not this Region. None where one
    /// names no registry, or one that is there already, this account's own among them, and where there are too many.
    pub(super) fn read_all(text: &str, own: &str, region: &str, endpoint: RegistryEndpoint) -> Option<Vec<Self>> {
        let read = text.split(',').map(|name| Self::read(name, region, endpoint));
        let registries: Vec<Self> = read.collect::<Option<_>>()?;
        (registries.len() <= MAX_REGISTRIES && are_others(&registries, own)).then_some(registries)
    }

    /// Reads an account, or `account/Region`; without a Region it is this one. None where it names no registry.
    fn read(text: &str, region: &str, endpoint: RegistryEndpoint) -> Option<Self> {
        let (account, region) = text.split_once('/').unwrap_or((text, region));
        let host = ecr_registry(account, region, endpoint).ok()?;
        Some(Self {
            account: account.to_owned(),
            region: region.to_owned(),
            host,
        })
    }
}

/// Returns true where each of them is another one, and none is this account's.
fn are_others(registries: &[CentralRegistry], own: &str) -> bool {
    let hosts: BTreeSet<&str> = registries.iter().map(|registry| registry.host.as_str()).collect();
    hosts.len() == registries.len() && !hosts.contains(own)
}

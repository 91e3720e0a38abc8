//! The hosts of private ECR registries.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde::Deserialize;

use super::name::{ImageError, check, unusable, whole};

static ACCOUNT: LazyLock<Regex> = LazyLock::new(|| whole(r"[0-9]{12}"));
static REGION: LazyLock<Regex> = LazyLock::new(|| whole(r"[a-z]+(?:-[a-z]+)+-[0-9]+"));
/// A private ECR registry's host, whatever its endpoint and partition.
static ECR_HOST: LazyLock<Regex> =
    LazyLock::new(|| whole(r"([0-9]{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.[a-z0-9.-]+"));

/// The host name under which nodes pull from a private ECR registry; every one of them answers for the same registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryEndpoint {
    /// `<account>.dkr.ecr.<region>.amazonaws.com`
    #[default]
    Standard,
    /// `<account>.dkr.ecr-fips.<region>.amazonaws.com`
    Fips,
    /// `<account>.dkr-ecr.<region>.on.aws`
    Dualstack,
    /// `<account>.dkr-ecr-fips.<region>.on.aws`
    DualstackFips,
}

/// Names the host of an account's private ECR registry in a Region, in the Region's own partition.
///
/// # Errors
/// [`ImageError::Part`] where the account is not 12 digits, the Region is not shaped like one, or its partition has no such
/// endpoint.
pub fn ecr_registry(account: &str, region: &str, endpoint: RegistryEndpoint) -> Result<String, ImageError> {
    const NO_DUAL_STACK: &str = "a Region of a partition with dual-stack endpoints";
    check("account", account, &ACCOUNT, "12 digits")?;
    check("Region", region, &REGION, "a Region's code such as eu-west-1")?;
    let (name, suffix) = match endpoint {
        RegistryEndpoint::Standard => ("dkr.ecr", Some(dns_suffix(region))),
        RegistryEndpoint::Fips => ("dkr.ecr-fips", Some(dns_suffix(region))),
        RegistryEndpoint::Dualstack => ("dkr-ecr", dual_stack_suffix(region)),
        RegistryEndpoint::DualstackFips => ("dkr-ecr-fips", dual_stack_suffix(region)),
    };
    let suffix = suffix.ok_or_else(|| unusable("Region", region, NO_DUAL_STACK))?;
    Ok(format!("{account}.{name}.{region}.{suffix}"))
}

/// Returns true where two host names are one private ECR registry's, or the same.
#[must_use]
pub fn is_same_registry(one: &str, other: &str) -> bool {
    let key = |host| account_and_region(host);
    one == other || key(one).is_some() && key(one) == key(other)
}

/// Returns the Region of a private ECR registry by its host name, whichever of its endpoints that is; none for any other host.
#[must_use]
pub fn ecr_region(host: &str) -> Option<String> {
    account_and_region(host).map(|(_, region)| region)
}

/// Returns the account of a private ECR registry by its host name, whichever of its endpoints that is; none for any other host.
#[must_use]
pub fn ecr_account(host: &str) -> Option<String> {
    account_and_region(host).map(|(account, _)| account)
}

fn account_and_region(host: &str) -> Option<(String, String)> {
    let parts = ECR_HOST.captures(host)?;
    let (account, region) = (&parts[1], &parts[2]);
    let endpoints = [
        RegistryEndpoint::Standard,
        RegistryEndpoint::Fips,
        RegistryEndpoint::Dualstack,
        RegistryEndpoint::DualstackFips,
    ];
    let is_its = |endpoint| ecr_registry(account, region, endpoint).is_ok_and(|name| name == host);
    endpoints
        .into_iter()
        .any(is_its)
        .then(|| (account.to_owned(), region.to_owned()))
}

/// Returns the DNS suffix of the partition a Region belongs to (botocore's partitions.json).
fn dns_suffix(region: &str) -> &'static str {
    match region.split('-').take(2).collect::<Vec<_>>()[..] {
        ["cn", _] => "amazonaws.com.cn",
        ["eusc", _] => "amazonaws.eu",
        ["us", "iso"] => "c2s.ic.gov",
        ["us", "isob"] => "sc2s.sgov.gov",
        ["eu", "isoe"] => "cloud.adc-e.uk",
        ["us", "isof"] => "csp.hci.ic.gov",
        _ => "amazonaws.com",
    }
}

/// Returns the DNS suffix of ECR's dual-stack endpoints in a Region's partition, where AWS names one (ECR user guide,
/// making requests to Amazon ECR registries; cloud-provider-aws, ecr-credential-provider).
fn dual_stack_suffix(region: &str) -> Option<&'static str> {
    match dns_suffix(region) {
        "amazonaws.com" => Some("on.aws"),
        "amazonaws.com.cn" => Some("on.amazonwebservices.com.cn"),
        _ => None,
    }
}

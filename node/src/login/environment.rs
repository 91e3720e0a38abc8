//! The environment that the units of kubelet and containerd have: proxies above all.

use std::collections::BTreeMap;

use crate::{
    host::Host,
    unit::{self, Unit},
};

/// Where Bottlerocket writes the proxy that its units have.
const BOTTLEROCKET_PROXY: &str = "/etc/network/proxy.env";

/// What is taken over from containerd's unit: the rest concerns its own process.
const OF_CONTAINERD: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Reads the environment that kubelet has, and under it containerd's proxies, from their units on this host.
///
/// Kubelet's is whole: it hands its own environment on to its credential providers.
#[must_use]
pub fn of_units(host: &Host) -> BTreeMap<String, String> {
    merged(host, &Unit::of(host, "kubelet.service"))
}

/// Puts kubelet's environment over the proxies of Bottlerocket and containerd.
#[must_use]
pub fn merged(host: &Host, kubelet: &Unit) -> BTreeMap<String, String> {
    let mut environment = unit::environment_file(&host.read(BOTTLEROCKET_PROXY).unwrap_or_default());
    environment.extend(Unit::of(host, "containerd.service").environment);
    environment.retain(|name, _| OF_CONTAINERD.contains(&name.as_str()));
    environment.extend(kubelet.environment.clone());
    environment
}

#[cfg(test)]
mod tests {
    use super::of_units;
    use crate::host::Folder;

    const PROXY_ENV: &str = include_str!("environment/bottlerocket-proxy.env");

    #[test]
    fn bottlerockets_proxy_is_known() {
        let folder = Folder::new().with("etc/network/proxy.env", PROXY_ENV);
        let environment = of_units(&folder.host());
        assert_eq!(environment["https_proxy"], "http://proxy.internal.example:3128");
        assert_eq!(environment["NO_PROXY"], "169.254.169.254,localhost,.internal.example");
    }

    #[test]
    fn kubelets_environment_is_whole_and_beats_containerds_proxies() {
        let folder = Folder::new()
            .with(
                "etc/systemd/system/containerd.service.d/a.conf",
                "[Service]\nEnvironment=HTTPS_PROXY=http://c:1 HTTP_PROXY=http://c:1 GOMEMLIMIT=1\n",
            )
            .with(
                "etc/systemd/system/kubelet.service.d/a.conf",
                "[Service]\nEnvironment=HTTPS_PROXY=http://k:1 AWS_REGION=eu-west-1\n",
            );
        let environment = of_units(&folder.host());
        let expected = [
            ("AWS_REGION", "eu-west-1"),
            ("HTTPS_PROXY", "http://k:1"),
            ("HTTP_PROXY", "http://c:1"),
        ];
        assert!(
            environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .eq(expected)
        );
    }
}

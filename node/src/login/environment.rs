//! The environment that the units of kubelet and containerd have: proxies above all.

use std::{collections::BTreeMap, env};

use crate::{
    host::Host,
    systemd::{self, ServiceUnit},
};

/// Names the file in which Bottlerocket writes the proxy that its units have.
const BOTTLEROCKET_PROXY: &str = "/etc/network/proxy.env";

/// Names the variables of a process's proxies.
const PROXIES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Names the variables of a process's certificates.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

type Environment = BTreeMap<String, String>;

/// Returns the environment for a login's helpers: kubelet's, and under it containerd's proxies.
///
/// Kubelet's is whole: it hands its own environment on to its credential providers.
#[must_use]
pub fn for_helpers(host: &Host, kubelet: &ServiceUnit) -> Environment {
    over(kubelet.environment.clone(), of_containerd(host))
}

/// Returns the environment for questions to registries: containerd's, which pulls, under it kubelet's, and under that the
/// proxies of this process, which all three may have from systemd.
#[must_use]
pub fn for_registries(host: &Host, own: Environment) -> Environment {
    let kubelet = of_connections(ServiceUnit::of(host, "kubelet.service").environment);
    over(of_containerd(host), over(kubelet, own))
}

/// Returns the proxies that this process has.
#[must_use]
pub fn own_proxies() -> Environment {
    let own = |name: &str| Some((name.to_owned(), env::var(name).ok()?));
    PROXIES.into_iter().filter_map(own).collect()
}

/// Returns the proxies and certificates of containerd, which on Bottlerocket has all proxies from a file.
fn of_containerd(host: &Host) -> Environment {
    let mut environment = systemd::environment_file(&host.read(BOTTLEROCKET_PROXY).unwrap_or_default());
    environment.extend(ServiceUnit::of(host, "containerd.service").environment);
    of_connections(environment)
}

/// Leaves proxies and certificates: the rest of an environment concerns its own process.
fn of_connections(mut environment: Environment) -> Environment {
    environment.retain(|name, _| PROXIES.contains(&name.as_str()) || CERTIFICATES.contains(&name.as_str()));
    environment
}

/// Puts an environment over another, in which a variable may be spelt in other letters.
fn over(stronger: Environment, mut weaker: Environment) -> Environment {
    weaker.retain(|name, _| !stronger.keys().any(|other| other.eq_ignore_ascii_case(name)));
    weaker.extend(stronger);
    weaker
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Folder;

    const PROXY_ENV: &str = include_str!("environment/bottlerocket-proxy.env");

    fn services(containerd: &str, kubelet: &str) -> Folder {
        Folder::new()
            .with(
                "etc/systemd/system/containerd.service.d/a.conf",
                &format!("[Service]\nEnvironment={containerd}\n"),
            )
            .with(
                "etc/systemd/system/kubelet.service.d/a.conf",
                &format!("[Service]\nEnvironment={kubelet}\n"),
            )
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        variables.iter().map(pair).collect()
    }

    #[test]
    fn bottlerockets_proxy_is_known() {
        let folder = Folder::new().with("etc/network/proxy.env", PROXY_ENV);
        let environment = for_registries(&folder.host(), Environment::new());
        assert_eq!(environment["https_proxy"], "http://proxy.internal.example:3128");
        assert_eq!(environment["NO_PROXY"], "169.254.169.254,localhost,.internal.example");
        assert_eq!(environment, for_helpers(&folder.host(), &ServiceUnit::default()));
    }

    #[test]
    fn for_helpers_kubelets_environment_is_whole_and_beats_containerds_proxies() {
        let host = services(
            "HTTPS_PROXY=http://c:1 HTTP_PROXY=http://c:1 GOMEMLIMIT=1",
            "HTTPS_PROXY=http://k:1 AWS_REGION=eu-west-1",
        );
        let host = host.host();
        let expected = [
            ("AWS_REGION", "eu-west-1"),
            ("HTTPS_PROXY", "http://k:1"),
            ("HTTP_PROXY", "http://c:1"),
        ];
        assert_eq!(
            for_helpers(&host, &ServiceUnit::of(&host, "kubelet.service")),
            environment(&expected)
        );
    }

    #[test]
    fn for_registries_containerds_proxies_beat_kubelets_and_those_the_processs_own() {
        let folder = services(
            "https_proxy=http://c:1 GOMEMLIMIT=1",
            "HTTPS_PROXY=http://k:1 NO_PROXY=k AWS_REGION=eu-west-1",
        );
        let own = [
            ("HTTPS_PROXY", "http://own:1"),
            ("http_proxy", "http://own:1"),
            ("no_proxy", "own"),
        ];
        let expected = [
            ("NO_PROXY", "k"),
            ("http_proxy", "http://own:1"),
            ("https_proxy", "http://c:1"),
        ];
        assert_eq!(
            for_registries(&folder.host(), environment(&own)),
            environment(&expected)
        );
    }
}

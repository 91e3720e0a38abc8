//! Proxies as Go's programs on the node use them, kubelet and containerd among them (`golang.org/x/net/http/httpproxy`).

use std::{collections::BTreeMap, fmt, net::IpAddr};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, Uri};

/// Tells which proxy is asked for which host.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Exceptions,
}

/// A proxy.
#[derive(Clone, PartialEq)]
pub struct Proxy {
    /// Its address, by http, https or socks5.
    pub url: Uri,
    /// The user and the password for it; never printed.
    pub login: Option<(String, String)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)
    }
}

impl Proxies {
    /// Reads the variables of an environment: those in capital letters first.
    #[must_use]
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Self {
        let variable = |name: &str| {
            let names = [name.to_owned(), name.to_lowercase()];
            let mut values = names.iter().filter_map(|name| environment.get(name));
            values.find(|value| !value.is_empty()).map_or("", String::as_str)
        };
        Self {
            http: Proxy::parse(variable("HTTP_PROXY")),
            https: Proxy::parse(variable("HTTPS_PROXY")),
            exceptions: Exceptions::parse(variable("NO_PROXY")),
        }
    }

    /// Names the proxy for an address, if any. The machine itself is never asked through one.
    #[must_use]
    pub fn for_url(&self, url: &Uri) -> Option<&Proxy> {
        let is_https = url.scheme_str() == Some("https");
        let proxy = if is_https { &self.https } else { &self.http };
        let host = url.host()?.trim_matches(['[', ']']).to_lowercase();
        let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let is_here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        proxy.as_ref().filter(|_| !is_here && !self.exceptions.has(&host, port))
    }
}

impl Proxy {
    /// Returns the header by which it is logged in to.
    #[must_use]
    pub fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.login.as_ref()?;
        basic(user, password)
    }

    /// Parses a proxy's address; http where it tells no scheme.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = with_scheme.parse().ok()?;
        let scheme = match uri.scheme_str()? {
            scheme @ ("http" | "https" | "socks5") => scheme,
            "socks5h" => "socks5",
            _ => return None,
        };
        let authority = uri.authority()?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => 1080,
        };
        let port = authority.port_u16().unwrap_or(default_port);
        let login = authority.as_str().rsplit_once('@').map(|(login, _)| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            (decoded(user), decoded(password))
        });
        Some(Self {
            url: format!("{scheme}://{}:{port}/", authority.host()).parse().ok()?,
            login,
        })
    }
}

/// Makes the value of a header that logs in.
#[must_use]
pub fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {login}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Decodes `%41` to `A`; what is no such code stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = rest.get(1..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The hosts that are asked without a proxy.
#[derive(Clone, Debug, Default, PartialEq)]
struct Exceptions {
    is_all: bool,
    networks: Vec<(IpAddr, u8)>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    /// A domain with a dot before it, whether the domain itself is meant too, and the port.
    domains: Vec<(String, bool, Option<u16>)>,
}

impl Exceptions {
    fn parse(text: &str) -> Self {
        let mut exceptions = Self::default();
        for word in text.split(',').map(|word| word.trim().to_lowercase()) {
            if word == "*" {
                exceptions.is_all = true;
            } else if !word.is_empty() {
                exceptions.add(&word);
            }
        }
        exceptions
    }

    fn add(&mut self, word: &str) {
        if let Some(network) = network(word) {
            return self.networks.push(network);
        }
        let (host, port) = split_port(word);
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return self.addresses.push((address, port));
        }
        let host = host
            .strip_prefix('*')
            .filter(|host| host.starts_with('.'))
            .unwrap_or(host);
        match host.strip_prefix('.') {
            Some("") => {}
            Some(_) => self.domains.push((host.to_owned(), false, port)),
            None => self.domains.push((format!(".{host}"), true, port)),
        }
    }

    fn has(&self, host: &str, port: u16) -> bool {
        let is_port = |of: &Option<u16>| of.is_none_or(|of| of == port);
        if let Ok(address) = host.parse() {
            return self.is_all
                || self.networks.iter().any(|network| is_in(address, *network))
                || self
                    .addresses
                    .iter()
                    .any(|(of, ports)| *of == address && is_port(ports));
        }
        let is_of = |(domain, with_itself, ports): &(String, bool, Option<u16>)| {
            is_port(ports) && (host.ends_with(domain) || *with_itself && host == &domain[1..])
        };
        self.is_all || self.domains.iter().any(is_of)
    }
}

/// Parses a network such as `10.0.0.0/8`.
fn network(word: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = word.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (length <= longest).then_some((address, length))
}

fn split_port(word: &str) -> (&str, Option<u16>) {
    let parts = word
        .rsplit_once(':')
        .filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    match parts.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host, Some(port)),
        None => (word, None),
    }
}

fn is_in(address: IpAddr, (network, length): (IpAddr, u8)) -> bool {
    let prefix = |bits: u128, of: u8| bits.checked_shr(u32::from(of - length)).unwrap_or(0);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let [address, network] = [address, network].map(|ip| u128::from(ip.to_bits()));
            prefix(address, 32) == prefix(network, 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => prefix(address.to_bits(), 128) == prefix(network.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Proxies::from_environment(&variables.collect())
    }

    fn uses(proxies: &Proxies, url: &str) -> Option<String> {
        let proxy = proxies.for_url(&url.parse().unwrap());
        proxy.map(|proxy| proxy.url.to_string())
    }

    #[test]
    fn each_scheme_has_its_proxy_and_capital_letters_come_first() {
        let proxies = proxies(&[
            ("HTTPS_PROXY", "proxy.example:3128"),
            ("https_proxy", "http://other.example"),
            ("http_proxy", "https://plain.example"),
            ("ALL_PROXY", "http://all.example"),
        ]);
        assert_eq!(
            uses(&proxies, "https://reg.example/v2/").as_deref(),
            Some("http://proxy.example:3128/")
        );
        assert_eq!(
            uses(&proxies, "http://reg.example/v2/").as_deref(),
            Some("https://plain.example:443/")
        );
        for here in [
            "https://localhost:5000",
            "https://127.0.0.1",
            "https://127.8.8.8:1",
            "https://[::1]:5000",
        ] {
            assert_eq!(uses(&proxies, here), None, "{here}");
        }
        assert_eq!(
            uses(
                &super::tests::proxies(&[("ALL_PROXY", "all.example")]),
                "https://reg.example"
            ),
            None
        );
    }

    #[test]
    fn exceptions_are_networks_addresses_domains_and_ports() {
        let no = "169.254.169.254, 10.0.0.0/8,.internal.example,corp.example:8443,*.wild.example,fd00::/8,[fe80::1]:99";
        let proxies = proxies(&[("HTTPS_PROXY", "http://p"), ("NO_PROXY", no)]);
        for (host, is_direct) in [
            ("169.254.169.254", true),
            ("169.254.169.253", false),
            ("10.200.3.4:5000", true),
            ("11.0.0.1", false),
            ("api.internal.example", true),
            ("internal.example", false),
            ("xinternal.example", false),
            ("corp.example:8443", true),
            ("reg.corp.example:8443", true),
            ("corp.example", false),
            ("a.wild.example", true),
            ("wild.example", false),
            ("[fd12::1]", true),
            ("[fe80::1]:99", true),
            ("[fe80::1]", false),
            ("REG.Internal.Example", true),
        ] {
            assert_eq!(
                uses(&proxies, &format!("https://{host}")).is_none(),
                is_direct,
                "{host}"
            );
        }
        let none = super::tests::proxies(&[("HTTPS_PROXY", "http://p"), ("no_proxy", "x,*")]);
        assert_eq!(uses(&none, "https://reg.example"), None);
    }

    #[test]
    fn a_proxys_login_is_a_header_that_is_not_printed() {
        let proxy = Proxy::parse("http://user:p%40ss@proxy.example:3128/").unwrap();
        assert_eq!(proxy.authorization(), basic("user", "p@ss"));
        assert!(!format!("{proxy:?}").contains("p@ss"));
        assert_eq!(proxy.url, "http://proxy.example:3128/");
        assert_eq!(decoded("100%"), "100%");
        for other in ["", "ftp://proxy", "http://", "http:// x"] {
            assert_eq!(Proxy::parse(other), None, "{other}");
        }
        assert_eq!(Proxy::parse("socks5://s").unwrap().url, "socks5://s:1080/");
    }

    proptest! {
        #[test]
        fn any_variables_are_read(proxy in ".{0,40}", no in "[0-9a-f.:/,*\\[\\]]{0,40}|.{0,20}", length in 0..=128_u8) {
            let proxies = proxies(&[("HTTPS_PROXY", &proxy), ("NO_PROXY", &format!("{no},::/{length},1.2.3.4/{length}"))]);
            std::hint::black_box(proxies.for_url(&Uri::from_static("https://[2001:db8::1]:5000/")));
            std::hint::black_box(proxies.for_url(&Uri::from_static("https://reg.example/")));
            std::hint::black_box(proxies.for_url(&Uri::from_static("https://1.2.3.4/")));
        }
    }
}

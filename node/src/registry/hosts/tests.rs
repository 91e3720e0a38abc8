use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::host::Folder;

const ECR: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";

fn parsed(text: &str) -> Vec<HostConfig> {
    parse(text, Path::new("/etc/containerd/certs.d/host")).unwrap()
}

fn urls(hosts: &[HostConfig]) -> Vec<String> {
    let url = |host: &HostConfig| host.url.as_ref().map_or("the registry".to_owned(), Url::to_string);
    hosts.iter().map(url).collect()
}

#[test]
fn files_from_the_field_are_read_as_containerd_reads_them() {
    let other = parsed(include_str!("tests/single-quotes-other-server.toml"));
    assert_eq!(
        urls(&other),
        [
            "https://registry-proxy.corp.example/v2/ecr-eu",
            "https://registry-proxy.corp.example/v2/ecr-eu/v2"
        ]
    );
    let spegel = parsed(include_str!("tests/spegel.toml"));
    assert_eq!(
        urls(&spegel),
        ["http://10.0.3.7:30020/v2".to_owned(), format!("https://{ECR}/v2")]
    );
    assert_eq!(spegel[0].dial_timeout, Some(Duration::from_millis(200)));
    assert!(!spegel[0].has_own_tls() && spegel[0].can_pull && spegel[0].can_resolve);
}

#[test]
fn hosts_are_asked_in_the_order_of_the_file_and_the_server_last() {
    let text = "
        capabilities = ['pull']
        [host.'z.example']
        [host.\"https://a.example:8443/x/../y/\"]
        ca = 'ca.pem'
        [host.'z.example'.header]
        x = ['1', '2']
        [host.'http://m.example/v2']
        capabilities = ['Resolve', 'push']
        skip_verify = true
        client = [['c.pem', '/k.pem'], 'both.pem']
    ";
    let hosts = parsed(text);
    assert_eq!(
        urls(&hosts),
        [
            "https://z.example/v2",
            "https://a.example:8443/y/v2",
            "http://m.example/v2",
            "the registry"
        ]
    );
    assert_eq!(hosts[0].header.get_all("x").iter().count(), 2);
    assert!(!format!("{:?}", hosts[0]).contains("\"1\""));
    assert_eq!(
        hosts[1].certificates,
        [Path::new("/etc/containerd/certs.d/host/ca.pem")]
    );
    assert!(!hosts[2].can_pull && hosts[2].can_resolve && hosts[2].skip_verify == Some(true));
    assert_eq!(
        hosts[2].client_pairs,
        [
            (
                PathBuf::from("/etc/containerd/certs.d/host/c.pem"),
                Some(PathBuf::from("/k.pem"))
            ),
            (PathBuf::from("/etc/containerd/certs.d/host/both.pem"), None)
        ]
    );
    assert!(hosts[3].can_resolve, "a registry that is not named can do everything");
}

#[test]
fn what_containerd_refuses_is_refused() {
    for text in [
        "server = ",
        "server = 1",
        "capabilities = ['fly']",
        "ca = 1",
        "client = [['one']]",
        "dial_timeout = 'soon'",
        "[host.'ftp://a']\n[host.'http://']",
        "[host]\na = 1",
        "[header]\n'a b' = 'x'",
        "[header]\na = 1",
        "server = 'https://a b'",
        "host = 1.5",
        "header = 1.5\n[host.'https://mirror']",
        "[host.'https://mirror']\nheader = 1979-05-27",
        "[host]\n'https://mirror' = 1.5",
    ] {
        assert!(parse(text, Path::new("/")).is_none(), "{text}");
    }
}

#[test]
fn a_host_beyond_those_that_are_asked_is_read_too() {
    let names = (0..64).map(|number| format!("[host.'https://m{number}']"));
    let first: Vec<_> = names.collect();
    let hosts = |last: &str| first.join("\n") + "\n" + last;
    assert_eq!(parsed(&hosts("[host.'https://last']\n")).len(), 65, "and the server");
    let refused = hosts("[host.'https://last']\ncapabilities = 1\n");
    assert!(parse(&refused, Path::new("/")).is_none());
}

#[test]
fn go_writes_durations_so() {
    for (text, millis) in [
        ("200ms", 200),
        ("1m30s", 90_000),
        ("1.5s", 1_500),
        ("0s", 0),
        ("+1h", 3_600_000),
    ] {
        let hosts = parsed(&format!("dial_timeout = '{text}'"));
        assert_eq!(hosts[0].dial_timeout, Some(Duration::from_millis(millis)), "{text}");
    }
}

#[test]
fn a_registrys_folder_is_the_first_of_all_folders() {
    let folder = Folder::new()
        .with("a/other/hosts.toml", "")
        .with("b/reg.example_5000_/hosts.toml", "server = 'https://one.example'")
        .with("b/reg.example:5000/hosts.toml", "server = 'https://two.example'")
        .with("b/_default/hosts.toml", "[host.'https://all.example']")
        .with("c/reg.example/hosts.toml", "server = 'https://three.example'");
    let folders = ["/a", "/b", "/c"].map(PathBuf::from);
    let of = |registry: &str| urls(&of_registry(&folder.host(), &folders, registry));
    assert_eq!(of("reg.example:5000"), ["https://one.example/v2"]);
    assert_eq!(of("reg.example"), ["https://all.example/v2", "the registry"]);
    assert_eq!(of("other"), ["the registry"]);
}

#[test]
fn dockers_certificates_stand_in_for_a_file_that_is_not_there_or_cannot_be_read() {
    for file in ["hosts.txt", "hosts.toml"] {
        let folder = Folder::new()
            .with("d/reg/ca.crt", "")
            .with("d/reg/us.cert", "")
            .with("d/reg/us.key", "")
            .with("d/reg/alone.cert", "")
            .with(&format!("d/reg/{file}"), "server = ");
        let hosts = of_registry(&folder.host(), &[PathBuf::from("/d")], "reg");
        assert_eq!(urls(&hosts), ["the registry"]);
        assert_eq!(hosts[0].certificates, [Path::new("/d/reg/ca.crt")]);
        assert_eq!(
            hosts[0].client_pairs,
            [
                (PathBuf::from("/d/reg/alone.cert"), None),
                (PathBuf::from("/d/reg/us.cert"), Some(PathBuf::from("/d/reg/us.key")))
            ]
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,80}", path in "(https?://)?[a-z./:@%-]{0,30}") {
        std::hint::black_box(parse(&text, Path::new("/")).map_or(0, |hosts| hosts.len()));
        std::hint::black_box(parse(&format!("server = '{path}'\n[host.'{path}']\ndial_timeout='{text}'"), Path::new("/")).map_or(0, |hosts| hosts.len()));
    }
}

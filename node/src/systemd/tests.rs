use super::*;
use crate::host::Folder;

const PROXY: &str = include_str!("tests/http-proxy.conf");

fn service(folder: &Folder) -> ServiceUnit {
    ServiceUnit::of(&folder.host(), "kubelet.service")
}

fn environment(text: &str) -> Vec<(String, String)> {
    let mut lines = Lines::default();
    lines.add(&format!("[Service]\n{text}"));
    lines
        .finish(&Host::at(Path::new("/nonexistent")))
        .environment
        .into_iter()
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_proxy_in_a_drop_in_is_read() {
    let folder = Folder::new().with("etc/systemd/system/kubelet.service.d/http-proxy.conf", PROXY);
    let environment = service(&folder).environment;
    assert_eq!(environment["HTTPS_PROXY"], "http://proxy.internal.example:3128");
    assert_eq!(environment["NO_PROXY"], "169.254.169.254,10.0.0.0/8,.internal.example");
}

#[test]
fn drop_ins_go_by_file_name_across_folders_and_the_stronger_folder_masks_equal_names() {
    let set = |value: &str| format!("[Service]\nEnvironment=A={value}\nEnvironment={value}=yes\n");
    let folder = Folder::new()
        .with("usr/lib/systemd/system/kubelet.service", &set("unit"))
        .with("usr/lib/systemd/system/kubelet.service.d/30-last.conf", &set("last"))
        .with("usr/lib/systemd/system/kubelet.service.d/20-same.conf", &set("weaker"))
        .with("etc/systemd/system/kubelet.service.d/20-same.conf", &set("stronger"))
        .with("etc/systemd/system/kubelet.service.d/40-none", &set("none"));
    assert_eq!(
        service(&folder).environment.into_iter().collect::<Vec<_>>(),
        pairs(&[("A", "last"), ("last", "yes"), ("stronger", "yes"), ("unit", "yes")])
    );
}

#[test]
fn quotes_hold_words_together_and_an_empty_assignment_forgets_those_before() {
    for (text, expected) in [
        ("Environment=A=1 B=2", pairs(&[("A", "1"), ("B", "2")])),
        (
            r#"Environment="A=1 2" 'B=it is' C="3""#,
            pairs(&[("A", "1 2"), ("B", "it is"), ("C", "3")]),
        ),
        (
            r#"Environment=A=x\x20y "B=\"q\"" C=100%%"#,
            pairs(&[("A", "x y"), ("B", "\"q\""), ("C", "100%")]),
        ),
        ("Environment=A=1\nEnvironment=\nEnvironment=B=2", pairs(&[("B", "2")])),
        (
            "Environment=A=1 \\\n  # a comment\n  B=2\nUnsetEnvironment=A",
            pairs(&[("B", "2")]),
        ),
        ("Environment=A=1 B=2\nUnsetEnvironment=A=2 B=2", pairs(&[("A", "1")])),
        (
            "Environment=1=1 =2 noassignment\n; Environment=A=1\n[Other]\nEnvironment=B=2",
            pairs(&[]),
        ),
    ] {
        assert_eq!(environment(text), expected, "{text}");
    }
}

#[test]
fn files_come_after_assignments_in_their_order_and_by_wildcard() {
    let folder = Folder::new()
        .with(
            "etc/systemd/system/kubelet.service",
            "[Service]\nEnvironmentFile=-/etc/environment\nEnvironmentFile=/etc/eks/*.env\nEnvironmentFile=-/etc/none\nEnvironment=A=unit D=unit",
        )
        .with("etc/environment", "# a comment\nA=file\nexport X=1\nB='one two'  \nC=\"a \\\"b\\\" \\n\"\n\n")
        .with("etc/eks/1.env", "B=later  \nE=a\\\nb # c\n")
        .with("etc/eks/1.txt", "B=never\n");
    assert_eq!(
        service(&folder).environment.into_iter().collect::<Vec<_>>(),
        pairs(&[
            ("A", "file"),
            ("B", "later"),
            ("C", "a \"b\" \\n"),
            ("D", "unit"),
            ("E", "ab # c")
        ])
    );
}

#[test]
fn flags_come_from_the_command_line_with_variables_as_nodeadm_writes_them() {
    let folder = Folder::new()
        .with(
            "etc/systemd/system/kubelet.service",
            "[Service]\nEnvironmentFile=/etc/eks/kubelet/environment\nExecStartPre=/bin/true --config=none\nExecStart=/usr/bin/kubelet \\\n    $NODEADM_KUBELET_ARGS --x=${ONE}y",
        )
        .with(
            "etc/eks/kubelet/environment",
            "ONE=1\nNODEADM_KUBELET_ARGS=\"--config=/etc/kubernetes/kubelet/config.json --config-dir /etc/kubernetes/kubelet/config.json.d\"\n",
        );
    let service = service(&folder);
    assert_eq!(service.flag("config"), Some("/etc/kubernetes/kubelet/config.json"));
    assert_eq!(
        service.flag("config-dir"),
        Some("/etc/kubernetes/kubelet/config.json.d")
    );
    assert_eq!(service.flag("x"), Some("1y"));
    assert_eq!(service.flag("con"), None);
}

proptest::proptest! {
    #[test]
    fn whatever_a_unit_holds_is_read_to_its_end(text in "([\\PC\\n\"'\\\\=\\$\\{\\}#]|Environment=|ExecStart=){0,80}") {
        let of_file = line::environment_file(&text).into_iter();
        for (name, _) in environment(&text).into_iter().chain(of_file) {
            proptest::prop_assert!(!name.is_empty() && !name.contains(['=', '\0']));
        }
    }
}

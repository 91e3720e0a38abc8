use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const KATA: &str = include_str!("../../../tests/fixtures/containerd-dump-kata-devmapper.toml");
const SOCI: &str = include_str!("../../../tests/fixtures/containerd-dump-soci-bottlerocket-raid0.toml");
const EKS_1_7: &str = include_str!("../../../tests/fixtures/containerd-dump-1.7.toml");
const EKS_2_1: &str = include_str!("../../../tests/fixtures/containerd-dump-2.1.toml");

fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

fn default() -> Config {
    Config {
        root: PathBuf::from("/var/lib/containerd"),
        snapshotter: "overlayfs".to_owned(),
        snapshotter_root: PathBuf::from("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"),
        outside: Vec::new(),
        hosts_folders: Vec::new(),
        discards_layers: false,
        other_snapshotters: Vec::new(),
        unreached_snapshotters: Vec::new(),
        image_verifiers: PathBuf::new(),
        is_cri_disabled: false,
    }
}

#[test]
fn the_settings_of_eks_are_read_from_both_versions() {
    let expected = Config {
        hosts_folders: paths(&["/etc/containerd/certs.d", "/etc/docker/certs.d"]),
        discards_layers: true,
        ..default()
    };
    assert_eq!(Config::parse(EKS_1_7), expected);
    let image_verifiers = PathBuf::from("/opt/containerd/image-verifier/bin");
    assert_eq!(
        Config::parse(EKS_2_1),
        Config {
            image_verifiers,
            ..expected
        }
    );
}

#[test]
fn a_runtime_class_with_another_snapshotter_is_named() {
    let config = Config::parse(KATA);
    let expected = [("kata-fc".to_owned(), "devmapper".to_owned())];
    assert_eq!(
        config.unreached_snapshotters, expected,
        "containerd 2 looks at runtime_platforms"
    );
    assert!(config.other_snapshotters.is_empty());
    assert_eq!(config.snapshotter, "overlayfs");

    let platforms = "[plugins.'io.containerd.cri.v1.images'.runtime_platforms.kata-fc]\nsnapshotter = 'devmapper'\n";
    let config = Config::parse(&format!("{KATA}\n{platforms}"));
    assert_eq!(config.other_snapshotters, expected);
    assert!(config.unreached_snapshotters.is_empty());
}

#[test]
fn a_snapshotter_outside_containerd_stores_in_its_own_folder() {
    let config = Config::parse(SOCI);
    assert!(config.runs_outside("soci") && config.discards_layers);
    assert_eq!(config.snapshotter, "soci");
    assert_eq!(config.snapshotter_root, Path::new("/var/lib/soci-snapshotter"));
}

#[test]
fn a_snapshotter_with_a_folder_of_its_own_stores_there() {
    let config = Config::parse(
        "root = '/data'\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'devmapper'\n\
         [plugins.'io.containerd.snapshotter.v1.devmapper']\nroot_path = '/pool'\n",
    );
    assert_eq!(config.snapshotter_root, Path::new("/pool"));
    assert_eq!(config.root, Path::new("/data"));
    assert_eq!(config.outside, [] as [&str; 0]);
}

#[test]
fn cri_is_disabled_by_any_of_its_names_and_no_other_plugin() {
    for plugin in ["cri", CRI, IMAGES, RUNTIME] {
        assert!(Config::parse(&format!("disabled_plugins = ['{plugin}']")).is_cri_disabled);
    }
    assert!(!Config::parse("disabled_plugins = ['io.containerd.internal.v1.cri-nothing', 7]").is_cri_disabled);
}

#[test]
fn what_cannot_be_read_has_defaults() {
    for dump in [
        "",
        "not = [toml",
        "root = 7\nplugins = 'none'\nproxy_plugins = []\ndisabled_plugins = 'cri'",
    ] {
        assert_eq!(Config::parse(dump), default(), "{dump}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read(text in "[\\[\\]a-z.'\"= \n{},0-9]{0,200}") {
        let config = Config::parse(&text);
        prop_assert!(!config.snapshotter.is_empty());
    }
}

/// Makes a host whose containerd listens, in a folder of its own.
fn host(name: &str) -> (Host, PathBuf) {
    let root = std::env::temp_dir().join(format!("prefetch-images-{}-{name}", std::process::id()));
    fs::create_dir_all(root.join("run/containerd")).expect("a folder");
    fs::write(root.join("run/containerd/containerd.sock"), "").expect("a file");
    (Host::at(&root), root)
}

#[test]
fn what_is_kept_holds_for_the_containerd_that_it_is_of() {
    let (host, root) = host("kept");
    let start = Start::of(&host).expect("a socket");
    let config = Config::parse(SOCI);
    keep(&host, start, &config).expect("room");
    assert_eq!(kept(&host, start), Some(config));
    let file = fs::metadata(root.join("run/prefetch-images/config")).expect("a file");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);

    fs::rename(root.join("run/containerd/containerd.sock"), root.join("before")).expect("a file");
    fs::write(root.join("run/containerd/containerd.sock"), "").expect("a file");
    assert_eq!(kept(&host, Start::of(&host).expect("a socket")), None);
    fs::remove_dir_all(root).expect("the folder");
}

#[test]
fn what_is_kept_and_cannot_be_read_is_not_trusted() {
    let (host, root) = host("broken");
    let start = Start::of(&host).expect("a socket");
    keep(&host, start, &default()).expect("room");
    let file = root.join("run/prefetch-images/config");
    let text = fs::read_to_string(&file).expect("a file");
    let script = format!("{start}\noverlayfs\n/var/lib/containerd\n\n \n");
    for content in [&text[..text.len() - 1], "", "{}", script.as_str()] {
        fs::write(&file, content).expect("room");
        assert_eq!(kept(&host, start), None, "{content}");
    }
    fs::remove_dir_all(root).expect("the folder");
}

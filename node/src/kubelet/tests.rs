use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::host::Folder;

/// As nodeadm writes it on AL2023, as far as it matters.
const NODEADM: &str = r#"{"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "evictionHard": {"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%"},
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock", "maxPods": 29}"#;

fn service(arguments: &str) -> String {
    format!("[Service]\nExecStart=/usr/bin/kubelet {arguments}\n")
}

fn percent(percent: &str) -> Threshold {
    Threshold::parse(percent)
}

#[test]
fn a_kubelet_that_is_told_nothing_has_its_defaults() {
    let folder = Folder::new().with(
        "etc/kubernetes/kubelet/config.json",
        r#"{"kind": "KubeletConfiguration"}"#,
    );
    let settings = Settings::of(&folder.host());
    assert_eq!(
        (
            settings.image_gc_high_threshold_percent,
            settings.image_gc_low_threshold_percent
        ),
        (85, 80)
    );
    assert_eq!(
        (settings.image_fs_available, settings.image_fs_inodes_free),
        (percent("15%"), percent("5%"))
    );
    assert_eq!(
        (settings.node_fs_available, settings.node_fs_inodes_free),
        (percent("10%"), percent("5%"))
    );
    assert!(!settings.has_maximum_age && settings.image_service.is_none() && settings.unreadable.is_empty());
}

#[test]
fn a_node_without_kubelet_has_no_limits() {
    assert_eq!(Settings::of(&Folder::new().host()), Settings::without_kubelet());
}

#[test]
fn what_eks_sets_switches_the_default_for_the_images_file_system_off() {
    let folder = Folder::new().with("etc/kubernetes/kubelet/config.json", NODEADM);
    let settings = Settings::of(&folder.host());
    assert_eq!(
        (settings.image_fs_available, settings.image_fs_inodes_free),
        (Threshold::default(), Threshold::default())
    );
    assert_eq!(
        (settings.node_fs_available, settings.node_fs_inodes_free),
        (percent("10%"), percent("5%"))
    );
    assert_eq!(settings.image_service, None);

    let merged = NODEADM.replace("\"maxPods\"", "\"mergeDefaultEvictionSettings\": true, \"maxPods\"");
    let folder = Folder::new().with("etc/kubernetes/kubelet/config.json", &merged);
    assert_eq!(Settings::of(&folder.host()).image_fs_available, percent("15%"));
}

#[test]
fn drop_ins_are_merged_by_name_and_soft_thresholds_count_as_well() {
    let drop_in = json!({
        "imageGCHighThresholdPercent": 70, "imageGCLowThresholdPercent": 60, "imageMaximumGCAge": "168h",
        "evictionHard": {"imagefs.available": "12%"}, "evictionSoft": {"nodefs.available": "20%", "imagefs.available": "1%"},
    });
    let folder = Folder::new()
        .with("etc/kubernetes/kubelet/config.json", NODEADM)
        .with(
            "etc/kubernetes/kubelet/config.json.d/10-first.conf",
            &drop_in.to_string(),
        )
        .with(
            "etc/kubernetes/kubelet/config.json.d/20-second.conf",
            "imageGCHighThresholdPercent: 75\nevictionSoft:\n",
        )
        .with("etc/kubernetes/kubelet/config.json.d/30-broken.conf", "{")
        .with(
            "etc/kubernetes/kubelet/config.json.d/40-other.json",
            r#"{"imageGCHighThresholdPercent": 1}"#,
        );
    let settings = Settings::of(&folder.host());
    assert_eq!(
        (
            settings.image_gc_high_threshold_percent,
            settings.image_gc_low_threshold_percent
        ),
        (75, 60)
    );
    assert_eq!(
        (settings.image_fs_available, settings.node_fs_available),
        (percent("12%"), percent("10%"))
    );
    assert!(settings.has_maximum_age);
    assert_eq!(
        settings.unreadable,
        ["/etc/kubernetes/kubelet/config.json.d/30-broken.conf"]
    );
}

#[test]
fn flags_win_and_say_where_the_configuration_is() {
    let flags =
        "--config=/etc/own.yaml --image-gc-high-threshold=60 --eviction-hard imagefs.available<2Gi,nodefs.available<1%";
    let folder = Folder::new()
        .with("etc/systemd/system/kubelet.service", &service(flags))
        .with(
            "etc/own.yaml",
            "imageGCHighThresholdPercent: 90\nimageServiceEndpoint: unix:///run/soci/soci.sock\n",
        )
        .with("etc/kubernetes/kubelet/config.json", NODEADM)
        .with("etc/kubernetes/kubelet/config.json.d/a.conf", "imageMaximumGCAge: 1h\n");
    let settings = Settings::of(&folder.host());
    assert_eq!(settings.image_gc_high_threshold_percent, 60);
    assert_eq!(
        (settings.image_fs_available, settings.node_fs_available),
        (percent("2Gi"), percent("1%"))
    );
    assert_eq!(settings.image_service, Some(PathBuf::from("/run/soci/soci.sock")));
    assert!(!settings.has_maximum_age);
}

#[test]
fn an_age_of_nothing_is_none() {
    for (age, is_set) in [
        ("0s", false),
        ("", false),
        ("0h0m", false),
        ("168h0m0s", true),
        ("30s", true),
    ] {
        let config = json!({"imageMaximumGCAge": age}).to_string();
        let folder = Folder::new().with("etc/kubernetes/kubelet/config", &config);
        assert_eq!(Settings::of(&folder.host()).has_maximum_age, is_set, "{age}");
    }
}

proptest! {
    #[test]
    fn whatever_is_configured_is_read(text in "\\PC{0,100}", age in "\\PC{0,10}", hard in "\\PC{0,20}", number in any::<i64>()) {
        let config = json!({"imageMaximumGCAge": age, "evictionHard": {"imagefs.available": hard},
            "imageGCHighThresholdPercent": number, "evictionSoft": text}).to_string();
        let Some(Value::Object(settings)) = yaml::read(&config) else { panic!("it is JSON") };
        let settings = Settings::from(&with_defaults(settings), &ServiceUnit::default());
        prop_assert!(settings.image_gc_high_threshold_percent <= 100);
        prop_assert!(signals_of_flag(&text).len() <= text.matches('<').count());
    }
}

//! Kubelet's settings, of its file or its unit.
#![no_main]

use std::{fs, hint::black_box, path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use prefetch_images::{host::Host, kubelet::Settings, systemd::ServiceUnit, yaml};

/// A folder that stands for the node's file system, in memory.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(format!("/dev/shm/prefetch-images-fuzz-{}", std::process::id()));
    fs::create_dir_all(folder.join("etc/kubernetes/kubelet")).unwrap();
    fs::create_dir_all(folder.join("etc/systemd/system/kubelet.service.d")).unwrap();
    folder
});

fuzz_target!(|text: &str| {
    let (settings, service) = text.split_once("\n===\n").unwrap_or((text, text));
    fs::write(FOLDER.join("etc/kubernetes/kubelet/config.json"), settings).unwrap();
    fs::write(FOLDER.join("etc/systemd/system/kubelet.service.d/a.conf"), service).unwrap();
    let host = Host::at(&FOLDER);
    let settings = Settings::of(&host);
    assert!(settings.image_gc_high_threshold_percent <= 100);
    black_box(ServiceUnit::of(&host, "kubelet.service").flag("config"));
    black_box(yaml::read(text));
});

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::kubelet::Threshold;

const GIB: u64 = 1 << 30;
const CASE: &str = include_str!("tests/statfs-inodes.json");

fn usage(capacity: u64, available: u64) -> Usage {
    Usage {
        capacity,
        available,
        ..Usage::default()
    }
}

fn limits(percent: u8) -> Limits {
    Limits {
        percent,
        kubelet: Settings::without_kubelet(),
    }
}

fn bytes(bytes: u64) -> Need {
    Need { bytes, inodes: 0 }
}

/// Decides by kubelet's own formula (`GarbageCollect` of its image_gc_manager.go).
fn kubelet_collects(usage: Usage, threshold: u8) -> bool {
    let available = i128::from(usage.available.min(usage.capacity));
    usage.capacity > 0 && 100 - available * 100 / i128::from(usage.capacity) >= i128::from(threshold)
}

#[test]
fn at_84_01_percent_kubelet_counts_85_and_the_guard_does_as_well() {
    for (available, percent) in [
        (1600, 84),
        (1599, 85),
        (1516, 85),
        (1500, 85),
        (0, 100),
        (10_000, 0),
        (20_000, 0),
    ] {
        assert_eq!(usage(10_000, available).percent(), Some(percent));
    }
    assert_eq!(limits(85).refusal(usage(10_000, 1700), bytes(100), 0), None);
    assert_eq!(
        limits(85).refusal(usage(10_000, 1700), bytes(101), 0).unwrap(),
        "it needs 101 bytes, and 8300 of 10000 are used; the threshold is 85 %"
    );
}

#[test]
fn what_others_are_to_take_is_given_back_up_to_all_there_is() {
    assert_eq!(usage(10_000, 1700).without(bytes(300)), usage(10_000, 2000));
    assert_eq!(usage(10_000, 1700).without(bytes(u64::MAX)), usage(10_000, 10_000));
}

#[test]
fn a_hundred_percent_is_no_limit_but_the_disk_itself() {
    assert_eq!(limits(100).refusal(usage(1000, 10), bytes(10), 0), None);
    assert!(
        limits(100)
            .refusal(usage(1000, 10), bytes(11), 0)
            .unwrap()
            .contains("more than there is")
    );
}

#[test]
fn the_parameter_is_an_upper_bound_on_kubelets_own_threshold() {
    let kubelet = |percent| Settings {
        image_gc_high_threshold_percent: percent,
        ..Settings::without_kubelet()
    };
    for (own, kubelets, expected) in [(85, 70, "70 %"), (60, 70, "60 %"), (100, 70, "70 %")] {
        let limits = Limits {
            percent: own,
            kubelet: kubelet(kubelets),
        };
        assert!(
            limits
                .refusal(usage(1000, 100), bytes(1), 0)
                .unwrap()
                .ends_with(expected)
        );
    }
}

#[test]
fn below_an_eviction_threshold_nothing_is_brought() {
    let limits = Limits {
        percent: 100,
        kubelet: Settings {
            image_fs_available: Threshold::parse("15%"),
            node_fs_available: Threshold::parse("300"),
            node_fs: Some(7),
            ..Settings::without_kubelet()
        },
    };
    let data = usage(1000, 250);
    assert_eq!(limits.refusal(data, bytes(90), 0), None);
    assert!(
        limits
            .refusal(data, bytes(100), 0)
            .unwrap()
            .contains("imagefs.available")
    );
    let own = Usage { device: 7, ..data };
    assert!(limits.refusal(own, bytes(0), 0).unwrap().contains("nodefs.available"));
}

#[test]
fn a_disk_that_runs_out_of_inodes_is_told_by_them() {
    let case: serde_json::Value = serde_json::from_str(CASE).unwrap();
    let number = |key: &str| case[key].as_u64().unwrap();
    let disk = Usage {
        capacity: number("blocks") * number("block_size"),
        available: number("available_blocks") * number("block_size"),
        inodes: number("inodes"),
        free_inodes: number("free_inodes"),
        device: 1,
    };
    let limits = Limits {
        percent: 85,
        kubelet: Settings {
            image_fs_inodes_free: Threshold::parse("5%"),
            ..Settings::without_kubelet()
        },
    };
    let need = Need::unpacked(GIB * 11 / 10);
    assert!(
        limits
            .refusal(disk, need, 0)
            .unwrap()
            .starts_with("310000 of 6553600 inodes are free")
    );
    let above = Usage {
        free_inodes: 330_000,
        ..disk
    };
    assert_eq!(limits.refusal(above, Need::default(), 0), None);
    assert!(limits.refusal(above, need, 0).is_some());
    let uncounted = Usage {
        inodes: 0,
        free_inodes: 0,
        ..disk
    };
    assert_eq!(limits.refusal(uncounted, need, 0), None);
}

#[test]
fn pinned_images_leave_room_for_kubelets_collection_and_are_named() {
    let limits = Limits {
        percent: 85,
        kubelet: Settings {
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            ..Settings::without_kubelet()
        },
    };
    assert_eq!(limits.refusal(usage(1000, 500), bytes(100), 799), None);
    let words = limits.refusal(usage(1000, 500), bytes(100), 800).unwrap();
    assert!(
        words.contains("800 of them by pinned images, which never come back; kubelet's garbage collection"),
        "{words}"
    );
}

#[test]
fn a_disk_that_cannot_be_read_limits_nothing() {
    let huge = Need::unpacked(u64::MAX);
    assert_eq!(limits(1).refusal(Usage::default(), huge, u64::MAX), None);
}

#[test]
fn this_machines_file_systems_are_read() {
    let usage = Usage::of(Path::new("/var/lib/containerd/not/there")).unwrap();
    assert!(usage.capacity > 0 && usage.available <= usage.capacity && usage.free_inodes <= usage.inodes);
    assert_ne!(usage.device, Usage::of(Path::new("/proc")).unwrap().device);
}

fn any_usage() -> impl Strategy<Value = Usage> {
    (0_u64..1 << 50, 0_u64..1 << 50, 0_u64..1 << 40, 0_u64..1 << 40, 0_u64..2).prop_map(
        |(capacity, available, inodes, free_inodes, device)| Usage {
            capacity,
            available: available.min(capacity),
            inodes,
            free_inodes: free_inodes.min(inodes),
            device,
        },
    )
}

prop_compose! {
    fn any_limits()(percent in 1_u8..=100, high in 1_u8..=100, low in 0_u8..=100, parts in prop::array::uniform4(0_u8..30)) -> Limits {
        let [image, image_inodes, node, node_inodes] = parts.map(|part| Threshold::parse(&format!("{part}%")));
        Limits { percent, kubelet: Settings {
            image_gc_high_threshold_percent: high,
            image_gc_low_threshold_percent: low,
            image_fs_available: image,
            image_fs_inodes_free: image_inodes,
            node_fs_available: node,
            node_fs_inodes_free: node_inodes,
            node_fs: Some(1),
            ..Settings::without_kubelet()
        } }
    }
}

proptest! {
    #[test]
    fn what_is_let_through_leaves_kubelet_nothing_to_do(disk in any_usage(), limits in any_limits(), bytes in 0_u64..1 << 50, inodes in 0_u64..1 << 30) {
        let need = Need { bytes, inodes };
        if disk.capacity > 0 && limits.refusal(disk, need, 0).is_none() {
            prop_assert!(bytes <= disk.available);
            let after = disk.after(need);
            for threshold in [limits.percent, limits.kubelet.image_gc_high_threshold_percent] {
                prop_assert!(threshold == 100 || !kubelet_collects(after, threshold));
            }
            prop_assert!(after.available >= limits.kubelet.image_fs_available.of(disk.capacity));
            prop_assert!(disk.device == 0 || after.available >= limits.kubelet.node_fs_available.of(disk.capacity));
            prop_assert!(disk.inodes == 0 || after.free_inodes >= limits.kubelet.image_fs_inodes_free.of(disk.inodes));
        }
    }

    #[test]
    fn what_does_not_fit_fits_no_better_with_more_in_the_way(
        disk in any_usage(), limits in any_limits(), bytes in 0_u64..1 << 50, inodes in 0_u64..1 << 30, more in 0_u64..1 << 40, pinned in 0_u64..1 << 50,
    ) {
        let need = Need { bytes, inodes };
        if limits.refusal(disk, need, pinned).is_some() {
            let larger = need.and(Need { bytes: more, inodes: more });
            let fuller = disk.after(Need { bytes: more, inodes: more });
            let stricter = Limits { percent: limits.percent.saturating_sub(1).max(1), ..limits.clone() };
            prop_assert!(limits.refusal(disk, larger, pinned).is_some());
            prop_assert!(limits.refusal(fuller, need, pinned).is_some());
            prop_assert!(limits.refusal(disk, need, pinned + more).is_some());
            prop_assert!(stricter.refusal(disk, need, pinned).is_some());
        }
    }
}

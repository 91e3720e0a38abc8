//! Describes what `containerd config dump` prints.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefetch_images::containerd::config::Config;

fuzz_target!(|dump: &str| {
    let config = Config::parse(dump);
    assert!(
        !config
            .other_snapshotters
            .iter()
            .any(|(_, snapshotter)| *snapshotter == config.snapshotter)
    );
});

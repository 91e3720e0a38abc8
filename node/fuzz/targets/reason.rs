//! Describes what containerd says of a pull that failed; a registry wrote most of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefetch_images::pull::reason::of_status;
use tonic::{Code, Status};

fuzz_target!(|input: (u8, &str)| {
    let (code, message) = input;
    let image = "reg.example/app:v1@sha256:1111111111111111111111111111111111111111111111111111111111111111";
    let status = Status::new(Code::from(i32::from(code % 20)), message);
    let failure = of_status(&image.parse().unwrap(), &status);
    assert!(!failure.detail.contains(char::is_control));
    // What signs an address stands behind its question mark.
    assert!(
        failure
            .detail
            .match_indices('?')
            .all(|(at, _)| failure.detail[at..].starts_with("?…"))
    );
});

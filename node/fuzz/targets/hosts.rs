//! `hosts.toml`, which anybody who sets a node up writes.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use prefetch_images::registry::{endpoint::Endpoint, hosts};

fuzz_target!(|text: &str| {
    for config in hosts::parse(text, Path::new("/etc/containerd/certs.d/reg.example")).unwrap_or_default() {
        for endpoint in Endpoint::of(&config, "reg.example") {
            // The login goes to its registry and to nobody else.
            let is_its = endpoint.url.is_https && endpoint.url.authority == "reg.example";
            assert_eq!(endpoint.is_registry, is_its, "{endpoint:?}");
        }
    }
});

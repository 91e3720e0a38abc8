//! Manifests, indexes and configurations, from any registry.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefetch::manifest::{Configuration, Manifest, PlatformMatcher, bytes_on_disk, chain_ids, missing_bytes};

fuzz_target!(|text: &[u8]| {
    match Manifest::parse(text) {
        Ok(Manifest::Image(content)) => {
            let all = content.bytes_with_unpacked();
            assert!(content.bytes() <= all && all < 1_000_000_000_000_000);
            assert!(bytes_on_disk([&content, &content]) <= all);
            assert!(missing_bytes(&content, &[], |_| false, |_| false) <= all);
            assert!(prefetch::image::is_digest(&content.config) || content.config.is_empty());
        }
        Ok(Manifest::Index(index)) => {
            for architecture in ["amd64", "arm64"] {
                if let Some(entry) = index.entry_for(&PlatformMatcher::linux(architecture)) {
                    assert!(prefetch::image::is_digest(&entry.digest));
                }
            }
        }
        Err(_) => {}
    }
    if let Ok(configuration) = Configuration::parse(text) {
        let chain = chain_ids(&configuration.diff_ids);
        assert!(chain.iter().all(|id| prefetch::image::is_digest(id)));
        if let Some(platform) = configuration.platform {
            assert!(!platform.to_string().contains(char::is_whitespace));
        }
    }
});

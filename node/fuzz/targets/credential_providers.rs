//! Kubelet's settings of credential providers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefetch_images::{host::Host, login::providers};

fuzz_target!(|text: &str| {
    for provider in providers::parse(text).unwrap_or_default() {
        if provider.obstacle().is_none() {
            let words = provider.words(&Host::here(), "/etc/eks/image-credential-provider");
            assert!(words[0].starts_with("/etc/eks/image-credential-provider/"));
        }
        let environment = provider.environment(std::collections::BTreeMap::new());
        assert!(!environment.keys().any(|name| name.contains(['=', '\0'])));
        assert!(!provider.request("reg.example/team/app").contains('\n'));
    }
});

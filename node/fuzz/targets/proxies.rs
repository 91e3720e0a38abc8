//! The proxies of the units' environment: three lines, for https, http and the exceptions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefetch_images::registry::proxy::Proxies;

fuzz_target!(|text: &str| {
    let names = ["HTTPS_PROXY", "http_proxy", "NO_PROXY"].map(str::to_owned);
    let values = text.splitn(3, '\n').map(str::to_owned);
    let proxies = Proxies::from_environment(&names.into_iter().zip(values).collect());
    for url in ["https://reg.example/", "http://10.1.2.3:5000/", "https://[fd00::1]/"] {
        if let Some(proxy) = proxies.for_url(&url.parse().unwrap()) {
            assert!(proxy.url.host().is_some());
        }
    }
    assert!(proxies.for_url(&"https://localhost:5000/".parse().unwrap()).is_none());
});

//! A registry's challenge, and the token that it gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefetch_images::registry::authorization::{Challenge, token};

fuzz_target!(|text: &str| {
    if let Some(url) = Challenge::parse(text).and_then(|challenge| challenge.url("team/app")) {
        assert!(url.host().is_some());
    }
    if let Some(token) = token(text.as_bytes()) {
        assert!(token.is_sensitive());
    }
});

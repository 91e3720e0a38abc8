//! Describes what a credential provider answers.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use prefetch_images::login::{matching, providers};

fuzz_target!(|answer: &[u8]| {
    if let Ok(login) = providers::login(answer, "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app") {
        assert!(!login.password.is_empty());
        assert_eq!(format!("{login:?}"), "Login");
    }
    if let Ok(text) = std::str::from_utf8(answer) {
        let (pattern, image) = text.split_once('\n').unwrap_or((text, "reg.example/app"));
        black_box(matching::matches(pattern, image));
    }
});

//! The parameters of a command for tags: the list, and a line of seconds below it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefetch_images::parameters::TagParameters;

fuzz_target!(|text: &str| {
    let (tags, seconds) = text.split_once('\n').unwrap_or((text, "60"));
    let read = TagParameters::read(|name| match name {
        "SSM_tags" => Some(tags.to_owned()),
        "SSM_executionTimeout" => Some(seconds.to_owned()),
        _ => None,
    });
    match read.expect("tags are named") {
        Ok(parameters) => {
            assert!((1..=10).contains(&parameters.tags.len()));
            assert!(
                tags.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-/: ".contains(&byte))
            );
            let names: Vec<_> = parameters.tags.iter().map(ToString::to_string).collect();
            assert_eq!(names.join(" "), tags);
        }
        Err(why) => assert!(why.len() < 2_000),
    }
});

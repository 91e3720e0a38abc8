//! A command's parameters: the images, and lines of `name=value` below them.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use prefetch_images::parameters::Parameters;

const USABLE: [(&str, &str); 10] = [
    ("executionTimeout", "3600"),
    ("imageGCHighThresholdPercent", "85"),
    ("maxParallelImagePulls", "4"),
    ("maxConnections", "20"),
    ("maxBandwidthMiB", "100"),
    ("maxImageGiB", "0"),
    ("keep", "2"),
    ("pin", "false"),
    ("reportOnly", "false"),
    ("images", ""),
];

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let mut values: HashMap<String, String> = USABLE
        .iter()
        .map(|(name, value)| (format!("SSM_{name}"), (*value).to_owned()))
        .collect();
    values.insert("SSM_images".to_owned(), lines.next().unwrap_or_default().to_owned());
    values.extend(
        lines
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (format!("SSM_{name}"), value.to_owned())),
    );
    match Parameters::read(|name| values.get(name).cloned()) {
        Ok(parameters) => {
            assert!(parameters.images.len() <= 50);
            assert_eq!(parameters.images.is_empty(), values["SSM_images"].is_empty());
            let variables = parameters.variables();
            assert_eq!(
                Parameters::read(|name| variables.get(name).cloned()).as_ref(),
                Ok(&parameters)
            );
        }
        Err(why) => assert!(why.len() < 2_000),
    }
});

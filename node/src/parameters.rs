//! The parameters of a command, as the SSM agent hands them over from the document.

mod tags;
mod value;

use std::{collections::BTreeMap, time::Duration};

use prefetch::image::Image;

pub use self::tags::TagParameters;
use self::value::{execution_timeout, number, references, switch};

/// Bounds the images of one command; the report of so many is within what SSM returns of a command's output.
pub const MAX_IMAGES: usize = 50;
/// The parameters of one command, all of them usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// At most 50 images, in the order in which they were named; an image may be named twice. A command without any only
    /// tells which images are in use.
    pub images: Vec<Image>,
    /// The seconds after which SSM kills the command.
    pub execution_timeout: Duration,
    /// The percentage that no pull may reach; kubelet's own setting may be lower.
    pub image_gc_high_threshold_percent: u8,
    /// The number of images that are pulled at once.
    pub max_parallel_image_pulls: usize,
    /// Tells over how many connections the layers of an image are downloaded; 0 leaves all of it to containerd.
    pub max_connections: usize,
    /// Bytes per second that these bring at most; none for no limit.
    pub bandwidth: Option<u64>,
    /// The largest compressed size in bytes; none for no limit.
    pub max_image_bytes: Option<u64>,
    /// The number of newest images of ours that stay in each repository; 0 to remove none.
    pub keep: usize,
    /// True where images of ours are exempt from kubelet's garbage collection while they are kept.
    pub pin: bool,
    /// True where the command only says what it would do.
    pub report_only: bool,
}

impl Parameters {
    /// Reads the parameters by a look-up from a variable's name (`SSM_images`) to its value.
    ///
    /// # Errors
    /// The first that cannot be used, in words for people.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let value = |name: &str| look_up(&format!("SSM_{name}")).unwrap_or_default();
        let number = |name, range| number(name, &value(name), range);
        let switch = |name| switch(name, &value(name));
        let execution_timeout = execution_timeout(&value("executionTimeout"))?;
        let percent = number("imageGCHighThresholdPercent", 1..=100)?;
        let at_once = number("maxParallelImagePulls", 1..=16)?;
        let connections = number("maxConnections", 0..=20)?;
        let bandwidth = number("maxBandwidthMiB", 0..=9_999)?;
        let max_image_gib = number("maxImageGiB", 0..=9_999)?;
        let keep = number("keep", 0..=50)?;
        let (pin, report_only) = (switch("pin")?, switch("reportOnly")?);
        if pin && keep == 0 {
            return Err("pin needs keep, or what is pinned fills the disk".to_owned());
        }
        Ok(Self {
            images: images(&value("images"))?,
            execution_timeout,
            image_gc_high_threshold_percent: u8::try_from(percent).unwrap_or(100),
            max_parallel_image_pulls: usize::try_from(at_once).unwrap_or(1),
            max_connections: usize::try_from(connections).unwrap_or(0),
            bandwidth: (bandwidth > 0).then(|| u64::from(bandwidth) << 20),
            max_image_bytes: (max_image_gib > 0).then(|| u64::from(max_image_gib) << 30),
            keep: usize::try_from(keep).unwrap_or(0),
            pin,
            report_only,
        })
    }

    /// Returns the variables that [`Parameters::read`] reads as these parameters.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, String> {
        let images: Vec<String> = self.images.iter().map(ToString::to_string).collect();
        [
            ("images", images.join(" ")),
            ("executionTimeout", self.execution_timeout.as_secs().to_string()),
            (
                "imageGCHighThresholdPercent",
                self.image_gc_high_threshold_percent.to_string(),
            ),
            ("maxParallelImagePulls", self.max_parallel_image_pulls.to_string()),
            ("maxConnections", self.max_connections.to_string()),
            ("maxBandwidthMiB", (self.bandwidth.unwrap_or(0) >> 20).to_string()),
            ("maxImageGiB", (self.max_image_bytes.unwrap_or(0) >> 30).to_string()),
            ("keep", self.keep.to_string()),
            ("pin", self.pin.to_string()),
            ("reportOnly", self.report_only.to_string()),
        ]
        .map(|(name, value)| (format!("SSM_{name}"), value))
        .into()
    }
}

fn images(list: &str) -> Result<Vec<Image>, String> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let image = |text: &str| text.parse().ok().filter(Image::has_host);
    references(
        "images",
        list,
        MAX_IMAGES,
        "registry/repository[:tag]@sha256:digest",
        image,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const DEFAULTS: [(&str, &str); 9] = [
        ("executionTimeout", "600"),
        ("imageGCHighThresholdPercent", "85"),
        ("maxParallelImagePulls", "1"),
        ("maxConnections", "3"),
        ("maxBandwidthMiB", "0"),
        ("maxImageGiB", "0"),
        ("keep", "0"),
        ("pin", "false"),
        ("reportOnly", "false"),
    ];

    fn read(name: &str, value: &str) -> Result<Parameters, String> {
        let usual = format!("registry.example/team/app:v1@{DIGEST}");
        Parameters::read(|variable| {
            let asked = variable.strip_prefix("SSM_")?;
            let default = DEFAULTS.iter().find(|(name, _)| *name == asked);
            Some(match default {
                _ if asked == name => value.to_owned(),
                Some((_, value)) => (*value).to_owned(),
                None => usual.clone(),
            })
        })
    }

    #[test]
    fn usual_parameters_are_read() {
        let parameters = read("keep", "2").unwrap();
        assert_eq!(
            parameters.images[0].name_by_tag().unwrap(),
            "registry.example/team/app:v1"
        );
        assert_eq!((parameters.keep, parameters.max_image_bytes), (2, None));
        assert_eq!(read("maxImageGiB", "3").unwrap().max_image_bytes, Some(3 << 30));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_is_accepted() {
        for (name, value, words) in [
            ("executionTimeout", "4", "no whole number from 5 to 172800"),
            ("keep", "007", "no whole number from 0 to 50"),
            ("keep", "+1", "no whole number from 0 to 50"),
            ("pin", "True", "neither true nor false"),
            ("pin", "true", "pin needs keep"),
            ("images", " ", "no list of references"),
            ("images", "a  b", "no list of references"),
            ("images", "a\n", "no list of references"),
        ] {
            let refusal = read(name, value).unwrap_err();
            assert!(
                refusal.starts_with(name) && refusal.contains(words),
                "{name}={value}: {refusal}"
            );
        }
    }

    #[test]
    fn a_command_may_name_no_images() {
        assert_eq!(read("images", "").unwrap().images, []);
    }

    #[test]
    fn references_that_no_registry_could_serve_are_refused() {
        for reference in [
            format!("localhost/app@{DIGEST}"),
            format!("localhost:5000/app@{DIGEST}"),
            format!("Registry.example/app@{DIGEST}"),
            format!("registry.example:123456/app@{DIGEST}"),
            format!("registry.example/{}@{DIGEST}", "a".repeat(256)),
            format!("registry.example/app:{}@{DIGEST}", "t".repeat(129)),
            format!("registry.example/..app@{DIGEST}"),
            "registry.example/app:v1".to_owned(),
            vec![format!("registry.example/app@{DIGEST}"); 51].join(" "),
        ] {
            let refusal = read("images", &reference).unwrap_err();
            assert!(refusal.len() < 480, "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_variable_holds_is_read_or_refused_on_one_short_line(
            name in prop::sample::select(DEFAULTS.map(|(name, _)| name).to_vec()),
            value in "\\PC{0,300}",
        ) {
            for name in [name, "images"] {
                if let Err(refusal) = read(name, &value) {
                    prop_assert!(refusal.len() < 480 && !refusal.contains('\n'));
                }
            }
        }

        #[test]
        fn every_number_in_its_range_is_read_as_it_is(keep in 0usize..=50, timeout in 5u64..=172_800) {
            prop_assert_eq!(read("keep", &keep.to_string()).unwrap().keep, keep);
            let parameters = read("executionTimeout", &timeout.to_string()).unwrap();
            prop_assert_eq!(parameters.execution_timeout.as_secs(), timeout);
        }

        #[test]
        fn parameters_are_written_as_they_are_read(
            keep in 1usize..=50, pin: bool, gib in 0u64..=9_999, tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
        ) {
            let mut parameters = read("images", &format!("registry.example:5000/a/b:{tag}@{DIGEST}")).unwrap();
            parameters.keep = keep;
            parameters.pin = pin;
            parameters.max_image_bytes = (gib > 0).then_some(gib << 30);
            let variables = parameters.variables();
            prop_assert_eq!(Parameters::read(|name| variables.get(name).cloned()), Ok(parameters));
        }
    }
}

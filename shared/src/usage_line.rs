//! Usage: which images a node runs, in the words of the document's report.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_seconds_option};
use serde::{Deserialize, Serialize};

use crate::image::Image;

/// The largest size, in bytes, and the largest number of anything that a node is believed: none has that much, and counters
/// of any number of them hold.
const BELIEVED: (u64, u32) = (10_000_000_000_000, 1_000_000);

/// One line of a node's usage: an image that containers on it use, or that kubelet pulled.
///
/// Fields that a newer document adds are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageLine {
    /// The image, as pods name it.
    #[serde(rename = "usage")]
    pub image: Image,
    /// The number of containers that run it; 0 where its containers have ended, or where kubelet pulled it and none is left.
    #[serde(default)]
    pub running: u32,
    /// True where this project brought it.
    #[serde(default)]
    pub prefetched: bool,
    /// The size that CRI tells.
    #[serde(default)]
    pub bytes: u64,
    /// Tells when kubelet pulled it, where nothing on the node uses it any more: then, at the latest, something did.
    #[serde(
        default,
        rename = "pulledAt",
        with = "ts_seconds_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub pulled_at: Option<DateTime<Utc>>,
}

/// The last line of a node's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UsageTotals {
    /// The number of images that there are to tell.
    pub images: u32,
    /// The number of those that found no room.
    pub left_out: u32,
    /// The number of images of pods since the node's last look, each image of a pod once.
    pub pod_images: u32,
    /// The number of those that were on the node before their pod was: no pod waited for them.
    pub pod_images_present: u32,
    /// The size, as CRI tells it, of the images that this project brought and whose first use this look has found.
    pub first_used_bytes: u64,
}

/// The totals as they stand in their line.
#[derive(Serialize, Deserialize)]
struct Wrapped {
    #[serde(rename = "usageTotals")]
    totals: UsageTotals,
}

impl UsageLine {
    /// Reads a line; `None` where it is another one, is garbled, or says what no document says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (bytes, number) = BELIEVED;
        let line: Self = serde_json::from_str(text).ok()?;
        (line.image.has_host() && line.running <= number && line.bytes <= bytes).then_some(line)
    }
}

impl UsageTotals {
    /// Reads a line; `None` where it is another one, is garbled, or says what no document says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (bytes, number) = BELIEVED;
        let Wrapped { totals } = serde_json::from_str(text).ok()?;
        let is_believed = totals.images <= number
            && totals.left_out <= totals.images
            && totals.pod_images <= number
            && totals.pod_images_present <= totals.pod_images
            && totals.first_used_bytes <= bytes;
        is_believed.then_some(totals)
    }
}

impl fmt::Display for UsageLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_json(f, self)
    }
}

impl fmt::Display for UsageTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_json(f, &Wrapped { totals: *self })
    }
}

fn write_json(f: &mut fmt::Formatter<'_>, line: &impl Serialize) -> fmt::Result {
    f.write_str(&serde_json::to_string(line).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGE: &str =
        "docker.io/library/nginx:1.29@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_line_and_the_totals_are_written_as_they_are_documented() {
        let line = UsageLine {
            image: IMAGE.parse().unwrap(),
            running: 2,
            prefetched: true,
            bytes: 123_456,
            pulled_at: None,
        };
        let text = format!(r#"{{"usage":"{IMAGE}","running":2,"prefetched":true,"bytes":123456}}"#);
        assert_eq!(line.to_string(), text);
        assert_eq!(UsageLine::parse(&text), Some(line.clone()));
        let unused = UsageLine {
            running: 0,
            prefetched: false,
            pulled_at: DateTime::from_timestamp_secs(1_764_527_000),
            ..line
        };
        let unused_text =
            format!(r#"{{"usage":"{IMAGE}","running":0,"prefetched":false,"bytes":123456,"pulledAt":1764527000}}"#);
        assert_eq!(unused.to_string(), unused_text);
        assert_eq!(UsageLine::parse(&unused_text), Some(unused));
        assert_eq!(UsageTotals::parse(&text), None);
        let totals = UsageTotals {
            images: 57,
            left_out: 12,
            pod_images: 4,
            pod_images_present: 3,
            first_used_bytes: 123_456,
        };
        let text =
            r#"{"usageTotals":{"images":57,"leftOut":12,"podImages":4,"podImagesPresent":3,"firstUsedBytes":123456}}"#;
        assert_eq!(totals.to_string(), text);
        assert_eq!(UsageTotals::parse(text), Some(totals));
        assert_eq!(UsageLine::parse(text), None);
    }

    #[test]
    fn lines_of_an_older_or_newer_document_are_read() {
        let line = UsageLine::parse(&format!(r#"{{"usage":"{IMAGE}","layers":[]}}"#)).unwrap();
        assert_eq!((line.running, line.prefetched, line.bytes), (0, false, 0));
        let totals = UsageTotals::parse(r#"{"usageTotals":{"images":3,"moonphase":1}}"#).unwrap();
        assert_eq!((totals.images, totals.pod_images), (3, 0));
    }

    #[test]
    fn what_no_document_prints_is_not_read() {
        let (_, digest) = IMAGE.split_once('@').unwrap();
        for line in [
            String::new(),
            "{}".to_owned(),
            format!(r#"{{"image":"{IMAGE}","status":"cached"}}"#),
            format!(r#"{{"usage":"{IMAGE}","running":-1}}"#),
            format!(r#"{{"usage":"{IMAGE}","running":1000001}}"#),
            format!(r#"{{"usage":"{IMAGE}","bytes":10000000000001}}"#),
            format!(r#"{{"usage":"{IMAGE}","running"#),
            r#"{"usage":"docker.io/library/nginx:1.29"}"#.to_owned(),
            format!(r#"{{"usage":"localhost:5000/nginx@{digest}"}}"#),
        ] {
            assert_eq!(UsageLine::parse(&line), None, "{line}");
        }
        for totals in [
            "",
            "1",
            r#"{"images":1,"leftOut":2}"#,
            r#"{"podImages":1,"podImagesPresent":2}"#,
            r#"{"podImages":-1}"#,
            r#"{"images":1000001}"#,
            r#"{"firstUsedBytes":10000000000001}"#,
        ] {
            let line = format!(r#"{{"usageTotals":{totals}}}"#);
            assert_eq!(UsageTotals::parse(&line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", running in 0..=BELIEVED.1, prefetched: bool, bytes in 0..=BELIEVED.0,
            pulled in prop::option::of(0..4_000_000_000_i64),
        ) {
            let image = IMAGE.replace("1.29", &tag).parse().unwrap();
            let pulled_at = pulled.and_then(DateTime::from_timestamp_secs);
            let line = UsageLine { image, running, prefetched, bytes, pulled_at };
            prop_assert_eq!(UsageLine::parse(&line.to_string()), Some(line));
        }

        #[test]
        fn whatever_a_node_says_is_read_or_left(text in "\\PC{0,200}|[{}\":a-z0-9,]{0,60}") {
            prop_assert!(UsageLine::parse(&text).is_none() || UsageTotals::parse(&text).is_none());
        }
    }
}

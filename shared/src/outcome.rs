//! Outcomes: what became of an image on a node, in the words of the document's report.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_seconds};
use serde::{Deserialize, Serialize};

use crate::{error_text::word, image::Image};

/// The longest time, in seconds, and the largest size, in bytes, that a node is believed: none is that long or large, and
/// counters of any number of them hold.
const BELIEVED: (f64, u64) = (1e7, 10_000_000_000_000);
/// The longest reason, in characters, that a node is believed.
const MAX_REASON: usize = 32;

/// Holds what a node says of an image beside its status, in the words of the document's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeReason {
    /// The image is there; its tag stands for another image by now, and stays there.
    TagMoved,
    /// The image has nothing for this node.
    Platform,
    /// The image is larger than the rule allows.
    TooLarge,
    /// The disk has no room for it below kubelet's limits.
    NoSpace,
    /// The snapshotter that containerd is set to use does not run.
    Snapshotter,
    /// A runtime class of the node has another snapshotter, and its pods could not start from what would be pulled.
    RuntimeClass,
    /// The node's own policy, such as an image verifier's, refuses it.
    Policy,
    /// Nothing is done: the command only reports.
    ReportOnly,
    /// The registry has no such image.
    NotFound,
    /// The registry, or the host with the layers, refuses the login.
    Denied,
    /// The registry does not answer, or not as a registry does.
    Registry,
    /// The time was over.
    Timeout,
    /// It was ended, or containerd was.
    Interrupted,
    /// Others are at work on the node, and one more already waits for them.
    Busy,
}

impl NodeReason {
    /// Every one of them.
    pub const ALL: [Self; 14] = [
        Self::TagMoved,
        Self::Platform,
        Self::TooLarge,
        Self::NoSpace,
        Self::Snapshotter,
        Self::RuntimeClass,
        Self::Policy,
        Self::ReportOnly,
        Self::NotFound,
        Self::Denied,
        Self::Registry,
        Self::Timeout,
        Self::Interrupted,
        Self::Busy,
    ];

    /// Returns the word that stands in a report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TagMoved => "tag-moved",
            Self::Platform => "platform",
            Self::TooLarge => "too-large",
            Self::NoSpace => "no-space",
            Self::Snapshotter => "snapshotter",
            Self::RuntimeClass => "runtime-class",
            Self::Policy => "policy",
            Self::ReportOnly => "report-only",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Registry => "registry",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Busy => "busy",
        }
    }

    /// Returns true where a retry may end otherwise.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Registry | Self::Timeout | Self::Interrupted | Self::Busy)
    }
}

impl fmt::Display for NodeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every reason that is said of an image of which a node says nothing, and whether a retry may end otherwise.
const REASONS_WITHOUT_REPORT: [(&str, bool); 12] = [
    ("unreported", true),
    ("undeliverable", true),
    ("delivery-timed-out", true),
    ("execution-timed-out", true),
    ("terminated", true),
    ("rate-exceeded", true),
    ("overdue", true),
    ("cancelled", false),
    ("access-denied", false),
    ("invalid-platform", false),
    ("hybrid-node", false),
    ("unsupported", false),
];

/// The reasons for which a node is none that could ever hold the image: it has no platform for it, it cannot run the
/// document, or it is none of EC2's.
const NOT_APPLICABLE: [&str; 3] = ["platform", "invalid-platform", "hybrid-node"];

/// Holds what became of an image, or of a node by the worst of its images; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is not there.
    Failed,
    /// It is not there, and is not to be.
    Skipped,
    /// It was not there and is now.
    Pulled,
    /// It was there already.
    Cached,
}

impl Status {
    /// Returns true where the image is there.
    #[must_use]
    pub fn is_warm(self) -> bool {
        self >= Self::Pulled
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&word(self))
    }
}

/// One line of a node's report: an image and what became of it.
///
/// A line of an older document may lack all but image and status; what a newer one adds is ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Line {
    /// The image, as the command named it.
    pub image: Image,
    /// Says what became of it.
    pub status: Status,
    /// Says why, where there is something to say.
    #[serde(default)]
    pub reason: String,
    /// Tells how long it took.
    #[serde(default)]
    pub seconds: f64,
    /// The image's compressed size, where it was pulled or would have been.
    #[serde(default)]
    pub bytes: u64,
    /// Tells how often a pull was tried.
    #[serde(default)]
    pub attempts: u32,
    /// Set where the line is none of the command's images, but of the node's boot, whose report the command brings along.
    #[serde(default)]
    pub boot: Option<Boot>,
}

/// A boot whose report a later command brings along: what user data brought before kubelet started (examples/boot).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Boot {
    /// The name of the rule whose list it was.
    pub rule: String,
    /// Tells when it began, by the node's clock; in a line, seconds since the epoch.
    #[serde(with = "ts_seconds")]
    pub began: DateTime<Utc>,
    /// Tells when it ended.
    #[serde(with = "ts_seconds")]
    pub ended: DateTime<Utc>,
}

impl Line {
    /// Reads a line; `None` where it is garbled, or says what no document says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (seconds, bytes) = BELIEVED;
        serde_json::from_str(text).ok().filter(|line: &Self| {
            is_word(&line.reason) && (0.0..=seconds).contains(&line.seconds) && line.bytes <= bytes
        })
    }
}

pub(crate) fn is_word(reason: &str) -> bool {
    reason.len() <= MAX_REASON
        && reason
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Tells if an image was left out because the node can never hold it: such a node is not cold for its lack.
#[must_use]
pub fn is_not_applicable(status: Status, reason: &str) -> bool {
    status == Status::Skipped && NOT_APPLICABLE.contains(&reason)
}

/// Returns true where a retry may end otherwise than a failure with this reason; not where the reason is unknown.
#[must_use]
pub fn is_retryable(reason: &str) -> bool {
    known(reason) == Some(true)
}

/// Returns true where the reason is one of those that are documented, and not a newer document's.
#[must_use]
pub fn is_known(reason: &str) -> bool {
    known(reason).is_some()
}

/// Tells of a documented reason whether a retry may end otherwise.
fn known(reason: &str) -> Option<bool> {
    let of_nodes = NodeReason::ALL.map(|reason| (reason.as_str(), reason.is_retryable()));
    let mut all = of_nodes.into_iter().chain(REASONS_WITHOUT_REPORT);
    all.find(|(word, _)| *word == reason)
        .map(|(_, is_retryable)| is_retryable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_line_is_read_as_the_document_prints_it() {
        let line = Line::parse(&format!(
            r#"{{"image":"{IMAGE}","digest":"sha256:0","status":"pulled","reason":"tag-moved","seconds":0.412,"bytes":25166482,"attempts":1}}"#
        ));
        let expected = Line {
            image: IMAGE.parse().unwrap(),
            status: Status::Pulled,
            reason: "tag-moved".to_owned(),
            seconds: 0.412,
            bytes: 25_166_482,
            attempts: 1,
            boot: None,
        };
        assert_eq!(line, Some(expected));
    }

    #[test]
    fn a_line_of_a_boot_says_which() {
        let line = |boot: &str| Line::parse(&format!(r#"{{"image":"{IMAGE}","status":"pulled","boot":{boot}}}"#));
        let boot = line(r#"{"rule":"gpu","began":1764527000,"ended":1764527042}"#)
            .unwrap()
            .boot
            .unwrap();
        assert_eq!(
            (boot.rule.as_str(), (boot.ended - boot.began).num_seconds()),
            ("gpu", 42)
        );
        for garbled in [
            "1",
            "{}",
            r#"{"rule":"gpu","began":"yesterday","ended":1}"#,
            r#"{"rule":"gpu","began":1,"ended":9e18}"#,
        ] {
            assert_eq!(line(garbled), None, "{garbled}");
        }
    }

    #[test]
    fn a_line_of_an_older_or_newer_document_is_read() {
        let older = Line::parse(&format!(r#"{{"image":"{IMAGE}","status":"cached"}}"#)).unwrap();
        assert_eq!(
            (older.status, older.reason.as_str(), older.attempts),
            (Status::Cached, "", 0)
        );
        let newer = Line::parse(&format!(
            r#"{{"image":"{IMAGE}","status":"skipped","reason":"moonphase","layers":[]}}"#
        ))
        .unwrap();
        assert_eq!(newer.reason, "moonphase");
        assert!(!is_retryable(&newer.reason) && !is_known(&newer.reason));
    }

    #[test]
    fn a_line_that_no_document_prints_is_not_read() {
        for line in [
            String::new(),
            "pulling".to_owned(),
            format!(r#"{{"image":"{IMAGE}"}}"#),
            format!(r#"{{"image":"{IMAGE}","status":"#),
            format!(r#"{{"image":"{IMAGE}","status":"melted"}}"#),
            r#"{"image":"team/app","status":"pulled"}"#.to_owned(),
            format!(r#"{{"image":"{IMAGE}","status":"failed","reason":"No Space"}}"#),
            format!(
                r#"{{"image":"{IMAGE}","status":"failed","reason":"{}"}}"#,
                "x".repeat(33)
            ),
            format!(r#"{{"image":"{IMAGE}","status":"pulled","seconds":-1}}"#),
            format!(r#"{{"image":"{IMAGE}","status":"pulled","seconds":1e300}}"#),
            format!(r#"{{"image":"{IMAGE}","status":"pulled","bytes":18446744073709551615}}"#),
        ] {
            assert_eq!(Line::parse(&line), None, "{line}");
        }
    }

    #[test]
    fn what_may_pass_is_retried_and_what_is_final_is_not() {
        for reason in [
            "registry",
            "timeout",
            "interrupted",
            "unreported",
            "undeliverable",
            "overdue",
        ] {
            assert!(is_retryable(reason), "{reason}");
        }
        for reason in [
            "",
            "denied",
            "not-found",
            "no-space",
            "cancelled",
            "unsupported",
            "unknown",
        ] {
            assert!(!is_retryable(reason), "{reason}");
        }
    }

    #[test]
    fn only_what_a_node_leaves_out_for_what_it_is_does_not_apply_to_it() {
        for reason in NOT_APPLICABLE {
            assert!(
                is_not_applicable(Status::Skipped, reason) && is_known(reason),
                "{reason}"
            );
            assert!(!is_not_applicable(Status::Failed, reason), "{reason}");
        }
        for reason in ["", "no-space", "too-large", "snapshotter", "report-only"] {
            assert!(!is_not_applicable(Status::Skipped, reason), "{reason}");
        }
    }

    #[test]
    fn the_worst_status_is_the_least() {
        let order = [Status::Failed, Status::Skipped, Status::Pulled, Status::Cached];
        assert!(order.is_sorted());
        assert_eq!(order.map(Status::is_warm), [false, false, true, true]);
    }
}

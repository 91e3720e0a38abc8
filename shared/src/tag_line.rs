//! Tags: which digest the tag of an image stands for, in the words of the resolving document's report.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    image::{TaggedImage, is_digest},
    outcome::is_word,
};

/// The reason for what a registry has under a tag and no node can run or mount: an artifact, a chart, a signature.
///
/// The other reasons are those of [`crate::outcome::NodeReason`].
pub const NOT_AN_IMAGE: &str = "not-an-image";
/// The longest message, in characters, that a node is believed: more than it says.
const MAX_MESSAGE: usize = 600;

/// One line of a node's report on tags: an image by its tag, and its digest or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct TagLine {
    /// The image, as the command named it.
    pub tag: TaggedImage,
    /// The digest of the index or manifest for which the tag stands, or why it is not told.
    pub digest: Result<String, TagFailure>,
}

/// The reason why no digest is told of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFailure {
    /// The reason, a word; `crate::outcome::is_retryable` tells whether a later command may end otherwise.
    pub reason: String,
    /// The cause, a sentence for people.
    pub message: String,
}

/// A line as it stands on a node's output. Fields that a newer document adds are ignored.
#[derive(Serialize, Deserialize)]
struct Written {
    tag: TaggedImage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl TagLine {
    /// Reads a line; `None` where it is another one, is garbled, or says what no document says.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl From<TagLine> for Written {
    fn from(TagLine { tag, digest }: TagLine) -> Self {
        let (digest, failure) = match digest {
            Ok(digest) => (Some(digest), None),
            Err(failure) => (None, Some(failure)),
        };
        let (reason, message) = failure.map(|failure| (failure.reason, failure.message)).unzip();
        Self {
            tag,
            digest,
            reason,
            message,
        }
    }
}

impl TryFrom<Written> for TagLine {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let message = written.message.unwrap_or_default();
        let digest = match (written.digest, written.reason) {
            (Some(digest), None) if is_digest(&digest) => Ok(digest),
            (None, Some(reason)) if !reason.is_empty() && is_word(&reason) && is_believed(&message) => {
                Err(TagFailure { reason, message })
            }
            _ => return Err("a line has either a digest by sha256 or a reason"),
        };
        Ok(Self {
            tag: written.tag,
            digest,
        })
    }
}

fn is_believed(message: &str) -> bool {
    message.chars().count() <= MAX_MESSAGE && !message.contains(char::is_control)
}

impl fmt::Display for TagLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        outcome::{Line, NodeReason, is_retryable},
        usage_line::{UsageLine, UsageTotals},
    };

    const TAG: &str = "docker.io/library/nginx:1.27";
    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn failed(reason: &str, message: &str) -> TagLine {
        TagLine {
            tag: TAG.parse().unwrap(),
            digest: Err(TagFailure {
                reason: reason.to_owned(),
                message: message.to_owned(),
            }),
        }
    }

    #[test]
    fn a_line_is_written_as_it_is_documented() {
        let resolved = TagLine {
            tag: TAG.parse().unwrap(),
            digest: Ok(DIGEST.to_owned()),
        };
        let text = format!(r#"{{"tag":"{TAG}","digest":"{DIGEST}"}}"#);
        assert_eq!(resolved.to_string(), text);
        assert_eq!(TagLine::parse(&text), Some(resolved));
        let refused = failed("not-found", r#"docker.io has no tag "1.27""#);
        let text = format!(r#"{{"tag":"{TAG}","reason":"not-found","message":"docker.io has no tag \"1.27\""}}"#);
        assert_eq!(refused.to_string(), text);
        assert_eq!(TagLine::parse(&text), Some(refused));
    }

    #[test]
    fn a_line_of_an_older_or_newer_document_is_read() {
        let line = TagLine::parse(&format!(r#"{{"tag":"{TAG}","reason":"moonphase","moon":[]}}"#));
        assert_eq!(line, Some(failed("moonphase", "")));
    }

    #[test]
    fn what_no_document_prints_is_not_read() {
        for line in [
            String::new(),
            "{}".to_owned(),
            format!(r#"{{"tag":"{TAG}"}}"#),
            format!(r#"{{"tag":"{TAG}","digest":"sha256:0"}}"#),
            format!(r#"{{"tag":"{TAG}@{DIGEST}","digest":"{DIGEST}"}}"#),
            format!(r#"{{"tag":"nginx:1.27","digest":"{DIGEST}"}}"#),
            format!(r#"{{"tag":"{TAG}","digest":"{DIGEST}","reason":"registry"}}"#),
            format!(r#"{{"tag":"{TAG}","reason":""}}"#),
            format!(r#"{{"tag":"{TAG}","reason":"Not Found"}}"#),
            format!(r#"{{"tag":"{TAG}","reason":"registry","message":"a\nb"}}"#),
            format!(
                r#"{{"tag":"{TAG}","reason":"registry","message":"{}"}}"#,
                "x".repeat(601)
            ),
            format!(r#"{{"image":"{TAG}@{DIGEST}","digest":"{DIGEST}"}}"#),
        ] {
            assert_eq!(TagLine::parse(&line), None, "{line}");
        }
    }

    #[test]
    fn the_reason_of_what_is_no_image_is_a_word_and_final() {
        assert!(is_word(NOT_AN_IMAGE) && !is_retryable(NOT_AN_IMAGE));
        assert!(NodeReason::ALL.iter().all(|reason| reason.as_str() != NOT_AN_IMAGE));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", reason in "[a-z][a-z0-9-]{0,31}", message in "\\PC{0,600}",
            is_resolved: bool,
        ) {
            let line = TagLine {
                tag: TAG.replace("1.27", &tag).parse().unwrap(),
                digest: if is_resolved { Ok(DIGEST.to_owned()) } else { Err(TagFailure { reason, message }) },
            };
            prop_assert_eq!(TagLine::parse(&line.to_string()), Some(line));
        }

        #[test]
        fn whatever_a_node_says_is_one_kind_of_line_at_most(text in "\\PC{0,200}|[{}\":a-z0-9,]{0,60}") {
            let kinds = [
                TagLine::parse(&text).is_some(),
                UsageLine::parse(&text).is_some(),
                UsageTotals::parse(&text).is_some(),
                Line::parse(&text).is_some(),
            ];
            prop_assert!(kinds.iter().filter(|is_it| **is_it).count() <= 1);
        }
    }
}

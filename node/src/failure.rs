//! A failure of something that was to be done for an image.

use prefetch::outcome::NodeReason;

/// A reason in the words of the report, and its cause for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Failure {
    /// The reason that is reported.
    pub reason: NodeReason,
    /// The cause, on one line, without logins and without what signs an address.
    pub detail: String,
}

impl Failure {
    /// Makes a failure, whoever wrote the words of its cause.
    pub fn new(reason: NodeReason, detail: impl AsRef<str>) -> Self {
        Self {
            reason,
            detail: one_line(detail.as_ref()),
        }
    }
}

/// Makes one line of somebody else's text: an address may be signed, and none of what follows its `?` is taken.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut is_query = false;
    for character in text.chars() {
        is_query = is_query && character != '"' && !character.is_whitespace();
        match character {
            _ if is_query => {}
            '?' => {
                is_query = true;
                line.push_str("?…");
            }
            character if character.is_control() => line.push(' '),
            character => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cause_is_one_line_without_what_signs_an_address() {
        let failure = Failure::new(
            NodeReason::Registry,
            "get https://b/x?X-Amz-Signature=1&y=?2 \"z?q\"\n\u{1b}[1mend\r\n",
        );
        assert_eq!(failure.detail, "get https://b/x?… \"z?…\"  [1mend  ");
    }

    proptest! {
        #[test]
        fn any_text_is_made_one_line_once(text in any::<String>()) {
            let line = one_line(&text);
            prop_assert!(!line.contains(char::is_control));
            prop_assert_eq!(one_line(&line), line);
        }
    }
}

//! A part of a blob, as HTTP asks for it and answers.

use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_RANGE};

use super::{client::Response, refusal::Refusal};

/// A part of a blob, in bytes: `from` is in it and `to` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The place of its first byte.
    pub from: u64,
    /// The place behind its last byte; more than `from`.
    pub to: u64,
}

impl ByteRange {
    /// Returns the header that asks for it.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        let range = format!("bytes={}-{}", self.from, self.to - 1);
        HeaderValue::from_str(&range).unwrap_or(HeaderValue::from_static("bytes=0-"))
    }

    /// Takes an answer that is this part, or something else that containerd would take.
    ///
    /// # Errors
    /// That the host refuses it, in its words.
    pub(super) async fn taken(self, answer: Response) -> Result<Taken, Refusal> {
        match answer.status {
            StatusCode::PARTIAL_CONTENT if self.is_told_by(&answer.headers) => Ok(Taken::Part(Box::new(answer))),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Taken::Other(answer.host)),
            _ => Err(answer.into_refusal().await),
        }
    }

    /// Tells whether a `Content-Range` begins where the part does (RFC 9110, 14.4).
    fn is_told_by(self, headers: &HeaderMap) -> bool {
        let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let from = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok());
        from == Some(self.from)
    }
}

/// The answer of a host to a request for a part.
pub enum Taken {
    /// The part.
    Part(Box<Response>),
    /// Another one, or all of the blob; and who did so.
    Other(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_asked_for_and_taken_only_where_it_begins_as_it_should() {
        let part = ByteRange { from: 8, to: 16 };
        assert_eq!(part.header(), "bytes=8-15");
        let headers = |range: &str| HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_str(range).unwrap())]);
        assert!(part.is_told_by(&headers("bytes 8-15/20")));
        for other in ["bytes 0-15/20", "bytes */20", "8-15/20", ""] {
            assert!(!part.is_told_by(&headers(other)), "{other}");
        }
        assert!(!part.is_told_by(&HeaderMap::new()));
    }
}

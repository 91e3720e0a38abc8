//! A blob that is fetched in parts, each over a connection of its own, from the host that containerd would ask.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{ACCEPT, CONTENT_RANGE, RANGE},
};
use tokio::time::timeout;

use super::{
    Endpoints, Kind, Registries,
    client::{Answer, host_of},
    endpoint::Question,
    refusal::Refusal,
};
use crate::{failure::Failure, login::Login};

/// A part of a blob, in bytes: `from` is in it and `to` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub from: u64,
    /// Where it ends; more than `from`.
    pub to: u64,
}

impl Part {
    /// Returns the header that asks for it.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        let range = format!("bytes={}-{}", self.from, self.to - 1);
        HeaderValue::from_str(&range).unwrap_or(HeaderValue::from_static("bytes=0-"))
    }

    /// Takes an answer that is this part, or something else that containerd would take.
    ///
    /// # Errors
    /// What the host says instead.
    pub(super) async fn taken(self, answer: Answer) -> Result<Taken, Refusal> {
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

/// What a host gave that was asked for a part.
pub enum Taken {
    /// The part.
    Part(Box<Answer>),
    /// Another one, or all of the blob; and who did so.
    Other(String),
}

/// A blob of an image's repository; whichever host gave a part of it is asked for the others.
pub struct Blob<'a> {
    registries: &'a Registries,
    registry: &'a str,
    question: Question<'a>,
    endpoints: Endpoints,
    found: RefCell<Option<Found>>,
    is_whole_only: Cell<bool>,
}

/// Where a part was found.
#[derive(Clone, Debug)]
struct Found {
    /// The host that was asked, by its place among all.
    host: usize,
    /// Where that led to, signed for whoever has the address: it is asked without a login.
    elsewhere: Option<Uri>,
}

impl Registries {
    /// Names a blob by its digest; nothing is asked yet.
    #[must_use]
    pub fn blob<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
        digest: &'a str,
        login: Option<&'a Login>,
    ) -> Blob<'a> {
        Blob {
            registries: self,
            registry,
            question: Question {
                repository,
                kind: Kind::Blob,
                reference: digest,
                login,
            },
            endpoints: self.endpoints(registry),
            found: RefCell::default(),
            is_whole_only: Cell::new(false),
        }
    }
}

impl Blob<'_> {
    /// Tells whether a host, which containerd would ask as well, gives no parts of it.
    #[must_use]
    pub const fn is_whole_only(&self) -> bool {
        self.is_whole_only.get()
    }

    /// Asks for a part, and returns what is answered before its body is read. A host that refuses it is forgotten, with the
    /// address that it led to, which was signed for a while: all are asked again.
    ///
    /// # Errors
    /// `not-found`, `denied`, `registry` or `timeout`, naming the host that said so.
    pub async fn part(&self, part: Part, within: Duration) -> Result<Answer, Failure> {
        let found = self.found.borrow().clone();
        let taken = match found {
            Some(found) => match timeout(within, self.part_from(&found, part)).await {
                Ok(Ok(taken)) => Ok(taken),
                Ok(Err(_)) => self.find(part, within).await,
                Err(_) => Err(Refusal::silent(self.registry)),
            },
            None => self.find(part, within).await,
        };
        match taken {
            Ok(Taken::Part(answer)) => Ok(*answer),
            Ok(Taken::Other(host)) => {
                self.is_whole_only.set(true);
                Err(Refusal::unusable(&host, "gives no parts of a layer").failure)
            }
            Err(refusal) => {
                self.found.replace(None);
                Err(refusal.failure)
            }
        }
    }

    async fn part_from(&self, found: &Found, part: Part) -> Result<Taken, Refusal> {
        let (endpoint, client) = &self.endpoints[found.host];
        let client = client.as_ref().map_err(|failure| {
            let what = format!("cannot be asked: {}", failure.detail);
            Refusal::unusable(&endpoint.url.authority, &what)
        })?;
        let Some(url) = &found.elsewhere else {
            return endpoint.ask_for_part(client, self.question, part).await;
        };
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*")), (RANGE, part.header())]);
        let answer = client.send(&Method::GET, url.clone(), &headers).await?;
        part.taken(answer).await
    }

    async fn find(&self, part: Part, within: Duration) -> Result<Taken, Refusal> {
        let can = |endpoint: &super::Endpoint| endpoint.config.can_pull;
        let question = async |endpoint: &super::Endpoint, client: &super::Client| {
            let taken = endpoint.ask_for_part(client, self.question, part).await?;
            let is_it = |(other, _): &(super::Endpoint, _)| std::ptr::eq(other, endpoint);
            let host = self.endpoints.iter().position(is_it);
            Ok((host, endpoint.url.authority.clone(), taken))
        };
        let (host, authority, taken) = self.registries.ask(self.registry, within, can, question).await?;
        if let Taken::Part(answer) = &taken {
            self.found.replace(host.map(|host| Found {
                host,
                elsewhere: (host_of(&answer.url) != authority).then(|| answer.url.clone()),
            }));
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_asked_for_and_taken_only_where_it_begins_as_it_should() {
        let part = Part { from: 8, to: 16 };
        assert_eq!(part.header(), "bytes=8-15");
        let headers = |range: &str| HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_str(range).unwrap())]);
        assert!(part.is_told_by(&headers("bytes 8-15/20")));
        for other in ["bytes 0-15/20", "bytes */20", "8-15/20", ""] {
            assert!(!part.is_told_by(&headers(other)), "{other}");
        }
        assert!(!part.is_told_by(&HeaderMap::new()));
    }
}

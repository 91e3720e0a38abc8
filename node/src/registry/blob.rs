//! A blob that is fetched in parts, each over a connection of its own, from the host that containerd would ask.

use std::{cell::RefCell, time::Duration};

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

    /// Takes an answer that is this part.
    ///
    /// # Errors
    /// What the host says instead.
    pub(super) async fn taken(self, answer: Answer) -> Result<Answer, Refusal> {
        match answer.status {
            StatusCode::PARTIAL_CONTENT if self.is_told_by(&answer.headers) => Ok(answer),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                Err(Refusal::unusable(&answer.host, "gives no parts of a layer"))
            }
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

/// A blob of an image's repository; whichever host gave a part of it is asked for the others.
pub struct Blob<'a> {
    registries: &'a Registries,
    registry: &'a str,
    question: Question<'a>,
    endpoints: Endpoints,
    found: RefCell<Option<Found>>,
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
        }
    }
}

impl Blob<'_> {
    /// Asks for a part, and returns what is answered before its body is read. An address that was signed for a while is found
    /// anew where it is refused.
    ///
    /// # Errors
    /// `not-found`, `denied`, `registry` or `timeout`, naming the host that said so.
    pub async fn part(&self, part: Part, within: Duration) -> Result<Answer, Failure> {
        let found = self.found.borrow().clone();
        if let Some(found) = found {
            match timeout(within, self.part_from(&found, part)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) if found.elsewhere.is_some() => {}
                Ok(Err(refusal)) => return Err(refusal.failure),
                Err(_) => return Err(Refusal::silent(self.registry).failure),
            }
        }
        self.find(part, within).await.map_err(|refusal| refusal.failure)
    }

    async fn part_from(&self, found: &Found, part: Part) -> Result<Answer, Refusal> {
        let (endpoint, client) = &self.endpoints[found.host];
        let client = client.as_ref().map_err(|failure| {
            Refusal::unusable(&endpoint.url.authority, &format!("cannot be asked: {}", failure.detail))
        })?;
        let Some(url) = &found.elsewhere else {
            return endpoint.ask_for_part(client, self.question, part).await;
        };
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*")), (RANGE, part.header())]);
        part.taken(client.send(&Method::GET, url.clone(), &headers).await?)
            .await
    }

    async fn find(&self, part: Part, within: Duration) -> Result<Answer, Refusal> {
        let can = |endpoint: &super::Endpoint| endpoint.config.can_pull;
        let asked = self
            .registries
            .ask(self.registry, within, can, async |endpoint, client| {
                let answer = endpoint.ask_for_part(client, self.question, part).await?;
                let host = self
                    .endpoints
                    .iter()
                    .position(|(other, _)| std::ptr::eq(other, endpoint));
                Ok((host, endpoint.url.authority.clone(), answer))
            });
        let (host, authority, answer) = asked.await?;
        self.found.replace(host.map(|host| Found {
            host,
            elsewhere: (host_of(&answer.url) != authority).then(|| answer.url.clone()),
        }));
        Ok(answer)
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

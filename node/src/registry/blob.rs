//! A blob that is fetched in parts, each over a connection of its own, from the host that containerd would ask.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{ACCEPT, RANGE},
};
use tokio::time::timeout;

use super::{
    byte_range::{ByteRange, Taken},
    client::{Client, Response, host_of},
    endpoint::Endpoint,
    question::{DocumentKind, Question},
    refusal::Refusal,
    registries::{Endpoints, Registries},
};
use crate::{failure::Failure, login::Login};

/// A blob of an image's repository; whichever host gave a part of it is asked for the others.
pub struct Blob<'a> {
    registries: &'a Registries,
    registry: &'a str,
    question: Question<'a>,
    endpoints: Endpoints,
    found: RefCell<Option<Found>>,
    is_whole_only: Cell<bool>,
}

/// Tells where a part was found.
#[derive(Clone, Debug)]
struct Found {
    /// The host that was asked, by its place among all.
    host: usize,
    /// The address that it led to, signed for whoever has it: it is asked without a login.
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
                kind: DocumentKind::Blob,
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
    pub async fn part(&self, part: ByteRange, within: Duration) -> Result<Response, Failure> {
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

    async fn part_from(&self, found: &Found, part: ByteRange) -> Result<Taken, Refusal> {
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

    async fn find(&self, part: ByteRange, within: Duration) -> Result<Taken, Refusal> {
        let can = |endpoint: &Endpoint| endpoint.config.can_pull;
        let question = async |endpoint: &Endpoint, client: &Client| {
            let taken = endpoint.ask_for_part(client, self.question, part).await?;
            let is_it = |(other, _): &(Endpoint, _)| std::ptr::eq(other, endpoint);
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

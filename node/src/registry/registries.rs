//! Asks the hosts of registries one after the other, as containerd would.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};

use http::Method;
use prefetch::manifest::Manifest;
use tokio::time::{Instant, timeout_at};

use super::{
    certificates::Certificates,
    client::Client,
    endpoint::Endpoint,
    hosts::{self, HostConfig},
    proxy::Proxies,
    question::{Document, DocumentKind, Question, sha256},
    refusal::{Rank, Refusal},
};
use crate::{
    failure::Failure,
    host::Host,
    login::{Login, environment},
};

/// Bounds the time of a mirror before the next host is asked.
pub(super) const MIRROR_LIMIT: Duration = Duration::from_secs(5);

/// Asks registries from one node; cheap to clone. Connections are kept and shared.
#[derive(Clone)]
pub struct Registries(Arc<Shared>);

/// The hosts of a registry with the clients that ask them.
pub type Endpoints = Arc<Vec<(Endpoint, Result<Client, Failure>)>>;

struct Shared {
    host: Host,
    hosts_folders: Vec<PathBuf>,
    environment: OnceLock<BTreeMap<String, String>>,
    certificates: OnceLock<Certificates>,
    proxies: OnceLock<Arc<Proxies>>,
    /// The client for hosts without settings of their own.
    client: OnceLock<Result<Client, Failure>>,
    endpoints: Mutex<HashMap<String, Endpoints>>,
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registries")
    }
}

impl Registries {
    /// Reads the node's certificates and proxies (of the units of containerd and kubelet) when they are first needed.
    /// `hosts_folders` are containerd's.
    #[must_use]
    pub fn on(host: &Host, hosts_folders: Vec<PathBuf>) -> Self {
        Self(Arc::new(Shared {
            host: host.clone(),
            hosts_folders,
            environment: OnceLock::new(),
            certificates: OnceLock::new(),
            proxies: OnceLock::new(),
            client: OnceLock::new(),
            endpoints: Mutex::default(),
        }))
    }

    /// Gets what a digest stands for: at most 8 MiB, verified against the digest. Mirrors of the node are asked first, as by
    /// containerd; the login goes to the registry alone.
    ///
    /// # Errors
    /// `not-found`, `denied`, `registry` or `timeout`, naming the host that said so.
    pub async fn get(
        &self,
        registry: &str,
        repository: &str,
        kind: DocumentKind,
        digest: &str,
        login: Option<&Login>,
        within: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let question = Question {
            repository,
            kind,
            reference: digest,
            login,
        };
        let can = |endpoint: &Endpoint| endpoint.config.can_pull;
        let answer = self.ask(registry, within, can, async |endpoint, client| {
            verified(endpoint.ask(client, &Method::GET, question).await?, digest)
        });
        answer.await.map_err(|refusal| refusal.failure)
    }

    /// Asks which digest a tag stands for now; none where there is no such tag.
    ///
    /// # Errors
    /// As [`Registries::get`].
    pub async fn digest_of_tag(
        &self,
        registry: &str,
        repository: &str,
        tag: &str,
        login: Option<&Login>,
        within: Duration,
    ) -> Result<Option<String>, Failure> {
        let question = Question {
            repository,
            kind: DocumentKind::Manifest,
            reference: tag,
            login,
        };
        let can = |endpoint: &Endpoint| endpoint.config.can_pull && endpoint.config.can_resolve;
        let answer = self.ask(registry, within, can, async |endpoint, client| {
            let told = endpoint.ask(client, &Method::HEAD, question).await?;
            match told.digest {
                Some(digest) if !told.has_type_of_page => Ok(digest),
                _ => digest_of(&endpoint.ask(client, &Method::GET, question).await?),
            }
        });
        match answer.await {
            Ok(digest) => Ok(Some(digest)),
            Err(refusal) if refusal.rank == Rank::NotThere => Ok(None),
            Err(refusal) => Err(refusal.failure),
        }
    }

    /// Asks the hosts of a registry one after the other, those that were silent before last.
    pub(super) async fn ask<T>(
        &self,
        registry: &str,
        within: Duration,
        can: impl Fn(&Endpoint) -> bool,
        question: impl AsyncFn(&Endpoint, &Client) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let deadline = Instant::now() + within;
        let endpoints = self.endpoints(registry);
        let mut hosts: Vec<_> = endpoints.iter().filter(|(endpoint, _)| can(endpoint)).collect();
        hosts.sort_by_key(|(endpoint, _)| endpoint.is_silent.load(Ordering::Relaxed));
        let mut refusal = Refusal::unusable(registry, "has no host that may be asked");
        let last = hosts.len().saturating_sub(1);
        let has_own = hosts.iter().any(|(endpoint, _)| endpoint.namespace.is_none());
        for (number, (endpoint, client)) in hosts.into_iter().enumerate() {
            let limit = if number == last {
                deadline
            } else {
                deadline.min(Instant::now() + MIRROR_LIMIT)
            };
            match ask_host(limit, endpoint, client, &question).await {
                Ok(answer) => return Ok(answer),
                Err(later) if has_own && endpoint.namespace.is_some() => refusal = refusal.or_later(later.of_mirror()),
                Err(later) => refusal = refusal.or_later(later),
            }
        }
        Err(refusal)
    }

    /// Returns the hosts of a registry, which are read once.
    pub(super) fn endpoints(&self, registry: &str) -> Endpoints {
        let mut known = self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || {
            let hosts = hosts::of_registry(&self.0.host, &self.0.hosts_folders, registry);
            let endpoints = hosts.iter().flat_map(|config| Endpoint::of(config, registry));
            Arc::new(endpoints.map(|endpoint| self.with_client(endpoint)).collect())
        };
        Arc::clone(known.entry(registry.to_owned()).or_insert_with(read))
    }

    fn with_client(&self, endpoint: Endpoint) -> (Endpoint, Result<Client, Failure>) {
        let client = if endpoint.config.has_own_tls() || endpoint.config.dial_timeout.is_some() {
            self.0.make_client(&endpoint.config)
        } else {
            let make = || self.0.make_client(&HostConfig::registry());
            self.0.client.get_or_init(make).clone()
        };
        (endpoint, client)
    }
}

impl Shared {
    fn make_client(&self, config: &HostConfig) -> Result<Client, Failure> {
        let environment = self
            .environment
            .get_or_init(|| environment::for_registries(&self.host, environment::own_proxies()));
        let certificates = self
            .certificates
            .get_or_init(|| Certificates::of(&self.host, environment));
        let proxies = self
            .proxies
            .get_or_init(|| Arc::new(Proxies::from_environment(environment)));
        let tls = certificates.client_config(&self.host, config)?;
        Ok(Client::new(Arc::clone(proxies), tls, config.dial_timeout))
    }
}

/// Asks one host, and notes whether it was silent.
async fn ask_host<T>(
    limit: Instant,
    endpoint: &Endpoint,
    client: &Result<Client, Failure>,
    question: &impl AsyncFn(&Endpoint, &Client) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let host = &endpoint.url.authority;
    let answer = match client {
        Ok(client) => timeout_at(limit, question(endpoint, client)).await,
        Err(failure) => Ok(Err(Refusal::unusable(
            host,
            &format!("cannot be asked: {}", failure.detail),
        ))),
    };
    endpoint.set_silent(answer.is_err());
    answer.unwrap_or_else(|_| Err(Refusal::silent(host)))
}

/// Takes an answer for what a digest stands for, or tells what it is instead.
fn verified(document: Document, digest: &str) -> Result<Vec<u8>, Refusal> {
    if sha256(&document.bytes) == digest {
        return Ok(document.bytes);
    }
    let what = if document.is_page() {
        "answers with a page of HTML"
    } else {
        "answers with something else than the digest stands for"
    };
    Err(Refusal::unusable(&document.host, what))
}

/// Takes an answer for a manifest, and tells its digest.
fn digest_of(document: &Document) -> Result<String, Refusal> {
    if document.is_page() {
        return Err(Refusal::unusable(&document.host, "answers with a page of HTML"));
    }
    if Manifest::parse(&document.bytes).is_err() {
        return Err(Refusal::unusable(
            &document.host,
            "answers with something else than a manifest",
        ));
    }
    Ok(sha256(&document.bytes))
}

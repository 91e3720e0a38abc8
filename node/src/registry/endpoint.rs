//! One host that is asked for a registry's images, and how it is asked.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, RANGE},
};
use prefetch::{image::MANIFEST_MEDIA_TYPES, manifest::MAX_BYTES};
use tokio::sync::Semaphore;

use super::{
    authorization::{Challenge, MAX_TOKEN, token},
    byte_range::{ByteRange, Taken},
    client::{Client, Response, host_of},
    hosts::{HostConfig, url::Url},
    proxy::basic,
    question::{Document, DocumentKind, Question},
    refusal::Refusal,
};
use crate::login::Login;

/// Bounds the questions that one host is asked at once: as many connections it has of us at most.
const AT_ONCE: usize = 8;

/// A host of a registry's.
#[derive(Debug)]
pub struct Endpoint {
    /// Its address.
    pub url: Url,
    /// Its settings.
    pub config: HostConfig,
    /// True for the registry itself, by TLS: the login is for it, and for no other.
    pub is_registry: bool,
    /// The registry for which it stands in, where it is another host.
    pub namespace: Option<String>,
    /// True where it was silent, so that others are asked first.
    pub is_silent: AtomicBool,
    permits: Semaphore,
    /// The last token for each repository, with the login for which it was given.
    tokens: Mutex<HashMap<String, (Option<Login>, HeaderValue)>>,
}

impl Endpoint {
    /// Makes the endpoints of a host: one, or two where it may speak TLS or not (containerd, `ConfigureHosts`).
    #[must_use]
    pub fn of(config: &HostConfig, registry: &str) -> Vec<Self> {
        let own_host = if registry == "docker.io" {
            "registry-1.docker.io"
        } else {
            registry
        };
        let (url, skip_verify) = match &config.url {
            Some(url) => (Some(url.clone()), config.skip_verify),
            None => at_home(own_host, config),
        };
        let Some(url) = url else { return Vec::new() };
        let config = HostConfig {
            skip_verify,
            ..config.clone()
        };
        let may_speak_tls = !url.is_https && config.has_own_tls() && !url.authority.ends_with(":80");
        let secure = Url {
            is_https: true,
            ..url.clone()
        };
        let urls = if may_speak_tls { vec![secure, url] } else { vec![url] };
        urls.into_iter()
            .map(|url| Self::new(url, config.clone(), registry, own_host))
            .collect()
    }

    fn new(url: Url, config: HostConfig, registry: &str, own_host: &str) -> Self {
        let own = Url::of_host(url.is_https, own_host);
        let is_own = own.is_some_and(|own| own.authority == url.authority);
        Self {
            is_registry: is_own && url.is_https,
            namespace: (!is_own).then(|| registry.to_owned()),
            url,
            config,
            is_silent: AtomicBool::new(false),
            permits: Semaphore::new(AT_ONCE),
            tokens: Mutex::default(),
        }
    }

    /// Notes that it was silent, or that it is no more.
    pub fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Asks, and reads what is answered with status 200.
    ///
    /// # Errors
    /// Any other answer, or none.
    pub async fn ask(&self, client: &Client, method: &Method, question: Question<'_>) -> Result<Document, Refusal> {
        let _permit = self.permits.acquire().await;
        let answer = self.ask_with_token(client, method, question, None).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.into_refusal().await);
        }
        Ok(Document {
            host: answer.host.clone(),
            digest: answer.digest(),
            has_type_of_page: answer.is_page(),
            bytes: answer.bytes(MAX_BYTES).await?,
        })
    }

    /// Asks for a part of a blob, and returns what is given before its body is read.
    ///
    /// # Errors
    /// That the blob is refused, or nobody answers.
    pub async fn ask_for_part(
        &self,
        client: &Client,
        question: Question<'_>,
        part: ByteRange,
    ) -> Result<Taken, Refusal> {
        part.taken(self.ask_with_token(client, &Method::GET, question, Some(part)).await?)
            .await
    }

    /// Asks, gets a token where one is wanted, and asks again.
    async fn ask_with_token(
        &self,
        client: &Client,
        method: &Method,
        question: Question<'_>,
        part: Option<ByteRange>,
    ) -> Result<Response, Refusal> {
        let url = self.address(question)?;
        let headers = |authorization| {
            let mut headers = self.headers(question.kind, authorization);
            headers.extend(part.map(|part| (RANGE, part.header())));
            headers
        };
        let known = self.authorization(question);
        let answer = client.send(method, url.clone(), &headers(known)).await?;
        let challenge = Challenge::in_headers(&answer.headers);
        let is_own = answer.host == host_of(&url);
        let Some(challenge) = challenge.filter(|_| answer.status == StatusCode::UNAUTHORIZED && is_own) else {
            return Ok(answer);
        };
        let token = self.fetch_token(client, &challenge, question).await?;
        let given = (question.login.cloned(), token.clone());
        self.tokens().insert(question.repository.to_owned(), given);
        client.send(method, url, &headers(Some(token))).await
    }

    fn address(&self, question: Question<'_>) -> Result<Uri, Refusal> {
        let what = match question.kind {
            DocumentKind::Manifest => "manifests",
            DocumentKind::Blob => "blobs",
        };
        let namespace = self
            .namespace
            .as_ref()
            .map(|registry| format!("?ns={registry}"))
            .unwrap_or_default();
        let Question {
            repository, reference, ..
        } = question;
        let address = format!("{}/{repository}/{what}/{reference}{namespace}", self.url);
        address
            .parse()
            .map_err(|_| Refusal::unusable(&self.url.authority, "has no such address"))
    }

    /// Takes what a host is told at once: the token that it gave for the repository and this login, else the login of the
    /// registry.
    fn authorization(&self, question: Question<'_>) -> Option<HeaderValue> {
        let known = self.tokens().get(question.repository).cloned();
        let known = known.filter(|(login, _)| login.as_ref() == question.login);
        known.map(|(_, token)| token).or_else(|| self.login(question))
    }

    fn login(&self, question: Question<'_>) -> Option<HeaderValue> {
        let login = question.login.filter(|_| self.is_registry)?;
        basic(&login.user, &login.password)
    }

    fn headers(&self, kind: DocumentKind, authorization: Option<HeaderValue>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let manifests = format!("{}, */*", MANIFEST_MEDIA_TYPES.join(", "));
        let accepted = HeaderValue::from_str(&manifests)
            .ok()
            .filter(|_| kind == DocumentKind::Manifest);
        headers.insert(ACCEPT, accepted.unwrap_or(HeaderValue::from_static("*/*")));
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        // Settings with a header of their own bring the login themselves.
        for name in self.config.header.keys() {
            headers.remove(name);
        }
        headers.extend(self.config.header.clone());
        headers
    }

    /// Gets a token, with the login where it may have that: the registry itself, or a host that the registry names and that
    /// is asked by TLS, as the registry was, verified.
    async fn fetch_token(
        &self,
        client: &Client,
        challenge: &Challenge,
        question: Question<'_>,
    ) -> Result<HeaderValue, Refusal> {
        let host = &self.url.authority;
        let url = challenge.url(question.repository);
        let url = url.ok_or_else(|| Refusal::unusable(host, "names no address that gives tokens"))?;
        let mut headers = HeaderMap::new();
        if let Some(login) = self.login(question).filter(|_| self.may_hand_login_to(&url)) {
            headers.insert(AUTHORIZATION, login);
        }
        let answer = client.send(&Method::GET, url, &headers).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.into_refusal().await);
        }
        let host = answer.host.clone();
        token(&answer.bytes(MAX_TOKEN).await?).ok_or_else(|| Refusal::unusable(&host, "gives no token"))
    }

    fn may_hand_login_to(&self, url: &Uri) -> bool {
        let is_itself = host_of(url) == self.url.authority;
        let is_verified = self.config.skip_verify != Some(true);
        self.is_registry && url.scheme_str() == Some("https") && (is_itself || is_verified)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, (Option<Login>, HeaderValue)>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns where a registry is of which nothing is set, and whether its certificate is verified: the machine itself may
/// speak without TLS, or with any certificate.
fn at_home(host: &str, config: &HostConfig) -> (Option<Url>, Option<bool>) {
    let is_https = !is_this_machine(host) || matches!(port(host), None | Some("443"));
    let skip_verify = if is_this_machine(host) && port(host) != Some("80") {
        Some(true)
    } else {
        config.skip_verify
    };
    (Url::of_host(is_https, host), skip_verify)
}

fn port(host: &str) -> Option<&str> {
    host.rsplit_once(':').map(|(_, port)| port)
}

fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

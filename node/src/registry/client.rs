//! One question to a host: over a kept connection, along its redirects, within bounds.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, LOCATION, PROXY_AUTHORIZATION, RANGE, USER_AGENT},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use prefetch::{image::is_digest, outcome::NodeReason};
use rustls::ClientConfig;

use super::{
    connection::Dialer,
    hosts::url::without_default_port,
    proxy::Proxies,
    refusal::{Rank, Refusal},
};

/// Bounds the redirects that are followed, as by containerd (`net/http`).
const MAX_REDIRECTS: usize = 10;

/// Bounds the words of somebody else's that stand in a failure, in characters.
const MAX_WORDS: usize = 400;

/// Asks hosts, by one set of settings; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: legacy::Client<HttpsConnector<Dialer>, Empty<Bytes>>,
    proxies: Arc<Proxies>,
}

/// Holds a host's answer before its body is read.
#[derive(Debug)]
pub struct Response {
    /// The host that answered: the one that was asked, or one that it led to.
    pub host: String,
    /// The address at which it was found in the end.
    pub url: Uri,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
}

impl Client {
    /// Makes a client of these proxies, settings of TLS, and limit of a connection.
    #[must_use]
    pub fn new(proxies: Arc<Proxies>, tls: ClientConfig, dial_timeout: Option<Duration>) -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
        Self {
            http: builder.build(Dialer::with_tls(Arc::clone(&proxies), tls, dial_timeout)),
            proxies,
        }
    }

    /// Asks, and follows where it is led. What another host is not to be told, the login above all, it is not sent.
    pub async fn send(&self, method: &Method, url: Uri, headers: &HeaderMap) -> Result<Response, Refusal> {
        let mut url = url;
        let mut headers = headers.clone();
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("prefetch-images/", env!("CARGO_PKG_VERSION"))),
        );
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send_once(method, &url, &headers).await?;
            let Some(next) = redirected(&url, &answer)? else {
                return Ok(answer);
            };
            if host_of(&next) != host_of(&url) || next.scheme() != url.scheme() {
                headers = [USER_AGENT, ACCEPT, RANGE]
                    .into_iter()
                    .filter_map(|name| Some((name.clone(), headers.get(name)?.clone())))
                    .collect();
            }
            url = next;
        }
        Err(Refusal::unusable(&host_of(&url), "leads on for ever"))
    }

    async fn send_once(&self, method: &Method, url: &Uri, headers: &HeaderMap) -> Result<Response, Refusal> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers.clone();
        if let Some(authorization) = self.login_of_proxy(url) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        let host = host_of(url);
        let answer = self.http.request(request).await;
        let (parts, body) = answer
            .map_err(|error| Refusal::unreachable(&host, &cause(&error)))?
            .into_parts();
        Ok(Response {
            host,
            url: url.clone(),
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

impl Client {
    /// Returns the login of a proxy that is asked itself, as for what is not tunnelled.
    fn login_of_proxy(&self, url: &Uri) -> Option<HeaderValue> {
        let is_plain = url.scheme_str() == Some("http");
        self.proxies.for_url(url).filter(|_| is_plain)?.authorization()
    }
}

impl Response {
    /// Reads the body, whatever length it claims to have.
    pub async fn bytes(self, at_most: usize) -> Result<Vec<u8>, Refusal> {
        let host = self.host;
        if self.body.size_hint().lower() > at_most as u64 {
            return Err(Refusal::unusable(&host, &format!("answers more than {at_most} bytes")));
        }
        match Limited::new(self.body, at_most).collect().await {
            Ok(body) => Ok(body.to_bytes().into()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(Refusal::unusable(&host, &format!("answers more than {at_most} bytes")))
            }
            Err(error) => Err(Refusal::unreachable(&host, &cause(error.as_ref()))),
        }
    }

    /// Returns the next piece of the body; none at its end.
    ///
    /// # Errors
    /// That the connection breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            return match self.body.frame().await {
                None => Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Ok(Some(data)),
                    Err(_) => continue, // trailers
                },
                Some(Err(error)) => Err(Refusal::unreachable(&self.host, &cause(&error))),
            };
        }
    }

    /// Returns the digest that it names (distribution, `Docker-Content-Digest`).
    pub fn digest(&self) -> Option<String> {
        let digest = self.headers.get("docker-content-digest")?.to_str().ok()?;
        is_digest(digest).then(|| digest.to_owned())
    }

    /// Tells whether it is a page for people.
    pub fn is_page(&self) -> bool {
        let media_type = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        media_type.is_some_and(|media_type| media_type.trim_start().to_ascii_lowercase().starts_with("text/html"))
    }

    /// Takes an answer that is none to the question for what it says.
    pub async fn into_refusal(self) -> Refusal {
        /// Bounds the explanation that is read, in bytes.
        const MAX_EXPLANATION: usize = 64 << 10;
        let (host, status) = (self.host.clone(), self.status);
        let reason = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => NodeReason::Denied,
            StatusCode::NOT_FOUND => NodeReason::NotFound,
            _ => NodeReason::Registry,
        };
        let rank = if reason == NodeReason::NotFound {
            Rank::NotThere
        } else {
            Rank::Refused
        };
        let explanation = self.bytes(MAX_EXPLANATION).await.ok();
        let explanation = explanation.and_then(|body| explanation_in(&body));
        let explanation = explanation.map(|text| format!(": {text}")).unwrap_or_default();
        Refusal::new(rank, reason, format!("{host} answers {status}{explanation}"))
    }
}

/// Finds what a registry says for people in the body of a refusal (OCI distribution specification, error codes).
fn explanation_in(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        errors: Vec<Explanation>,
    }
    #[derive(serde::Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Explanation {
        code: String,
        message: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let Explanation { code, message } = body.errors.into_iter().next()?;
    let text = [code, message]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>();
    Some(shortened(&text.join(": "))).filter(|text| !text.is_empty())
}

/// Returns where an answer leads on to, if anywhere.
fn redirected(url: &Uri, answer: &Response) -> Result<Option<Uri>, Refusal> {
    let leads_on = [301, 302, 303, 307, 308].contains(&answer.status.as_u16());
    let Some(location) = answer.headers.get(LOCATION).filter(|_| leads_on) else {
        return Ok(None);
    };
    let next = location.to_str().ok().and_then(|location| resolve(url, location));
    let next = next.ok_or_else(|| Refusal::unusable(&answer.host, "leads on to no address"))?;
    let is_https = |url: &Uri| url.scheme_str() == Some("https");
    if is_https(url) && !is_https(&next) {
        return Err(Refusal::unusable(&answer.host, "leads on to an address without TLS"));
    }
    Ok(Some(next))
}

/// Resolves a location against the address that told it.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let scheme = base.scheme_str()?;
    let has_scheme = |(scheme, _): (&str, &str)| !scheme.contains(['/', '?']);
    let text = if location.split_once("://").is_some_and(has_scheme) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", base.authority()?)
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{}{folder}/{location}", base.authority()?)
    };
    let url: Uri = text.parse().ok()?;
    (matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).then_some(url)
}

/// Names the host of an address, and its port where it is not the scheme's own.
#[must_use]
pub fn host_of(url: &Uri) -> String {
    let is_https = url.scheme_str() == Some("https");
    url.authority()
        .map(|authority| without_default_port(authority, is_https))
        .unwrap_or_default()
}

/// Tells the innermost cause of an error, which says the most.
fn cause(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    shortened(&error.to_string())
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_against_the_address_that_told_them() {
        let base = Uri::from_static("https://reg.example:5000/v2/app/blobs/sha256:1");
        for (location, url) in [
            (
                "https://bucket.example/a?sig=1#x",
                Some("https://bucket.example/a?sig=1"),
            ),
            ("/other", Some("https://reg.example:5000/other")),
            (
                "/login?to=https://x.example/",
                Some("https://reg.example:5000/login?to=https://x.example/"),
            ),
            ("next", Some("https://reg.example:5000/v2/app/blobs/next")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("ftp://a/b", None),
            ("https://", None),
            ("https:// b", None),
        ] {
            let resolved = resolve(&base, location).map(|url| url.to_string());
            assert_eq!(resolved.as_deref(), url, "{location}");
        }
    }

    #[test]
    fn a_registry_explains_itself_on_one_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"not\nauthorized\u001b[0m https://s3/x?sig=secret","detail":{}}]}"#;
        let text = explanation_in(body).unwrap();
        let refusal = Refusal::unusable("reg.example", &text);
        assert!(
            refusal.failure.detail.starts_with("reg.example DENIED: not authorized"),
            "{text:?}"
        );
        assert!(!refusal.failure.detail.contains("secret"), "{text:?}");
        for other in ["", "{}", "<html>", r#"{"errors":[]}"#, r#"{"errors":[{}]}"#] {
            assert_eq!(explanation_in(other.as_bytes()), None, "{other}");
        }
    }
}

//! Connections to registries: straight, or through a proxy.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use super::proxy::{Proxies, Proxy};

/// How long a connection may take where nothing else is set (containerd, `DefaultHTTPTransport`).
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Dialing = Pin<Box<dyn Future<Output = Result<Stream, Box<dyn Error + Send + Sync>>> + Send>>;

/// Connects to hosts, by a proxy's tunnel where there is one for them; TLS comes above.
#[derive(Clone)]
pub struct Dialer {
    proxies: Arc<Proxies>,
    straight: HttpConnector,
    /// Speaks to proxies, some by TLS.
    to_proxy: HttpsConnector<HttpConnector>,
}

impl Dialer {
    /// Makes the connector of one client, which speaks TLS by these settings.
    #[must_use]
    pub fn with_tls(proxies: Arc<Proxies>, tls: ClientConfig, dial_timeout: Option<Duration>) -> HttpsConnector<Self> {
        let mut straight = HttpConnector::new();
        straight.enforce_http(false);
        straight.set_nodelay(true);
        straight.set_connect_timeout(Some(dial_timeout.unwrap_or(DIAL_TIMEOUT)));
        let tls = Arc::new(tls);
        let dialer = Self {
            proxies,
            to_proxy: HttpsConnector::from((straight.clone(), Arc::clone(&tls))),
            straight,
        };
        HttpsConnector::from((dialer, tls))
    }

    fn through(&self, proxy: &Proxy, url: Uri) -> Dialing {
        if proxy.url.scheme_str() == Some("socks5") {
            let mut socks = SocksV5::new(proxy.url.clone(), self.straight.clone());
            if let Some((user, password)) = &proxy.login {
                socks = socks.with_auth(user.clone(), password.clone());
            }
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(socks.call(url).await?)) });
        }
        let mut tunnel = Tunnel::new(proxy.url.clone(), self.to_proxy.clone());
        if let Some(authorization) = proxy.authorization() {
            tunnel = tunnel.with_auth(authorization);
        }
        Box::pin(async move { Ok(tunnel.call(with_port(url)).await?) })
    }
}

/// Names the port that a tunnel leads to: it takes 443 for an address that has none, whatever its scheme.
fn with_port(url: Uri) -> Uri {
    match (url.scheme_str(), url.port(), url.host()) {
        (Some("http"), None, Some(host)) => format!("http://{host}:80/").parse().unwrap_or(url),
        _ => url,
    }
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Dialing;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.straight.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Dialing {
        let proxies = Arc::clone(&self.proxies);
        if let Some(proxy) = proxies.for_url(&url) {
            return self.through(proxy, url);
        }
        let dialing = self.straight.call(url);
        Box::pin(async move { Ok(MaybeHttpsStream::Http(dialing.await?)) })
    }
}

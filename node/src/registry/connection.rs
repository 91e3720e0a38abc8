//! Connections to registries: straight, or through a proxy.

mod stream;

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{
    HttpConnector,
    proxy::{SocksV5, Tunnel},
};
use rustls::ClientConfig;
use tower::Service;

use self::stream::Stream;
use super::proxy::{Proxies, Proxy};

/// Bounds the time to connect where nothing else is set (containerd, `DefaultHTTPTransport`).
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

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
            return Box::pin(async move { Ok(Stream::to_host(MaybeHttpsStream::Http(socks.call(url).await?))) });
        }
        // Without TLS there is nothing to tunnel: the proxy itself is asked.
        if url.scheme_str() == Some("http") {
            let dialing = self.to_proxy.clone().call(proxy.url.clone());
            return Box::pin(async move { Ok(Stream::to_proxy(dialing.await?)) });
        }
        let mut tunnel = Tunnel::new(proxy.url.clone(), self.to_proxy.clone());
        if let Some(authorization) = proxy.authorization() {
            tunnel = tunnel.with_auth(authorization);
        }
        Box::pin(async move { Ok(Stream::to_host(tunnel.call(url).await?)) })
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
        Box::pin(async move { Ok(Stream::to_host(MaybeHttpsStream::Http(dialing.await?))) })
    }
}

//! The set-up every function's AWS clients share.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

/// Loads Region, credentials and endpoint from the environment for clients that speak TLS through rustls and ring.
pub async fn config() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client())
        .load()
        .await
}

/// Makes a client that speaks HTTPS through rustls and ring.
///
/// The SDK's default provider, aws-lc, gathers CPU-jitter entropy at its first handshake: about 25 ms of CPU, a third of
/// a second on a 128 MB function (aws-lambda-rust-runtime#1101).
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

//! Connections: one pool for the work, and none at all for the watcher's questions.

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::config::S3Config;

/// Keeps idle connections for the next request. `TCP_NODELAY` is the connector's default.
pub(crate) fn pooled(config: &S3Config) -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .pool_idle_timeout(config.idle_timeout)
        .pool_max_idle_per_host(config.max_idle_connections)
        .build_https()
}

/// Opens a connection for each request: what a broken or a stale one would answer says nothing of the bucket.
pub(crate) fn fresh() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).pool_max_idle_per_host(0).build_https()
}

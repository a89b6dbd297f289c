//! An HTTP client for this machine's own server.

use std::time::Duration;

/// Plain HTTP on the loopback: no certificates, no proxies, no redirects, and not for ever.
pub(super) fn client() -> reqwest::Result<reqwest::Client> {
    // A second installation of the same provider is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
}

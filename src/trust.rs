//! Whom connections trust: the certificate authorities of the machine.
//!
//! Every client that leaves by TLS has the same ones. Invariant: a process reads them once and has them
//! once, however many clients there are; they are several hundred kilobytes and milliseconds. Left out:
//! PostgreSQL's connections, whose library reads its own.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

static MACHINE: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| of(rustls_native_certs::load_native_certs().certs));

/// What the machine trusts, as it was when somebody first asked. May be nobody.
pub fn machine() -> Arc<RootCertStore> {
    MACHINE.clone()
}

/// Those of these authorities that can be read.
pub fn of(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    roots.roots.shrink_to_fit();
    Arc::new(roots)
}

/// TLS, by ring, with whoever one of these vouches for.
pub fn tls(roots: Arc<RootCertStore>) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

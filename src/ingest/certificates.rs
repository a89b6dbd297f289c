//! Certificates of senders, as their requests name them: fetched once, and kept for a day.
//!
//! Invariants: requests that want the same one at once wait for one fetch; one that could not be
//! had is not asked for again for a minute; what strangers name can neither push out what is good
//! nor be kept. Left out: whether a request is signed with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ring::signature::{
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime, pem::PemObject};
use tokio::sync::OnceCell;
use x509_cert::{
    Certificate as X509,
    der::{Decode, asn1::PrintableStringRef, asn1::Utf8StringRef},
};

use crate::{
    clock::Timestamp,
    domain::{certified::Certified, verifier::Digest},
    fetch::{Error, Fetch, For},
};

/// How long a certificate is taken for what it was.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How long one that could not be had is not asked for again.
const AVOIDED: Duration = Duration::from_secs(60);

/// Certificates that are kept; a sender has one or a few.
const CERTIFICATES_MAX: usize = 64;

/// URLs that are avoided.
const AVOIDED_MAX: usize = 256;

/// Certificates of one chain.
const CHAIN_MAX: usize = 8;

/// A sender's public key, and when it holds.
#[derive(Debug)]
pub(super) struct Certificate {
    key: Vec<u8>,
    from: Timestamp,
    until: Timestamp,
}

type Flight = Arc<OnceCell<Result<Arc<Certificate>, Error>>>;

#[derive(Debug, Default)]
struct State {
    good: HashMap<String, (Timestamp, Arc<Certificate>)>,
    bad: HashMap<String, (Timestamp, Error)>,
    flights: HashMap<String, Flight>,
}

#[derive(Debug)]
pub(super) struct Certificates {
    fetch: Fetch,
    state: Mutex<State>,
}

impl Certificates {
    pub(super) fn new(fetch: Fetch) -> Certificates {
        Certificates { fetch, state: Mutex::default() }
    }

    pub(super) fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// The certificate at a URL that a stranger named.
    pub(super) async fn get(
        &self,
        url: &str,
        rule: &Certified,
        per_minute_max: u32,
        now: Timestamp,
    ) -> Result<Arc<Certificate>, Error> {
        // What is asked of a certificate is part of what is known of it.
        let name = format!("{url}\n{}", rule.names.join(","));
        let flight = {
            let mut state = self.state.lock().expect("nobody panics with this lock");
            if let Some((until, known)) = state.good.get(&name)
                && *until > now
            {
                return Ok(known.clone());
            }
            if let Some((until, error)) = state.bad.get(&name)
                && *until > now
            {
                return Err(error.clone());
            }
            state.flights.entry(name.clone()).or_default().clone()
        };
        // Whoever comes last, or gives up, leaves nothing in the air.
        let landing = Landing { state: &self.state, name: &name, flight };
        let found = landing.flight.get_or_init(|| async {
            let found = self.read(url, rule, per_minute_max, now).await;
            self.note(&name, &found, now);
            found
        });
        found.await.clone()
    }

    fn note(&self, name: &str, found: &Result<Arc<Certificate>, Error>, now: Timestamp) {
        let mut state = self.state.lock().expect("nobody panics with this lock");
        match found {
            Ok(certificate) => {
                if state.good.len() >= CERTIFICATES_MAX {
                    let oldest = state.good.iter().min_by_key(|(_, (until, _))| *until);
                    let oldest = oldest.map(|(name, _)| name.clone());
                    oldest.and_then(|name| state.good.remove(&name));
                }
                state.good.insert(name.to_owned(), (now.plus(KEPT), certificate.clone()));
            }
            Err(Error::Busy(_)) => {}
            Err(error) => {
                if state.bad.len() >= AVOIDED_MAX {
                    state.bad.clear();
                }
                state.bad.insert(name.to_owned(), (now.plus(AVOIDED), error.clone()));
            }
        }
    }

    async fn read(
        &self,
        url: &str,
        rule: &Certified,
        per_minute_max: u32,
        now: Timestamp,
    ) -> Result<Arc<Certificate>, Error> {
        let file = self.fetch.get(url, &rule.from, For::Strangers, per_minute_max).await?;
        let failed = |reason: &str| Error::Failed(reason.to_owned());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&file)
            .take(CHAIN_MAX)
            .collect::<Result<_, _>>()
            .map_err(|_| failed("there is no certificate"))?;
        let (first, others) =
            chain.split_first().ok_or_else(|| failed("there is no certificate"))?;
        if !rule.names.is_empty() {
            check_chain(first, others, &rule.names, self.fetch.roots(), now)
                .map_err(Error::Forbidden)?;
        }
        let certificate = read(first).ok_or_else(|| failed("its certificate has no RSA key"))?;
        Ok(Arc::new(certificate))
    }
}

struct Landing<'a> {
    state: &'a Mutex<State>,
    name: &'a str,
    flight: Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock()
            && state.flights.get(self.name).is_some_and(|it| Arc::ptr_eq(it, &self.flight))
            // The map's and ours.
            && (self.flight.initialized() || Arc::strong_count(&self.flight) <= 2)
        {
            state.flights.remove(self.name);
        }
    }
}

const RSA: &str = "1.2.840.113549.1.1.1";
const COMMON_NAME: &str = "2.5.4.3";

fn read(der: &[u8]) -> Option<Certificate> {
    let certificate = X509::from_der(der).ok()?.tbs_certificate;
    let info = &certificate.subject_public_key_info;
    let key = info.subject_public_key.as_bytes()?.to_vec();
    let at = |time: x509_cert::time::Time| {
        i64::try_from(time.to_unix_duration().as_millis()).map(Timestamp).ok()
    };
    let (from, until) = (at(certificate.validity.not_before)?, at(certificate.validity.not_after)?);
    (info.algorithm.oid.to_string() == RSA).then_some(Certificate { key, from, until })
}

/// Whether an authority that this machine trusts gave the certificate one of the names.
fn check_chain(
    first: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    names: &[String],
    roots: &[TrustAnchor<'_>],
    now: Timestamp,
) -> Result<(), String> {
    let entity = webpki::EndEntityCert::try_from(first)
        .map_err(|error| format!("its certificate cannot be read: {error}"))?;
    let seconds = u64::try_from(now.0 / 1000).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    entity
        .verify_for_usage(algorithms, roots, others, time, AnyUse, None, None)
        .map_err(|error| format!("its certificate is not trusted: {error}"))?;
    let has_name = |name: &String| {
        let known = ServerName::try_from(name.as_str()).ok();
        known.is_some_and(|it| entity.verify_is_valid_for_subject_name(&it).is_ok())
    };
    let common = common_name(first);
    if names.iter().any(|name| has_name(name) || common.as_deref() == Some(name)) {
        return Ok(());
    }
    Err("its certificate is somebody else's".to_owned())
}

fn common_name(der: &[u8]) -> Option<String> {
    let subject = X509::from_der(der).ok()?.tbs_certificate.subject;
    let mut attributes = subject.0.iter().flat_map(|name| name.0.iter());
    let value = &attributes.find(|it| it.oid.to_string() == COMMON_NAME)?.value;
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|it| it.as_str().to_owned());
    utf8.or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|it| it.as_str().to_owned()))
        .ok()
}

/// Signing deliveries is no use that certificates name.
struct AnyUse;

impl webpki::ExtendedKeyUsageValidator for AnyUse {
    fn validate(&self, uses: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        uses.into_iter().try_for_each(|it| it.map(drop))
    }
}

impl Certificate {
    /// Whether the key made a signature, at a time at which it may.
    pub(super) fn verifies(
        &self,
        digest: Digest,
        text: &[u8],
        signature: &[u8],
        now: Timestamp,
    ) -> Result<bool, String> {
        if now < self.from || now > self.until {
            return Err("the sender's certificate is not valid now".to_owned());
        }
        let algorithm = match digest {
            Digest::Sha1 => &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Digest::Sha256 | Digest::Sha512 => &RSA_PKCS1_2048_8192_SHA256,
        };
        let key = UnparsedPublicKey::new(algorithm, &self.key);
        Ok(key.verify(text, signature).is_ok())
    }
}

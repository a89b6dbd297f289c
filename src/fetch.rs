//! The guarded way out: small files by HTTPS, from hosts that were written down beforehand.
//!
//! Requests of strangers can make the receive path fetch a certificate, so everything here has a
//! bound: how many a minute, how many at once, how long, how much. Invariants: a URL is fetched only
//! if it fits its [`Origin`]; a connection goes to an address that was looked at, and private,
//! loopback and link-local ones are not gone to; redirects are not followed, and no proxy is asked.
//! Left out: what is done with the file. What is sent by ourselves goes out through [`Post`].

mod post;

pub mod pages;
pub mod servers;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use rustls::{RootCertStore, pki_types::TrustAnchor};
use tokio::sync::Semaphore;

pub use post::{Answer, Failure, Post};

use crate::{
    clock::{Clock, Timestamp},
    domain::origin::Origin,
    trust,
};

pub use crate::domain::address::{is_public, is_reachable};

/// Bytes of a file. Chains of certificates have some thousands.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// Files that are fetched at once, of each lane.
const OUTSTANDING_MAX: usize = 4;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

const CONNECT: Duration = Duration::from_secs(3);

/// For a whole file. Senders give up after 3 to 30 seconds themselves.
const WHOLE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL is none that may be fetched.
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Busy(&'static str),
    #[error("it cannot be fetched: {0}")]
    Failed(String),
}

/// The network, and whom this machine trusts there.
pub trait Network: Send + Sync {
    /// Fetches a URL that was checked.
    fn get(&self, url: Url) -> BoxFuture<'_, Result<Bytes, String>>;

    fn roots(&self) -> &[TrustAnchor<'static>];
}

/// Who wants something fetched: what strangers want must not keep others waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Strangers,
    Senders,
}

pub struct Fetch {
    network: Arc<dyn Network>,
    clock: Clock,
    strangers: Lane,
    senders: Lane,
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch").finish_non_exhaustive()
    }
}

struct Lane {
    outstanding: Semaphore,
    /// The minute, and how many were begun in it.
    begun: Mutex<(i64, u32)>,
}

impl Lane {
    fn new() -> Lane {
        Lane { outstanding: Semaphore::new(OUTSTANDING_MAX), begun: Mutex::default() }
    }

    fn begin(&self, now: Timestamp, per_minute_max: u32) -> bool {
        let minute = now.0.div_euclid(60_000);
        let mut begun = self.begun.lock().expect("nobody panics with this lock");
        if begun.0 != minute {
            *begun = (minute, 0);
        }
        begun.1 += 1;
        begun.1 <= per_minute_max
    }
}

impl Fetch {
    pub fn new(network: Arc<dyn Network>, clock: Clock) -> Fetch {
        Fetch { network, clock, strangers: Lane::new(), senders: Lane::new() }
    }

    /// Fetches a file, or says why not. Never waits for others.
    pub async fn get(
        &self,
        url: &str,
        origin: &Origin,
        who: For,
        per_minute_max: u32,
    ) -> Result<Bytes, Error> {
        let url = admitted(url, origin)?;
        let lane = match who {
            For::Strangers => &self.strangers,
            For::Senders => &self.senders,
        };
        let busy = |_| Error::Busy("too many files are being fetched");
        let _permit = lane.outstanding.try_acquire().map_err(busy)?;
        if !lane.begin(self.clock.now(), per_minute_max) {
            return Err(Error::Busy("too many files were fetched this minute"));
        }
        self.network.get(url).await.map_err(Error::Failed)
    }

    pub fn roots(&self) -> &[TrustAnchor<'static>] {
        self.network.roots()
    }
}

/// The URL, if it may be fetched. What other programs could read differently is no URL here.
pub fn admitted(text: &str, origin: &Origin) -> Result<Url, Error> {
    let is_odd = |byte: u8| !byte.is_ascii_graphic() || b"\\@#".contains(&byte);
    let odd = Error::Forbidden("the URL is not a plain one".to_owned());
    if text.len() > URL_BYTES_MAX || !text.starts_with("https://") || text.bytes().any(is_odd) {
        return Err(odd);
    }
    let url = Url::parse(text).map_err(|_| odd.clone())?;
    if url.port().is_some() || url.query().is_some() != origin.query {
        return Err(odd);
    }
    if !url.host_str().is_some_and(|host| origin.has_host(host)) {
        return Err(Error::Forbidden("the URL's host is not one of the sender's".to_owned()));
    }
    if !origin.has_path(url.path()) {
        return Err(Error::Forbidden("the URL's path is not one of the sender's".to_owned()));
    }
    Ok(url)
}

/// Finds addresses.
pub trait Resolver: Send + Sync {
    fn resolve(&self, name: &str) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;
}

/// As the machine does it.
#[derive(Debug)]
pub struct System;

impl Resolver for System {
    fn resolve(&self, name: &str) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// Hands the connection those addresses that may be gone to.
struct Guard {
    resolver: Arc<dyn Resolver>,
    may: fn(IpAddr) -> bool,
}

/// A name that leads nowhere where anybody may go.
#[derive(Debug, thiserror::Error)]
#[error("the host has no public address")]
struct NoAddress;

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, may) = (self.resolver.resolve(name.as_str()), self.may);
        Box::pin(async move {
            let mut found = found.await?;
            found.retain(|address| may(address.ip()));
            if found.is_empty() {
                return Err(NoAddress.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// HTTPS over the network.
#[derive(Debug)]
pub struct Https {
    client: Client,
    roots: Arc<RootCertStore>,
}

impl Https {
    /// The one that a server has: names as the machine resolves them, public addresses, the
    /// machine's certificate authorities.
    pub fn new() -> anyhow::Result<Https> {
        Https::with(Arc::new(System), is_public, trust::machine())
    }

    pub fn with(
        resolver: Arc<dyn Resolver>,
        may: fn(IpAddr) -> bool,
        roots: Arc<RootCertStore>,
    ) -> anyhow::Result<Https> {
        let builder = client(resolver, may, trust::tls(roots.clone()));
        let client = builder.https_only(true).timeout(WHOLE).build()?;
        Ok(Https { client, roots })
    }
}

/// A client that goes to looked-at addresses only and follows nothing.
fn client(
    resolver: Arc<dyn Resolver>,
    may: fn(IpAddr) -> bool,
    tls: rustls::ClientConfig,
) -> reqwest::ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("bellpull/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Guard { resolver, may }))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .no_proxy()
}

impl Network for Https {
    fn get(&self, url: Url) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let mut response = self.client.get(url).send().await.map_err(|it| said(&it))?;
            if response.status() != http::StatusCode::OK {
                return Err(format!("the host answered {}", response.status().as_u16()));
            }
            let mut file = BytesMut::new();
            while let Some(chunk) = response.chunk().await.map_err(|it| said(&it))? {
                if file.len() + chunk.len() > FILE_BYTES_MAX {
                    return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
                }
                file.extend_from_slice(&chunk);
            }
            Ok(file.freeze())
        })
    }

    fn roots(&self) -> &[TrustAnchor<'static>] {
        &self.roots.roots
    }
}

/// The last cause: reqwest's own text holds the whole URL, and that may hold a token.
fn said(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = match std::error::Error::source(error) {
        Some(cause) => cause,
        None => return if error.is_timeout() { "it took too long" } else { "it broke off" }.into(),
    };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_of_the_origin_are_fetched() {
        let origin = Origin {
            hosts: vec!["sns.*.amazonaws.com".to_owned()],
            path: "/*.pem".to_owned(),
            query: false,
        };
        assert!(admitted("https://sns.us-east-1.amazonaws.com/a.pem", &origin).is_ok());
        for url in [
            "http://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com:8443/a.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem?x=1",
            "https://sns.us-east-1.amazonaws.com/a.pem#x",
            "https://a@sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com\\@evil.example/a.pem",
            "https://evil.example/sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com.evil.example/a.pem",
            "https://127.0.0.1/a.pem",
            "https://sns.us-east-1.amazonaws.com/b/../c/a.pem",
            " https://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem\n",
            "file:///a.pem",
            "",
        ] {
            assert!(admitted(url, &origin).is_err(), "{url}");
        }
    }
}

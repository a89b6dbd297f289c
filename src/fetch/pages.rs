//! Pages of the internet, for agents.
//!
//! Invariants: each URL on the way, the first one and each that is redirected to, is asked about
//! before it is gone to; a connection goes to an address that was looked at, whether it stands in the
//! URL or a name leads to it; size, time and number of redirects are bounded; no proxy is asked, no
//! cookie kept and nothing sent but the request. Left out: which hosts somebody may go to.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use reqwest::{Client, Url, header};
use rustls::RootCertStore;

use super::{Resolver, System, client, is_public, said};
use crate::trust;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 4096;

/// Redirects that are followed for one page.
const REDIRECTS_MAX: usize = 5;

/// For a whole page, redirects and all.
const WHOLE: Duration = Duration::from_secs(30);

/// What was found behind a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where it was in the end.
    pub url: String,
    pub status: u16,
    pub content_type: Option<String>,
    pub body: Bytes,
    /// Whether there is more than may be read.
    pub is_cut: bool,
}

/// Whether somebody may go to a host, or why not.
pub type May<'m> = dyn Fn(&str) -> Result<(), String> + Send + Sync + 'm;

/// The web.
pub trait Web: Send + Sync + std::fmt::Debug {
    /// Gets a page, or says why not.
    fn get<'a>(
        &'a self,
        url: &'a str,
        bytes_max: usize,
        may: &'a May<'a>,
    ) -> BoxFuture<'a, Result<Page, String>>;
}

/// The web as this machine reaches it.
#[derive(Debug)]
pub struct Internet {
    client: Client,
    may: fn(IpAddr) -> bool,
}

impl Internet {
    /// The one that a server has: public addresses only.
    pub fn new() -> anyhow::Result<Internet> {
        Internet::with(Arc::new(System), is_public, trust::machine())
    }

    pub fn with(
        resolver: Arc<dyn Resolver>,
        may: fn(IpAddr) -> bool,
        roots: Arc<RootCertStore>,
    ) -> anyhow::Result<Internet> {
        let builder = client(resolver, may, trust::tls(roots));
        Ok(Internet { client: builder.timeout(WHOLE).build()?, may })
    }

    /// The URL, if it may be gone to.
    fn admitted(&self, url: Url, may: &May<'_>) -> Result<Url, String> {
        if !["http", "https"].contains(&url.scheme()) {
            return Err(format!("`{}:` is neither `http:` nor `https:`", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL with a user name is not fetched".to_owned());
        }
        // A client looks up names only: an address that stands there is looked at here.
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("the URL has no host")?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if address.is_ok_and(|address| !(self.may)(address)) {
            return Err("the URL's address is not a public one".to_owned());
        }
        may(host.trim_end_matches('.'))?;
        Ok(url)
    }

    async fn follow(&self, url: &str, bytes_max: usize, may: &May<'_>) -> Result<Page, String> {
        if url.len() > URL_BYTES_MAX {
            return Err(format!("the URL has more than {URL_BYTES_MAX} bytes"));
        }
        let url = Url::parse(url).map_err(|error| format!("it is no URL: {error}"))?;
        let mut url = self.admitted(url, may)?;
        for _ in 0..=REDIRECTS_MAX {
            let request = self.client.get(url.clone()).header(header::ACCEPT, "text/html, */*");
            let response = request.send().await.map_err(|error| said(&error))?;
            let location = response.headers().get(header::LOCATION);
            match location.filter(|_| response.status().is_redirection()) {
                None => return read(url, response, bytes_max).await,
                Some(location) => {
                    let location = location.to_str().map_err(|_| "it is redirected oddly")?;
                    let next = url.join(location).map_err(|_| "it is redirected oddly")?;
                    let from = url.host_str().unwrap_or_default().to_owned();
                    url = self.admitted(next, may).map_err(|why| {
                        format!("`{from}` redirects to where it may not be followed: {why}")
                    })?;
                }
            }
        }
        Err(format!("it is redirected more than {REDIRECTS_MAX} times"))
    }
}

impl Web for Internet {
    fn get<'a>(
        &'a self,
        url: &'a str,
        bytes_max: usize,
        may: &'a May<'a>,
    ) -> BoxFuture<'a, Result<Page, String>> {
        Box::pin(self.follow(url, bytes_max, may))
    }
}

async fn read(url: Url, mut response: reqwest::Response, bytes_max: usize) -> Result<Page, String> {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|it| it.to_str().ok()).map(str::to_owned);
    let status = response.status().as_u16();
    let (mut body, mut is_cut) = (BytesMut::new(), false);
    while let Some(chunk) = response.chunk().await.map_err(|error| said(&error))? {
        let left = bytes_max - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if chunk.len() > left {
            is_cut = true;
            break;
        }
    }
    Ok(Page { url: url.into(), status, content_type, body: body.freeze(), is_cut })
}

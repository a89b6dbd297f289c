//! What is sent by ourselves to places that somebody wrote down: one POST, guarded like a fetch.
//!
//! Invariants: a connection goes to an address that was looked at, whether the host is a name or an
//! address itself; public ones by HTTPS, others and plain HTTP only where the operator named the host;
//! redirects are not followed; nothing that is said of a failure holds the URL, which may be a secret.
//! Left out: what is sent, and when again.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use reqwest::{Client, Url};
use rustls::RootCertStore;

use super::{NoAddress, Resolver, System, client, is_public, is_reachable, said};
use crate::trust;

const CONNECT: Duration = Duration::from_secs(5);

/// What the receiver said. Its body is nobody's business.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: http::StatusCode,
    pub headers: HeaderMap,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may not be gone there, now or later.
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Failed(String),
}

/// The way to receivers. Clones are the same.
#[derive(Clone, Debug)]
pub struct Post {
    far: Client,
    near: Client,
    may: fn(IpAddr) -> bool,
}

impl Post {
    /// Names as the machine resolves them, and the machine's certificate authorities.
    pub fn new() -> anyhow::Result<Post> {
        Post::with(Arc::new(System), is_public, trust::machine())
    }

    /// `may` tells of addresses of hosts that the operator did not name.
    pub fn with(
        resolver: Arc<dyn Resolver>,
        may: fn(IpAddr) -> bool,
        roots: Arc<RootCertStore>,
    ) -> anyhow::Result<Post> {
        let tls = trust::tls(roots);
        let client = |may, https_only| {
            let builder = client(resolver.clone(), may, tls.clone()).connect_timeout(CONNECT);
            builder.https_only(https_only).build()
        };
        Ok(Post { far: client(may, true)?, near: client(is_reachable, false)?, may })
    }

    /// Sends once. `is_near`: the operator named the host.
    pub async fn send(
        &self,
        url: Url,
        is_near: bool,
        headers: HeaderMap,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, Failure> {
        let (client, may) = match is_near {
            true => (&self.near, is_reachable as fn(IpAddr) -> bool),
            false => (&self.far, self.may),
        };
        if !is_near && url.scheme() != "https" {
            return Err(Failure::Forbidden(
                "plain HTTP is for hosts that `outbox.allowed_private_hosts` names".to_owned(),
            ));
        }
        // A host that is an address is not resolved, so nobody else looks at it.
        if let Some(address) = address_of(&url)
            && !may(address)
        {
            return Err(forbidden());
        }
        let request = client.post(url).headers(headers).body(body).timeout(patience);
        match request.send().await {
            Ok(answer) => Ok(Answer { status: answer.status(), headers: answer.headers().clone() }),
            Err(error) if leads_nowhere(&error) => Err(forbidden()),
            Err(error) if error.is_timeout() => {
                Err(Failure::Failed(format!("no answer within {} s", patience.as_secs_f64())))
            }
            Err(error) => Err(Failure::Failed(said(&error))),
        }
    }
}

fn forbidden() -> Failure {
    Failure::Forbidden(
        "the host has no public address; `outbox.allowed_private_hosts` may name hosts that are near"
            .to_owned(),
    )
}

fn address_of(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn leads_nowhere(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<NoAddress>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_addresses_are_seen_as_such_however_they_are_written() {
        for (url, expected) in [
            ("https://127.0.0.1/", Some("127.0.0.1")),
            ("https://0x7f.1/", Some("127.0.0.1")),
            ("https://2130706433/", Some("127.0.0.1")),
            ("https://[::ffff:127.0.0.1]/", Some("::ffff:127.0.0.1")),
            ("https://example.com/", None),
        ] {
            let address = address_of(&Url::parse(url).unwrap());
            assert_eq!(address, expected.map(|it| it.parse().unwrap()), "{url}");
        }
    }
}

//! The way to MCP servers and to those that renew their tokens.
//!
//! Invariants: a connection goes to an address that was looked at, whether it stands in the URL or a
//! name leads to it; plain HTTP and addresses near by are for hosts that the operator named; redirects
//! are not followed. Left out: what is said there.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, RequestBuilder, Url};

use super::{System, client, is_public, is_reachable, said};
use crate::{domain::callback::is_near, trust};

const CONNECT: Duration = Duration::from_secs(10);

/// Clients for hosts far and near. Clones are the same.
#[derive(Clone, Debug)]
pub struct Servers {
    far: Client,
    near: Client,
}

/// What came back, as much of it as is read.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub body: Bytes,
    pub is_cut: bool,
}

impl Servers {
    /// Names as the machine resolves them, and the machine's certificate authorities.
    pub fn new() -> anyhow::Result<Servers> {
        let tls = trust::tls(trust::machine());
        let client = |may: fn(IpAddr) -> bool, https_only| {
            let builder = client(Arc::new(System), may, tls.clone()).connect_timeout(CONNECT);
            builder.https_only(https_only).build()
        };
        Ok(Servers { far: client(is_public, true)?, near: client(is_reachable, false)? })
    }

    /// The client for a URL, or why nobody goes there. `near` are the hosts that the operator named.
    pub fn client(&self, url: &str, near: &[String]) -> Result<(Client, Url), String> {
        let url = Url::parse(url).map_err(|error| format!("its URL cannot be read: {error}"))?;
        let host = url.host_str().ok_or("its URL has no host")?;
        let is_near = is_near(host, near);
        let why = "`mcp.allowed_private_hosts` of the configuration may name hosts that are near";
        if !is_near && url.scheme() != "https" {
            return Err(format!("plain HTTP is not spoken to it; {why}"));
        }
        // A host that is an address is not resolved, so nobody else looks at it.
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let may = if is_near { is_reachable } else { is_public };
        if address.is_ok_and(|address| !may(address)) {
            return Err(format!("its address is not a public one; {why}"));
        }
        Ok((if is_near { self.near.clone() } else { self.far.clone() }, url))
    }
}

/// Sends one request and reads the beginning of the answer. What is said of a failure holds no URL.
pub async fn ask(
    request: RequestBuilder,
    bytes_max: usize,
    patience: Duration,
) -> Result<Reply, String> {
    let sent = request.timeout(patience).send().await;
    let mut response = sent.map_err(|error| said(&error))?;
    let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let status = response.status().as_u16();
    let (mut body, mut is_cut) = (BytesMut::new(), false);
    while !is_cut {
        // What came so far is worth showing, however it ended.
        let Ok(Some(chunk)) = response.chunk().await else { break };
        let left = bytes_max - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        is_cut = chunk.len() > left;
    }
    Ok(Reply { status, content_type, body: body.freeze(), is_cut })
}

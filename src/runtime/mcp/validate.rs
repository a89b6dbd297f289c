//! A live try of a credential at its server: hello with the token, and a renewal where that is refused.

use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{Mcp, renew};
use crate::{
    domain::credential::{Answered, Auth, Secrets, Validation},
    fetch::servers::{Reply, ask},
    id::{CredentialId, VaultId},
    store::{self, SealedCredential},
};

/// The step of a probe, as MCP names it.
const HELLO: &str = "initialize";

const PATIENCE: Duration = Duration::from_secs(20);
const REPLY_BYTES_MAX: usize = 16 * 1024;

impl Mcp {
    /// Tries a credential of OAuth. [`store::Error::NotFound`] when it is gone.
    pub fn validate(
        &self,
        vault: VaultId,
        id: CredentialId,
    ) -> BoxFuture<'static, store::Result<Validation>> {
        let mcp = self.clone();
        Box::pin(async move {
            let (credential, sealed) = mcp.0.store.credential(&vault, &id).await?;
            let sealed = sealed.ok_or(store::Error::NotFound)?;
            let found = SealedCredential { credential, sealed };
            let bug = |_| store::Error::Bug("a sealed credential does not open");
            let mut secrets = mcp.open(&found).map_err(bug)?;
            let Auth::McpOauth { mcp_server_url: url, .. } = &found.credential.auth else {
                return Err(store::Error::NotFound);
            };
            let has_refresh_token = secrets.refresh_token.is_some();
            let mut said = mcp.hello(url, secrets.value.expose()).await;
            let mut refresh = None;
            if matches!(&said, Ok(reply) if reply.status == 401) {
                refresh = Some(match renew::can(&found) {
                    false => ("no_refresh_token", None),
                    true => match renew::token(&mcp, found.clone()).await {
                        Ok(token) => {
                            secrets.value = token.expose_secret().to_owned().into();
                            said = mcp.hello(url, secrets.value.expose()).await;
                            ("succeeded", None)
                        }
                        Err(renew::Failed::Refused(answered)) => ("failed", Some(answered)),
                        Err(_) => ("connect_error", None),
                    },
                });
            }
            let (status, probe) = verdict(said, &secrets);
            Ok(Validation { has_refresh_token, status, probe, refresh })
        })
    }

    async fn hello(&self, url: &str, token: &str) -> Result<Reply, String> {
        let (client, url) = self.0.servers.client(url, &self.0.options.allowed_private_hosts)?;
        let us = json!({"name": "bellpull", "version": env!("CARGO_PKG_VERSION")});
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": HELLO, "params":
            {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": us}});
        let request = client
            .post(url)
            .header(http::header::ACCEPT, "application/json, text/event-stream")
            .bearer_auth(token)
            .json(&hello);
        ask(request, REPLY_BYTES_MAX, PATIENCE).await
    }
}

type Step = (&'static str, Option<Answered>);

fn verdict(said: Result<Reply, String>, secrets: &Secrets) -> (&'static str, Option<Step>) {
    match said {
        Ok(reply) if (200..300).contains(&reply.status) => ("valid", None),
        Ok(reply) => {
            let status = if [401, 403].contains(&reply.status) { "invalid" } else { "unknown" };
            (status, Some((HELLO, Some(renew::shown(&reply, secrets, None)))))
        }
        Err(_) => ("unknown", Some((HELLO, None))),
    }
}

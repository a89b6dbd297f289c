//! Access tokens of OAuth, renewed with the refresh token.
//!
//! Invariant: one renewal of a credential at a time, on all nodes: a refresh token may be good for one
//! use only. What it brought is stored in one step; a credential that was changed or put away
//! meanwhile stays as it is. A server that dies in between leaves the credential to whoever comes
//! after a while, with the old refresh token.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::SecretString;
use serde::Deserialize;

use super::Mcp;
use crate::{
    domain::{
        credential::{Answered, Auth, EndpointAuth, Refresh, SecretText, Secrets},
        redact,
        text::first_chars,
    },
    fetch::servers::{Reply, ask},
    id::Id as _,
    store::{Sealed, SealedCredential},
    tool::mcp::Error,
    vault::Place,
};

/// How long before its end a token is renewed.
pub(super) const AHEAD: Duration = Duration::from_secs(30);

/// For one renewal; nobody else begins one before.
const PATIENCE: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_secs(60);

/// How long others wait for it, and how often they look.
const LOOKS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(200);

const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Of an answer, where it is shown.
const SHOWN_CHARS_MAX: usize = 2000;

/// Why there is no new token.
#[derive(Clone, Debug)]
pub(super) enum Failed {
    /// The endpoint said no.
    Refused(Answered),
    /// It did not say anything.
    Unreachable(String),
    /// There is nothing to renew it with, or somebody else is not done.
    Impossible(String),
}

impl Failed {
    pub(super) fn error(&self) -> Error {
        match self {
            Failed::Refused(answered) => Error::Unauthorized(format!(
                "its access token was not renewed: the token endpoint answered {}",
                answered.status_code
            )),
            Failed::Unreachable(why) => {
                Error::Unauthorized(format!("its access token was not renewed: {why}"))
            }
            Failed::Impossible(why) => Error::Unauthorized(why.clone()),
        }
    }
}

pub(super) fn can(found: &SealedCredential) -> bool {
    matches!(&found.credential.auth, Auth::McpOauth { refresh: Some(_), .. })
}

/// A token newer than the one of this credential: renewed here, or by somebody else meanwhile.
pub(super) async fn token(mcp: &Mcp, mut found: SealedCredential) -> Result<SecretString, Failed> {
    let (id, version) = (found.credential.id.clone(), found.credential.version);
    let store = &mcp.0.store;
    let impossible = |why: &str| Failed::Impossible(why.to_owned());
    let broken = |_| impossible("its credential cannot be read");
    for _ in 0..LOOKS {
        if store.begin_renewal(&id, version, TURN).await.map_err(broken)? {
            let renewed = Box::pin(renew(mcp, &found)).await;
            return match renewed {
                Ok((auth, secrets)) => {
                    let place = Place {
                        kind: Sealed::Credential.kind(),
                        id: id.as_str(),
                        version: version + 1,
                    };
                    let sealed = mcp.0.vault.seal(place, &secrets.to_text());
                    let kept = store.end_renewal(&id, version, Some((auth, sealed))).await;
                    match kept.map_err(broken)? {
                        true => Ok(secrets.value.expose().to_owned().into()),
                        false => Err(impossible("its credential was changed meanwhile")),
                    }
                }
                Err(failed) => {
                    store.end_renewal(&id, version, None).await.map_err(broken)?;
                    tracing::warn!(credential_id = %id, "an access token was not renewed");
                    Err(failed)
                }
            };
        }
        let (credential, sealed) =
            store.credential(&found.credential.vault_id, &id).await.map_err(broken)?;
        let Some(sealed) = sealed else {
            return Err(impossible("its credential was put away"));
        };
        found = SealedCredential { credential, sealed };
        if found.credential.version != version {
            let secrets =
                mcp.open(&found).map_err(|_| impossible("its credential does not open"))?;
            return Ok(secrets.value.expose().to_owned().into());
        }
        store.clock().sleep(PAUSE).await;
    }
    Err(impossible("its access token is being renewed elsewhere, which takes too long"))
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

async fn renew(mcp: &Mcp, found: &SealedCredential) -> Result<(Auth, Secrets), Failed> {
    let Auth::McpOauth { mcp_server_url, refresh: Some(refresh), .. } = &found.credential.auth
    else {
        return Err(Failed::Impossible("there is no refresh token".to_owned()));
    };
    let mut secrets = mcp
        .open(found)
        .map_err(|_| Failed::Impossible("its credential does not open".to_owned()))?;
    let reply = request(mcp, refresh, &secrets).await.map_err(Failed::Unreachable)?;
    let granted = serde_json::from_slice::<Granted>(&reply.body).ok();
    let granted =
        granted.filter(|it| (200..300).contains(&reply.status) && !it.access_token.is_empty());
    let Some(granted) = granted else {
        return Err(Failed::Refused(shown(&reply, &secrets, Some(refresh))));
    };
    let now = mcp.0.store.clock().now();
    let expires_at = granted
        .expires_in
        .map(|seconds| now.plus(Duration::from_secs(seconds.min(LIFE_SECONDS_MAX))));
    secrets.value = granted.access_token.into();
    if let Some(token) = granted.refresh_token.filter(|token| !token.is_empty()) {
        secrets.refresh_token = Some(token.into());
    }
    let (mcp_server_url, refresh) = (mcp_server_url.clone(), Some(refresh.clone()));
    Ok((Auth::McpOauth { mcp_server_url, expires_at, refresh }, secrets))
}

async fn request(mcp: &Mcp, refresh: &Refresh, secrets: &Secrets) -> Result<Reply, String> {
    let near = &mcp.0.options.allowed_private_hosts;
    let (client, url) = mcp.0.servers.client(&refresh.token_endpoint, near)?;
    let (form, authorization) = grant(refresh, secrets).ok_or("there is no refresh token")?;
    let mut request = client
        .post(url)
        .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(http::header::ACCEPT, "application/json")
        .body(form);
    if let Some(authorization) = authorization {
        request = request.header(http::header::AUTHORIZATION, authorization);
    }
    ask(request, REPLY_BYTES_MAX, PATIENCE).await
}

/// The request's form, and its `authorization` if the client proves itself by that.
fn grant(refresh: &Refresh, secrets: &Secrets) -> Option<(String, Option<String>)> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("refresh_token", secrets.refresh_token.as_ref()?.expose());
    for (name, value) in [("scope", &refresh.scope), ("resource", &refresh.resource)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let secret = secrets.client_secret.as_ref().map(SecretText::expose).unwrap_or_default();
    let mut authorization = None;
    match refresh.token_endpoint_auth {
        EndpointAuth::None => {
            form.append_pair("client_id", &refresh.client_id);
        }
        EndpointAuth::ClientSecretPost => {
            form.append_pair("client_id", &refresh.client_id);
            form.append_pair("client_secret", secret);
        }
        EndpointAuth::ClientSecretBasic => {
            authorization = Some(format!("Basic {}", basic(&refresh.client_id, secret)));
        }
    }
    Some((form.finish(), authorization))
}

/// RFC 6749, 2.3.1: each of the two is written as in a form.
fn basic(client_id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    STANDARD.encode(format!("{}:{}", encode(client_id), encode(secret)))
}

/// Ten years: what is said to be good for longer is renewed then.
const LIFE_SECONDS_MAX: u64 = 315_360_000;

/// What may be shown of an answer: its beginning, without anything that was sent.
pub(super) fn shown(reply: &Reply, secrets: &Secrets, refresh: Option<&Refresh>) -> Answered {
    let client = secrets.client_secret.as_ref().map(SecretText::expose);
    let pair = refresh.zip(client).map(|(refresh, secret)| basic(&refresh.client_id, secret));
    let hide = |text: &str| {
        let refresh_token = secrets.refresh_token.as_ref().map(SecretText::expose);
        let known = [Some(secrets.value.expose()), refresh_token, client, pair.as_deref()];
        redact::without(text, known.into_iter().flatten())
    };
    let text = hide(&String::from_utf8_lossy(&reply.body));
    let text = crate::domain::text::clean(&text).into_owned();
    let (body, is_cut) = first_chars(&text, SHOWN_CHARS_MAX);
    Answered {
        body: body.to_owned(),
        body_truncated: is_cut || reply.is_cut,
        content_type: hide(&reply.content_type),
        status_code: reply.status,
    }
}

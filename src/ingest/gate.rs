//! The gate: who may call in.
//!
//! Invariants: a name that does not exist is answered like a wrong secret, after the same work;
//! every comparison takes the same time whatever is compared; the master key and admin keys pass no
//! webhook. What a refused caller did wrong is noted for the operator and never said to the caller.

use http::{HeaderMap, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use super::{Endpoint, Entry, Head, Reject, Secrets, Snapshot};
use crate::{
    clock::Timestamp,
    domain::{key::Scopes, source::Verifier},
    id::SourceId,
    vault::hash,
};

/// A request that was not let in: what the caller is told, and what the operator is.
pub(super) struct Refused {
    pub(super) reject: Reject,
    pub(super) reason: String,
    pub(super) source_id: Option<SourceId>,
}

/// Whoever holds a token: the box key, the master key or a further API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// `apiKey` of the config file: passes sources that have no verifier of their own.
    Box,
    /// `BELLPULL_MASTER_KEY`.
    Master,
    Key {
        name: String,
        scopes: Scopes,
    },
}

impl Caller {
    pub fn is_admin(&self) -> bool {
        match self {
            Caller::Master => true,
            Caller::Key { scopes, .. } => scopes.is_admin(),
            Caller::Box => false,
        }
    }

    pub fn may_read(&self) -> bool {
        match self {
            Caller::Master => true,
            Caller::Key { scopes, .. } => scopes.may_read(),
            Caller::Box => false,
        }
    }
}

/// Lets a request in or not, before a byte of its body is read.
pub(super) fn admit<'a>(
    snapshot: &'a Snapshot,
    head: &Head,
    now: Timestamp,
) -> Result<&'a Entry, Refused> {
    let found = match &head.endpoint {
        Endpoint::Agent(name) => snapshot.agent_source(name),
        Endpoint::Source(name) => snapshot.named_source(name),
    };
    let Some(entry) = found else {
        // The work that a real one costs, for the clock's sake.
        let _ = check(&Verifier::Bearer, &Secrets::nobody(), snapshot, "", &head.headers, now);
        return Err(unknown(snapshot, &head.headers));
    };
    let definition = &entry.source.definition;
    check(&definition.verifier, &entry.secrets, snapshot, &entry.source.name, &head.headers, now)
        .map_err(|reason| Refused {
        reject: Reject::Unauthorized,
        reason,
        source_id: Some(entry.source.id.clone()),
    })?;
    Ok(entry)
}

/// Only a caller that may know every name is told that this one does not exist.
fn unknown(snapshot: &Snapshot, headers: &HeaderMap) -> Refused {
    let knows = bearer(headers)
        .and_then(|token| snapshot.caller(token))
        .is_some_and(|caller| caller == Caller::Box || caller.is_admin());
    Refused {
        reject: if knows { Reject::UnknownName } else { Reject::Unauthorized },
        reason: "there is no source of this name".to_owned(),
        source_id: None,
    }
}

fn check(
    verifier: &Verifier,
    secrets: &Secrets,
    snapshot: &Snapshot,
    name: &str,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<(), String> {
    match verifier {
        Verifier::Bearer => {
            let token = bearer(headers).ok_or("no single `Authorization: Bearer` header")?;
            compare(secrets, token.as_bytes(), now)
        }
        Verifier::Basic { username } => {
            let (user, password) =
                basic(headers).ok_or("no single `Authorization: Basic` header")?;
            let user_matches = same(username.as_bytes(), user.as_bytes());
            let password = compare(secrets, password.expose_secret().as_bytes(), now);
            if bool::from(user_matches) {
                password
            } else {
                Err("the user name differs".to_owned())
            }
        }
        Verifier::Header { header } => {
            let value = single(headers, header).ok_or(format!("no single `{header}` header"))?;
            compare(secrets, value, now)
        }
        Verifier::Box => {
            let token = bearer(headers).ok_or("no single `Authorization: Bearer` header")?;
            let passes = match snapshot.caller(token) {
                Some(Caller::Box) => true,
                Some(Caller::Key { scopes, .. }) => scopes.may_ingest(name),
                Some(Caller::Master) | None => false,
            };
            if !passes {
                return Err(
                    "the bearer token is neither the box key nor a key for this source".to_owned()
                );
            }
            if secrets.is_wanted() {
                let value = single(headers, "x-webhook-secret")
                    .ok_or("no single `X-Webhook-Secret` header")?;
                compare(secrets, value, now)?;
            }
            Ok(())
        }
    }
}

/// Compares with every live secret, all of them every time.
fn compare(secrets: &Secrets, given: &[u8], now: Timestamp) -> Result<(), String> {
    if !secrets.is_set() {
        return Err("the source's secret has no value in the vault".to_owned());
    }
    let mut matches = Choice::from(0);
    for secret in secrets.live(now) {
        matches |= same(secret.expose_secret().as_bytes(), given);
    }
    if bool::from(matches) { Ok(()) } else { Err("the secret differs".to_owned()) }
}

/// Equal, in a time that tells nothing: the hashes are compared, so not even the length shows.
fn same(a: &[u8], b: &[u8]) -> Choice {
    hash(a).ct_eq(&hash(b))
}

/// The value of a header that is there exactly once. Twice is ambiguous, and so is nobody.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// The token of a single `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    credentials(headers, "bearer")
}

fn basic(headers: &HeaderMap) -> Option<(String, SecretString)> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let bytes = STANDARD.decode(credentials(headers, "basic")?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.into()))
}

/// What follows the scheme, which is compared without case (RFC 9110, section 11.1).
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = std::str::from_utf8(single(headers, AUTHORIZATION.as_str())?).ok()?;
    let (given, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim_start();
    (given.eq_ignore_ascii_case(scheme) && !rest.is_empty()).then_some(rest)
}

//! The gate: who may call in.
//!
//! It decides in two steps: [`look`] says what can be said without the body, so that nothing is read
//! for a caller that cannot pass, and [`verify`] decides with it. Invariants: a name that does not
//! exist is answered like a wrong secret, after the same work; every comparison takes the same time
//! whatever is compared; the master key and admin keys pass no webhook. What a refused caller did
//! wrong is noted for the operator and never said to the caller. Left out: anything but yes or no.

mod key;
mod signature;
mod stamp;
mod url;

use bytes::Bytes;
use http::{HeaderMap, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use super::{Endpoint, Entry, Head, Reject, Secrets, Sender, Snapshot};
use crate::{
    clock::Timestamp,
    domain::{key::Scopes, secret::SecretName, verifier::Verifier},
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

/// A caller that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// The secret that it held; none where a key of this server opened the gate.
    pub(super) secret: Option<SecretName>,
}

/// What a look at a request's head comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Passed(Passed),
    /// Its headers are in order; whether it is let in is decided by the body.
    NeedsBody,
}

/// Finds the source and looks at everything that needs no body.
pub(super) fn look<'a>(
    snapshot: &'a Snapshot,
    head: &Head,
    now: Timestamp,
) -> Result<(&'a Entry, &'a Sender, Look), Refused> {
    let found = match &head.endpoint {
        Endpoint::Agent(name) => snapshot.agent_source(name),
        Endpoint::Source(name) => snapshot.named_source(name),
    };
    let Some(entry) = found else {
        // The work that a real one costs, for the clock's sake.
        let _ = check(&Verifier::Bearer {}, &Secrets::nobody(), snapshot, "", head, now);
        return Err(unknown(snapshot, &head.headers));
    };
    let sender = entry.sender.as_ref().map_err(|reason| refused(entry, reason.clone()))?;
    let name = &entry.source.name;
    check(&sender.verifier, &entry.secrets, snapshot, name, head, now)
        .map(|look| (entry, sender, look))
        .map_err(|reason| refused(entry, reason))
}

/// Decides with the body, after [`look`] has asked for it.
pub(super) fn verify(
    entry: &Entry,
    sender: &Sender,
    head: &Head,
    body: &Bytes,
    now: Timestamp,
) -> Result<Passed, Refused> {
    let passed = match &sender.verifier {
        Verifier::Hmac(rule) => signature::verify(rule, head, body, &entry.secrets, now),
        Verifier::Bearer {}
        | Verifier::Basic { .. }
        | Verifier::Header { .. }
        | Verifier::Box {} => Err("this gate does not look at bodies".to_owned()),
    };
    passed.map_err(|reason| refused(entry, reason))
}

fn refused(entry: &Entry, reason: String) -> Refused {
    let reject = Reject::Unauthorized;
    Refused { reject, reason, source_id: Some(entry.source.id.clone()) }
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
    head: &Head,
    now: Timestamp,
) -> Result<Look, String> {
    let headers = &head.headers;
    let passed = match verifier {
        Verifier::Bearer {} => compare(secrets, bearer_of(headers)?.as_bytes(), now)?,
        Verifier::Basic { username } => {
            let (user, password) =
                basic(headers).ok_or("no single `Authorization: Basic` header")?;
            let user_matches = same(username.as_bytes(), user.as_bytes());
            let passed = compare(secrets, password.expose_secret().as_bytes(), now);
            if !bool::from(user_matches) {
                return Err("the user name differs".to_owned());
            }
            passed?
        }
        Verifier::Header { header } => compare(secrets, one(headers, header)?, now)?,
        Verifier::Box {} => pass_box(secrets, snapshot, name, headers, now)?,
        Verifier::Hmac(rule) => {
            signature::look(rule, head, now)?;
            return Ok(Look::NeedsBody);
        }
    };
    Ok(Look::Passed(passed))
}

fn pass_box(
    secrets: &Secrets,
    snapshot: &Snapshot,
    name: &str,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Passed, String> {
    let passes = match snapshot.caller(bearer_of(headers)?) {
        Some(Caller::Box) => true,
        Some(Caller::Key { scopes, .. }) => scopes.may_ingest(name),
        Some(Caller::Master) | None => false,
    };
    if !passes {
        return Err("the bearer token is neither the box key nor a key for this source".to_owned());
    }
    if secrets.is_wanted() {
        return compare(secrets, one(headers, "X-Webhook-Secret")?, now);
    }
    Ok(Passed { secret: None })
}

/// Compares with every live secret, all of them every time.
fn compare(secrets: &Secrets, given: &[u8], now: Timestamp) -> Result<Passed, String> {
    try_each(secrets, now, |secret| Ok(same(secret.as_bytes(), given)))
        .map_err(|reason| reason.replace(MISMATCH, "the secret differs"))
}

const MISMATCH: &str = "signature mismatch";

/// Tries every live secret, all of them every time, and says which one matched. A secret that
/// cannot be used is told of when none matched.
fn try_each(
    secrets: &Secrets,
    now: Timestamp,
    matches: impl Fn(&str) -> Result<Choice, String>,
) -> Result<Passed, String> {
    let (mut found, mut unusable, mut n_tried) = (None, None, 0);
    for secret in secrets.live(now) {
        n_tried += 1;
        match matches(secret.value.expose_secret()) {
            Ok(choice) if bool::from(choice) => found = found.or(Some(secret.name.clone())),
            Ok(_) => {}
            Err(reason) => unusable = Some(format!("the secret {} {reason}", secret.name)),
        }
    }
    match found {
        Some(secret) => Ok(Passed { secret: Some(secret) }),
        None if n_tried == 0 => Err("the source's secret has no value in the vault".to_owned()),
        None => Err(unusable.unwrap_or_else(|| MISMATCH.to_owned())),
    }
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

/// [`single`], or what is wrong.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], String> {
    single(headers, name).ok_or_else(|| match headers.contains_key(name) {
        true => format!("the `{name}` header is there more than once"),
        false => format!("no `{name}` header"),
    })
}

fn bearer_of(headers: &HeaderMap) -> Result<&str, String> {
    bearer(headers).ok_or_else(|| "no single `Authorization: Bearer` header".to_owned())
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

//! The gate: who may call in.
//!
//! It decides in two steps: [`look`] says what can be said without the body, so that nothing is read
//! for a caller that cannot pass, and [`verify`] decides with it. Invariants: a name that does not
//! exist is answered like a wrong secret, after the same work; every comparison takes the same time
//! whatever is compared; the master key and admin keys pass no webhook. What a refused caller did
//! wrong is noted for the operator and never said to the caller. Left out: anything but yes or no.

mod certified;
mod inside;
mod jwt;
pub(super) mod key;
pub(super) mod mac;
mod notes;
pub(super) mod signature;
pub(super) mod stamp;
pub(super) mod url;

use http::{
    HeaderMap,
    header::{AUTHORIZATION, AsHeaderName},
};
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

pub(super) use self::certified::url as certificate_url;
pub use self::notes::Step;
pub(super) use self::notes::{Notes, Watch};
use self::signature::Proof;
use super::{
    Entry, Head, Payload, Reject, Secrets, Sender, Snapshot, certificates::Certificate, handshake,
    identify, registry::LiveSecret,
};
use crate::{
    domain::{
        key::Scopes,
        secret::SecretName,
        verifier::{Alternative, Verifier},
    },
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

/// Looks at everything that needs no body. `known` is the source that was called, if there is one.
pub(super) fn look<'a>(
    snapshot: &Snapshot,
    known: Option<&'a Entry>,
    head: &Head,
    watch: Watch<'_>,
) -> Result<(&'a Entry, &'a Sender, Look), Refused> {
    let Some(entry) = known else {
        // The work that a real one costs, for the clock's sake.
        let _ = look_at(&Verifier::Bearer {}, Secrets::nobody(), head, watch);
        return Err(unknown(snapshot, &head.headers));
    };
    let refused = |reason| refused(entry, reason);
    watch.notes.begin("source");
    let sender = entry.sender.as_ref().map_err(|reason| refused(reason.clone()))?;
    watch.notes.found(|| entry.describe(sender));
    watch.notes.begin("gate");
    let secrets = &entry.secrets;
    let look = match &sender.verifier {
        Verifier::Box {} => {
            pass_box(secrets, snapshot, &entry.source.name, head, watch).map(Look::Passed)
        }
        verifier => look_with(verifier, secrets, head, watch),
    };
    look.map(|look| (entry, sender, look)).map_err(refused)
}

fn look_with(
    verifier: &Verifier,
    secrets: &Secrets,
    head: &Head,
    watch: Watch<'_>,
) -> Result<Look, String> {
    match verifier {
        _ if !secrets.is_set() => Err(NO_SECRET.to_owned()),
        Verifier::OneOf { one_of } => first(one_of, secrets, watch.notes, |verifier, secrets| {
            look_at(verifier, secrets, head, watch)
        }),
        verifier => look_at(verifier, secrets, head, watch),
    }
}

/// The gate of one verifier alone, without a source around it.
pub(super) fn prove(
    verifier: &Verifier,
    secrets: &Secrets,
    head: &Head,
    payload: &Payload,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    match look_with(verifier, secrets, head, watch)? {
        Look::Passed(passed) => Ok(passed),
        Look::NeedsBody => verify_all(verifier, secrets, head, payload, watch),
    }
}

/// Decides with the body, after [`look`] has asked for it.
pub(super) fn verify(
    entry: &Entry,
    sender: &Sender,
    head: &Head,
    payload: &Payload,
    certificate: Option<&Certificate>,
    watch: Watch<'_>,
) -> Result<Passed, Refused> {
    let secrets = &entry.secrets;
    let passed = match &sender.verifier {
        Verifier::Certificate(rule) => {
            certified::verify(rule, certificate, head, payload, secrets, watch)
        }
        verifier => verify_all(verifier, secrets, head, payload, watch),
    };
    let passed = passed.and_then(|passed| {
        match handshake::was_signed_for_strangers(sender, &payload.bytes) {
            true => Err("anybody can have this body signed by a handshake".to_owned()),
            false => Ok(passed),
        }
    });
    passed.map_err(|reason| refused(entry, reason))
}

fn verify_all(
    verifier: &Verifier,
    secrets: &Secrets,
    head: &Head,
    payload: &Payload,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    match verifier {
        Verifier::OneOf { one_of } => first(one_of, secrets, watch.notes, |verifier, secrets| {
            match look_at(verifier, secrets, head, watch)? {
                Look::Passed(passed) => Ok(passed),
                Look::NeedsBody => verify_with(verifier, secrets, head, payload, watch),
            }
        }),
        verifier => verify_with(verifier, secrets, head, payload, watch),
    }
}

/// Tries alternatives in turn, each with the secrets that are its own: those that begin as it says,
/// and not as one says that says more.
fn first<T>(
    one_of: &[Alternative],
    secrets: &Secrets,
    notes: &Notes,
    attempt: impl Fn(&Verifier, &Secrets) -> Result<T, String>,
) -> Result<T, String> {
    let mut reasons = Vec::new();
    for alternative in one_of {
        let own = secrets.filtered(|secret| fits(one_of, alternative, secret));
        if own.is_set() {
            match attempt(&alternative.verifier, &own) {
                Ok(passed) => return Ok(passed),
                Err(reason) => {
                    notes.refused(|| format!("{reason}; there may be another way"));
                    reasons.push(reason);
                }
            }
        }
    }
    notes.begin("gate");
    match reasons.is_empty() {
        true => Err("no secret of the source fits its gate".to_owned()),
        false => Err(reasons.join("; ")),
    }
}

/// Whether a secret belongs to this one of several alternatives.
pub(super) fn fits(one_of: &[Alternative], alternative: &Alternative, secret: &str) -> bool {
    let fitting = one_of.iter().map(|it| &it.when_secret);
    let fitting = fitting.filter(|it| secret.starts_with(it.as_str()));
    fitting.max_by_key(|it| it.len()).is_some_and(|it| *it == alternative.when_secret)
}

const NO_SECRET: &str = "the source's secret has no value in the vault";

pub(super) fn refused(entry: &Entry, reason: String) -> Refused {
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

/// What the headers say of one way to pass.
fn look_at(
    verifier: &Verifier,
    secrets: &Secrets,
    head: &Head,
    watch: Watch<'_>,
) -> Result<Look, String> {
    let headers = &head.headers;
    watch.notes.begin("header");
    let passed = match verifier {
        Verifier::Bearer {} => compare(secrets, bearer_of(headers)?.as_bytes(), watch)?,
        Verifier::Basic { username } => {
            let (user, password) =
                basic(headers).ok_or("no single `Authorization: Basic` header")?;
            let user_matches = same(username.as_bytes(), user.as_bytes());
            let passed = compare(secrets, password.expose_secret().as_bytes(), watch);
            if !bool::from(user_matches) {
                return Err("the user name differs".to_owned());
            }
            passed?
        }
        Verifier::Header { header } => compare(secrets, one(headers, header)?, watch)?,
        Verifier::Query { parameter } => {
            let value = identify::query(&head.url, parameter)
                .ok_or_else(|| format!("no single parameter `{parameter}` in the query"))?;
            compare(secrets, value.as_bytes(), watch)?
        }
        Verifier::Hmac(rule) => {
            signature::look(Proof::Shared, rule, head, watch)?;
            return Ok(Look::NeedsBody);
        }
        Verifier::Ed25519(rule) => {
            signature::look(Proof::Ed25519, rule, head, watch)?;
            return Ok(Look::NeedsBody);
        }
        Verifier::EcdsaP256(rule) => {
            signature::look(Proof::EcdsaP256, rule, head, watch)?;
            return Ok(Look::NeedsBody);
        }
        Verifier::Jwt(rule) => {
            jwt::look(rule, headers, watch)?;
            return Ok(Look::NeedsBody);
        }
        Verifier::BodyField { .. } | Verifier::BodyHmac(_) | Verifier::Certificate(_) => {
            return Ok(Look::NeedsBody);
        }
        Verifier::Box {} | Verifier::OneOf { .. } => return Err(MISPLACED.to_owned()),
    };
    Ok(Look::Passed(passed))
}

/// What the body says of one way to pass.
fn verify_with(
    verifier: &Verifier,
    secrets: &Secrets,
    head: &Head,
    payload: &Payload,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    watch.notes.begin("body");
    let signed = |proof, rule| signature::verify(proof, rule, head, payload, secrets, watch);
    match verifier {
        Verifier::Hmac(rule) => signed(Proof::Shared, rule),
        Verifier::Ed25519(rule) => signed(Proof::Ed25519, rule),
        Verifier::EcdsaP256(rule) => signed(Proof::EcdsaP256, rule),
        Verifier::Jwt(rule) => jwt::verify(rule, &head.headers, &payload.bytes, secrets, watch),
        Verifier::BodyField { field } => inside::field(field, payload, secrets, watch),
        Verifier::BodyHmac(rule) => inside::hmac(rule, payload, secrets, watch),
        // What decides is not in the request.
        Verifier::Certificate(rule) => certified::verify(rule, None, head, payload, secrets, watch),
        Verifier::Bearer {}
        | Verifier::Basic { .. }
        | Verifier::Header { .. }
        | Verifier::Query { .. }
        | Verifier::Box {}
        | Verifier::OneOf { .. } => Err(MISPLACED.to_owned()),
    }
}

/// A verifier is checked when it is read, so this is never the reason.
const MISPLACED: &str = "this gate cannot stand here";

fn pass_box(
    secrets: &Secrets,
    snapshot: &Snapshot,
    name: &str,
    head: &Head,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    let passes = match snapshot.caller(bearer_of(&head.headers)?) {
        Some(Caller::Box) => true,
        Some(Caller::Key { scopes, .. }) => scopes.may_ingest(name),
        Some(Caller::Master) | None => false,
    };
    if !passes {
        return Err("the bearer token is neither the box key nor a key for this source".to_owned());
    }
    if secrets.is_wanted() {
        return compare(secrets, one(&head.headers, "X-Webhook-Secret")?, watch);
    }
    Ok(Passed { secret: None })
}

/// What the source's own kind of HMAC makes of a text, if it has one.
pub(super) fn hmac(verifier: &Verifier, secret: &str, text: &[u8]) -> Option<Vec<u8>> {
    let Verifier::Hmac(rule) = verifier else { return None };
    let key = key::shared(&rule.secret_prefix, rule.secret_encoding, secret).ok()?;
    Some(mac::of(rule.keyed, rule.algorithm, &key, &[text]))
}

/// Compares with every live secret, all of them every time.
fn compare(secrets: &Secrets, given: &[u8], watch: Watch<'_>) -> Result<Passed, String> {
    watch.notes.found(|| format!("a value of {} bytes", given.len()));
    try_each(secrets, watch, DIFFERENT, |secret| Ok(secret.is(given)))
}

const DIFFERENT: &str = "the secret differs";

const MISMATCH: &str = "signature mismatch";

/// Tries every live secret, all of them every time, and says which one matched. A secret that
/// cannot be used is told of when none matched.
fn try_each(
    secrets: &Secrets,
    watch: Watch<'_>,
    mismatch: &str,
    matches: impl Fn(&LiveSecret) -> Result<Choice, String>,
) -> Result<Passed, String> {
    watch.notes.begin("secret");
    let (mut found, mut unusable, mut tried) = (None, None, Vec::new());
    for secret in secrets.live(watch.now) {
        let name = &secret.name;
        tried.push(name);
        match matches(secret) {
            Ok(choice) if bool::from(choice) => {
                watch.notes.found(|| format!("{name} matches"));
                found = found.or(Some(name.clone()));
            }
            Ok(_) => watch.notes.refused(|| format!("{name} does not match")),
            Err(reason) => {
                watch.notes.refused(|| format!("{name} {reason}"));
                unusable = Some(format!("the secret {name} {reason}"));
            }
        }
    }
    match found {
        Some(secret) => Ok(Passed { secret: Some(secret) }),
        None if tried.is_empty() => Err(NO_SECRET.to_owned()),
        None => Err(unusable.unwrap_or_else(|| {
            let tried: Vec<String> = tried.into_iter().map(ToString::to_string).collect();
            format!("{mismatch} (tried {})", tried.join(", "))
        })),
    }
}

/// Equal, in a time that tells nothing, as [`LiveSecret::is`].
fn same(a: &[u8], b: &[u8]) -> Choice {
    hash(a).ct_eq(&hash(b))
}

/// The value of a header that is there exactly once. Twice is ambiguous, and so is nobody.
fn single(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
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
    let value = std::str::from_utf8(single(headers, AUTHORIZATION)?).ok()?;
    let (given, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim_start();
    (given.eq_ignore_ascii_case(scheme) && !rest.is_empty()).then_some(rest)
}

//! JSON Web Tokens that a sender signs with a shared secret (RFC 7519, HS256 and its relatives).
//!
//! Only these and only the one that the source names: the token's own word on its algorithm decides
//! nothing. Reading one is three parts, an HMAC and four claims, with the HMAC that is here anyway;
//! the crates for tokens bring a second set of ciphers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::{MISMATCH, Passed, Watch, key, mac, one, try_each};
use crate::{
    clock::Timestamp,
    domain::verifier::{Digest, Jwt, Keyed},
    ingest::Secrets,
    vault::{hash, unhex},
};

/// Longest token, in bytes.
const BYTES_MAX: usize = 16 * 1024;

/// Seconds by which two clocks may differ.
const LEEWAY_SECONDS: i64 = 60;

/// A token whose form and claims are in order.
struct Token<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    claims: Value,
}

/// What can be said before the body is there.
pub(super) fn look(rule: &Jwt, headers: &HeaderMap, watch: Watch<'_>) -> Result<(), String> {
    token(rule, headers, watch).map(drop)
}

pub(super) fn verify(
    rule: &Jwt,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &Secrets,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    let token = token(rule, headers, watch)?;
    let passed = try_each(secrets, watch, MISMATCH, |secret| {
        let key = key::shared("", rule.secret_encoding, secret.text())?;
        let signed = [token.signed.as_bytes()];
        let expected = mac::of(Keyed::Hmac, rule.algorithm, &key, &signed);
        Ok(token.signature.ct_eq(&expected))
    })?;
    if let Some(claim) = &rule.body_hash {
        watch.notes.begin("body");
        let expected = token.claims[claim].as_str().and_then(unhex).unwrap_or_default();
        if !bool::from(expected.ct_eq(&hash(body))) {
            return Err(format!("the body is not the one of the token's claim `{claim}`"));
        }
        watch.notes.found(|| format!("it is the one of the token's claim `{claim}`"));
    }
    Ok(passed)
}

fn token<'a>(rule: &Jwt, headers: &'a HeaderMap, watch: Watch<'_>) -> Result<Token<'a>, String> {
    let value = std::str::from_utf8(one(headers, &rule.header)?).unwrap_or_default().trim();
    let text = match value.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_start(),
        _ => value,
    };
    let odd = || format!("the `{}` header is no JSON Web Token", rule.header);
    if text.len() > BYTES_MAX {
        return Err(odd());
    }
    let (signed, signature) = text.rsplit_once('.').ok_or_else(odd)?;
    let (header, claims) = signed.split_once('.').ok_or_else(odd)?;
    let part = |text: &str| -> Option<Value> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        serde_json::from_slice(&bytes).ok().filter(Value::is_object)
    };
    let header = part(header).ok_or_else(odd)?;
    let claims = part(claims).ok_or_else(odd)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| odd())?;
    let wanted = match rule.algorithm {
        Digest::Sha256 => "HS256",
        Digest::Sha512 => "HS512",
        Digest::Sha1 => return Err("there is no JSON Web Token with SHA-1".to_owned()),
    };
    if header["alg"] != wanted {
        return Err(format!("the token is not signed with {wanted}"));
    }
    watch.notes.found(|| format!("a token that is signed with {wanted}"));
    watch.notes.begin("claims");
    check_claims(rule, &claims, watch.now)?;
    watch.notes.found(|| "issuer and times are in order".to_owned());
    Ok(Token { signed, signature, claims })
}

fn check_claims(rule: &Jwt, claims: &Value, now: Timestamp) -> Result<(), String> {
    if let Some(issuer) = &rule.issuer
        && claims["iss"] != issuer.as_str()
    {
        return Err(format!("the token's issuer is not `{issuer}`"));
    }
    let now = now.0 / 1000;
    for (claim, is_over) in [
        ("exp", (|at, now| now > at + LEEWAY_SECONDS) as fn(i64, i64) -> bool),
        ("nbf", |at, now| now + LEEWAY_SECONDS < at),
    ] {
        match &claims[claim] {
            Value::Null => {}
            at => match at.as_i64().filter(|at| (0..=i64::MAX / 2).contains(at)) {
                Some(at) if is_over(at, now) => {
                    let seconds = now.abs_diff(at);
                    let when = if claim == "exp" { "ended" } else { "begins in" };
                    let ago = if claim == "exp" { " ago" } else { "" };
                    return Err(format!("the token {when} {seconds} s{ago}"));
                }
                Some(_) => {}
                None => return Err(format!("the token's claim `{claim}` is not a time")),
            },
        }
    }
    Ok(())
}

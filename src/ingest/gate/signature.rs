//! Signatures in a header, over a text that is made of the request.
//!
//! Invariants: what is compared is decoded bytes, in a time that tells nothing, with every live
//! secret every time; an ambiguous request (a header twice, an entry twice) is refused; only entries
//! of the sender's newest scheme count. Reasons name headers, secrets and ages, never a signature
//! that would have been right.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::HeaderMap;
use ring::hmac;
use subtle::{Choice, ConstantTimeEq};

use super::{Passed, key, one, stamp, try_each, url};
use crate::{
    clock::Timestamp,
    domain::{
        template::Piece,
        verifier::{Digest, Encoding, Signature},
    },
    ingest::{Head, Secrets},
    vault::unhex,
};

/// Entries of one header that are looked at; more are nobody's rotation.
const ENTRIES_MAX: usize = 16;

/// What a request's headers say about its signature.
struct Claim<'a> {
    /// Decoded.
    signatures: Vec<Vec<u8>>,
    timestamp: Option<&'a str>,
    id: Option<&'a str>,
}

/// What can be said before the body is there.
pub(super) fn look(rule: &Signature, head: &Head, now: Timestamp) -> Result<(), String> {
    let claim = claim(rule, &head.headers)?;
    if let (Some(stamp), Some(text)) = (&rule.timestamp, claim.timestamp) {
        stamp::check(stamp, text, now)?;
    }
    Ok(())
}

pub(super) fn verify(
    rule: &Signature,
    head: &Head,
    body: &Bytes,
    secrets: &Secrets,
    now: Timestamp,
) -> Result<Passed, String> {
    let claim = claim(rule, &head.headers)?;
    if let (Some(stamp), Some(text)) = (&rule.timestamp, claim.timestamp) {
        stamp::check(stamp, text, now)?;
    }
    let contents = contents(rule, head, body, &claim)?;
    // All secrets and all signatures every time, so that time does not tell which one it was.
    try_each(secrets, now, |secret| {
        let key = key::shared(rule, secret)?;
        let mut matches = Choice::from(0);
        for content in &contents {
            let expected = sign(rule.algorithm, &key, content);
            for signature in &claim.signatures {
                matches |= signature.ct_eq(expected.as_ref());
            }
        }
        Ok(matches)
    })
}

fn claim<'a>(rule: &Signature, headers: &'a HeaderMap) -> Result<Claim<'a>, String> {
    let mut claim = Claim { signatures: Vec::new(), timestamp: None, id: None };
    let mut missing = true;
    for name in &rule.header.0 {
        if headers.contains_key(name) {
            missing = false;
            read_header(rule, name, text(headers, name)?, &mut claim)?;
        }
    }
    if missing {
        return Err(format!("no `{}` header", rule.header.0.join("` or `")));
    }
    if let Some(header) = rule.timestamp.as_ref().and_then(|stamp| stamp.header.as_ref()) {
        claim.timestamp = Some(text(headers, header)?);
    }
    if let Some(header) = &rule.id {
        let id = text(headers, header)?;
        if id.is_empty() || separator_after_id(rule).is_some_and(|it| id.contains(it)) {
            return Err(format!("the `{header}` header has a character that an id cannot have"));
        }
        claim.id = Some(id);
    }
    Ok(claim)
}

/// An id that held what follows it in the template could pass a part of itself for the rest.
fn separator_after_id(rule: &Signature) -> Option<&str> {
    let pieces = rule.template.pieces();
    let at = pieces.iter().position(|piece| *piece == Piece::Id)?;
    match pieces.get(at + 1) {
        Some(Piece::Text(text)) => Some(text),
        Some(_) | None => None,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, String> {
    let text = std::str::from_utf8(one(headers, name)?).ok().filter(|it| it.is_ascii());
    text.ok_or_else(|| format!("the `{name}` header is no plain text"))
}

/// Reads the signatures of one header, and the timestamp if it stands among them.
fn read_header<'a>(
    rule: &Signature,
    name: &str,
    value: &'a str,
    claim: &mut Claim<'a>,
) -> Result<(), String> {
    let stamp = rule.timestamp.as_ref().and_then(|stamp| stamp.entry.as_deref());
    let entries: Vec<&str> = match rule.separator {
        Some(separator) => value.split(separator.char()).map(str::trim).collect(),
        None => vec![value.trim()],
    };
    if entries.len() > ENTRIES_MAX {
        return Err(format!("the `{name}` header has more than {ENTRIES_MAX} entries"));
    }
    let mut undecodable = None;
    for entry in entries {
        let named = entry.split_once(['=', ',']);
        if let (Some(stamp), Some((entry, value))) = (stamp, named)
            && entry == stamp
        {
            if claim.timestamp.replace(value).is_some() {
                return Err(format!("the `{name}` header has the entry `{stamp}` twice"));
            }
            continue;
        }
        let signature = match &rule.scheme {
            None => entry,
            Some(scheme) => match named {
                Some((entry, value)) if entry == scheme => value,
                _ => continue,
            },
        };
        let Some(signature) = signature.strip_prefix(rule.prefix.as_str()) else {
            let prefix = &rule.prefix;
            undecodable = Some(format!("the `{name}` header does not begin with `{prefix}`"));
            continue;
        };
        match decode(rule, signature) {
            Ok(signature) => claim.signatures.push(signature),
            Err(reason) => undecodable = Some(format!("the signature in `{name}` {reason}")),
        }
    }
    match (claim.signatures.is_empty(), undecodable, &rule.scheme, stamp) {
        (_, _, _, Some(stamp)) if claim.timestamp.is_none() => {
            Err(format!("the `{name}` header has no entry `{stamp}`"))
        }
        (false, ..) => Ok(()),
        (true, Some(reason), ..) => Err(reason),
        (true, None, Some(scheme), _) => {
            Err(format!("the `{name}` header has no entry `{scheme}`"))
        }
        (true, None, None, _) => Err(format!("the `{name}` header is empty")),
    }
}

fn decode(rule: &Signature, text: &str) -> Result<Vec<u8>, String> {
    let (decoded, what) = match rule.encoding {
        Encoding::Hex => (unhex(text), "hexadecimal"),
        Encoding::Base64 => (STANDARD.decode(text).ok(), "base64"),
    };
    let decoded = decoded.ok_or_else(|| format!("is not {what}"))?;
    let n_expected = algorithm(rule.algorithm).digest_algorithm().output_len();
    if decoded.len() == n_expected {
        Ok(decoded)
    } else {
        Err(format!("has {} bytes in the place of {n_expected}", decoded.len()))
    }
}

/// What is signed, in pieces, so that a large body is not copied: once for each way in which the
/// sender may have written the URL.
fn contents<'a>(
    rule: &'a Signature,
    head: &'a Head,
    body: &'a [u8],
    claim: &Claim<'a>,
) -> Result<Vec<Content<'a>>, String> {
    let known = rule.url.as_deref().unwrap_or(&head.url);
    let form = match rule.template.has(&Piece::Form) {
        true => url::form(known, &head.headers, body)?,
        false => String::new(),
    };
    let urls = match rule.template.has(&Piece::Url) {
        true => url::spellings(known),
        false => vec![Cow::Borrowed(known)],
    };
    let content = |url: Cow<'a, str>| {
        let piece = |piece: &'a Piece| match piece {
            Piece::Text(text) => Cow::Borrowed(text.as_bytes()),
            Piece::Body => Cow::Borrowed(body),
            Piece::Timestamp => Cow::Borrowed(claim.timestamp.unwrap_or_default().as_bytes()),
            Piece::Id => Cow::Borrowed(claim.id.unwrap_or_default().as_bytes()),
            Piece::Method => Cow::Borrowed(head.method.as_str().as_bytes()),
            Piece::Url => Cow::Owned(url.as_bytes().to_vec()),
            Piece::DecodedUrl => Cow::Owned(url::decoded(&url).into_bytes()),
            Piece::Form => Cow::Owned(form.clone().into_bytes()),
        };
        rule.template.pieces().iter().map(piece).collect()
    };
    Ok(urls.into_iter().map(content).collect())
}

type Content<'a> = Vec<Cow<'a, [u8]>>;

fn algorithm(digest: Digest) -> hmac::Algorithm {
    match digest {
        Digest::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Digest::Sha256 => hmac::HMAC_SHA256,
        Digest::Sha512 => hmac::HMAC_SHA512,
    }
}

fn sign(digest: Digest, key: &[u8], content: &[Cow<'_, [u8]>]) -> hmac::Tag {
    let key = hmac::Key::new(algorithm(digest), key);
    let mut context = hmac::Context::with_key(&key);
    for piece in content {
        context.update(piece);
    }
    context.sign()
}

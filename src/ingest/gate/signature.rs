//! Signatures in a header, over a text that is made of the request.
//!
//! Invariants: what is compared is decoded bytes, in a time that tells nothing, with every live
//! secret every time; an ambiguous request (a header twice, an entry twice) is refused; only entries
//! of the sender's newest scheme count. Reasons name headers, secrets and ages, never a signature
//! that would have been right.

use std::borrow::Cow;

use http::{HeaderMap, Method};
use ring::digest;
use subtle::{Choice, ConstantTimeEq};

use super::{MISMATCH, Passed, Watch, key, mac, one, stamp, try_each, url};
use crate::{
    domain::{
        template::Piece,
        verifier::{Separator, Signature},
    },
    ingest::{Head, Payload, Secrets},
    vault::hex,
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

/// How a signature is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The secret makes the same one.
    Shared,
    /// The secret is the public key.
    Ed25519,
    EcdsaP256,
}

/// What can be said before the body is there.
pub(super) fn look(
    proof: Proof,
    rule: &Signature,
    head: &Head,
    watch: Watch<'_>,
) -> Result<(), String> {
    claim(proof, rule, head, watch).map(drop)
}

pub(super) fn verify(
    proof: Proof,
    rule: &Signature,
    head: &Head,
    payload: &Payload,
    secrets: &Secrets,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    let claim = claim(proof, rule, head, watch)?;
    let text = Text {
        method: &head.method,
        url: &head.url,
        headers: &head.headers,
        body: &payload.bytes,
        timestamp: claim.timestamp,
        id: claim.id,
    };
    watch.notes.begin("text");
    let contents = contents(rule, &text)?;
    watch.notes.found(|| format!("the body is {}", shown(&[&payload.bytes])));
    for content in &contents {
        watch.notes.found(|| format!("signed is `{}`, {}", rule.template, shown(content)));
    }
    let passed = match proof {
        // All secrets and all signatures every time, so that time does not tell which one it was.
        Proof::Shared => try_each(secrets, watch, MISMATCH, |secret| {
            let key = key::shared(&rule.secret_prefix, rule.secret_encoding, secret.text())?;
            let mut matches = Choice::from(0);
            for content in &contents {
                let expected = mac::of(rule.keyed, rule.algorithm, &key, content);
                for signature in &claim.signatures {
                    matches |= signature.ct_eq(&expected);
                }
            }
            Ok(matches)
        }),
        // Nothing here is secret but what the sender keeps.
        Proof::Ed25519 | Proof::EcdsaP256 => {
            let contents: Vec<Vec<u8>> = contents.iter().map(|content| content.concat()).collect();
            try_each(secrets, watch, MISMATCH, |secret| {
                let secret = secret.text();
                let secret = secret.strip_prefix(rule.secret_prefix.as_str()).unwrap_or(secret);
                let key = key::public(proof, secret)?;
                let matches = contents.iter().any(|content| {
                    claim.signatures.iter().any(|it| key.verify(content, it).is_ok())
                });
                Ok(Choice::from(u8::from(matches)))
            })
        }
    }?;
    // Signed with the body, so one that is not there was not taken out on the way.
    let in_body = rule.timestamp.as_ref().and_then(|it| Some((it, it.body.as_ref()?)));
    if let Some((stamp, place)) = in_body
        && let Some(text) = payload.at(&place.0)
    {
        stamp::check(stamp, &text, watch)?;
    }
    Ok(passed)
}

fn claim<'a>(
    proof: Proof,
    rule: &Signature,
    head: &'a Head,
    watch: Watch<'_>,
) -> Result<Claim<'a>, String> {
    let headers = &head.headers;
    let mut claim = Claim { signatures: Vec::new(), timestamp: None, id: None };
    let mut missing = true;
    watch.notes.begin("header");
    for name in &rule.header.0 {
        if headers.contains_key(name) {
            missing = false;
            read_header(proof, rule, name, text(headers, name)?, &mut claim)?;
            watch.notes.found(|| {
                let n_bytes: Vec<_> = claim.signatures.iter().map(Vec::len).collect();
                format!("`{name}` holds signatures of so many bytes: {n_bytes:?}")
            });
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
    if let (Some(stamp), Some(text)) = (&rule.timestamp, claim.timestamp) {
        stamp::check(stamp, text, watch)?;
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
    proof: Proof,
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
    // Lists with spaces write `name,value`, all others `name=value`.
    let assign = if rule.separator == Some(Separator::Space) { ',' } else { '=' };
    let mut undecodable = None;
    for entry in entries {
        let named = entry.split_once(assign);
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
        match decode(proof, rule, signature) {
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

fn decode(proof: Proof, rule: &Signature, text: &str) -> Result<Vec<u8>, String> {
    let decoded = mac::decode(rule.encoding, text)?;
    let n_expected = match proof {
        Proof::Shared => Some(mac::algorithm(rule.algorithm).digest_algorithm().output_len()),
        Proof::Ed25519 => Some(64),
        Proof::EcdsaP256 => None,
    };
    match n_expected {
        Some(n) if n != decoded.len() => {
            Err(format!("has {} bytes in the place of {n}", decoded.len()))
        }
        Some(_) | None => Ok(decoded),
    }
}

/// What a signed text is made of.
#[derive(Clone, Copy)]
pub(in crate::ingest) struct Text<'a> {
    pub(in crate::ingest) method: &'a Method,
    pub(in crate::ingest) url: &'a str,
    pub(in crate::ingest) headers: &'a HeaderMap,
    pub(in crate::ingest) body: &'a [u8],
    pub(in crate::ingest) timestamp: Option<&'a str>,
    pub(in crate::ingest) id: Option<&'a str>,
}

/// What is signed, in pieces, so that a large body is not copied: once for each way in which the
/// sender may have written the URL.
pub(in crate::ingest) fn contents<'a>(
    rule: &'a Signature,
    of: &Text<'a>,
) -> Result<Vec<Content<'a>>, String> {
    let known = rule.url.as_deref().unwrap_or(of.url);
    let form = match rule.template.has(&Piece::Form) {
        true => url::form(known, of.headers, of.body)?,
        false => String::new(),
    };
    let urls = match rule.template.has(&Piece::Url) {
        true => url::spellings(known),
        false => vec![Cow::Borrowed(known)],
    };
    let content = |url: Cow<'a, str>| {
        let piece = |piece: &'a Piece| match piece {
            Piece::Text(text) => Cow::Borrowed(text.as_bytes()),
            Piece::Body => Cow::Borrowed(of.body),
            Piece::Timestamp => Cow::Borrowed(of.timestamp.unwrap_or_default().as_bytes()),
            Piece::Id => Cow::Borrowed(of.id.unwrap_or_default().as_bytes()),
            Piece::Method => Cow::Borrowed(of.method.as_str().as_bytes()),
            Piece::Url => Cow::Owned(url.as_bytes().to_vec()),
            Piece::DecodedUrl => Cow::Owned(url::decoded(&url).into_bytes()),
            Piece::Form => Cow::Owned(form.clone().into_bytes()),
        };
        rule.template.pieces().iter().map(piece).collect()
    };
    Ok(urls.into_iter().map(content).collect())
}

type Content<'a> = Vec<Cow<'a, [u8]>>;

/// Bytes of a signed text that are shown.
const SHOWN_BYTES: usize = 120;

/// How a signed text begins, how long it is, and its hash: enough to compare it with the sender's.
pub(super) fn shown<T: AsRef<[u8]>>(content: &[T]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut start, mut n_bytes) = (Vec::new(), 0);
    for piece in content.iter().map(AsRef::as_ref) {
        context.update(piece);
        n_bytes += piece.len();
        let room = SHOWN_BYTES.saturating_sub(start.len());
        start.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    let hash = hex(context.finish().as_ref());
    let more = if n_bytes > start.len() { "…" } else { "" };
    let start = String::from_utf8_lossy(&start);
    format!("{n_bytes} bytes, SHA-256 {hash}: {start:?}{more}")
}

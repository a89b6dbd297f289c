//! What tells one event of a source from another, and what kind of event it is.
//!
//! Invariant: the key depends only on what the sender repeats with a retry, never on a timestamp or
//! a signature, which senders renew. A header that names the subscription is never used: every
//! event after the first would be a duplicate.

use http::{HeaderMap, HeaderName};
use json_escape_simd::escape_into;

use super::{Head, Payload, Sender};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::Identity,
        field::{Field, Place},
        source::{EVENT_TYPE_DEFAULT, IDENTITY_DEFAULT, IDENTITY_WEAK},
        text::{clean, first_chars},
        verifier::Verifier,
    },
    vault::{hash, hex},
};

/// Longer ids are kept as their SHA-256.
const KEY_BYTES_MAX: usize = 512;

const EVENT_TYPE_CHARS_MAX: usize = 200;

/// A delivery's identity, and the key it may have come under a moment before.
pub(super) struct Identified {
    pub(super) identity: Identity,
    pub(super) before: Option<String>,
}

pub(super) fn identify(
    sender: &Sender,
    head: &Head,
    payload: &Payload,
    at: Timestamp,
) -> Identified {
    let found = if sender.identity.is_empty() {
        IDENTITY_DEFAULT
            .iter()
            .find_map(|name| header(&head.headers, name).map(|value| ((*name).to_owned(), value)))
    } else {
        let found = |field: &Field| Some((field.to_string(), value(field, head, payload)?));
        sender.identity.iter().find_map(found)
    };
    if let Some((field, value)) = found {
        let key = if value.len() > KEY_BYTES_MAX {
            format!("{field}:sha256:{}", hex(&hash(value.as_bytes())))
        } else {
            format!("{field}:{value}")
        };
        let weak = field == IDENTITY_WEAK;
        return Identified { identity: Identity { key, field, weak }, before: None };
    }
    match u64::from(sender.body_hash_window_seconds) {
        0 => {
            let (key, field) = (format!("request:{}", head.request_id), "none".to_owned());
            Identified { identity: Identity { key, field, weak: false }, before: None }
        }
        seconds => {
            let window = u64::try_from(at.0).unwrap_or(0) / (seconds * 1000);
            let body = hex(&hash(&payload.bytes));
            let key = |window: u64| format!("body:{body}:{seconds}:{window}");
            Identified {
                identity: Identity { key: key(window), field: "body_hash".to_owned(), weak: true },
                before: window.checked_sub(1).map(key),
            }
        }
    }
}

/// What happened, in the sender's words for it: those of a field of several places stand with a dot
/// between them, those of a list once each.
pub(super) fn event_type(sender: &Sender, head: &Head, payload: &Payload) -> Option<String> {
    let found = if sender.event_type.is_empty() {
        EVENT_TYPE_DEFAULT.iter().find_map(|field| match field.strip_prefix('/') {
            Some(_) => payload.at(field),
            None => header(&head.headers, field),
        })
    } else {
        sender.event_type.iter().find_map(|field| {
            let words = values(field, head, payload)?.into_iter().map(distinct);
            Some(words.collect::<Vec<_>>().join("."))
        })
    };
    found.map(|text| first_chars(&text, EVENT_TYPE_CHARS_MAX).0.to_owned())
}

/// A list of texts without repetitions; other texts as they are.
fn distinct(text: String) -> String {
    let list = text.starts_with('[').then(|| serde_json::from_str::<Vec<String>>(&text).ok());
    match list.flatten() {
        None => text,
        Some(list) => {
            let mut seen: Vec<String> = Vec::new();
            for word in list {
                if !seen.contains(&word) && seen.len() < DISTINCT_MAX {
                    seen.push(word);
                }
            }
            seen.join(",")
        }
    }
}

const DISTINCT_MAX: usize = 16;

/// Who did it, if everybody whom one of the places names is among these.
pub(super) fn actor_among(
    sender: &Sender,
    head: &Head,
    payload: &Payload,
    names: &[String],
) -> Option<String> {
    let is_named = |actor: &String| names.iter().any(|name| name.eq_ignore_ascii_case(actor));
    sender.actor.iter().find_map(|field| {
        let text = value(field, head, payload)?;
        let list = text.starts_with('[').then(|| serde_json::from_str::<Vec<String>>(&text).ok());
        match list.flatten() {
            // An actor's own name may begin with a bracket.
            Some(list) if !list.is_empty() && list.iter().all(is_named) => list.into_iter().next(),
            _ => Some(text).filter(is_named),
        }
    })
}

/// One text for a field: several values as a JSON list, so that no two lists look the same.
fn value(field: &Field, head: &Head, payload: &Payload) -> Option<String> {
    let mut values = values(field, head, payload)?;
    match values.len() {
        1 => values.pop(),
        _ => Some(serde_json::Value::from(values).to_string()),
    }
}

/// The values of all places of a field; a field that lacks one has none.
fn values(field: &Field, head: &Head, payload: &Payload) -> Option<Vec<String>> {
    let value = |place: &Place| match place {
        Place::Header(name) => header(&head.headers, name),
        Place::Query(name) => query(&head.url, name),
        Place::Pointer(pointer) => payload.at(pointer),
    };
    let value = |place: &Place| value(place).filter(|value| !value.is_empty());
    field.places.iter().map(value).collect()
}

/// A parameter of the query; one that is there twice says nothing.
pub(super) fn query(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(clean(&value).into_owned()),
        _ => None,
    }
}

/// A header's value. Several lines with one name mean one list (RFC 9110, section 5.2): all of them
/// count, so that a doubled header cannot hide a different id.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut text = String::new();
    for value in headers.get_all(name) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(String::from_utf8_lossy(value.as_bytes()).trim());
    }
    if text.is_empty() { None } else { Some(clean(&text).into_owned()) }
}

/// Parts of header names that betray a secret.
const SENSITIVE: [&str; 9] = [
    "authorization",
    "cookie",
    "secret",
    "token",
    "password",
    "api-key",
    "apikey",
    "credential",
    "x-forwarded-client-cert",
];

/// The bytes with which one of them begins.
const BEGIN_SENSITIVE: [bool; 256] = {
    let (mut table, mut n) = ([false; 256], 0);
    while n < SENSITIVE.len() {
        table[SENSITIVE[n].as_bytes()[0] as usize] = true;
        n += 1;
    }
    table
};

/// The headers as JSON, sensitive values replaced: `{"name": ["value", …]}` in order of arrival.
pub(super) fn redacted(sender: &Sender, headers: &HeaderMap) -> String {
    let mut json = Vec::with_capacity(64 * (headers.len() + 1));
    json.push(b'{');
    for (n, name) in headers.keys().enumerate() {
        if n > 0 {
            json.push(b',');
        }
        escape_into(name.as_str(), &mut json);
        json.extend_from_slice(b":[");
        let is_sensitive = is_sensitive(sender, name);
        for (n, value) in headers.get_all(name).iter().enumerate() {
            if n > 0 {
                json.push(b',');
            }
            match String::from_utf8_lossy(value.as_bytes()) {
                _ if is_sensitive => escape_into("[redacted]", &mut json),
                text => escape_into(clean(&text), &mut json),
            }
        }
        json.push(b']');
    }
    json.push(b'}');
    String::from_utf8(json).expect("JSON is UTF-8")
}

pub(super) fn is_sensitive(sender: &Sender, name: &HeaderName) -> bool {
    let is_own = |verifier: &Verifier| match verifier {
        Verifier::Header { header } => header.eq_ignore_ascii_case(name.as_str()),
        Verifier::Jwt(rule) => rule.header.eq_ignore_ascii_case(name.as_str()),
        // Their secrets are in `Authorization`, or in no header at all.
        Verifier::Bearer {}
        | Verifier::Basic { .. }
        | Verifier::Box {}
        | Verifier::Query { .. }
        | Verifier::BodyField { .. }
        | Verifier::Hmac(_)
        | Verifier::Ed25519(_)
        | Verifier::EcdsaP256(_)
        | Verifier::BodyHmac(_)
        | Verifier::Certificate(_)
        // It is asked for each of its ways.
        | Verifier::OneOf { .. } => false,
    };
    let own = match &sender.verifier {
        Verifier::OneOf { one_of } => one_of.iter().any(|it| is_own(&it.verifier)),
        verifier => is_own(verifier),
    };
    // Names are short, and few of their letters begin one of the words.
    let name = name.as_str().as_bytes();
    let begins = |at: usize| {
        BEGIN_SENSITIVE[usize::from(name[at])]
            && SENSITIVE.iter().any(|part| {
                // Seldom more than one word begins so; comparing all of them would cost more.
                part.as_bytes()[0] == name[at] && name[at..].starts_with(part.as_bytes())
            })
    };
    own || (0..name.len()).any(begins)
}

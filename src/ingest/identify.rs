//! What tells one event of a source from another, and what kind of event it is.
//!
//! Invariant: the key depends only on what the sender repeats with a retry, never on a timestamp or
//! a signature, which senders renew. A header that names the subscription is never used: every
//! event after the first would be a duplicate.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, header::AsHeaderName};
use json_escape_simd::escape_into;

use super::{Head, Payload, Sender};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::Identity,
        field::{Field, Place},
        text::{clean, first_chars},
        verifier::Verifier,
    },
    vault::{hash, hex},
};

/// Headers that senders put a delivery's id into, strongest first, where the source does not say where
/// to look. `x-request-id` is last and weak: proxies rewrite it. Never a header that names the
/// subscription.
static IDENTITY_HEADERS: [HeaderName; 6] = [
    HeaderName::from_static("webhook-id"),
    HeaderName::from_static("svix-id"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-github-delivery"),
    HeaderName::from_static("x-zendesk-webhook-invocation-id"),
    HeaderName::from_static(IDENTITY_WEAK),
];

const IDENTITY_WEAK: &str = "x-request-id";

/// Where senders say what happened, where the source does not say where to look: in headers first.
static EVENT_TYPE_HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("x-github-event"),
    HeaderName::from_static("x-gitlab-event"),
    HeaderName::from_static("x-event-type"),
    HeaderName::from_static("x-event-key"),
    HeaderName::from_static("ce-type"),
];

const EVENT_TYPE_POINTERS: [&str; 2] = ["/type", "/event"];

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
        let found = |name: &HeaderName| Some((name.to_string(), header(&head.headers, name)?));
        IDENTITY_HEADERS.iter().find_map(found)
    } else {
        let found = |field: &Field| Some((field.to_string(), value(field, head, payload)?));
        sender.identity.iter().find_map(found)
    };
    if let Some((field, value)) = found {
        let key = key_of(&field, &value);
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

fn key_of(field: &str, value: &str) -> String {
    match value.len() > KEY_BYTES_MAX {
        true => format!("{field}:sha256:{}", hex(&hash(value.as_bytes()))),
        false => [field, ":", value].concat(),
    }
}

/// The keys that deliveries with this id have, whichever field of these senders it came in.
pub(super) fn keys<'a>(senders: impl Iterator<Item = &'a Sender>, value: &str) -> Vec<String> {
    let named = senders.flat_map(|it| &it.identity).map(ToString::to_string);
    let fields: BTreeSet<String> =
        IDENTITY_HEADERS.iter().map(ToString::to_string).chain(named).collect();
    fields.iter().map(|field| key_of(field, value)).collect()
}

/// What happened, in the sender's words for it: those of a field of several places stand with a dot
/// between them, those of a list once each.
pub(super) fn event_type(sender: &Sender, head: &Head, payload: &Payload) -> Option<String> {
    let found = if sender.event_type.is_empty() {
        let found = EVENT_TYPE_HEADERS.iter().find_map(|name| header(&head.headers, name));
        found.or_else(|| EVENT_TYPE_POINTERS.iter().find_map(|pointer| payload.at(pointer)))
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
pub(super) fn header(headers: &HeaderMap, name: impl AsHeaderName) -> Option<String> {
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
    let (mut last, mut hidden) = (None, false);
    // The values of one name come one after the other.
    for (name, value) in headers {
        if last == Some(name) {
            json.push(b',');
        } else {
            json.extend_from_slice(if last.is_some() { b"]," } else { b"{" });
            escape_into(name.as_str(), &mut json);
            json.extend_from_slice(b":[");
            (last, hidden) = (Some(name), is_sensitive(sender, name));
        }
        match value.to_str() {
            _ if hidden => escape_into("[redacted]", &mut json),
            Ok(text) => escape_into(text, &mut json),
            Err(_) => escape_into(clean(&String::from_utf8_lossy(value.as_bytes())), &mut json),
        }
    }
    json.extend_from_slice(if last.is_some() { b"]}" } else { b"{}" });
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

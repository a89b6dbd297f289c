//! What tells one event of a source from another, and what kind of event it is.
//!
//! Invariant: the key depends only on what the sender repeats with a retry, never on a timestamp or
//! a signature, which senders renew. A header that names the subscription is never used: every
//! event after the first would be a duplicate.

use http::{HeaderMap, HeaderName};

use super::{Head, Payload};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::Identity,
        source::{EVENT_TYPE_DEFAULT, Field, IDENTITY_DEFAULT, IDENTITY_WEAK, Source, Verifier},
        text::{clean, first_chars},
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
    source: &Source,
    head: &Head,
    payload: &Payload,
    at: Timestamp,
) -> Identified {
    let fields = &source.definition.identity;
    let found = if fields.is_empty() {
        IDENTITY_DEFAULT
            .iter()
            .find_map(|name| header(&head.headers, name).map(|value| ((*name).to_owned(), value)))
    } else {
        fields.iter().find_map(|field| {
            value(field, &head.headers, payload).map(|value| (field.to_string(), value))
        })
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
    match u64::from(source.definition.body_hash_window_seconds) {
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

/// What happened, in the sender's word for it.
pub(super) fn event_type(
    source: &Source,
    headers: &HeaderMap,
    payload: &Payload,
) -> Option<String> {
    let fields = &source.definition.event_type;
    let found = if fields.is_empty() {
        EVENT_TYPE_DEFAULT.iter().find_map(|field| match field.strip_prefix('/') {
            Some(_) => payload.at(field),
            None => header(headers, field),
        })
    } else {
        fields.iter().find_map(|field| value(field, headers, payload))
    };
    found.map(|text| first_chars(&text, EVENT_TYPE_CHARS_MAX).0.to_owned())
}

fn value(field: &Field, headers: &HeaderMap, payload: &Payload) -> Option<String> {
    match field {
        Field::Header(name) => header(headers, name),
        Field::Pointer(pointer) => payload.at(pointer).filter(|value| !value.is_empty()),
    }
}

/// A header's value. Several lines with one name mean one list (RFC 9110, section 5.2): all of them
/// count, so that a doubled header cannot hide a different id.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
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

/// The headers as JSON, sensitive values replaced: `{"name": ["value", …]}` in order of arrival.
pub(super) fn redacted(source: &Source, headers: &HeaderMap) -> String {
    let mut map = serde_json::Map::new();
    for (name, value) in headers {
        let shown = if is_sensitive(source, name) {
            "[redacted]".to_owned()
        } else {
            clean(&String::from_utf8_lossy(value.as_bytes())).into_owned()
        };
        let values = map.entry(name.as_str()).or_insert_with(|| serde_json::json!([]));
        if let serde_json::Value::Array(values) = values {
            values.push(shown.into());
        }
    }
    serde_json::Value::Object(map).to_string()
}

fn is_sensitive(source: &Source, name: &HeaderName) -> bool {
    let own = match &source.definition.verifier {
        Verifier::Header { header } => header.eq_ignore_ascii_case(name.as_str()),
        Verifier::Bearer | Verifier::Basic { .. } | Verifier::Box => false,
    };
    own || SENSITIVE.iter().any(|part| name.as_str().contains(part))
}

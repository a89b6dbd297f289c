//! A source tried out: the request that its sender would make, with a sample of the sender's bodies.
//!
//! Invariant: what is made here goes through the front door like everybody's, so a test that is
//! accepted says that gate, identity, route and storage work. Ids in headers and in samples are
//! fresh; a body that the caller gives goes as it is, and the ids in it count.

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONTENT_TYPE, USER_AGENT},
};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{
    Endpoint, Entry, Head, Ingest, Payload, Sender, identify,
    sign::{Draft, Held, Signed, sign},
};
use crate::{
    clock::Timestamp,
    domain::{
        field::{Field, Place},
        source::SourceKind,
    },
    id::{Id, WebhookRequestId},
    vault::{hex, random},
};

/// What a test delivery shall be; what is left out comes from the sample of the source's sender.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Taken in place of the sample's, or beside them.
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    /// The delivery's id; a fresh one when absent.
    pub id: Option<HeaderValue>,
}

/// The body of a sender, and the headers that go with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: String,
}

static SAMPLES: LazyLock<BTreeMap<String, Sample>> = LazyLock::new(|| {
    let file = include_str!("presets/samples.toml");
    toml::from_str(file).expect("the samples are TOML")
});

/// For senders that nobody knows.
const BODY: &str = r#"{"type":"test","message":"A test delivery"}"#;

impl Ingest {
    /// The request of a test delivery to a source, signed, or why this server cannot make it.
    pub fn trial(&self, entry: &Entry, url: String, trial: Trial) -> Result<Signed, String> {
        let at = self.clock.now();
        let sender = entry.sender.as_ref().map_err(Clone::clone)?;
        let id = match &trial.id {
            Some(id) => id.to_str().map_err(|_| "the id is no plain text")?.to_owned(),
            None => format!("test-{}", hex(&random::<8>())),
        };
        let draft = draft(sender, entry.endpoint(), url, &trial, &id, at)?;
        let secret = entry.secrets.newest(at);
        if secret.is_none() && entry.secrets.is_wanted() {
            return Err("the source's secret has no value in the vault".to_owned());
        }
        let box_key = self.registry.box_key();
        let held = Held {
            secret: secret.map(ExposeSecret::expose_secret),
            box_key: box_key.as_ref().map(ExposeSecret::expose_secret),
        };
        sign(&sender.verifier, held, &draft, &id, at)
    }
}

impl Entry {
    /// The route that its callers take.
    pub fn endpoint(&self) -> Endpoint {
        match self.source.kind {
            SourceKind::Agent(_) => Endpoint::Agent(self.source.name.clone()),
            SourceKind::Named => Endpoint::Source(self.source.name.clone()),
        }
    }
}

impl Draft {
    /// As the receive path takes it.
    pub fn head(&self, endpoint: Endpoint, request_id: WebhookRequestId) -> Head {
        Head {
            endpoint,
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            request_id,
        }
    }
}

/// Headers as they may be shown, like those that are stored with a delivery.
pub fn shown_headers(entry: &Entry, headers: &HeaderMap) -> serde_json::Value {
    let Ok(sender) = &entry.sender else { return serde_json::Value::Null };
    serde_json::from_str(&identify::redacted(sender, headers)).unwrap_or_default()
}

fn draft(
    sender: &Sender,
    endpoint: Endpoint,
    url: String,
    trial: &Trial,
    id: &str,
    at: Timestamp,
) -> Result<Draft, String> {
    let sample = sender.preset.and_then(|preset| SAMPLES.get(&preset.id));
    let number = u32::from_le_bytes(random());
    let filled = |text: &str| {
        let text = text.replace("{id}", id).replace("{number}", &number.to_string());
        text.replace("{time}", &at.to_string())
    };
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static("Bellpull test delivery"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in sample.iter().flat_map(|sample| &sample.headers) {
        let name: HeaderName = name.parse().expect("samples name headers");
        let value = filled(value).parse().map_err(|_| "the id cannot stand in a header")?;
        headers.insert(name, value);
    }
    for name in trial.headers.keys() {
        headers.remove(name);
        for value in trial.headers.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    let body = trial.body.clone().unwrap_or_else(|| {
        let body = sample.map_or(BODY, |sample| &sample.body);
        filled(body).into()
    });
    let mut draft = Draft { method: Method::POST, url, headers, body };
    name(sender, endpoint, &mut draft, id, at)?;
    Ok(draft)
}

/// Gives a request that has no id one, where its sender would write it into headers.
fn name(
    sender: &Sender,
    endpoint: Endpoint,
    draft: &mut Draft,
    id: &str,
    at: Timestamp,
) -> Result<(), String> {
    let head = draft.head(endpoint, WebhookRequestId::new(at));
    let payload = Payload::new(&draft.headers, draft.body.clone());
    if !identify::identify(sender, &head, &payload, at).identity.is_made_up() {
        return Ok(());
    }
    let in_headers =
        |field: &&Field| field.places.iter().all(|place| matches!(place, Place::Header(_)));
    let names: Vec<&str> = match sender.identity.iter().find(in_headers) {
        Some(field) => {
            let names = field.places.iter().filter_map(|place| match place {
                Place::Header(name) => Some(name.as_str()),
                Place::Query(_) | Place::Pointer(_) => None,
            });
            names.collect()
        }
        None if sender.identity.is_empty() => vec!["webhook-id"],
        None => Vec::new(),
    };
    for name in names {
        let name: HeaderName = name.parse().map_err(|_| "an identity names no header")?;
        let value = HeaderValue::from_str(id).map_err(|_| "the id cannot stand in a header")?;
        draft.headers.entry(name).or_insert(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::presets;

    #[test]
    fn every_sender_that_we_can_sign_for_has_a_sample() {
        let plain = ["bearer", "basic", "header", "hmac"];
        for preset in presets() {
            let of_others = ["ed25519", "ecdsa_p256", "certificate"];
            let signs = preset.verifier["type"].as_str().is_none_or(|it| !of_others.contains(&it));
            let wanted = signs && !plain.contains(&preset.id.as_str());
            assert_eq!(SAMPLES.contains_key(&preset.id), wanted, "{}", preset.id);
        }
        let is_known = |id: &&String| presets().iter().any(|preset| preset.id == **id);
        assert_eq!(SAMPLES.keys().filter(is_known).count(), SAMPLES.len());
    }
}

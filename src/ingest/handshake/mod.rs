//! Handshakes: requests with which a sender makes sure that it talks to us, and their answers.
//!
//! A handshake writes no delivery and starts nothing. Invariants: what comes before the gate is
//! answered only where the sender's own protocol leaves it unsigned, and everything else falls
//! through to what it would have been without handshakes, so that a name that does not exist and a
//! source that has none are answered alike; nothing that a stranger can have signed here passes the
//! gate as a delivery. Left out: which senders ask what; that is data of `presets`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use subtle::{Choice, ConstantTimeEq};

use super::{
    Entry, Head, Ingest, Payload, Permit, Reject, Secrets, Sender, Snapshot,
    gate::{self, Notes, Watch},
    identify, seldom,
};
use crate::{
    clock::Timestamp,
    domain::{
        field::{Place, Pointer},
        handshake::{Answered, CHALLENGE, HMAC_BASE64, HMAC_HEX, Handshake},
        secret::SecretName,
    },
    fetch::For,
    vault::{hash, hex},
};

/// The answer to a handshake, as the sender wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub status: StatusCode,
    /// With the type of the body, if there is one.
    pub headers: HeaderMap,
    pub body: String,
}

/// When a source last answered a handshake here. Clones are of the same source.
#[derive(Clone, Debug, Default)]
pub struct Greeted(Arc<AtomicI64>);

impl Greeted {
    fn note(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::Relaxed);
    }

    pub fn at(&self) -> Option<Timestamp> {
        Some(Timestamp(self.0.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }
}

/// A request that is one of a sender's handshakes.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) handshake: &'a Handshake,
    pub(super) challenge: Option<String>,
    /// What has to be called first.
    visit: Option<String>,
}

/// How long a secret that has to be carried back by hand may be shown.
const SHOWN: Duration = Duration::from_secs(3600);

/// Bytes of a body that is read to see whether it is a handshake of a sender that does not sign it.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;

/// The handshake that a caller asks for who has not proved itself, if there is one for strangers.
pub(super) fn of_stranger<'a>(
    entry: &'a Entry,
    head: &Head,
    payload: Option<&Payload>,
    now: Timestamp,
) -> Option<Asked<'a>> {
    let sender = entry.sender.as_ref().ok()?;
    let is_open = |it: &&Handshake| is_for_strangers(entry, it, now);
    let handshakes = sender.handshakes.iter().filter(is_open);
    handshakes
        .filter(|it| payload.is_some() || !it.reads_body())
        .find_map(|it| asked(it, entry, head, payload, now))
}

/// Whether a stranger's body has to be read to know.
pub(super) fn may_be_in_body(entry: &Entry, now: Timestamp) -> bool {
    let is_one = |it: &Handshake| it.reads_body() && is_for_strangers(entry, it, now);
    entry.sender.as_ref().is_ok_and(|sender| sender.handshakes.iter().any(is_one))
}

fn is_for_strangers(entry: &Entry, handshake: &Handshake, now: Timestamp) -> bool {
    match handshake.answered {
        Answered::Before => true,
        Answered::Window => entry.open_until.is_some_and(|until| until > now),
        Answered::After => false,
    }
}

/// The handshake that a caller asks for who has passed the gate.
pub(super) fn of_sender<'a>(
    entry: &Entry,
    sender: &'a Sender,
    head: &Head,
    payload: &Payload,
    now: Timestamp,
) -> Option<Asked<'a>> {
    let handshakes = sender.handshakes.iter().filter(|it| it.answered != Answered::Window);
    handshakes.into_iter().find_map(|it| asked(it, entry, head, Some(payload), now))
}

/// Whether these bytes could be what a stranger had signed here: they pass no gate.
pub(super) fn was_signed_for_strangers(sender: &Sender, body: &[u8]) -> bool {
    sender.handshakes.iter().any(|it| it.signs_for_strangers(body))
}

fn asked<'a>(
    handshake: &'a Handshake,
    entry: &Entry,
    head: &Head,
    payload: Option<&Payload>,
    now: Timestamp,
) -> Option<Asked<'a>> {
    if head.method != handshake.method.as_str() {
        return None;
    }
    let nothing = Payload::of(None, Bytes::new());
    let payload = payload.unwrap_or(&nothing);
    let at = |place: &Place| value(place, head, payload);
    let fits = handshake.when.iter().all(|(place, text)| at(place).as_ref() == Some(text))
        && handshake.lacks.iter().all(|place| at(place).is_none())
        && handshake.empty.iter().all(|place| is_empty_list(payload, place));
    if !fits {
        return None;
    }
    if let Some(place) = &handshake.token
        && !holds_token(&entry.secrets, &at(place)?, now)
    {
        return None;
    }
    let challenge = match &handshake.challenge {
        None => None,
        Some(place) => Some(at(place).filter(|text| handshake.admits(text.as_bytes()))?),
    };
    let visit = match &handshake.visit {
        None => None,
        Some(visit) => Some(at(&visit.url)?),
    };
    Some(Asked { handshake, challenge, visit })
}

/// What stands at a place; a header that is there twice says nothing.
pub(super) fn value(place: &Place, head: &Head, payload: &Payload) -> Option<String> {
    let value = match place {
        Place::Header(name) => {
            let mut values = head.headers.get_all(name).iter();
            let value = values.next().filter(|_| values.next().is_none())?;
            value.to_str().ok()?.trim().to_owned()
        }
        Place::Query(name) => identify::query(&head.url, name)?,
        Place::Pointer(pointer) => payload.at(pointer)?,
    };
    Some(value).filter(|value| !value.is_empty())
}

fn is_empty_list(payload: &Payload, place: &Pointer) -> bool {
    let found = payload.tree().and_then(|tree| tree.pointer(&place.0));
    found.and_then(Value::as_array).is_some_and(Vec::is_empty)
}

/// What the operator gives a sender that wants a text of its own back before it trusts us. It is
/// made of the secret, so that the secret itself never stands in a URL.
pub(super) fn verify_token(secret: &SecretString) -> String {
    let text = format!("bellpull verify token\n{}", secret.expose_secret());
    hex(&hash(text.as_bytes())[..16])
}

fn holds_token(secrets: &Secrets, given: &str, now: Timestamp) -> bool {
    let given = hash(given.as_bytes());
    let same = |so_far, token: String| so_far | hash(token.as_bytes()).ct_eq(&given);
    let tokens = secrets.live(now).map(|secret| verify_token(&secret.value));
    tokens.fold(Choice::from(0), same).into()
}

impl Asked<'_> {
    /// The answer. `secret` names the one that the caller holds; without it the newest makes HMACs.
    /// `None` when there is no secret to make one with.
    pub(super) fn greeting(
        &self,
        entry: &Entry,
        sender: &Sender,
        secret: Option<&SecretName>,
        now: Timestamp,
    ) -> Option<Greeting> {
        let reply = &self.handshake.reply;
        let challenge = self.challenge.as_deref().unwrap_or_default();
        let mac = match reply.has_hmac() {
            false => Vec::new(),
            true => {
                let is_wanted = |name: &SecretName| secret.is_none_or(|secret| secret == name);
                let key = entry.secrets.live(now).find(|it| is_wanted(&it.name))?;
                gate::hmac(&sender.verifier, key.text(), challenge.as_bytes())?
            }
        };
        let fill = |text: &str| {
            use base64::{Engine, engine::general_purpose::STANDARD};
            // The challenge last: what stands in it is no placeholder.
            text.replace(HMAC_HEX, &hex(&mac))
                .replace(HMAC_BASE64, &STANDARD.encode(&mac))
                .replace(CHALLENGE, challenge)
        };
        let (kind, body) = match (&reply.text, &reply.json) {
            (Some(text), _) => (Some("text/plain; charset=utf-8"), fill(text)),
            (None, Some(json)) => (Some("application/json"), filled(json, &fill).to_string()),
            (None, None) => (None, String::new()),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &reply.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            headers.insert(name, HeaderValue::from_str(&fill(value)).ok()?);
        }
        if let Some(kind) = kind {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Some(Greeting { status: StatusCode::from_u16(reply.status).ok()?, headers, body })
    }
}

fn filled(value: &Value, fill: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(list) => list.iter().map(|value| filled(value, fill)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), filled(value, fill))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

impl Ingest {
    /// What comes before the gate and shows in the head, or in a body that was read for it.
    pub(super) async fn greet_stranger(
        &self,
        known: Option<&Entry>,
        head: &Head,
        payload: Option<Payload>,
        now: Timestamp,
    ) -> Option<Greeting> {
        let entry = known?;
        let asked = of_stranger(entry, head, payload.as_ref(), now)?;
        self.greet(entry, &asked, None, now).await
    }

    /// A request of another method than POST, from a caller whose head proves who it is.
    pub(super) async fn greet_by_head(
        &self,
        snapshot: &Snapshot,
        known: Option<&Entry>,
        head: &Head,
        now: Timestamp,
    ) -> Option<Greeting> {
        let handshakes = &known?.sender.as_ref().ok()?.handshakes;
        handshakes.iter().find(|it| head.method == it.method.as_str())?;
        let looked = gate::look(snapshot, known, head, Watch { now, notes: &Notes::none() });
        let (entry, sender, look) = looked.ok()?;
        let gate::Look::Passed(passed) = look else { return None };
        let nothing = Payload::of(None, Bytes::new());
        let asked = of_sender(entry, sender, head, &nothing, now)?;
        self.greet(entry, &asked, passed.secret.as_ref(), now).await
    }

    /// A request that the gate has refused by its head, and that a sender may have sent before it
    /// signs anything. Whatever goes wrong here, the refusal stands.
    pub(super) async fn greet_by_body(
        &self,
        known: Option<&Entry>,
        head: &Head,
        now: Timestamp,
        read_body: impl AsyncFnOnce(Permit) -> Result<(Bytes, Permit), Reject>,
    ) -> Option<Greeting> {
        let entry = known.filter(|entry| may_be_in_body(entry, now))?;
        let permit = self.bounds.unverified(&entry.lane).at_most(BODY_BYTES_MAX);
        let (body, _permit) = read_body(permit).await.ok()?;
        self.greet_stranger(known, head, Some(Payload::new(&head.headers, body)), now).await
    }

    /// Calls what the sender wants called, if anything. Until that works the sender tries again.
    pub(super) async fn visit(&self, asked: &Asked<'_>) -> Result<(), Reject> {
        let (Some(visit), Some(url)) = (&asked.handshake.visit, &asked.visit) else {
            return Ok(());
        };
        let per_minute_max = self.bounds.options().fetches_per_minute_max;
        let fetch = self.certificates.fetch();
        match seldom(fetch.get(url, &visit.from, For::Senders, per_minute_max)).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "what a sender wants confirmed was not");
                Err(Reject::Busy("what is to be confirmed cannot be reached now"))
            }
        }
    }

    /// `secret` is the one that the caller holds.
    pub(super) async fn greet(
        &self,
        entry: &Entry,
        asked: &Asked<'_>,
        secret: Option<&SecretName>,
        now: Timestamp,
    ) -> Option<Greeting> {
        let greeting = asked.greeting(entry, entry.sender.as_ref().ok()?, secret, now)?;
        if asked.handshake.answered == Answered::Window {
            let given = SecretString::from(asked.challenge.clone()?);
            let shown_until = asked.handshake.shown.then(|| now.plus(SHOWN));
            let taking = self.registry.take_secret(&entry.source, given, shown_until);
            match seldom(taking).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    let (source, detail) = (&entry.source.name, format!("{error:#}"));
                    tracing::error!(source, detail, "a sender's secret was not stored");
                    return None;
                }
            }
        }
        entry.greeted.note(now);
        Some(greeting)
    }
}

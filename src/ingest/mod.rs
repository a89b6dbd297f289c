//! The receive path: from a request's raw bytes to a committed delivery.
//!
//! [`Ingest::accept`] is the whole of it, in order: who calls (gate), may we take it (bounds), the
//! bytes, what it is (handshake, identify), where it goes (route), one transaction. A caller that
//! signs its body is known after the bytes. Invariants: nothing is written before the caller is
//! known, and nothing parsed but small handshakes of senders that sign none; nothing about a source
//! is revealed before that either; a successful answer means committed. Left out: running the agent,
//! and waking whoever does: the caller rings.

mod again;
mod backtest;
mod bounds;
mod certificates;
mod condition;
mod explain;
mod facts;
mod gate;
mod handshake;
mod identify;
mod payload;
mod pointer;
mod policy;
mod presets;
mod registry;
mod render;
mod replay;
mod route;
mod sign;
mod trial;
mod wording;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};

pub use again::{NotReplayed, Order, Would};
pub use backtest::{Backtest, Counts, DELIVERIES_MAX, Difference, Report, Trying, Verdicts};
pub use bounds::{Bounds, Lane, Options, Permit};
pub use explain::{Captured, Destination, Explanation, Let};
pub use gate::{Caller, Step, bearer};
pub use handshake::Greeting;
pub use payload::Payload;
pub use policy::{ACTORS_MAX, RULES_MAX, check_policy};
pub use presets::{Demanded, Evidence, Preset, Sender, all as presets};
pub use registry::{Address, Entry, Keys, Registry, Secrets, Snapshot, gauges, secret_key};
pub use sign::{Draft, Held, Signed, sign};
pub use trial::{Trial, shown_headers};

use certificates::{Certificate, Certificates};
use facts::Facts;
use gate::{Look, Notes, Watch};

use crate::{
    clock::{Clock, Timestamp},
    domain::{
        secret::SecretName,
        source::{OnPossibleReplay, OnRedelivery},
        trace::TraceContext,
        verifier::Verifier,
    },
    fetch::{self, Fetch, Network},
    id::{AgentId, DeliveryId, EventId, Id, RefusalId, SessionId, WebhookRequestId},
    metrics::{Received, SourceCounters},
    store::{
        self, Body, MessageBody, NewDelivery, Refusal, Refused, ReplayCheck, Route, Store, Verdict,
    },
};

/// Which webhook route was called, with the name as it stood in the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/api/agents/<agent>/webhook`
    Agent(String),
    /// `/api/webhook/<source>`
    Source(String),
}

/// A request up to its body.
#[derive(Clone, Debug)]
pub struct Head {
    pub endpoint: Endpoint,
    pub method: Method,
    /// As the sender called it, as far as this server knows: its public URL, path and query.
    pub url: String,
    pub headers: HeaderMap,
    pub request_id: WebhookRequestId,
}

/// What became of a request that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is a delivery.
    Stored(Answer),
    /// It is a handshake, of which nothing is kept.
    Greeted(Greeting),
}

#[cfg(test)]
impl Head {
    fn of_nobody() -> Head {
        Head {
            endpoint: Endpoint::Source("code".to_owned()),
            method: Method::POST,
            url: "https://bell.example/api/webhook/code".to_owned(),
            headers: HeaderMap::new(),
            request_id: WebhookRequestId::new(Timestamp(0)),
        }
    }
}

/// What a caller that was let in is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    pub agent_id: Option<AgentId>,
    pub session_id: Option<SessionId>,
    pub delivery_id: DeliveryId,
    pub attempt: i64,
    /// What the sender wants to be told in the place of the contract's words.
    pub demanded: Option<&'static Demanded>,
}

/// Why a request was not taken.
#[derive(Debug)]
pub enum Reject {
    /// One answer for a wrong secret and for a name that does not exist.
    Unauthorized,
    /// Only for callers that hold the box key or an admin key.
    UnknownName,
    /// Nothing but POST, as far as this caller is told.
    Method,
    TooLarge {
        bytes_max: usize,
    },
    /// The body did not arrive in time, or broke off.
    BodyIncomplete(&'static str),
    /// A bound was reached; the same request may succeed later.
    Busy(&'static str),
    /// The commit may or may not have happened; the sender's retry finds out.
    Processing,
    /// Nothing was stored, by no fault of the sender.
    Failed(store::Error),
}

#[derive(Debug)]
pub struct Ingest {
    pub registry: Registry,
    pub bounds: Bounds,
    certificates: Certificates,
    store: Store,
    clock: Clock,
    refusals: tokio::sync::mpsc::Sender<Refusal>,
    backtests: backtest::Backtests,
    /// Requests to agents, and to sources, that do not exist.
    unknown: [SourceCounters; 2],
}

/// A caller that was let in, and what it brought.
struct Guest<'a> {
    entry: &'a Entry,
    sender: &'a Sender,
    payload: Payload,
    /// The secret that it held.
    secret: Option<SecretName>,
    /// Room for the body, until it is stored.
    _permit: Permit,
}

enum Entrance<'a> {
    Guest(Guest<'a>),
    Greeted(Greeting),
}

/// Refused attempts that may wait to be written; more are dropped rather than slow anybody down.
const REFUSALS_WAITING: usize = 256;

impl Ingest {
    /// The receive path, and the refused attempts that somebody should write down.
    pub fn new(
        store: Store,
        registry: Registry,
        options: Options,
        network: Arc<dyn Network>,
    ) -> (Arc<Ingest>, tokio::sync::mpsc::Receiver<Refusal>) {
        let (refusals, notes) = tokio::sync::mpsc::channel(REFUSALS_WAITING);
        let clock = store.clock().clone();
        let bounds = Bounds::new(options);
        let backtests = backtest::Backtests::default();
        let unknown = [true, false].map(|is_agent| store.metrics().unknown_source(is_agent));
        let certificates = Certificates::new(Fetch::new(network, clock.clone()));
        let ingest =
            Ingest { registry, bounds, certificates, store, clock, refusals, backtests, unknown };
        (Arc::new(ingest), notes)
    }

    /// Takes a request. `read_body` is called once nothing but the body can decide, or not at all.
    pub async fn accept(
        &self,
        head: Head,
        read_body: impl AsyncFnOnce(Permit) -> Result<(Bytes, Permit), Reject>,
    ) -> Result<Taken, Reject> {
        let snapshot = self.registry.snapshot();
        let (known, is_agent) = match &head.endpoint {
            Endpoint::Agent(name) => (snapshot.agent_source(name), true),
            Endpoint::Source(name) => (snapshot.named_source(name), false),
        };
        let counters = match known {
            Some(entry) => entry.counters(self.store.metrics()),
            None => &self.unknown[usize::from(!is_agent)],
        };
        let received_at = self.clock.now();
        let trace = trace_of(&head.headers).unwrap_or_else(|| TraceContext::new(received_at));
        let result = self.take(&snapshot, known, head, received_at, trace, read_body).await;
        counters.count(received(&result));
        tell(&result, known.map(Entry::display_name), trace);
        result
    }

    async fn take(
        &self,
        snapshot: &Snapshot,
        known: Option<&Entry>,
        head: Head,
        received_at: Timestamp,
        trace: TraceContext,
        read_body: impl AsyncFnOnce(Permit) -> Result<(Bytes, Permit), Reject>,
    ) -> Result<Taken, Reject> {
        let entrance = self.admit(snapshot, known, &head, received_at, read_body).await?;
        let Guest { entry, sender, payload, secret, _permit } = match entrance {
            Entrance::Guest(guest) => guest,
            Entrance::Greeted(greeting) => return Ok(Taken::Greeted(greeting)),
        };

        let identity = identify::identify(sender, &head, &payload, received_at);
        let event_type = identify::event_type(sender, &head, &payload);
        let replay = replay::is_possible(sender, &identity.identity).then(|| ReplayCheck {
            body_hash: crate::vault::hash(&payload.bytes),
            hold: entry.source.definition.on_possible_replay == OnPossibleReplay::Hold,
        });
        let id = DeliveryId::new(received_at);
        let named = (entry.display_name(), sender);
        let kind = event_type.as_deref();
        let route = {
            let facts = Facts::new(&id, named, kind, &head, &payload, received_at);
            route::route(entry, &facts, None)
        };
        let route = route::without_loops(route, &head, self.bounds.options().callback_hops_max);
        let (bytes, content_type) = payload.into_parts();

        let delivery = Box::new(NewDelivery {
            id,
            source_id: entry.source.id.clone(),
            identity: identity.identity,
            identity_before: identity.before,
            route,
            event_type,
            request_id: head.request_id,
            trace,
            received_at,
            content_type,
            headers: identify::redacted(sender, &head.headers),
            body_bytes: bytes.len(),
            body: Body::Inline(bytes),
            secret,
            replay,
            replay_of: None,
            rerun_failed: entry.source.definition.on_redelivery == OnRedelivery::RerunFailed,
            waiting_max: self.bounds.waiting_messages_max(),
        });
        let demanded = sender.preset.and_then(|preset| preset.answer.as_ref());
        match self.commit(entry, delivery, demanded).await {
            Ok(Ok(answer)) => Ok(Taken::Stored(answer)),
            // Nothing but a replay finds something erased.
            Ok(Err(Refused::SessionFull | Refused::Erased)) => {
                Err(Reject::Busy("the session has too many messages waiting"))
            }
            Err(error) => Err(reject(error)),
        }
    }

    /// Who calls, and with what; or the answer to what is only asked.
    async fn admit<'a>(
        &self,
        snapshot: &Snapshot,
        known: Option<&'a Entry>,
        head: &Head,
        now: Timestamp,
        read_body: impl AsyncFnOnce(Permit) -> Result<(Bytes, Permit), Reject>,
    ) -> Result<Entrance<'a>, Reject> {
        let refuse = |refused| self.refuse(head, refused, now);
        if let Some(greeting) = self.greet_stranger(known, head, None, now).await {
            return Ok(Entrance::Greeted(greeting));
        }
        if head.method != Method::POST {
            let greeting = self.greet_by_head(snapshot, known, head, now).await;
            return greeting.map(Entrance::Greeted).ok_or(Reject::Method);
        }
        let looked = gate::look(snapshot, known, head, Watch { now, notes: &Notes::none() });
        let (entry, sender, look) = match looked {
            Ok(looked) => looked,
            Err(refused) => {
                let greeting = self.greet_by_body(known, head, now, read_body).await;
                return greeting.map(Entrance::Greeted).ok_or_else(|| refuse(refused));
            }
        };
        let (payload, permit, passed) = match look {
            Look::Passed(passed) => {
                self.bounds.check(entry)?;
                let (body, permit) = read_body(Permit::default()).await?;
                (Payload::new(&head.headers, body), permit, passed)
            }
            Look::NeedsBody => {
                let (body, permit) = read_body(self.bounds.unverified(&entry.lane)).await?;
                let payload = Payload::new(&head.headers, body);
                let url = certificate_url(entry, sender, head, &payload, now).map_err(refuse)?;
                let certificate = self.certificate(entry, sender, url, now).await;
                let certificate = certificate.map_err(refuse)?;
                let (certificate, watch) =
                    (certificate.as_deref(), Watch { now, notes: &Notes::none() });
                let passed = gate::verify(entry, sender, head, &payload, certificate, watch);
                let passed = passed.map_err(refuse)?;
                self.bounds.check(entry)?;
                (payload, permit.verified(), passed)
            }
        };
        if let Some(asked) = handshake::of_sender(entry, sender, head, &payload, now) {
            self.visit(&asked).await?;
            let greeting = self.greet(entry, &asked, passed.secret.as_ref(), now).await;
            return greeting.map(Entrance::Greeted).ok_or(Reject::Unauthorized);
        }
        Ok(Entrance::Guest(Guest {
            entry,
            sender,
            payload,
            secret: passed.secret,
            _permit: permit,
        }))
    }

    /// The certificate that a request names, if its sender has them.
    async fn certificate(
        &self,
        entry: &Entry,
        sender: &Sender,
        url: Option<String>,
        now: Timestamp,
    ) -> Result<Option<Arc<Certificate>>, gate::Refused> {
        let (Some(url), Verifier::Certificate(rule)) = (url, &sender.verifier) else {
            return Ok(None);
        };
        let per_minute_max = self.bounds.options().fetches_per_minute_max;
        match seldom(self.certificates.get(&url, rule, per_minute_max, now)).await {
            Ok(certificate) => Ok(Some(certificate)),
            Err(error) => {
                let mut refused = gate::refused(entry, format!("the certificate: {error}"));
                if !matches!(error, fetch::Error::Forbidden(_)) {
                    refused.reject = Reject::Busy("the sender's certificate cannot be had now");
                }
                Err(refused)
            }
        }
    }

    /// Large parts go first, in pieces; then the one transaction.
    async fn commit(
        &self,
        entry: &Entry,
        mut delivery: Box<NewDelivery>,
        demanded: Option<&'static Demanded>,
    ) -> store::Result<Result<Answer, Refused>> {
        if let Body::Inline(bytes) = &delivery.body
            && Store::is_large(bytes.len())
        {
            let put = self.store.put_chunks(delivery.id.as_str(), bytes.clone());
            delivery.body = Body::Chunks(seldom(put).await?);
        }
        if let Route::To(dispatch) = &mut delivery.route
            && let MessageBody::Inline(text) = &mut dispatch.message
            && Store::is_large(text.len())
        {
            let text = std::mem::take(text);
            let put = self.store.put_chunks(dispatch.event_id.as_str(), text.into());
            dispatch.message = MessageBody::Chunks(seldom(put).await?);
        }
        let accepted = match self.store.accept(delivery).await? {
            Ok(accepted) => accepted,
            Err(refused) => return Ok(Err(refused)),
        };
        if accepted.verdict == Verdict::Accepted {
            entry.waiting.add_one();
        }
        Ok(Ok(Answer {
            verdict: accepted.verdict,
            agent_id: accepted.agent_id,
            session_id: accepted.session_id,
            delivery_id: accepted.delivery_id,
            attempt: accepted.attempt,
            demanded,
        }))
    }

    fn refuse(&self, head: &Head, refused: gate::Refused, at: Timestamp) -> Reject {
        let (Endpoint::Agent(name) | Endpoint::Source(name)) = &head.endpoint;
        let refusal = Refusal {
            id: RefusalId::new(at),
            source: crate::domain::text::first_chars(name, 64).0.replace('\0', ""),
            source_id: refused.source_id,
            reason: refused.reason,
            at,
        };
        // Dropped when many wait: a flood of wrong tokens must not become a flood of writes.
        let _ = self.refusals.try_send(refusal);
        refused.reject
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What the sender's own tracing calls this request. A header that is there twice, or that is not
/// valid, says nothing.
fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// One line for each request; the request's id is the span's. A name that a caller made up is not
/// written down here.
fn tell(result: &Result<Taken, Reject>, source: Option<&str>, trace: TraceContext) {
    let answer = match result {
        Ok(Taken::Stored(answer)) => Some(answer),
        Ok(Taken::Greeted(_)) | Err(_) => None,
    };
    let what = received(result).as_str();
    tracing::debug!(
        source,
        result = what,
        delivery_id = answer.map(|it| display(&it.delivery_id)),
        session_id = answer.and_then(|it| it.session_id.as_ref()).map(display),
        attempt = answer.map(|it| it.attempt),
        trace_id = %trace.trace_id(),
        "a webhook was called"
    );
}

/// Work that few requests have: apart, so that not every request has room for its state, which would be
/// most of what there is of a request in memory.
fn seldom<F: Future>(work: F) -> std::pin::Pin<Box<F>> {
    Box::pin(work)
}

/// As it is counted.
fn received(result: &Result<Taken, Reject>) -> Received {
    match result {
        Ok(Taken::Greeted(_)) => Received::Handshake,
        Ok(Taken::Stored(answer)) => match answer.verdict {
            Verdict::Accepted => Received::Accepted,
            Verdict::Duplicate => Received::Duplicate,
            Verdict::Filtered => Received::Filtered,
            Verdict::Held => Received::Held,
        },
        Err(Reject::Unauthorized | Reject::UnknownName | Reject::Method) => Received::Refused,
        Err(Reject::TooLarge { .. }) => Received::TooLarge,
        Err(Reject::BodyIncomplete(_)) => Received::Incomplete,
        Err(Reject::Busy(_)) => Received::Busy,
        Err(Reject::Processing) => Received::Processing,
        Err(Reject::Failed(_)) => Received::Failed,
    }
}

fn reject(error: store::Error) -> Reject {
    match error {
        store::Error::CommitUnknown(_) => Reject::Processing,
        other => Reject::Failed(other),
    }
}

/// Whether a request passes a verifier, without a source and a server around it: which secret it
/// holds, or why not. This is the gate itself, for whoever measures it or tries to break it.
pub fn prove(
    verifier: &Verifier,
    secrets: &Secrets,
    head: &Head,
    payload: &Payload,
    at: Timestamp,
) -> Result<Option<SecretName>, String> {
    let watch = Watch { now: at, notes: &Notes::none() };
    gate::prove(verifier, secrets, head, payload, watch).map(|passed| passed.secret)
}

/// A new id for a message, and the private part that goes with it: the nonce of its fence.
pub fn new_message_id(at: Timestamp) -> (EventId, String) {
    // Not from the system: that would be one more call to it for each accept.
    let nonce = crate::vault::hex(&crate::id::random_bits(at).to_be_bytes()[6..]);
    (EventId::new(at), [r#"{"nonce":""#, &nonce, r#""}"#].concat())
}

/// Where the certificate is that a request of this source is signed with.
fn certificate_url(
    entry: &Entry,
    sender: &Sender,
    head: &Head,
    payload: &Payload,
    now: Timestamp,
) -> Result<Option<String>, gate::Refused> {
    let watch = Watch { now, notes: &Notes::none() };
    let url = gate::certificate_url(&sender.verifier, &entry.secrets, head, payload, watch);
    url.map_err(|reason| gate::refused(entry, reason))
}

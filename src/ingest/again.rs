//! Replays: a delivery made again of the bytes and headers of an earlier one.
//!
//! There is no second path: what comes of it is routed as the source is now and goes through the
//! accept like any other. Invariants: a replay has an identity that no sender can have; it is marked
//! with the sender's delivery that it repeats; nothing but what cannot be done keeps it back, neither
//! filters nor a pause, because somebody asked for it. Left out: the gate. Whoever may order a replay
//! may have this done, and signatures are too old to be checked.

use bytes::Bytes;
use serde_json::json;

use super::{
    Answer, Destination, Entry, Facts, Ingest, Payload, Permit, Reject,
    backtest::head,
    explain, identify,
    registry::AgentRef,
    reject,
    route::{self, Release},
};
use crate::{
    domain::{Problem, delivery::Identity, trace::TraceContext},
    id::{AgentId, DeliveryId, Id, WebhookRequestId},
    store::{self, Body, Change, KeptBody, NewDelivery, Recorded, Refused, ReplayOf, Route},
};

/// Where replays shall go; as the source says, unless something else is.
#[derive(Clone, Debug, Default)]
pub struct Order {
    agent: Option<AgentRef>,
    version: Option<i64>,
}

/// Why a delivery was not replayed.
#[derive(Debug)]
pub enum NotReplayed {
    /// There is no such delivery.
    Unknown,
    /// Its bytes are gone, or its source is; nothing helps.
    Impossible(String),
    /// What was ordered is not there.
    Order(Problem),
    /// It was not stored; it may be later.
    Reject(Reject),
}

impl From<store::Error> for NotReplayed {
    fn from(error: store::Error) -> NotReplayed {
        match error {
            store::Error::NotFound => NotReplayed::Unknown,
            other => NotReplayed::Reject(reject(other)),
        }
    }
}

/// A replay that only has to be stored.
struct Draft<'a> {
    entry: &'a Entry,
    delivery: Box<NewDelivery>,
    /// Room for the body, until it is stored.
    _permit: Permit,
}

/// What a replay would lead to.
#[derive(Clone, Debug)]
pub struct Would {
    pub destination: Destination,
    /// What the agent would be told.
    pub message: Option<String>,
    /// The payload that was read for it, where that is in one piece.
    pub bytes: Option<Bytes>,
}

impl Ingest {
    /// Reads where replays shall go: an agent's id or name, and one of its versions.
    pub fn order(&self, agent: Option<&str>, version: Option<i64>) -> Result<Order, Problem> {
        let Some(wanted) = agent else { return Ok(Order { agent: None, version }) };
        let snapshot = self.registry.snapshot();
        let id = wanted.parse::<AgentId>().ok();
        let found = match id.and_then(|id| snapshot.agents.get(&id)) {
            Some(agent) => Some(agent),
            None => snapshot.agent(wanted),
        };
        let found =
            found.ok_or_else(|| Problem::new("agent", format!("there is no agent `{wanted}`")))?;
        if found.archived_at.is_some() {
            return Err(Problem::new("agent", format!("the agent `{wanted}` is archived")));
        }
        let (id, name) = (found.id.clone(), found.spec.name.clone());
        let agent = AgentRef { id, version: found.version, name };
        check_version(&agent.id, agent.version, version)?;
        Ok(Order { agent: Some(agent), version })
    }

    /// Makes a delivery again. Answers after the commit.
    pub async fn replay(
        &self,
        id: &DeliveryId,
        order: &Order,
        actor: String,
    ) -> Result<Answer, NotReplayed> {
        let recorded = self.store.recorded(id).await?;
        let snapshot = self.registry.snapshot();
        let draft = self.draft(&snapshot, recorded, order, actor).await?;
        let Draft { entry, delivery, _permit } = draft;
        let trace = delivery.trace;
        let answer = match self.commit(entry, delivery, None).await? {
            Ok(answer) => answer,
            Err(Refused::Erased) => return Err(gone(true)),
            Err(Refused::SessionFull) => {
                let reject = Reject::Busy("the session has too many messages waiting");
                return Err(NotReplayed::Reject(reject));
            }
        };
        tracing::debug!(
            source = entry.display_name(),
            replay_of = %id,
            delivery_id = %answer.delivery_id,
            session_id = answer.session_id.as_ref().map(tracing::field::display),
            trace_id = %trace.trace_id(),
            "a delivery was replayed"
        );
        Ok(answer)
    }

    /// What a replay would become, and what the agent would be told, without storing anything.
    /// Sessions are not looked at.
    pub async fn would_replay(&self, id: &DeliveryId, order: &Order) -> Result<Would, NotReplayed> {
        let recorded = self.store.recorded(id).await?;
        let snapshot = self.registry.snapshot();
        let draft = self.draft(&snapshot, recorded, order, String::new()).await?;
        let NewDelivery { route, body, .. } = *draft.delivery;
        let message = match &route {
            Route::To(dispatch) => dispatch.message.text(&body),
            Route::Held { .. } | Route::Filtered { .. } => None,
        };
        let bytes = match body {
            Body::Inline(bytes) => Some(bytes),
            Body::Chunks(_) => None,
        };
        Ok(Would { destination: explain::destination(route), message, bytes })
    }

    async fn draft<'a>(
        &self,
        snapshot: &'a super::Snapshot,
        recorded: Recorded,
        order: &Order,
        actor: String,
    ) -> Result<Draft<'a>, NotReplayed> {
        let Recorded { kept, source_id, replay_of, is_erased } = recorded;
        let entry = snapshot.source(&source_id).ok_or_else(|| {
            NotReplayed::Impossible("the source of this delivery was removed".to_owned())
        })?;
        let sender = entry.sender.as_ref().map_err(|reason| {
            NotReplayed::Impossible(format!("the source of this delivery is broken: {reason}"))
        })?;
        self.bounds.check(entry).map_err(NotReplayed::Reject)?;
        let body = match kept.body.clone() {
            _ if is_erased => return Err(gone(true)),
            KeptBody::Inline(bytes) => bytes,
            KeptBody::Gone => return Err(gone(false)),
            KeptBody::Large => self.large(&kept.id).await?,
        };
        let mut permit = Permit::default();
        self.bounds.reserve(&mut permit, body.len()).map_err(NotReplayed::Reject)?;

        let at = self.clock.now();
        let (id, head) = (DeliveryId::new(at), head(entry, &kept));
        let first = replay_of.unwrap_or_else(|| kept.id.clone());
        let payload = Payload::of(kept.content_type, body);
        // What stood in the query is not kept, and may have been what told the type.
        let event_type = identify::event_type(sender, &head, &payload).or(kept.event_type);
        let route = {
            let named = (entry.display_name(), sender);
            let facts = Facts::new(&id, named, event_type.as_deref(), &head, &payload, at);
            let (agent, version) = (order.agent.as_ref(), order.version);
            route::route(entry, &facts, Some(Release { first: &first, agent, version }))
        };
        if let (Route::To(dispatch), None, Some(_)) = (&route, &order.agent, order.version) {
            let newest = snapshot.agents.get(&dispatch.agent_id).map_or(0, |agent| agent.version);
            check_version(&dispatch.agent_id, newest, order.version).map_err(NotReplayed::Order)?;
        }
        let change = Change {
            actor,
            action: "delivery.replay",
            target: kept.id.to_string(),
            details: details(&id, entry, &route),
        };
        let (bytes, content_type) = payload.into_parts();
        let delivery = Box::new(NewDelivery {
            source_id,
            // No field of a sender's is called so: names of headers have no spaces.
            identity: Identity {
                key: format!("replay of {first}: {id}"),
                field: Identity::REPLAY.to_owned(),
                weak: false,
            },
            id,
            identity_before: None,
            route,
            event_type,
            request_id: WebhookRequestId::new(at),
            trace: TraceContext::new(at),
            received_at: at,
            content_type,
            headers: kept.headers,
            body_bytes: bytes.len(),
            body: Body::Inline(bytes),
            secret: None,
            replay: None,
            replay_of: Some(Box::new(ReplayOf { first, of: kept.id, change })),
            rerun_failed: false,
            waiting_max: self.bounds.waiting_messages_max(),
        });
        Ok(Draft { entry, delivery, _permit: permit })
    }

    async fn large(&self, id: &DeliveryId) -> Result<Bytes, NotReplayed> {
        match self.store.delivery_body(id).await {
            Ok(stored) => Ok(stored.bytes),
            // Erased a moment ago.
            Err(store::Error::NotFound) => Err(gone(true)),
            Err(error) => Err(error.into()),
        }
    }
}

fn gone(is_erased: bool) -> NotReplayed {
    let why = if is_erased { "was erased" } else { "is past its days, and no longer kept" };
    NotReplayed::Impossible(format!("the payload of this delivery {why}"))
}

/// Versions of an agent are numbered without gaps.
fn check_version(id: &AgentId, newest: i64, wanted: Option<i64>) -> Result<(), Problem> {
    match wanted {
        Some(wanted) if !(1..=newest).contains(&wanted) => {
            let there = if newest == 1 {
                "version 1 only".to_owned()
            } else {
                format!("versions 1 to {newest}")
            };
            Err(Problem::new(
                "version",
                format!("there is no version {wanted} of {id}, which has {there}"),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// For the audit log.
fn details(id: &DeliveryId, entry: &Entry, route: &Route) -> serde_json::Value {
    let mut details = json!({"delivery_id": id, "source": entry.source.name});
    match route {
        Route::To(dispatch) => {
            details["agent_id"] = json!(dispatch.agent_id);
            details["agent_version"] = dispatch.agent_version.into();
        }
        Route::Held { agent_id, reason } | Route::Filtered { agent_id, reason } => {
            details["agent_id"] = json!(agent_id);
            details["reason"] = reason.as_str().into();
        }
    }
    details
}

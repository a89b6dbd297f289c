//! Why a request would be let in or not, for the owner of the source.
//!
//! Nothing here decides: the gate does, and its own notes are what is told. A request that was
//! refused is put to the same gate again with one thing changed at a time, and a change that opens
//! it is a hint. Invariants: nothing is written; no secret and no right signature is said, only
//! which secret it was. Left out: handshakes, which are not let in but answered.

mod mistakes;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{
    Entry, Facts, Head, Ingest, Payload, Snapshot, Step,
    gate::{self, Notes, Watch},
    identify, route,
};
use crate::{
    clock::Timestamp,
    domain::{delivery::Identity, secret::SecretName},
    id::{AgentId, DeliveryId, Id, SessionId, WebhookRequestId},
    store::{Route, RouteTarget},
};

/// A request that somebody kept.
#[derive(Clone, Debug)]
pub struct Captured {
    pub method: Method,
    /// As the sender called it.
    pub url: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What the gate makes of a request, step by step.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub steps: Vec<Step>,
    /// Or why it is refused.
    pub passed: Result<Let, String>,
    pub hints: Vec<String>,
}

/// A request that would be let in, and what would become of it.
#[derive(Clone, Debug)]
pub struct Let {
    pub secret: Option<SecretName>,
    pub identity: Identity,
    pub event_type: Option<String>,
    pub destination: Destination,
}

/// Where it would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    NewSession { agent_id: AgentId },
    Session { agent_id: AgentId, session_id: SessionId },
    Key { agent_id: AgentId, key: String },
    Held { reason: String },
    Filtered { reason: String },
}

impl Ingest {
    /// What would become of a request to a source at some time.
    pub async fn explain(
        &self,
        snapshot: &Snapshot,
        entry: &Entry,
        captured: Captured,
        at: Timestamp,
    ) -> Explanation {
        let Captured { method, url, headers, body } = captured;
        let endpoint = entry.endpoint();
        let head = Head { endpoint, method, url, headers, request_id: WebhookRequestId::new(at) };
        let payload = Payload::new(&head.headers, body);
        let url = entry.sender.as_ref().ok().and_then(|sender| {
            let url = super::certificate_url(entry, sender, &head, &payload, at);
            Some((sender, url.ok()?))
        });
        let certificate = match url {
            Some((sender, url)) => self.certificate(entry, sender, url, self.clock.now()).await,
            None => Ok(None),
        };
        let certificate = certificate.ok().flatten();
        let certificate = certificate.as_deref();
        let notes = Notes::kept();
        let watch = Watch { now: at, notes: &notes };
        let looked = gate::look(snapshot, Some(entry), &head, watch);
        let decided = looked.and_then(|(entry, sender, look)| {
            let passed = match look {
                gate::Look::Passed(passed) => passed,
                gate::Look::NeedsBody => {
                    gate::verify(entry, sender, &head, &payload, certificate, watch)?
                }
            };
            Ok((sender, passed))
        });
        match decided {
            Ok((sender, passed)) => {
                let identity = identify::identify(sender, &head, &payload, at).identity;
                let event_type = identify::event_type(sender, &head, &payload);
                let id = DeliveryId::new(at);
                let named = (entry.display_name(), sender);
                let kind = event_type.as_deref();
                let facts = Facts::new(&id, named, kind, &head, &payload, at);
                let destination = destination(route::route(entry, &facts, None));
                let secret = passed.secret;
                let passed = Ok(Let { secret, identity, event_type, destination });
                Explanation { steps: notes.into_steps(), passed, hints: Vec::new() }
            }
            Err(refused) => {
                notes.refused(|| refused.reason.clone());
                let hints = mistakes::hints(snapshot, entry, &head, &payload, at);
                Explanation { steps: notes.into_steps(), passed: Err(refused.reason), hints }
            }
        }
    }
}

pub(super) fn destination(route: Route) -> Destination {
    match route {
        Route::Held { reason, .. } => Destination::Held { reason },
        Route::Filtered { reason, .. } => Destination::Filtered { reason },
        Route::To(dispatch) => {
            let agent_id = dispatch.agent_id;
            match dispatch.target {
                RouteTarget::New(_) => Destination::NewSession { agent_id },
                RouteTarget::Session(session_id) => Destination::Session { agent_id, session_id },
                RouteTarget::Key { key, .. } => Destination::Key { agent_id, key },
            }
        }
    }
}

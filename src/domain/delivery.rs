//! A delivery: one event sent by a source. The HTTP requests for it are its attempts.

use serde::Serialize;
use serde_json::{Value, json};

use super::{secret::SecretName, trace::TraceContext};
use crate::{
    clock::Timestamp,
    id::{AgentId, DeliveryId, SessionId, SourceId, TurnId, WebhookRequestId},
};

/// What was decided about a delivery when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Accepted,
    Filtered,
    Held,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Accepted => "accepted",
            Status::Filtered => "filtered",
            Status::Held => "held",
        }
    }

    pub fn parse(text: &str) -> Option<Status> {
        [Status::Accepted, Status::Filtered, Status::Held]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// What the agent made of it. Only an accepted delivery has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Pending,
    Running,
    Waiting,
    Succeeded,
    Failed,
    Cancelled,
    InDoubt,
}

impl Outcome {
    pub const ALL: [Outcome; 7] = [
        Outcome::Pending,
        Outcome::Running,
        Outcome::Waiting,
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Cancelled,
        Outcome::InDoubt,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Pending => "pending",
            Outcome::Running => "running",
            Outcome::Waiting => "waiting",
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::InDoubt => "in_doubt",
        }
    }

    pub fn parse(text: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// How a delivery was told from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What is unique within the source: the field's name and its value, at most 512 bytes of it
    /// or its SHA-256.
    pub key: String,
    /// The header or JSON pointer that gave it; `body_hash`, `none` or `replay` otherwise.
    pub field: String,
    /// Whether something between sender and us may rewrite it (`X-Request-Id`).
    pub weak: bool,
}

impl Identity {
    /// What stands in the place of the field where somebody has replayed a delivery.
    pub const REPLAY: &str = "replay";

    pub fn to_json(&self) -> Value {
        json!({"field": self.field, "key": self.key, "weak": self.weak})
    }

    /// Whether the sender gave no id.
    pub fn is_made_up(&self) -> bool {
        ["none", "body_hash"].contains(&self.field.as_str())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub source_id: SourceId,
    pub source_name: String,
    pub status: Status,
    pub outcome: Option<Outcome>,
    /// Why it was filtered or held.
    pub reason: Option<String>,
    pub agent_id: Option<AgentId>,
    pub session_id: Option<SessionId>,
    pub turn_id: Option<TurnId>,
    pub event_type: Option<String>,
    pub identity: Identity,
    pub request_id: WebhookRequestId,
    /// Where it stands in a trace: the sender's, or one that began here.
    pub trace: TraceContext,
    pub n_attempts: i64,
    pub received_at: Timestamp,
    pub content_type: Option<String>,
    pub body_bytes: i64,
    /// Names and values as received, sensitive values redacted.
    pub headers: Value,
    pub erased_at: Option<Timestamp>,
    /// The secret that let it in; none where a key of this server did.
    pub secret: Option<SecretName>,
    /// A delivery of the day before that had the same body under another id.
    pub possible_replay_of: Option<DeliveryId>,
    /// The sender's delivery that this one repeats by somebody's order; never itself a replay.
    pub replay_of: Option<DeliveryId>,
    /// Replays of it that were accepted.
    pub n_replays: i64,
    /// Whether the session that it went to is gone.
    pub session_deleted: bool,
}

impl Delivery {
    /// The delivery as a list shows it.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "delivery",
            "source": self.source_name,
            "source_id": self.source_id,
            "status": self.status,
            "outcome": self.outcome,
            "reason": self.reason,
            "agent_id": self.agent_id,
            "session_id": self.session_id,
            "turn_id": self.turn_id,
            "event_type": self.event_type,
            "identity": self.identity.to_json(),
            "request_id": self.request_id,
            "trace_id": self.trace.trace_id(),
            "attempts": self.n_attempts,
            "content_type": self.content_type,
            "body_bytes": self.body_bytes,
            "received_at": self.received_at,
            "erased_at": self.erased_at,
            "secret": self.secret.as_ref().map(SecretName::to_json),
            "possible_replay_of": self.possible_replay_of,
            "replay_of": self.replay_of,
            "replays": self.n_replays,
            "session_deleted": self.session_deleted,
        })
    }

    /// The delivery on its own, with its headers.
    pub fn to_json_with_headers(&self) -> Value {
        let mut value = self.to_json();
        value["headers"] = self.headers.clone();
        value
    }
}

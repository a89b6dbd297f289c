//! A session: one conversation of an agent in an environment, an inbox and a log.

use serde_json::{Value, json};

use super::{Metadata, agent::AgentSpec, cost::Cost, event::Usage};
use crate::{
    clock::Timestamp,
    id::{AgentId, EnvironmentId, SessionId, SourceId, TurnId},
};

/// The Managed Agents statuses, written by the worker in the transaction of the event that causes
/// the change. Archived sessions read `terminated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Idle,
    Running,
    Rescheduling,
    Terminated,
}

impl Status {
    pub const ALL: [Status; 4] =
        [Status::Idle, Status::Running, Status::Rescheduling, Status::Terminated];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Idle => "idle",
            Status::Running => "running",
            Status::Rescheduling => "rescheduling",
            Status::Terminated => "terminated",
        }
    }

    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub id: SessionId,
    pub agent_id: AgentId,
    pub agent_version: i64,
    /// What the session runs with: the agent's version, and overrides of this session.
    pub agent: AgentSpec,
    pub environment_id: EnvironmentId,
    /// The source whose delivery started it. A session with one is never trusted like a person's.
    pub source_id: Option<SourceId>,
    pub source_name: Option<String>,
    pub title: Option<String>,
    pub metadata: Metadata,
    pub status: Status,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
    /// Messages that have arrived and are not taken yet.
    pub n_waiting: i64,
    /// The number that the next event will get; also the number of events plus one.
    pub next_seq: i64,
    pub turn_id: Option<TurnId>,
    pub usage: Usage,
    pub cost: Cost,
    pub active_ms: i64,
}

impl Session {
    /// The `Session` object of the Managed Agents API.
    pub fn to_json(&self) -> Value {
        let status = match self.archived_at {
            Some(_) => Status::Terminated,
            None => self.status,
        };
        let duration_ms = self.updated_at.since(self.created_at).as_millis();
        json!({
            "id": self.id,
            "type": "session",
            "status": status.as_str(),
            "title": self.title,
            "agent": {
                "id": self.agent_id,
                "type": "agent",
                "version": self.agent_version,
                "name": self.agent.name,
                "description": self.agent.description,
                "model": self.agent.model,
                "system": self.agent.system,
                "tools": self.agent.tools,
                "mcp_servers": self.agent.mcp_servers,
                "skills": self.agent.skills,
                "multiagent": self.agent.multiagent,
                "execution_identity": {"type": "service_account"},
            },
            "environment_id": self.environment_id,
            "metadata": self.metadata,
            "resources": [],
            "vault_ids": [],
            "budget": null,
            "outcome_evaluations": [],
            "deployment_id": null,
            "usage": {
                "input_tokens": self.usage.input_tokens,
                "output_tokens": self.usage.output_tokens,
                "cache_read_input_tokens": self.usage.cache_read_input_tokens,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": self.usage.cache_creation_input_tokens,
                    "ephemeral_1h_input_tokens": 0,
                },
                "active_seconds": seconds(self.active_ms),
                "list_cost": self.cost.total().map(|total| {
                    json!({"amount": total.cents().to_string(), "currency": "USD"})
                }),
                // Ours: a session often costs less than a cent, and why a cost is not known.
                "cost_usd": self.cost.total(),
                "unpriced_requests": self.cost.n_unpriced,
            },
            "stats": {
                "active_seconds": seconds(self.active_ms),
                "duration_seconds": seconds(i64::try_from(duration_ms).unwrap_or(i64::MAX)),
            },
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
            "source": self.source_name,
            "messages_waiting": self.n_waiting,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 ms")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

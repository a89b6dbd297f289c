//! A session: one conversation of an agent in an environment, an inbox and a log.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Metadata, Problem,
    agent::{AgentPatch, AgentSpec},
    budget::Budget,
    check_metadata,
    cost::{Cost, MicroUsd},
    event::Usage,
    outcome::Outcome,
    resource::Resource,
};
use crate::{
    clock::Timestamp,
    id::{AgentId, DeploymentId, EnvironmentId, Id, SessionId, SourceId, ThreadId, TurnId},
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
    /// Vaults whose credentials it may use, the first one first.
    pub vault_ids: Vec<String>,
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
    /// Whether it has ever taken up anything.
    pub has_begun: bool,
    pub usage: Usage,
    pub cost: Cost,
    pub active_ms: i64,
    /// What it may use, by its own doing.
    pub budget: Budget,
    /// The deployment that started it.
    pub deployment_id: Option<DeploymentId>,
    pub resources: Vec<Resource>,
    /// What it was to reach, the first one first.
    pub outcomes: Vec<Outcome>,
}

impl Session {
    /// The `Session` object of the Managed Agents API, as it is now.
    pub fn to_json(&self, now: Timestamp) -> Value {
        let mut usage = self.usage_json();
        // Ours: a session often costs less than a cent, and why a cost is not known.
        usage["cost_usd"] = json!(self.cost.total());
        usage["unpriced_requests"] = json!(self.cost.n_unpriced);
        json!({
            "id": self.id,
            "type": "session",
            "status": self.status().as_str(),
            "title": self.title,
            "agent": self.agent_json(),
            "environment_id": self.environment_id,
            "metadata": self.metadata,
            "resources": self.resources.iter().map(Resource::to_json).collect::<Vec<_>>(),
            "vault_ids": self.vault_ids,
            "budget": self.budget.to_json(),
            // Ours: with the other limits, and to the millionth of a dollar.
            "limits": self.budget,
            "outcome_evaluations": self.outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>(),
            "deployment_id": self.deployment_id,
            "usage": usage,
            "stats": self.stats_json(now),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
            "source": self.source_name,
            "messages_waiting": self.n_waiting,
        })
    }

    /// As it is shown: who is archived is at its end.
    pub fn status(&self) -> Status {
        match self.archived_at {
            Some(_) => Status::Terminated,
            None => self.status,
        }
    }

    /// The one thread of the session, whose id needs no place of its own.
    pub fn primary_thread(&self) -> ThreadId {
        primary_thread(&self.id)
    }

    /// Its thread, as the `SessionThread` object of the API.
    pub fn thread_json(&self, now: Timestamp) -> Value {
        let mut agent = self.agent_json();
        if let Some(agent) = agent.as_object_mut() {
            // The session says it.
            agent.shift_remove("multiagent");
        }
        let (mut stats, mut usage) = (Value::Null, Value::Null);
        if self.has_begun {
            stats = self.stats_json(now);
            stats["startup_seconds"] = json!(0.0);
            if self.turn_id.is_none() || self.active_ms > 0 {
                usage = self.usage_json();
            }
        }
        json!({
            "id": self.primary_thread(),
            "type": "session_thread",
            "session_id": self.id,
            "parent_thread_id": null,
            "workflow_run_id": null,
            "agent": agent,
            "status": self.status().as_str(),
            "stats": stats,
            "usage": usage,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
        })
    }

    fn agent_json(&self) -> Value {
        json!({
            "id": self.agent_id,
            "type": "agent",
            "version": self.agent_version,
            "name": self.agent.name,
            "description": self.agent.description,
            "model": self.agent.model.to_json(),
            "system": self.agent.system,
            "tools": self.agent.tools,
            "mcp_servers": self.agent.mcp_servers,
            "skills": self.agent.skills,
            "multiagent": null,
            "execution_identity": {"type": "service_account"},
        })
    }

    /// The `SessionUsage` object of the API: what was used so far.
    pub fn usage_json(&self) -> Value {
        json!({
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cache_read_input_tokens": self.usage.cache_read_input_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.usage.cache_creation_input_tokens,
                "ephemeral_1h_input_tokens": 0,
            },
            "active_seconds": seconds(self.active_ms),
            "list_cost": self.cost.total().map(MicroUsd::to_amount),
        })
    }

    /// The clock stands where the session has come to its end.
    fn stats_json(&self, now: Timestamp) -> Value {
        let until = if self.status() == Status::Terminated { self.updated_at } else { now };
        let duration_ms = until.since(self.created_at).as_millis();
        json!({
            "active_seconds": seconds(self.active_ms),
            "duration_seconds": seconds(i64::try_from(duration_ms).unwrap_or(i64::MAX)),
        })
    }
}

/// A change of a session: a field left out stays.
#[derive(Clone, Debug, Default)]
pub struct SessionPatch {
    /// Null clears.
    pub title: Option<Option<String>>,
    /// Null deletes a key.
    pub metadata: BTreeMap<String, Option<String>>,
    /// The most that it may cost; null for no limit, from then on.
    pub budget: Option<Option<MicroUsd>>,
    /// Tools and MCP servers of this session only, each replaced as a whole.
    pub tools: Option<Value>,
    pub mcp_servers: Option<Value>,
}

impl SessionPatch {
    pub fn changes_agent(&self) -> bool {
        self.tools.is_some() || self.mcp_servers.is_some()
    }

    /// Changes the session, and tells what of it is new, as `session.updated` does; nothing where
    /// nothing is.
    pub fn apply(self, session: &mut Session) -> Result<Option<Map<String, Value>>, Problem> {
        let before = session.clone();
        let mut changed = Map::new();
        if let Some(title) = self.title
            && title != session.title
        {
            session.title = title;
            changed.insert("title".to_owned(), json!(session.title));
        }
        super::patch_metadata(&mut session.metadata, self.metadata);
        check_metadata(&session.metadata)?;
        // That nothing is left is not told, in the API's own words.
        if session.metadata != before.metadata && !session.metadata.is_empty() {
            changed.insert("metadata".to_owned(), json!(session.metadata));
        }
        if let Some(most) = self.budget {
            change_budget(session, most)?;
            if session.budget != before.budget {
                changed.insert("budget".to_owned(), json!(session.budget.to_json()));
            }
        }
        if self.tools.is_some() || self.mcp_servers.is_some() {
            let (tools, mcp_servers) = (self.tools, self.mcp_servers);
            let patch = AgentPatch { tools, mcp_servers, ..AgentPatch::default() };
            session.agent =
                patch.apply(before.agent.clone()).map_err(|problem| problem.within("agent"))?;
            if session.agent != before.agent {
                changed.insert("agent".to_owned(), session.agent_json());
            }
        }
        Ok((*session != before).then_some(changed))
    }
}

/// A budget can be raised, lowered to what is left, and removed for good.
fn change_budget(session: &mut Session, most: Option<MicroUsd>) -> Result<(), Problem> {
    let refuse = |message: &str, code| Err(Problem::new("budget", message).with_code(code));
    match (session.budget.cost_usd, most) {
        (None, Some(_)) => {
            refuse("can only be given when a session is created", "budget_create_only")
        }
        (Some(_), Some(most)) if most <= session.cost.known => {
            refuse("must be more than the session has cost so far", "budget_not_raised")
        }
        (_, most) => {
            session.budget.cost_usd = most;
            Ok(())
        }
    }
}

/// The id of a session's one thread: it follows from the session's own.
pub fn primary_thread(session: &SessionId) -> ThreadId {
    let suffix = session.as_str().strip_prefix(SessionId::PREFIX).unwrap_or_default();
    format!("{}{suffix}", ThreadId::PREFIX).parse().expect("made of an id")
}

#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 ms")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

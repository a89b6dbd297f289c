//! Deployments: an agent's version, where it works and what it is told, and when; and the record of
//! each time that one started a session, or could not.
//!
//! Invariant: a run has a session or an error, never both and never neither. Left out: what an
//! expression means, which is `schedule::cron`'s.

use serde_json::{Value, json};

use super::{Metadata, budget::Budget, resource::FileMount};
use crate::{
    clock::Timestamp,
    id::{AgentId, DeploymentId, DeploymentRunId, EnvironmentId, SessionId},
};

/// When it comes by itself: five fields of cron, and the IANA name of a time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub expression: String,
    pub timezone: String,
}

/// Why it does not come by itself for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paused {
    /// Somebody paused it.
    Manual,
    /// A run of its schedule failed, and the next one would fail as well.
    Error(RunErrorKind),
}

/// Why a run started no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunError {
    pub kind: RunErrorKind,
    pub message: String,
}

/// Those of the API's kinds that there can be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunErrorKind {
    AgentArchived,
    EnvironmentArchived,
    EnvironmentNotFound,
    FileNotFound,
    SessionCreationRejected,
    SelfHostedResourcesUnsupported,
    VaultArchived,
    VaultNotFound,
    /// It was not started at its time, and then it was too late.
    Unknown,
}

impl RunErrorKind {
    pub const ALL: [RunErrorKind; 9] = [
        RunErrorKind::AgentArchived,
        RunErrorKind::EnvironmentArchived,
        RunErrorKind::EnvironmentNotFound,
        RunErrorKind::FileNotFound,
        RunErrorKind::SessionCreationRejected,
        RunErrorKind::SelfHostedResourcesUnsupported,
        RunErrorKind::VaultArchived,
        RunErrorKind::VaultNotFound,
        RunErrorKind::Unknown,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RunErrorKind::AgentArchived => "agent_archived_error",
            RunErrorKind::EnvironmentArchived => "environment_archived_error",
            RunErrorKind::EnvironmentNotFound => "environment_not_found_error",
            RunErrorKind::FileNotFound => "file_not_found_error",
            RunErrorKind::SessionCreationRejected => "session_creation_rejected_error",
            RunErrorKind::SelfHostedResourcesUnsupported => {
                "self_hosted_resources_unsupported_error"
            }
            RunErrorKind::VaultArchived => "vault_archived_error",
            RunErrorKind::VaultNotFound => "vault_not_found_error",
            RunErrorKind::Unknown => "unknown_error",
        }
    }

    pub fn parse(text: &str) -> Option<RunErrorKind> {
        RunErrorKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether the next run would fail too: then the schedule rests until somebody looks.
    pub fn pauses(self) -> bool {
        !matches!(self, RunErrorKind::SessionCreationRejected | RunErrorKind::Unknown)
    }
}

impl Paused {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Paused::Manual => "manual",
            Paused::Error(kind) => kind.as_str(),
        }
    }

    pub fn parse(text: &str) -> Option<Paused> {
        match text {
            "manual" => Some(Paused::Manual),
            kind => RunErrorKind::parse(kind).map(Paused::Error),
        }
    }

    fn to_json(self) -> Value {
        match self {
            Paused::Manual => json!({"type": "manual"}),
            Paused::Error(kind) => json!({"type": "error", "error": {"type": kind.as_str()}}),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    pub id: DeploymentId,
    pub name: String,
    pub description: Option<String>,
    pub agent_id: AgentId,
    /// Pinned when it was saved.
    pub agent_version: i64,
    pub environment_id: EnvironmentId,
    /// What each of its sessions starts with: bodies of events.
    pub initial_events: Vec<Value>,
    pub resources: Vec<FileMount>,
    pub vault_ids: Vec<String>,
    pub metadata: Metadata,
    /// What each of its sessions may use.
    pub budget: Budget,
    pub schedule: Option<Schedule>,
    pub paused: Option<Paused>,
    /// When it comes next by itself; none while it rests.
    pub next_at: Option<Timestamp>,
    pub last_run_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Deployment {
    /// The `Deployment` object of the Managed Agents API. `upcoming` is what the schedule says.
    pub fn to_json(&self, upcoming: &[Timestamp]) -> Value {
        let archived = self.archived_at.is_some();
        // An archived one reads `active`.
        let paused = self.paused.filter(|_| !archived);
        let upcoming = if archived { &[] } else { upcoming };
        let mut shown = json!({
            "id": self.id,
            "type": "deployment",
            "name": self.name,
            "description": self.description,
            "agent": agent(&self.agent_id, self.agent_version),
            "environment_id": self.environment_id,
            "initial_events": self.initial_events,
            "resources": self.resources.iter().map(FileMount::to_json).collect::<Vec<_>>(),
            "vault_ids": self.vault_ids,
            "metadata": self.metadata,
            "schedule": self.schedule.as_ref().map(|schedule| json!({
                "type": "cron",
                "expression": schedule.expression,
                "timezone": schedule.timezone,
                "last_run_at": self.last_run_at,
                "upcoming_runs_at": upcoming,
            })),
            "status": if paused.is_some() { "paused" } else { "active" },
            "paused_reason": paused.map(Paused::to_json),
            // Ours, as for sessions.
            "limits": self.budget,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
        });
        if let Some(budget) = self.budget.to_json() {
            shown["budget"] = budget;
        }
        shown
    }
}

fn agent(id: &AgentId, version: i64) -> Value {
    json!({"type": "agent", "id": id, "version": version})
}

/// What made a deployment run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Somebody said so.
    Manual,
    /// Its schedule, for this time. Before it, so many times were passed over.
    Schedule { at: Timestamp, n_skipped: i64 },
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentRun {
    pub id: DeploymentRunId,
    pub deployment_id: DeploymentId,
    pub agent_id: AgentId,
    pub agent_version: i64,
    pub trigger: Trigger,
    pub outcome: Result<SessionId, RunError>,
    pub created_at: Timestamp,
}

impl DeploymentRun {
    /// The `DeploymentRun` object of the Managed Agents API.
    pub fn to_json(&self) -> Value {
        let (session, error) = match &self.outcome {
            Ok(session) => (Some(session), None),
            Err(error) => {
                let error = json!({"type": error.kind.as_str(), "message": error.message});
                (None, Some(error))
            }
        };
        json!({
            "id": self.id,
            "type": "deployment_run",
            "deployment_id": self.deployment_id,
            "agent": agent(&self.agent_id, self.agent_version),
            "session_id": session,
            "error": error,
            "trigger_context": match self.trigger {
                Trigger::Manual => json!({"type": "manual"}),
                Trigger::Schedule { at, n_skipped } => {
                    // How many were passed over is ours.
                    json!({"type": "schedule", "scheduled_at": at, "skipped_runs": n_skipped})
                }
            },
            "created_at": self.created_at,
        })
    }
}

//! An environment: where an agent's tools run.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ManagedBy, Metadata};
use crate::{clock::Timestamp, id::EnvironmentId};

/// The environment that exists from the start.
pub const DEFAULT_NAME: &str = "default";

/// How sessions share a project directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workspace {
    /// In place; sessions take turns.
    #[default]
    Shared,
    Worktree,
    Copy,
}

/// `config` of an environment. `cloud` is our sandbox with a fresh workspace; `local`, our
/// extension, works in a project directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EnvironmentConfig {
    Cloud {
        #[serde(default)]
        networking: Value,
        #[serde(default)]
        packages: Value,
    },
    Local {
        project: String,
        #[serde(default)]
        workspace: Workspace,
    },
    SelfHosted,
}

impl EnvironmentConfig {
    pub fn cloud() -> EnvironmentConfig {
        EnvironmentConfig::Cloud {
            networking: json!({"type": "unrestricted"}),
            packages: json!({"type": "packages", "apt": [], "cargo": [], "gem": [], "go": [],
                "npm": [], "pip": []}),
        }
    }

    pub fn project(&self) -> Option<&str> {
        match self {
            EnvironmentConfig::Local { project, .. } => Some(project),
            EnvironmentConfig::Cloud { .. } | EnvironmentConfig::SelfHosted => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    pub id: EnvironmentId,
    pub name: String,
    pub description: Option<String>,
    pub config: EnvironmentConfig,
    pub metadata: Metadata,
    pub managed_by: ManagedBy,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Environment {
    /// The `Environment` object of the Managed Agents API.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "environment",
            "name": self.name,
            "description": self.description,
            "config": self.config,
            "metadata": self.metadata,
            "scope": "organization",
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
            "managed_by": self.managed_by.as_str(),
        })
    }
}

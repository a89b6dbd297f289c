//! An environment: where an agent's tools run.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ManagedBy, Metadata, Problem};
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

    /// Reads `config` as requests give it, with every default filled in. What is left out, and null,
    /// means a sandbox with an open network.
    pub fn parse(value: &Value) -> Result<EnvironmentConfig, Problem> {
        match value.get("type").and_then(Value::as_str) {
            None if value.is_null() => Ok(EnvironmentConfig::cloud()),
            Some("cloud") => {
                check_keys(value, "config", &["type", "networking", "packages"])?;
                let networking = networking(&value["networking"])?;
                let packages = packages(&value["packages"])?;
                let any = packages.as_object().into_iter().flatten();
                let any =
                    any.into_iter().any(|(_, it)| it.as_array().is_some_and(|it| !it.is_empty()));
                if any && networking["allow_package_managers"] == false {
                    return Err(Problem::new(
                        "config.packages",
                        "need `allow_package_managers` where networking is limited",
                    ));
                }
                Ok(EnvironmentConfig::Cloud { networking, packages })
            }
            Some("local") => {
                check_keys(value, "config", &["type", "project", "workspace"])?;
                let project = value["project"].as_str().filter(|it| it.starts_with('/'));
                let project = project.ok_or_else(|| {
                    Problem::new("config.project", "is required and must be an absolute path")
                })?;
                let workspace = match &value["workspace"] {
                    Value::Null => Workspace::default(),
                    given => Workspace::deserialize(given).map_err(|_| {
                        Problem::new("config.workspace", "must be `shared`, `worktree` or `copy`")
                    })?,
                };
                Ok(EnvironmentConfig::Local { project: project.to_owned(), workspace })
            }
            Some("self_hosted") => {
                Err(Problem::new("config.type", "`self_hosted` is not supported by this server"))
            }
            Some(_) | None => Err(Problem::new("config.type", "must be `cloud` or `local`")),
        }
    }

    /// Whether its sessions work in one directory, and so one after the other.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, EnvironmentConfig::Local { workspace: Workspace::Shared, .. })
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

const MANAGERS: [&str; 6] = ["apt", "cargo", "gem", "go", "npm", "pip"];

fn packages(value: &Value) -> Result<Value, Problem> {
    let at = "config.packages";
    check_keys(value, at, &["type", "apt", "cargo", "gem", "go", "npm", "pip"])?;
    let mut resolved = json!({"type": "packages"});
    for manager in MANAGERS {
        resolved[manager] = texts(&value[manager], &format!("{at}.{manager}"))?;
    }
    Ok(resolved)
}

fn networking(value: &Value) -> Result<Value, Problem> {
    let at = "config.networking";
    match value.get("type").and_then(Value::as_str) {
        None if value.is_null() => Ok(json!({"type": "unrestricted"})),
        Some("unrestricted") => {
            check_keys(value, at, &["type"])?;
            Ok(json!({"type": "unrestricted"}))
        }
        Some("limited") => {
            let names = ["type", "allow_mcp_servers", "allow_package_managers", "allowed_hosts"];
            check_keys(value, at, &names)?;
            let flag = |name: &str| match &value[name] {
                Value::Null => Ok(false),
                Value::Bool(flag) => Ok(*flag),
                _ => Err(Problem::new(format!("{at}.{name}"), "must be true or false")),
            };
            Ok(json!({
                "type": "limited",
                "allow_mcp_servers": flag("allow_mcp_servers")?,
                "allow_package_managers": flag("allow_package_managers")?,
                "allowed_hosts": texts(&value["allowed_hosts"], &format!("{at}.allowed_hosts"))?,
            }))
        }
        Some(_) | None => {
            Err(Problem::new(format!("{at}.type"), "must be `unrestricted` or `limited`"))
        }
    }
}

/// Entries of a list of texts.
const TEXTS_MAX: usize = 256;

fn texts(value: &Value, at: &str) -> Result<Value, Problem> {
    let wrong = || Problem::new(at, format!("must be a list of up to {TEXTS_MAX} texts"));
    match value {
        Value::Null => Ok(json!([])),
        Value::Array(list) if list.len() <= TEXTS_MAX && list.iter().all(Value::is_string) => {
            Ok(value.clone())
        }
        _ => Err(wrong()),
    }
}

fn check_keys(value: &Value, at: &str, known: &[&str]) -> Result<(), Problem> {
    let map = match value {
        Value::Null => return Ok(()),
        Value::Object(map) => map,
        _ => return Err(Problem::new(at, "must be an object")),
    };
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Problem::new(format!("{at}.{key}"), "is not a field of it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_and_mistakes_named() {
        let parse = |value| EnvironmentConfig::parse(&value);
        assert_eq!(parse(json!(null)).unwrap(), EnvironmentConfig::cloud());
        assert_eq!(parse(json!({"type": "cloud"})).unwrap(), EnvironmentConfig::cloud());
        let limited = parse(json!({"type": "cloud", "networking": {"type": "limited"},
            "packages": {"pip": []}}));
        assert_eq!(
            serde_json::to_value(limited.unwrap()).unwrap()["networking"],
            json!({"type": "limited", "allow_mcp_servers": false, "allow_package_managers": false,
                "allowed_hosts": []})
        );
        for (value, field) in [
            (json!({}), "config.type"),
            (json!({"type": "cloud", "x": 1}), "config.x"),
            (json!({"type": "cloud", "networking": {"type": "none"}}), "config.networking.type"),
            (json!({"type": "cloud", "packages": {"pip": "a"}}), "config.packages.pip"),
            (
                json!({"type": "cloud", "networking": {"type": "limited"},
                    "packages": {"pip": ["a"]}}),
                "config.packages",
            ),
            (json!({"type": "local", "project": "x"}), "config.project"),
            (json!({"type": "self_hosted"}), "config.type"),
        ] {
            assert_eq!(parse(value).unwrap_err().field, field);
        }
    }
}

//! An agent: a versioned persona. Changing what it is makes a new version; pausing it does not.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Metadata, Problem, callback::Callback, check_metadata, credential::check_shown_url,
    exposure::Exposure, model::ModelConfig, text::clean, toolset, toolset::Toolset,
    turn::TurnLimits,
};
use crate::{clock::Timestamp, domain::ManagedBy, id::AgentId};

/// The agent that a source without one uses.
pub const DEFAULT_NAME: &str = "default";

/// What a version pins: everything about an agent that its behaviour depends on. Field names and
/// shapes are those of the Managed Agents API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentSpec {
    pub name: String,
    pub description: Option<String>,
    pub model: ModelConfig,
    pub system: Option<String>,
    pub tools: Vec<Toolset>,
    pub mcp_servers: Vec<Value>,
    pub skills: Vec<Value>,
    pub metadata: Metadata,
    pub multiagent: Option<Value>,
}

impl AgentSpec {
    pub fn new(name: &str, model: &str) -> AgentSpec {
        AgentSpec {
            name: name.to_owned(),
            description: None,
            model: ModelConfig::named(model),
            system: None,
            tools: Vec::new(),
            mcp_servers: Vec::new(),
            skills: Vec::new(),
            metadata: Metadata::new(),
            multiagent: None,
        }
    }
}

/// One version of an agent together with what all versions share.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    pub id: AgentId,
    pub version: i64,
    pub spec: AgentSpec,
    pub paused: bool,
    pub limits: TurnLimits,
    /// Where the results of its sessions are sent, and since when that is off.
    pub callback: Option<(Callback, Option<Timestamp>)>,
    pub managed_by: ManagedBy,
    pub created_at: Timestamp,
    /// When this version was made.
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Agent {
    /// The `Agent` object of the Managed Agents API.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "agent",
            "version": self.version,
            "name": self.spec.name,
            "description": self.spec.description,
            "model": self.spec.model.to_json(),
            "system": self.spec.system,
            "tools": self.spec.tools,
            "mcp_servers": self.spec.mcp_servers,
            "skills": self.spec.skills,
            "multiagent": self.spec.multiagent,
            "metadata": self.spec.metadata,
            "execution_identity": {"type": "service_account"},
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
            "paused": self.paused,
            "turns_at_once_max": self.limits.at_once_max,
            "turns_per_minute_max": self.limits.per_minute_max,
            "exposure": Exposure::of_agent(&self.spec.tools).to_json(&self.spec.tools),
            "callback": self.callback.as_ref().map(|(callback, off)| callback.to_json(*off)),
            "managed_by": self.managed_by.as_str(),
        })
    }
}

/// A change of an agent, as create and update give it: a field left out stays.
///
/// `system`, `description`: null or `""` clears. `tools`, `mcp_servers`, `skills`: replaced as a
/// whole, null clears. `name` and `model` cannot be cleared. `metadata` is a patch.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentPatch {
    #[serde(default, deserialize_with = "present")]
    pub name: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub description: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub model: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub system: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub tools: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub mcp_servers: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub skills: Option<Value>,
    #[serde(default)]
    pub metadata: Option<std::collections::BTreeMap<String, Option<String>>>,
    #[serde(default, deserialize_with = "present")]
    pub multiagent: Option<Value>,
    /// Answered with a constant: this server has one identity.
    #[serde(default)]
    pub execution_identity: Option<Value>,
    /// The version that the caller has seen; another one is current: 409.
    #[serde(default)]
    pub version: Option<i64>,
}

/// Tells a field that is null from one that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl AgentPatch {
    /// The spec of a new agent.
    pub fn create(self) -> Result<AgentSpec, Problem> {
        if self.name.is_none() {
            return Err(Problem::new("name", "is required"));
        }
        if self.model.is_none() {
            return Err(Problem::new("model", "is required"));
        }
        if self.metadata.iter().flatten().any(|(_, value)| value.is_none()) {
            return Err(Problem::new("metadata", "must be an object of texts"));
        }
        self.apply(AgentSpec::new("", ""))
    }

    /// The spec after the change, validated as a whole.
    pub fn apply(self, mut spec: AgentSpec) -> Result<AgentSpec, Problem> {
        if self.version.is_some_and(|version| version < 1) {
            return Err(Problem::new("version", "must be a whole number from 1"));
        }
        if let Some(name) = self.name {
            spec.name = text("name", &name, 256)?
                .filter(|name| !name.is_empty())
                .ok_or_else(|| Problem::new("name", "must have 1 to 256 characters"))?;
        }
        if let Some(description) = self.description {
            spec.description = text("description", &description, 2048)?.filter(|it| !it.is_empty());
        }
        if let Some(system) = self.system {
            spec.system = text("system", &system, 100_000)?.filter(|it| !it.is_empty());
        }
        if let Some(model) = self.model {
            let mut parsed = ModelConfig::parse(&model)?;
            if ModelConfig::leaves_effort(&model) && parsed.id == spec.model.id {
                parsed.effort = spec.model.effort.take();
            }
            spec.model = parsed;
        }
        if let Some(tools) = self.tools {
            spec.tools = toolset::parse(&tools)?;
        }
        if let Some(servers) = self.mcp_servers {
            spec.mcp_servers = mcp_servers(servers)?;
        }
        if let Some(skills) = self.skills {
            spec.skills = self::skills(skills)?;
        }
        if let Some(multiagent) = self.multiagent {
            if !multiagent.is_null() {
                let message = "must be null: on this server an agent works alone";
                return Err(Problem::new("multiagent", message));
            }
            spec.multiagent = None;
        }
        if let Some(identity) = self.execution_identity {
            check_identity(&identity)?;
        }
        if let Some(patch) = self.metadata {
            super::patch_metadata(&mut spec.metadata, patch);
        }
        check(&spec)?;
        Ok(spec)
    }
}

/// There is one, which every agent has.
fn check_identity(value: &Value) -> Result<(), Problem> {
    if value.is_null() || *value == json!({"type": "service_account"}) {
        return Ok(());
    }
    let message = "must be {\"type\": \"service_account\"}: this server takes no other role";
    Err(Problem::new("execution_identity", message))
}

/// Skills of an agent.
const SKILLS_MAX: usize = 20;

/// Skills as they are shown: without a version it is whichever is the latest.
fn skills(value: Value) -> Result<Vec<Value>, Problem> {
    let read = |(index, skill): (usize, &Value)| {
        let at = format!("skills[{index}]");
        let known = ["type", "skill_id", "version"];
        let is_known =
            skill.as_object().is_some_and(|it| it.keys().all(|key| known.contains(&&**key)));
        let kind = skill["type"].as_str().filter(|it| ["anthropic", "custom"].contains(it));
        let id = skill["skill_id"].as_str().filter(|it| (1..=256).contains(&it.len()));
        let version = match &skill["version"] {
            Value::Null => Some("latest"),
            version => version.as_str().filter(|it| (1..=256).contains(&it.len())),
        };
        match (is_known, kind, id, version) {
            (true, Some(kind), Some(id), Some(version)) => {
                Ok(json!({"type": kind, "skill_id": id, "version": version}))
            }
            _ => {
                let message =
                    "must be {\"type\": \"anthropic\" or \"custom\", \"skill_id\", \"version\"}";
                Err(Problem::new(at, message))
            }
        }
    };
    list("skills", value, SKILLS_MAX)?.iter().enumerate().map(read).collect()
}

/// Rules over the whole of a spec.
fn check(spec: &AgentSpec) -> Result<(), Problem> {
    check_metadata(&spec.metadata)?;
    if !spec.skills.is_empty() && toolset::tool_policy(&spec.tools, "read").is_none() {
        return Err(Problem::new("skills", "need the tool `read` in `tools`"));
    }
    for server in &spec.mcp_servers {
        let name = server["name"].as_str().unwrap_or_default();
        let named = spec.tools.iter().any(
            |tool| matches!(tool, Toolset::Mcp { mcp_server_name, .. } if mcp_server_name == name),
        );
        if !named {
            return Err(Problem::new(
                "mcp_servers",
                format!("`{name}` is not named by any `mcp_toolset` in `tools`"),
            ));
        }
    }
    for tool in &spec.tools {
        if let Toolset::Mcp { mcp_server_name, .. } = tool {
            let known = spec.mcp_servers.iter().any(|it| it["name"] == mcp_server_name.as_str());
            if !known {
                return Err(Problem::new(
                    "tools",
                    format!(
                        "`mcp_toolset` names `{mcp_server_name}`, which is not in `mcp_servers`"
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn mcp_servers(value: Value) -> Result<Vec<Value>, Problem> {
    let servers = list("mcp_servers", value, 20)?;
    let mut names = std::collections::BTreeSet::new();
    for (index, server) in servers.iter().enumerate() {
        let at = format!("mcp_servers[{index}]");
        let name = server["name"].as_str().filter(|name| (1..=255).contains(&name.len()));
        let name = name.ok_or_else(|| {
            Problem::new(format!("{at}.name"), "is required and has 1 to 255 characters")
        })?;
        if !names.insert(name) {
            return Err(Problem::new(format!("{at}.name"), format!("`{name}` is there twice")));
        }
        if server["type"] != "url" || !server["url"].is_string() {
            return Err(Problem::new(at, "must be {\"type\": \"url\", \"name\", \"url\"}"));
        }
        let known = |key: &&String| ["type", "name", "url"].contains(&key.as_str());
        if let Some(key) = server.as_object().and_then(|it| it.keys().find(|key| !known(key))) {
            let message = "is not a field of a server; its token is a credential of a vault";
            return Err(Problem::new(format!("{at}.{}", clean(key)), message));
        }
        let url = server["url"].as_str().unwrap_or_default();
        // What the operator named, in the sandbox.
        let is_program = url.strip_prefix("stdio:").is_some_and(|name| !name.is_empty());
        if !is_program && let Err(message) = check_shown_url(url) {
            return Err(Problem::new(format!("{at}.url"), message));
        }
    }
    Ok(servers)
}

fn list(field: &str, value: Value, n_max: usize) -> Result<Vec<Value>, Problem> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) if list.len() <= n_max => Ok(list),
        Value::Array(_) => Err(Problem::new(field, format!("has more than {n_max} entries"))),
        _ => Err(Problem::new(field, "must be a list")),
    }
}

fn text(field: &str, value: &Value, chars_max: usize) -> Result<Option<String>, Problem> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() <= chars_max => {
            Ok(Some(clean(text).into_owned()))
        }
        Value::String(_) => {
            Err(Problem::new(field, format!("is longer than {chars_max} characters")))
        }
        _ => Err(Problem::new(field, "must be a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(value: Value) -> AgentPatch {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_field_left_out_stays_and_null_clears() {
        let spec =
            patch(json!({"name": "n", "model": "rehearsal", "system": "s"})).create().unwrap();
        let same = patch(json!({})).apply(spec.clone()).unwrap();
        assert_eq!(same, spec);
        let cleared = patch(json!({"system": null})).apply(spec.clone()).unwrap();
        assert_eq!(cleared.system, None);
        assert!(patch(json!({"name": null})).apply(spec).is_err());
    }

    #[test]
    fn metadata_is_a_patch() {
        let spec = patch(json!({"name": "n", "model": "m", "metadata": {"a": "1", "b": "2"}}))
            .create()
            .unwrap();
        let spec = patch(json!({"metadata": {"a": null, "c": "3"}})).apply(spec).unwrap();
        assert_eq!(serde_json::to_value(spec.metadata).unwrap(), json!({"b": "2", "c": "3"}));
        let nothing = patch(json!({"name": "n", "model": "m", "metadata": {"a": null}}));
        assert_eq!(nothing.create().unwrap_err().field, "metadata");
    }

    #[test]
    fn mcp_servers_and_toolsets_name_each_other() {
        let server = json!([{"type": "url", "name": "s", "url": "https://example.com"}]);
        let spec = patch(json!({"name": "n", "model": "m", "mcp_servers": server})).create();
        assert_eq!(spec.unwrap_err().field, "mcp_servers");
    }

    #[test]
    fn a_server_has_no_token_in_its_url() {
        let check = |url: &str| {
            let server = json!([{"type": "url", "name": "s", "url": url}]);
            let tools = json!([{"type": "mcp_toolset", "mcp_server_name": "s"}]);
            patch(json!({"name": "n", "model": "m", "mcp_servers": server, "tools": tools}))
                .create()
        };
        for url in ["https://a.example/mcp?project=x", "https://a.example/mcp?token=", "stdio:x"] {
            assert!(check(url).is_ok(), "{url}");
        }
        for url in [
            "https://a.example/mcp?token=hush",
            "https://a.example/mcp?a=b&Api-Key=hush",
            "https://a.example/mcp?X-Amz-Signature=hush",
            "https://u:hush@a.example/mcp",
        ] {
            let problem = check(url).unwrap_err();
            assert_eq!(problem.field, "mcp_servers[0].url");
            assert!(!problem.message.contains("hush"), "{}", problem.message);
        }
    }
}

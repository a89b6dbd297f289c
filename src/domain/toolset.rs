//! The `tools` of an agent, as the Managed Agents API shapes them: given with gaps, answered with
//! every default filled in.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Problem;

/// The tools of `agent_toolset_20260401`.
pub const BUILT_IN: [&str; 8] =
    ["bash", "read", "write", "edit", "glob", "grep", "web_fetch", "web_search"];

/// Tools over all toolsets of an agent.
pub const TOOLS_MAX: usize = 256;

/// `{type: always_allow | always_ask | auto}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Policy {
    AlwaysAllow,
    AlwaysAsk,
    Auto,
}

/// What applies to every tool of a set that has no entry of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefaultConfig {
    pub enabled: bool,
    pub permission_policy: Policy,
}

/// One resolved entry: `enabled` and `permission_policy` are always there, settings that belong to
/// one tool (such as `allowed_domains`) are kept beside them as they were given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolConfig {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    pub enabled: bool,
    pub permission_policy: Policy,
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Toolset {
    #[serde(rename = "agent_toolset_20260401")]
    Agent { configs: Vec<ToolConfig>, default_config: DefaultConfig },
    #[serde(rename = "mcp_toolset")]
    Mcp { mcp_server_name: String, configs: Vec<ToolConfig>, default_config: DefaultConfig },
    #[serde(rename = "custom")]
    Custom { name: String, description: String, input_schema: Value },
}

/// Reads `tools` as requests give them and fills in the defaults: the agent toolset allows, an MCP
/// toolset asks, an entry inherits from its set.
pub fn parse(value: &Value) -> Result<Vec<Toolset>, Problem> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(Problem::new("tools", "must be a list")),
    };
    let tools = list
        .iter()
        .enumerate()
        .map(|(index, value)| parse_one(value, &format!("tools[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    if tools.len() > TOOLS_MAX {
        return Err(Problem::new("tools", "has more than 256 entries"));
    }
    Ok(tools)
}

fn parse_one(value: &Value, at: &str) -> Result<Toolset, Problem> {
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "agent_toolset_20260401" => {
            let default_config = parse_default(value, Policy::AlwaysAllow, at)?;
            let configs = parse_configs(value, &default_config, at)?
                .into_iter()
                .map(|mut config| {
                    config.r#type = Some(config.name.clone());
                    config
                })
                .collect::<Vec<_>>();
            match configs.iter().find(|config| !BUILT_IN.contains(&config.name.as_str())) {
                Some(config) => Err(Problem::new(
                    format!("{at}.configs"),
                    format!("`{}` is not one of {}", config.name, BUILT_IN.join(", ")),
                )),
                None => Ok(Toolset::Agent { configs, default_config }),
            }
        }
        "mcp_toolset" => {
            let default_config = parse_default(value, Policy::AlwaysAsk, at)?;
            let configs = parse_configs(value, &default_config, at)?;
            Ok(Toolset::Mcp {
                mcp_server_name: text(value, "mcp_server_name", at)?,
                configs,
                default_config,
            })
        }
        "custom" => parse_custom(value, at),
        _ => Err(Problem::new(
            format!("{at}.type"),
            "must be `agent_toolset_20260401`, `mcp_toolset` or `custom`",
        )),
    }
}

fn parse_custom(value: &Value, at: &str) -> Result<Toolset, Problem> {
    let name = text(value, "name", at)?;
    let valid = (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if !valid {
        return Err(Problem::new(
            format!("{at}.name"),
            "must be 1 to 128 letters, digits, `_` or `-`",
        ));
    }
    let input_schema = value.get("input_schema").cloned().unwrap_or_else(|| json!({}));
    if input_schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(Problem::new(
            format!("{at}.input_schema"),
            "must be a JSON schema whose `type` is `object`",
        ));
    }
    Ok(Toolset::Custom { name, description: text(value, "description", at)?, input_schema })
}

fn parse_default(value: &Value, policy: Policy, at: &str) -> Result<DefaultConfig, Problem> {
    let at = format!("{at}.default_config");
    let given = value.get("default_config").unwrap_or(&Value::Null);
    Ok(DefaultConfig {
        enabled: enabled(given, &at)?.unwrap_or(true),
        permission_policy: self::policy(given, &at)?.unwrap_or(policy),
    })
}

fn parse_configs(
    value: &Value,
    default: &DefaultConfig,
    at: &str,
) -> Result<Vec<ToolConfig>, Problem> {
    let list = match value.get("configs") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Problem::new(format!("{at}.configs"), "must be a list")),
    };
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            let at = format!("{at}.configs[{index}]");
            let mut settings = value.as_object().cloned().unwrap_or_default();
            for key in ["name", "type", "enabled", "permission_policy"] {
                settings.shift_remove(key);
            }
            Ok(ToolConfig {
                name: text(value, "name", &at)?,
                r#type: None,
                enabled: enabled(value, &at)?.unwrap_or(default.enabled),
                permission_policy: policy(value, &at)?.unwrap_or(default.permission_policy),
                settings,
            })
        })
        .collect()
}

fn enabled(value: &Value, at: &str) -> Result<Option<bool>, Problem> {
    match value.get("enabled") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(enabled)) => Ok(Some(*enabled)),
        Some(_) => Err(Problem::new(format!("{at}.enabled"), "must be true or false")),
    }
}

fn policy(value: &Value, at: &str) -> Result<Option<Policy>, Problem> {
    match value.get("permission_policy") {
        None | Some(Value::Null) => Ok(None),
        Some(policy) => Policy::deserialize(policy).map(Some).map_err(|_| {
            Problem::new(
                format!("{at}.permission_policy"),
                "must be {\"type\": \"always_allow\"}, \"always_ask\" or \"auto\"",
            )
        }),
    }
}

fn text(value: &Value, key: &str, at: &str) -> Result<String, Problem> {
    match value.get(key) {
        Some(Value::String(text)) => Ok(super::text::clean(text).into_owned()),
        _ => Err(Problem::new(format!("{at}.{key}"), "is required and must be a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_from_the_set() {
        let tools = parse(&json!([
            {"type": "agent_toolset_20260401", "configs": [{"name": "bash", "enabled": false}]},
            {"type": "mcp_toolset", "mcp_server_name": "s", "configs": [{"name": "t"}]},
        ]))
        .unwrap();
        assert_eq!(
            serde_json::to_value(&tools).unwrap(),
            json!([
                {
                    "type": "agent_toolset_20260401",
                    "configs": [{"name": "bash", "type": "bash", "enabled": false,
                        "permission_policy": {"type": "always_allow"}}],
                    "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}},
                },
                {
                    "type": "mcp_toolset",
                    "mcp_server_name": "s",
                    "configs": [{"name": "t", "enabled": true,
                        "permission_policy": {"type": "always_ask"}}],
                    "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}},
                },
            ])
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let message = |value| parse(&value).unwrap_err().to_string();
        assert!(message(json!([{"type": "x"}])).starts_with("tools[0].type: must be"));
        assert!(
            message(json!([{"type": "agent_toolset_20260401", "configs": [{"name": "rm"}]}]))
                .starts_with("tools[0].configs: `rm` is not one of bash")
        );
        assert!(
            message(json!([{"type": "custom", "name": "a b", "description": ""}]))
                .starts_with("tools[0].name")
        );
    }
}

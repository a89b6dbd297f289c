//! The `tools` of an agent, as the Managed Agents API shapes them: given with gaps, answered with
//! every default filled in.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Problem,
    access::{is_host, is_of},
};

/// The tools of `agent_toolset_20260401`.
pub const BUILT_IN: [&str; 8] =
    ["bash", "read", "write", "edit", "glob", "grep", "web_fetch", "web_search"];

/// Tools of the toolset that this server knows and does not have: it would need a search service.
pub const NOT_HERE: [&str; 1] = ["web_search"];

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
    check(&tools)?;
    Ok(tools)
}

/// Rules over all of an agent's tools.
fn check(tools: &[Toolset]) -> Result<(), Problem> {
    let count = |set: &Toolset| match set {
        Toolset::Agent { .. } => BUILT_IN.len(),
        Toolset::Mcp { configs, .. } => configs.len(),
        Toolset::Custom { .. } => 1,
    };
    if tools.iter().map(count).sum::<usize>() > TOOLS_MAX {
        return Err(Problem::new("tools", format!("has more than {TOOLS_MAX} tools")));
    }
    let has_built_in = tools.iter().any(|set| matches!(set, Toolset::Agent { .. }));
    let mut names = BTreeSet::new();
    for (index, set) in tools.iter().enumerate() {
        let (kind, name) = match set {
            Toolset::Agent { .. } => ("agent", ""),
            Toolset::Mcp { mcp_server_name, .. } => ("mcp", mcp_server_name.as_str()),
            Toolset::Custom { name, .. } => ("custom", name.as_str()),
        };
        let is_taken = kind == "custom" && has_built_in && BUILT_IN.contains(&name);
        if is_taken || !names.insert((kind, name)) {
            let (at, message) = match kind {
                "agent" => ("type", "is there twice".to_owned()),
                "mcp" => ("mcp_server_name", format!("`{name}` has a toolset already")),
                _ => ("name", format!("`{name}` is the name of another tool")),
            };
            return Err(Problem::new(format!("tools[{index}].{at}"), message));
        }
    }
    Ok(())
}

/// What applies to a built-in tool of an agent; `None` when the agent does not have it.
pub fn tool_policy(tools: &[Toolset], name: &str) -> Option<Policy> {
    let (configs, default) = tools.iter().find_map(|set| match set {
        Toolset::Agent { configs, default_config } => Some((configs, default_config)),
        Toolset::Mcp { .. } | Toolset::Custom { .. } => None,
    })?;
    if !BUILT_IN.contains(&name) {
        return None;
    }
    match configs.iter().find(|config| config.name == name) {
        Some(config) => config.enabled.then_some(config.permission_policy),
        None => default.enabled.then_some(default.permission_policy),
    }
}

/// What is set of an MCP server: for some of its tools, and for all others.
pub fn of_server<'a>(
    tools: &'a [Toolset],
    server: &str,
) -> Option<(&'a [ToolConfig], &'a DefaultConfig)> {
    tools.iter().find_map(|set| match set {
        Toolset::Mcp { mcp_server_name, configs, default_config } if mcp_server_name == server => {
            Some((configs.as_slice(), default_config))
        }
        Toolset::Agent { .. } | Toolset::Mcp { .. } | Toolset::Custom { .. } => None,
    })
}

/// What applies to a tool of an MCP server; `None` when the agent does not have it.
pub fn mcp_policy(tools: &[Toolset], server: &str, name: &str) -> Option<Policy> {
    let (configs, default) = of_server(tools, server)?;
    match configs.iter().find(|config| config.name == name) {
        Some(config) => config.enabled.then_some(config.permission_policy),
        None => default.enabled.then_some(default.permission_policy),
    }
}

/// Whether any tool of any MCP server may be there.
pub fn has_mcp(tools: &[Toolset]) -> bool {
    tools.iter().any(|set| match set {
        Toolset::Mcp { configs, default_config, .. } => {
            default_config.enabled || configs.iter().any(|config| config.enabled)
        }
        Toolset::Agent { .. } | Toolset::Custom { .. } => false,
    })
}

const OFFERED: &str = "mcp__";

/// Longest name that every provider takes.
const OFFERED_BYTES_MAX: usize = 64;

/// The name by which a model is told of a server's tool. Names that would be read in two ways, or that
/// no provider takes, get a mark that tells them apart.
pub fn offered_name(server: &str, tool: &str) -> String {
    let plain = |text: &str| -> String {
        let is_plain = |char: &char| char.is_ascii_alphanumeric() || "_-".contains(*char);
        text.chars().map(|char| if is_plain(&char) { char } else { '_' }).collect()
    };
    let (server_part, tool_part) = (plain(server), plain(tool));
    let name = format!("{OFFERED}{server_part}__{tool_part}");
    let is_clear = server_part == server
        && tool_part == tool
        && !server.contains("__")
        && !server.ends_with('_')
        && !tool.starts_with('_')
        && name.len() <= OFFERED_BYTES_MAX;
    if is_clear {
        return name;
    }
    let text = format!("{server}\0{tool}");
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mark = super::text::hex(&hash.as_ref()[..5]);
    let kept = name.len().min(OFFERED_BYTES_MAX - mark.len() - 1);
    format!("{}_{mark}", &name[..kept])
}

/// Whether a name is one that [`offered_name`] made.
pub fn is_offered(name: &str) -> bool {
    name.starts_with(OFFERED)
}

fn parse_one(value: &Value, at: &str) -> Result<Toolset, Problem> {
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "agent_toolset_20260401" => {
            known(value, &["type", "configs", "default_config"], at)?;
            let default_config = parse_default(value, Policy::AlwaysAllow, at)?;
            let configs = parse_configs(value, &default_config, at)?;
            let built_in = |(index, config)| built_in(config, &format!("{at}.configs[{index}]"));
            let configs = configs.into_iter().enumerate().map(built_in);
            Ok(Toolset::Agent { configs: configs.collect::<Result<_, _>>()?, default_config })
        }
        "mcp_toolset" => {
            known(value, &["type", "mcp_server_name", "configs", "default_config"], at)?;
            let default_config = parse_default(value, Policy::AlwaysAsk, at)?;
            let configs = parse_configs(value, &default_config, at)?;
            for (index, config) in configs.iter().enumerate() {
                let at = format!("{at}.configs[{index}]");
                known_settings(config, &[], &at)?;
                if config.r#type.is_some() {
                    return Err(Problem::new(format!("{at}.type"), "is not a field of it"));
                }
            }
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

/// Settings that a tool has beside the two of all tools.
fn settings_of(name: &str) -> &'static [&'static str] {
    match name {
        "web_fetch" => &["allowed_domains", "blocked_domains", "max_content_tokens", "url_sources"],
        "web_search" => &["allowed_domains", "blocked_domains", "user_location"],
        _ => &[],
    }
}

/// An entry of the agent toolset, complete.
fn built_in(mut config: ToolConfig, at: &str) -> Result<ToolConfig, Problem> {
    if !BUILT_IN.contains(&config.name.as_str()) {
        let message = format!("`{}` is not one of {}", config.name, BUILT_IN.join(", "));
        return Err(Problem::new(format!("{at}.name"), message));
    }
    if config.r#type.as_ref().is_some_and(|kind| *kind != config.name) {
        return Err(Problem::new(format!("{at}.type"), "must be the name of the tool"));
    }
    config.r#type = Some(config.name.clone());
    known_settings(&config, settings_of(&config.name), at)?;
    if Domains::read(&config).is_none() {
        return Err(Problem::new(at, DOMAINS_WANTED));
    }
    if config.name == "web_fetch" {
        let given = config.settings.shift_remove("url_sources").unwrap_or_default();
        let sources = url_sources(&given, &format!("{at}.url_sources"))?;
        config.settings.insert("url_sources".to_owned(), sources);
    }
    if let Some(location) = config.settings.get("user_location") {
        check_location(location, &format!("{at}.user_location"))?;
    }
    Ok(config)
}

/// Where the URLs that may be fetched may come from, each as an object; null allows all.
fn url_sources(value: &Value, at: &str) -> Result<Value, Problem> {
    const KINDS: [&str; 3] = ["user_input", "client_tool_results", "server_tool_results"];
    if value.is_null() {
        return Ok(Value::Null);
    }
    known(value, &KINDS, at)?;
    let mut sources = json!({});
    for kind in KINDS {
        sources[kind] = url_source(&value[kind], kind == "user_input", &format!("{at}.{kind}"))?;
    }
    Ok(sources)
}

fn url_source(value: &Value, is_user: bool, at: &str) -> Result<Value, Problem> {
    let word = value.as_str().or_else(|| value["type"].as_str());
    match word {
        None if value.is_null() => Ok(Value::Null),
        Some(word @ ("all" | "none")) => {
            if value.is_object() {
                known(value, &["type"], at)?;
            }
            Ok(json!({ "type": word }))
        }
        Some(word @ ("only" | "except")) if value.is_object() && !is_user => {
            known(value, &["type", "tools"], at)?;
            let wanted = || {
                let message = "must be a list of {\"type\": \"tool_reference\", \"name\"}";
                Problem::new(format!("{at}.tools"), message)
            };
            let tools = value["tools"].as_array().ok_or_else(wanted)?;
            let is_reference =
                |it: &Value| it["type"] == "tool_reference" && it["name"].is_string();
            if !tools.iter().all(is_reference) {
                return Err(wanted());
            }
            Ok(json!({ "type": word, "tools": tools }))
        }
        _ if is_user => Err(Problem::new(at, "must be `all` or `none`")),
        _ => Err(Problem::new(at, "must be `all`, `none`, or an object of `only` or `except`")),
    }
}

fn check_location(value: &Value, at: &str) -> Result<(), Problem> {
    if value.is_null() {
        return Ok(());
    }
    known(value, &["type", "city", "country", "region", "timezone"], at)?;
    let is_text = |key: &str| value[key].is_null() || value[key].is_string();
    match value["type"] == "approximate"
        && ["city", "country", "region", "timezone"].into_iter().all(is_text)
    {
        true => Ok(()),
        false => Err(Problem::new(at, "must be {\"type\": \"approximate\"} with texts")),
    }
}

fn known_settings(config: &ToolConfig, names: &[&str], at: &str) -> Result<(), Problem> {
    match config.settings.keys().find(|key| !names.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let field = format!("{at}.{}", super::text::one_line(key));
            Err(Problem::new(field, format!("is not a field of `{}`", config.name)))
        }
    }
}

fn known(value: &Value, names: &[&str], at: &str) -> Result<(), Problem> {
    let Value::Object(map) = value else { return Err(Problem::new(at, "must be an object")) };
    match map.keys().find(|key| !names.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let field = format!("{at}.{}", super::text::one_line(key));
            Err(Problem::new(field, "is not a field of it"))
        }
    }
}

/// Domains of one tool.
const DOMAINS_MAX: usize = 64;

const DOMAINS_WANTED: &str = "`allowed_domains` or `blocked_domains`, not both, are 1 to 64 plain \
    host names, and `max_content_tokens` is a number from 1";

/// What the config of `web_fetch` says about where it goes and how much it brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    /// Empty: all that are not blocked.
    pub allowed: Vec<String>,
    pub blocked: Vec<String>,
    pub content_tokens_max: Option<u64>,
}

impl Domains {
    /// Of an agent's tool, by the name of the tool.
    pub fn of(tools: &[Toolset], name: &str) -> Domains {
        let configs = tools.iter().find_map(|set| match set {
            Toolset::Agent { configs, .. } => Some(configs),
            Toolset::Mcp { .. } | Toolset::Custom { .. } => None,
        });
        let config = configs.and_then(|configs| configs.iter().find(|it| it.name == name));
        config.and_then(Domains::read).unwrap_or_default()
    }

    /// `None` when something in there cannot be meant.
    fn read(config: &ToolConfig) -> Option<Domains> {
        let list = |key: &str| match config.settings.get(key) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(list)) if (1..=DOMAINS_MAX).contains(&list.len()) => {
                let name = |it: &Value| Some(it.as_str().filter(|it| is_plain(it))?.to_owned());
                list.iter().map(name).collect()
            }
            Some(_) => None,
        };
        let (allowed, blocked) = (list("allowed_domains")?, list("blocked_domains")?);
        let content_tokens_max = match config.settings.get("max_content_tokens") {
            None | Some(Value::Null) => None,
            Some(given) => Some(given.as_u64().filter(|tokens| *tokens > 0)?),
        };
        let both = !allowed.is_empty() && !blocked.is_empty();
        (!both).then_some(Domains { allowed, blocked, content_tokens_max })
    }

    /// Whether the tool may go to a host; a name covers its subdomains.
    pub fn may(&self, host: &str) -> bool {
        let among = |domains: &[String]| domains.iter().any(|domain| is_of(host, domain));
        (self.allowed.is_empty() || among(&self.allowed)) && !among(&self.blocked)
    }
}

fn is_plain(host: &str) -> bool {
    !host.starts_with("*.") && is_host(host)
}

fn parse_custom(value: &Value, at: &str) -> Result<Toolset, Problem> {
    known(value, &["type", "name", "description", "input_schema"], at)?;
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
    let mut names = BTreeSet::new();
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            let at = format!("{at}.configs[{index}]");
            let mut settings = value.as_object().cloned().unwrap_or_default();
            for key in ["name", "type", "enabled", "permission_policy"] {
                settings.shift_remove(key);
            }
            let name = text(value, "name", &at)?;
            if !names.insert(name.clone()) {
                return Err(Problem::new(format!("{at}.name"), format!("`{name}` is there twice")));
            }
            Ok(ToolConfig {
                name,
                r#type: match value.get("type") {
                    None | Some(Value::Null) => None,
                    Some(_) => Some(text(value, "type", &at)?),
                },
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
    fn tools_of_servers_have_names_of_their_own() {
        assert_eq!(offered_name("github", "create_issue"), "mcp__github__create_issue");
        let (long, accents) = ("t".repeat(128), "böse");
        let pairs = [
            ("a", "b__c"),
            ("a__b", "c"),
            ("a_", "b"),
            ("a", "_b"),
            ("a b", "c"),
            ("a.b", "c"),
            (accents, "c"),
            ("a", &long),
            ("a", &long[..127]),
            ("", ""),
        ];
        let names: BTreeSet<String> =
            pairs.iter().map(|(server, tool)| offered_name(server, tool)).collect();
        assert_eq!(names.len(), pairs.len(), "{names:?}");
        for name in names {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            assert!(name.len() <= 64 && name.bytes().all(plain) && is_offered(&name), "{name}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let message = |value| parse(&value).unwrap_err().to_string();
        assert!(message(json!([{"type": "x"}])).starts_with("tools[0].type: must be"));
        assert!(
            message(json!([{"type": "agent_toolset_20260401", "configs": [{"name": "rm"}]}]))
                .starts_with("tools[0].configs[0].name: `rm` is not one of bash")
        );
        assert!(
            message(json!([{"type": "custom", "name": "a b", "description": ""}]))
                .starts_with("tools[0].name")
        );
        let set = |config: Value| json!([{"type": "agent_toolset_20260401", "configs": [config]}]);
        let custom = |name: &str| {
            json!({"type": "custom", "name": name, "description": "d",
                "input_schema": {"type": "object"}})
        };
        for (wrong, field) in [
            (set(json!({"name": "bash", "type": "read"})), "tools[0].configs[0].type"),
            (set(json!({"name": "bash", "colour": 1})), "tools[0].configs[0].colour"),
            (
                set(json!({"name": "read", "allowed_domains": ["a.example"]})),
                "tools[0].configs[0].allowed_domains",
            ),
            (
                set(json!({"name": "web_fetch", "url_sources": {"user_input": "some"}})),
                "tools[0].configs[0].url_sources.user_input",
            ),
            (json!([custom("a"), custom("a")]), "tools[1].name"),
            (json!([{"type": "agent_toolset_20260401"}, custom("bash")]), "tools[1].name"),
            (
                json!([{"type": "agent_toolset_20260401"}, {"type": "agent_toolset_20260401"}]),
                "tools[1].type",
            ),
            (json!([{"type": "agent_toolset_20260401", "x": 1}]), "tools[0].x"),
            (Value::Array((0..257).map(|n| custom(&format!("t{n}"))).collect()), "tools"),
        ] {
            assert_eq!(parse(&wrong).unwrap_err().field, field);
        }
    }

    #[test]
    fn a_setting_is_shown_in_full() {
        let tools = parse(&json!([{"type": "agent_toolset_20260401", "configs": [
            {"name": "web_fetch", "url_sources": {"user_input": "all",
                "client_tool_results": {"type": "only",
                    "tools": [{"type": "tool_reference", "name": "t"}]}}},
        ]}]))
        .unwrap();
        let shown = serde_json::to_value(&tools).unwrap();
        assert_eq!(
            shown[0]["configs"][0]["url_sources"],
            json!({"user_input": {"type": "all"}, "server_tool_results": null,
                "client_tool_results": {"type": "only",
                    "tools": [{"type": "tool_reference", "name": "t"}]}})
        );
        assert_eq!(parse(&shown).unwrap(), tools, "what is shown can be sent back");
    }
}

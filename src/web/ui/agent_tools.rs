//! The tools of an agent as a table: which are there, and whether somebody is asked before.
//!
//! The table stands on the JSON of the API and changes it only where somebody chose something else than
//! there was, so what no table has (settings of one tool, tools of your own) stays as it was written.
//! Left out: whether a choice is allowed, which the API says.

use serde_json::{Value, json};

use super::guard::Fields;
use crate::domain::{
    text::printable,
    toolset::{self, BUILT_IN, Policy, Toolset},
};

/// What may be chosen, and in words.
pub(super) const STATES: [(&str, &str); 4] =
    [("off", "off"), ("allow", "allowed"), ("ask", "asks first"), ("auto", "auto")];

const AGENT_TOOLSET: &str = "agent_toolset_20260401";

/// One tool of the toolset, or all of an MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Of the select.
    pub(super) field: String,
    pub(super) name: String,
    /// What is chosen, and what there was when the form was made.
    pub(super) state: String,
    pub(super) was: String,
}

impl Row {
    fn new(kind: &str, name: &str, state: &str) -> Row {
        Row {
            field: format!("{kind}.{name}"),
            name: printable(name),
            state: state.to_owned(),
            was: state.to_owned(),
        }
    }

    /// As a form has sent it.
    fn typed(kind: &str, name: &str, state: &str, fields: &Fields) -> Row {
        let was = fields.text(&format!("was.{kind}.{name}")).unwrap_or("off");
        Row { was: was.to_owned(), ..Row::new(kind, name, state) }
    }
}

/// Both tables: the toolset's tools, and the MCP servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) tools: Vec<Row>,
    pub(super) servers: Vec<Row>,
}

impl Table {
    /// Of an agent as it is.
    pub(super) fn of(tools: &[Toolset], servers: &Value) -> Table {
        let built_in =
            BUILT_IN.map(|name| Row::new("tool", name, word(toolset::tool_policy(tools, name))));
        let names = servers.as_array().into_iter().flatten().filter_map(|it| it["name"].as_str());
        let servers = names.map(|name| Row::new("mcp", name, of_server(tools, name)));
        Table { tools: built_in.into(), servers: servers.collect() }
    }

    /// As a form has sent it.
    pub(super) fn typed(fields: &Fields) -> Table {
        let of = |kind: &str| {
            let prefix = format!("{kind}.");
            let rows = fields.beginning_with(&prefix);
            rows.map(|(name, state)| Row::typed(kind, name, state, fields)).collect()
        };
        Table { tools: of("tool"), servers: of("mcp") }
    }

    /// Changes the JSON where something else was chosen than there was.
    pub(super) fn apply(fields: &Fields, tools: &mut Value) {
        let Some(tools) = tools.as_array_mut() else { return };
        for (kind, prefix) in [("tool", "tool."), ("mcp", "mcp.")] {
            for (name, state) in fields.beginning_with(prefix) {
                let was = fields.text(&format!("was.{kind}.{name}")).unwrap_or("off");
                let is_known = STATES.iter().any(|(it, _)| *it == state);
                if !is_known || was == state {
                    continue;
                }
                match kind {
                    "tool" => choose_tool(tools, name, state),
                    _ => choose_server(tools, name, state),
                }
            }
        }
    }
}

fn word(policy: Option<Policy>) -> &'static str {
    match policy {
        None => "off",
        Some(Policy::AlwaysAllow) => "allow",
        Some(Policy::AlwaysAsk) => "ask",
        Some(Policy::Auto) => "auto",
    }
}

/// What applies to the tools of a server that have no entry of their own.
fn of_server(tools: &[Toolset], name: &str) -> &'static str {
    let found = tools.iter().find_map(|set| match set {
        Toolset::Mcp { mcp_server_name, default_config, .. } if mcp_server_name == name => {
            Some(default_config)
        }
        Toolset::Agent { .. } | Toolset::Mcp { .. } | Toolset::Custom { .. } => None,
    });
    word(found.filter(|it| it.enabled).map(|it| it.permission_policy))
}

/// Writes a state in the words of the API.
fn write(entry: &mut Value, state: &str) {
    entry["enabled"] = (state != "off").into();
    let policy = match state {
        "allow" => "always_allow",
        "ask" => "always_ask",
        "auto" => "auto",
        _ => return,
    };
    entry["permission_policy"] = json!({ "type": policy });
}

fn choose_tool(tools: &mut Vec<Value>, name: &str, state: &str) {
    if !BUILT_IN.contains(&name) {
        return;
    }
    let at = tools.iter().position(|set| set["type"] == AGENT_TOOLSET).unwrap_or_else(|| {
        // Only what is chosen is there.
        let set = json!({"type": AGENT_TOOLSET, "default_config": {"enabled": false}});
        tools.push(set);
        tools.len() - 1
    });
    let set = &mut tools[at];
    if !set["configs"].is_array() {
        set["configs"] = json!([]);
    }
    let Some(configs) = set["configs"].as_array_mut() else { return };
    let at = configs.iter().position(|it| it["name"] == name).unwrap_or_else(|| {
        configs.push(json!({ "name": name }));
        configs.len() - 1
    });
    write(&mut configs[at], state);
}

fn choose_server(tools: &mut Vec<Value>, name: &str, state: &str) {
    let is_its = |set: &Value| set["type"] == "mcp_toolset" && set["mcp_server_name"] == name;
    let at = tools.iter().position(is_its).unwrap_or_else(|| {
        tools.push(json!({"type": "mcp_toolset", "mcp_server_name": name}));
        tools.len() - 1
    });
    let set = &mut tools[at];
    if !set["default_config"].is_object() {
        set["default_config"] = json!({});
    }
    write(&mut set["default_config"], state);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tools: Value, chosen: &str, expected: &Value) {
        let mut found = tools;
        Table::apply(&Fields::parse(chosen.as_bytes()), &mut found);
        assert_eq!(&found, expected, "{chosen}");
        toolset::parse(&found).expect("the API takes it");
    }

    #[test]
    fn only_what_was_chosen_changes_the_json() {
        let bash = json!([{"type": AGENT_TOOLSET, "default_config": {"enabled": false},
            "configs": [{"name": "bash", "enabled": true, "permission_policy": {"type": "always_ask"}}]}]);
        check(json!([]), "tool.bash=ask&was.tool.bash=off&tool.read=off&was.tool.read=off", &bash);
        check(bash.clone(), "tool.bash=ask&was.tool.bash=ask", &bash);
        // Somebody changed the JSON, and not the table beside it.
        check(bash.clone(), "tool.bash=off&was.tool.bash=off", &bash);
        let fetch = json!([{"type": AGENT_TOOLSET, "configs": [
            {"name": "web_fetch", "allowed_domains": ["a.example"], "enabled": false}]}]);
        let asks = json!([{"type": AGENT_TOOLSET, "configs": [{"name": "web_fetch",
            "allowed_domains": ["a.example"], "enabled": true, "permission_policy": {"type": "auto"}}]}]);
        check(fetch, "tool.web_fetch=auto&was.tool.web_fetch=off", &asks);
        for nonsense in ["tool.rm=allow", "tool.bash=root&was.tool.bash=off"] {
            check(json!([]), nonsense, &json!([]));
        }
    }

    #[test]
    fn servers_have_a_policy_for_their_tools() {
        let set = json!([{"type": "mcp_toolset", "mcp_server_name": "crm",
            "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}}]);
        check(json!([]), "mcp.crm=allow&was.mcp.crm=off", &set);
        let tools = toolset::parse(&set).unwrap();
        let table = Table::of(&tools, &json!([{"name": "crm"}, {"name": "<other>"}]));
        let states: Vec<_> =
            table.servers.iter().map(|it| (it.name.as_str(), it.state.as_str())).collect();
        assert_eq!(states, [("crm", "allow"), ("<other>", "off")]);
        assert!(
            table.tools.iter().all(|it| it.state == "off") && table.tools.len() == BUILT_IN.len()
        );
    }
}

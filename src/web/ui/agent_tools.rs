//! The tools of an agent as a table: which are there, and whether somebody is asked before.
//!
//! The table stands on the JSON of the API and changes it only where somebody chose something else than
//! there was, so what no table has (settings of one tool, tools of your own) stays as it was written.
//! An MCP server has a row for all of its tools, one for each tool with a policy of its own, and one in
//! which a further tool can be named. Left out: whether a choice is allowed, which the API says.

use serde_json::{Value, json};

use super::guard::Fields;
use crate::domain::{
    text::printable,
    toolset::{self, BUILT_IN, NOT_HERE, Policy, Toolset},
};

/// What may be chosen, and in words.
pub(super) const STATES: &[(&str, &str)] =
    &[("off", "off"), ("allow", "allowed"), ("ask", "asks first"), ("auto", "auto")];

/// What is chosen for a further tool while nobody has chosen anything else.
const ASKS: &str = "ask";

/// A tool of a server that has no policy of its own any more.
const AS_THE_OTHERS: &str = "others";

/// What may be chosen for one tool of a server.
pub(super) const STATES_OF_ONE: &[(&str, &str)] =
    &[STATES[0], STATES[1], STATES[2], STATES[3], (AS_THE_OTHERS, "as the others")];

const AGENT_TOOLSET: &str = "agent_toolset_20260401";

/// One tool, or all of an MCP server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    /// One tool of a server. Both names may have any sign in them.
    fn own(server: &str, tool: &str, state: &str) -> Row {
        let field = Row::new("own", &json!([server, tool]).to_string(), state);
        Row { name: printable(tool), ..field }
    }

    /// As a form has sent it.
    fn typed(kind: &str, name: &str, state: &str, fields: &Fields) -> Row {
        let was = fields.text(&format!("was.{kind}.{name}")).unwrap_or("off");
        Row { was: was.to_owned(), ..Row::new(kind, name, state) }
    }
}

/// The tools of an MCP server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    name: String,
    /// What applies to all that are not among the next ones.
    pub(super) all: Row,
    pub(super) own: Vec<Row>,
    /// A further tool as it is typed, and what is chosen for it.
    pub(super) named: String,
    pub(super) state: String,
}

impl Server {
    fn of(tools: &[Toolset], name: &str) -> Server {
        let (own, others) = toolset::of_server(tools, name).unzip();
        let own = own.into_iter().flatten().map(|config| {
            let policy = config.enabled.then_some(config.permission_policy);
            Row::own(name, &config.name, word(policy))
        });
        let others = others.filter(|it| it.enabled).map(|it| it.permission_policy);
        Server {
            name: name.to_owned(),
            all: Row::new("mcp", name, word(others)),
            own: own.collect(),
            named: String::new(),
            state: ASKS.to_owned(),
        }
    }

    /// The field in which a further tool is named.
    pub(super) fn further(&self) -> String {
        format!("further.{}", self.name)
    }

    /// The field in which its state is chosen.
    pub(super) fn of_further(&self) -> String {
        format!("state.{}", self.further())
    }
}

/// Both tables: the toolset's tools, and the MCP servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) tools: Vec<Row>,
    pub(super) servers: Vec<Server>,
}

impl Table {
    /// Of an agent as it is.
    pub(super) fn of(tools: &[Toolset], servers: &Value) -> Table {
        let built_in = BUILT_IN.into_iter().filter(|name| !NOT_HERE.contains(name));
        let built_in =
            built_in.map(|name| Row::new("tool", name, word(toolset::tool_policy(tools, name))));
        let names = servers.as_array().into_iter().flatten().filter_map(|it| it["name"].as_str());
        let servers = names.map(|name| Server::of(tools, name));
        Table { tools: built_in.collect(), servers: servers.collect() }
    }

    /// As a form has sent it.
    pub(super) fn typed(fields: &Fields) -> Table {
        let of = |kind: &str| -> Vec<(String, Row)> {
            let prefix = format!("{kind}.");
            let rows = fields.beginning_with(&prefix);
            rows.map(|(name, state)| (name.to_owned(), Row::typed(kind, name, state, fields)))
                .collect()
        };
        let own: Vec<_> = of("own")
            .into_iter()
            .filter_map(|(names, row)| {
                let (server, tool) = names_of(&names)?;
                Some((server, Row { name: printable(&tool), ..row }))
            })
            .collect();
        let server = |(name, all): (String, Row)| {
            let of_it = own.iter().filter(|(server, _)| *server == name);
            let own = of_it.map(|(_, row)| row.clone()).collect();
            let mut server = Server { name, all, own, ..Server::default() };
            server.named = fields.text(&server.further()).unwrap_or_default().to_owned();
            server.state = fields.text(&server.of_further()).unwrap_or(ASKS).to_owned();
            server
        };
        let tools = of("tool").into_iter().map(|(_, row)| row).collect();
        Table { tools, servers: of("mcp").into_iter().map(server).collect() }
    }

    /// Changes the JSON where something else was chosen than there was.
    pub(super) fn apply(fields: &Fields, tools: &mut Value) {
        let Some(tools) = tools.as_array_mut() else { return };
        for (kind, prefix) in [("tool", "tool."), ("mcp", "mcp."), ("own", "own.")] {
            for (name, state) in fields.beginning_with(prefix) {
                let was = fields.text(&format!("was.{kind}.{name}")).unwrap_or("off");
                let is_known = STATES.iter().any(|(it, _)| *it == state);
                let is_known = is_known || kind == "own" && state == AS_THE_OTHERS;
                if !is_known || was == state {
                    continue;
                }
                match kind {
                    "tool" => choose_tool(tools, name, state),
                    "mcp" => choose_server(tools, name, state),
                    _ => drop(names_of(name).map(|(server, tool)| {
                        choose_own(tools, &server, &tool, state);
                    })),
                }
            }
        }
        for (server, tool) in fields.beginning_with("further.") {
            let state = fields.text(&format!("state.further.{server}")).unwrap_or(ASKS);
            if !tool.trim().is_empty() && STATES.iter().any(|(it, _)| *it == state) {
                choose_own(tools, server, tool.trim(), state);
            }
        }
    }
}

/// The server and the tool that a field is about.
fn names_of(field: &str) -> Option<(String, String)> {
    serde_json::from_str(field).ok()
}

fn word(policy: Option<Policy>) -> &'static str {
    match policy {
        None => "off",
        Some(Policy::AlwaysAllow) => "allow",
        Some(Policy::AlwaysAsk) => "ask",
        Some(Policy::Auto) => "auto",
    }
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
    choose_entry(&mut tools[at], name, state);
}

/// One tool of a set, which may have no entry of its own yet, or shall have none any more.
fn choose_entry(set: &mut Value, name: &str, state: &str) {
    if !set["configs"].is_array() {
        set["configs"] = json!([]);
    }
    let Some(configs) = set["configs"].as_array_mut() else { return };
    if state == AS_THE_OTHERS {
        return configs.retain(|it| it["name"] != name);
    }
    let at = configs.iter().position(|it| it["name"] == name).unwrap_or_else(|| {
        configs.push(json!({ "name": name }));
        configs.len() - 1
    });
    write(&mut configs[at], state);
}

/// The toolset of a server, which has no tool where it is new.
fn set_of<'a>(tools: &'a mut Vec<Value>, name: &str) -> &'a mut Value {
    let is_its = |set: &Value| set["type"] == "mcp_toolset" && set["mcp_server_name"] == name;
    let at = tools.iter().position(is_its).unwrap_or_else(|| {
        let none = json!({"enabled": false});
        tools.push(json!({"type": "mcp_toolset", "mcp_server_name": name, "default_config": none}));
        tools.len() - 1
    });
    &mut tools[at]
}

fn choose_own(tools: &mut Vec<Value>, server: &str, name: &str, state: &str) {
    choose_entry(set_of(tools, server), name, state);
}

fn choose_server(tools: &mut Vec<Value>, name: &str, state: &str) {
    let set = set_of(tools, name);
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
            table.servers.iter().map(|it| (&*it.all.name, &*it.all.state)).collect();
        assert_eq!(states, [("crm", "allow"), ("<other>", "off")]);
        assert!(
            table.tools.iter().all(|it| it.state == "off")
                && table.tools.len() == BUILT_IN.len() - NOT_HERE.len()
        );
    }
    #[test]
    fn a_tool_of_a_server_has_a_policy_of_its_own() {
        let allowed = json!({"type": "always_allow"});
        let of = |configs: Value| {
            json!([{"type": "mcp_toolset", "mcp_server_name": "crm",
            "default_config": {"enabled": true, "permission_policy": allowed}, "configs": configs}])
        };
        let delete = json!({"name": "delete", "enabled": true,
            "permission_policy": {"type": "always_ask"}});
        let (one, none) = (of(json!([delete])), of(json!([])));
        let tool = form_urlencoded::byte_serialize(br#"["crm","delete"]"#).collect::<String>();
        let own = |state: &str| format!("own.{tool}={state}&was.own.{tool}=ask");

        check(none.clone(), "further.crm=+delete+&state.further.crm=ask", &one);
        check(one.clone(), "further.crm=&state.further.crm=allow", &one);
        check(one.clone(), &own("ask"), &one);
        check(one.clone(), &own("others"), &none);
        check(one.clone(), &own("root"), &one);
        let off = json!({"name": "delete", "enabled": false,
            "permission_policy": {"type": "always_ask"}});
        check(one.clone(), &own("off"), &of(json!([off])));
        // No other tool of a server comes with it.
        let alone = json!([{"type": "mcp_toolset", "mcp_server_name": "crm",
            "default_config": {"enabled": false}, "configs": [delete]}]);
        check(json!([]), "further.crm=delete&state.further.crm=ask", &alone);

        let servers = json!([{"name": "crm"}]);
        let shown = &Table::of(&toolset::parse(&one).unwrap(), &servers).servers[0];
        assert_eq!((&*shown.own[0].name, &*shown.own[0].state), ("delete", "ask"));
        let sent = format!(
            "mcp.crm=allow&was.mcp.crm=allow&{}&further.crm=x&state.further.crm=off",
            own("off")
        );
        let typed = &Table::typed(&Fields::parse(sent.as_bytes())).servers[0];
        assert_eq!(
            (&*typed.own[0].name, &*typed.own[0].state, &*typed.own[0].was),
            ("delete", "off", "ask")
        );
        assert_eq!((&*typed.named, &*typed.state), ("x", "off"));
    }
}

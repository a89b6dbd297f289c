//! May a call be made: by the agent's policies, and by where the session's input comes from.
//!
//! Pure, and decided once, when the call is journaled: a later change of a policy does not change what
//! a call was allowed. The stricter of two answers wins. Left out: asking somebody, and what a tool
//! itself refuses.

use serde_json::{Value, json};

use super::ToolKind;
use crate::domain::{
    conversation::Executor,
    environment::EnvironmentConfig,
    exposure::{Exposure, Reach, reach},
    source::WebhookTools,
    toolset::{Policy, Toolset, tool_policy},
};

/// Everything about a session that decides about its calls.
#[derive(Clone, Debug)]
pub struct Setting {
    tools: Vec<Toolset>,
    place: EnvironmentConfig,
    exposure: Exposure,
    /// Tools that a session has without its agent's doing.
    given: Vec<String>,
    /// Tools of MCP servers, as they are now.
    servers: Vec<ServerTool>,
    /// What the sources say of tools that do more than read.
    webhook_tools: WebhookTools,
}

/// A tool of an MCP server.
#[derive(Clone, Debug)]
pub struct ServerTool {
    /// As the model knows it.
    pub name: String,
    pub policy: Policy,
    /// Whether it is described otherwise than when it was first seen: nobody has agreed to that.
    pub is_changed: bool,
}

/// The tools that work on files or run programs.
const WORKS_IN_PLACE: [&str; 6] = ["bash", "read", "write", "edit", "glob", "grep"];

/// Why a call of a tool that the session does not have is refused.
const NOT_ENABLED: &str = "tool_not_enabled";

/// A source of the session allows no more.
const WEBHOOK_TOOLS: &str = "webhook_tools";

/// The answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    pub permission: Permission,
    /// The policy that said so; otherwise the server itself did, for the reason.
    policy: Option<Policy>,
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    Allow,
    Ask,
    Deny,
}

impl Permission {
    /// As the API's `evaluated_permission` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Allow => "allow",
            Permission::Ask => "ask",
            Permission::Deny => "deny",
        }
    }

    /// What a log says, stricter in doubt.
    pub fn parse(text: &str) -> Permission {
        match text {
            "allow" => Permission::Allow,
            "ask" => Permission::Ask,
            _ => Permission::Deny,
        }
    }
}

impl Setting {
    /// `untrusted` is whether anything in the session comes from a source.
    pub fn new(
        tools: Vec<Toolset>,
        place: EnvironmentConfig,
        untrusted: bool,
        given: Vec<String>,
    ) -> Setting {
        let exposure = Exposure::of(&tools, &place, untrusted);
        let (servers, webhook_tools) = (Vec::new(), WebhookTools::AsUsual);
        Setting { tools, place, exposure, given, servers, webhook_tools }
    }

    /// With what the sources say that anything in the session came from.
    pub fn with_webhook_tools(mut self, webhook_tools: WebhookTools) -> Setting {
        self.webhook_tools = webhook_tools;
        self
    }

    /// With tools of MCP servers, and with what the session's vaults give to its programs.
    pub fn with_servers(mut self, servers: Vec<ServerTool>, has_variables: bool) -> Setting {
        self.servers = servers;
        self.exposure.private_data |= has_variables && self.policy("bash").is_some();
        self
    }

    fn server_tool(&self, name: &str) -> Option<&ServerTool> {
        self.servers.iter().find(|tool| tool.name == name)
    }

    /// Whether the session has this tool, and not the client.
    pub fn has(&self, name: &str) -> bool {
        self.policy(name).is_some() && !self.is_custom(name)
    }

    /// Who carries out the calls of this tool. In an environment of the client's own that is the client,
    /// but for what reaches for the web.
    pub fn executor(&self, name: &str) -> Executor {
        let is_theirs =
            self.place == EnvironmentConfig::SelfHosted && WORKS_IN_PLACE.contains(&name);
        match is_theirs {
            _ if self.is_custom(name) => Executor::Custom,
            true => Executor::SelfHosted,
            false => Executor::Server,
        }
    }

    /// Whether the client has this tool.
    pub fn is_custom(&self, name: &str) -> bool {
        self.custom().any(|(known, ..)| known == name)
    }

    /// The tools that the client has: name, description, schema of the input.
    pub fn custom(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        self.tools.iter().filter_map(|tool| match tool {
            Toolset::Custom { name, description, input_schema } => {
                Some((name.as_str(), description.as_str(), input_schema))
            }
            Toolset::Agent { .. } | Toolset::Mcp { .. } => None,
        })
    }

    fn policy(&self, name: &str) -> Option<Policy> {
        if self.given.iter().any(|it| it == name) {
            return Some(Policy::AlwaysAllow);
        }
        if let Some(tool) = self.server_tool(name) {
            return Some(tool.policy);
        }
        tool_policy(&self.tools, name)
    }

    pub fn evaluate(&self, name: &str, kind: ToolKind) -> Evaluation {
        let Some(policy) = self.policy(name) else {
            return Evaluation::own(Permission::Deny, NOT_ENABLED);
        };
        match self.webhook_tools {
            WebhookTools::Ask if kind != ToolKind::ReadOnly && policy != Policy::AlwaysAsk => {
                return Evaluation::own(Permission::Ask, WEBHOOK_TOOLS);
            }
            WebhookTools::ReadOnly if kind != ToolKind::ReadOnly => {
                return Evaluation::own(Permission::Deny, WEBHOOK_TOOLS);
            }
            WebhookTools::AsUsual | WebhookTools::Ask | WebhookTools::ReadOnly => {}
        }
        let reach = reach(&self.tools, name, &self.place);
        let by_rule = self.exposure.is_all_three() && reach == Reach::Anywhere;
        match policy {
            Policy::AlwaysAsk => Evaluation::by(policy, Permission::Ask),
            _ if self.server_tool(name).is_some_and(|tool| tool.is_changed) => {
                Evaluation::own(Permission::Ask, "tool_changed")
            }
            // Somewhere else, and nobody here knows what it does.
            Policy::Auto if self.server_tool(name).is_some() => {
                Evaluation::own(Permission::Ask, "effect_outside")
            }
            _ if by_rule => Evaluation::own(Permission::Ask, "rule_of_two"),
            Policy::AlwaysAllow => Evaluation::by(policy, Permission::Allow),
            Policy::Auto => self.auto(kind, reach),
        }
    }

    /// What stays within the session's own workspace is done without asking, and where nothing came
    /// from outside, so is reading elsewhere.
    fn auto(&self, kind: ToolKind, reach: Reach) -> Evaluation {
        let shared = self.place.is_exclusive();
        let changes = kind == ToolKind::Effect;
        if !self.exposure.untrusted_input {
            return match changes && reach == Reach::Anywhere {
                true => Evaluation::own(Permission::Ask, "effect_outside"),
                false => Evaluation::own(Permission::Allow, "within_bounds"),
            };
        }
        if reach == Reach::Anywhere {
            return Evaluation::own(Permission::Ask, "untrusted_input");
        }
        match changes && shared {
            true => Evaluation::own(Permission::Ask, "shared_project"),
            false => Evaluation::own(Permission::Allow, "within_bounds"),
        }
    }
}

impl Evaluation {
    fn by(policy: Policy, permission: Permission) -> Evaluation {
        Evaluation { permission, policy: Some(policy), reason: "" }
    }

    fn own(permission: Permission, reason: &'static str) -> Evaluation {
        Evaluation { permission, policy: None, reason }
    }

    /// As the API's `evaluation` says it: nothing where no policy applied, as there is no such tool.
    pub fn to_json(&self) -> Option<Value> {
        match (self.policy, self.permission) {
            (Some(policy), _) => Some(json!(policy)),
            (None, Permission::Allow) => {
                Some(json!({"type": "auto", "evaluated_permission": {"type": "allow"}}))
            }
            (None, _) if self.reason == NOT_ENABLED => None,
            (None, permission) => Some(json!({
                "type": "auto",
                "evaluated_permission": {"type": permission.as_str(), "reason_code": self.reason},
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{environment::Workspace, toolset::parse};

    fn set(configs: Value) -> Vec<Toolset> {
        parse(&json!([{"type": "agent_toolset_20260401", "default_config": {"enabled": false},
            "configs": configs}]))
        .unwrap()
    }

    fn project() -> EnvironmentConfig {
        EnvironmentConfig::local("/srv", Workspace::Shared)
    }

    fn check(setting: &Setting, name: &str, kind: ToolKind, permission: &str, reason: &str) {
        let evaluation = setting.evaluate(name, kind);
        let json = evaluation.to_json().unwrap_or_default();
        let why = json["evaluated_permission"]["reason_code"].as_str();
        let why = why.or(json["type"].as_str()).unwrap_or("nothing");
        assert_eq!((evaluation.permission.as_str(), why), (permission, reason), "{name} {json}");
    }

    #[test]
    fn a_tool_that_is_not_listed_is_denied() {
        let tools = set(json!([{"name": "read", "enabled": true}, {"name": "bash"}]));
        let setting =
            Setting::new(tools, EnvironmentConfig::cloud(), true, vec!["delivery".to_owned()]);
        check(&setting, "read", ToolKind::ReadOnly, "allow", "always_allow");
        check(&setting, "delivery", ToolKind::ReadOnly, "allow", "always_allow");
        for name in ["bash", "write", "nonsense"] {
            check(&setting, name, ToolKind::Effect, "deny", "nothing");
        }
        let none = Setting::new(Vec::new(), EnvironmentConfig::cloud(), false, Vec::new());
        check(&none, "read", ToolKind::ReadOnly, "deny", "nothing");
    }

    #[test]
    fn a_source_may_leave_reading_only_or_have_everything_else_asked_about() {
        let configs = json!([{"name": "bash", "enabled": true}, {"name": "read", "enabled": true},
            {"name": "write", "enabled": true, "permission_policy": {"type": "always_ask"}}]);
        let setting = |tools| {
            let given = vec!["delivery".to_owned()];
            Setting::new(set(configs.clone()), EnvironmentConfig::cloud(), true, given)
                .with_webhook_tools(tools)
        };
        for (tools, bash, write) in [
            (WebhookTools::AsUsual, ("allow", "always_allow"), ("ask", "always_ask")),
            (WebhookTools::Ask, ("ask", "webhook_tools"), ("ask", "always_ask")),
            (WebhookTools::ReadOnly, ("deny", "webhook_tools"), ("deny", "webhook_tools")),
        ] {
            let setting = setting(tools);
            check(&setting, "bash", ToolKind::Effect, bash.0, bash.1);
            check(&setting, "write", ToolKind::Idempotent, write.0, write.1);
            check(&setting, "read", ToolKind::ReadOnly, "allow", "always_allow");
            check(&setting, "delivery", ToolKind::ReadOnly, "allow", "always_allow");
        }
    }

    #[test]
    fn all_three_are_asked_about_whatever_the_policy_says() {
        let configs = json!([{"name": "read", "enabled": true},
            {"name": "web_fetch", "enabled": true, "permission_policy": {"type": "always_allow"}}]);
        let setting =
            |place, untrusted| Setting::new(set(configs.clone()), place, untrusted, vec![]);
        let tainted = setting(project(), true);
        check(&tainted, "web_fetch", ToolKind::ReadOnly, "ask", "rule_of_two");
        check(&tainted, "read", ToolKind::ReadOnly, "allow", "always_allow");
        let typed = setting(project(), false);
        check(&typed, "web_fetch", ToolKind::ReadOnly, "allow", "always_allow");
        let fresh = setting(EnvironmentConfig::cloud(), true);
        check(&fresh, "web_fetch", ToolKind::ReadOnly, "allow", "always_allow");
    }

    #[test]
    fn a_session_that_a_source_started_gets_the_stricter_policy() {
        let auto = json!({"type": "auto"});
        let configs = json!([
            {"name": "write", "enabled": true, "permission_policy": auto},
            {"name": "read", "enabled": true, "permission_policy": {"type": "always_ask"}},
            {"name": "web_fetch", "enabled": true, "permission_policy": auto,
                "allowed_domains": ["example.com"]},
        ]);
        let setting = |untrusted| Setting::new(set(configs.clone()), project(), untrusted, vec![]);
        check(&setting(false), "write", ToolKind::Effect, "allow", "auto");
        check(&setting(true), "write", ToolKind::Effect, "ask", "shared_project");
        check(&setting(true), "web_fetch", ToolKind::ReadOnly, "allow", "auto");
        check(&setting(false), "read", ToolKind::ReadOnly, "ask", "always_ask");
    }
}

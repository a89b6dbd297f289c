//! The Rule of Two: of untrusted input, private data and an effect outside, an agent may have two by
//! itself, and all three only with somebody's approval.
//!
//! Computed from an agent's tools and the environment that they run in, by what they could do and not
//! by what anybody expects. What the operator names, such as a tool's `allowed_domains`, is allowed by
//! that name. Left out: who approves.

use serde_json::{Value, json};

use super::{
    access::Network,
    environment::EnvironmentConfig,
    toolset::{Policy, Toolset, has_mcp, is_offered, tool_policy},
};

/// How far a tool reaches beyond its session's workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nowhere.
    Workspace,
    /// To what the operator named.
    Named,
    Anywhere,
}

/// Which of the three an agent has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    pub untrusted_input: bool,
    pub private_data: bool,
    pub outside_effect: bool,
}

/// Tools that show the model what lies in the workspace.
const READING: [&str; 5] = ["bash", "read", "edit", "glob", "grep"];

/// Tools that reach beyond the workspace, if anything does.
const REACHING: [&str; 3] = ["bash", "web_fetch", "web_search"];

impl Exposure {
    /// Of an agent whose tools run there.
    pub fn of(tools: &[Toolset], place: &EnvironmentConfig, untrusted_input: bool) -> Exposure {
        let has = |name: &&str| tool_policy(tools, name).is_some();
        let servers = tools.iter().any(|set| !matches!(set, Toolset::Agent { .. }));
        Exposure {
            // What a server says of its tools and answers to calls is written by others.
            untrusted_input: untrusted_input || has_mcp(tools),
            private_data: place.project().is_some() && READING.iter().any(&has)
                || place.has_secrets() && has(&"bash"),
            outside_effect: servers
                || REACHING.iter().any(|it| has(it) && reach(tools, it, place) == Reach::Anywhere),
        }
    }

    /// Of an agent wherever it may come to work: events from outside, and a project to work in whose
    /// network is off.
    pub fn of_agent(tools: &[Toolset]) -> Exposure {
        Exposure::of(tools, &project(), true)
    }

    pub fn is_all_three(self) -> bool {
        self.untrusted_input && self.private_data && self.outside_effect
    }

    /// As agents show it: with the tools that are asked about for this reason.
    pub fn to_json(self, tools: &[Toolset]) -> Value {
        let asks = REACHING.iter().filter(|name| {
            self.is_all_three()
                && matches!(tool_policy(tools, name), Some(Policy::AlwaysAllow | Policy::Auto))
                && reach(tools, name, &project()) == Reach::Anywhere
        });
        json!({
            "untrusted_input": self.untrusted_input,
            "private_data": self.private_data,
            "outside_effect": self.outside_effect,
            "asks": asks.collect::<Vec<_>>(),
        })
    }
}

fn project() -> EnvironmentConfig {
    EnvironmentConfig::local("/", super::environment::Workspace::Shared)
}

/// How far one tool reaches from there.
pub fn reach(tools: &[Toolset], name: &str, place: &EnvironmentConfig) -> Reach {
    match name {
        "bash" => match place.network() {
            Network::None => Reach::Workspace,
            Network::Limited(_) => Reach::Named,
            Network::Unrestricted => Reach::Anywhere,
        },
        "web_fetch" | "web_search" => {
            let config = tools.iter().find_map(|set| match set {
                Toolset::Agent { configs, .. } => configs.iter().find(|it| it.name == name),
                Toolset::Mcp { .. } | Toolset::Custom { .. } => None,
            });
            let hosts = config.and_then(|config| config.settings.get("allowed_domains"));
            match hosts.and_then(Value::as_array) {
                Some(hosts) if !hosts.is_empty() => Reach::Named,
                _ => Reach::Anywhere,
            }
        }
        // The agent's author named the server, and what it may: but for that, it is an effect outside.
        name if is_offered(name) => Reach::Named,
        _ => Reach::Workspace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::toolset::parse;

    fn tools(configs: Value) -> Vec<Toolset> {
        let set = json!({"type": "agent_toolset_20260401", "default_config": {"enabled": false},
            "configs": configs});
        parse(&json!([set])).unwrap()
    }

    #[test]
    fn all_three_take_a_project_and_a_way_out_of_it() {
        let all = |configs| Exposure::of_agent(&tools(configs)).is_all_three();
        assert!(all(
            json!([{"name": "read", "enabled": true}, {"name": "web_fetch", "enabled": true}])
        ));
        assert!(!all(json!([{"name": "web_fetch", "enabled": true}])));
        assert!(!all(
            json!([{"name": "read", "enabled": true}, {"name": "bash", "enabled": true}])
        ));
        assert!(!all(json!([{"name": "read", "enabled": true},
            {"name": "web_fetch", "enabled": true, "allowed_domains": ["example.com"]}])));

        let both =
            json!([{"name": "read", "enabled": true}, {"name": "web_fetch", "enabled": true}]);
        let fresh = EnvironmentConfig::cloud();
        assert!(!Exposure::of(&tools(both.clone()), &fresh, true).is_all_three());
        let shell = || tools(json!([{"name": "bash", "enabled": true}]));
        assert!(!Exposure::of(&shell(), &fresh, true).is_all_three());
        let secret = json!({"type": "cloud", "variables": {"TOKEN": {"secret": "deploy"}}});
        let with_secret = EnvironmentConfig::parse(&secret).unwrap();
        assert!(Exposure::of(&shell(), &with_secret, true).is_all_three());
        assert!(!Exposure::of(&tools(both.clone()), &project(), false).is_all_three());
        let server = json!([{"type": "mcp_toolset", "mcp_server_name": "s"}]);
        let of_server = Exposure::of(&parse(&server).unwrap(), &fresh, false);
        assert!(of_server.untrusted_input && of_server.outside_effect);
        let exposure = Exposure::of_agent(&tools(both.clone()));
        assert_eq!(exposure.to_json(&tools(both))["asks"], json!(["web_fetch"]));
    }
}

//! Reads `agents`: the agents that the file declares, by the same rules as the API.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    budgets,
    callback::{self, DeclaredCallback},
    problem::{Wrong, join},
    reader::{Entry, Reader},
    source::{refuse_unknown, turns},
    value,
};
use crate::{
    domain::{
        agent::{AgentPatch, AgentSpec},
        budget::Budgets,
        source::WebhookTools,
        turn::TurnLimits,
    },
    id::AgentId,
};

/// An agent as the file declares it.
#[derive(Clone, Debug)]
pub struct DeclaredAgent {
    pub name: String,
    pub spec: AgentSpec,
    pub limits: TurnLimits,
    pub budgets: Budgets,
    pub callback: Option<DeclaredCallback>,
    /// Of the agent's own endpoint; left as it is when absent.
    pub webhook_tools: WebhookTools,
}

pub(super) const KEYS: [&str; 12] = [
    "budgets",
    "callback",
    "description",
    "mcp_servers",
    "metadata",
    "model",
    "skills",
    "system",
    "tools",
    "turns_at_once_max",
    "turns_per_minute_max",
    "webhook_tools",
];

const MODEL_KEYS: [&str; 4] = ["id", "speed", "effort", "inference_geo"];

pub(super) fn read(reader: &mut Reader<'_>, near: &[String]) -> Vec<DeclaredAgent> {
    reader.know("agents.<name>", &KEYS);
    let mut agents = Vec::new();
    for (name, values) in reader.entries("agents") {
        let at = join("agents", name);
        if name.parse::<AgentId>().is_ok() {
            let wrong = Wrong::from("the name reads like the id of an agent");
            reader.problem(&at, wrong.hint("names do not begin with `agent_`"));
        }
        let mut entry = Entry { reader, at, values };
        let limits = TurnLimits {
            at_once_max: entry.get("turns_at_once_max", turns),
            per_minute_max: entry.get("turns_per_minute_max", turns),
        };
        let budgets = budgets::read(&mut entry);
        let callback = callback::read(&mut entry, near);
        let webhook_tools =
            entry.get("webhook_tools", value::choice(&WebhookTools::NAMES)).unwrap_or_default();
        let spec = read_one(&mut entry, name);
        agents.extend(spec.map(|spec| {
            let name = spec.name.clone();
            DeclaredAgent { name, spec, limits, budgets, callback, webhook_tools }
        }));
    }
    agents
}

fn read_one(entry: &mut Entry<'_, '_>, name: &str) -> Option<AgentSpec> {
    let given = |key| entry.raw(key).cloned();
    let mut whole = AgentPatch {
        name: Some(name.into()),
        description: given("description"),
        model: given("model"),
        tools: given("tools"),
        mcp_servers: given("mcp_servers"),
        skills: given("skills"),
        ..AgentPatch::default()
    };
    let n_before = entry.reader.problems.len();
    whole.system = system(entry);
    whole.metadata = metadata(entry);
    let mut model = whole.model.clone();
    if let Some(Value::Object(keys)) = &whole.model {
        let (at, n_before) = (entry.at("model"), entry.reader.problems.len());
        refuse_unknown(entry.reader, &at, keys, &MODEL_KEYS);
        // Said once is enough.
        model = model.filter(|_| entry.reader.problems.len() == n_before);
    }
    if whole.model.is_none() {
        let wrong = Wrong::from("is required");
        entry.problem("model", wrong.hint("a model id, or `rehearsal`, which needs no key"));
    }
    // The domain stops at the first problem, so each part that can be wrong by itself is asked for
    // by itself.
    let patch = AgentPatch::default;
    let parts = [
        AgentPatch { name: whole.name.clone(), ..patch() },
        AgentPatch { description: whole.description.clone(), ..patch() },
        AgentPatch { model, ..patch() },
        AgentPatch { system: whole.system.clone(), ..patch() },
        AgentPatch {
            tools: whole.tools.clone(),
            mcp_servers: whole.mcp_servers.clone(),
            ..patch()
        },
        // With a tool that they need, so that only they are looked at.
        AgentPatch {
            skills: whole.skills.clone(),
            tools: Some(serde_json::json!([{"type": "agent_toolset_20260401"}])),
            ..patch()
        },
        AgentPatch { metadata: whole.metadata.clone(), ..patch() },
    ];
    for part in parts {
        if let Err(problem) = part.apply(AgentSpec::new(name, "")) {
            entry.reader.problem(&format!("{}.{}", entry.at, problem.field), problem.message);
        }
    }
    if entry.reader.problems.len() > n_before {
        return None;
    }
    match whole.create() {
        Ok(spec) => Some(spec),
        Err(problem) => {
            entry.reader.problem(&format!("{}.{}", entry.at, problem.field), problem.message);
            None
        }
    }
}

/// A text, or the file that holds it.
fn system(entry: &mut Entry<'_, '_>) -> Option<Value> {
    match entry.raw("system")? {
        Value::Object(table) => {
            let at = entry.at("system");
            entry.reader.indirect(&at, table, &["file"]).map(Value::from)
        }
        value => Some(value.clone()),
    }
}

fn metadata(entry: &mut Entry<'_, '_>) -> Option<BTreeMap<String, Option<String>>> {
    let Value::Object(table) = entry.raw("metadata")? else {
        entry.problem("metadata", "must be a table");
        return None;
    };
    let mut metadata = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::String(text) => {
                let text = crate::domain::text::clean(text).into_owned();
                metadata.insert(key.clone(), Some(text));
            }
            _ => entry.reader.problem(&join(&entry.at("metadata"), key), "must be a text"),
        }
    }
    Some(metadata)
}

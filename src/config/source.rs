//! Reads `webhooks`: the sources that the file declares, in Lowkey's spelling and ours.
//!
//! Invariant: a source that leaves here has a gate. What it refers to (agent, project, a secret of
//! the vault) is not looked up: that it is missing is shown at the source, and stops nothing else.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    budgets,
    callback::{self, DeclaredCallback},
    problem::{Wrong, join},
    reader::{Entry, Reader},
    value::{self, Parsed, Raw},
};
use crate::{
    domain::{
        Problem,
        budget::Budgets,
        environment::{DEFAULT_NAME, NAME_CHARS_MAX},
        field::Field,
        handshake::Handshake,
        nearest::nearest,
        secret,
        source::{
            BODY_HASH_WINDOW_SECONDS_MAX, DEBOUNCE_SECONDS_MAX, FIELDS_MAX, HOSTS_MAX,
            MESSAGE_CHARS_DEFAULT, MESSAGE_CHARS_MAX, OnPossibleReplay, OnRedelivery,
            POLICY_CHARS_MAX, REASON_CHARS_MAX, RuleVerdict, SourceDefinition, SourceRule,
            TURNS_PER_KEY_PER_HOUR_MAX, Target, WebhookTools, WhenBusy, check_hosts, check_name,
        },
        turn::TURN_LIMIT_MAX,
    },
    id::EnvironmentId,
    ingest::{ACTORS_MAX, RULES_MAX, Sender, check_policy},
};

/// A source as the file declares it.
#[derive(Debug)]
pub struct DeclaredSource {
    pub name: String,
    pub definition: SourceDefinition,
    /// The environment that the file declares, by name; the definition gets its id.
    pub environment: Option<String>,
    /// The value of `definition.secret_key`, if the file gives it; else it is in the vault.
    pub secret: Option<SecretString>,
    pub callback: Option<DeclaredCallback>,
    pub budgets: Budgets,
}

pub(super) const KEYS: [&str; 33] = [
    "actor",
    "agent",
    "allowed_hosts",
    "body_hash_window_seconds",
    "budgets",
    "callback",
    "debounce_seconds",
    "debounce_seconds_max",
    "environment",
    "environment_id",
    "event_type",
    "filter",
    "handshakes",
    "header",
    "identity",
    "ignore_actors",
    "message",
    "message_chars_max",
    "on_possible_replay",
    "on_redelivery",
    "preset",
    "project",
    "rules",
    "secret",
    "secret_key",
    "target",
    "turns_at_once_max",
    "turns_per_key_per_hour_max",
    "turns_per_minute_max",
    "username",
    "verifier",
    "webhook_tools",
    "when_busy",
];

pub(super) fn read(
    reader: &mut Reader<'_>,
    needs_project: bool,
    near: &[String],
) -> Vec<DeclaredSource> {
    reader.know("webhooks.<name>", &KEYS);
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    let mut sources = Vec::new();
    for (name, values) in reader.entries("webhooks") {
        let at = join("webhooks", name);
        let first = names.insert(name.to_ascii_lowercase(), name);
        if let Some(first) = first {
            reader.problem(&at, format!("differs only in case from `{}`", join("webhooks", first)));
        } else if let Err(problem) = check_name(name) {
            let lower = name.to_ascii_lowercase();
            let hint = check_name(&lower).is_ok().then(|| format!("for instance `{lower}`"));
            reader.problem(&at, Wrong { message: format!("the name {}", problem.message), hint });
        }
        let mut entry = Entry { reader, at, values };
        sources.push(read_one(&mut entry, name, needs_project, near));
    }
    sources
}

fn read_one(
    entry: &mut Entry<'_, '_>,
    name: &str,
    needs_project: bool,
    near: &[String],
) -> DeclaredSource {
    let n_problems = entry.reader.problems.len();
    let callback = callback::read(entry, near);
    let budgets = budgets::read(entry);
    let gate = gate(entry);
    // Without one there is a problem, so nothing of this is used.
    let sender = check_gate(entry, &gate);
    let secret_value = entry.raw("secret");
    let at = entry.at("secret");
    let secret = secret_value.and_then(|value| entry.reader.secret(&at, value));
    let secret_key = entry.get("secret_key", secret_name);
    if secret_value.is_some() && secret_key.is_some() {
        entry.problem("secret_key", "is given beside `secret`: keep one of them");
    }
    let needs = sender.is_some_and(|sender| sender.verifier.needs_secret());
    let needs_secret = secret_value.is_some() || needs;
    let definition = SourceDefinition {
        secret_key: secret_key.or_else(|| needs_secret.then(|| secret::source_key(name))),
        agent: entry.get("agent", value::text(256)),
        environment_id: entry.get("environment_id", environment_id),
        project: entry.get("project", value::text(4096)),
        target: entry.get("target", target).unwrap_or_default(),
        filter: entry.get("filter", value::text(POLICY_CHARS_MAX)),
        message: entry.get("message", value::text(POLICY_CHARS_MAX)),
        rules: rules(entry),
        ignore_actors: entry
            .get("ignore_actors", value::list(ACTORS_MAX, value::text(256)))
            .unwrap_or_default(),
        actor: entry.get("actor", fields).unwrap_or_default(),
        identity: entry.get("identity", fields).unwrap_or_default(),
        body_hash_window_seconds: entry
            .get("body_hash_window_seconds", seconds(0, BODY_HASH_WINDOW_SECONDS_MAX)),
        event_type: entry.get("event_type", fields).unwrap_or_default(),
        on_redelivery: entry
            .get("on_redelivery", value::choice(&ON_REDELIVERY))
            .unwrap_or_default(),
        on_possible_replay: entry
            .get("on_possible_replay", value::choice(&ON_POSSIBLE_REPLAY))
            .unwrap_or_default(),
        message_chars_max: entry
            .get("message_chars_max", value::number(1..=MESSAGE_CHARS_MAX.into(), "characters"))
            .unwrap_or(MESSAGE_CHARS_DEFAULT),
        debounce_seconds: entry
            .get("debounce_seconds", seconds(0, DEBOUNCE_SECONDS_MAX))
            .unwrap_or_default(),
        debounce_seconds_max: entry.get("debounce_seconds_max", seconds(1, DEBOUNCE_SECONDS_MAX)),
        when_busy: entry.get("when_busy", value::choice(&WhenBusy::NAMES)).unwrap_or_default(),
        turns_per_key_per_hour_max: entry.get(
            "turns_per_key_per_hour_max",
            value::number(1..=TURNS_PER_KEY_PER_HOUR_MAX.into(), "turns"),
        ),
        turns_at_once_max: entry.get("turns_at_once_max", turns),
        turns_per_minute_max: entry.get("turns_per_minute_max", turns),
        callback: callback.as_ref().map(|callback| callback.of(name)),
        allowed_hosts: entry
            .get("allowed_hosts", value::list(HOSTS_MAX, value::text(256)))
            .unwrap_or_default(),
        webhook_tools: entry
            .get("webhook_tools", value::choice(&WebhookTools::NAMES))
            .unwrap_or_default(),
        ..gate
    };
    let environment = place(entry, needs_project);
    if let Err(problem) = check_hosts(&definition.allowed_hosts) {
        entry.problem("allowed_hosts", problem.message);
    }
    if entry.reader.problems.len() == n_problems
        && let Err(Problem { field, message, .. }) = check_policy(&definition)
    {
        let at = format!("{}.{field}", entry.at);
        entry.reader.problem(&at, message);
    }
    let name = name.to_owned();
    DeclaredSource { name, definition, environment, secret, callback, budgets }
}

/// Where it works is said in one way. Answers the environment that is named, if one is: of those in
/// the file, or the one that is there from the start.
fn place(entry: &mut Entry<'_, '_>, needs_project: bool) -> Option<String> {
    let given = ["project", "environment", "environment_id"].map(|key| entry.raw(key).map(|_| key));
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (None, _) if needs_project => {
            entry.problem("project", "is required in a file that has `apiKey`");
        }
        (Some(first), Some(second)) => {
            entry.problem(second, format!("is given beside `{first}`: keep one of them"));
        }
        _ => {}
    }
    let name = entry.get("environment", value::text(NAME_CHARS_MAX))?;
    let declared = entry.reader.entries("environments");
    let mut known: Vec<&str> = declared.iter().map(|(name, _)| name.as_str()).collect();
    known.push(DEFAULT_NAME);
    if !known.contains(&name.as_str()) {
        let hint = nearest(&name, known).map(|near| format!("did you mean `{near}`?"));
        let hint = hint.or_else(|| Some("name an existing one by `environment_id`".to_owned()));
        let message = format!("the file declares no environment `{name}`");
        entry.problem("environment", Wrong { message, hint });
    }
    Some(name)
}

const RULE_KEYS: [&str; 8] =
    ["agent", "environment_id", "message", "project", "reason", "target", "verdict", "when"];

const VERDICTS: [(&str, RuleVerdict); 2] =
    [("filtered", RuleVerdict::Filtered), ("held", RuleVerdict::Held)];

fn rules(entry: &mut Entry<'_, '_>) -> Vec<SourceRule> {
    let list = match entry.raw("rules") {
        None => return Vec::new(),
        Some(Value::Array(list)) if list.len() <= RULES_MAX => list,
        Some(_) => {
            entry.problem("rules", format!("must be a list of up to {RULES_MAX} tables"));
            return Vec::new();
        }
    };
    let mut rules = Vec::new();
    for (n, value) in list.iter().enumerate() {
        let at = format!("{}[{n}]", entry.at("rules"));
        let Value::Object(values) = value else {
            entry.reader.problem(&at, "must be a table");
            continue;
        };
        refuse_unknown(entry.reader, &at, values, &RULE_KEYS);
        let mut rule = Entry { reader: entry.reader, at, values };
        rules.push(SourceRule {
            when: rule.get("when", value::text(POLICY_CHARS_MAX)).unwrap_or_default(),
            verdict: rule.get("verdict", value::choice(&VERDICTS)),
            reason: rule.get("reason", value::text(REASON_CHARS_MAX)),
            agent: rule.get("agent", value::text(256)),
            environment_id: rule.get("environment_id", environment_id),
            project: rule.get("project", value::text(4096)),
            target: rule.get("target", target),
            message: rule.get("message", value::text(POLICY_CHARS_MAX)),
        });
    }
    rules
}

fn environment_id(raw: Raw<'_>) -> Parsed<EnvironmentId> {
    let id = value::text(64)(raw)?;
    id.parse().map_err(|_| "must be the id of an environment (`env_…`)".into())
}

/// As many as an agent or a source may have.
pub(super) fn turns(raw: Raw<'_>) -> Parsed<u32> {
    value::number(1..=TURN_LIMIT_MAX.into(), "turns")(raw)
}

fn seconds(min: u32, max: u32) -> impl Fn(Raw<'_>) -> Parsed<u32> {
    value::number(min.into()..=max.into(), "seconds")
}

const ON_REDELIVERY: [(&str, OnRedelivery); 2] =
    [("duplicate", OnRedelivery::Duplicate), ("rerun_failed", OnRedelivery::RerunFailed)];

const ON_POSSIBLE_REPLAY: [(&str, OnPossibleReplay); 2] =
    [("accept", OnPossibleReplay::Accept), ("hold", OnPossibleReplay::Hold)];

/// What the source says about its gate: `preset` and `verifier` as they are, and the short forms
/// for the presets that need one field.
fn gate(entry: &mut Entry<'_, '_>) -> SourceDefinition {
    let preset = entry.get("preset", value::text(64));
    let mut verifier = entry.raw("verifier").cloned();
    for (key, wanted) in [("username", "basic"), ("header", "header")] {
        if entry.raw(key).is_none() {
            continue;
        }
        if preset.as_deref() != Some(wanted) {
            let wrong = Wrong::from(format!("belongs to `preset` = \"{wanted}\" only"));
            entry.problem(key, wrong.hint(format!("a `verifier` has its own `{key}`")));
        } else if verifier.is_some() {
            entry.problem(key, "is given beside `verifier`, which has its own");
        } else if let Some(text) = entry.get(key, value::text(256)) {
            verifier = Some(json!({key: text}));
        }
    }
    let handshakes = entry.get("handshakes", handshakes).unwrap_or_default();
    SourceDefinition { preset, verifier, handshakes, ..SourceDefinition::default() }
}

/// Whether preset and verifier make a gate; what is wrong is reported where it was written.
fn check_gate(entry: &mut Entry<'_, '_>, definition: &SourceDefinition) -> Option<Sender> {
    let Problem { field, message, .. } = match Sender::defined(definition) {
        Ok(sender) => return Some(sender),
        Err(problem) => problem,
    };
    // A preset that is no text was reported already.
    if definition.preset.is_none() && entry.raw("preset").is_some() {
        return None;
    }
    let short = field.strip_prefix("verifier.").filter(|it| SHORT.contains(it));
    let field = match short {
        Some(short) if entry.raw("verifier").is_none() => short,
        _ => &field,
    };
    let (message, hint) = match message.split_once(": did you mean ") {
        Some((message, near)) => (message.to_owned(), Some(format!("did you mean {near}"))),
        None => (message, None),
    };
    let at = format!("{}.{field}", entry.at);
    entry.reader.problem(&at, Wrong { message, hint });
    None
}

const SHORT: [&str; 2] = ["username", "header"];

pub(super) fn refuse_unknown(
    reader: &mut Reader<'_>,
    at: &str,
    table: &Map<String, Value>,
    known: &[&str],
) {
    for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
        let hint =
            nearest(key, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        reader.problem(&join(at, key), Wrong { message: "unknown key".to_owned(), hint });
    }
}

pub(super) fn secret_name(raw: Raw<'_>) -> Parsed<String> {
    let name = value::text(128)(raw)?;
    secret::check_name(&name).map_err(|problem| problem.message)?;
    Ok(name)
}

const TARGET_WANTED: &str =
    "must be `new_session`, `key`, a session id or { key = \"<template>\" }";

fn target(raw: Raw<'_>) -> Parsed<Target> {
    let wanted = || Wrong::from(TARGET_WANTED);
    match raw {
        Raw::Value(Value::Object(table)) => match table.get("key") {
            Some(Value::String(key)) if table.len() == 1 && !key.is_empty() => {
                Ok(Target::Key(key.clone()))
            }
            _ => Err(wanted()),
        },
        Raw::Value(Value::String(text)) if text == "new_session" => Ok(Target::NewSession),
        Raw::Value(Value::String(text)) if text == "key" => Ok(Target::PresetKey),
        Raw::Value(Value::String(text)) => text.parse().map(Target::Session).map_err(|_| wanted()),
        Raw::Text(_) | Raw::Value(_) => Err(wanted()),
    }
}

fn handshakes(raw: Raw<'_>) -> Parsed<Vec<Handshake>> {
    let read = match raw {
        Raw::Value(value) => Vec::deserialize(value).ok(),
        Raw::Text(_) => None,
    };
    // Serde's own words repeat values, of which one may be a secret in the wrong place.
    read.ok_or_else(|| "must be a list of handshakes as docs/webhooks.md has them".into())
}

fn fields(raw: Raw<'_>) -> Parsed<Vec<Field>> {
    let field = |raw: Raw<'_>| {
        let text = value::text(1024)(raw)?;
        text.parse::<Field>().map_err(|_| "is neither a header name nor a JSON pointer".into())
    };
    value::list(FIELDS_MAX, field)(raw)
}

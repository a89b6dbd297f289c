//! Reads `webhooks`: the sources that the file declares, in Lowkey's spelling and ours.
//!
//! Invariant: a source that leaves here has a gate. What it refers to (agent, project, a secret of
//! the vault) is not looked up: that it is missing is shown at the source, and stops nothing else.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{
    problem::{Wrong, join},
    reader::{Entry, Reader},
    value::{self, Parsed, Raw},
};
use crate::domain::{
    self,
    nearest::nearest,
    secret,
    source::{
        Field, HEADER_DEFAULT, MESSAGE_CHARS_DEFAULT, OnRedelivery, SourceDefinition, Target,
        Verifier, check_name,
    },
};

/// A source as the file declares it.
#[derive(Debug)]
pub struct DeclaredSource {
    pub name: String,
    pub definition: SourceDefinition,
    /// The value of `definition.secret_key`, if the file gives it; else it is in the vault.
    pub secret: Option<SecretString>,
}

pub(super) const KEYS: [&str; 15] = [
    "agent",
    "body_hash_window_seconds",
    "environment_id",
    "event_type",
    "header",
    "identity",
    "message_chars_max",
    "on_redelivery",
    "preset",
    "project",
    "secret",
    "secret_key",
    "target",
    "username",
    "verifier",
];

/// Fields tried in turn; more of them is a mistake.
const FIELDS_MAX: usize = 32;

/// 30 days: as long as identities are kept unless told otherwise.
const WINDOW_SECONDS_MAX: u64 = 30 * 24 * 3600;

pub(super) fn read(reader: &mut Reader<'_>, needs_project: bool) -> Vec<DeclaredSource> {
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
        sources.push(read_one(&mut entry, name, needs_project));
    }
    sources
}

fn read_one(entry: &mut Entry<'_, '_>, name: &str, needs_project: bool) -> DeclaredSource {
    // The stand-in for a wrong verifier goes no further: there is a problem, so nothing is used.
    let verifier = gate(entry).unwrap_or(Verifier::Box);
    let secret_value = entry.raw("secret");
    let at = entry.at("secret");
    let secret = secret_value.and_then(|value| entry.reader.secret(&at, value));
    let secret_key = entry.get("secret_key", secret_name);
    if secret_value.is_some() && secret_key.is_some() {
        entry.problem("secret_key", "is given beside `secret`: keep one of them");
    }
    let needs_secret = secret_value.is_some() || verifier.needs_secret();
    let definition = SourceDefinition {
        verifier,
        secret_key: secret_key.or_else(|| needs_secret.then(|| secret::source_key(name))),
        agent: entry.get("agent", value::text(256)),
        environment_id: entry.get("environment_id", |raw| {
            let id = value::text(64)(raw)?;
            id.parse().map_err(|_| "must be the id of an environment (`env_…`)".into())
        }),
        project: entry.get("project", value::text(4096)),
        target: entry.get("target", target).unwrap_or_default(),
        identity: entry.get("identity", fields).unwrap_or_default(),
        body_hash_window_seconds: entry
            .get("body_hash_window_seconds", value::number(0..=WINDOW_SECONDS_MAX, "seconds"))
            .unwrap_or_default(),
        event_type: entry.get("event_type", fields).unwrap_or_default(),
        on_redelivery: entry
            .get("on_redelivery", value::choice(&ON_REDELIVERY))
            .unwrap_or_default(),
        message_chars_max: entry
            .get("message_chars_max", value::number(1..=1_000_000, "characters"))
            .unwrap_or(MESSAGE_CHARS_DEFAULT),
    };
    match (entry.raw("project"), entry.raw("environment_id")) {
        (Some(_), Some(_)) => {
            entry.problem("environment_id", "is given beside `project`: keep one of them");
        }
        (None, None) if needs_project => {
            entry.problem("project", "is required in a file that has `apiKey`");
        }
        (Some(_), None) | (None, Some(_) | None) => {}
    }
    DeclaredSource { name: name.to_owned(), definition, secret }
}

const ON_REDELIVERY: [(&str, OnRedelivery); 2] =
    [("duplicate", OnRedelivery::Duplicate), ("rerun_failed", OnRedelivery::RerunFailed)];

/// The verifier: from `preset`, from `verifier`, or the box key. `None` after a problem.
fn gate(entry: &mut Entry<'_, '_>) -> Option<Verifier> {
    let preset = entry.raw("preset").map(|_| entry.get("preset", value::text(64)));
    for (key, wanted) in [("username", "basic"), ("header", "header")] {
        let is_wanted = preset.as_ref().is_some_and(|it| it.as_deref() == Some(wanted));
        if entry.raw(key).is_some() && !is_wanted {
            let wrong = Wrong::from(format!("belongs to `preset` = \"{wanted}\" only"));
            entry.problem(key, wrong.hint(format!("a `verifier` has its own `{key}`")));
        }
    }
    let found = match (preset, entry.raw("verifier")) {
        (Some(_), Some(_)) => {
            entry.problem("verifier", "is given beside `preset`: keep one of them");
            return None;
        }
        (Some(preset), None) => from_preset(entry, &preset?)?,
        (None, Some(value)) => from_table(entry, value)?,
        (None, None) => Verifier::Box,
    };
    let at = if entry.raw("verifier").is_some() { "verifier" } else { "preset" };
    match found.check() {
        Ok(()) => Some(found),
        Err(domain::Problem { field, message }) => {
            entry.problem(at, format!("the {field} {message}"));
            None
        }
    }
}

pub(super) fn from_preset(entry: &mut Entry<'_, '_>, preset: &str) -> Option<Verifier> {
    match preset {
        "bearer" => Some(Verifier::Bearer),
        "basic" => {
            if entry.raw("username").is_none() {
                entry.problem("username", "is required with `preset` = \"basic\"");
            }
            Some(Verifier::Basic { username: entry.get("username", value::text(256))? })
        }
        "header" => {
            let given = entry.raw("header").map(|_| entry.get("header", value::text(128)));
            let header = given.unwrap_or_else(|| Some(HEADER_DEFAULT.to_owned()));
            Some(Verifier::Header { header: header? })
        }
        _ => {
            let near = nearest(preset, Verifier::PRESETS);
            let message = format!("must be one of {}", Verifier::PRESETS.join(", "));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            entry.problem("preset", Wrong { message, hint });
            None
        }
    }
}

/// The kinds of verifier and their fields are the domain's; so that a new kind needs no change
/// here, this goes by what the domain reads and writes back.
fn from_table(entry: &mut Entry<'_, '_>, given: &Value) -> Option<Verifier> {
    let Value::Object(table) = given else {
        entry.problem("verifier", "must be a table");
        return None;
    };
    let verifier = match Verifier::deserialize(given) {
        Ok(verifier) => verifier,
        Err(error) => {
            entry.problem("verifier", verifier_message(&error.to_string()));
            return None;
        }
    };
    let written = serde_json::to_value(&verifier).unwrap_or_default();
    let known = written.as_object().cloned().unwrap_or_default();
    let at = entry.at("verifier");
    refuse_unknown(entry.reader, &at, table, &known.keys().map(String::as_str).collect::<Vec<_>>());
    Some(verifier)
}

/// What serde says, without the values that it quotes.
fn verifier_message(error: &str) -> String {
    if let Some(field) = error.strip_prefix("missing field ") {
        format!("needs {field}")
    } else if let (true, Some((_, kinds))) =
        (error.starts_with("unknown variant"), error.split_once(", expected "))
    {
        format!("`type` must be {kinds}")
    } else {
        "has a field of the wrong kind".to_owned()
    }
}

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

fn secret_name(raw: Raw<'_>) -> Parsed<String> {
    let name = value::text(128)(raw)?;
    secret::check_name(&name).map_err(|problem| problem.message)?;
    Ok(name)
}

fn target(raw: Raw<'_>) -> Parsed<Target> {
    let wanted = || Wrong::from("must be `new_session`, a session id or { key = \"<template>\" }");
    match raw {
        Raw::Value(Value::Object(table)) => match table.get("key") {
            Some(Value::String(key)) if table.len() == 1 && !key.is_empty() => {
                Ok(Target::Key(key.clone()))
            }
            _ => Err(wanted()),
        },
        Raw::Value(Value::String(text)) if text == "new_session" => Ok(Target::NewSession),
        Raw::Value(Value::String(text)) => text.parse().map(Target::Session).map_err(|_| wanted()),
        Raw::Text(_) | Raw::Value(_) => Err(wanted()),
    }
}

fn fields(raw: Raw<'_>) -> Parsed<Vec<Field>> {
    let field = |raw: Raw<'_>| {
        let text = value::text(1024)(raw)?;
        text.parse::<Field>().map_err(|_| "is neither a header name nor a JSON pointer".into())
    };
    value::list(FIELDS_MAX, field)(raw)
}

//! What a request says about a source, laid over what the source was before.
//!
//! A field left out stays, null is back to its default. Invariant: what leaves here is a definition
//! that the receive path can use; whether what it refers to exists is looked up by the caller.

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::secrets;
use crate::{
    domain::{
        Problem,
        field::Field,
        secret,
        source::{
            BODY_HASH_WINDOW_SECONDS_MAX, DEBOUNCE_SECONDS_MAX, FIELDS_MAX, HOSTS_MAX,
            MESSAGE_CHARS_DEFAULT, MESSAGE_CHARS_MAX, POLICY_CHARS_MAX, REASON_CHARS_MAX, Source,
            SourceDefinition, SourceKind, SourceRule, TARGET_WANTED, TURNS_PER_KEY_PER_HOUR_MAX,
            check_hosts,
        },
    },
    ingest::{ACTORS_MAX, RULES_MAX, Sender, check_policy},
    web::input::{Fields, or_default, text, turns},
};

/// Lays the fields over `source`. Answers the secret's value when it was given inline.
pub(super) fn apply(
    mut fields: Fields,
    source: &mut Source,
) -> Result<Option<SecretString>, Problem> {
    gate(&mut fields, source)?;
    let secret = keep_secret(&mut fields, source)?;
    destination(&mut fields, source)?;
    let definition = &mut source.definition;
    if let Some(given) = fields.take("identity") {
        definition.identity = places("identity", &given)?;
    }
    if let Some(given) = fields.take("event_type") {
        definition.event_type = places("event_type", &given)?;
    }
    if let Some(given) = fields.take("handshakes") {
        let wanted = "must be a list of handshakes as docs/webhooks.md has them";
        definition.handshakes = match given {
            Value::Null => Vec::new(),
            given => parsed("handshakes", given, wanted)?.unwrap_or_default(),
        };
        Sender::defined(definition)?;
    }
    if let Some(given) = fields.take("body_hash_window_seconds") {
        definition.body_hash_window_seconds =
            or_default("body_hash_window_seconds", &given, 0..=BODY_HASH_WINDOW_SECONDS_MAX)?;
    }
    if let Some(given) = fields.take("message_chars_max") {
        let chars = or_default("message_chars_max", &given, 1..=MESSAGE_CHARS_MAX)?;
        definition.message_chars_max = chars.unwrap_or(MESSAGE_CHARS_DEFAULT);
    }
    if let Some(given) = fields.take("debounce_seconds") {
        let seconds = or_default("debounce_seconds", &given, 0..=DEBOUNCE_SECONDS_MAX)?;
        definition.debounce_seconds = seconds.unwrap_or_default();
    }
    if let Some(given) = fields.take("debounce_seconds_max") {
        definition.debounce_seconds_max =
            or_default("debounce_seconds_max", &given, 1..=DEBOUNCE_SECONDS_MAX)?;
    }
    if let Some(given) = fields.take("when_busy") {
        let wanted = "must be `queue`, `steer`, `supersede` or `skip`";
        definition.when_busy = parsed("when_busy", given, wanted)?.unwrap_or_default();
    }
    if let Some(given) = fields.take("turns_per_key_per_hour_max") {
        definition.turns_per_key_per_hour_max =
            or_default("turns_per_key_per_hour_max", &given, 1..=TURNS_PER_KEY_PER_HOUR_MAX)?;
    }
    if let Some(given) = fields.take("turns_at_once_max") {
        definition.turns_at_once_max = turns("turns_at_once_max", &given)?;
    }
    if let Some(given) = fields.take("turns_per_minute_max") {
        definition.turns_per_minute_max = turns("turns_per_minute_max", &given)?;
    }
    reach(&mut fields, definition)?;
    if let Some(given) = fields.take("on_redelivery") {
        let wanted = "must be `duplicate` or `rerun_failed`";
        definition.on_redelivery = parsed("on_redelivery", given, wanted)?.unwrap_or_default();
    }
    if let Some(given) = fields.take("filter") {
        definition.filter = text_or_null("filter", &given, POLICY_CHARS_MAX)?;
    }
    if let Some(given) = fields.take("message") {
        definition.message = text_or_null("message", &given, POLICY_CHARS_MAX)?;
    }
    if let Some(given) = fields.take("rules") {
        definition.rules = rules(given, &source.kind)?;
    }
    if let Some(given) = fields.take("ignore_actors") {
        definition.ignore_actors = actors(&given)?;
    }
    if let Some(given) = fields.take("actor") {
        definition.actor = places("actor", &given)?;
    }
    check_policy(definition)?;
    if let Some(given) = fields.take("on_possible_replay") {
        let wanted = "must be `accept` or `hold`";
        definition.on_possible_replay =
            parsed("on_possible_replay", given, wanted)?.unwrap_or_default();
    }
    fields.finish()?;
    Ok(secret)
}

/// What its sessions reach, and what they may do.
fn reach(fields: &mut Fields, definition: &mut SourceDefinition) -> Result<(), Problem> {
    if let Some(given) = fields.take("allowed_hosts") {
        let wanted = format!("must be a list of up to {HOSTS_MAX} texts");
        let hosts: Vec<String> = parsed("allowed_hosts", given, &wanted)?.unwrap_or_default();
        if hosts.len() > HOSTS_MAX {
            return Err(Problem::new("allowed_hosts", wanted));
        }
        check_hosts(&hosts)?;
        definition.allowed_hosts = hosts;
    }
    if let Some(given) = fields.take("webhook_tools") {
        let wanted = "must be `as_usual`, `ask` or `read_only`";
        definition.webhook_tools = parsed("webhook_tools", given, wanted)?.unwrap_or_default();
    }
    Ok(())
}

/// How callers prove who they are: a preset, a verifier, or a verifier that is laid over a preset.
/// An agent's own source has its bearer token and nothing else.
fn gate(fields: &mut Fields, source: &mut Source) -> Result<(), Problem> {
    if source.kind != SourceKind::Named {
        return Ok(());
    }
    let definition = &mut source.definition;
    if let Some(given) = fields.take("preset") {
        definition.preset = text_or_null("preset", &given, 64)?;
        definition.verifier = None;
    }
    if let Some(given) = fields.take("verifier") {
        definition.verifier = Some(given).filter(|given| !given.is_null());
    }
    // The short forms for the presets that need one field.
    for (key, preset) in [("username", "basic"), ("header", "header")] {
        if definition.preset.as_deref() == Some(preset)
            && let Some(text) = fields.text(key, 256)?
        {
            definition.verifier = Some(json!({key: text}));
        }
    }
    Ok(())
}

/// Where the secret is kept: under a name of the caller's choice, or under the source's own when its
/// value is given here.
fn keep_secret(fields: &mut Fields, source: &mut Source) -> Result<Option<SecretString>, Problem> {
    let value = secrets::value(fields, "secret")?;
    let key = fields.take("secret_key");
    if value.is_some() && key.as_ref().is_some_and(|key| !key.is_null()) {
        return Err(Problem::new("secret_key", "is given beside `secret`: keep one of them"));
    }
    if let Some(key) = key {
        source.definition.secret_key = match key {
            Value::Null => None,
            key => {
                let key = text("secret_key", &key, 128)?;
                secret::check_name(&key)
                    .map_err(|problem| Problem::new("secret_key", problem.message))?;
                Some(key)
            }
        };
    }
    let needs = Sender::of(source)?.verifier.needs_secret();
    match source.kind {
        // The agent's default name is the public contract's and is not written down.
        SourceKind::Agent(_) if value.is_some() => source.definition.secret_key = None,
        SourceKind::Agent(_) => {}
        SourceKind::Named if value.is_some() || needs && source.definition.secret_key.is_none() => {
            source.definition.secret_key = Some(secret::source_key(&source.name));
        }
        SourceKind::Named => {}
    }
    Ok(value)
}

/// Agent, place and session. An agent's own source has its agent.
fn destination(fields: &mut Fields, source: &mut Source) -> Result<(), Problem> {
    let definition = &mut source.definition;
    if source.kind == SourceKind::Named
        && let Some(given) = fields.take("agent")
    {
        definition.agent = text_or_null("agent", &given, 256)?;
    }
    let (environment, project) = (fields.take("environment_id"), fields.take("project"));
    let is_given = |value: &Option<Value>| value.as_ref().is_some_and(|it| !it.is_null());
    if is_given(&environment) && is_given(&project) {
        return Err(Problem::new("environment_id", "is given beside `project`: keep one of them"));
    }
    if let Some(given) = environment {
        let wanted = "must be the id of an environment";
        definition.environment_id = parsed("environment_id", given, wanted)?;
        if definition.environment_id.is_some() {
            definition.project = None;
        }
    }
    if let Some(given) = project {
        definition.project = text_or_null("project", &given, 4096)?;
        if definition.project.is_some() {
            definition.environment_id = None;
        }
    }
    if let Some(given) = fields.take("target") {
        definition.target = parsed("target", given, TARGET_WANTED)?.unwrap_or_default();
    }
    Ok(())
}

fn rules(given: Value, kind: &SourceKind) -> Result<Vec<SourceRule>, Problem> {
    let list = match given {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) if list.len() <= RULES_MAX => list,
        _ => {
            let message = format!("must be a list of up to {RULES_MAX} objects");
            return Err(Problem::new("rules", message));
        }
    };
    let read = |(n, given): (usize, Value)| {
        let at = format!("rules[{n}]");
        let fields = Fields::of(given, &at)?;
        rule(fields, kind).map_err(|problem| problem.within(&at))
    };
    list.into_iter().enumerate().map(read).collect()
}

fn rule(mut fields: Fields, kind: &SourceKind) -> Result<SourceRule, Problem> {
    let rule = SourceRule {
        when: fields.required("when", POLICY_CHARS_MAX)?,
        verdict: given(&mut fields, "verdict", "must be `filtered` or `held`")?,
        reason: fields.text("reason", REASON_CHARS_MAX)?,
        // An agent's own source has its agent.
        agent: match kind {
            SourceKind::Named => fields.text("agent", 256)?,
            SourceKind::Agent(_) => None,
        },
        environment_id: given(&mut fields, "environment_id", "must be the id of an environment")?,
        project: fields.text("project", 4096)?,
        target: given(&mut fields, "target", TARGET_WANTED)?,
        message: fields.text("message", POLICY_CHARS_MAX)?,
    };
    fields.finish()?;
    Ok(rule)
}

fn given<T: DeserializeOwned>(
    fields: &mut Fields,
    key: &str,
    wanted: &str,
) -> Result<Option<T>, Problem> {
    fields.value(key).map(|value| parsed(key, value, wanted)).transpose().map(Option::flatten)
}

fn actors(given: &Value) -> Result<Vec<String>, Problem> {
    let wanted =
        || Problem::new("ignore_actors", format!("must be a list of up to {ACTORS_MAX} texts"));
    let list = match given {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) if list.len() <= ACTORS_MAX => list,
        _ => return Err(wanted()),
    };
    list.iter().enumerate().map(|(n, it)| text(&format!("ignore_actors[{n}]"), it, 256)).collect()
}

fn text_or_null(at: &str, value: &Value, chars_max: usize) -> Result<Option<String>, Problem> {
    match value {
        Value::Null => Ok(None),
        value => text(at, value, chars_max).map(|text| Some(text).filter(|it| !it.is_empty())),
    }
}

/// What serde makes of it, without serde's words.
fn parsed<T: DeserializeOwned>(at: &str, value: Value, wanted: &str) -> Result<Option<T>, Problem> {
    serde_json::from_value(value).map_err(|_| Problem::new(at, wanted))
}

/// Header names and JSON pointers.
fn places(at: &str, value: &Value) -> Result<Vec<Field>, Problem> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) if list.len() <= FIELDS_MAX => list,
        _ => return Err(Problem::new(at, format!("must be a list of up to {FIELDS_MAX} fields"))),
    };
    let read = |(n, value): (usize, &Value)| {
        let at = format!("{at}[{n}]");
        let field = text(&at, value, 1024)?;
        field.parse().map_err(|problem: Problem| Problem::new(at, problem.message))
    };
    list.iter().enumerate().map(read).collect()
}

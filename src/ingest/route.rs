//! Where a delivery goes: agent, environment, session and message, or held, and why.
//!
//! Invariant: a delivery that was let in is never refused here. What cannot be routed is held with a
//! reason that tells the operator what to mend, and can be released later.

use std::fmt::Write;

use http::HeaderMap;
use minijinja::{Environment, UndefinedBehavior, Value, context, value::Serde};

use super::{Entry, Payload, new_message_id, render};
use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        event::{Block, EventBody, Origin},
        source::Target,
    },
    id::{DeliveryId, Id, SessionId},
    store::{Dispatch, MessageBody, Route, RouteTarget},
};

const TITLE_CHARS_MAX: usize = 120;

/// Longer keys are refused: they are names of tickets and pull requests, not payloads.
const KEY_CHARS_MAX: usize = 512;

pub(super) fn route(
    entry: &Entry,
    delivery: &DeliveryId,
    event_type: Option<&str>,
    headers: &HeaderMap,
    payload: &Payload,
    at: Timestamp,
) -> Route {
    let agent_id = entry.agent.as_ref().ok().map(|agent| agent.id.clone());
    let held = |reason: String| Route::Held { agent_id: agent_id.clone(), reason };
    if entry.source.paused {
        return held("the source is paused".to_owned());
    }
    let (agent, environment_id) = match (&entry.agent, &entry.environment) {
        (Ok(agent), Ok(environment_id)) => (agent, environment_id),
        (Err(reason), _) | (_, Err(reason)) => return held(reason.clone()),
    };
    let target = match &entry.source.definition.target {
        Target::NewSession => RouteTarget::New(SessionId::new(at)),
        Target::Session(id) => RouteTarget::Session(id.clone()),
        Target::Key(template) => match key(template, event_type, headers, payload) {
            Ok(key) => RouteTarget::Key { key, fresh: SessionId::new(at) },
            Err(reason) => return held(reason),
        },
    };
    let rendered = render::render(&entry.source, payload);
    let source_name = entry.display_name();
    let body = EventBody::UserMessage {
        content: vec![Block::text(rendered.text)],
        origin: Some(Origin {
            source: source_name.to_owned(),
            source_id: entry.source.id.clone(),
            delivery_id: delivery.clone(),
            event_type: event_type.map(str::to_owned),
            content_type: payload.content_type.clone(),
            bytes: i64::try_from(payload.bytes.len()).unwrap_or(i64::MAX),
            cut: rendered.cut,
            rerun: None,
        }),
    };
    let mut title = source_name.to_owned();
    if let Some(event_type) = event_type {
        let _ = write!(title, ": {event_type}");
    }
    let (event_id, private) = new_message_id(at);
    Route::To(Box::new(Dispatch {
        agent_id: agent.id.clone(),
        agent_version: agent.version,
        environment_id: environment_id.clone(),
        target,
        title: crate::domain::text::first_chars(&title, TITLE_CHARS_MAX).0.to_owned(),
        event_id,
        message: MessageBody::Inline(body.to_text()),
        private,
    }))
}

/// Steps that a template may take: enough for any name, not for a loop over a payload.
const FUEL: u64 = 10_000;

fn templates<'a>() -> Environment<'a> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_fuel(Some(FUEL));
    templates
}

/// Whether a key template can be read at all; found when the source is made, not when it is used.
pub fn check_key_template(template: &str) -> Result<(), Problem> {
    templates()
        .template_from_str(template)
        .map(|_| ())
        .map_err(|error| Problem::new("target.key", error.to_string()))
}

fn key(
    template: &str,
    event_type: Option<&str>,
    headers: &HeaderMap,
    payload: &Payload,
) -> Result<String, String> {
    let headers: std::collections::BTreeMap<_, _> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let context = context! {
        body => Value::from(Serde(payload.tree())),
        headers => Value::from(Serde(&headers)),
        event_type,
    };
    let key = templates()
        .render_str(template, context)
        .map_err(|error| format!("the session key could not be made: {error}"))?;
    let key = crate::domain::text::clean(key.trim()).into_owned();
    if key.is_empty() {
        return Err("the session key came out empty".to_owned());
    }
    if key.chars().count() > KEY_CHARS_MAX {
        return Err(format!("the session key is longer than {KEY_CHARS_MAX} characters"));
    }
    Ok(key)
}

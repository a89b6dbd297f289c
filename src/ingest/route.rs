//! Where a delivery goes: agent, environment, session and message, or held, and why.
//!
//! Invariant: a delivery that was let in is never refused here. What cannot be routed is held with a
//! reason that tells the operator what to mend, and can be released later.

use std::fmt::Write;

use minijinja::{Environment, UndefinedBehavior, Value, context, value::Serde};

use super::{Entry, Facts, new_message_id, render};
use crate::{
    domain::{
        Problem,
        event::{Block, EventBody, Origin},
        source::Target,
    },
    id::{Id, SessionId},
    store::{Dispatch, MessageBody, Route, RouteTarget},
};

const TITLE_CHARS_MAX: usize = 120;

/// Longer keys are refused: they are names of tickets and pull requests, not payloads.
const KEY_CHARS_MAX: usize = 512;

pub(super) fn route(entry: &Entry, facts: &Facts<'_>) -> Route {
    let agent_id = entry.agent.as_ref().ok().map(|agent| agent.id.clone());
    let held = |reason: String| Route::Held { agent_id: agent_id.clone(), reason };
    if entry.source.paused {
        return held("the source is paused".to_owned());
    }
    match entry.policy.as_ref().map(|policy| policy.wants(facts)) {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            let reason = "the source's filter does not want it".to_owned();
            return Route::Filtered { agent_id, reason };
        }
        Ok(Err(reason)) => return held(reason),
        Err(reason) => return held(reason.clone()),
    }
    let (agent, environment_id) = match (&entry.agent, &entry.environment) {
        (Ok(agent), Ok(environment_id)) => (agent, environment_id),
        (Err(reason), _) | (_, Err(reason)) => return held(reason.clone()),
    };
    let target = match &entry.source.definition.target {
        Target::NewSession => RouteTarget::New(SessionId::new(facts.at)),
        Target::Session(id) => RouteTarget::Session(id.clone()),
        Target::Key(template) => match key(template, facts) {
            Ok(key) => RouteTarget::Key { key, fresh: SessionId::new(facts.at) },
            Err(reason) => return held(reason),
        },
    };
    let payload = facts.payload;
    let rendered = render::render(&entry.source, payload);
    let body = EventBody::UserMessage {
        content: vec![Block::text(rendered.text)],
        origin: Some(Origin {
            source: facts.source.to_owned(),
            source_id: entry.source.id.clone(),
            delivery_id: facts.delivery.clone(),
            event_type: facts.event_type.map(str::to_owned),
            content_type: payload.content_type.clone(),
            bytes: i64::try_from(payload.bytes.len()).unwrap_or(i64::MAX),
            cut: rendered.cut,
            rerun: None,
        }),
    };
    let mut title = facts.source.to_owned();
    if let Some(event_type) = facts.event_type {
        let _ = write!(title, ": {event_type}");
    }
    let (event_id, private) = new_message_id(facts.at);
    Route::To(Box::new(Dispatch {
        agent_id: agent.id.clone(),
        agent_version: agent.version,
        environment_id: environment_id.clone(),
        target,
        title: crate::domain::text::first_chars(&title, TITLE_CHARS_MAX).0.to_owned(),
        event_id,
        message: MessageBody::Inline(body.to_text()),
        private,
        pace: entry.source.definition.pace(),
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
pub(super) fn check_key_template(template: &str) -> Result<(), Problem> {
    templates()
        .template_from_str(template)
        .map(|_| ())
        .map_err(|error| Problem::new("target.key", error.to_string()))
}

fn key(template: &str, facts: &Facts<'_>) -> Result<String, String> {
    let context = context! {
        body => Value::from(Serde(facts.body())),
        headers => Value::from(Serde(facts.headers())),
        event_type => facts.event_type,
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

//! Where a delivery goes: agent, environment, session and message, or filtered or held, and why.
//!
//! Invariant: a delivery that was let in is never refused here. What cannot be routed is held with a
//! reason that tells the operator what to mend, and can be released later.

use http::HeaderName;

use super::{
    Address, Entry, Facts, Head, new_message_id,
    policy::{Decision, Policy},
    registry::AgentRef,
    render::{self, Text},
};
use crate::{
    domain::{
        callback::{HOPS_HEADER, hops},
        event::{Block, EventBody, Origin},
        framed::Framed,
        source::{Target, WhenBusy},
        text::{clean, first_chars},
    },
    id::{AgentId, DeliveryId, Id, SessionId},
    store::{Dispatch, MessageBody, Route, RouteTarget},
};

const TITLE_CHARS_MAX: usize = 120;

/// Longer keys are refused: they are names of tickets and pull requests, not payloads.
const KEY_CHARS_MAX: usize = 512;

/// What somebody who replays a delivery wants of its route.
#[derive(Clone, Copy)]
pub(super) struct Release<'a> {
    pub(super) first: &'a DeliveryId,
    pub(super) agent: Option<&'a AgentRef>,
    pub(super) version: Option<i64>,
}

/// Where a delivery goes. Where somebody wants it to run, what only keeps back does not. An agent or a
/// version that was named then is asked in a session of its own: the one that there is has another.
pub(super) fn route(entry: &Entry, facts: &Facts<'_>, release: Option<Release<'_>>) -> Route {
    let named = release.and_then(|release| release.agent);
    let agent_id = |address: &Address| -> Option<AgentId> {
        named.or(address.agent.as_ref().ok()).map(|agent| agent.id.clone())
    };
    let own = &entry.address;
    let held = |reason: String| Route::Held { agent_id: agent_id(own), reason };
    if entry.source.paused && release.is_none() {
        return held("the source is paused".to_owned());
    }
    let policy = match &entry.policy {
        Ok(policy) => policy,
        Err(reason) => return held(reason.clone()),
    };
    let decision = match release {
        None => policy.decide(facts),
        Some(_) => policy.release(facts),
    };
    let rule = match decision {
        Decision::Filtered(reason) => return Route::Filtered { agent_id: agent_id(own), reason },
        Decision::Held(reason) => return held(reason),
        Decision::Routed(rule) => rule,
    };
    let address = rule.and_then(|n| entry.rules.get(n)).unwrap_or(own);
    match dispatch(entry, policy, rule, address, facts, release) {
        Ok(dispatch) => Route::To(Box::new(dispatch)),
        Err(reason) => Route::Held { agent_id: agent_id(address), reason },
    }
}

/// The same, but for a delivery that came through too many callbacks: what an agent's answer rings would
/// else ring it again, for ever.
pub(super) fn without_loops(route: Route, head: &Head, hops_max: u32) -> Route {
    let values = head.headers.get_all(HeaderName::from_static(HOPS_HEADER)).iter();
    let hops = values.map(|value| value.to_str().map_or(i64::MAX, hops)).max().unwrap_or(0);
    match route {
        Route::To(dispatch) if hops > i64::from(hops_max) => Route::Held {
            agent_id: Some(dispatch.agent_id),
            reason: format!(
                "it came through more than {hops_max} callbacks (`limits.callback_hops_max`): an \
                 agent's result seems to ring the agent again"
            ),
        },
        route => route,
    }
}

/// The message and where it goes, or what keeps it from going there.
fn dispatch(
    entry: &Entry,
    policy: &Policy,
    rule: Option<usize>,
    address: &Address,
    facts: &Facts<'_>,
    release: Option<Release<'_>>,
) -> Result<Dispatch, String> {
    let named = release.and_then(|release| release.agent);
    let agent = named.map_or_else(|| address.agent.as_ref().map_err(Clone::clone), Ok)?;
    let environment_id = address.environment.as_ref().map_err(Clone::clone)?;
    let version = release.and_then(|release| release.version);
    let target = match named.is_some() || version.is_some() {
        true => RouteTarget::New(SessionId::new(facts.at)),
        false => target(entry, policy, rule, facts)?,
    };
    let mut pace = entry.source.definition.pace();
    if release.is_some() {
        pace.turns_per_hour_max = None;
        if pace.when_busy == WhenBusy::Skip {
            pace.when_busy = WhenBusy::Queue;
        }
    }
    let payload = facts.payload;
    let rendered = match policy.message(rule) {
        None => render::render(&entry.source, payload),
        Some(wording) => {
            let chars_max = entry.source.definition.message_chars_max;
            let written = wording.write(facts, chars_max);
            render::cut(written.map_err(|reason| format!("the message failed: {reason}"))?)
        }
    };
    let mut title = facts.source.to_owned();
    if let Some(event_type) = facts.event_type {
        title.push_str(": ");
        title.push_str(event_type);
    }
    let (event_id, private) = new_message_id(facts.at);
    let message = match rendered.text {
        // What is said of a replay is not all in its delivery.
        Text::Payload { lead, shows } if release.is_none() => {
            MessageBody::Framed(Framed { lead, source: facts.source.to_owned(), shows })
        }
        text => {
            let origin = Origin {
                source: facts.source.to_owned(),
                source_id: entry.source.id.clone(),
                delivery_id: facts.delivery.clone(),
                event_type: facts.event_type.map(str::to_owned),
                content_type: payload.content_type.clone(),
                bytes: i64::try_from(payload.bytes.len()).unwrap_or(i64::MAX),
                cut: rendered.cut,
                rerun: None,
                replay_of: release.map(|release| release.first.clone()),
            };
            let content = vec![Block::text(text.whole(payload))];
            MessageBody::Inline(EventBody::UserMessage { content, origin: Some(origin) }.to_text())
        }
    };
    Ok(Dispatch {
        agent_id: agent.id.clone(),
        agent_version: version.unwrap_or(agent.version),
        environment_id: environment_id.clone(),
        target,
        title: first_chars(&title, TITLE_CHARS_MAX).0.to_owned(),
        event_id,
        message,
        private,
        pace,
    })
}

fn target(
    entry: &Entry,
    policy: &Policy,
    rule: Option<usize>,
    facts: &Facts<'_>,
) -> Result<RouteTarget, String> {
    let definition = &entry.source.definition;
    let of_rule = rule.and_then(|n| definition.rules.get(n)?.target.as_ref());
    let key = match of_rule.unwrap_or(&definition.target) {
        Target::NewSession => return Ok(RouteTarget::New(SessionId::new(facts.at))),
        Target::Session(id) => return Ok(RouteTarget::Session(id.clone())),
        Target::Key(_) | Target::PresetKey => {
            let wording = policy.key(rule).ok_or("the session key has no template")?;
            let written = wording.write(facts, KEY_CHARS_MAX);
            let failed = |reason| format!("the session key could not be made: {reason}");
            let written = written.map_err(failed)?;
            if written.n_chars > KEY_CHARS_MAX {
                return Err(too_long());
            }
            written.text
        }
    };
    let key = clean(key.trim()).into_owned();
    if key.is_empty() {
        return Err("the session key came out empty".to_owned());
    }
    if key.chars().count() > KEY_CHARS_MAX {
        return Err(too_long());
    }
    Ok(RouteTarget::Key { key, fresh: SessionId::new(facts.at) })
}

fn too_long() -> String {
    format!("the session key is longer than {KEY_CHARS_MAX} characters")
}

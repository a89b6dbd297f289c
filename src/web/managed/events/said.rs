//! What a request to a session's events says, read and checked event by event.
//!
//! Invariant: what leaves here is whole and of a known kind, and an operator's word stands where the
//! API has it: last, and right after what it goes with. Left out: what the session's state forbids.

use serde_json::Value;

use super::outcome;
use crate::{
    clock::Timestamp,
    domain::{
        Problem, content,
        event::{Block, Confirmed, DEFINE_OUTCOME, EventBody},
    },
    id::{EventId, Id, SessionId},
    ingest::new_message_id,
    store::{NewMessage, Said, Wanted},
    web::{error::Result, input::Fields},
};

const CONFIRMATION: &str = "user.tool_confirmation";
const CUSTOM_RESULT: &str = "user.custom_tool_result";
const TOOL_RESULT: &str = "user.tool_result";
const INTERRUPT: &str = "user.interrupt";
const MESSAGE: &str = "user.message";
const SYSTEM: &str = "system.message";

/// What a `deny_message` has at most.
const DENY_CHARS_MAX: usize = 10_000;

/// Where an event stands, and what came before it.
pub(super) struct Place<'a> {
    /// Whose thread may be named.
    pub(super) thread: &'a str,
    pub(super) at: String,
    pub(super) now: Timestamp,
}

/// Everything that a request says, in its order.
pub(super) fn read_all(
    session: &SessionId,
    events: Vec<Value>,
    now: Timestamp,
) -> Result<Vec<Said>, Problem> {
    let thread = crate::domain::session::primary_thread(session);
    let n_events = events.len();
    let mut said: Vec<Said> = Vec::with_capacity(n_events);
    for (n, event) in events.into_iter().enumerate() {
        let place = Place { thread: thread.as_str(), at: format!("events[{n}]"), now };
        said.push(match event["type"].as_str() {
            Some(SYSTEM) => {
                let wrong = |message: &str| Err(Problem::new(&place.at, message));
                let is_right = |before: &&Said| match before {
                    Said::Message(message) => message.body.kind() == MESSAGE,
                    other => matches!(other, Said::Result { .. }),
                };
                if n + 1 < n_events {
                    return wrong("`system.message` must be the last event of its request");
                }
                match said.last().filter(is_right) {
                    None => {
                        return wrong(
                            "`system.message` must follow the `user.message`, \
                             `user.custom_tool_result` or `user.tool_result` that it goes with, in \
                             the same request",
                        );
                    }
                    Some(before) => system(event, &place, matches!(before, Said::Message(_)))?,
                }
            }
            _ => read(event, &place)?,
        });
    }
    Ok(said)
}

/// Whether any of it is an operator's word, which not every model takes.
pub(super) fn has_system(said: &[Said]) -> bool {
    said.iter().any(|said| match said {
        Said::Message(message) => matches!(message.body, EventBody::SystemMessage { .. }),
        Said::Told { .. } => true,
        _ => false,
    })
}

/// An event that people and programs send: a message, an answer about a call, a stop.
fn read(event: Value, place: &Place<'_>) -> Result<Said, Problem> {
    let mut fields = Fields::of(event, &place.at)?;
    let within = |problem: Problem| within(problem, &place.at);
    let event_id = EventId::new(place.now);
    let said = match fields.required("type", 64).map_err(within)?.as_str() {
        MESSAGE => return message(fields, &place.at, place.now).map(Said::Message),
        DEFINE_OUTCOME => return outcome::define(fields, &place.at, place.now).map(Said::Message),
        INTERRUPT => {
            interrupted(&mut fields, place)?;
            Said::Interrupt { event_id }
        }
        CONFIRMATION => {
            let call = call(&mut fields, "tool_use_id", &place.at)?;
            let result = match fields.required("result", 16).map_err(within)?.as_str() {
                "allow" => Confirmed::Allow,
                "deny" => Confirmed::Deny,
                _ => {
                    let field = format!("{}.result", place.at);
                    return Err(Problem::new(field, "must be `allow` or `deny`"));
                }
            };
            let deny_message = fields.text("deny_message", DENY_CHARS_MAX).map_err(within)?;
            if deny_message.is_some() && result == Confirmed::Allow {
                let field = format!("{}.deny_message", place.at);
                return Err(Problem::new(field, "is for `deny` only"));
            }
            Said::Answer { event_id, call, result, deny_message }
        }
        CUSTOM_RESULT => {
            let call = call(&mut fields, "custom_tool_use_id", &place.at)?;
            result(&mut fields, event_id, call, Wanted::CustomResult, &place.at)?
        }
        TOOL_RESULT => {
            let call = call(&mut fields, "tool_use_id", &place.at)?;
            result(&mut fields, event_id, call, Wanted::ToolResult, &place.at)?
        }
        _ => return Err(unknown(&place.at)),
    };
    fields.finish().map_err(within)?;
    Ok(said)
}

fn result(
    fields: &mut Fields,
    event_id: EventId,
    call: EventId,
    wanted: Wanted,
    at: &str,
) -> Result<Said, Problem> {
    let given = fields.take("content").unwrap_or_default();
    let content = content::parse_result(&given, &format!("{at}.content"))?;
    let is_error = fields.flag("is_error").map_err(|problem| within(problem, at))?;
    Ok(Said::Result { event_id, call, wanted, content, is_error })
}

/// There is one thread; naming it is as naming none.
fn interrupted(fields: &mut Fields, place: &Place<'_>) -> Result<(), Problem> {
    let field = "session_thread_id";
    let thread = fields.text(field, 128).map_err(|problem| within(problem, &place.at))?;
    match thread {
        Some(thread) if thread != place.thread => {
            let message = format!("names no thread of this session, whose one is {}", place.thread);
            Err(Problem::new(format!("{}.{field}", place.at), message))
        }
        _ => Ok(()),
    }
}

fn call(fields: &mut Fields, field: &str, at: &str) -> Result<EventId, Problem> {
    let id = fields.required(field, 128).map_err(|problem| within(problem, at))?;
    id.parse().map_err(|error| Problem::new(format!("{at}.{field}"), format!("is {error}")))
}

/// What the operator tells the model: with a message it waits behind that one, with a result it goes
/// where that goes.
fn system(event: Value, place: &Place<'_>, waits: bool) -> Result<Said, Problem> {
    let mut fields = Fields::of(event, &place.at)?;
    fields.take("type");
    let given = fields.take("content").unwrap_or_default();
    let content = content::parse_system(&given, &format!("{}.content", place.at))?;
    fields.finish().map_err(|problem| within(problem, &place.at))?;
    if content.iter().all(|block| matches!(block, Block::Text { text } if text.trim().is_empty())) {
        return Err(Problem::new(format!("{}.content", place.at), "must say something"));
    }
    let event_id = EventId::new(place.now);
    Ok(match waits {
        false => Said::Told { event_id, content },
        true => {
            let (body, private) = (EventBody::SystemMessage { content }, "{}".to_owned());
            Said::Message(NewMessage { event_id, body, private })
        }
    })
}

/// What a deployment's sessions start with: as [`messages`], and one word of the operator's with them.
pub(in crate::web::managed) fn opening(
    events: Vec<Value>,
    at: &str,
    now: Timestamp,
) -> Result<Vec<NewMessage>> {
    let is_system = |event: &Value| event["type"] == SYSTEM;
    let place = events.iter().position(is_system);
    let Some(place) = place else { return messages(events, at, now) };
    let wrong = |n: usize, message: &str| Err(Problem::new(format!("{at}[{n}]"), message).into());
    if let Some(n) = events.iter().rposition(is_system).filter(|n| *n != place) {
        return wrong(n, "is a second `system.message`: there can be one");
    }
    if events.len() == 1 {
        return wrong(place, "needs a `user.message` beside it, or a `user.define_outcome`");
    }
    let mut rest = events;
    let event = rest.remove(place);
    let said = system(event, &Place { thread: "", at: format!("{at}[{place}]"), now }, true)?;
    let mut messages = messages(rest, at, now)?;
    if let Said::Message(message) = said {
        messages.insert(place, message);
    }
    Ok(messages)
}

/// All of the events as messages, or what is wrong with the first one that is not.
pub(in crate::web::managed) fn messages(
    events: Vec<Value>,
    at: &str,
    now: Timestamp,
) -> Result<Vec<NewMessage>> {
    outcome::check_one(&events, at)?;
    let read = |(n, event): (usize, Value)| {
        let at = format!("{at}[{n}]");
        let mut fields = Fields::of(event, &at)?;
        let kind = fields.required("type", 64).map_err(|problem| within(problem, &at))?;
        match kind.as_str() {
            MESSAGE => message(fields, &at, now),
            DEFINE_OUTCOME => outcome::define(fields, &at, now),
            kind @ (INTERRUPT | CONFIRMATION | CUSTOM_RESULT | TOOL_RESULT | SYSTEM) => {
                let message = format!("a session cannot start with `{kind}`");
                Err(Problem::new(format!("{at}.type"), message))
            }
            _ => Err(unknown(&at)),
        }
    };
    Ok(events.into_iter().enumerate().map(read).collect::<Result<Vec<_>, Problem>>()?)
}

/// The rest of a `user.message`.
fn message(mut fields: Fields, at: &str, now: Timestamp) -> Result<NewMessage, Problem> {
    let given = fields.take("content").unwrap_or_default();
    let content = content::parse(&given, &format!("{at}.content"))?;
    fields.finish().map_err(|problem| within(problem, at))?;
    let (event_id, private) = new_message_id(now);
    Ok(NewMessage { event_id, body: EventBody::UserMessage { content, origin: None }, private })
}

fn unknown(at: &str) -> Problem {
    let kinds =
        [MESSAGE, DEFINE_OUTCOME, INTERRUPT, CONFIRMATION, CUSTOM_RESULT, TOOL_RESULT, SYSTEM];
    Problem::new(format!("{at}.type"), format!("must be one of {}", kinds.join(", ")))
}

fn within(problem: Problem, at: &str) -> Problem {
    Problem::new(format!("{at}.{}", problem.field), problem.message)
}

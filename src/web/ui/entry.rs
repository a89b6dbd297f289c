//! One entry of a transcript: an event of the log, as a person reads it.
//!
//! Each entry is an element with the event's id and its number as key, so that the live stream and
//! the first page are the same HTML and showing an event twice changes nothing. Two kinds of event
//! complete another one's entry: a tool's result, and the end of a model request. A message that waits
//! has an id of its own, because it goes to another place when it is taken.

use askama::Template;
use serde_json::Value;

use super::{
    fault::Fault,
    payload::{self, Payload},
    view::{Markup, Moment, bytes, count, dollars, short},
};
use crate::{
    clock::Timestamp,
    domain::{
        cost::MicroUsd,
        event::{Block, Event, EventBody, Origin, SessionError, StopReason, Usage, plain_text},
        session::Session,
        text::{first_chars, printable},
    },
    id::{EventId, Id},
};

#[derive(Debug, Template)]
#[template(path = "entry.html")]
pub(super) struct Entry {
    /// Of the element.
    pub(super) id: String,
    /// What the element is sorted by: a number of the log, or `w` and a position of the inbox.
    key: String,
    time: Option<Moment>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// What a source sent.
    Delivery {
        origin: OriginLine,
        payload: Payload,
        more: Vec<String>,
        waiting: bool,
    },
    /// What a person or a program wrote.
    Message {
        html: Markup,
        more: Vec<String>,
        waiting: bool,
    },
    Agent {
        name: String,
        html: Markup,
        more: Vec<String>,
    },
    Tool {
        name: String,
        hint: String,
        input: Payload,
        asked: bool,
        result: Option<ToolResult>,
    },
    /// A result whose call is not on the page.
    Result {
        result: ToolResult,
    },
    Request {
        model: String,
        usage: Option<String>,
        failed: bool,
    },
    Error {
        title: String,
        message: String,
        retry: Option<&'static str>,
    },
    /// A quiet line.
    Line {
        class: &'static str,
        text: String,
    },
}

/// Where a message came from.
#[derive(Debug)]
struct OriginLine {
    source: String,
    event_type: Option<String>,
    delivery: String,
    delivery_short: String,
    bytes: String,
    cut: bool,
    rerun: bool,
    /// The delivery that it repeats by somebody's order.
    replay_of: Option<String>,
}

#[derive(Debug)]
struct ToolResult {
    output: Payload,
    is_error: bool,
    more: Vec<String>,
}

/// A result that takes the place of "running" in its call's entry.
#[derive(Template)]
#[template(path = "tool_result.html")]
struct ResultFragment<'a> {
    call: &'a str,
    key: String,
    result: &'a ToolResult,
}

/// The end of a model request, in the place of its beginning.
#[derive(Template)]
#[template(path = "request.html")]
struct RequestFragment<'a> {
    id: &'a str,
    key: String,
    model: &'a str,
    usage: &'a Option<String>,
    failed: bool,
}

/// Nothing, in the place of an entry that has moved.
#[derive(Template)]
#[template(source = r#"<div id="{{ id }}" data-key="w0" hidden></div>"#, ext = "html")]
struct GoneFragment {
    id: String,
}

fn waiting_id(event: &EventId) -> String {
    format!("waiting-{event}")
}

/// What an entry needs to know beside the event.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) session: &'a Session,
    pub(super) now: Timestamp,
}

impl Context<'_> {
    /// The entries of a stretch of the log, complete.
    pub(super) fn page(&self, events: &[Event]) -> Result<Vec<Markup>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        for event in events {
            match &event.body {
                EventBody::AgentToolResult { tool_use_id, content, is_error } => {
                    let call = entries.iter_mut().rev().find(|it| it.id == tool_use_id.as_str());
                    match call.map(|it| &mut it.kind) {
                        Some(Kind::Tool { result, .. }) => {
                            *result = Some(ToolResult::new(content, *is_error));
                        }
                        _ => entries.extend(self.entry(event)),
                    }
                }
                EventBody::ModelRequestEnd { model_request_start_id, .. } => {
                    let end = self.entry(event);
                    let start = model_request_start_id.as_str();
                    match (entries.iter_mut().rev().find(|it| it.id == start), end) {
                        (Some(start), Some(end)) => start.kind = end.kind,
                        (None, end) => entries.extend(end),
                        (Some(_), None) => {}
                    }
                }
                _ => entries.extend(self.entry(event)),
            }
        }
        entries.iter().map(Markup::render).collect()
    }

    /// What the live stream sends for an event: nothing, an entry, or what completes one.
    pub(super) fn live(&self, event: &Event) -> Result<Option<Markup>, Fault> {
        if let EventBody::AgentToolResult { tool_use_id, content, is_error } = &event.body {
            let result = ToolResult::new(content, *is_error);
            let (call, key) = (tool_use_id.as_str(), key_of(event));
            return Markup::render(&ResultFragment { call, key, result: &result }).map(Some);
        }
        let Some(entry) = self.entry(event) else { return Ok(None) };
        match &entry.kind {
            Kind::Request { model, usage, failed } if usage.is_some() => {
                let (id, key) = (&entry.id, key_of(event));
                Markup::render(&RequestFragment { id, key, model, usage, failed: *failed })
            }
            Kind::Delivery { .. } | Kind::Message { .. } => {
                // It may have been shown as waiting, in another place.
                let gone = GoneFragment { id: waiting_id(&event.id) };
                Ok(Markup::render(&entry)?.and(&Markup::render(&gone)?))
            }
            _ => Markup::render(&entry),
        }
        .map(Some)
    }

    /// A message that is still in the inbox.
    pub(super) fn waiting(&self, position: i64, event: &Event) -> Result<Option<Markup>, Fault> {
        let mut entry = self.entry(event);
        if let Some(entry) = &mut entry {
            entry.id = waiting_id(&event.id);
            entry.key = format!("w{position}");
        }
        entry.as_ref().map(Markup::render).transpose()
    }

    fn entry(&self, event: &Event) -> Option<Entry> {
        let mut id = event.id.to_string();
        let waiting = event.seq.is_none();
        let kind = match &event.body {
            EventBody::UserMessage { content, origin } => {
                message(content, origin.as_ref(), waiting)
            }
            EventBody::AgentMessage { content } => Kind::Agent {
                name: self.session.agent.name.clone(),
                html: Markup::of_markdown(&plain_text(content)),
                more: others(content),
            },
            EventBody::AgentThinking => line("", "thinking"),
            EventBody::AgentToolUse { name, input, evaluated_permission, .. } => Kind::Tool {
                name: printable(name),
                hint: hint(input),
                input: Payload::new(&input.to_string()),
                asked: evaluated_permission != "allow",
                result: None,
            },
            EventBody::AgentToolResult { content, is_error, .. } => {
                Kind::Result { result: ToolResult::new(content, *is_error) }
            }
            EventBody::StatusRunning => line("starts", "picked up"),
            EventBody::StatusIdle { stop_reason, .. } => idle(stop_reason),
            EventBody::StatusRescheduled => line("", "put back, to be tried again"),
            EventBody::StatusTerminated => line("ends", "terminated"),
            EventBody::SessionError { error } => error_of(error),
            EventBody::ModelRequestStart => {
                Kind::Request { model: self.model(), usage: None, failed: false }
            }
            EventBody::ModelRequestEnd {
                model_request_start_id,
                is_error,
                model_usage,
                cost_usd,
            } => {
                id = model_request_start_id.to_string();
                let failed = *is_error == Some(true);
                let usage = Some(usage(model_usage, *cost_usd));
                Kind::Request { model: self.model(), usage, failed }
            }
        };
        let time = event.processed_at.map(|at| Moment::new(at, self.now));
        Some(Entry { id, key: key_of(event), time, kind })
    }

    fn model(&self) -> String {
        self.session.agent.model.id.clone()
    }
}

fn key_of(event: &Event) -> String {
    event.seq.unwrap_or(0).to_string()
}

fn line(class: &'static str, text: impl Into<String>) -> Kind {
    Kind::Line { class, text: text.into() }
}

fn message(content: &[Block], origin: Option<&Origin>, waiting: bool) -> Kind {
    let (text, more) = (plain_text(content), others(content));
    let Some(origin) = origin else {
        return Kind::Message { html: Markup::of_markdown(&text), more, waiting };
    };
    // The head of the block says where it came from.
    let prefix = format!("Webhook from {}:\n", origin.source);
    let data = text.strip_prefix(&prefix).unwrap_or(&text);
    let delivery = origin.delivery_id.to_string();
    let origin = OriginLine {
        source: printable(&origin.source),
        event_type: origin.event_type.as_deref().map(printable),
        delivery_short: short(&delivery),
        delivery,
        bytes: bytes(origin.bytes),
        cut: origin.cut,
        rerun: origin.rerun.is_some(),
        replay_of: origin.replay_of.as_ref().map(ToString::to_string),
    };
    Kind::Delivery { origin, payload: Payload::new(data), more, waiting }
}

impl ToolResult {
    fn new(content: &[Block], is_error: bool) -> ToolResult {
        let output = Payload::new(&plain_text(content));
        ToolResult { output, is_error, more: others(content) }
    }
}

/// What a content has beside its text, in a word each.
fn others(content: &[Block]) -> Vec<String> {
    let name = |block: &Block| match block {
        Block::Text { .. } => None,
        Block::Image { .. } => Some("an image".to_owned()),
        Block::Document { title, .. } => Some(match title {
            Some(title) => format!("a document: {}", printable(title)),
            None => "a document".to_owned(),
        }),
        Block::SearchResult { .. } => Some("a search result".to_owned()),
    };
    content.iter().filter_map(name).collect()
}

/// The first short value of a tool's input: usually what tells one call from another.
fn hint(input: &Value) -> String {
    let values = input.as_object().into_iter().flatten();
    let text = values.filter_map(|(_, value)| value.as_str()).find(|it| !it.is_empty());
    let line = text.and_then(|text| text.lines().next()).unwrap_or_default();
    let (line, cut) = first_chars(line, 80);
    format!("{}{}", printable(line), if cut { "…" } else { "" })
}

fn idle(reason: &StopReason) -> Kind {
    match reason {
        StopReason::EndTurn => line("ends", "done"),
        StopReason::RequiresAction { event_ids } => match event_ids.as_slice() {
            [one] => line("waits", format!("waiting for an answer to {}", tail(one))),
            several => line("waits", format!("waiting for {} answers", several.len())),
        },
        StopReason::RetriesExhausted => line("ends failed", "gave up"),
        StopReason::BudgetReached => line("ends failed", "stopped at its budget"),
        StopReason::Refusal => line("ends failed", "the model refused"),
    }
}

fn tail(id: &EventId) -> String {
    short(id.as_str())
}

fn error_of(error: &SessionError) -> Kind {
    let retry = error.is_retrying().then_some("It is tried again.");
    let title = error.r#type.trim_end_matches("_error").replace('_', " ");
    Kind::Error { title: printable(&title), message: printable(&error.message), retry }
}

/// About how much text an event puts on a page.
pub(super) fn chars(body: &EventBody) -> usize {
    let text = match body {
        EventBody::UserMessage { content, .. }
        | EventBody::AgentMessage { content }
        | EventBody::AgentToolResult { content, .. } => plain_text(content).len(),
        EventBody::AgentToolUse { input, .. } => input.to_string().len(),
        _ => 100,
    };
    text.min(payload::CHARS_MAX)
}

/// Tokens and what they cost, in words.
pub(super) fn usage(usage: &Usage, cost: Option<MicroUsd>) -> String {
    let read =
        usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
    if read + usage.output_tokens == 0 {
        return "no tokens".to_owned();
    }
    let mut text = format!("{} tokens in, {} out", count(read), count(usage.output_tokens));
    if usage.cache_read_input_tokens > 0 {
        text.push_str(&format!(" ({} cached)", count(usage.cache_read_input_tokens)));
    }
    if let Some(cost) = cost {
        text.push_str(&format!(", {}", dollars(cost)));
    }
    text
}

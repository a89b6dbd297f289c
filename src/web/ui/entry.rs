//! One entry of a transcript: an event of the log, as a person reads it.
//!
//! Each entry is an element with the event's id and its number as key, so that the live stream and
//! the first page are the same HTML and showing an event twice changes nothing. Two kinds of event
//! complete another one's entry: a tool's result, and the end of a model request. A message that waits
//! has an id of its own, because it goes to another place when it is taken.

use std::collections::HashMap;

use askama::Template;
use serde_json::Value;

use super::{
    fault::Fault,
    payload::{self, Payload},
    view::{Markup, Moment, bytes, count, dollars, duration, short},
};
use crate::{
    clock::Timestamp,
    domain::{
        cost::MicroUsd,
        event::{
            Block, Confirmed, Egress, EgressDecision, Event, EventBody, Origin, SessionError,
            StopReason, Usage, plain_text,
        },
        outcome::{ITERATIONS_DEFAULT, Rubric, Verdict},
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
    /// Whether whoever looks at it may answer what asks.
    may_answer: bool,
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
        /// The MCP server, or that a program of the client's carries it out.
        of: Option<String>,
        name: String,
        hint: String,
        input: Payload,
        asked: bool,
        /// Which policy decided, and how.
        policy: Option<String>,
        /// What somebody said about it.
        answer: Option<&'static str>,
        result: Option<ToolResult>,
    },
    /// A result whose call is not on the page.
    Result {
        result: ToolResult,
    },
    /// What the model thought, folded.
    Thinking {
        html: Markup,
        cut: bool,
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
    /// What the operator told the model.
    Operator {
        html: Markup,
        waiting: bool,
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
    /// How long the call took, where its beginning is known.
    took: Option<String>,
}

/// A result that takes the place of "running" in its call's entry.
#[derive(Template)]
#[template(path = "tool_result.html")]
struct ResultFragment<'a> {
    call: &'a str,
    key: String,
    result: &'a ToolResult,
}

/// What somebody said about a call, in the place of the buttons that ask for it.
#[derive(Template)]
#[template(path = "tool_answer.html")]
struct AnswerFragment<'a> {
    call: &'a str,
    key: String,
    word: &'static str,
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
    /// Whether whoever looks at it may answer what asks.
    pub(super) may_answer: bool,
}

impl Context<'_> {
    /// The entries of a stretch of the log, complete.
    pub(super) fn page(&self, events: &[Event]) -> Result<Vec<Markup>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut begun = HashMap::new();
        for event in events {
            if let Some((call, content, is_error)) = event.body.as_result() {
                let began = begun.remove(call);
                let entry = entries.iter_mut().rev().find(|it| it.id == call.as_str());
                match entry.map(|it| &mut it.kind) {
                    Some(Kind::Tool { result, .. }) => {
                        let told = ToolResult::new(content, is_error, took(event, began));
                        *result = Some(told.with_egress(event.body.egress()));
                    }
                    _ => entries.extend(self.entry(event)),
                }
                continue;
            }
            match &event.body {
                EventBody::AgentToolUse { .. }
                | EventBody::AgentMcpToolUse { .. }
                | EventBody::AgentCustomToolUse { .. } => {
                    begun.extend(event.processed_at.map(|at| (event.id.clone(), at)));
                    entries.extend(self.entry(event));
                }
                EventBody::UserToolConfirmation { tool_use_id, result, .. } => {
                    let call = entries.iter_mut().rev().find(|it| it.id == tool_use_id.as_str());
                    if let Some(Kind::Tool { answer, .. }) = call.map(|it| &mut it.kind) {
                        *answer = Some(answer_word(*result));
                    }
                    entries.extend(self.entry(event));
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

    /// What the live stream sends for an event: nothing, an entry, or what completes one. For the
    /// result of a call, when that began is told if it is known.
    pub(super) fn live(
        &self,
        event: &Event,
        began: Option<Timestamp>,
    ) -> Result<Option<Markup>, Fault> {
        if let Some((call, content, is_error)) = event.body.as_result() {
            let result = ToolResult::new(content, is_error, took(event, began));
            let result = result.with_egress(event.body.egress());
            let (call, key) = (call.as_str(), key_of(event));
            return Markup::render(&ResultFragment { call, key, result: &result }).map(Some);
        }
        let Some(entry) = self.entry(event) else { return Ok(None) };
        if let EventBody::UserToolConfirmation { tool_use_id, result, .. } = &event.body {
            let (call, key, word) = (tool_use_id.as_str(), key_of(event), answer_word(*result));
            let answer = Markup::render(&AnswerFragment { call, key, word })?;
            return Ok(Some(answer.and(&Markup::render(&entry)?)));
        }
        match &entry.kind {
            Kind::Request { model, usage, failed } if usage.is_some() => {
                let (id, key) = (&entry.id, key_of(event));
                Markup::render(&RequestFragment { id, key, model, usage, failed: *failed })
            }
            Kind::Delivery { .. } | Kind::Message { .. } | Kind::Operator { .. } => {
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
            EventBody::UserInterrupt => line("ends", "stopped by hand"),
            EventBody::UserToolConfirmation { tool_use_id, result, deny_message } => {
                let call = tail(tool_use_id);
                match (result, deny_message) {
                    (Confirmed::Allow, _) => line("starts", format!("allowed {call}")),
                    (Confirmed::Deny, None) => line("ends", format!("denied {call}")),
                    (Confirmed::Deny, Some(why)) => {
                        line("ends", format!("denied {call}: {}", printable(why)))
                    }
                }
            }
            EventBody::AgentMessage { content } => Kind::Agent {
                name: printable(&self.session.agent.name),
                html: Markup::of_markdown(&plain_text(content)),
                more: others(content),
            },
            EventBody::AgentThinking => thinking(event),
            EventBody::ContextCompacted => line("", "summed up what was said before"),
            EventBody::AgentToolUse { name, input, evaluated_permission, evaluation } => {
                tool(None, name, input, Some((evaluated_permission, evaluation.as_ref())))
            }
            EventBody::AgentMcpToolUse {
                mcp_server_name,
                name,
                input,
                evaluated_permission,
                evaluation,
            } => {
                let policy = Some((evaluated_permission, evaluation.as_ref()));
                tool(Some(format!("MCP {}", printable(mcp_server_name))), name, input, policy)
            }
            EventBody::AgentCustomToolUse { name, input } => {
                tool(Some("your program".to_owned()), name, input, None)
            }
            EventBody::UserDefineOutcome { description, rubric, max_iterations, .. } => {
                outcome(description, rubric, *max_iterations, waiting)
            }
            EventBody::OutcomeEvaluationStart { iteration, .. } => {
                line("", format!("graded, iteration {iteration}"))
            }
            EventBody::OutcomeEvaluationOngoing { .. } => return None,
            EventBody::OutcomeEvaluationEnd { iteration, result, explanation, .. } => {
                judged(*iteration, *result, explanation)
            }
            EventBody::SystemMessage { content } => {
                Kind::Operator { html: Markup::of_markdown(&plain_text(content)), waiting }
            }
            EventBody::AgentToolResult { content, is_error, .. }
            | EventBody::AgentMcpToolResult { content, is_error, .. }
            | EventBody::UserToolResult { content, is_error, .. }
            | EventBody::UserCustomToolResult { content, is_error, .. } => {
                let result = ToolResult::new(content, *is_error, None);
                Kind::Result { result: result.with_egress(event.body.egress()) }
            }
            EventBody::ThreadStatusIdle { .. } => return None,
            EventBody::SessionUsage { usage, .. } => line("", used(usage)),
            EventBody::SessionUpdated { changed } => {
                let said = changed.iter().map(|(key, value)| changed_field(key, value));
                line("", format!("changed: {}", said.collect::<Vec<_>>().join(", ")))
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
        Some(Entry { id, key: key_of(event), time, may_answer: self.may_answer, kind })
    }

    fn model(&self) -> String {
        printable(&self.session.agent.model.id)
    }
}

/// What a session has used so far, in a few words.
fn used(usage: &Value) -> String {
    let tokens = |key: &str| usage[key].as_i64().unwrap_or(0);
    let n = tokens("input_tokens") + tokens("cache_read_input_tokens") + tokens("output_tokens");
    match usage["cost_usd"].as_str() {
        Some(cost) => format!("used so far: {} tokens, {} dollars", count(n), printable(cost)),
        None => format!("used so far: {} tokens", count(n)),
    }
}

fn answer_word(result: Confirmed) -> &'static str {
    match result {
        Confirmed::Allow => "allowed",
        Confirmed::Deny => "denied",
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

/// Of a rubric.
const RUBRIC_CHARS_MAX: usize = 4_000;

/// What is to be reached, and how it is judged.
fn outcome(description: &str, rubric: &Rubric, most: Option<u32>, waiting: bool) -> Kind {
    let rubric = match rubric {
        Rubric::Text { content } => match first_chars(content, RUBRIC_CHARS_MAX) {
            (whole, false) => whole.to_owned(),
            (start, true) => format!("{start} …"),
        },
        Rubric::File { file_id } => format!("the file `{file_id}`"),
    };
    let html = Markup::of_markdown(&format!("{description}\n\n**Rubric**\n\n{rubric}"));
    let most = most.unwrap_or(ITERATIONS_DEFAULT);
    Kind::Message { html, more: vec![format!("an outcome, graded up to {most} times")], waiting }
}

/// What a grader made of it.
fn judged(iteration: u32, result: Verdict, explanation: &str) -> Kind {
    let (class, word) = match result {
        Verdict::Satisfied => ("starts", "satisfied"),
        Verdict::NeedsRevision => ("", "needs revision"),
        Verdict::MaxIterationsReached => ("ends", "iterations used up"),
        Verdict::Failed => ("ends", "failed"),
        Verdict::Interrupted => ("ends", "interrupted"),
    };
    line(class, format!("outcome, iteration {iteration}: {word}. {}", printable(explanation)))
}

/// A call of a tool, with who decided that it may be made.
fn tool(
    of: Option<String>,
    name: &str,
    input: &Value,
    policy: Option<(&String, Option<&Value>)>,
) -> Kind {
    let why = |evaluation: &Value| {
        let why = evaluation["evaluated_permission"]["reason_code"].as_str();
        why.or(evaluation["type"].as_str()).map(|why| why.replace('_', " "))
    };
    let said = policy.map(|(permission, evaluation)| match evaluation.and_then(why) {
        Some(why) => printable(&format!("{permission} ({why})")),
        None => printable(permission),
    });
    Kind::Tool {
        of,
        name: printable(name),
        hint: hint(input),
        input: Payload::new(&input.to_string()),
        asked: policy.is_some_and(|(permission, _)| permission == "ask"),
        policy: said,
        answer: None,
        result: None,
    }
}

/// What a field of the session is now: short values whole, of others that they changed.
fn changed_field(key: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) => return printable(key),
        other => other.to_string(),
    };
    let (start, cut) = first_chars(&text, 80);
    printable(&format!("{key} to {start}{}", if cut { "…" } else { "" }))
}

/// From a call to its result.
fn took(result: &Event, began: Option<Timestamp>) -> Option<String> {
    Some(duration(result.processed_at?.since(began?)))
}

impl ToolResult {
    fn new(content: &[Block], is_error: bool, took: Option<String>) -> ToolResult {
        let output = Payload::new(&plain_text(content));
        ToolResult { output, is_error, more: others(content), took }
    }

    /// With where its programs wanted to go, a line each.
    fn with_egress(mut self, egress: &[Egress]) -> ToolResult {
        self.more.extend(egress.iter().map(|it| match (it.decision, &it.reason) {
            (EgressDecision::Allowed, _) => format!("went out to {}:{}", it.host, it.port),
            (EgressDecision::Refused, why) => {
                let why = why.as_deref().unwrap_or("no reason is known");
                printable(&format!("was refused {}:{}: {why}", it.host, it.port))
            }
        }));
        self
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

/// Characters of what a model thought that are on the page.
const THINKING_MAX: usize = 20_000;

fn thinking(event: &Event) -> Kind {
    match thought(event) {
        Some(text) => {
            let (shown, cut) = first_chars(text, THINKING_MAX);
            Kind::Thinking { html: Markup::of_markdown(shown), cut }
        }
        None => line("", "thinking"),
    }
}

/// What the model thought, where its server told it: the API says only that it did.
pub(super) fn thought(event: &Event) -> Option<&str> {
    event.private.as_ref()?["text"]
        .as_str()
        .filter(|_| matches!(event.body, EventBody::AgentThinking))
}

fn error_of(error: &SessionError) -> Kind {
    let retry = error.is_retrying().then_some("It is tried again.");
    let title = error.r#type.trim_end_matches("_error").replace('_', " ");
    let title = match &error.mcp_server_name {
        Some(server) => format!("{title}: {server}"),
        None => title,
    };
    Kind::Error { title: printable(&title), message: printable(&error.message), retry }
}

/// About how much text an event puts on a page.
pub(super) fn chars(event: &Event) -> usize {
    let text = match &event.body {
        EventBody::AgentThinking => thought(event).unwrap_or_default().len(),
        EventBody::UserMessage { content, .. }
        | EventBody::AgentMessage { content }
        | EventBody::AgentToolResult { content, .. }
        | EventBody::AgentMcpToolResult { content, .. } => plain_text(content).len(),
        EventBody::AgentToolUse { input, .. } | EventBody::AgentMcpToolUse { input, .. } => {
            input.to_string().len()
        }
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

//! A transcript to take away: all events as JSON, or as Markdown for people.
//!
//! It is written while it is read, some events at a time, so a long one needs no memory of its size.

use std::collections::VecDeque;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::Value;

use super::{super::App, entry::thought, fault::Fault, guard::Visitor, session::title};
use crate::{
    domain::{
        event::{Event, EventBody, plain_text},
        outcome::Rubric,
        session::Session,
        text::printable,
    },
    id::SessionId,
    store,
};

/// Events read at once.
const READ_EVENTS: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Markdown,
}

pub(super) async fn json(
    state: State<App>,
    _: Visitor,
    path: Path<String>,
) -> Result<Response, Fault> {
    export(state, path, Format::Json).await
}

pub(super) async fn markdown(
    state: State<App>,
    _: Visitor,
    path: Path<String>,
) -> Result<Response, Fault> {
    export(state, path, Format::Markdown).await
}

/// Where the writing is.
struct Writer {
    app: App,
    id: SessionId,
    format: Format,
    /// The last number that was written, and the last one there was when it began.
    after: i64,
    last: i64,
    pieces: VecDeque<String>,
    is_over: bool,
}

async fn export(
    State(app): State<App>,
    Path(id): Path<String>,
    format: Format,
) -> Result<Response, Fault> {
    let id: SessionId = id.parse().map_err(|_| Fault::not_found("There is no such session."))?;
    let session = app.store.session(&id).await?;
    let (kind, ending) = match format {
        Format::Json => ("application/json", "json"),
        Format::Markdown => ("text/markdown; charset=utf-8", "md"),
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.{ending}\"")),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".to_owned()),
    ];
    let begin = match format {
        Format::Json => {
            format!("{{\"session\":{},\"events\":[", session.to_json(app.store.clock().now()))
        }
        Format::Markdown => head(&session),
    };
    let last = session.next_seq - 1;
    let pieces = VecDeque::from([begin]);
    let writer = Writer { app, id, format, after: 0, last, pieces, is_over: false };
    let body = stream::unfold(writer, async |mut writer| {
        let piece = writer.next().await?;
        Some((piece.map(Bytes::from), writer))
    });
    Ok((headers, Body::from_stream(body)).into_response())
}

impl Writer {
    async fn next(&mut self) -> Option<store::Result<String>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Some(Ok(piece));
        }
        if self.is_over {
            return None;
        }
        let events = match self.app.store.events_after(&self.id, self.after, READ_EVENTS).await {
            Ok(events) => events,
            Err(error) => {
                // A file that breaks off is better than one that only looks whole.
                self.is_over = true;
                tracing::warn!(session_id = %self.id, detail = error.detail(), "a download broke off");
                return Some(Err(error));
            }
        };
        let events: Vec<Event> =
            events.into_iter().filter(|it| it.seq.is_some_and(|seq| seq <= self.last)).collect();
        let mut out = String::new();
        for event in &events {
            match self.format {
                Format::Json => {
                    out.push_str(if self.after > 0 { ",\n" } else { "\n" });
                    out.push_str(&event.to_json().to_string());
                }
                Format::Markdown => out.push_str(&said(event)),
            }
            self.after = event.seq.unwrap_or(self.after);
        }
        if events.is_empty() || self.after >= self.last {
            self.is_over = true;
            if self.format == Format::Json {
                out.push_str("\n]}\n");
            }
        }
        Some(Ok(out))
    }
}

fn head(session: &Session) -> String {
    format!(
        "# {}\n\n- Session: `{}`\n- Agent: {} v{}\n- Model: `{}`\n- Began: {}\n",
        title(session).replace('\n', " "),
        session.id,
        printable(&session.agent.name),
        session.agent_version,
        printable(&session.agent.model.id),
        session.created_at
    )
}

/// An event as Markdown; those that only say how far it is are left out.
fn said(event: &Event) -> String {
    let at = event.processed_at.map(|at| format!(" · {at}")).unwrap_or_default();
    match &event.body {
        EventBody::UserMessage { content, origin } => {
            let text = plain_text(content);
            match origin {
                Some(origin) => {
                    let from = printable(&origin.source);
                    format!("\n## From {from}{at}\n\n{}", fenced(&text))
                }
                None => format!("\n## Message{at}\n\n{}", quoted(&text)),
            }
        }
        EventBody::SystemMessage { content } => {
            format!("\n## Operator{at}\n\n{}", quoted(&plain_text(content)))
        }
        EventBody::UserDefineOutcome { description, rubric, .. } => {
            let rubric = match rubric {
                Rubric::Text { content } => content.clone(),
                Rubric::File { file_id } => format!("the file {file_id}"),
            };
            let (description, rubric) = (quoted(description), quoted(&rubric));
            format!("\n## Outcome{at}\n\n{description}\nRubric:\n\n{rubric}")
        }
        EventBody::OutcomeEvaluationEnd { iteration, result, explanation, .. } => {
            let word = result.as_str().replace('_', " ");
            format!("\n### Evaluation {iteration}: {word}{at}\n\n{}", quoted(explanation))
        }
        EventBody::AgentThinking => match thought(event) {
            Some(text) => format!("\n### Thinking{at}\n\n{}", quoted(text)),
            None => String::new(),
        },
        EventBody::AgentMessage { content } => {
            format!("\n## Agent{at}\n\n{}", quoted(&plain_text(content)))
        }
        EventBody::AgentToolUse { name, input, .. }
        | EventBody::AgentCustomToolUse { name, input } => call(name, input, &at),
        EventBody::AgentMcpToolUse { mcp_server_name, name, input, .. } => {
            call(&format!("{mcp_server_name}: {name}"), input, &at)
        }
        EventBody::SessionError { error } => {
            format!("\n## Error{at}\n\n{}", quoted(&error.message))
        }
        body => match body.as_result() {
            Some((_, content, is_error)) => {
                let word = if is_error { "Failed" } else { "Result" };
                format!("\n### {word}{at}\n\n{}", fenced(&plain_text(content)))
            }
            None => String::new(),
        },
    }
}

fn call(name: &str, input: &Value, at: &str) -> String {
    let input = serde_json::to_string_pretty(input).unwrap_or_default();
    format!("\n### Tool {}{at}\n\n{}", printable(name), fenced(&input))
}

/// As a quotation, so that no heading in it looks like one of ours.
fn quoted(text: &str) -> String {
    printable(text).lines().map(|line| format!("> {line}\n")).collect()
}

/// In a fence that is longer than any in the text.
fn fenced(text: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for char in text.chars() {
        run = if char == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}\n{}\n{fence}\n", printable(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_holds_whatever_is_in_it() {
        assert_eq!(fenced("a"), "```\na\n```\n");
        assert_eq!(fenced("````\nb"), "`````\n````\nb\n`````\n");
    }
}

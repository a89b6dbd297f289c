//! A session's events as a person reads them.
//!
//! Every event is a line with time, label and what happened; messages follow indented. A tool call
//! and its result share one line when nothing comes between. A message that is being written grows
//! until the event with its final text arrives. Invariant: text of events is made harmless before it
//! is written. Left out: where events come from.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use serde_json::Value;

use super::{
    context::str,
    style::{Look, Style, grouped, size},
    table::{fitted, one_line},
};
use crate::{
    clock::Timestamp,
    domain::text::{first_chars, printable},
};

/// Of a message that came in; the agent's own are always whole.
const MESSAGE_CHARS_MAX: usize = 4_000;
const MESSAGE_LINES_MAX: usize = 40;

/// Where the terminal does not say how wide it is.
const WIDTH_DEFAULT: usize = 120;

/// Of a tool's error.
const ERROR_CHARS_MAX: usize = 160;

const INDENT: &str = "  ";

#[derive(Debug)]
pub(super) struct Transcript {
    style: Style,
    width: usize,
    /// Whether messages that came in are shown whole.
    full: bool,
    open: Open,
    /// Names of the calls whose result is not there yet.
    calls: HashMap<String, String>,
    day: String,
    tokens: (i64, i64),
    /// Whether the next character is the first of its line.
    at_line_start: bool,
}

/// What is on the line that is not ended.
#[derive(Debug)]
enum Open {
    Nothing,
    Call(String),
    Message { id: String, index: i64, raw: String, n_shown: usize },
}

impl Transcript {
    pub(super) fn new(style: Style, width: Option<usize>, full: bool) -> Transcript {
        Transcript {
            style,
            width: width.unwrap_or(WIDTH_DEFAULT),
            full,
            open: Open::Nothing,
            calls: HashMap::new(),
            day: String::new(),
            tokens: (0, 0),
            at_line_start: true,
        }
    }

    pub(super) fn event(&mut self, out: &mut dyn Write, event: &Value) -> io::Result<()> {
        let id = str(&event["id"]);
        match str(&event["type"]) {
            "agent.message" => return self.agent_message(out, id, event),
            "span.model_request_start" => return Ok(()),
            "span.model_request_end" => {
                let usage = &event["model_usage"];
                let count = |name: &str| usage[name].as_i64().unwrap_or(0);
                self.tokens.0 += count("input_tokens")
                    + count("cache_read_input_tokens")
                    + count("cache_creation_input_tokens");
                self.tokens.1 += count("output_tokens");
                return Ok(());
            }
            "agent.tool_use" | "agent.mcp_tool_use" | "agent.custom_tool_use" => {
                return self.call(out, id, event);
            }
            "agent.tool_result"
            | "agent.mcp_tool_result"
            | "user.tool_result"
            | "user.custom_tool_result" => return self.result(out, event),
            _ => {}
        }
        self.close(out)?;
        match str(&event["type"]) {
            "user.message" if event["processed_at"].is_string() => self.user_message(out, event),
            "user.message" => {
                let text = text_of(&event["content"]);
                let words: Vec<&str> = text.split_whitespace().take(self.width).collect();
                let start = fitted(&one_line(&words.join(" ")), self.width / 2);
                self.dim(out, event, "waiting", &format!("a message: {start}"))
            }
            kind => self.state(out, event, kind),
        }
    }

    /// The agent begins to write.
    pub(super) fn start(
        &mut self,
        out: &mut dyn Write,
        id: &str,
        now: Timestamp,
    ) -> io::Result<()> {
        self.close(out)?;
        self.heading(out, &now.to_string(), "agent", Look::Good, "")?;
        let (id, raw) = (id.to_owned(), String::new());
        self.open = Open::Message { id, index: 0, raw, n_shown: 0 };
        out.flush()
    }

    /// The next piece of what the agent writes. Pieces of a message whose beginning was missed, or
    /// that something came in between of, are left to the event that will hold all of it.
    pub(super) fn delta(
        &mut self,
        out: &mut dyn Write,
        id: &str,
        index: i64,
        text: &str,
    ) -> io::Result<()> {
        let Open::Message { id: open, index: current, raw, n_shown } = &mut self.open else {
            return Ok(());
        };
        if open != id {
            return Ok(());
        }
        if index != std::mem::replace(current, index) && !raw.is_empty() {
            raw.push('\n');
        }
        raw.push_str(text);
        // A carriage return may be half of a line's end.
        let end = raw.trim_end_matches('\r').len().max(*n_shown);
        let piece = raw[*n_shown..end].to_owned();
        *n_shown = end;
        self.body(out, &piece)?;
        out.flush()
    }

    /// Ends the line that is not ended, so that something else can be written.
    pub(super) fn close(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => Ok(()),
            Open::Call(_) => writeln!(out),
            Open::Message { .. } => self.end_body(out),
        }
    }

    fn agent_message(&mut self, out: &mut dyn Write, id: &str, event: &Value) -> io::Result<()> {
        let text = text_of(&event["content"]);
        if let Open::Message { id: open, raw, n_shown, .. } = &self.open
            && open == id
            && text.starts_with(&raw[..*n_shown])
        {
            let rest = text[*n_shown..].to_owned();
            self.body(out, &rest)?;
            return self.close(out);
        }
        self.close(out)?;
        self.heading(out, str(&event["processed_at"]), "agent", Look::Good, "")?;
        self.body(out, &text)?;
        self.end_body(out)
    }

    fn user_message(&mut self, out: &mut dyn Write, event: &Value) -> io::Result<()> {
        let origin = &event["origin"];
        let mut from = Vec::new();
        if origin.is_object() {
            from.push(format!("from {}", str(&origin["source"])));
            from.extend(origin["event_type"].as_str().map(str::to_owned));
            from.push(str(&origin["delivery_id"]).to_owned());
        }
        let at = str(&event["processed_at"]);
        self.heading(out, at, "user", Look::Busy, &one_line(&from.join(", ")))?;
        let text = text_of(&event["content"]);
        let shown = if self.full { &text } else { beginning(&text) };
        self.body(out, shown)?;
        self.end_body(out)?;
        let n_more = text[shown.len()..].chars().count();
        if n_more > 0 {
            let n_more = grouped(i64::try_from(n_more).unwrap_or(i64::MAX));
            let remark = format!("[{n_more} characters more; --full shows them]");
            writeln!(out, "{INDENT}{}", self.style.dim(&remark))?;
        }
        Ok(())
    }

    fn call(&mut self, out: &mut dyn Write, id: &str, event: &Value) -> io::Result<()> {
        self.close(out)?;
        let name = match event["mcp_server_name"].as_str() {
            Some(server) => format!("{server}/{}", str(&event["name"])),
            None => str(&event["name"]).to_owned(),
        };
        let name = one_line(&name);
        let asks = event["evaluated_permission"] == "ask";
        // Room for the time, the label, and the result behind it.
        let room = self.width.saturating_sub(name.chars().count() + 36).max(24);
        let input = fitted(&one_line(&input_of(&event["input"])), room);
        let style = self.style;
        self.head(out, str(&event["processed_at"]), "tool", Look::Attention)?;
        write!(out, "{}{}", gap("tool"), style.strong(&name))?;
        if !input.is_empty() {
            write!(out, " {}", style.dim(&input))?;
        }
        if asks {
            write!(out, " {}", style.paint(Look::Attention, "asks for permission"))?;
        }
        self.calls.insert(id.to_owned(), name);
        self.open = Open::Call(id.to_owned());
        out.flush()
    }

    fn result(&mut self, out: &mut dyn Write, event: &Value) -> io::Result<()> {
        let id = ["tool_use_id", "mcp_tool_use_id", "custom_tool_use_id"]
            .iter()
            .find_map(|name| event[*name].as_str())
            .unwrap_or_default();
        let name = self.calls.remove(id);
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Call(open) if open == id => write!(out, " → ")?,
            open => {
                self.open = open;
                self.close(out)?;
                self.head(out, str(&event["processed_at"]), "", Look::Plain)?;
                write!(out, "{}{} → ", gap(""), name.as_deref().unwrap_or("tool"))?;
            }
        }
        let text = text_of(&event["content"]);
        if event["is_error"] == true {
            let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
            let line = fitted(&one_line(line.trim()), ERROR_CHARS_MAX);
            writeln!(out, "{}", self.style.paint(Look::Bad, &format!("error: {line}")))
        } else {
            let egress = event["egress"].as_array().into_iter().flatten();
            let refused = match egress.filter(|it| it["decision"] == "refused").count() {
                0 => String::new(),
                1 => self.style.dim(", one host refused"),
                n => self.style.dim(&format!(", {n} hosts refused")),
            };
            writeln!(out, "{}{refused}", size(text.len() as u64))
        }
    }

    /// Everything that is a line.
    fn state(&mut self, out: &mut dyn Write, event: &Value, kind: &str) -> io::Result<()> {
        match kind {
            "session.status_running" => {
                self.tokens = (0, 0);
                self.dim(out, event, "running", "")
            }
            "session.status_idle" => {
                let (why, look) = stop(event);
                let (took, gave) = std::mem::take(&mut self.tokens);
                let tokens = match (took, gave) {
                    (0, 0) => String::new(),
                    _ => format!(", {} tokens in, {} out", grouped(took), grouped(gave)),
                };
                let why = self.style.paint(look, &one_line(&why));
                let text = format!("{why}{}", self.style.dim(&tokens));
                self.heading(out, str(&event["processed_at"]), "idle", Look::Dim, &text)
            }
            "session.status_rescheduled" => self.dim(out, event, "retrying", "later"),
            "session.status_terminated" => {
                self.heading(out, str(&event["processed_at"]), "ended", Look::Bad, "terminated")
            }
            "session.error" => {
                let error = &event["error"];
                let mut text = format!("{}: {}", str(&error["type"]), str(&error["message"]));
                if error["retry_status"]["type"] == "retrying" {
                    text.push_str(" (will be tried again)");
                }
                let at = str(&event["processed_at"]);
                self.heading(out, at, "error", Look::Bad, &one_line(&text))
            }
            "agent.thinking" => self.dim(out, event, "thinking", ""),
            "user.define_outcome" => {
                let at = str(&event["processed_at"]);
                self.heading(out, at, "user", Look::Busy, "defines an outcome")?;
                let text = str(&event["description"]);
                self.body(out, if self.full { text } else { beginning(text) })?;
                self.end_body(out)
            }
            "span.outcome_evaluation_start" => {
                self.dim(out, event, "grading", &format!("iteration {}", event["iteration"]))
            }
            "span.outcome_evaluation_ongoing" => Ok(()),
            "span.outcome_evaluation_end" => self.evaluation(out, event),
            "user.interrupt" => self.heading(
                out,
                str(&event["processed_at"]),
                "user",
                Look::Busy,
                "interrupts the turn",
            ),
            "user.tool_confirmation" => {
                let name = self.calls.get(str(&event["tool_use_id"]));
                let name = name.map_or("the call", String::as_str);
                let verb = if event["result"] == "allow" { "allows" } else { "denies" };
                let text = format!("{verb} {name}");
                let at = str(&event["processed_at"]);
                self.heading(out, at, "user", Look::Busy, &one_line(&text))
            }
            other => self.dim(out, event, "event", &one_line(other)),
        }
    }

    /// What a grader made of the work.
    fn evaluation(&mut self, out: &mut dyn Write, event: &Value) -> io::Result<()> {
        let result = str(&event["result"]);
        let look = match result {
            "satisfied" => Look::Good,
            "needs_revision" => Look::Attention,
            _ => Look::Bad,
        };
        let word = self.style.paint(look, &one_line(&result.replace('_', " ")));
        let why = fitted(&one_line(str(&event["explanation"])), self.width.max(40));
        let text = format!("{word} {}", self.style.dim(&why));
        self.heading(out, str(&event["processed_at"]), "graded", look, &text)
    }

    fn dim(
        &mut self,
        out: &mut dyn Write,
        event: &Value,
        label: &str,
        text: &str,
    ) -> io::Result<()> {
        self.heading(out, str(&event["processed_at"]), label, Look::Dim, &self.style.dim(text))
    }

    fn heading(
        &mut self,
        out: &mut dyn Write,
        at: &str,
        label: &str,
        look: Look,
        text: &str,
    ) -> io::Result<()> {
        self.head(out, at, label, look)?;
        let gap = if text.is_empty() { "" } else { gap(label) };
        writeln!(out, "{gap}{text}")
    }

    /// Time and label of a line, and the day before it when that is another one.
    fn head(&mut self, out: &mut dyn Write, at: &str, label: &str, look: Look) -> io::Result<()> {
        let day = at.get(..10).unwrap_or_default();
        if !day.is_empty() && day != self.day {
            day.clone_into(&mut self.day);
            writeln!(out, "{}", self.style.dim(&format!("{} UTC", printable(day))))?;
        }
        let time = printable(at.get(11..19).unwrap_or("--:--:--"));
        write!(out, "{} {}", self.style.dim(&time), self.style.paint(look, label))
    }

    /// Writes a piece of a message: indented, harmless, no space at the end of empty lines.
    fn body(&mut self, out: &mut dyn Write, text: &str) -> io::Result<()> {
        for (at, line) in printable(&text.replace("\r\n", "\n")).split('\n').enumerate() {
            if at > 0 {
                writeln!(out)?;
                self.at_line_start = true;
            }
            if !line.is_empty() {
                let indent = if self.at_line_start { INDENT } else { "" };
                write!(out, "{indent}{line}")?;
                self.at_line_start = false;
            }
        }
        Ok(())
    }

    fn end_body(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if !std::mem::replace(&mut self.at_line_start, true) {
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Between a label and what follows it.
fn gap(label: &str) -> &'static str {
    let gap = "         ";
    &gap[label.len().min(gap.len() - 1)..]
}

/// The text of all blocks; other blocks are named.
fn text_of(content: &Value) -> String {
    let blocks = content.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<String> = blocks
        .iter()
        .map(|block| match block["text"].as_str() {
            Some(text) => text.to_owned(),
            None => format!("[{}]", block["type"].as_str().unwrap_or("block")),
        })
        .collect();
    texts.join("\n")
}

/// A call's input in short: the one text there is, or JSON.
fn input_of(input: &Value) -> String {
    match input.as_object() {
        Some(fields) if fields.is_empty() => String::new(),
        Some(fields) => match fields.values().next() {
            Some(Value::String(text)) if fields.len() == 1 => text.clone(),
            _ => input.to_string(),
        },
        None => input.to_string(),
    }
}

/// As much of a message as is shown.
fn beginning(text: &str) -> &str {
    let (start, _) = first_chars(text, MESSAGE_CHARS_MAX);
    match start.match_indices('\n').nth(MESSAGE_LINES_MAX - 1) {
        Some((end, _)) => &start[..end],
        None => start,
    }
}

fn stop(event: &Value) -> (String, Look) {
    match str(&event["stop_reason"]["type"]) {
        "end_turn" => ("end of turn".to_owned(), Look::Good),
        "requires_action" => {
            let ids = event["stop_reason"]["event_ids"].as_array().map_or(0, Vec::len);
            let calls = if ids == 1 { "one call".to_owned() } else { format!("{ids} calls") };
            (format!("waits for an answer to {calls}"), Look::Attention)
        }
        "retries_exhausted" => ("failed, gave up".to_owned(), Look::Bad),
        "budget_reached" => ("budget reached".to_owned(), Look::Bad),
        "refusal" => {
            let why = event["stop_details"]["explanation"].as_str();
            (why.map_or("refused".to_owned(), |why| format!("refused: {why}")), Look::Bad)
        }
        other => (other.to_owned(), Look::Plain),
    }
}

#[cfg(test)]
mod tests;

//! The rehearsal model: offline, no key, no AI, and it says so.
//!
//! It reads what a model would read, through the same request, and streams back a digest of the
//! event: what came, the fields a person would look at first, the shape of the rest. When the
//! message was cut it calls the `delivery` tool for the whole payload, as a model would. So a whole
//! installation can be tried and tested before anybody pays for a token. An agent whose system prompt
//! is a [`script`] plays that.

pub(crate) mod script;

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use super::OnText;
use crate::{
    clock::Clock,
    domain::{
        conversation::{Completion, Message, Request, Stop, UserPart},
        cost::{MicroUsd, Spent},
        event::{Block, Usage, plain_text},
        text::first_chars,
    },
};

/// Pause between two pieces of text, so that streaming can be seen.
const PIECE_PAUSE: Duration = Duration::from_millis(4);
const PIECE_CHARS: usize = 24;

/// Events of one turn that are described; more are counted.
const EVENTS_MAX: usize = 5;
const FIELDS_MAX: usize = 10;
/// Values looked at in one payload.
const VALUES_MAX: usize = 5_000;
const VALUE_CHARS_MAX: usize = 120;
/// Bytes asked of the `delivery` tool: enough for the digest of any payload.
const READ_BYTES: usize = 64 * 1024;

/// No token is used, and none is paid for.
const FREE: Spent = Spent {
    usage: Usage {
        input_tokens: 0,
        output_tokens: 0,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: 0,
    },
    cost: Some(MicroUsd(0)),
};

pub(super) async fn complete(
    request: &Request,
    on_text: &mut dyn OnText,
    clock: &Clock,
) -> Completion {
    let (input, step) = (Input::of(request), script::step(request));
    if let Some(delivery) = input.wants_reading().filter(|_| step.is_none()) {
        let call = json!({"delivery_id": delivery, "start": 0, "length": READ_BYTES});
        return Completion {
            content: Vec::new(),
            calls: vec![("delivery".to_owned(), call)],
            stop: Stop::ToolUse,
            thought: None,
            spent: FREE,
            raw: None,
        };
    }
    let digest = || script::Step { say: input.digest(), think: None, calls: Vec::new() };
    let script::Step { say: text, think: thought, calls } = step.unwrap_or_else(digest);
    if thought.is_some() {
        on_text.thinking();
    }
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (piece, _) = first_chars(rest, PIECE_CHARS);
        on_text.text(0, piece);
        rest = &rest[piece.len()..];
        clock.sleep(PIECE_PAUSE).await;
    }
    Completion {
        content: if text.is_empty() { Vec::new() } else { vec![Block::text(text)] },
        stop: if calls.is_empty() { Stop::EndTurn } else { Stop::ToolUse },
        calls,
        thought,
        spent: FREE,
        raw: None,
    }
}

/// An event as it stands between its fence's tags.
#[derive(Debug, Default)]
struct Event {
    source: String,
    kind: Option<String>,
    delivery: String,
    bytes: String,
    cut: bool,
    data: String,
    /// What the `delivery` tool answered about it.
    read: Option<String>,
}

/// What there is to answer: everything since this model spoke its last words.
#[derive(Debug, Default)]
struct Input {
    events: Vec<Event>,
    said: Vec<String>,
}

impl Input {
    fn of(request: &Request) -> Input {
        let mut input = Input::default();
        let mut asked = Vec::new();
        let spoken = |message: &Message| matches!(message, Message::Assistant { content, .. } if !content.is_empty());
        let start = request.messages.iter().rposition(spoken).map_or(0, |at| at + 1);
        for message in &request.messages[start..] {
            match message {
                Message::Assistant { tool_uses, .. } => {
                    for call in tool_uses {
                        let delivery = call.input["delivery_id"].as_str().unwrap_or_default();
                        asked.push((call.id.clone(), delivery.to_owned()));
                    }
                }
                Message::User { parts } => {
                    for part in parts {
                        match part {
                            UserPart::Content(Block::Text { text }) => match parse_event(text) {
                                Some(event) => input.events.push(event),
                                None => input.said.push(text.clone()),
                            },
                            UserPart::Content(_) | UserPart::System(_) => {}
                            UserPart::ToolResult { tool_use_id, content, .. } => {
                                let asked = asked.iter().find(|(id, _)| id == tool_use_id);
                                let event = asked.and_then(|(_, delivery)| {
                                    input.events.iter_mut().find(|it| it.delivery == *delivery)
                                });
                                if let Some(event) = event {
                                    event.read = Some(plain_text(content));
                                }
                            }
                        }
                    }
                }
            }
        }
        input
    }

    /// The first delivery whose message is only a part of it and that was not read yet.
    fn wants_reading(&self) -> Option<&str> {
        let mut described = self.events.iter().take(EVENTS_MAX);
        described.find(|it| it.cut && it.read.is_none()).map(|it| it.delivery.as_str())
    }

    fn digest(&self) -> String {
        let mut out = String::from("Rehearsal: no AI was involved. ");
        match (self.events.len(), self.said.len()) {
            (0, 0) => out.push_str("There was nothing to read."),
            (0, _) => out.push_str("This message was read:"),
            (1, _) => out.push_str("One event was read:"),
            (n, _) => {
                let _ = write!(out, "{n} events were read:");
            }
        }
        for event in self.events.iter().take(EVENTS_MAX) {
            event.describe(&mut out);
        }
        if let Some(more) = self.events.len().checked_sub(EVENTS_MAX).filter(|more| *more > 0) {
            let _ = write!(out, "\n\nand {more} more.");
        }
        for said in self.said.iter().take(EVENTS_MAX) {
            let (shown, cut) = first_chars(said.trim(), 400);
            let _ = write!(out, "\n\n> {}", shown.replace('\n', "\n> "));
            if cut {
                out.push('…');
            }
        }
        out.push_str("\n\nGive this agent a real model and it acts on this.");
        out
    }
}

impl Event {
    fn describe(&self, out: &mut String) {
        let data = self.read.as_deref().unwrap_or(&self.data);
        // A named source says its name first; the payload begins on the next line.
        let prefix = format!("Webhook from {}:\n", self.source);
        let data = data.strip_prefix(&prefix).unwrap_or(data);
        let tree: Option<Value> = serde_json::from_str(data).ok();
        let _ = write!(out, "\n\n**{}", self.source);
        if let Some(kind) = &self.kind {
            let _ = write!(out, " · {kind}");
        }
        let form = if tree.is_some() { "JSON" } else { "text" };
        let _ = write!(out, "** ({} bytes of {form}", self.bytes);
        if self.read.is_some() {
            out.push_str(", read whole with the `delivery` tool");
        }
        out.push(')');
        match tree {
            Some(tree) => describe_json(&tree, out),
            None => {
                for line in data.lines().filter(|line| !line.trim().is_empty()).take(6) {
                    let _ = write!(out, "\n- {}", first_chars(line.trim(), VALUE_CHARS_MAX).0);
                }
            }
        }
    }
}

/// Names of fields that people look at first, the most telling first.
const TELLING: [&str; 36] = [
    "action",
    "event",
    "type",
    "status",
    "state",
    "severity",
    "priority",
    "title",
    "subject",
    "summary",
    "name",
    "message",
    "description",
    "text",
    "body",
    "reason",
    "error",
    "number",
    "amount",
    "amount_paid",
    "amount_due",
    "total",
    "currency",
    "email",
    "full_name",
    "login",
    "ref",
    "branch",
    "alertname",
    "instance",
    "service",
    "environment",
    "url",
    "html_url",
    "id",
    "created_at",
];

fn describe_json(tree: &Value, out: &mut String) {
    let mut leaves = Vec::new();
    let mut depth_max = 0;
    collect(tree, String::new(), 0, &mut leaves, &mut depth_max);
    let mut ranked: Vec<(usize, usize)> = leaves
        .iter()
        .enumerate()
        .filter_map(|(index, (path, depth, _))| {
            let name = path.rsplit('.').next().unwrap_or(path);
            let rank = TELLING.iter().position(|it| *it == name)?;
            Some((rank + 12 * depth, index))
        })
        .collect();
    ranked.sort_unstable();
    let mut shown: Vec<usize> = ranked.into_iter().take(FIELDS_MAX).map(|(_, at)| at).collect();
    if shown.is_empty() {
        shown = (0..leaves.len().min(FIELDS_MAX)).collect();
    }
    shown.sort_unstable();
    for at in &shown {
        let (path, _, value) = &leaves[*at];
        let (value, cut) = first_chars(value, VALUE_CHARS_MAX);
        let _ =
            write!(out, "\n- {path}: {}{}", value.replace('\n', " "), if cut { "…" } else { "" });
    }
    let more = leaves.len() - shown.len();
    if more > 0 {
        let _ = write!(out, "\n- … and {more} more values, nested {depth_max} deep");
    }
}

type Leaf = (String, usize, String);

fn collect(value: &Value, path: String, depth: usize, leaves: &mut Vec<Leaf>, deepest: &mut usize) {
    *deepest = depth.max(*deepest);
    if leaves.len() >= VALUES_MAX {
        return;
    }
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                collect(value, below(key), depth + 1, leaves, deepest);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                collect(value, below(&index.to_string()), depth + 1, leaves, deepest);
            }
        }
        Value::String(text) if !text.trim().is_empty() => {
            leaves.push((path, depth, text.trim().to_owned()));
        }
        Value::Number(_) | Value::Bool(_) => leaves.push((path, depth, value.to_string())),
        Value::String(_) | Value::Null => {}
    }
}

/// Reads the tag that `agent::fence` writes, and what stands between it and its end.
fn parse_event(text: &str) -> Option<Event> {
    let tag_at = text.find("<event-")?;
    let (tag, rest) = text[tag_at + 1..].split_once(">\n")?;
    let name = tag.split(' ').next()?;
    let data = rest.split_once(&format!("\n</{name}>"))?.0;
    let attribute = |key: &str| {
        let (_, rest) = tag.split_once(&format!(" {key}=\""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    Some(Event {
        source: attribute("source")?,
        kind: attribute("type"),
        delivery: attribute("delivery")?,
        bytes: attribute("bytes")?,
        cut: attribute("cut").as_deref() == Some("true"),
        data: data.to_owned(),
        read: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Collected(String);

    impl OnText for Collected {
        fn text(&mut self, _index: usize, piece: &str) {
            self.0.push_str(piece);
        }
    }

    fn user(text: &str) -> Message {
        Message::User { parts: vec![UserPart::Content(Block::text(text))] }
    }

    fn event(cut: bool, data: &str) -> Message {
        user(&format!(
            "An event arrived.\n<event-ab12 source=\"stripe\" delivery=\"dlv_1\" bytes=\"99\" \
             cut=\"{cut}\" type=\"invoice.paid\">\nWebhook from stripe:\n{data}\n</event-ab12>"
        ))
    }

    async fn answer(messages: Vec<Message>) -> (Completion, String) {
        let request = Request { system: None, messages, tools: Vec::new() };
        let mut streamed = Collected(String::new());
        let completion = complete(&request, &mut streamed, &Clock::system()).await;
        (completion, streamed.0)
    }

    #[tokio::test]
    async fn it_streams_a_digest_and_says_that_it_is_no_ai() {
        let data = r#"{"id":"evt_1","data":{"object":{"amount_paid":4200,"x":[1,2]}}}"#;
        let (completion, streamed) = answer(vec![event(false, data)]).await;
        expect_test::expect![[r#"
            Rehearsal: no AI was involved. One event was read:

            **stripe · invoice.paid** (99 bytes of JSON)
            - id: evt_1
            - data.object.amount_paid: 4200
            - … and 2 more values, nested 4 deep

            Give this agent a real model and it acts on this."#]]
        .assert_eq(&streamed);
        assert_eq!(plain_text(&completion.content), streamed);
    }

    #[tokio::test]
    async fn a_cut_message_is_read_whole() {
        let (completion, _) = answer(vec![event(true, "{\"half\":")]).await;
        assert_eq!(completion.calls[0].0, "delivery");
        assert_eq!(completion.calls[0].1["delivery_id"], "dlv_1");
        let id: crate::id::EventId = "sevt_1".parse().unwrap();
        let call = crate::domain::conversation::ToolUse {
            id: id.clone(),
            name: "delivery".to_owned(),
            input: completion.calls[0].1.clone(),
        };
        let result = UserPart::ToolResult {
            tool_use_id: id,
            content: vec![Block::text(r#"{"title":"whole"}"#)],
            is_error: false,
        };
        let messages = vec![
            event(true, "{\"half\":"),
            Message::Assistant { content: Vec::new(), tool_uses: vec![call], answer: None },
            Message::User { parts: vec![result] },
        ];
        let (completion, text) = answer(messages).await;
        assert_eq!(completion.stop, Stop::EndTurn);
        assert!(text.contains("- title: whole") && text.contains("read whole"), "{text}");
    }

    #[tokio::test]
    async fn a_person_is_answered_too() {
        let (_, text) = answer(vec![user("Hello?\nAnybody?")]).await;
        assert!(text.contains("> Hello?\n> Anybody?"), "{text}");
    }
}

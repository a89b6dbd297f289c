//! The frames of a stream, and which previews become one.
//!
//! Every frame has an `event:` line, because clients drop those without, and one line of JSON.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        event::{Event, EventBody},
    },
    id::{EventId, Id},
    preview::Preview,
    web::{error::Result, query::Query},
};

pub(super) fn event(event: &Event) -> Bytes {
    let mut text = format!("event: {}\n", event.body.kind());
    if let Some(seq) = event.seq {
        text.push_str(&format!("id: {seq}\n"));
    }
    data(text, &event.to_json())
}

/// The last event of a session that is gone, and with it its log.
pub(super) fn deleted(now: Timestamp) -> Bytes {
    let kind = "session.deleted";
    let value = json!({"id": EventId::new(now), "type": kind, "processed_at": now});
    data(format!("event: {kind}\n"), &value)
}

/// What clients raise as an error of the API.
pub(super) fn failed() -> Bytes {
    let error = json!({"type": "api_error", "message": "the log cannot be read any further"});
    data("event: error\n".to_owned(), &json!({"type": "error", "error": error}))
}

/// JSON on one line: a text inside it has its line breaks escaped.
fn data(mut text: String, value: &Value) -> Bytes {
    text.push_str(&format!("data: {value}\n\n"));
    text.into()
}

/// Events that are known to be finished, of which no preview may be shown any more.
const FINISHED_MAX: usize = 256;

const VALUES_MAX: usize = 100;

/// The kinds of event that can be shown before they are whole.
const MESSAGE: &str = "agent.message";
const THINKING: &str = "agent.thinking";

/// The previews of one connection. Invariants: the pieces of one text that were shown are a prefix of
/// it, begin with its start, and come before the event itself; of a request that began before the
/// connection nothing is shown.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    messages: bool,
    thinking: bool,
    /// Of requests that began while we listened, and not begun themselves.
    expected: HashSet<EventId>,
    /// Started here, nothing missed, not finished.
    open: HashSet<EventId>,
    finished: VecDeque<EventId>,
}

impl Deltas {
    /// From `event_deltas[]`.
    pub(super) fn new(query: &Query) -> Result<Deltas> {
        let mut deltas = Deltas::default();
        for (n, value) in query.list("event_deltas").enumerate() {
            match value {
                MESSAGE => deltas.messages = true,
                THINKING => deltas.thinking = true,
                _ => {
                    let message = format!("can only be `{MESSAGE}` or `{THINKING}`");
                    return Err(Problem::new("event_deltas", message).into());
                }
            }
            if n >= VALUES_MAX {
                let message = format!("has more than {VALUES_MAX} values");
                return Err(Problem::new("event_deltas", message).into());
            }
        }
        Ok(deltas)
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.messages || self.thinking
    }

    /// The frame of a preview, if it is to be shown.
    pub(super) fn show(&mut self, preview: Option<Preview>) -> Option<Bytes> {
        match preview {
            Some(Preview::Request { thinking_id, message_id }) => {
                self.expected = HashSet::from([thinking_id, message_id]);
                None
            }
            Some(Preview::Thinking { event_id }) if self.thinking => self.start(event_id, THINKING),
            Some(Preview::Start { event_id }) if self.messages => self.start(event_id, MESSAGE),
            Some(Preview::Thinking { .. } | Preview::Start { .. }) => None,
            Some(Preview::Text { event_id, index, text }) => {
                if !self.open.contains(&event_id) {
                    return None;
                }
                let content = json!({"type": "text", "text": text});
                let value = json!({
                    "type": "event_delta",
                    "event_id": event_id,
                    "delta": {"type": "content_delta", "index": index, "content": content},
                });
                Some(data("event: event_delta\n".to_owned(), &value))
            }
            // Pieces were missed: what would follow is no prefix any more.
            None => {
                self.expected.clear();
                for event_id in std::mem::take(&mut self.open) {
                    self.finish(event_id);
                }
                None
            }
        }
    }

    fn start(&mut self, event_id: EventId, kind: &str) -> Option<Bytes> {
        let is_expected = self.expected.remove(&event_id);
        if !is_expected || self.finished.contains(&event_id) {
            return None;
        }
        let value = json!({"type": "event_start", "event": {"type": kind, "id": event_id}});
        self.open.insert(event_id);
        Some(data("event: event_start\n".to_owned(), &value))
    }

    /// The event itself is shown; the end of a request is the end of all that it began.
    pub(super) fn shown(&mut self, event: &Event) {
        if !self.are_wanted() {
            return;
        }
        if let EventBody::ModelRequestEnd { .. } = event.body {
            self.open.clear();
        }
        self.finish(event.id.clone());
    }

    fn finish(&mut self, event_id: EventId) {
        self.open.remove(&event_id);
        if self.finished.len() == FINISHED_MAX {
            self.finished.pop_front();
        }
        self.finished.push_back(event_id);
    }
}

//! The frames of a stream, and which previews become one.
//!
//! Every frame has an `event:` line, because clients drop those without, and one line of JSON.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    domain::{Problem, event::Event},
    id::{EventId, SessionId},
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

pub(super) fn deleted(session: &SessionId) -> Bytes {
    let kind = "session.deleted";
    data(format!("event: {kind}\n"), &json!({"type": kind, "session_id": session}))
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

/// The previews of one connection. Invariant: the pieces of one text that were shown are a prefix of
/// it, begin with its start, and come before the event itself.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    wanted: bool,
    /// Started here, nothing missed, not finished.
    open: HashSet<EventId>,
    finished: VecDeque<EventId>,
}

impl Deltas {
    /// From `event_deltas[]`.
    pub(super) fn new(query: &Query) -> Result<Deltas> {
        let mut values = query.list("event_deltas").peekable();
        let wanted = values.peek().is_some();
        let all = values.enumerate().all(|(n, value)| n < VALUES_MAX && value == "agent.message");
        if !all {
            return Err(Problem::new("event_deltas", "can only be `agent.message`").into());
        }
        Ok(Deltas { wanted, ..Deltas::default() })
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// The frame of a preview, if it is to be shown.
    pub(super) fn show(&mut self, preview: Option<Preview>) -> Option<Bytes> {
        match preview {
            Some(Preview::Start { event_id }) => {
                if self.finished.contains(&event_id) || !self.open.insert(event_id.clone()) {
                    return None;
                }
                let value = json!({
                    "type": "event_start",
                    "event": {"type": "agent.message", "id": event_id},
                });
                Some(data("event: event_start\n".to_owned(), &value))
            }
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
                for event_id in std::mem::take(&mut self.open) {
                    self.finished(&event_id);
                }
                None
            }
        }
    }

    /// The event itself is shown.
    pub(super) fn finished(&mut self, event_id: &EventId) {
        if !self.wanted {
            return;
        }
        self.open.remove(event_id);
        if self.finished.len() == FINISHED_MAX {
            self.finished.pop_front();
        }
        self.finished.push_back(event_id.clone());
    }
}

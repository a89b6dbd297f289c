//! The entries of a session's log, in the shape of the Managed Agents API (section 6.2 there).
//!
//! An event has an id, a type, the time it was processed and the fields of its type. The enum is
//! closed: whoever folds over a log decides about every type. What the server must remember beside
//! an event but never shows (the fence's nonce, a provider's raw answer) travels as `private`.

use json_escape_simd::escape_into;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{cost::MicroUsd, turn::TurnEnd};
use crate::{
    clock::Timestamp,
    id::{DeliveryId, EventId, SourceId},
};

/// A piece of content. Sources of images and documents are kept as they were given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    Image {
        source: Value,
    },
    Document {
        source: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
    SearchResult {
        #[serde(flatten)]
        fields: Map<String, Value>,
    },
}

impl Block {
    pub fn text(text: impl Into<String>) -> Block {
        Block::Text { text: text.into() }
    }
}

/// The text of all text blocks, one after the other.
pub fn plain_text(content: &[Block]) -> String {
    let mut text = String::new();
    for block in content {
        if let Block::Text { text: part } = block {
            text.push_str(part);
        }
    }
    text
}

/// Where a message came from, when it came from a source: data beside the message's text, so that
/// the text stays what the public contract says and nothing more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub source: String,
    pub source_id: SourceId,
    pub delivery_id: DeliveryId,
    pub event_type: Option<String>,
    pub content_type: Option<String>,
    /// Size of the raw body.
    pub bytes: i64,
    /// Whether the text holds less than the payload; the `delivery` tool reads the rest.
    pub cut: bool,
    /// Set on the one kind of second message that a delivery itself may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<i64>,
    /// The delivery of which this one is a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<DeliveryId>,
}

/// The reason on an idle event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StopReason {
    EndTurn,
    RequiresAction { event_ids: Vec<EventId> },
    RetriesExhausted,
    BudgetReached,
    Refusal,
}

impl From<TurnEnd> for StopReason {
    /// There is no `interrupted` and no `failed` in the API: the first reads `end_turn`, the second
    /// `retries_exhausted`.
    fn from(end: TurnEnd) -> StopReason {
        match end {
            TurnEnd::EndTurn | TurnEnd::Interrupted => StopReason::EndTurn,
            TurnEnd::RetriesExhausted | TurnEnd::Failed => StopReason::RetriesExhausted,
            TurnEnd::BudgetReached => StopReason::BudgetReached,
            TurnEnd::Refusal => StopReason::Refusal,
        }
    }
}

/// Tokens of one model request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_creation_input_tokens: i64,
    pub cache_read_input_tokens: i64,
}

/// `session.error.error`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionError {
    pub r#type: String,
    pub message: String,
    pub retry_status: Value,
}

impl SessionError {
    /// An error after which the server tries again by itself.
    pub fn retrying(kind: &str, message: impl Into<String>) -> SessionError {
        SessionError {
            r#type: kind.to_owned(),
            message: message.into(),
            retry_status: json!({"type": "retrying"}),
        }
    }

    pub fn is_retrying(&self) -> bool {
        self.retry_status["type"] == "retrying"
    }

    /// An error after which the turn ended.
    pub fn exhausted(kind: &str, message: impl Into<String>) -> SessionError {
        SessionError {
            r#type: kind.to_owned(),
            message: message.into(),
            retry_status: json!({"type": "exhausted"}),
        }
    }
}

/// The fields of an event, by type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum EventBody {
    #[serde(rename = "user.message")]
    UserMessage {
        content: Vec<Block>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Origin>,
    },
    #[serde(rename = "agent.message")]
    AgentMessage { content: Vec<Block> },
    #[serde(rename = "agent.thinking")]
    AgentThinking,
    #[serde(rename = "agent.tool_use")]
    AgentToolUse { name: String, input: Value, evaluated_permission: String, evaluation: Value },
    #[serde(rename = "agent.tool_result")]
    AgentToolResult { tool_use_id: EventId, content: Vec<Block>, is_error: bool },
    #[serde(rename = "session.status_running")]
    StatusRunning,
    #[serde(rename = "session.status_idle")]
    StatusIdle { stop_reason: StopReason, stop_details: Option<Value> },
    #[serde(rename = "session.status_rescheduled")]
    StatusRescheduled,
    #[serde(rename = "session.status_terminated")]
    StatusTerminated,
    #[serde(rename = "session.error")]
    SessionError { error: SessionError },
    #[serde(rename = "span.model_request_start")]
    ModelRequestStart,
    #[serde(rename = "span.model_request_end")]
    ModelRequestEnd {
        model_request_start_id: EventId,
        is_error: Option<bool>,
        model_usage: Usage,
        /// Dollars that this request cost; null when the model has no price.
        #[serde(default)]
        cost_usd: Option<MicroUsd>,
    },
}

impl EventBody {
    pub fn kind(&self) -> &'static str {
        match self {
            EventBody::UserMessage { .. } => "user.message",
            EventBody::AgentMessage { .. } => "agent.message",
            EventBody::AgentThinking => "agent.thinking",
            EventBody::AgentToolUse { .. } => "agent.tool_use",
            EventBody::AgentToolResult { .. } => "agent.tool_result",
            EventBody::StatusRunning => "session.status_running",
            EventBody::StatusIdle { .. } => "session.status_idle",
            EventBody::StatusRescheduled => "session.status_rescheduled",
            EventBody::StatusTerminated => "session.status_terminated",
            EventBody::SessionError { .. } => "session.error",
            EventBody::ModelRequestStart => "span.model_request_start",
            EventBody::ModelRequestEnd { .. } => "span.model_request_end",
        }
    }

    /// As stored: the fields with their type.
    pub fn to_text(&self) -> String {
        match self {
            EventBody::UserMessage { content, origin } => match &content[..] {
                [Block::Text { text }] => message_to_text(text, origin.as_ref()),
                _ => json_text(self),
            },
            _ => json_text(self),
        }
    }
}

fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("an event's fields are plain JSON")
}

/// What [`json_text`] makes of a message with one text, which is a whole payload, full of quotes, in
/// the middle of an accept: written in one pass, with a quarter of the instructions.
fn message_to_text(text: &str, origin: Option<&Origin>) -> String {
    let mut json = Vec::with_capacity(text.len() + text.len() / 4 + 512);
    json.extend_from_slice(br#"{"type":"user.message","content":[{"type":"text","text":"#);
    escape_into(text, &mut json);
    json.extend_from_slice(b"}]");
    if let Some(origin) = origin {
        json.extend_from_slice(br#","origin":"#);
        serde_json::to_writer(&mut json, origin).expect("an origin's fields are plain JSON");
    }
    json.push(b'}');
    String::from_utf8(json).expect("JSON of texts is UTF-8")
}

/// An event that has an id and no number yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    pub id: EventId,
    pub body: EventBody,
    pub private: Option<Value>,
}

impl NewEvent {
    pub fn new(id: EventId, body: EventBody) -> NewEvent {
        NewEvent { id, body, private: None }
    }
}

/// An event as stored. One that is still in the inbox has no number and was not processed.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: EventId,
    pub seq: Option<i64>,
    pub body: EventBody,
    pub private: Option<Value>,
    pub processed_at: Option<Timestamp>,
}

impl Event {
    /// The event as the API shows it: `private` stays here.
    pub fn to_json(&self) -> Value {
        let mut object = json!({"id": self.id, "type": self.body.kind()});
        let fields = serde_json::to_value(&self.body).expect("an event's fields are plain JSON");
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
            object.insert("processed_at".to_owned(), json!(self.processed_at));
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    #[test]
    fn a_message_is_written_as_any_event() {
        let every: String =
            (0..0x300).chain([0x2028, 0xFFFF, 0x1_F514]).filter_map(char::from_u32).collect();
        let origin = Origin {
            source: "a \"source\"".to_owned(),
            source_id: SourceId::new(Timestamp(0)),
            delivery_id: DeliveryId::new(Timestamp(0)),
            event_type: Some("\n".to_owned()),
            content_type: None,
            bytes: 7,
            cut: true,
            rerun: Some(2),
            replay_of: Some(DeliveryId::new(Timestamp(0))),
        };
        for text in ["", "bell", "{\"a\": [\"\\n\"]}", &every, &every.repeat(50)] {
            for origin in [None, Some(origin.clone())] {
                let body = EventBody::UserMessage { content: vec![Block::text(text)], origin };
                assert_eq!(body.to_text(), json_text(&body));
            }
        }
    }

    #[test]
    fn an_event_reads_like_the_api_and_keeps_its_private_part() {
        let event = Event {
            id: EventId::new(Timestamp(0)),
            seq: Some(3),
            body: EventBody::StatusIdle { stop_reason: StopReason::EndTurn, stop_details: None },
            private: Some(json!({"nonce": "n"})),
            processed_at: Some(Timestamp(0)),
        };
        assert_eq!(
            event.to_json(),
            json!({"id": event.id, "type": "session.status_idle",
                "stop_reason": {"type": "end_turn"}, "stop_details": null,
                "processed_at": "1970-01-01T00:00:00.000Z"})
        );
        let back: EventBody = serde_json::from_str(&event.body.to_text()).unwrap();
        assert_eq!(back, event.body);
    }
}

//! The entries of a session's log, in the shape of the Managed Agents API (section 6.2 there).
//!
//! An event has an id, a type, the time it was processed and the fields of its type. The enum is
//! closed: whoever folds over a log decides about every type. What the server must remember beside
//! an event and the API does not have (the fence's nonce, a provider's raw answer, what a model thought)
//! travels as `private`.

use json_escape_simd::escape_into;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    cost::MicroUsd,
    object::Object,
    outcome::{Rubric, Verdict},
    turn::TurnEnd,
};
use crate::{
    clock::Timestamp,
    id::{DeliveryId, EventId, Id, OutcomeId, SourceId},
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

impl Origin {
    /// As it serializes.
    fn write(&self, json: &mut Vec<u8>) {
        let Origin {
            source,
            source_id,
            delivery_id,
            event_type,
            content_type,
            bytes,
            cut,
            rerun,
            replay_of,
        } = self;
        Object::begin(json)
            .text("source", source)
            .plain("source_id", source_id.as_str())
            .plain("delivery_id", delivery_id.as_str())
            .or_null("event_type", event_type.as_deref(), Object::text)
            .or_null("content_type", content_type.as_deref(), Object::text)
            .number("bytes", *bytes)
            .flag("cut", *cut)
            .maybe("rerun", *rerun, Object::number)
            .maybe("replay_of", replay_of.as_ref().map(Id::as_str), Object::plain)
            .end();
    }
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
    /// The MCP server that it is about. The turn goes on without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_server_name: Option<String>,
}

impl SessionError {
    /// An error after which the server tries again by itself.
    pub fn retrying(kind: &str, message: impl Into<String>) -> SessionError {
        SessionError {
            r#type: kind.to_owned(),
            message: message.into(),
            retry_status: json!({"type": "retrying"}),
            mcp_server_name: None,
        }
    }

    /// Something about an MCP server, which is asked again the next time.
    pub fn of_server(kind: &str, server: &str, message: impl Into<String>) -> SessionError {
        let mcp_server_name = Some(server.to_owned());
        SessionError { mcp_server_name, ..SessionError::retrying(kind, message) }
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
            mcp_server_name: None,
        }
    }
}

/// A host that programs asked for while a call was carried out. Our extension of its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    pub host: String,
    pub port: u16,
    pub decision: EgressDecision,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressDecision {
    Allowed,
    Refused,
}

/// What somebody said about a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmed {
    Allow,
    Deny,
}

impl Confirmed {
    pub fn as_str(self) -> &'static str {
        match self {
            Confirmed::Allow => "allow",
            Confirmed::Deny => "deny",
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
    /// Whoever stopped the turn. It is taken at once, before what waits.
    #[serde(rename = "user.interrupt")]
    UserInterrupt,
    /// The answer to a call that waits for one.
    #[serde(rename = "user.tool_confirmation")]
    UserToolConfirmation {
        tool_use_id: EventId,
        result: Confirmed,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_message: Option<String>,
    },
    /// What became of a call that the client carried out; or, where nobody did, why not.
    #[serde(rename = "user.custom_tool_result")]
    UserCustomToolResult { custom_tool_use_id: EventId, content: Vec<Block>, is_error: bool },
    /// As that, for a call of the agent's toolset in an environment of the client's own.
    #[serde(rename = "user.tool_result")]
    UserToolResult { tool_use_id: EventId, content: Vec<Block>, is_error: bool },
    /// What shall be reached, and what it is judged by. Work on it begins by itself.
    #[serde(rename = "user.define_outcome")]
    UserDefineOutcome {
        outcome_id: OutcomeId,
        description: String,
        rubric: Rubric,
        #[serde(default)]
        max_iterations: Option<u32>,
    },
    /// What the operator of the session tells the model from here on.
    #[serde(rename = "system.message")]
    SystemMessage { content: Vec<Block> },
    #[serde(rename = "agent.message")]
    AgentMessage { content: Vec<Block> },
    #[serde(rename = "agent.thinking")]
    AgentThinking,
    /// What was said before is a summary from here on.
    #[serde(rename = "agent.thread_context_compacted")]
    ContextCompacted,
    #[serde(rename = "agent.tool_use")]
    AgentToolUse {
        name: String,
        input: Value,
        evaluated_permission: String,
        /// Not there where the call was refused before any policy applied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluation: Option<Value>,
    },
    /// A call of a tool that the client has.
    #[serde(rename = "agent.custom_tool_use")]
    AgentCustomToolUse { name: String, input: Value },
    #[serde(rename = "agent.tool_result")]
    AgentToolResult {
        tool_use_id: EventId,
        content: Vec<Block>,
        is_error: bool,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        egress: Vec<Egress>,
    },
    #[serde(rename = "agent.mcp_tool_use")]
    AgentMcpToolUse {
        mcp_server_name: String,
        name: String,
        input: Value,
        evaluated_permission: String,
        /// Not there where the call was refused before any policy applied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluation: Option<Value>,
    },
    #[serde(rename = "agent.mcp_tool_result")]
    AgentMcpToolResult {
        mcp_tool_use_id: EventId,
        content: Vec<Block>,
        is_error: bool,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        egress: Vec<Egress>,
    },
    #[serde(rename = "session.status_running")]
    StatusRunning,
    #[serde(rename = "session.status_idle")]
    StatusIdle { stop_reason: StopReason, stop_details: Option<Value> },
    #[serde(rename = "session.status_rescheduled")]
    StatusRescheduled,
    #[serde(rename = "session.status_terminated")]
    StatusTerminated,
    /// Somebody changed the session: what it is now, of what was changed.
    #[serde(rename = "session.updated")]
    SessionUpdated {
        #[serde(flatten)]
        changed: Map<String, Value>,
    },
    #[serde(rename = "session.error")]
    SessionError { error: SessionError },
    /// The session's one thread rests; told where the order of the API names it, at a budget.
    #[serde(rename = "session.thread_status_idle")]
    ThreadStatusIdle {
        agent_name: String,
        session_thread_id: String,
        stop_reason: StopReason,
        stop_details: Option<Value>,
    },
    /// What was used so far, as the session itself shows it.
    #[serde(rename = "session.usage")]
    SessionUsage { usage: Value, budget: Option<Value> },
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
    /// A grader looks at the work. Iterations count from 0.
    #[serde(rename = "span.outcome_evaluation_start")]
    OutcomeEvaluationStart { outcome_id: OutcomeId, iteration: u32 },
    /// It is still looking.
    #[serde(rename = "span.outcome_evaluation_ongoing")]
    OutcomeEvaluationOngoing { outcome_id: OutcomeId, iteration: u32 },
    #[serde(rename = "span.outcome_evaluation_end")]
    OutcomeEvaluationEnd {
        /// Empty where the outcome ended before its evaluation began.
        outcome_evaluation_start_id: String,
        outcome_id: OutcomeId,
        iteration: u32,
        result: Verdict,
        explanation: String,
        usage: Usage,
    },
}

/// The three kinds of event that wait in an inbox.
pub const USER_MESSAGE: &str = "user.message";
pub const SYSTEM_MESSAGE: &str = "system.message";
pub const DEFINE_OUTCOME: &str = "user.define_outcome";

impl EventBody {
    pub fn kind(&self) -> &'static str {
        match self {
            EventBody::UserMessage { .. } => USER_MESSAGE,
            EventBody::UserInterrupt => "user.interrupt",
            EventBody::UserToolConfirmation { .. } => "user.tool_confirmation",
            EventBody::UserCustomToolResult { .. } => "user.custom_tool_result",
            EventBody::UserToolResult { .. } => "user.tool_result",
            EventBody::UserDefineOutcome { .. } => DEFINE_OUTCOME,
            EventBody::SystemMessage { .. } => SYSTEM_MESSAGE,
            EventBody::AgentMessage { .. } => "agent.message",
            EventBody::AgentThinking => "agent.thinking",
            EventBody::ContextCompacted => "agent.thread_context_compacted",
            EventBody::AgentToolUse { .. } => "agent.tool_use",
            EventBody::AgentToolResult { .. } => "agent.tool_result",
            EventBody::AgentMcpToolUse { .. } => "agent.mcp_tool_use",
            EventBody::AgentMcpToolResult { .. } => "agent.mcp_tool_result",
            EventBody::AgentCustomToolUse { .. } => "agent.custom_tool_use",
            EventBody::StatusRunning => "session.status_running",
            EventBody::StatusIdle { .. } => "session.status_idle",
            EventBody::StatusRescheduled => "session.status_rescheduled",
            EventBody::StatusTerminated => "session.status_terminated",
            EventBody::SessionUpdated { .. } => "session.updated",
            EventBody::SessionError { .. } => "session.error",
            EventBody::ThreadStatusIdle { .. } => "session.thread_status_idle",
            EventBody::SessionUsage { .. } => "session.usage",
            EventBody::ModelRequestStart => "span.model_request_start",
            EventBody::ModelRequestEnd { .. } => "span.model_request_end",
            EventBody::OutcomeEvaluationStart { .. } => "span.outcome_evaluation_start",
            EventBody::OutcomeEvaluationOngoing { .. } => "span.outcome_evaluation_ongoing",
            EventBody::OutcomeEvaluationEnd { .. } => "span.outcome_evaluation_end",
        }
    }

    /// The call that this is the result of, what it led to, and whether that is an error.
    pub fn as_result(&self) -> Option<(&EventId, &[Block], bool)> {
        match self {
            EventBody::AgentToolResult { tool_use_id: call, content, is_error, .. }
            | EventBody::AgentMcpToolResult { mcp_tool_use_id: call, content, is_error, .. }
            | EventBody::UserToolResult { tool_use_id: call, content, is_error }
            | EventBody::UserCustomToolResult { custom_tool_use_id: call, content, is_error } => {
                Some((call, content, *is_error))
            }
            _ => None,
        }
    }

    /// Where programs wanted to go while the call was carried out that this is the result of.
    pub fn egress(&self) -> &[Egress] {
        match self {
            EventBody::AgentToolResult { egress, .. }
            | EventBody::AgentMcpToolResult { egress, .. } => egress,
            _ => &[],
        }
    }

    /// With that, where it is a result that can have it.
    pub fn with_egress(mut self, more: Vec<Egress>) -> EventBody {
        if let EventBody::AgentToolResult { egress, .. }
        | EventBody::AgentMcpToolResult { egress, .. } = &mut self
        {
            egress.extend(more);
        }
        self
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
/// the middle of an accept or of a turn's beginning: written in one pass, with a quarter of the
/// instructions.
pub(super) fn message_to_text(text: &str, origin: Option<&Origin>) -> String {
    let mut json = Vec::with_capacity(text.len() + text.len() / 4 + 512);
    json.extend_from_slice(br#"{"type":"user.message","content":[{"type":"text","text":"#);
    escape_into(text, &mut json);
    json.extend_from_slice(b"}]");
    if let Some(origin) = origin {
        json.extend_from_slice(br#","origin":"#);
        origin.write(&mut json);
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

//! A conversation as a model sees it: what goes into a request and what comes back.
//!
//! These types stand between the log and the providers' wire formats, and belong to neither.

use serde_json::Value;

use super::{cost::Spent, event::Block};
use crate::id::EventId;

/// One side's contribution. Roles alternate, and every tool use is followed by its one result.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    User { parts: Vec<UserPart> },
    Assistant { content: Vec<Block>, tool_uses: Vec<ToolUse>, answer: Option<Answer> },
}

/// What a provider itself said. It is given back to the same model as it was: there are models that
/// refuse to go on without the reasoning that they signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The model as the agent names it.
    pub model: String,
    pub raw: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum UserPart {
    Content(Block),
    ToolResult { tool_use_id: EventId, content: Vec<Block>, is_error: bool },
}

/// A call that the model wants made. Its id is the id of the event that journals it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolUse {
    pub id: EventId,
    pub name: String,
    pub input: Value,
}

/// What a model is told about a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSpec {
    pub name: String,
    pub description: String,
    pub input_schema: Value,
}

/// Everything that a model is asked with.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub system: Option<String>,
    pub messages: Vec<Message>,
    pub tools: Vec<ToolSpec>,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    EndTurn,
    ToolUse,
    Refusal,
    /// The answer was cut at the model's limit.
    MaxTokens,
}

/// A model's whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    pub content: Vec<Block>,
    /// Name and input of each call, in order.
    pub calls: Vec<(String, Value)>,
    pub stop: Stop,
    /// Whether the model thought before it spoke.
    pub thought: bool,
    pub spent: Spent,
    /// The provider's own answer, kept for the journal.
    pub raw: Option<Value>,
}

//! A conversation as a model sees it: what goes into a request and what comes back.
//!
//! These types stand between the log and the providers' wire formats, and belong to neither.

use serde_json::Value;

use super::{
    cost::Spent,
    event::{Block, EventBody},
};
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
    /// What the operator of the session tells the model from here on.
    System(String),
    ToolResult {
        tool_use_id: EventId,
        content: Vec<Block>,
        is_error: bool,
    },
}

/// A call that the model wants made. Its id is the id of the event that journals it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolUse {
    pub id: EventId,
    pub name: String,
    pub input: Value,
}

impl ToolUse {
    /// What somebody who approves this call binds themselves to: its name and its input.
    pub fn fingerprint(&self) -> String {
        let text = format!("{}\n{}", self.name, self.input);
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        super::text::hex(hash.as_ref())
    }
}

/// Who carries a call out, and how the log tells its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// This server: `agent.tool_result`.
    Server,
    /// The client, which has the tool: `user.custom_tool_result`.
    Custom,
    /// The client, whose environment it is that the tool works in: `user.tool_result`.
    SelfHosted,
}

impl Executor {
    /// The result of a call in its own kind of event.
    pub fn result(self, call: EventId, content: Vec<Block>, is_error: bool) -> EventBody {
        match self {
            Executor::Server => {
                let egress = Vec::new();
                EventBody::AgentToolResult { tool_use_id: call, content, is_error, egress }
            }
            Executor::Custom => {
                EventBody::UserCustomToolResult { custom_tool_use_id: call, content, is_error }
            }
            Executor::SelfHosted => {
                EventBody::UserToolResult { tool_use_id: call, content, is_error }
            }
        }
    }
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

impl Request {
    /// About how many bytes of JSON it is.
    pub fn n_bytes(&self) -> usize {
        let content = |blocks: &[Block]| -> usize {
            let of = |block: &Block| match block {
                Block::Text { text } => text.len(),
                other => serde_json::to_string(other).map_or(0, |json| json.len()),
            };
            blocks.iter().map(of).sum()
        };
        let part = |part: &UserPart| match part {
            UserPart::Content(block) => content(std::slice::from_ref(block)),
            UserPart::System(text) => text.len(),
            UserPart::ToolResult { content: blocks, .. } => content(blocks) + 64,
        };
        let message = |message: &Message| match message {
            Message::User { parts } => parts.iter().map(part).sum::<usize>(),
            Message::Assistant { content: blocks, tool_uses, answer } => match answer {
                Some(answer) => answer.raw.to_string().len(),
                None => {
                    let call = |call: &ToolUse| call.input.to_string().len() + call.name.len() + 64;
                    content(blocks) + tool_uses.iter().map(call).sum::<usize>()
                }
            },
        };
        let tool = |tool: &ToolSpec| {
            tool.name.len() + tool.description.len() + tool.input_schema.to_string().len()
        };
        self.system.as_ref().map_or(0, String::len)
            + self.messages.iter().map(|it| message(it) + 32).sum::<usize>()
            + self.tools.iter().map(|it| tool(it) + 32).sum::<usize>()
    }
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
    /// What the model thought before it spoke, as far as its server tells; none if it did not think.
    pub thought: Option<String>,
    pub spent: Spent,
    /// The provider's own answer, kept for the journal.
    pub raw: Option<Value>,
}

//! A log folded into what a decision needs.

use serde_json::Value;

use super::fence::fence;
use crate::{
    domain::{
        conversation::{Message, ToolUse, UserPart},
        event::{Block, Event, EventBody},
    },
    id::{DeliveryId, EventId},
};

/// A call without a result.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenTool {
    pub call: ToolUse,
    /// Whether it was journaled before this worker claimed the session, so that nobody knows whether
    /// it was begun.
    pub inherited: bool,
}

/// What the log says, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    pub messages: Vec<Message>,
    pub open_tools: Vec<OpenTool>,
    /// A model request that was begun and not ended.
    pub open_request: Option<EventId>,
    /// Model requests since the turn began.
    pub n_requests: u32,
    /// Whether this turn met an error after which it must end.
    pub exhausted: bool,
    /// Whether the model refused.
    pub refused: bool,
    /// Whether anything came from a source.
    pub has_deliveries: bool,
    /// Deliveries whose message shows only a part of them.
    pub cut_deliveries: Vec<DeliveryId>,
}

impl Transcript {
    /// Folds a log. Everything in it was journaled by an earlier life.
    pub fn of(log: &[Event]) -> Transcript {
        let mut transcript = Transcript::default();
        for event in log {
            transcript.apply(&event.id, &event.body, event.private.as_ref());
        }
        for tool in &mut transcript.open_tools {
            tool.inherited = true;
        }
        transcript
    }

    /// Takes in one event that was just appended.
    pub fn apply(&mut self, id: &EventId, body: &EventBody, private: Option<&Value>) {
        match body {
            EventBody::UserMessage { content, origin } => match origin {
                None => self.say(content.iter().cloned().map(UserPart::Content)),
                Some(origin) => {
                    // A message without a nonce cannot be fenced; its own id is as good a secret.
                    let nonce = private
                        .and_then(|private| private["nonce"].as_str())
                        .unwrap_or_else(|| crate::id::Id::as_str(id));
                    let text = crate::domain::event::plain_text(content);
                    self.has_deliveries = true;
                    if origin.cut {
                        self.cut_deliveries.push(origin.delivery_id.clone());
                    }
                    let block = Block::text(fence(&text, origin, nonce));
                    self.say([UserPart::Content(block)]);
                }
            },
            EventBody::AgentMessage { content } => self.assistant().0.extend(content.clone()),
            EventBody::AgentToolUse { name, input, .. } => {
                let call = ToolUse { id: id.clone(), name: name.clone(), input: input.clone() };
                self.assistant().1.push(call.clone());
                self.open_tools.push(OpenTool { call, inherited: false });
            }
            EventBody::AgentToolResult { tool_use_id, content, is_error } => {
                self.open_tools.retain(|tool| tool.call.id != *tool_use_id);
                self.say([UserPart::ToolResult {
                    tool_use_id: tool_use_id.clone(),
                    content: content.clone(),
                    is_error: *is_error,
                }]);
            }
            EventBody::StatusRunning => {
                self.n_requests = 0;
                self.exhausted = false;
                self.refused = false;
            }
            EventBody::SessionError { error } => {
                self.exhausted = error.retry_status["type"] != "retrying";
            }
            EventBody::ModelRequestStart => {
                self.open_request = Some(id.clone());
                self.n_requests += 1;
            }
            EventBody::ModelRequestEnd { .. } => {
                self.open_request = None;
                self.refused = private.is_some_and(|private| private["stop"] == "refusal");
            }
            EventBody::AgentThinking
            | EventBody::StatusIdle { .. }
            | EventBody::StatusRescheduled
            | EventBody::StatusTerminated => {}
        }
    }

    /// Adds to the user's side, in the same message when it spoke last: roles alternate.
    fn say(&mut self, more: impl IntoIterator<Item = UserPart>) {
        match self.messages.last_mut() {
            Some(Message::User { parts }) => parts.extend(more),
            Some(Message::Assistant { .. }) | None => {
                self.messages.push(Message::User { parts: more.into_iter().collect() });
            }
        }
    }

    fn assistant(&mut self) -> (&mut Vec<Block>, &mut Vec<ToolUse>) {
        if !matches!(self.messages.last(), Some(Message::Assistant { .. })) {
            self.messages.push(Message::Assistant { content: Vec::new(), tool_uses: Vec::new() });
        }
        match self.messages.last_mut() {
            Some(Message::Assistant { content, tool_uses }) => (content, tool_uses),
            Some(Message::User { .. }) | None => {
                unreachable!("an assistant message was just pushed")
            }
        }
    }

    /// Whether the user's side spoke last: input that no answer has seen.
    pub fn awaits_answer(&self) -> bool {
        matches!(self.messages.last(), Some(Message::User { .. }))
    }
}

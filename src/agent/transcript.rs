//! A log folded into what a decision needs.

use std::time::Duration;

use serde_json::{Value, json};

use super::fence::fence;
use crate::{
    domain::{
        conversation::{Answer, Message, ToolUse, UserPart},
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
    /// Model requests since the turn began, without those that are tried again.
    pub n_requests: u32,
    /// Times in a row that a model request failed and is tried again.
    pub n_failures: u32,
    /// What failed requests and the pauses after them took from this turn.
    pub lost: Duration,
    /// Whether the session waits for the next try, or has just waited.
    pub rescheduled: bool,
    /// Whether the model has answered what was said last, if only with silence.
    pub answered: bool,
    /// Whether this turn met an error after which it must end.
    pub exhausted: bool,
    /// That the model refused, as the API's `stop_details` says it.
    pub refusal: Option<Value>,
    /// Whether anything came from a source.
    pub has_deliveries: bool,
    /// Deliveries whose message shows only a part of them.
    pub cut_deliveries: Vec<DeliveryId>,
    /// What the provider itself said in an answer that has had no words so far.
    answer: Option<Answer>,
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
                let waiting = self.answer.take();
                let (_, tool_uses, answer) = self.assistant();
                tool_uses.push(call.clone());
                if waiting.is_some() {
                    *answer = waiting;
                }
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
            EventBody::StatusRunning if self.rescheduled => self.rescheduled = false,
            EventBody::StatusRunning => {
                self.n_requests = 0;
                self.n_failures = 0;
                self.lost = Duration::ZERO;
                self.exhausted = false;
                self.refusal = None;
            }
            EventBody::SessionError { error } if error.is_retrying() => {
                self.n_failures += 1;
                self.n_requests = self.n_requests.saturating_sub(1);
            }
            EventBody::SessionError { .. } => self.exhausted = true,
            EventBody::StatusRescheduled => {
                self.rescheduled = true;
                let ms = private.and_then(|private| private["lost_ms"].as_u64());
                self.lost += Duration::from_millis(ms.unwrap_or(0));
            }
            EventBody::ModelRequestStart => {
                self.open_request = Some(id.clone());
                self.n_requests += 1;
            }
            EventBody::ModelRequestEnd { is_error, .. } => {
                self.open_request = None;
                self.refusal = private.and_then(refusal);
                if *is_error != Some(true) {
                    self.n_failures = 0;
                    self.answered = true;
                    self.keep_answer(private);
                }
            }
            EventBody::StatusIdle { .. } => self.rescheduled = false,
            EventBody::AgentThinking | EventBody::StatusTerminated => {}
        }
    }

    /// Words come before the end of their request, calls after it.
    fn keep_answer(&mut self, private: Option<&Value>) {
        let answer = private.and_then(|private| {
            let raw = private.get("raw").filter(|raw| !raw.is_null())?.clone();
            Some(Answer { model: private["model"].as_str()?.to_owned(), raw })
        });
        match self.messages.last_mut() {
            Some(Message::Assistant { answer: slot, .. }) => *slot = answer,
            Some(Message::User { .. }) | None => self.answer = answer,
        }
    }

    /// Adds to the user's side, in the same message when it spoke last: roles alternate.
    fn say(&mut self, more: impl IntoIterator<Item = UserPart>) {
        self.answer = None;
        self.answered = false;
        match self.messages.last_mut() {
            Some(Message::User { parts }) => parts.extend(more),
            Some(Message::Assistant { .. }) | None => {
                self.messages.push(Message::User { parts: more.into_iter().collect() });
            }
        }
    }

    fn assistant(&mut self) -> (&mut Vec<Block>, &mut Vec<ToolUse>, &mut Option<Answer>) {
        if !matches!(self.messages.last(), Some(Message::Assistant { .. })) {
            let (content, tool_uses) = (Vec::new(), Vec::new());
            self.messages.push(Message::Assistant { content, tool_uses, answer: None });
        }
        match self.messages.last_mut() {
            Some(Message::Assistant { content, tool_uses, answer }) => (content, tool_uses, answer),
            Some(Message::User { .. }) | None => {
                unreachable!("an assistant message was just pushed")
            }
        }
    }

    /// Whether the user's side spoke last: input that no answer has seen.
    pub fn awaits_answer(&self) -> bool {
        !self.answered && matches!(self.messages.last(), Some(Message::User { .. }))
    }
}

/// What is known about a refusal, if the answer was one.
fn refusal(private: &Value) -> Option<Value> {
    let details = &private["raw"]["stop_details"];
    let text = |key: &str| details[key].as_str();
    (private["stop"] == "refusal").then(|| {
        json!({"type": "refusal", "category": text("category"), "explanation": text("explanation")})
    })
}

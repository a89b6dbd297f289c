//! OpenAI's Chat Completions format, which most servers of open models speak.
//!
//! Invariants: each call is followed by its one result as a message of role `tool`; roles alternate
//! otherwise. Fields that a provider puts beside the known ones (reasoning, signatures of calls) are
//! kept and go back to the same model within the turn, as several providers ask. Servers differ in
//! small things, so the reader takes what it understands and asks for an end.

use serde_json::{Map, Value, json};

use super::{
    Error, OnText,
    surrogate::Joiner,
    wire::{
        Fold, append, as_text, call_input, count, cut, parse, take, tell, text_block, think, url_of,
    },
};
use crate::domain::{
    conversation::{Answer as Given, Completion, Message, Request, Stop, ToolUse, UserPart},
    cost::Spent,
    event::{Block, Usage},
    model::ModelConfig,
};

/// Where servers put what a model thinks.
const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];

/// Calls of one answer at most: a bound for servers that count wildly.
const CALLS_MAX: usize = 256;

/// How a server names the bound on tokens: OpenAI's own name, or the one that everybody else knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaxTokensKey {
    OpenAi,
    Common,
}

pub(super) fn body(
    id: &str,
    config: &ModelConfig,
    request: &Request,
    max_tokens: Option<(MaxTokensKey, u32)>,
) -> Value {
    let mut messages = Vec::new();
    if let Some(system) = &request.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    let turn_from = last_said(&request.messages);
    for (at, message) in request.messages.iter().enumerate() {
        match message {
            Message::User { parts } => user(parts, &mut messages),
            Message::Assistant { content, tool_uses, answer } => {
                let answer = answer.as_ref().filter(|it| it.model == config.id && at > turn_from);
                messages.extend(assistant(content, tool_uses, answer));
            }
        }
    }
    let mut body = json!({"model": id, "stream": true, "stream_options": {"include_usage": true},
        "messages": messages});
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "function": {"name": tool.name,
                "description": tool.description, "parameters": tool.input_schema}})
        });
        body["tools"] = tools.collect();
    }
    match max_tokens {
        Some((MaxTokensKey::OpenAi, n)) => body["max_completion_tokens"] = json!(n),
        Some((MaxTokensKey::Common, n)) => body["max_tokens"] = json!(n),
        None => {}
    }
    if let Some(effort) = config.effort.as_ref().and_then(|effort| effort["type"].as_str()) {
        body["reasoning_effort"] = json!(effort);
    }
    body
}

/// Where the user last said something, apart from results: the turn that goes on began there.
pub(super) fn last_said(messages: &[Message]) -> usize {
    let says = |message: &Message| match message {
        Message::User { parts } => parts.iter().any(|it| matches!(it, UserPart::Content(_))),
        Message::Assistant { .. } => false,
    };
    messages.iter().rposition(says).unwrap_or(0)
}

fn user(parts: &[UserPart], messages: &mut Vec<Value>) {
    let (mut said, mut told): (Vec<&Block>, Vec<&str>) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            UserPart::Content(block) => said.push(block),
            UserPart::System(text) => told.push(text),
            UserPart::ToolResult { tool_use_id, content, is_error } => {
                let mut text: Vec<String> = content
                    .iter()
                    .filter(|block| !matches!(block, Block::Image { .. }))
                    .map(as_text)
                    .collect();
                if *is_error {
                    text.insert(0, "Error:".to_owned());
                }
                messages.push(json!({"role": "tool", "tool_call_id": tool_use_id,
                    "content": text.join("\n")}));
                // A result is text in this format; what can be seen follows from the user's side.
                said.extend(content.iter().filter(|block| matches!(block, Block::Image { .. })));
            }
        }
    }
    let said: Vec<Value> = said.into_iter().filter_map(part).collect();
    let content = match said.iter().map(|it| it["text"].as_str()).collect::<Option<Vec<_>>>() {
        // The plain form is the one that every server knows.
        Some(texts) => json!(texts.join("\n\n")),
        None => json!(said),
    };
    if !said.is_empty() {
        messages.push(json!({"role": "user", "content": content}));
    }
    if !told.is_empty() {
        messages.push(json!({"role": "system", "content": told.join("\n\n")}));
    }
}

fn part(block: &Block) -> Option<Value> {
    let shown = match block {
        Block::Image { source } => {
            url_of(source).map(|url| json!({"type": "image_url", "image_url": {"url": url}}))
        }
        Block::Document { source, title, .. } if source["type"] == "base64" => {
            let name = title.as_deref().unwrap_or("document");
            url_of(source)
                .map(|url| json!({"type": "file", "file": {"filename": name, "file_data": url}}))
        }
        Block::Text { .. } | Block::Document { .. } | Block::SearchResult { .. } => None,
    };
    shown.or_else(|| {
        let text = as_text(block);
        (!text.is_empty()).then(|| json!({"type": "text", "text": text}))
    })
}

fn assistant(content: &[Block], tool_uses: &[ToolUse], answer: Option<&Given>) -> Option<Value> {
    let own = answer.map(|answer| &answer.raw["choices"][0]["message"]);
    let text: Vec<String> = content.iter().map(as_text).collect();
    if text.is_empty() && tool_uses.is_empty() {
        return None;
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), json!("assistant"));
    let content = if text.is_empty() { Value::Null } else { json!(text.join("\n\n")) };
    message.insert("content".to_owned(), content);
    let own_calls = own.and_then(|own| own["tool_calls"].as_array());
    let own_calls = own_calls.filter(|calls| calls.len() == tool_uses.len());
    let calls: Vec<Value> = tool_uses
        .iter()
        .enumerate()
        .map(|(at, call)| {
            let mut out =
                own_calls.map_or_else(|| json!({"type": "function"}), |own| own[at].clone());
            out["id"] = json!(call.id);
            out["function"] = json!({"name": call.name, "arguments": call.input.to_string()});
            out
        })
        .collect();
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), calls.into());
    }
    for (key, value) in own.and_then(Value::as_object).into_iter().flatten() {
        let is_known = ["refusal", "annotations", "audio", "function_call"].contains(&key.as_str());
        if !is_known && !message.contains_key(key) {
            message.insert(key.clone(), value.clone());
        }
    }
    Some(message.into())
}

/// An answer while it comes in.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// What describes the answer: id, model, and so on.
    head: Map<String, Value>,
    /// Everything of the message but its calls.
    message: Map<String, Value>,
    joiner: Joiner,
    calls: Vec<OpenCall>,
    finish_reason: Option<String>,
    usage: Usage,
    raw_usage: Value,
    done: bool,
}

#[derive(Debug, Default)]
struct OpenCall {
    index: Option<u64>,
    /// Everything but the function.
    raw: Map<String, Value>,
    name: String,
    arguments: String,
    joiner: Joiner,
}

impl Fold for Answer {
    fn take(&mut self, data: &str, on_text: &mut dyn OnText) -> Result<(), Error> {
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let mut event = parse(data)?;
        if event.get("error").is_some_and(|error| !error.is_null()) {
            return Err(Error::in_stream(&event));
        }
        if event["usage"].is_object() {
            self.count(&event["usage"]);
            self.raw_usage = take(&mut event, "usage");
        }
        let choice = take(&mut event, "choices").get_mut(0).map(Value::take).unwrap_or_default();
        let head = event.as_object_mut().map(std::mem::take).unwrap_or_default();
        for (key, value) in head {
            if !["choices", "usage", "object"].contains(&key.as_str()) && !value.is_null() {
                self.head.entry(key).or_insert(value);
            }
        }
        self.extend(choice, on_text)
    }

    fn has_begun(&self) -> bool {
        // Nearly all begin with a piece that has a role and nothing else, and think after that.
        self.message.keys().any(|key| key != "role") || !self.calls.is_empty()
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn finish(&mut self) -> Result<Completion, Error> {
        let Some(reason) = self.finish_reason.take() else { return Err(cut()) };
        let text = |key: &str| self.message.get(key).and_then(Value::as_str).unwrap_or_default();
        let refused = reason == "content_filter" || !text("refusal").is_empty();
        let stop = match reason.as_str() {
            _ if refused => Stop::Refusal,
            "length" => Stop::MaxTokens,
            _ => Stop::EndTurn,
        };
        let content: Vec<Block> = [text_block(text("content")), text_block(text("refusal"))]
            .into_iter()
            .flatten()
            .collect();
        // Servers that know both names repeat the one under the other.
        let mut thought = None;
        if let Some(said) = REASONING.iter().map(|key| text(key)).find(|it| !it.is_empty()) {
            think(&mut thought, said);
        }
        let mut calls = Vec::new();
        let mut raw_calls = Vec::new();
        for call in std::mem::take(&mut self.calls) {
            if stop == Stop::EndTurn {
                calls.push((call.name.clone(), call_input(&call.name, &call.arguments)?));
            }
            let mut raw = call.raw;
            let function = json!({"name": call.name, "arguments": call.arguments});
            raw.insert("function".to_owned(), function);
            raw_calls.push(Value::Object(raw));
        }
        let mut message = std::mem::take(&mut self.message);
        if !raw_calls.is_empty() {
            message.insert("tool_calls".to_owned(), raw_calls.into());
        }
        let mut raw = std::mem::take(&mut self.head);
        raw.insert("object".to_owned(), json!("chat.completion"));
        let choice = json!({"index": 0, "message": message, "finish_reason": reason});
        raw.insert("choices".to_owned(), json!([choice]));
        raw.insert("usage".to_owned(), self.raw_usage.take());
        Ok(Completion {
            content,
            stop: if calls.is_empty() { stop } else { Stop::ToolUse },
            calls,
            thought,
            spent: Spent::from(self.usage),
            raw: Some(raw.into()),
        })
    }
}

impl Answer {
    fn extend(&mut self, mut choice: Value, on_text: &mut dyn OnText) -> Result<(), Error> {
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        let Value::Object(delta) = take(&mut choice, "delta") else { return Ok(()) };
        for (key, value) in delta {
            match (key.as_str(), value) {
                (_, Value::Null) => {}
                ("tool_calls", Value::Array(calls)) => {
                    for call in calls {
                        self.extend_call(call)?;
                    }
                }
                ("content", Value::Array(parts)) => {
                    for piece in parts.iter().filter_map(|part| part["text"].as_str()) {
                        self.say("content", piece, on_text);
                    }
                }
                ("content" | "refusal", Value::String(piece)) => self.say(&key, &piece, on_text),
                ("role", role) => drop(self.message.insert(key, role)),
                (_, Value::String(piece)) => {
                    if REASONING.contains(&key.as_str()) && !piece.is_empty() {
                        on_text.thinking();
                    }
                    append(&mut self.message, &key, &self.joiner.join(&piece));
                }
                (_, Value::Array(more)) => match self.message.get_mut(&key) {
                    Some(Value::Array(list)) => list.extend(more),
                    _ => drop(self.message.insert(key, more.into())),
                },
                (_, value) => drop(self.message.insert(key, value)),
            }
        }
        Ok(())
    }

    fn say(&mut self, key: &str, piece: &str, on_text: &mut dyn OnText) {
        if piece.is_empty() {
            return;
        }
        let piece = self.joiner.join(piece);
        append(&mut self.message, key, &piece);
        // A refusal is shown as the text that it is, behind what was said before.
        let index = usize::from(key == "refusal" && self.message.contains_key("content"));
        tell(on_text, index, &piece);
    }

    /// A piece of a call belongs to the call with its index. There are servers that leave the index
    /// out or give all calls the same one; a new id then tells a new call.
    fn extend_call(&mut self, call: Value) -> Result<(), Error> {
        let Value::Object(mut raw) = call else { return Ok(()) };
        let index = raw.shift_remove("index").and_then(|index| index.as_u64());
        let function = raw.shift_remove("function").unwrap_or_default();
        let id = raw.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let known = self.calls.iter().rposition(|it| index.is_none() || it.index == index);
        let known = known.filter(|at| {
            id.is_none() || self.calls[*at].raw.get("id").and_then(Value::as_str) == id
        });
        let at = match known {
            Some(at) => at,
            None if self.calls.len() >= CALLS_MAX => {
                return Err(Error::passing(format!("the model made more than {CALLS_MAX} calls")));
            }
            None => {
                self.calls.push(OpenCall { index, ..OpenCall::default() });
                self.calls.len() - 1
            }
        };
        let open = &mut self.calls[at];
        raw.retain(|_, value| !value.is_null());
        open.raw.extend(raw);
        if let Some(name) = function["name"].as_str()
            && open.name != name
        {
            open.name.push_str(name);
        }
        match &function["arguments"] {
            Value::String(piece) => open.arguments.push_str(&open.joiner.join(piece)),
            Value::Object(whole) => open.arguments = Value::Object(whole.clone()).to_string(),
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, usage: &Value) {
        let get = |path| count(usage, path).unwrap_or(0);
        let read = get("/prompt_tokens_details/cached_tokens");
        let written = get("/prompt_tokens_details/cache_write_tokens")
            .max(get("/prompt_tokens_details/cache_creation_tokens"));
        self.usage = Usage {
            // Ours, like Anthropic's, is what was neither read from a cache nor written to one.
            input_tokens: (get("/prompt_tokens") - read - written).max(0),
            output_tokens: get("/completion_tokens"),
            cache_creation_input_tokens: written,
            cache_read_input_tokens: read,
        };
    }
}

#[cfg(test)]
mod tests;

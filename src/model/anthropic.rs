//! Anthropic's Messages format: the request as JSON, and the answer folded out of its events.
//!
//! Invariants: roles alternate; results come first in the message after their calls; blocks that the
//! same model sent, signed thinking among them, go back as they came, apart from the ids of calls.

use serde_json::{Map, Value, json};

use super::{
    Error, OnText,
    surrogate::Joiner,
    wire::{Fold, append, call_input, count, cut, parse, take, tell, text_block, think},
};
use crate::domain::{
    conversation::{Completion, Message, Request, Stop, ToolUse, UserPart},
    cost::Spent,
    event::{Block, Usage},
    model::ModelConfig,
};

/// Tokens of one answer when the operator says nothing. The format wants a number.
const MAX_TOKENS: u32 = 32_000;

/// Models that take fewer.
const MAX_TOKENS_OF: [(&str, u32); 5] = [
    ("claude-3-5-", 8192),
    ("claude-3-haiku", 4096),
    ("claude-3-opus", 4096),
    ("claude-3-sonnet", 4096),
    ("claude-2", 4096),
];

/// The body of a request. `id` is what the provider calls the model, `config.id` what the agent does.
pub(super) fn body(
    id: &str,
    config: &ModelConfig,
    request: &Request,
    max_tokens: Option<u32>,
) -> Value {
    let known = MAX_TOKENS_OF.iter().find(|(prefix, _)| id.starts_with(prefix));
    let max_tokens = max_tokens.or(known.map(|(_, n)| *n)).unwrap_or(MAX_TOKENS);
    let mut body = json!({"model": id, "max_tokens": max_tokens, "stream": true});
    if let Some(system) = &request.system {
        // Tools and system are the same in every request of an agent: worth caching.
        let mut block = json!({"type": "text", "text": system});
        cache(&mut block);
        body["system"] = json!([block]);
    }
    let mut messages = messages(&config.id, &request.messages);
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"name": tool.name, "description": tool.description, "input_schema": tool.input_schema})
        });
        body["tools"] = tools.collect();
        // With tools this request is likely to be the beginning of the next one.
        let last = messages.last_mut().and_then(|it| it["content"].as_array_mut()?.last_mut());
        if let Some(last) = last {
            cache(last);
        }
    }
    body["messages"] = messages.into();
    if let Some(effort) = config.effort.as_ref().and_then(|effort| effort["type"].as_str()) {
        body["output_config"] = json!({"effort": effort});
    }
    if let Some(geo) = &config.inference_geo {
        body["inference_geo"] = json!(geo);
    }
    if config.speed == "fast" {
        body["speed"] = json!("fast");
    }
    body
}

fn cache(block: &mut Value) {
    block["cache_control"] = json!({"type": "ephemeral"});
}

fn messages(model: &str, messages: &[Message]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for message in messages {
        let mut told = Vec::new();
        let (role, content) = match message {
            Message::User { parts } => ("user", user_content(parts, &mut told)),
            Message::Assistant { content, tool_uses, answer } => {
                let answer = answer.as_ref().filter(|answer| answer.model == model);
                let own = answer.and_then(|answer| own_content(&answer.raw, tool_uses));
                ("assistant", own.unwrap_or_else(|| assistant_content(content, tool_uses)))
            }
        };
        match out.last_mut() {
            _ if content.is_empty() => {}
            Some(last) if last["role"] == role => {
                if let Some(before) = last["content"].as_array_mut() {
                    before.extend(content);
                }
            }
            _ => out.push(json!({"role": role, "content": content})),
        }
        // It has its place after all that the user's side says, and before the answer.
        if !told.is_empty() {
            out.push(json!({"role": "system", "content": told}));
        }
    }
    out
}

fn user_content(parts: &[UserPart], told: &mut Vec<Value>) -> Vec<Value> {
    let (mut results, mut content) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            UserPart::Content(block) => content.extend(block_json(block)),
            UserPart::System(text) => told.extend(block_json(&Block::text(text))),
            UserPart::ToolResult { tool_use_id, content, is_error } => {
                let content: Vec<Value> = content.iter().filter_map(block_json).collect();
                results.push(json!({"type": "tool_result", "tool_use_id": tool_use_id,
                    "content": content, "is_error": is_error}));
            }
        }
    }
    results.append(&mut content);
    results
}

fn assistant_content(content: &[Block], tool_uses: &[ToolUse]) -> Vec<Value> {
    let texts = content.iter().filter_map(block_json);
    let calls = tool_uses.iter().map(
        |call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}),
    );
    texts.chain(calls).collect()
}

/// The blocks as the provider sent them, with our ids on the calls. `None` when they do not fit.
fn own_content(raw: &Value, tool_uses: &[ToolUse]) -> Option<Vec<Value>> {
    let mut calls = tool_uses.iter();
    let mut content = Vec::new();
    for block in raw["content"].as_array()? {
        let mut block = block.clone();
        match block["type"].as_str()? {
            "tool_use" => {
                let call = calls.next().filter(|call| block["name"] == call.name.as_str())?;
                block["id"] = json!(call.id);
                block["input"] = call.input.clone();
            }
            "text" if block["text"].as_str().is_none_or(|text| text.trim().is_empty()) => continue,
            _ => {}
        }
        content.push(block);
    }
    calls.next().is_none().then_some(content)
}

/// The format refuses text without anything in it.
fn block_json(block: &Block) -> Option<Value> {
    match block {
        Block::Text { text } if text.trim().is_empty() => None,
        _ => Some(serde_json::to_value(block).expect("a block is plain JSON")),
    }
}

/// An answer while it comes in.
#[derive(Debug, Default)]
pub(super) struct Answer {
    message: Map<String, Value>,
    blocks: Vec<OpenBlock>,
    usage: Usage,
    n_texts: usize,
    done: bool,
}

#[derive(Debug)]
struct OpenBlock {
    index: u64,
    raw: Map<String, Value>,
    /// What came of a call's input.
    input: String,
    joiner: Joiner,
    /// Its place among the blocks of text, once it has any.
    text_index: Option<usize>,
}

impl Fold for Answer {
    fn take(&mut self, data: &str, on_text: &mut dyn OnText) -> Result<(), Error> {
        let mut event = parse(data)?;
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => {
                self.count(&event["message"]["usage"]);
                if let Value::Object(message) = take(&mut event, "message") {
                    self.message = message;
                }
            }
            "content_block_start" => {
                let index = event["index"].as_u64();
                let block = take(&mut event, "content_block");
                let (Some(index), Value::Object(raw)) = (index, block) else {
                    return Err(Error::passing("the model server began a block without content"));
                };
                if matches!(
                    raw.get("type").and_then(Value::as_str),
                    Some("thinking" | "redacted_thinking")
                ) {
                    on_text.thinking();
                }
                let text = raw.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
                self.blocks.push(OpenBlock {
                    index,
                    raw,
                    input: String::new(),
                    joiner: Joiner::default(),
                    text_index: None,
                });
                self.tell(index, &text, on_text)?;
            }
            "content_block_delta" => self.extend(&event, on_text)?,
            "message_delta" => {
                self.count(&event["usage"]);
                merge(&mut self.message, "usage", take(&mut event, "usage"));
                if let Value::Object(delta) = take(&mut event, "delta") {
                    self.message.extend(delta);
                }
            }
            "message_stop" => self.done = true,
            "error" => return Err(Error::in_stream(&event)),
            // The end of a block, pings, and whatever comes to be.
            _ => {}
        }
        Ok(())
    }

    fn has_begun(&self) -> bool {
        !self.blocks.is_empty()
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn finish(&mut self) -> Result<Completion, Error> {
        let stop = match self.message.get("stop_reason").and_then(Value::as_str) {
            None => return Err(cut()),
            Some("refusal") => Stop::Refusal,
            Some("max_tokens" | "model_context_window_exceeded") => Stop::MaxTokens,
            Some(_) => Stop::EndTurn,
        };
        let (mut content, mut calls, mut thought) = (Vec::new(), Vec::new(), None);
        for block in &mut self.blocks {
            let text = |key: &str| block.raw.get(key).and_then(Value::as_str).unwrap_or_default();
            match text("type") {
                "text" => content.extend(text_block(text("text"))),
                "thinking" | "redacted_thinking" => think(&mut thought, text("thinking")),
                "tool_use" if stop == Stop::EndTurn => {
                    let name = text("name").to_owned();
                    let given = block.raw.get("input").filter(|input| input.is_object());
                    let input = match given {
                        Some(input) if block.input.is_empty() => input.clone(),
                        _ => call_input(&name, &block.input)?,
                    };
                    block.raw.insert("input".to_owned(), input.clone());
                    calls.push((name, input));
                }
                _ => {}
            }
        }
        let blocks = self.blocks.drain(..).map(|block| Value::Object(block.raw));
        let mut raw = std::mem::take(&mut self.message);
        raw.insert("content".to_owned(), blocks.collect());
        Ok(Completion {
            content,
            stop: if calls.is_empty() { stop } else { Stop::ToolUse },
            calls,
            thought,
            spent: Spent::from(self.usage),
            raw: Some(Value::Object(raw)),
        })
    }
}

impl Answer {
    fn block(&mut self, index: u64) -> Result<&mut OpenBlock, Error> {
        let block = self.blocks.iter_mut().rev().find(|block| block.index == index);
        block.ok_or_else(|| Error::passing("the model server went on with a block it never began"))
    }

    fn extend(&mut self, event: &Value, on_text: &mut dyn OnText) -> Result<(), Error> {
        let index = event["index"].as_u64().unwrap_or(u64::MAX);
        let delta = &event["delta"];
        let piece = |key: &str| delta[key].as_str().unwrap_or_default();
        let block = self.block(index)?;
        match piece("type") {
            "text_delta" => {
                let piece = block.joiner.join(piece("text"));
                append(&mut block.raw, "text", &piece);
                self.tell(index, &piece, on_text)?;
            }
            "input_json_delta" => {
                block.input.push_str(&block.joiner.join(piece("partial_json")));
            }
            "thinking_delta" => {
                append(&mut block.raw, "thinking", &block.joiner.join(piece("thinking")));
            }
            "signature_delta" => append(&mut block.raw, "signature", piece("signature")),
            "citations_delta" => {
                let citation = delta["citation"].clone();
                match block.raw.get_mut("citations") {
                    Some(Value::Array(citations)) => citations.push(citation),
                    _ => drop(block.raw.insert("citations".to_owned(), json!([citation]))),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn tell(&mut self, index: u64, piece: &str, on_text: &mut dyn OnText) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        let n_texts = self.n_texts;
        let block = self.block(index)?;
        let place = *block.text_index.get_or_insert(n_texts);
        self.n_texts = n_texts.max(place + 1);
        tell(on_text, place, piece);
        Ok(())
    }

    /// Counts are of the whole so far; the last event that has one is right.
    fn count(&mut self, usage: &Value) {
        let fields = [
            ("/input_tokens", &mut self.usage.input_tokens),
            ("/output_tokens", &mut self.usage.output_tokens),
            ("/cache_creation_input_tokens", &mut self.usage.cache_creation_input_tokens),
            ("/cache_read_input_tokens", &mut self.usage.cache_read_input_tokens),
        ];
        for (path, field) in fields {
            if let Some(n) = count(usage, path) {
                *field = n;
            }
        }
    }
}

/// Puts the fields of an object into the one at `key`.
fn merge(object: &mut Map<String, Value>, key: &str, fields: Value) {
    match (object.get_mut(key), fields) {
        (Some(Value::Object(known)), Value::Object(fields)) => known.extend(fields),
        (None, Value::Object(fields)) => drop(object.insert(key.to_owned(), fields.into())),
        _ => {}
    }
}

#[cfg(test)]
mod tests;

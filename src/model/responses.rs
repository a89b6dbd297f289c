//! OpenAI's Responses format: what OpenAI itself is spoken to in, because its reasoning models take
//! tools in no other.
//!
//! Nothing is kept on their side (`store: false`): what the model thought comes back to us sealed,
//! and goes back within the turn as it came. Invariant: each call is followed by its one output.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Error, OnText,
    chat::last_said,
    surrogate::Joiner,
    wire::{Fold, as_text, call_input, count, cut, parse, take, tell, text_block, think, url_of},
};
use crate::domain::{
    conversation::{Completion, Message, Request, Stop, ToolUse, UserPart},
    cost::Spent,
    event::{Block, Usage},
    model::ModelConfig,
};

/// What of an answer is kept: the rest repeats the request.
const KEPT: [&str; 8] = [
    "id",
    "created_at",
    "incomplete_details",
    "model",
    "output",
    "service_tier",
    "status",
    "usage",
];

pub(super) fn body(
    id: &str,
    config: &ModelConfig,
    request: &Request,
    max_tokens: Option<u32>,
) -> Value {
    let mut input = Vec::new();
    let turn_from = last_said(&request.messages);
    for (at, message) in request.messages.iter().enumerate() {
        match message {
            Message::User { parts } => user(parts, &mut input),
            Message::Assistant { content, tool_uses, answer } => {
                let answer = answer.as_ref().filter(|it| it.model == config.id && at > turn_from);
                let own = answer.and_then(|answer| own_items(&answer.raw, tool_uses));
                input.extend(own.unwrap_or_else(|| assistant(content, tool_uses)));
            }
        }
    }
    let mut body = json!({"model": id, "stream": true, "store": false,
        "include": ["reasoning.encrypted_content"], "input": input});
    if let Some(system) = &request.system {
        body["instructions"] = json!(system);
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "name": tool.name, "description": tool.description,
                "parameters": tool.input_schema, "strict": false})
        });
        body["tools"] = tools.collect();
    }
    if let Some(n) = max_tokens {
        body["max_output_tokens"] = json!(n);
    }
    if let Some(effort) = config.effort.as_ref().and_then(|effort| effort["type"].as_str()) {
        body["reasoning"] = json!({"effort": effort});
    }
    if config.speed == "fast" {
        body["service_tier"] = json!("priority");
    }
    body
}

fn user(parts: &[UserPart], input: &mut Vec<Value>) {
    let (mut said, mut told) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            UserPart::Content(block) => said.extend(content_part(block)),
            UserPart::System(text) => told.extend(content_part(&Block::text(text))),
            UserPart::ToolResult { tool_use_id, content, is_error } => {
                let mut output: Vec<Value> = content.iter().filter_map(content_part).collect();
                if *is_error {
                    output.insert(0, json!({"type": "input_text", "text": "Error:"}));
                }
                // The plain form is the one that every server knows.
                let texts: Option<Vec<_>> =
                    output.iter().map(|part| part["text"].as_str()).collect();
                let output = texts.map_or_else(|| json!(output), |texts| json!(texts.join("\n")));
                input.push(json!({"type": "function_call_output", "call_id": tool_use_id,
                    "output": output}));
            }
        }
    }
    if !said.is_empty() {
        input.push(json!({"type": "message", "role": "user", "content": said}));
    }
    if !told.is_empty() {
        input.push(json!({"type": "message", "role": "system", "content": told}));
    }
}

fn content_part(block: &Block) -> Option<Value> {
    let shown = match block {
        Block::Image { source } => {
            url_of(source).map(|url| json!({"type": "input_image", "image_url": url}))
        }
        Block::Document { source, .. } if source["type"] == "url" => {
            source["url"].as_str().map(|url| json!({"type": "input_file", "file_url": url}))
        }
        Block::Document { source, title, .. } if source["type"] == "base64" => {
            let name = title.as_deref().unwrap_or("document");
            url_of(source)
                .map(|url| json!({"type": "input_file", "filename": name, "file_data": url}))
        }
        Block::Text { .. } | Block::Document { .. } | Block::SearchResult { .. } => None,
    };
    shown.or_else(|| {
        let text = as_text(block);
        (!text.is_empty()).then(|| json!({"type": "input_text", "text": text}))
    })
}

fn assistant(content: &[Block], tool_uses: &[ToolUse]) -> Vec<Value> {
    let texts: Vec<Value> = content
        .iter()
        .map(as_text)
        .filter(|text| !text.is_empty())
        .map(|text| json!({"type": "output_text", "text": text}))
        .collect();
    let mut items = Vec::new();
    if !texts.is_empty() {
        items.push(json!({"type": "message", "role": "assistant", "content": texts}));
    }
    items.extend(tool_uses.iter().map(|call| {
        json!({"type": "function_call", "call_id": call.id, "name": call.name,
            "arguments": call.input.to_string()})
    }));
    items
}

/// The items as the provider sent them, with our ids on the calls. `None` when they do not fit.
fn own_items(raw: &Value, tool_uses: &[ToolUse]) -> Option<Vec<Value>> {
    let mut calls = tool_uses.iter();
    let mut items = Vec::new();
    for item in raw["output"].as_array()? {
        let mut item = item.clone();
        if item["type"] == "function_call" {
            let call = calls.next().filter(|call| item["name"] == call.name.as_str())?;
            item["call_id"] = json!(call.id);
        }
        items.push(item);
    }
    calls.next().is_none().then_some(items)
}

/// An answer while it comes in.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Items that are complete, by their place.
    items: BTreeMap<u64, Value>,
    /// Blocks of text in the order in which they began.
    texts: Vec<((u64, u64), Joiner)>,
    /// The answer as a whole: the last thing that comes.
    response: Value,
    usage: Usage,
    begun: bool,
}

impl Fold for Answer {
    fn take(&mut self, data: &str, on_text: &mut dyn OnText) -> Result<(), Error> {
        if data.trim() == "[DONE]" {
            return Ok(());
        }
        let mut event = parse(data)?;
        let place = event["output_index"].as_u64().unwrap_or(0);
        match event["type"].as_str().unwrap_or_default() {
            "response.output_item.added" => {
                self.begun = true;
                if event["item"]["type"] == "reasoning" {
                    on_text.thinking();
                }
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                let key = (place, event["content_index"].as_u64().unwrap_or(0));
                let known = self.texts.iter().position(|(text, _)| *text == key);
                let index = known.unwrap_or(self.texts.len());
                if known.is_none() {
                    self.texts.push((key, Joiner::default()));
                }
                let piece = event["delta"].as_str().unwrap_or_default();
                tell(on_text, index, &self.texts[index].1.join(piece));
            }
            "response.output_item.done" => drop(self.items.insert(place, take(&mut event, "item"))),
            "response.completed" | "response.incomplete" => {
                self.count(&event["response"]["usage"]);
                self.response = take(&mut event, "response");
            }
            "response.failed" => {
                self.count(&event["response"]["usage"]);
                return Err(Error::in_stream(&event["response"]));
            }
            "error" => {
                // Its own type says nothing but `error`.
                return Err(Error::in_stream(&event));
            }
            _ => {}
        }
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.begun
    }

    fn is_done(&self) -> bool {
        self.response.is_object()
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn finish(&mut self) -> Result<Completion, Error> {
        let mut raw = self.response.take();
        if !raw.is_object() {
            return Err(cut());
        }
        if raw["output"].as_array().is_none_or(Vec::is_empty) {
            raw["output"] = std::mem::take(&mut self.items).into_values().collect();
        }
        let mut stop = match (raw["status"].as_str(), raw["incomplete_details"]["reason"].as_str())
        {
            (Some("incomplete"), Some("content_filter")) => Stop::Refusal,
            (Some("incomplete"), _) => Stop::MaxTokens,
            _ => Stop::EndTurn,
        };
        let (mut content, mut calls, mut thought) = (Vec::new(), Vec::new(), None);
        for item in raw["output"].as_array().into_iter().flatten() {
            match item["type"].as_str() {
                Some("reasoning") => {
                    think(&mut thought, "");
                    let said = [&item["summary"], &item["content"]].into_iter();
                    for part in said.flat_map(|it| it.as_array().into_iter().flatten()) {
                        think(&mut thought, part["text"].as_str().unwrap_or_default());
                    }
                }
                Some("message") => {
                    for part in item["content"].as_array().into_iter().flatten() {
                        let refusal = part["refusal"].as_str();
                        if refusal.is_some() {
                            stop = Stop::Refusal;
                        }
                        content.extend(text_block(
                            refusal.or(part["text"].as_str()).unwrap_or_default(),
                        ));
                    }
                }
                Some("function_call") if stop == Stop::EndTurn => {
                    let name = item["name"].as_str().unwrap_or_default();
                    let input = call_input(name, item["arguments"].as_str().unwrap_or_default())?;
                    calls.push((name.to_owned(), input));
                }
                _ => {}
            }
        }
        if stop != Stop::EndTurn {
            calls.clear();
        }
        if let Value::Object(raw) = &mut raw {
            raw.retain(|key, _| KEPT.contains(&key.as_str()));
        }
        Ok(Completion {
            content,
            stop: if calls.is_empty() { stop } else { Stop::ToolUse },
            calls,
            thought,
            spent: Spent::from(self.usage),
            raw: Some(raw),
        })
    }
}

impl Answer {
    fn count(&mut self, usage: &Value) {
        let get = |path| count(usage, path).unwrap_or(0);
        let read = get("/input_tokens_details/cached_tokens");
        let written = get("/input_tokens_details/cache_write_tokens");
        self.usage = Usage {
            input_tokens: (get("/input_tokens") - read - written).max(0),
            output_tokens: get("/output_tokens"),
            cache_creation_input_tokens: written,
            cache_read_input_tokens: read,
        };
    }
}

#[cfg(test)]
mod tests;

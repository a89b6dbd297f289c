//! Answers as the providers stream them.

use serde_json::{Value, json};

use super::{Answer, End, Format};

/// The bytes of each event.
pub fn events(format: Format, answer: &Answer) -> Vec<Vec<u8>> {
    match format {
        Format::Anthropic => named(anthropic(answer)),
        Format::Responses => named(responses(answer)),
        Format::Chat => {
            let mut events: Vec<Vec<u8>> = chat(answer)
                .into_iter()
                .map(|event| format!("data: {event}\n\n").into_bytes())
                .collect();
            if answer.error.is_none() {
                events.push(b"data: [DONE]\n\n".to_vec());
            }
            events
        }
    }
}

/// Both a name and a type inside, as these two have it.
fn named(events: Vec<Value>) -> Vec<Vec<u8>> {
    let line =
        |event: Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    events.into_iter().map(|event| line(event).into_bytes()).collect()
}

/// The first half and the second half of a text, somewhere between characters.
fn halves(text: &str) -> (&str, &str) {
    let middle = (text.len() / 2..text.len()).find(|at| text.is_char_boundary(*at));
    text.split_at(middle.unwrap_or(text.len()))
}

fn anthropic(answer: &Answer) -> Vec<Value> {
    let tokens = answer.tokens;
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "msg_scripted", "type": "message",
            "role": "assistant", "model": "claude-scripted", "content": [], "stop_reason": null,
            "stop_sequence": null, "usage": {"input_tokens": tokens.input,
            "cache_read_input_tokens": tokens.cached, "cache_creation_input_tokens": 0,
            "output_tokens": 1}}}),
        json!({"type": "ping"}),
    ];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>| {
        events.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        for delta in deltas {
            events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
        index += 1;
    };
    if answer.thinking {
        block(
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            vec![
                json!({"type": "thinking_delta", "thinking": "Let me see. "}),
                json!({"type": "signature_delta", "signature": "c2lnbmVk"}),
            ],
        );
    }
    if !answer.pieces.is_empty() {
        let piece = |text: &String| json!({"type": "text_delta", "text": text});
        block(json!({"type": "text", "text": ""}), answer.pieces.iter().map(piece).collect());
    }
    for (n, (name, input)) in answer.calls.iter().enumerate() {
        let input = input.to_string();
        let (first, second) = halves(&input);
        let piece = |text: &str| json!({"type": "input_json_delta", "partial_json": text});
        block(
            json!({"type": "tool_use", "id": format!("toolu_{n}"), "name": name, "input": {}}),
            vec![piece(first), piece(second)],
        );
    }
    if let Some(kind) = &answer.error {
        events.push(json!({"type": "error", "error": {"type": kind, "message": "in the middle"}}));
        return events;
    }
    let mut delta = json!({"stop_sequence": null, "stop_reason": match answer.end {
        End::Whole if answer.calls.is_empty() => "end_turn",
        End::Whole => "tool_use",
        End::Refused => "refusal",
        End::Cut => "max_tokens",
    }});
    if answer.end == End::Refused {
        delta["stop_details"] =
            json!({"type": "refusal", "category": "cyber", "explanation": "No."});
    }
    let usage = json!({"output_tokens": tokens.output});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
    events.push(json!({"type": "message_stop"}));
    events
}

fn chat(answer: &Answer) -> Vec<Value> {
    let event = |delta: Value, reason: Option<&str>| {
        json!({"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1,
            "model": "scripted", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    };
    let mut events = vec![event(json!({"role": "assistant", "content": ""}), None)];
    if answer.thinking {
        events.push(event(json!({"reasoning_content": "Let me see."}), None));
    }
    for piece in &answer.pieces {
        let key = if answer.end == End::Refused { "refusal" } else { "content" };
        events.push(event(json!({key: piece}), None));
    }
    for (n, (name, input)) in answer.calls.iter().enumerate() {
        let input = input.to_string();
        let (first, second) = halves(&input);
        let call = |call: Value| event(json!({"tool_calls": [call]}), None);
        events.push(call(json!({"index": n, "id": format!("call_{n}"), "type": "function",
            "function": {"name": name, "arguments": ""}})));
        for piece in [first, second] {
            events.push(call(json!({"index": n, "function": {"arguments": piece}})));
        }
    }
    if let Some(kind) = &answer.error {
        events.push(json!({"error": {"type": kind, "message": "in the middle"}}));
        return events;
    }
    let reason = match answer.end {
        End::Whole | End::Refused if answer.calls.is_empty() => "stop",
        End::Whole | End::Refused => "tool_calls",
        End::Cut => "length",
    };
    events.push(event(json!({}), Some(reason)));
    let tokens = answer.tokens;
    events.push(json!({"id": "chatcmpl-scripted", "choices": [], "usage": {
        "prompt_tokens": tokens.input + tokens.cached,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens": tokens.output}}));
    events
}

fn responses(answer: &Answer) -> Vec<Value> {
    let mut events = vec![
        json!({"type": "response.created", "response": {"id": "resp_scripted", "status": "in_progress"}}),
    ];
    let mut output = Vec::new();
    let mut item = |events: &mut Vec<Value>, item: Value, deltas: Vec<Value>| {
        let index = output.len();
        events.push(
            json!({"type": "response.output_item.added", "output_index": index, "item": item}),
        );
        for mut delta in deltas {
            delta["output_index"] = json!(index);
            delta["content_index"] = json!(0);
            events.push(delta);
        }
        events.push(
            json!({"type": "response.output_item.done", "output_index": index, "item": item}),
        );
        output.push(item);
    };
    if answer.thinking {
        let sealed = json!({"type": "reasoning", "id": "rs_1", "summary": [],
            "encrypted_content": "c2VhbGVk"});
        item(&mut events, sealed, Vec::new());
    }
    if !answer.pieces.is_empty() {
        let (kind, key) = if answer.end == End::Refused {
            ("refusal", "refusal")
        } else {
            ("output_text", "text")
        };
        let delta =
            |piece: &String| json!({"type": format!("response.{kind}.delta"), "delta": piece});
        let deltas = answer.pieces.iter().map(delta).collect();
        let part = json!({"type": kind, key: answer.pieces.concat()});
        let message = json!({"type": "message", "id": "msg_1", "role": "assistant",
            "status": "completed", "content": [part]});
        item(&mut events, message, deltas);
    }
    for (n, (name, input)) in answer.calls.iter().enumerate() {
        let call = json!({"type": "function_call", "id": format!("fc_{n}"), "status": "completed",
            "call_id": format!("call_{n}"), "name": name, "arguments": input.to_string()});
        item(&mut events, call, Vec::new());
    }
    if let Some(kind) = &answer.error {
        events.push(json!({"type": "response.failed", "response": {"status": "failed",
            "error": {"code": kind, "message": "in the middle"}}}));
        return events;
    }
    let tokens = answer.tokens;
    let mut response = json!({"id": "resp_scripted", "status": "completed", "output": output,
        "instructions": "as they were sent", "usage": {
        "input_tokens": tokens.input + tokens.cached,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output}});
    let mut kind = "response.completed";
    if answer.end == End::Cut {
        kind = "response.incomplete";
        response["status"] = json!("incomplete");
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    events.push(json!({"type": kind, "response": response}));
    events
}

use serde_json::json;

use super::*;
use crate::{
    domain::conversation::{Answer as Given, ToolSpec},
    id::EventId,
};

#[derive(Default)]
struct Pieces(Vec<(usize, String)>);

impl OnText for Pieces {
    fn text(&mut self, index: usize, piece: &str) {
        self.0.push((index, piece.to_owned()));
    }
}

fn id(n: usize) -> EventId {
    format!("sevt_{n}").parse().unwrap()
}

fn user(text: &str) -> Message {
    Message::User { parts: vec![UserPart::Content(Block::text(text))] }
}

fn call(n: usize) -> ToolUse {
    ToolUse { id: id(n), name: "look".to_owned(), input: json!({"at": n}) }
}

fn reasoning() -> Value {
    json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2VhbGVk"})
}

#[test]
fn a_request_keeps_nothing_on_their_side_and_gives_back_what_was_thought() {
    let raw = json!({"output": [
        reasoning(),
        {"type": "function_call", "id": "fc_1", "call_id": "call_theirs", "name": "look", "arguments": "{}"},
    ]});
    let answer = Some(Given { model: "m".to_owned(), raw });
    let result = UserPart::ToolResult {
        tool_use_id: id(1),
        content: vec![Block::text("seen")],
        is_error: true,
    };
    let request = Request {
        system: Some("Be kind.".to_owned()),
        messages: vec![
            user("before"),
            Message::Assistant {
                content: vec![Block::text("yes")],
                tool_uses: vec![],
                answer: answer.clone(),
            },
            user("hi"),
            Message::Assistant { content: vec![], tool_uses: vec![call(1)], answer },
            Message::User { parts: vec![result] },
        ],
        tools: vec![ToolSpec {
            name: "look".to_owned(),
            description: "Looks".to_owned(),
            input_schema: json!({"type": "object"}),
        }],
    };
    let config = ModelConfig { effort: Some(json!({"type": "low"})), ..ModelConfig::named("m") };
    assert_eq!(
        body("m", &config, &request, Some(9)),
        json!({
            "model": "m", "stream": true, "store": false,
            "include": ["reasoning.encrypted_content"],
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "before"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                reasoning(),
                {"type": "function_call", "id": "fc_1", "call_id": "sevt_1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "sevt_1", "output": "Error:\nseen"},
            ],
            "instructions": "Be kind.",
            "tools": [{"type": "function", "name": "look", "description": "Looks",
                "parameters": {"type": "object"}, "strict": false}],
            "max_output_tokens": 9,
            "reasoning": {"effort": "low"},
        })
    );
}

fn fold(events: &[Value]) -> (Result<Completion, Error>, Vec<(usize, String)>) {
    let (mut answer, mut pieces) = (Answer::default(), Pieces::default());
    for event in events {
        if let Err(error) = answer.take(&event.to_string(), &mut pieces) {
            return (Err(error), pieces.0);
        }
    }
    (answer.finish(), pieces.0)
}

fn message(parts: Value) -> Value {
    json!({"type": "message", "id": "msg_1", "role": "assistant", "content": parts})
}

fn completed(output: Value) -> Value {
    json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed",
        "instructions": "long", "tools": [], "output": output, "usage": {"input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 7}}})
}

#[test]
fn an_answer_is_what_its_last_event_says() {
    let function_call = json!({"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{\"a\":1}"});
    let text = message(json!([{"type": "output_text", "text": "Let me."}]));
    let output = json!([reasoning(), text, function_call]);
    let delta = |text: &str| json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": text});
    let events = [
        json!({"type": "response.created", "response": {"status": "in_progress"}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}}),
        delta("Let "),
        delta("me."),
        completed(output.clone()),
    ];
    let (result, pieces) = fold(&events);
    let completion = result.unwrap();
    assert_eq!(completion.content, [Block::text("Let me.")]);
    assert_eq!(completion.calls, [("look".to_owned(), json!({"a": 1}))]);
    assert!(completion.stop == Stop::ToolUse && completion.thought.is_some());
    let usage = completion.spent.usage;
    assert_eq!(
        (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens),
        (40, 60, 7)
    );
    let raw = completion.raw.unwrap();
    assert_eq!(raw["output"], output);
    assert!(raw.get("instructions").is_none(), "what repeats the request is not kept");
    assert_eq!(pieces, [(0, "Let ".to_owned()), (0, "me.".to_owned())]);

    // A server that leaves the items out of the end has sent them before.
    let done = json!({"type": "response.output_item.done", "output_index": 0, "item": text});
    let (result, _) = fold(&[done, completed(json!([]))]);
    assert_eq!(result.unwrap().content, [Block::text("Let me.")]);
}

#[test]
fn reasons_to_stop() {
    let stop = |event: Value| fold(&[event]).0.map(|it| (it.stop, it.calls.len()));
    assert_eq!(stop(completed(json!([]))), Ok((Stop::EndTurn, 0)));
    let refusal = message(json!([{"type": "refusal", "refusal": "No."}]));
    assert_eq!(stop(completed(json!([refusal]))), Ok((Stop::Refusal, 0)));
    let incomplete = |reason: &str| {
        let half = json!({"type": "function_call", "name": "look", "arguments": "{\"a"});
        json!({"type": "response.incomplete", "response": {"status": "incomplete",
            "incomplete_details": {"reason": reason}, "output": [half]}})
    };
    assert_eq!(stop(incomplete("max_output_tokens")), Ok((Stop::MaxTokens, 0)));
    assert_eq!(stop(incomplete("content_filter")), Ok((Stop::Refusal, 0)));
}

#[test]
fn what_is_no_answer() {
    let error = |events: &[Value]| {
        let error = fold(events).0.unwrap_err();
        (error.kind.as_str(), error.message)
    };
    let created = json!({"type": "response.created", "response": {}});
    let (_, message) = error(&[created]);
    assert_eq!(message, "the model server ended its answer in the middle");
    let failed = json!({"type": "response.failed", "response": {"error":
        {"code": "rate_limit_exceeded", "message": "Slow down"}}});
    let (kind, message) = error(&[failed]);
    assert_eq!(kind, "model_rate_limited_error");
    assert!(message.ends_with("(rate_limit_exceeded): Slow down"), "{message}");
    let broken = json!({"type": "error", "code": "insufficient_quota", "message": "No money"});
    assert_eq!(error(&[broken]).0, "billing_error");
}

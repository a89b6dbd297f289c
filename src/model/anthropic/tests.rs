use expect_test::{Expect, expect};

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

fn result(n: usize) -> UserPart {
    let content = vec![Block::text("seen")];
    UserPart::ToolResult { tool_use_id: id(n), content, is_error: false }
}

fn messages_of(list: &[Message]) -> String {
    let config = ModelConfig::named("m");
    let request = Request { system: None, messages: list.to_vec(), tools: Vec::new() };
    serde_json::to_string_pretty(&body("m", &config, &request, None)["messages"]).unwrap()
}

#[test]
fn a_request_has_system_tools_and_marks_for_the_cache() {
    let tool = ToolSpec {
        name: "look".to_owned(),
        description: "Looks".to_owned(),
        input_schema: json!({"type": "object"}),
    };
    let request = Request {
        system: Some("Be kind.".to_owned()),
        messages: vec![user("hi")],
        tools: vec![tool],
    };
    let config = ModelConfig {
        effort: Some(json!({"type": "low"})),
        speed: "fast".to_owned(),
        ..ModelConfig::named("anthropic/claude-x")
    };
    expect![[r#"
        {
          "model": "claude-x",
          "max_tokens": 32000,
          "stream": true,
          "system": [
            {
              "type": "text",
              "text": "Be kind.",
              "cache_control": {
                "type": "ephemeral"
              }
            }
          ],
          "tools": [
            {
              "name": "look",
              "description": "Looks",
              "input_schema": {
                "type": "object"
              }
            }
          ],
          "messages": [
            {
              "role": "user",
              "content": [
                {
                  "type": "text",
                  "text": "hi",
                  "cache_control": {
                    "type": "ephemeral"
                  }
                }
              ]
            }
          ],
          "output_config": {
            "effort": "low"
          },
          "speed": "fast"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&body("claude-x", &config, &request, None)).unwrap());
    let max = |id: &str, given| body(id, &config, &request, given)["max_tokens"].clone();
    assert_eq!(max("claude-3-5-haiku-latest", None), 8192);
    assert_eq!(max("claude-3-5-haiku-latest", Some(100)), 100);
}

#[test]
fn results_come_first_empty_text_not_at_all_and_roles_alternate() {
    let picture = json!({"type": "base64", "media_type": "image/png", "data": "AA=="});
    let list = [
        user("look at this"),
        Message::Assistant { content: vec![Block::text(" \n")], tool_uses: vec![], answer: None },
        Message::User { parts: vec![UserPart::Content(Block::Image { source: picture })] },
        Message::Assistant { content: vec![], tool_uses: vec![call(1)], answer: None },
        Message::User { parts: vec![UserPart::Content(Block::text("well?")), result(1)] },
    ];
    expect![[r#"
        [
          {
            "role": "user",
            "content": [
              {
                "type": "text",
                "text": "look at this"
              },
              {
                "type": "image",
                "source": {
                  "type": "base64",
                  "media_type": "image/png",
                  "data": "AA=="
                }
              }
            ]
          },
          {
            "role": "assistant",
            "content": [
              {
                "type": "tool_use",
                "id": "sevt_1",
                "name": "look",
                "input": {
                  "at": 1
                }
              }
            ]
          },
          {
            "role": "user",
            "content": [
              {
                "type": "tool_result",
                "tool_use_id": "sevt_1",
                "content": [
                  {
                    "type": "text",
                    "text": "seen"
                  }
                ],
                "is_error": false
              },
              {
                "type": "text",
                "text": "well?"
              }
            ]
          }
        ]"#]]
    .assert_eq(&messages_of(&list));
}

#[test]
fn what_the_model_thought_goes_back_as_it_came_to_the_same_model_only() {
    let raw = json!({"content": [
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_theirs", "name": "look", "input": {}, "caller": {"type": "direct"}},
    ]});
    let list = |model: &str, calls: Vec<ToolUse>| {
        let answer = Some(Given { model: model.to_owned(), raw: raw.clone() });
        let content = vec![Block::text("Let me look.")];
        let text =
            messages_of(&[user("hi"), Message::Assistant { content, tool_uses: calls, answer }]);
        let value: Value = serde_json::from_str(&text).unwrap();
        value[1]["content"].clone()
    };
    assert_eq!(
        list("m", vec![call(1)]),
        json!([
            {"type": "thinking", "thinking": "", "signature": "c2ln"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "sevt_1", "name": "look", "input": {"at": 1}, "caller": {"type": "direct"}},
        ])
    );
    let plain = json!([
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "sevt_1", "name": "look", "input": {"at": 1}},
    ]);
    assert_eq!(list("another", vec![call(1)]), plain);
    assert_eq!(list("m", vec![call(1), call(2)])[1], plain[1], "calls that do not fit: plainly");
    assert_eq!(list("m", vec![]), json!([plain[0]]), "a call that was not made leaves no trace");
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

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
        "model": "claude-x", "content": [], "stop_reason": null,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}}})
}

fn block(index: usize, block: Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn delta(index: usize, delta: Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn end(reason: &str) -> Value {
    json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
        "usage": {"output_tokens": 20}})
}

fn check(events: &[Value], expected: Expect) {
    let (result, pieces) = fold(events);
    let text = match result {
        Ok(Completion { content, calls, stop, thought, spent, raw }) => format!(
            "{content:?}\n{calls:?}\n{stop:?} {thought:?} {:?}\n{}\n{pieces:?}",
            spent.usage,
            raw.unwrap()
        ),
        Err(error) => format!("{:?} {error}", error.retry),
    };
    expected.assert_eq(&text);
}

#[test]
fn an_answer_is_folded_out_of_its_pieces() {
    check(
        &[
            start(),
            json!({"type": "ping"}),
            block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(0, json!({"type": "signature_delta", "signature": "c2"})),
            delta(0, json!({"type": "signature_delta", "signature": "ln"})),
            block(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": "Let "})),
            delta(1, json!({"type": "text_delta", "text": "me.\u{0}"})),
            block(2, json!({"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": ""})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"a\":"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "1}"})),
            block(3, json!({"type": "tool_use", "id": "toolu_2", "name": "rest", "input": {}})),
            json!({"type": "content_block_stop", "index": 3}),
            end("tool_use"),
            json!({"type": "message_stop"}),
        ],
        expect![[r#"
            [Text { text: "Let me." }]
            [("look", Object {"a": Number(1)}), ("rest", Object {})]
            ToolUse Some("hm") Usage { input_tokens: 10, output_tokens: 20, cache_creation_input_tokens: 0, cache_read_input_tokens: 5 }
            {"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"thinking","thinking":"hm","signature":"c2ln"},{"type":"text","text":"Let me.\u0000"},{"type":"tool_use","id":"toolu_1","name":"look","input":{"a":1}},{"type":"tool_use","id":"toolu_2","name":"rest","input":{}}],"stop_reason":"tool_use","usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":20},"stop_sequence":null}
            [(0, "Let "), (0, "me.")]"#]],
    );
}

#[test]
fn previews_have_the_places_of_the_final_blocks() {
    let (result, pieces) = fold(&[
        start(),
        block(0, json!({"type": "text", "text": ""})),
        block(1, json!({"type": "text", "text": "one"})),
        block(2, json!({"type": "redacted_thinking", "data": "x"})),
        block(3, json!({"type": "text", "text": ""})),
        delta(3, json!({"type": "text_delta", "text": "two"})),
        end("end_turn"),
    ]);
    let content = result.unwrap().content;
    assert_eq!(content, [Block::text("one"), Block::text("two")]);
    assert_eq!(pieces, [(0, "one".to_owned()), (1, "two".to_owned())]);
}

#[test]
fn reasons_to_stop() {
    let tool = || block(0, json!({"type": "tool_use", "id": "t", "name": "look", "input": {}}));
    let half = || delta(0, json!({"type": "input_json_delta", "partial_json": "{\"a"}));
    let stop = |events: &[Value]| fold(events).0.map(|it| (it.stop, it.calls.len()));
    assert_eq!(stop(&[start(), end("end_turn")]), Ok((Stop::EndTurn, 0)));
    assert_eq!(stop(&[start(), end("refusal")]), Ok((Stop::Refusal, 0)));
    assert_eq!(stop(&[start(), end("pause_turn")]), Ok((Stop::EndTurn, 0)));
    assert_eq!(stop(&[start(), tool(), end("tool_use")]), Ok((Stop::ToolUse, 1)));
    assert_eq!(stop(&[start(), tool(), half(), end("max_tokens")]), Ok((Stop::MaxTokens, 0)));
    let error = stop(&[start(), tool(), half(), end("tool_use")]).unwrap_err();
    assert_eq!(error.message, "the model called `look` with arguments that are no JSON object");
}

#[test]
fn what_is_no_answer() {
    check(&[start()], expect!["Later(None) the model server ended its answer in the middle"]);
    check(
        &[delta(7, json!({"type": "text_delta", "text": "x"}))],
        expect!["Later(None) the model server went on with a block it never began"],
    );
    check(
        &[
            start(),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        ],
        expect!["Later(None) the model server broke off its answer (overloaded_error): Overloaded"],
    );
    let mut answer = Answer::default();
    let error = answer.take("data?", &mut Pieces::default()).unwrap_err();
    assert_eq!(error.message, "the model server sent an event that is no JSON");
}

#[test]
fn a_character_that_was_cut_in_half_is_whole_again() {
    let (mut answer, mut pieces) = (Answer::default(), Pieces::default());
    let events = [
        start().to_string(),
        block(0, json!({"type": "text", "text": ""})).to_string(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\ud83e"}}"#
            .to_owned(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\udd80"}}"#
            .to_owned(),
        end("end_turn").to_string(),
    ];
    for event in events {
        answer.take(&event, &mut pieces).unwrap();
    }
    assert_eq!(answer.finish().unwrap().content, [Block::text("🦀")]);
    assert_eq!(pieces.0, [(0, "🦀".to_owned())]);
}

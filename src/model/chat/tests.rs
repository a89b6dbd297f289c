use expect_test::{Expect, expect};

use super::*;
use crate::{domain::conversation::ToolSpec, id::EventId};

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

#[test]
fn a_request_has_system_tools_and_asks_for_usage() {
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
    let config = ModelConfig { effort: Some(json!({"type": "low"})), ..ModelConfig::named("m") };
    let limit = Some((MaxTokensKey::Common, 9));
    expect![[r#"
        {
          "model": "m",
          "stream": true,
          "stream_options": {
            "include_usage": true
          },
          "messages": [
            {
              "role": "system",
              "content": "Be kind."
            },
            {
              "role": "user",
              "content": "hi"
            }
          ],
          "tools": [
            {
              "type": "function",
              "function": {
                "name": "look",
                "description": "Looks",
                "parameters": {
                  "type": "object"
                }
              }
            }
          ],
          "max_tokens": 9,
          "reasoning_effort": "low"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&body("m", &config, &request, limit)).unwrap());
    let limit = Some((MaxTokensKey::OpenAi, 9));
    assert_eq!(body("m", &config, &request, limit)["max_completion_tokens"], 9);
}

fn messages_of(list: &[Message]) -> Value {
    let request = Request { system: None, messages: list.to_vec(), tools: Vec::new() };
    body("m", &ModelConfig::named("m"), &request, None)["messages"].clone()
}

#[test]
fn results_are_messages_of_their_own_and_pictures_follow() {
    let picture = json!({"type": "base64", "media_type": "image/png", "data": "AA=="});
    let document = Block::Document {
        source: json!({"type": "url", "url": "https://example.com/a.pdf"}),
        context: None,
        title: Some("A".to_owned()),
    };
    let result = UserPart::ToolResult {
        tool_use_id: id(1),
        content: vec![Block::text("seen"), Block::Image { source: picture }],
        is_error: true,
    };
    let list = [
        user("hi"),
        Message::Assistant { content: vec![], tool_uses: vec![call(1)], answer: None },
        Message::User { parts: vec![UserPart::Content(document), result] },
    ];
    assert_eq!(
        messages_of(&list),
        json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [{"type": "function",
                "id": "sevt_1", "function": {"name": "look", "arguments": "{\"at\":1}"}}]},
            {"role": "tool", "tool_call_id": "sevt_1", "content": "Error:\nseen"},
            {"role": "user", "content": [
                {"type": "text", "text": "Document \"A\": https://example.com/a.pdf"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ]},
        ])
    );
}

#[test]
fn what_a_provider_adds_goes_back_within_the_turn() {
    let raw = json!({"choices": [{"message": {
        "role": "assistant", "content": "theirs", "refusal": null, "reasoning_content": "hm",
        "tool_calls": [{"id": "call_1", "type": "function", "extra_content": {"signature": "s"},
            "function": {"name": "look", "arguments": "{}"}}],
    }}]});
    let said = Message::Assistant {
        content: vec![Block::text("ours")],
        tool_uses: vec![call(1)],
        answer: Some(Given { model: "m".to_owned(), raw }),
    };
    let result = Message::User {
        parts: vec![UserPart::ToolResult { tool_use_id: id(1), content: vec![], is_error: false }],
    };
    let mut list = vec![user("hi"), said, result];
    assert_eq!(
        messages_of(&list)[1],
        json!({"role": "assistant", "content": "ours", "tool_calls": [{"id": "sevt_1",
            "type": "function", "extra_content": {"signature": "s"},
            "function": {"name": "look", "arguments": "{\"at\":1}"}}], "reasoning_content": "hm"})
    );
    list.push(user("another turn"));
    let sent = messages_of(&list);
    assert!(sent[1].get("reasoning_content").is_none(), "{sent}");
}

fn fold(events: &[&str]) -> (Result<Completion, Error>, Vec<(usize, String)>) {
    let (mut answer, mut pieces) = (Answer::default(), Pieces::default());
    for event in events {
        if let Err(error) = answer.take(event, &mut pieces) {
            return (Err(error), pieces.0);
        }
    }
    (answer.finish(), pieces.0)
}

fn check(events: &[&str], expected: Expect) {
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
            r#"{"id":"c1","object":"chat.completion.chunk","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{"reasoning_content":"h"}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{"reasoning_content":"m","content":null}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{"content":"Let "}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{"content":"me."}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"look","arguments":""}}]}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_2","type":"function","function":{"name":"rest","arguments":""}},{"index":0,"function":{"arguments":":1}"}}]}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
            r#"{"id":"c1","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":60}}}"#,
            "[DONE]",
        ],
        expect![[r#"
            [Text { text: "Let me." }]
            [("look", Object {"a": Number(1)}), ("rest", Object {})]
            ToolUse Some("hm") Usage { input_tokens: 40, output_tokens: 7, cache_creation_input_tokens: 0, cache_read_input_tokens: 60 }
            {"id":"c1","model":"m-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","reasoning_content":"hm","content":"Let me.","tool_calls":[{"id":"call_1","type":"function","function":{"name":"look","arguments":"{\"a\":1}"}},{"id":"call_2","type":"function","function":{"name":"rest","arguments":""}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":100,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":60}}}
            [(0, "Let "), (0, "me.")]"#]],
    );
}

#[test]
fn calls_are_told_apart_however_a_server_counts_them() {
    let calls = |pieces: &str| {
        let event = format!(
            r#"{{"choices":[{{"delta":{{"tool_calls":[{pieces}]}},"finish_reason":"stop"}}]}}"#
        );
        let (result, _) = fold(&[&event]);
        let calls = result.unwrap().calls;
        calls.into_iter().map(|(name, input)| format!("{name}{input}")).collect::<Vec<_>>()
    };
    let expected = ["a{\"x\":1}", "b{}"];
    // All with the same index, told apart by their ids.
    assert_eq!(
        calls(
            r#"{"index":0,"id":"1","function":{"name":"a","arguments":"{\"x\":1}"}},
               {"index":0,"id":"2","function":{"name":"b","arguments":"{}"}}"#
        ),
        expected
    );
    // No index at all.
    assert_eq!(
        calls(
            r#"{"id":"1","function":{"name":"a","arguments":"{\"x\""}},
               {"function":{"arguments":":1}"}},
               {"id":"2","function":{"name":"b","arguments":{}}}"#
        ),
        expected
    );
    // The id and the name again with each piece.
    assert_eq!(
        calls(
            r#"{"index":0,"id":"1","function":{"name":"a","arguments":"{\"x\""}},
               {"index":0,"id":"1","function":{"name":"a","arguments":":1}"}},
               {"index":1,"id":"2","function":{"name":"b"}}"#
        ),
        expected
    );
    // An index beyond all reason takes no more room than any other.
    assert_eq!(calls(r#"{"index":4000000000,"id":"1","function":{"name":"b"}}"#), ["b{}"]);
}

#[test]
fn reasons_to_stop() {
    let stop = |delta: &str, reason: &str| {
        let event = format!(r#"{{"choices":[{{"delta":{delta},"finish_reason":"{reason}"}}]}}"#);
        fold(&[&event]).0.map(|it| (it.stop, it.calls.len()))
    };
    let half =
        r#"{"tool_calls":[{"index":0,"id":"1","function":{"name":"a","arguments":"{\"x"}}]}"#;
    assert_eq!(stop(r#"{"content":"x"}"#, "stop"), Ok((Stop::EndTurn, 0)));
    assert_eq!(stop(r#"{"content":"x"}"#, "length"), Ok((Stop::MaxTokens, 0)));
    assert_eq!(stop("{}", "content_filter"), Ok((Stop::Refusal, 0)));
    assert_eq!(stop(r#"{"refusal":"No."}"#, "stop"), Ok((Stop::Refusal, 0)));
    assert_eq!(stop(half, "length"), Ok((Stop::MaxTokens, 0)));
    assert!(stop(half, "tool_calls").is_err());
    let refused =
        r#"{"choices":[{"delta":{"content":"Hm. ","refusal":"No."},"finish_reason":"stop"}]}"#;
    let (result, pieces) = fold(&[refused]);
    assert_eq!(result.unwrap().content, [Block::text("Hm. "), Block::text("No.")]);
    assert_eq!(pieces, [(0, "Hm. ".to_owned()), (1, "No.".to_owned())]);
}

#[test]
fn what_is_no_answer() {
    check(
        &[r#"{"choices":[{"delta":{"content":"x"}}]}"#],
        expect!["Later(None) the model server ended its answer in the middle"],
    );
    check(
        &[r#"{"error":{"message":"busy","type":"server_error","code":503}}"#],
        expect!["Later(None) the model server broke off its answer (server_error): busy"],
    );
    check(&["[]"], expect!["Later(None) the model server sent an event that is no object"]);
    check(&["<html>"], expect!["Later(None) the model server sent an event that is no JSON"]);
    let many: Vec<String> = (0..=CALLS_MAX)
        .map(|n| {
            format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":{n},"id":"{n}"}}]}}}}]}}"#)
        })
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(fold(&many).0.unwrap_err().message, "the model made more than 256 calls");
}

#[test]
fn an_answer_begins_with_more_than_a_role() {
    let mut answer = Answer::default();
    let role = r#"{"choices":[{"delta":{"role":"assistant"}}]}"#;
    answer.take(role, &mut Pieces::default()).unwrap();
    assert!(!answer.has_begun());
    let text = r#"{"choices":[{"delta":{"content":"x"}}]}"#;
    answer.take(text, &mut Pieces::default()).unwrap();
    assert!(answer.has_begun());
}

#[test]
fn a_character_that_was_cut_in_half_is_whole_again() {
    let (result, pieces) = fold(&[
        r#"{"choices":[{"delta":{"content":"crab \ud83e"}}]}"#,
        r#"{"choices":[{"delta":{"content":"\udd80"}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"1","function":{"name":"a","arguments":"{\"x\":\"\ud83e"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\udd80\"}"}}]},"finish_reason":"stop"}]}"#,
    ]);
    let completion = result.unwrap();
    assert_eq!(completion.content, [Block::text("crab 🦀")]);
    assert_eq!(completion.calls, [("a".to_owned(), json!({"x": "🦀"}))]);
    assert_eq!(pieces, [(0, "crab ".to_owned()), (0, "🦀".to_owned())]);
}

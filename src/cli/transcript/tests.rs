use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

/// A transcript that is written into a text.
struct Page {
    transcript: Transcript,
    out: Vec<u8>,
}

impl Page {
    fn new(full: bool) -> Page {
        let transcript = Transcript::new(Style { color: false }, None, full);
        Page { transcript, out: Vec::new() }
    }

    fn events(mut self, events: &[Value]) -> Page {
        for (at, event) in events.iter().enumerate() {
            let mut event = event.clone();
            if event.get("processed_at").is_none() {
                event["processed_at"] = json!(format!("2026-11-21T20:12:{at:02}.123Z"));
            }
            self.transcript.event(&mut self.out, &event).unwrap();
        }
        self
    }

    fn start(mut self, id: &str) -> Page {
        self.transcript.start(&mut self.out, id, Timestamp(1_795_292_000_123)).unwrap();
        self
    }

    fn deltas(mut self, id: &str, index: i64, texts: &[&str]) -> Page {
        for text in texts {
            self.transcript.delta(&mut self.out, id, index, text).unwrap();
        }
        self
    }

    #[track_caller]
    fn check(mut self, expected: &Expect) {
        self.transcript.close(&mut self.out).unwrap();
        expected.assert_eq(&String::from_utf8(self.out).unwrap());
    }
}

fn text(text: &str) -> Value {
    json!([{"type": "text", "text": text}])
}

fn message(id: &str, content: &str) -> Value {
    json!({"type": "agent.message", "id": id, "content": text(content)})
}

fn call(id: &str, name: &str, input: &Value) -> Value {
    json!({"type": "agent.tool_use", "id": id, "name": name, "input": input,
        "evaluated_permission": "allow"})
}

fn result(id: &str, content: &str, is_error: bool) -> Value {
    json!({"type": "agent.tool_result", "id": "r", "tool_use_id": id, "content": text(content),
        "is_error": is_error})
}

fn idle(reason: &Value) -> Value {
    json!({"type": "session.status_idle", "stop_reason": reason, "stop_details": null})
}

#[test]
fn a_turn_reads_from_message_to_idle() {
    let origin = json!({"source": "stripe", "event_type": "invoice.paid", "delivery_id": "dlv_1"});
    Page::new(false)
        .events(&[
            json!({"type": "user.message", "id": "m", "origin": origin,
                "content": text("Webhook from stripe:\n{\"id\":\"evt_1\"}")}),
            json!({"type": "session.status_running"}),
            json!({"type": "span.model_request_start"}),
            json!({"type": "agent.thinking"}),
            message("a", "I look.\r\n\r\nThen I answer."),
            call("t", "bash", &json!({"command": "ls -la\ncat x"})),
            result("t", &"x".repeat(1_290), false),
            json!({"type": "span.model_request_end", "model_usage":
                {"input_tokens": 1_000, "cache_read_input_tokens": 234, "output_tokens": 56}}),
            message("b", "Done."),
            idle(&json!({"type": "end_turn"})),
        ])
        .check(&expect![[r#"
            2026-11-21 UTC
            20:12:00 user     from stripe, invoice.paid, dlv_1
              Webhook from stripe:
              {"id":"evt_1"}
            20:12:01 running
            20:12:03 thinking
            20:12:04 agent
              I look.

              Then I answer.
            20:12:05 tool     bash ls -la cat x → 1.2 kB
            20:12:08 agent
              Done.
            20:12:09 idle     end of turn, 1,234 tokens in, 56 out
        "#]]);
}

#[test]
fn calls_that_overlap_are_told_apart() {
    Page::new(false)
        .events(&[
            call("1", "read", &json!({"path": "a", "lines": 3})),
            call("2", "grep", &json!({})),
            result("1", "abc", false),
            result("2", "\n  no such file\nat line 3", true),
            result("3", "", false),
            json!({"type": "agent.mcp_tool_use", "id": "4", "mcp_server_name": "jira",
                "name": "close", "input": {"key": "A-1"}, "evaluated_permission": "ask"}),
            idle(&json!({"type": "requires_action", "event_ids": ["4"]})),
            json!({"type": "user.tool_confirmation", "tool_use_id": "4", "result": "deny"}),
            json!({"type": "agent.mcp_tool_result", "mcp_tool_use_id": "4", "is_error": true}),
        ])
        .check(&expect![[r#"
            2026-11-21 UTC
            20:12:00 tool     read {"path":"a","lines":3}
            20:12:01 tool     grep
            20:12:02          read → 3 B
            20:12:03          grep → error: no such file
            20:12:04          tool → 0 B
            20:12:05 tool     jira/close A-1 asks for permission
            20:12:06 idle     waits for an answer to one call
            20:12:07 user     denies jira/close
            20:12:08          jira/close → error: no message
        "#]]);
}

#[test]
fn a_message_grows_until_it_is_whole() {
    Page::new(false)
        .start("a")
        .deltas("a", 0, &["Hel", "lo\r", "\n\r\nwor", "ld \u{1b}", "[31m"])
        .deltas("a", 1, &["second"])
        .events(&[json!({"type": "agent.message", "id": "a", "content": [
            {"type": "text", "text": "Hello\r\n\r\nworld \u{1b}[31m!"},
            {"type": "text", "text": "second block"}]})])
        .check(&expect![[r#"
            2026-11-21 UTC
            20:13:20 agent
              Hello

              world \u{1b}[31m
              second
            20:12:00 agent
              Hello

              world \u{1b}[31m!
              second block
        "#]]);
    Page::new(false)
        .start("a")
        .deltas("a", 0, &["Hel", "lo\r"])
        .deltas("a", 1, &["sec"])
        .events(&[json!({"type": "agent.message", "id": "a", "content": [
            {"type": "text", "text": "Hello\r"}, {"type": "text", "text": "second\nline"}]})])
        .check(&expect![[r#"
            2026-11-21 UTC
            20:13:20 agent
              Hello
              second
              line
        "#]]);
}

#[test]
fn a_message_that_is_interrupted_is_told_as_a_whole_later() {
    Page::new(false)
        .start("a")
        .deltas("a", 0, &["Let me "])
        .events(&[json!({"type": "user.message", "id": "u", "processed_at": null,
            "content": text("wait!\nstop")})])
        .deltas("a", 0, &["think"])
        .deltas("unknown", 0, &["lost"])
        .events(&[message("a", "Let me think.")])
        .check(&expect![[r#"
            2026-11-21 UTC
            20:13:20 agent
              Let me 
            --:--:-- waiting  a message: wait! stop
            20:12:00 agent
              Let me think.
        "#]]);
}

#[test]
fn long_messages_are_cut_unless_all_is_wanted() {
    let long = "line\n".repeat(50) + &"x".repeat(5_000);
    let event = json!({"type": "user.message", "id": "m", "content": text(&long)});
    let cut = Page::new(false).events(std::slice::from_ref(&event));
    let cut = String::from_utf8(cut.out).unwrap();
    assert_eq!(cut.lines().count(), 2 + MESSAGE_LINES_MAX + 1);
    assert!(cut.ends_with("  [5,051 characters more; --full shows them]\n"), "{cut}");
    let whole = String::from_utf8(Page::new(true).events(&[event]).out).unwrap();
    assert_eq!(whole.lines().count(), 2 + 51);
    let agents = Page::new(false).events(&[message("a", &long)]);
    assert_eq!(String::from_utf8(agents.out).unwrap().lines().count(), 2 + 51);
}

#[test]
fn what_went_wrong_shows() {
    Page::new(false)
        .events(&[
            json!({"type": "session.error", "error": {"type": "model_overloaded_error",
                "message": "try\u{1b}[2J later", "retry_status": {"type": "retrying"}}}),
            json!({"type": "session.status_rescheduled"}),
            json!({"type": "session.error", "error": {"type": "billing_error", "message": "no money",
                "retry_status": {"type": "exhausted"}}}),
            idle(&json!({"type": "retries_exhausted"})),
            json!({"type": "session.status_idle", "stop_reason": {"type": "refusal"},
                "stop_details": {"type": "refusal", "explanation": "too dangerous"}}),
            json!({"type": "user.interrupt"}),
            json!({"type": "session.updated"}),
            json!({"type": "session.status_terminated"}),
            json!({"type": "agent.message", "id": "x", "content": [{"type": "redacted"}],
                "processed_at": "2026-11-22T00:00:01Z"}),
        ])
        .check(&expect![[r#"
            2026-11-21 UTC
            20:12:00 error    model_overloaded_error: try\u{1b}[2J later (will be tried again)
            20:12:01 retrying later
            20:12:02 error    billing_error: no money
            20:12:03 idle     failed, gave up
            20:12:04 idle     refused: too dangerous
            20:12:05 user     interrupts the turn
            20:12:06 event    session.updated
            20:12:07 ended    terminated
            2026-11-22 UTC
            00:00:01 agent
              [redacted]
        "#]]);
}

#[test]
fn hosts_that_were_refused_are_counted() {
    let mut went = result("a", "no", false);
    let host =
        |host: &str, decision: &str| json!({"host": host, "port": 443, "decision": decision});
    went["egress"] = json!([host("a.example", "refused"), host("b.example", "allowed")]);
    let events = [call("a", "bash", &json!({"command": "curl"})), went];
    Page::new(false).events(&events).check(&expect![[r#"
            2026-11-21 UTC
            20:12:00 tool     bash curl → 2 B, one host refused
        "#]]);
}

#[test]
fn an_outcome_and_what_graders_make_of_it_are_lines() {
    let end = |result: &str, explanation: &str| {
        json!({"type": "span.outcome_evaluation_end", "result": result, "iteration": 0,
            "explanation": explanation})
    };
    let events = [
        json!({"type": "user.define_outcome", "description": "Write\na poem.",
            "rubric": {"type": "text", "content": "it rhymes"}}),
        json!({"type": "span.outcome_evaluation_start", "iteration": 0}),
        json!({"type": "span.outcome_evaluation_ongoing", "iteration": 0}),
        end("needs_revision", "no\nrhyme\u{1b}[2J"),
        end("satisfied", "it rhymes"),
    ];
    Page::new(false).events(&events).check(&expect![[r#"
        2026-11-21 UTC
        20:12:00 user     defines an outcome
          Write
          a poem.
        20:12:01 grading  iteration 0
        20:12:03 graded   needs revision no rhyme\u{1b}[2J
        20:12:04 graded   satisfied it rhymes
    "#]]);
}

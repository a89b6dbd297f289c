//! Following a session, and knowing when it is idle.

use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::expect;
use serde_json::json;

use super::{
    check, ran,
    server::{Answer, Server},
};
use crate::{
    cli::Exit,
    clock::{Clock, Timestamp},
};

/// A session that has the given history at each reading, a stream, and a state at each look.
fn session_server(histories: [&[&str]; 2], stream: String, states: &'static [&str]) -> Server {
    let n_histories = AtomicUsize::new(0);
    let n_looks = AtomicUsize::new(0);
    let histories = histories.map(|history| {
        let events: Vec<serde_json::Value> =
            history.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        json!({"data": events, "next_page": null})
    });
    let count = |counter: &AtomicUsize, max: usize| counter.fetch_add(1, Ordering::SeqCst).min(max);
    Server::start(move |request| match request.path() {
        "/v1/sessions/sesn_1/events/stream" => Answer::open_stream(&stream),
        "/v1/sessions/sesn_1/events" => Answer::json(&histories[count(&n_histories, 1)]),
        _ => {
            let state = states[count(&n_looks, states.len() - 1)];
            let (status, waiting) = state.split_once(' ').unwrap();
            Answer::json(&json!({"id": "sesn_1", "status": status, "agent":
                {"name": "lucy", "version": 1}, "messages_waiting": waiting.parse::<u32>().unwrap()}))
        }
    })
}

const OLD_IDLE: &str = r#"{"id":"sevt_1","type":"session.status_idle",
    "stop_reason":{"type":"end_turn"},"processed_at":"2026-11-21T20:00:00Z"}"#;
const ANSWER: &str = r#"{"id":"sevt_2","type":"agent.message",
    "content":[{"type":"text","text":"The answer."}],"processed_at":"2026-11-21T20:12:01Z"}"#;
const NEW_IDLE: &str = r#"{"id":"sevt_3","type":"session.status_idle",
    "stop_reason":{"type":"end_turn"},"processed_at":"2026-11-21T20:12:02Z"}"#;
const FAILED_IDLE: &str = r#"{"id":"sevt_4","type":"session.status_idle",
    "stop_reason":{"type":"retries_exhausted"},"processed_at":"2026-11-21T20:12:03Z"}"#;

fn frame(event: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(event).unwrap();
    format!("event: x\ndata: {value}\n\n")
}

const UNTIL_IDLE: [&str; 3] = ["tail", "sesn_1", "--until-idle"];

#[tokio::test]
async fn an_old_idle_event_does_not_end_the_following_of_a_message_that_waits() {
    let stream = frame(ANSWER) + &frame(NEW_IDLE);
    let all: &[&str] = &[OLD_IDLE, ANSWER, NEW_IDLE];
    let states = &["idle 1", "idle 1", "running 0", "idle 0"];
    let server = session_server([&[OLD_IDLE], all], stream, states);
    check(
        &server,
        &UNTIL_IDLE,
        &expect![[r#"
        sesn_1  idle  agent lucy v1, 1 message waits
        2026-11-21 UTC
        20:00:00 idle     end of turn
        20:12:01 agent
          The answer.
        20:12:02 idle     end of turn
        --- Fine
    "#]],
    )
    .await;
}

#[tokio::test]
async fn what_the_stream_has_not_shown_yet_is_read_before_the_end() {
    let states = &["running 0", "idle 0"];
    let server = session_server([&[OLD_IDLE], &[ANSWER, FAILED_IDLE]], String::new(), states);
    check(
        &server,
        &UNTIL_IDLE,
        &expect![[r#"
        sesn_1  running  agent lucy v1
        2026-11-21 UTC
        20:00:00 idle     end of turn
        20:12:01 agent
          The answer.
        20:12:03 idle     failed, gave up
        --- Failed
    "#]],
    )
    .await;
}

#[tokio::test]
async fn somebody_who_looks_sees_text_while_it_is_written() {
    let start = r#"{"type":"event_start","event":{"type":"agent.message","id":"sevt_2"}}"#;
    let delta = r#"{"type":"event_delta","event_id":"sevt_2","delta":{"type":"content_delta",
        "index":0,"content":{"type":"text","text":"The an"}}}"#;
    let stream = [start, delta, ANSWER, NEW_IDLE].map(frame).concat();
    let states = &["running 0", "running 0", "idle 0"];
    let all: &[&str] = &[ANSWER, NEW_IDLE];
    let server = session_server([&[], all], stream.clone(), states);
    let looked = ran(&server.url(), &UNTIL_IDLE, "", |io| {
        io.out_is_terminal = true;
        io.clock = Clock::manual(Timestamp(1_795_292_000_123));
    })
    .await;
    expect![[r#"
        sesn_1  running  agent lucy v1
        2026-11-21 UTC
        20:13:20 agent
          The answer.
        20:12:02 idle     end of turn
    "#]]
    .assert_eq(&looked.out);
    let asks = |server: &Server| {
        let requests = server.requests();
        let stream = requests.iter().find(|it| it.path().ends_with("/stream")).unwrap();
        stream.query("event_deltas[]").map(str::to_owned)
    };
    assert_eq!(asks(&server).as_deref(), Some("agent.message"));

    let server = session_server([&[], all], stream, states);
    let piped = ran(&server.url(), &["tail", "sesn_1", "--once", "--json"], "", |_| {}).await;
    let lines: Vec<serde_json::Value> =
        piped.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["agent.message", "session.status_idle"], "whole events only");
    assert_eq!(asks(&server), None);
}

#[tokio::test]
async fn a_terminated_session_ends_the_following() {
    let server = session_server([&[ANSWER], &[]], String::new(), &["terminated 3"]);
    let ran = ran(&server.url(), &["tail", "sesn_1"], "", |_| {}).await;
    assert_eq!(ran.exit, Exit::Fine);
    assert!(ran.out.contains("The answer."), "{}", ran.out);
}

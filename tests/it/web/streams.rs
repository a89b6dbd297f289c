//! A session's stream: nothing missed, nothing twice.

use std::collections::VecDeque;

use axum::body::Body;
use bellpull::{
    domain::turn::TurnEnd,
    id::{EventId, Id, SessionId},
    preview::Preview,
    web::Options,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{
    client::Call,
    server::{MASTER, SOON, Server},
    ui::browser::Browser,
};

/// A frame as a client sees it; comments are frames with nothing but `comment`.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    event: String,
    id: Option<i64>,
    data: Value,
    comment: bool,
}

struct Frames {
    body: Body,
    text: String,
    ready: VecDeque<Frame>,
}

impl Frames {
    async fn open(call: Call) -> Frames {
        let response = call.open().await;
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().expect("ASCII").to_owned();
        assert!(header("content-type").starts_with("text/event-stream"));
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-accel-buffering"), "no");
        assert!(header("request-id").starts_with("req_"));
        Frames { body: response.into_body(), text: String::new(), ready: VecDeque::new() }
    }

    /// The next frame, or `None` at the end.
    async fn any(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let next = tokio::time::timeout(SOON, self.body.frame()).await.expect("in time");
            let data = next?.expect("no error").into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&data).expect("UTF-8"));
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                self.ready.push_back(parse(frame));
                self.text = rest.to_owned();
            }
        }
    }

    /// The next frame that is an event.
    async fn next(&mut self) -> Frame {
        loop {
            let frame = self.any().await.expect("the stream goes on");
            if !frame.comment {
                return frame;
            }
        }
    }
}

fn parse(text: &str) -> Frame {
    let mut frame = Frame { comment: text.starts_with(':'), ..Frame::default() };
    for line in text.lines().filter(|line| !line.starts_with(':')) {
        let (name, value) = line.split_once(": ").expect("a field");
        match name {
            "event" => frame.event = value.to_owned(),
            "id" => frame.id = Some(value.parse().expect("a number")),
            "data" => frame.data = serde_json::from_str(value).expect("JSON on one line"),
            other => panic!("{other}"),
        }
    }
    if !frame.comment {
        assert_eq!(frame.data["type"], frame.event.as_str());
    }
    frame
}

fn stream(server: &Server, session: &SessionId) -> Call {
    server.get(&format!("/v1/sessions/{session}/events/stream"))
}

#[tokio::test]
async fn a_stream_shows_what_happens_from_now_on() {
    live(Server::new().await).await;
}

#[tokio::test]
async fn a_stream_shows_what_happens_from_now_on_on_postgres() {
    live(Server::postgres().await).await;
}

async fn live(server: Server) {
    let session = server.session().await;
    server.say(&session, "before").await;
    let mut frames = Frames::open(stream(&server, &session)).await;
    assert!(frames.any().await.expect("a frame").comment, "something comes at once");
    let sent = server.say(&session, "two\nlines").await;

    let queued = frames.next().await;
    assert_eq!((queued.event.as_str(), queued.id), ("user.message", None));
    assert_eq!(queued.data, sent["data"][0], "as it was sent, still without a time");
    let lease = server.work().await;
    let answer = EventId::new(server.clock.now());
    server.answer(&lease, answer.clone(), "hi").await;
    server.finish(&lease, TurnEnd::EndTurn).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(frames.next().await);
    }
    let types: Vec<&str> = seen.iter().map(|frame| frame.event.as_str()).collect();
    let wanted = [
        "session.status_running",
        "user.message",
        "user.message",
        "agent.message",
        "session.status_idle",
    ];
    assert_eq!(types, wanted);
    let ids: Vec<Option<i64>> = seen.iter().map(|frame| frame.id).collect();
    assert_eq!(ids, (1..=5).map(Some).collect::<Vec<_>>());
    assert_eq!(seen[2].data["id"], queued.data["id"], "the same event again, now with a time");
    assert!(seen[2].data["processed_at"].is_string());
    assert_eq!(seen[3].data["id"], json!(answer));
    let list = server.events(session.to_string().as_str()).await;
    let data: Vec<Value> = seen.into_iter().map(|frame| frame.data).collect();
    assert_eq!(data, list, "the same objects as in the list");

    // Nothing more comes but heartbeats.
    for _ in 0..2 {
        assert_eq!(
            frames.any().await.expect("a beat"),
            Frame { comment: true, ..Frame::default() }
        );
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_left() {
    let server = Server::new().await;
    let session = server.session().await;
    server.say(&session, "hello").await;
    let lease = server.work().await;
    for n in 0..100 {
        let id = EventId::new(server.clock.now());
        server.answer(&lease, id, &format!("answer {n}")).await;
    }
    let mut seen = Vec::new();
    let mut last = 0;
    // Cut off after every few frames.
    while last < 102 {
        let call = stream(&server, &session).header("last-event-id", last.to_string());
        let mut frames = Frames::open(call).await;
        for _ in 0..7 {
            let frame = frames.next().await;
            last = frame.id.expect("a number");
            seen.push(last);
            if last == 102 {
                break;
            }
        }
    }
    assert_eq!(seen, (1..=102).collect::<Vec<_>>(), "no gap, no repeat");
    // A number that is not there yet is no reason to wait for it.
    let call = stream(&server, &session).header("last-event-id", "9999");
    let mut frames = Frames::open(call).await;
    server.answer(&lease, EventId::new(server.clock.now()), "next").await;
    assert_eq!(frames.next().await.id, Some(103));
    let bad = stream(&server, &session).header("last-event-id", "x");
    bad.error(400, "invalid_request_error").await;
    let empty = stream(&server, &session).header("last-event-id", "");
    assert_eq!(empty.open().await.status(), 200);
}

#[tokio::test]
async fn a_stream_finds_what_nobody_signalled() {
    let server = Server::new().await;
    let session = server.session().await;
    let mut frames = Frames::open(stream(&server, &session)).await;
    let message = bellpull::store::NewMessage {
        event_id: EventId::new(server.clock.now()),
        body: bellpull::domain::event::EventBody::UserMessage { content: Vec::new(), origin: None },
        private: "{}".to_owned(),
    };
    server.app.store.send(&session, vec![message], 10).await.expect("sent");
    assert_eq!(frames.next().await.event, "user.message");
}

#[tokio::test]
async fn previews_come_to_whoever_asks_and_before_the_event() {
    let server = Server::new().await;
    let session = server.session().await;
    server.say(&session, "hello").await;
    let lease = server.work().await;
    let id = EventId::new(server.clock.now());
    let text = |text: &str| Preview::Text { event_id: id.clone(), index: 0, text: text.to_owned() };
    let start = || Preview::Start { event_id: id.clone() };
    let send = |preview| server.app.previews.send(&session, preview);

    let wanted = format!("/v1/sessions/{session}/events/stream?event_deltas%5B%5D=agent.message");
    let mut with = Frames::open(server.get(&wanted)).await;
    let mut without = Frames::open(stream(&server, &session)).await;
    let thinking_id = EventId::new(server.clock.now());
    send(Preview::Request { thinking_id: thinking_id.clone(), message_id: id.clone() });
    send(Preview::Thinking { event_id: thinking_id });
    send(start());
    send(start());
    send(text("Hel"));
    let first = with.next().await;
    assert_eq!(first.event, "event_start");
    assert_eq!(first.data["event"], json!({"type": "agent.message", "id": id}));
    // Opened in the middle: it gets none of this one.
    let mut late = Frames::open(server.get(&wanted)).await;
    send(start());
    send(text("lo"));
    for piece in ["Hel", "lo"] {
        let delta = with.next().await;
        assert_eq!((delta.event.as_str(), delta.id), ("event_delta", None));
        let content = json!({"type": "text", "text": piece});
        assert_eq!(delta.data["event_id"], json!(id));
        assert_eq!(
            delta.data["delta"],
            json!({"type": "content_delta", "index": 0, "content": content})
        );
    }
    server.answer(&lease, id.clone(), "Hello").await;
    for frames in [&mut with, &mut without, &mut late] {
        let event = frames.next().await;
        assert_eq!((event.event.as_str(), &event.data["id"]), ("agent.message", &json!(id)));
    }
    // What comes too late is not shown.
    send(start());
    send(text("!"));
    server.finish(&lease, TurnEnd::EndTurn).await;
    assert_eq!(with.next().await.event, "session.status_idle");
}

#[tokio::test]
async fn a_stream_ends_with_the_server_or_its_key() {
    let server = Server::new().await;
    let session = server.session().await;
    let key = json!({"name": "k", "scopes": ["read"]});
    let key = server.post("/v1/api_keys").json(key).ok().await;
    let call = stream(&server, &session).bearer(key["key"].as_str().expect("a key"));
    let mut frames = Frames::open(call).await;
    let id = key["id"].as_str().expect("an id");
    server.call("DELETE", &format!("/v1/api_keys/{id}")).ok().await;
    while frames.any().await.is_some() {}

    let mut frames = Frames::open(stream(&server, &session)).await;
    server.app.shutdown.cancel();
    while frames.any().await.is_some() {}
    stream(&server, &"sesn_1".parse().expect("an id")).error(404, "not_found_error").await;
}

#[tokio::test]
async fn streams_have_a_bound_that_pages_and_programs_share() {
    let server = Server::new().await;
    let options = Options { streams_max: 2, ..(*server.app.options()).clone() };
    server.app.set_options(options);
    let session = server.session().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let page = || browser.call("GET", &format!("/sessions/{session}/live?after=0"));
    let first = Frames::open(stream(&server, &session)).await;
    let second = page().open().await;
    assert_eq!(second.status(), 200);

    let third = stream(&server, &session).send().await;
    assert_eq!((third.status.as_u16(), third.header("retry-after")), (503, Some("10")));
    let error = &third.json()["error"];
    assert_eq!(error["type"], "overloaded_error");
    assert!(error["message"].as_str().expect("text").contains("web.streams_max"));
    let third = page().send().await;
    assert_eq!((third.status.as_u16(), third.header("retry-after")), (503, Some("10")));
    // Refusing takes no place, and leaving gives one back.
    drop(first);
    Frames::open(stream(&server, &session)).await;
    drop(second);
    assert_eq!(page().open().await.status(), 200);
}

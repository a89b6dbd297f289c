//! The transcript as it grows.

use std::collections::BTreeMap;

use axum::body::BodyDataStream;
use bellpull::{
    clock::Timestamp,
    domain::{
        event::{Block, Egress, EgressDecision, EventBody, NewEvent, Usage},
        outcome::Verdict,
        turn::TurnEnd,
    },
    id::{EventId, Id, SessionId},
    preview::Preview,
};
use futures_util::StreamExt;

use super::{
    super::server::{MASTER, SOON, Server},
    browser::Browser,
};

/// A live page: what its browser would show, by element.
struct Live {
    body: BodyDataStream,
    text: String,
    elements: BTreeMap<String, String>,
    ids: Vec<i64>,
}

impl Live {
    async fn open(browser: &Browser<'_>, session: &SessionId, after: i64) -> Live {
        let path = format!("/sessions/{session}/live?after={after}");
        Live::of(browser.call("GET", &path).open().await)
    }

    fn of(response: http::Response<axum::body::Body>) -> Live {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let body = response.into_body().into_data_stream();
        Live { body, text: String::new(), elements: BTreeMap::new(), ids: Vec::new() }
    }

    /// Takes the next frame; false when the stream has ended.
    async fn step(&mut self) -> bool {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                self.take(&frame);
                return true;
            }
            let next = tokio::time::timeout(SOON, self.body.next()).await;
            match next.expect("something comes soon") {
                Some(bytes) => {
                    let bytes = bytes.expect("the stream is not cut");
                    self.text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
                }
                None => return false,
            }
        }
    }

    fn take(&mut self, frame: &str) {
        let mut html = String::new();
        for line in frame.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                self.ids.push(id.parse().expect("a number"));
            } else if let Some(data) = line.strip_prefix("data: ") {
                html.push_str(data);
                html.push('\n');
            } else {
                assert!(line.starts_with(':') || line == "data:", "{line}");
            }
        }
        // Entries begin with their id.
        for piece in html.replace("<article id", "<div id").split("<div id=\"").skip(1) {
            let (id, _) = piece.split_once('"').expect("a quote");
            self.elements.insert(id.to_owned(), piece.to_owned());
        }
    }

    /// Goes on until an element holds a text.
    async fn until(&mut self, id: &str, text: &str) {
        let found = async {
            while !self.elements.get(id).is_some_and(|it| it.contains(text)) {
                assert!(self.step().await, "the stream ended; {:?}", self.elements);
            }
        };
        let found = tokio::time::timeout(SOON, found).await.is_ok();
        assert!(found, "no {text} in {id}: {:#?}", self.elements);
    }
}

#[tokio::test]
async fn a_page_fills_while_it_is_looked_at() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let session = server.session().await;
    let mut live = Live::open(&browser, &session, 0).await;
    live.until("head", "idle").await;

    let sent = server.say(&session, "ring <b>the</b> bell").await;
    let message = sent["data"][0]["id"].as_str().expect("an id").to_owned();
    let waiting = format!("waiting-{message}");
    live.until(&waiting, "data-key=\"w1\"").await;
    let lease = server.work().await;
    live.until("head", "running").await;
    live.until(&message, "data-key=\"2\"").await;
    assert!(live.elements[&waiting].contains("hidden"), "it was taken");

    // Words as they come, then the finished event in their place.
    let answer = EventId::new(server.clock.now());
    let previews = &server.app.previews;
    previews.send(&session, Preview::Start { event_id: answer.clone() });
    let text =
        |text: &str| Preview::Text { event_id: answer.clone(), index: 0, text: text.to_owned() };
    previews.send(&session, text("it **ri"));
    live.until("draft", "it **ri").await;
    previews.send(&session, text("ngs** <i>"));
    live.until("draft", "it <strong>rings</strong> &lt;i&gt;").await;
    server.answer(&lease, answer.clone(), "it **rings**, all of it").await;
    live.until(answer.as_str(), "all of it").await;
    live.until("draft", "hidden").await;
    // A piece that comes too late changes nothing.
    previews.send(&session, text(" late"));
    server.finish(&lease, TurnEnd::EndTurn).await;
    live.until("head", "idle").await;
    assert!(live.elements["draft"].contains("hidden"));
    assert_eq!(live.ids, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_cut_page_goes_on_where_it_was() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let session = server.session().await;
    server.say(&session, "one").await;
    let lease = server.work().await;
    let page = browser.get(&format!("/sessions/{session}")).await;
    assert!(page.text.contains(&format!("/sessions/{session}/live?after=2\"")), "{}", page.text);

    let mut live = Live::open(&browser, &session, 2).await;
    let first = EventId::new(Timestamp(1));
    server.answer(&lease, first.clone(), "first").await;
    live.until(first.as_str(), "first").await;
    drop(live);
    let second = EventId::new(Timestamp(2));
    server.answer(&lease, second.clone(), "second").await;
    server.finish(&lease, TurnEnd::EndTurn).await;

    // The browser asks for the address of the first time, and says what it has.
    let path = format!("/sessions/{session}/live?after=2");
    let call = browser.call("GET", &path).header("last-event-id", "3");
    let mut live = Live::of(call.open().await);
    live.until(second.as_str(), "second").await;
    live.until("head", "idle").await;
    assert_eq!(live.ids, [4, 5], "no gap and no repetition");
    assert!(!live.elements.contains_key(first.as_str()));
    // The page says the same as what came live.
    let page = browser.get(&format!("/sessions/{session}")).await;
    assert_eq!(page.text.matches("<p>second</p>").count(), 1);
    assert!(live.elements[second.as_str()].contains("<p>second</p>"));
}

#[tokio::test]
async fn a_page_opened_in_the_middle_shows_that_there_was_more() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let session = server.session().await;
    server.say(&session, "one").await;
    let lease = server.work().await;
    let mut live = Live::open(&browser, &session, 2).await;
    live.until("head", "running").await;
    let answer = EventId::new(server.clock.now());
    let (event_id, text) = (answer.clone(), "the end".to_owned());
    server.app.previews.send(&session, Preview::Text { event_id, index: 0, text });
    live.until("draft", "… the end").await;
    server.answer(&lease, answer.clone(), "all, to the end").await;
    live.until(answer.as_str(), "all, to the end").await;
    live.until("draft", "hidden").await;
}

#[tokio::test]
async fn a_live_page_ends_with_the_visit_and_with_the_server() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let session = server.session().await;
    let stranger = Browser::new(&server);
    let path = format!("/sessions/{session}/live");
    let call = stranger.call("GET", &path).header("hx-request", "true");
    let response = call.header("hx-current-url", "https://bell.example/sessions/x").open().await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["hx-redirect"], "/sign-in?next=%2Fsessions%2Fx");

    let mut live = Live::open(&browser, &session, 0).await;
    live.until("head", "idle").await;
    assert_eq!(browser.submit("/sign-out", &[]).await.status, 303);
    while live.step().await {}

    let browser = Browser::signed_in(&server, MASTER).await;
    let mut live = Live::open(&browser, &session, 0).await;
    live.until("head", "idle").await;
    server.app.shutdown.cancel();
    while live.step().await {}
    let missing = browser.get("/sessions/sesn_00000000000000000000000000/live").await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn long_logs_come_in_pages() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let session = server.session().await;
    server.say(&session, "begin").await;
    let lease = server.work().await;
    for n in 0..450 {
        server.answer(&lease, EventId::new(Timestamp(n)), &format!("answer {n}.")).await;
    }
    let page = browser.get(&format!("/sessions/{session}")).await;
    assert!(page.text.contains("answer 449.") && !page.text.contains("answer 3."));
    assert!(page.text.contains("live?after=452"));
    let earlier = page.between(&format!("href=\"/sessions/{session}?before="), "\"");
    let page = browser.get(&format!("/sessions/{session}?before={earlier}")).await;
    assert!(page.text.contains("begin") && page.text.contains("answer 3."), "{}", page.text);
    assert!(!page.text.contains("answer 449.") && !page.text.contains("hx-sse:connect"));
}

#[tokio::test]
async fn where_programs_wanted_to_go_is_with_their_call_as_text() {
    let server = Server::new().await;
    let mut browser = Browser::new(&server);
    browser.sign_in(MASTER).await;
    let session = server.session().await;
    server.say(&session, "go").await;
    let lease = server.work().await;
    let now = server.clock.now();
    let call = EventId::new(now);
    let went = |host: &str, decision, reason: Option<&str>| Egress {
        host: host.to_owned(),
        port: 443,
        decision,
        reason: reason.map(str::to_owned),
    };
    let egress = vec![
        went("<b>evil</b>.example", EgressDecision::Refused, Some("not one of the allowed hosts")),
        went("good.example", EgressDecision::Allowed, None),
    ];
    let bodies = [
        EventBody::AgentToolUse {
            name: "bash".to_owned(),
            input: serde_json::json!({"command": "curl"}),
            evaluated_permission: "allow".to_owned(),
            evaluation: None,
        },
        EventBody::AgentToolResult {
            tool_use_id: call.clone(),
            content: vec![Block::text("done")],
            is_error: false,
            egress,
        },
    ];
    let mut live = Live::open(&browser, &session, 0).await;
    for (id, body) in [call, EventId::new(now)].into_iter().zip(bodies) {
        let event = NewEvent::new(id, body);
        let appended = server.app.store.append(&lease, vec![event], Usage::default()).await;
        appended.expect("the lease is good");
        server.app.signals.changed(&session);
    }
    let refused =
        "was refused &#60;b&#62;evil&#60;/b&#62;.example:443: not one of the allowed hosts";
    while !live.elements.values().any(|html| html.contains(refused)) {
        assert!(live.step().await, "{:#?}", live.elements);
    }
    let page = browser.get(&format!("/sessions/{session}")).await.text;
    assert!(page.contains(refused) && page.contains("went out to good.example:443"), "{page}");
}

#[tokio::test]
async fn an_outcome_and_its_verdicts_are_in_the_transcript_as_text() {
    let server = Server::new().await;
    let mut browser = Browser::new(&server);
    browser.sign_in(MASTER).await;
    let session = server.session().await;
    let rubric = serde_json::json!({"type": "text", "content": "it <i>rhymes</i>"});
    let event = serde_json::json!({"type": "user.define_outcome", "rubric": rubric,
        "description": "Write a <b>poem</b>."});
    let path = format!("/v1/sessions/{session}/events");
    let body = serde_json::json!({"events": [event]});
    let sent = server.post(&path).json(body).ok().await;
    let outcome_id: bellpull::id::OutcomeId =
        sent["data"][0]["outcome_id"].as_str().expect("an id").parse().expect("an outcome's");
    let page = browser.get(&format!("/sessions/{session}")).await.text;
    assert!(page.contains("waiting") && page.contains("graded up to 3 times"), "{page}");
    let listed = server.events(session.to_string().as_str()).await;
    assert!(listed[0]["processed_at"].is_string(), "processed on receipt: {listed:?}");
    let lease = server.work().await;
    let mut live = Live::open(&browser, &session, 0).await;
    let bodies = [
        EventBody::OutcomeEvaluationStart { outcome_id: outcome_id.clone(), iteration: 0 },
        EventBody::OutcomeEvaluationOngoing { outcome_id: outcome_id.clone(), iteration: 0 },
        EventBody::OutcomeEvaluationEnd {
            outcome_evaluation_start_id: String::new(),
            outcome_id,
            iteration: 0,
            result: Verdict::NeedsRevision,
            explanation: "no <u>rhyme</u>".to_owned(),
            usage: Usage::default(),
        },
    ];
    for body in bodies {
        let event = NewEvent::new(EventId::new(server.clock.now()), body);
        let appended = server.app.store.append(&lease, vec![event], Usage::default()).await;
        appended.expect("the lease is good");
        server.app.signals.changed(&session);
    }
    let judged = "outcome, iteration 0: needs revision. no &#60;u&#62;rhyme&#60;/u&#62;";
    while !live.elements.values().any(|html| html.contains(judged)) {
        assert!(live.step().await, "{:#?}", live.elements);
    }
    let page = browser.get(&format!("/sessions/{session}")).await.text;
    assert!(page.contains(judged) && page.contains("graded, iteration 0"), "{page}");
    assert!(!page.contains("<b>poem") && !page.contains("<i>rhymes"), "{page}");
    let markdown = browser.get(&format!("/sessions/{session}/transcript.md")).await.text;
    for part in ["## Outcome", "> Write a <b>poem</b>.", "> it <i>rhymes</i>"] {
        assert!(markdown.contains(part), "{markdown}");
    }
    assert!(markdown.contains("### Evaluation 0: needs revision"), "{markdown}");
}

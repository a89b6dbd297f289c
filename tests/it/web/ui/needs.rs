//! What needs a person: all of it is listed and counted, and settled where it is listed.

use std::time::Duration;

use bellpull::{
    domain::{
        event::{EventBody, NewEvent, StopReason},
        turn::TurnEnd,
    },
    id::{EventId, Id, SessionId},
    store::{Attempted, Beside, NewAsk, NewEffect, Wanted},
};
use serde_json::json;

use super::browser::{Browser, Page};
use crate::web::server::{BOX, MASTER, Server};

const HOUR: Duration = Duration::from_secs(3600);

fn tool_use(id: &EventId, command: &str) -> NewEvent {
    let body = EventBody::AgentToolUse {
        name: "bash".to_owned(),
        input: json!({ "command": command }),
        evaluated_permission: "ask".to_owned(),
        evaluation: Some(json!({"type": "always_ask"})),
    };
    NewEvent::new(id.clone(), body)
}

/// A session whose agent asks whether it may; what is asked of a program comes first.
async fn asks(server: &Server, command: &str, wanted: Wanted) -> (SessionId, EventId) {
    server.clock.advance(Duration::from_millis(5));
    let session = server.session().await;
    server.say(&session, "work").await;
    let lease = server.work().await;
    let call = EventId::new(server.clock.now());
    let ask = NewAsk {
        call: call.clone(),
        wanted,
        by_client: wanted != Wanted::Confirmation,
        tool: "bash".to_owned(),
        fingerprint: "f".to_owned(),
        patience: HOUR,
    };
    let beside = Beside { asks: vec![ask], ..Beside::default() };
    let events = vec![tool_use(&call, command)];
    let store = &server.app.store;
    store.append_with(&lease, events, Default::default(), beside).await.unwrap();
    let body = EventBody::StatusIdle {
        stop_reason: StopReason::from(TurnEnd::EndTurn),
        stop_details: None,
    };
    let idle = NewEvent::new(EventId::new(server.clock.now()), body);
    store.park(&lease, vec![idle], HOUR).await.unwrap();
    (session, call)
}

/// A call that was begun, and nobody knows what became of it.
async fn doubt(server: &Server, command: &str) -> (SessionId, EventId) {
    server.clock.advance(Duration::from_millis(5));
    let session = server.session().await;
    server.say(&session, "work").await;
    let lease = server.work().await;
    let call = EventId::new(server.clock.now());
    let intends = NewEffect {
        call: call.clone(),
        agent_id: server.agent.parse().unwrap(),
        tool: "bash".to_owned(),
        input: json!({ "command": command }).to_string(),
    };
    let beside = Beside { intends: Some(intends), ..Beside::default() };
    let events = vec![tool_use(&call, command)];
    server.app.store.append_with(&lease, events, Default::default(), beside).await.unwrap();
    server.finish(&lease, TurnEnd::EndTurn).await;
    (session, call)
}

fn n(page: &Page, what: &str) -> usize {
    page.text.matches(what).count()
}

#[tokio::test]
async fn calls_that_ask_are_listed_counted_and_answered() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let page = browser.get("/needs").await;
    assert!(page.text.contains("Nothing waits for a person") && page.text.contains("always_ask"));
    assert!(!page.text.contains(" waiting</span>"), "nothing is counted: {}", page.text);
    // Those that wait for a program's word are nobody's to answer, and hide none of the others.
    for at in 0..21 {
        asks(&server, &format!("program-{at}"), Wanted::CustomResult).await;
    }
    let mut calls = Vec::new();
    for at in 0..12 {
        calls.push(asks(&server, &format!("rm <{at}>"), Wanted::Confirmation).await);
    }
    let page = browser.get("/").await;
    assert_eq!(n(&page, "asks to run bash"), 3, "{}", page.text);
    assert!(page.text.contains("Approvals: all 12") && page.text.contains("/needs?kind=approvals"));
    let page = browser.get("/needs").await;
    assert_eq!(n(&page, ">Allow</button>"), 10, "{}", page.text);
    assert!(page.text.contains(">12<span class=\"unseen\"> waiting"), "{}", page.text);
    let page = browser.get("/needs?kind=approvals").await;
    assert_eq!(n(&page, ">Allow</button>"), 12);
    assert!(page.text.contains("rm &#60;11&#62;"), "the input is shown: {}", page.text);

    let (session, call) = &calls[11];
    let path = format!("/sessions/{session}/answer");
    let call = call.to_string();
    let back = "/needs?kind=approvals";
    let page = browser.submit(&path, &[("allow", &call), ("back", back)]).await;
    let place = "/needs?kind=approvals&done=allowed";
    assert_eq!((page.status, page.header("location")), (303, Some(place)));
    let page = browser.get(place).await;
    assert!(page.text.contains("The call is allowed"), "{}", page.text);
    assert_eq!(n(&page, ">Allow</button>"), 11);
    assert!(page.text.contains(">11<span class=\"unseen\"> waiting"), "{}", page.text);

    // Somebody who may only look sees all of it and no button.
    let body = json!({"name": "looker", "scopes": ["read"]});
    let key = server.post("/v1/api_keys").json(body).ok().await["key"].clone();
    let looker = Browser::signed_in(&server, key.as_str().unwrap()).await;
    let page = looker.get("/needs?kind=approvals").await;
    assert_eq!((n(&page, "asks to run bash"), n(&page, ">Allow<")), (11, 0), "{}", page.text);
}

#[tokio::test]
async fn lists_of_what_needs_a_person_have_pages() {
    let server = Server::new().await;
    for at in 0..53 {
        asks(&server, &format!("call-{at}-"), Wanted::Confirmation).await;
    }
    let browser = Browser::signed_in(&server, MASTER).await;
    let page = browser.get("/needs?kind=approvals").await;
    assert_eq!(n(&page, ">Allow</button>"), 50);
    let next = page.between("class=\"pager\"><a href=\"", "\"").replace("&#38;", "&");
    assert!(next.starts_with("/needs?kind=approvals&page=sevt_"), "{next}");
    let page = browser.get(&next).await;
    assert_eq!(n(&page, ">Allow</button>"), 3);
    assert!(page.text.contains("call-52-") && !page.text.contains("call-49-"));
    for kind in ["nothing", "held", "doubts", "callbacks", "sources"] {
        let page = browser.get(&format!("/needs?kind={kind}&page=x%3Cb%3E")).await;
        assert_eq!(page.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn replayed_deliveries_do_not_hide_those_that_are_still_held() {
    let server = Server::new().await;
    server.post("/v1/sources").json(json!({"name": "code", "filter": "body.n > 0"})).ok().await;
    let mut held = Vec::new();
    for _ in 0..24 {
        server.clock.advance(Duration::from_millis(5));
        let call = server.bare("POST", "/api/webhook/code").bearer(BOX).body("{}");
        held.push(call.status(202).await["delivery_id"].as_str().unwrap().to_owned());
    }
    server.post("/v1/sources/code").json(json!({"filter": "true"})).ok().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let page = browser.get("/needs?kind=held").await;
    assert_eq!(n(&page, ">Release</button>"), 24, "{}", page.text);
    // Its bell has stopped swaying, and is one of those that cannot ring. No number is too large.
    server.clock.advance(Duration::from_secs(30));
    let page = browser.get("/needs?kind=sources").await;
    assert!(page.text.contains("code has a delivery that is held"), "{}", page.text);
    let page = browser.get(&format!("/needs?kind=sources&page={}", usize::MAX)).await;
    assert_eq!((page.status, n(&page, "has a delivery that is held")), (200, 0));
    for id in &held[2..] {
        server.clock.advance(Duration::from_millis(5));
        let path = format!("/deliveries/{id}/replay");
        let page = browser.submit(&path, &[("back", "/needs?kind=held")]).await;
        assert_eq!(page.header("location"), Some("/needs?kind=held&done=replayed"));
    }
    for place in ["/", "/needs", "/needs?kind=held"] {
        let page = browser.get(place).await;
        assert_eq!(n(&page, "there is no field <code>n</code>"), 2, "{place}: {}", page.text);
        assert!(page.text.contains(&held[0]) && page.text.contains(&held[1]), "{place}");
    }
}

#[tokio::test]
async fn doubts_are_settled_and_callbacks_sent_again_where_they_are_listed() {
    let server = Server::new().await;
    let (session, call) = doubt(&server, "pay <1>").await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let page = browser.get("/needs").await;
    assert!(page.text.contains("Was bash carried out?") && page.text.contains("pay &#60;1&#62;"));
    let call = call.to_string();
    let fields = [("effect", call.as_str()), ("status", "done"), ("back", "/needs")];
    let page = browser.submit(&format!("/sessions/{session}/settle"), &fields).await;
    assert_eq!((page.status, page.header("location")), (303, Some("/needs?done=settled")));
    let effect = server.get(&format!("/v1/effects/{call}")).ok().await;
    assert_eq!(effect["status"], "done");

    let callback = json!({"callback": {"url": "http://127.0.0.1:9/results"}});
    server.post(&format!("/v1/agents/{}", server.agent)).json(callback).ok().await;
    let session = server.session().await;
    server.say(&session, "work").await;
    let lease = server.work().await;
    server.finish(&lease, TurnEnd::EndTurn).await;
    let store = &server.app.store;
    let claimed = store.claim_outgoing("a:1".to_owned(), HOUR, 10, 4, Default::default()).await;
    let claimed = claimed.unwrap();
    let dead = Attempted::Dead { code: Some(410), why: "it is <gone>".to_owned() };
    assert!(store.attempted(&claimed[0], dead).await.unwrap());
    let page = browser.get("/needs").await;
    assert!(page.text.contains("was not sent: it is &#60;gone&#62;"), "{}", page.text);
    let path = format!("/callbacks/{}/again", claimed[0].id);
    let page = browser.submit(&path, &[("back", "//evil.example")]).await;
    assert_eq!((page.status, page.header("location")), (303, Some("/needs?done=again")));
    let list = server.get("/v1/outbox?status=dead").ok().await;
    assert_eq!(list["data"], json!([]));
    let page = browser.get("/needs").await;
    assert!(page.text.contains("Nothing waits for a person"), "{}", page.text);
    assert_eq!(browser.submit("/callbacks/nothing/again", &[]).await.status, 404);
}

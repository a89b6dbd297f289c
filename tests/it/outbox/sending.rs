//! What is sent, when again, and when no more.

use std::time::Duration;

use bellpull::domain::turn::TurnEnd;
use serde_json::json;

use super::{Bench, options};
use crate::support::{
    process::until,
    receiver::{Answer, Receiver},
};

#[tokio::test]
async fn the_end_of_a_turn_is_told_with_the_last_words_and_signed() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    let secret = bench.call_back(&receiver).await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    let session = bench.told("It is paid.", TurnEnd::EndTurn).await;
    let received = receiver.wait_for(1).await.remove(0);
    assert!(received.is_signed_with(&secret));
    assert!(!received.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert_eq!(received.path, "/results");
    assert_eq!(received.header("content-type"), "application/json");
    assert_eq!(received.header("bellpull-hops"), "1");
    let body = received.json();
    assert_eq!(body["type"], "session.idle");
    let data = &body["data"];
    assert_eq!(data["session_id"], session.to_string());
    assert_eq!(data["agent_id"], bench.server.agent);
    assert_eq!(data["agent_name"], "default");
    assert_eq!(data["message"], "It is paid.");
    assert_eq!(data["stop_reason"], "end_turn");
    assert_eq!(data["session_url"], format!("https://bell.example/sessions/{session}"));
    assert_eq!(data["usage"]["input_tokens"], 0);
    let message = bench.once("it is sent", |it| it["status"] == "sent").await;
    assert_eq!(message["id"], received.id());
    assert_eq!((&message["attempts"], &message["last_code"]), (&json!(1), &json!(204)));
    bench.stop().await;
}

#[tokio::test]
async fn each_way_to_end_has_its_kind_and_only_what_is_wanted_is_told() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    bench
        .agent_callback(json!({
            "url": receiver.url("/"),
            "events": ["session.failed", "session.budget_reached"],
        }))
        .await;
    for end in TurnEnd::ALL {
        bench.told("x", end).await;
    }
    let mut told: Vec<(String, String)> = bench
        .settled()
        .await
        .iter()
        .map(|it| {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (text(&it["kind"]), text(&it["body"]["data"]["stop_reason"]))
        })
        .collect();
    told.sort();
    let expected = [
        ("session.budget_reached", "budget_reached"),
        ("session.failed", "failed"),
        ("session.failed", "refusal"),
        ("session.failed", "retries_exhausted"),
    ];
    let expected = expected.map(|(kind, reason)| (kind.to_owned(), reason.to_owned()));
    assert_eq!(told, expected);
    bench.stop().await;
}

#[tokio::test]
async fn a_receiver_that_was_down_gets_it_later_with_the_same_id() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    let (address, secret) = (receiver.address, bench.call_back(&receiver).await);
    receiver.stop().await;
    bench.told("x", TurnEnd::EndTurn).await;
    let failed = bench.once("an attempt failed", |it| it["last_error"].is_string()).await;
    assert_eq!((&failed["status"], &failed["last_code"]), (&json!("waiting"), &json!(null)));
    let receiver = Receiver::at(address).await;
    bench.hour();
    let received = receiver.wait_for(1).await.remove(0);
    assert_eq!(received.id(), failed["id"]);
    assert!(received.is_signed_with(&secret));
    let message = bench.once("it is sent", |it| it["status"] == "sent").await;
    assert_eq!((&message["attempts"], &message["last_error"]), (&json!(2), &json!(null)));
    bench.stop().await;
}

#[tokio::test]
async fn what_fails_too_often_is_dead_and_can_be_sent_again() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    receiver.otherwise(Answer::status(500));
    bench.call_back(&receiver).await;
    let session = bench.told("x", TurnEnd::EndTurn).await;
    for n in 1..=4 {
        receiver.wait_for(n).await;
        until("the attempt is noted", async || {
            let message = bench.outbox().await.remove(0);
            (message["last_code"] == 500 && message["attempts"] == n).then_some(())
        })
        .await;
        bench.hour();
    }
    let dead = bench.once("it is dead", |it| it["status"] == "dead").await;
    let why = dead["last_error"].as_str().unwrap();
    assert!(why.contains("answered 500; given up after 4 attempts"), "{why}");
    let list = format!("/v1/outbox?status=dead&session_id={session}");
    assert_eq!(bench.server.get(&list).ok().await["data"][0]["id"], dead["id"]);
    receiver.otherwise(Answer::status(200));
    let path = format!("/v1/outbox/{}/retry", dead["id"].as_str().unwrap());
    assert_eq!(bench.server.post(&path).ok().await["status"], "waiting");
    let received = receiver.wait_for(5).await;
    assert!(received.iter().all(|it| it.id() == dead["id"]));
    bench.once("it is sent", |it| it["status"] == "sent").await;
    let why = bench.server.post(&path).error(409, "invalid_request_error").await;
    assert!(why.contains("sent already"), "{why}");
    let audit = bench.server.get("/v1/audit").ok().await;
    assert_eq!(audit["data"][0]["action"], "outbox.retry");
    bench.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_pause_gets_it_for_all_its_messages() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    receiver.script([Answer::status(429).header("retry-after", "7200")]);
    bench.call_back(&receiver).await;
    bench.told("1", TurnEnd::EndTurn).await;
    let first = bench.once("it was put off", |it| it["last_code"] == 429).await;
    bench.told("2", TurnEnd::EndTurn).await;
    // An hour is twice as long as any pause of our own, and not what was asked for.
    bench.hour();
    bench.server.app.signals.outgoing();
    let next = bench.server.app.store.next_outgoing(Vec::new()).await.unwrap();
    assert!(next.is_some_and(|next| next > Duration::from_secs(3500)), "{next:?}");
    assert_eq!(receiver.received().len(), 1);
    bench.hour();
    let received = receiver.wait_for(3).await;
    assert_eq!(received.iter().filter(|it| it.id() == first["id"]).count(), 2);
    bench.settled().await;
    bench.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_asked_no_more() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    receiver.script([Answer::status(410)]);
    bench.call_back(&receiver).await;
    bench.told("1", TurnEnd::EndTurn).await;
    bench.once("it is dead", |it| it["status"] == "dead").await;
    let path = format!("/v1/agents/{}", bench.server.agent);
    assert!(bench.server.get(&path).ok().await["callback"]["off_since"].is_string());
    bench.told("2", TurnEnd::EndTurn).await;
    let second = bench.outbox().await.remove(0);
    assert_eq!(second["status"], "dead", "what comes later is kept, and not sent");
    assert_eq!(receiver.received().len(), 1);
    // Somebody sees to it, and what could not be sent is.
    let retry = format!("/v1/outbox/{}/retry", second["id"].as_str().unwrap());
    bench.server.post(&retry).ok().await;
    receiver.wait_for(2).await;
    bench.once("it is sent", |it| it["status"] == "sent").await;
    assert!(bench.server.get(&path).ok().await["callback"]["off_since"].is_null());
    bench.told("3", TurnEnd::EndTurn).await;
    receiver.wait_for(3).await;
    bench.stop().await;
}

#[tokio::test]
async fn messages_of_a_session_wait_for_each_other_and_for_nobody_else() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    receiver.script([Answer::status(503)]);
    bench.call_back(&receiver).await;
    let session = bench.told("1", TurnEnd::EndTurn).await;
    bench.once("it was put off", |it| it["last_code"] == 503).await;
    bench.turn(&session, "2", TurnEnd::EndTurn).await;
    bench.turn(&session, "3", TurnEnd::EndTurn).await;
    bench.told("other", TurnEnd::EndTurn).await;
    let words = |received: &[crate::support::receiver::Received]| -> Vec<String> {
        let word = |it: &crate::support::receiver::Received| {
            it.json()["data"]["message"].as_str().unwrap().to_owned()
        };
        received.iter().map(word).collect()
    };
    let received = receiver.wait_for(2).await;
    assert_eq!(words(&received), ["1", "other"]);
    bench.hour();
    let received = receiver.wait_for(5).await;
    assert_eq!(words(&received), ["1", "other", "1", "2", "3"]);
    bench.settled().await;
    bench.stop().await;
}

#[tokio::test]
async fn a_slow_receiver_holds_up_no_other() {
    let options = bellpull::outbox::Options {
        sends_max: 8,
        sends_per_receiver_max: 4,
        attempt_seconds_max: 600,
        drain_seconds: 0,
        ..options()
    };
    let bench = Bench::with(options).await;
    let (slow, quick) = (Receiver::new().await, Receiver::new().await);
    slow.otherwise(Answer::never());
    bench.call_back(&slow).await;
    for n in 0..20 {
        bench.told(&n.to_string(), TurnEnd::EndTurn).await;
    }
    slow.wait_for(4).await;
    let body = json!({"name": "other", "model": "rehearsal", "callback": {"url": quick.url("/")}});
    let other = bench.server.id(bench.server.post("/v1/agents").json(body)).await;
    for _ in 0..20 {
        let test = format!("/v1/agents/{other}/callback/test");
        assert_eq!(bench.server.post(&test).ok().await["kind"], "callback.test");
    }
    quick.wait_for(20).await;
    assert_eq!(slow.received().len(), 4, "no more at once than one receiver may have");
    bench.stop().await;
}

#[tokio::test]
async fn a_test_shows_whether_anything_comes() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    let secret = bench.call_back(&receiver).await;
    let path = format!("/api/agents/{}/callback/test", bench.server.agent);
    let message = bench.server.post(&path).ok().await;
    let received = receiver.wait_for(1).await.remove(0);
    assert!(received.is_signed_with(&secret));
    assert_eq!(received.json()["type"], "callback.test");
    assert_eq!(received.id(), message["id"]);
    let name = json!({"name": "none", "model": "rehearsal"});
    let none = bench.server.id(bench.server.post("/v1/agents").json(name)).await;
    let call = bench.server.post(&format!("/v1/agents/{none}/callback/test"));
    let why = call.error(409, "invalid_request_error").await;
    assert!(why.contains("no callback"), "{why}");
    bench.stop().await;
}

#[tokio::test]
async fn while_secrets_overlap_both_sign() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    let old = bench.call_back(&receiver).await;
    let rotate = format!("/v1/agents/{}/callback/secret", bench.server.agent);
    let made = bench.server.post(&rotate).json(json!({"overlap_seconds": 1800})).ok().await;
    let new = made["secret"].as_str().unwrap().to_owned();
    assert_ne!(old, new);
    bench.told("1", TurnEnd::EndTurn).await;
    let received = receiver.wait_for(1).await;
    assert!(received[0].is_signed_with(&old) && received[0].is_signed_with(&new));
    bench.hour();
    bench.told("2", TurnEnd::EndTurn).await;
    let received = receiver.wait_for(2).await;
    assert!(!received[1].is_signed_with(&old) && received[1].is_signed_with(&new));
    // Neither is shown again.
    let agent = bench.server.get(&format!("/v1/agents/{}", bench.server.agent)).ok().await;
    assert!(!agent.to_string().contains("whsec_"), "{agent}");
    let audit = bench.server.get("/v1/audit?limit=100").ok().await.to_string();
    assert!(!audit.contains("whsec_"), "{audit}");
    bench.stop().await;
}

#[tokio::test]
async fn a_chat_gets_text_and_its_url_is_a_secret() {
    let bench = Bench::new().await;
    let receiver = Receiver::new().await;
    let url = receiver.url("/services/T0/B0/the-token");
    let shown = bench.agent_callback(json!({"url": url, "format": "slack"})).await;
    assert_eq!(shown["callback"]["format"], "slack");
    assert_eq!(shown["callback"]["url"], receiver.url("/…"));
    // What is shown may come back with a change of something else.
    let again = json!({"url": shown["callback"]["url"], "events": ["session.failed"]});
    bench.agent_callback(again).await;
    bench.told("<!channel> no", TurnEnd::Failed).await;
    let received = receiver.wait_for(1).await.remove(0);
    assert_eq!(received.path, "/services/T0/B0/the-token");
    let text = received.json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("*default* has failed\n&lt;!channel&gt; no\nhttps://bell"), "{text}");
    assert_eq!(received.header("webhook-signature"), "");
    for path in ["/v1/audit?limit=100", "/v1/outbox", "/v1/agents", "/v1/secrets"] {
        let answer = bench.server.get(path).ok().await.to_string();
        assert!(!answer.contains("the-token"), "{path}: {answer}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn what_is_over_goes_with_its_days_and_what_waits_stays() {
    let bench = Bench::silent(crate::web::server::Server::new().await);
    let receiver = Receiver::new().await;
    bench.call_back(&receiver).await;
    bench.told("waits", TurnEnd::EndTurn).await;
    let store = &bench.server.app.store;
    bench.server.clock.advance(Duration::from_secs(31 * 24 * 3600));
    let retention = bellpull::store::Retention::default();
    assert_eq!(store.prune(&retention).await.unwrap().outgoing, 0);
    let waiting = store.outgoing_backlog().await.unwrap();
    assert_eq!(waiting.0, 1);
    bench.sender("a", options(), bellpull::fetch::Post::new().unwrap());
    bench.once("it is sent", |it| it["status"] == "sent").await;
    assert_eq!(store.prune(&retention).await.unwrap().outgoing, 0, "its days begin at its end");
    bench.server.clock.advance(Duration::from_secs(31 * 24 * 3600));
    assert_eq!(store.prune(&retention).await.unwrap().outgoing, 1);
    assert_eq!(store.outgoing_backlog().await.unwrap(), (0, None));
    bench.stop().await;
}

#[tokio::test]
async fn a_change_of_a_callback_leaves_the_rest_as_it_is() {
    let bench = Bench::silent(crate::web::server::Server::new().await);
    let first = json!({
        "url": "https://chat.example/hooks/a", "format": "slack", "events": ["session.failed"],
    });
    let made = bench.agent_callback(first).await["callback"].clone();
    assert_eq!((&made["url"], &made["secret"]), (&json!("https://chat.example/…"), &json!(null)));
    let moved = bench.agent_callback(json!({"url": "https://chat.example/hooks/b"})).await;
    assert_eq!(moved["callback"], made, "only what is hidden changed");
    let other = json!({"url": "https://results.example/x?sig=1", "format": "standard"});
    let other = bench.agent_callback(other).await["callback"].clone();
    assert_eq!(other["url"], "https://results.example/x?…");
    assert_eq!(other["events"], json!(["session.failed"]));
    assert!(other["secret"].as_str().unwrap().starts_with("whsec_"));
    let slack = json!({"url": "https://hooks.slack.com/services/T/B/x"});
    assert_eq!(bench.agent_callback(slack).await["callback"]["format"], "slack");
    // None of it is another version of the agent.
    let agent = bench.server.get(&format!("/v1/agents/{}", bench.server.agent)).ok().await;
    assert_eq!(agent["version"], 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_source_calls_back_in_the_place_of_its_agent() {
    let bench = Bench::new().await;
    let (agents, sources) = (Receiver::new().await, Receiver::new().await);
    bench.call_back(&agents).await;
    let source = json!({
        "name": "shop", "preset": "bearer", "secret": "a-token-of-the-shop",
        "callback": {"url": sources.url("/shop")},
    });
    let made = bench.server.post("/v1/sources").json(source).ok().await;
    let secret = made["callback"]["secret"].as_str().unwrap().to_owned();
    let hook = bench.server.bare("POST", "/api/webhook/shop").bearer("a-token-of-the-shop");
    let delivery = hook.json(json!({"n": 1})).status(202).await;
    let lease = bench.server.work().await;
    bench.server.finish(&lease, TurnEnd::EndTurn).await;
    bench.server.app.signals.outgoing();
    let received = sources.wait_for(1).await.remove(0);
    assert!(received.is_signed_with(&secret));
    let data = received.json()["data"].clone();
    assert_eq!(data["source"], "shop");
    assert_eq!(data["delivery_ids"], json!([delivery["delivery_id"]]));
    assert_eq!(data["message"], json!(null));
    bench.told("by hand", TurnEnd::EndTurn).await;
    agents.wait_for(1).await;
    assert_eq!((agents.received().len(), sources.received().len()), (1, 1));
    let body = json!({"callback": null});
    let changed = bench.server.post("/v1/sources/shop").json(body).ok().await;
    assert!(changed["callback"].is_null());
    bench.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_callback_that_is_removed_is_dead() {
    let bench = Bench::silent(crate::web::server::Server::new().await);
    let receiver = Receiver::new().await;
    bench.call_back(&receiver).await;
    bench.told("x", TurnEnd::EndTurn).await;
    let path = format!("/v1/agents/{}", bench.server.agent);
    bench.server.post(&path).json(json!({"callback": null})).ok().await;
    let message = bench.settled().await.remove(0);
    assert_eq!(message["last_error"], "the callback was removed");
    let retry = format!("/v1/outbox/{}/retry", message["id"].as_str().unwrap());
    let why = bench.server.post(&retry).error(409, "invalid_request_error").await;
    assert!(why.contains("there is no callback"), "{why}");
    bench.stop().await;
}

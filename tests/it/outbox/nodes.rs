//! Several senders, and senders that die.

use std::{collections::BTreeSet, time::Duration};

use bellpull::{domain::turn::TurnEnd, fetch::Post, outbox::Options, store::Attempted};
use serde_json::json;

use super::{Bench, options};
use crate::{
    support::{
        process::{Process, command, until},
        receiver::{Answer, Received, Receiver},
    },
    web::server::Server,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_senders_do_not_send_the_same_message_at_once() {
    let bench = Bench::silent(Server::new().await);
    two_senders(bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_senders_on_postgres_do_not_send_the_same_message_at_once() {
    let bench = Bench::silent(Server::postgres().await);
    two_senders(bench).await;
}

async fn two_senders(bench: Bench) {
    let receiver = Receiver::new().await;
    bench.call_back(&receiver).await;
    for node in ["a", "b"] {
        // All refusals may meet one message, which is not given up then.
        let options = Options { retry_first_ms: 10, attempts_max: 20, ..options() };
        bench.sender(node, options, Post::new().unwrap());
    }
    receiver.script([500, 500, 429, 500].map(Answer::status));
    let mut sessions = Vec::new();
    for n in 0..10 {
        sessions.push(bench.told(&n.to_string(), TurnEnd::EndTurn).await);
    }
    for session in &sessions {
        bench.turn(session, "again", TurnEnd::EndTurn).await;
    }
    let sent = until("all are sent", async || {
        // For the clock that stands still; on PostgreSQL time passes by itself.
        bench.server.clock.advance(Duration::from_millis(20));
        let all = bench.outbox().await;
        (all.len() == 20 && all.iter().all(|it| it["status"] == "sent")).then_some(all)
    })
    .await;
    let received = receiver.received();
    let ids: BTreeSet<&str> = received.iter().map(Received::id).collect();
    assert_eq!(ids.len(), 20);
    // Four were refused once, and nothing was sent twice without need.
    assert_eq!(received.len(), 24);
    let attempts: i64 = sent.iter().map(|it| it["attempts"].as_i64().unwrap()).sum();
    assert_eq!(attempts, 24);
    bench.stop().await;
}

#[tokio::test]
async fn a_report_of_an_older_attempt_counts_only_if_the_message_arrived() {
    older_attempts(Bench::silent(Server::new().await)).await;
}

#[tokio::test]
async fn a_report_of_an_older_attempt_counts_only_if_the_message_arrived_on_postgres() {
    older_attempts(Bench::silent(Server::postgres().await)).await;
}

async fn older_attempts(bench: Bench) {
    let receiver = Receiver::new().await;
    bench.call_back(&receiver).await;
    bench.told("x", TurnEnd::EndTurn).await;
    let store = &bench.server.app.store;
    let claim = async |node: &str, seconds: u64| {
        let lease = Duration::from_secs(seconds);
        store.claim_outgoing(node.to_owned(), lease, 10, 4, Default::default()).await.unwrap()
    };
    // The first one's time is up at once; the second has an hour.
    let old = claim("a:1", 0).await.remove(0);
    let new = claim("b:1", 3600).await.remove(0);
    assert_eq!((old.id.clone(), old.attempt, new.attempt), (new.id.clone(), 1, 2));
    assert!(claim("c:1", 3600).await.is_empty());
    let failed = |why: &str| Attempted::Failed {
        code: Some(500),
        why: why.to_owned(),
        pause: Duration::ZERO,
        pause_all: None,
    };
    let dead = Attempted::Dead { code: None, why: "old".to_owned() };
    for attempted in [failed("old"), dead, Attempted::Dropped] {
        assert!(!store.attempted(&old, attempted).await.unwrap());
    }
    assert!(claim("c:1", 3600).await.is_empty(), "it is the second one's still");
    assert!(store.attempted(&new, failed("new")).await.unwrap());
    assert!(!store.attempted(&new, failed("twice")).await.unwrap());
    let last = claim("c:1", 3600).await.remove(0);
    assert!(store.attempted(&old, Attempted::Sent { code: 200 }).await.unwrap());
    assert!(!store.attempted(&last, failed("late")).await.unwrap());
    let message = bench.settled().await.remove(0);
    assert_eq!((&message["status"], &message["last_code"]), (&json!("sent"), &json!(200)));
    // A node that starts again has only its own claims back.
    bench.told("y", TurnEnd::EndTurn).await;
    claim("a:1", 3600).await.remove(0);
    let void = async |node: &str| {
        store.void_outgoing_claims(node.to_owned(), format!("{node}:2")).await.unwrap()
    };
    assert_eq!((void("b").await, void("a").await, void("a").await), (0, 1, 0));
    assert_eq!(claim("a:2", 3600).await.len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn stories_of_failures_hold_on_postgres() {
    let bench = Bench::postgres().await;
    let receiver = Receiver::new().await;
    bench.call_back(&receiver).await;
    receiver.script([500, 410].map(Answer::status));
    let session = bench.told("1", TurnEnd::EndTurn).await;
    bench.turn(&session, "2", TurnEnd::EndTurn).await;
    let all = bench.settled().await;
    assert!(all.iter().all(|it| it["status"] == "dead"), "{all:?}");
    let first = all[1]["id"].as_str().unwrap();
    bench.server.post(&format!("/v1/outbox/{first}/retry")).ok().await;
    bench.once("it is sent", |it| it["status"] == "sent").await;
    let list = bench.server.get("/v1/outbox?status=dead&limit=1").ok().await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    let pruned = bench.server.app.store.mend_outbox().await.unwrap();
    assert_eq!(pruned, 0);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_sets_a_callback_tests_it_and_sends_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(directory.path());
    let server = Process::serve(&data, &["--config", &config]).await;
    let receiver = Receiver::new().await;
    let key = server.admin_key();
    let bell = |arguments: &[&str]| {
        let output = command()
            .arg("outbox")
            .args(arguments)
            .envs([("BELLPULL_URL", server.url.as_str()), ("BELLPULL_API_KEY", &key)])
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let agents = server.get("/v1/agents").await;
    let agent = agents["data"][0]["id"].as_str().unwrap().to_owned();
    let (code, secret, error) = bell(&["callback", &agent, "--to", &receiver.url("/")]);
    assert_eq!(code, 0, "{error}");
    let secret = secret.trim();
    assert!(secret.starts_with("whsec_"), "{secret}");
    receiver.script([Answer::status(410)]);
    let (code, out, error) = bell(&["test", &agent]);
    assert_eq!(code, 0, "{out}{error}");
    let received = receiver.wait_for(1).await;
    assert!(received[0].is_signed_with(secret));
    let id = received[0].id().to_owned();
    until("it is dead", async || bell(&["--status", "dead"]).1.contains(&id).then_some(())).await;
    let (_, out, _) = bell(&["show", &id]);
    assert!(out.contains("answered 410") && out.contains("callback.test"), "{out}");
    assert_eq!(bell(&["retry", &id]).0, 0);
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].id(), id);
    let (code, new, _) = bell(&["rotate", &agent, "--overlap-seconds", "60"]);
    assert!(code == 0 && new.starts_with("whsec_") && new.trim() != secret, "{new}");
    let (code, out, _) = bell(&["callback", &agent, "--none"]);
    assert!(code == 0 && out.contains("nowhere"), "{out}");
    assert_eq!(bell(&["callback", &agent]).0, 2, "nothing to change");
}

/// The server's own webhook is the receiver.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_rings_itself_stops_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(directory.path());
    let server = Process::serve(&data, &["--config", &config]).await;
    let url = format!("{}/api/webhook/own", server.url);
    let body = json!({"name": "echo", "model": "rehearsal", "callback": {"url": url}});
    let agent = server.post("/v1/agents", body).await;
    let secret = &agent["callback"]["secret"];
    let source =
        json!({"name": "own", "preset": "standard-webhooks", "secret": secret, "agent": "echo"});
    server.post("/v1/sources", source).await;
    let test = format!("/v1/agents/{}/callback/test", agent["id"].as_str().unwrap());
    server.post(&test, json!({})).await;
    until("a delivery is held", async || {
        let held = server.get("/v1/deliveries?status=held").await;
        (held["data"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let all = server.get("/v1/deliveries").await;
    assert_eq!(all["data"].as_array().unwrap().len(), 4, "three turns, and the one that is held");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_declares_callbacks_and_its_urls_stay_hidden() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let receiver = Receiver::new().await;
    let path = config(directory.path());
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let more = format!(
        "[agents.lucy]\nmodel = \"rehearsal\"\n\
         [agents.lucy.callback]\nurl = {{ env = \"RESULTS_URL\" }}\nsecret = \"{secret}\"\n\
         [webhooks.shop]\npreset = \"bearer\"\nsecret = \"a-token-of-the-shop\"\n\
         [webhooks.shop.callback]\nurl = \"{}\"\nformat = \"slack\"\n",
        receiver.url("/chat-token")
    );
    let text = std::fs::read_to_string(&path).unwrap() + &more;
    std::fs::write(&path, text).unwrap();
    let url = receiver.url("/results?sig=hidden");
    let arguments = ["--config", &path];
    let server = Process::serve_with(&data, &arguments, &[("RESULTS_URL", &url)]).await;
    let agents = server.get("/v1/agents").await;
    let lucy = agents["data"].as_array().unwrap().iter().find(|it| it["name"] == "lucy").unwrap();
    assert_eq!(lucy["callback"]["url"], receiver.url("/results?…"));
    let test = format!("/v1/agents/{}/callback/test", lucy["id"].as_str().unwrap());
    server.post(&test, json!({})).await;
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].path, "/results?sig=hidden");
    assert!(received[0].is_signed_with(secret));
    server.post("/v1/sources/shop/callback/test", json!({})).await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].path, "/chat-token");
    assert_eq!(received[1].json()["text"], "This is a test of the callback.");
    // The same again leaves no trace.
    let n_before = server.get("/v1/audit?limit=100").await["data"].as_array().unwrap().len();
    assert!(server.terminate().await.success());
    let server = Process::serve_with(&data, &arguments, &[("RESULTS_URL", &url)]).await;
    let audit = server.get("/v1/audit?limit=100").await;
    assert_eq!(audit["data"].as_array().unwrap().len(), n_before);
    let told = audit.to_string() + &server.log();
    assert!(!told.contains("sig=hidden") && !told.contains("chat-token"), "{told}");
}

/// A config file for a server whose callbacks go to this machine.
fn config(directory: &std::path::Path) -> String {
    let path = directory.join("bellpull.toml");
    let text = "[outbox]\nallowed_private_hosts = [\"127.0.0.1\"]\nattempt_seconds_max = 60\n\
        drain_seconds = 1\n";
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_sent_when_the_server_was_killed_is_sent_again_with_the_same_id() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = config(directory.path());
    let server = Process::serve(&data, &["--config", &config]).await;
    let receiver = Receiver::new().await;
    // The receiver has it, and the server never hears so.
    receiver.script([Answer::never()]);
    let body = json!({"name": "a", "model": "rehearsal", "callback": {"url": receiver.url("/")}});
    let agent = server.post("/v1/agents", body).await;
    let secret = agent["callback"]["secret"].as_str().unwrap().to_owned();
    let environment = server.get("/v1/environments").await["data"][0]["id"].clone();
    let session = json!({"agent": agent["id"], "environment_id": environment});
    let session = server.post("/v1/sessions", session).await;
    let text = json!([{"type": "text", "text": "ring"}]);
    let events = json!({"events": [{"type": "user.message", "content": text}]});
    let path = format!("/v1/sessions/{}/events", session["id"].as_str().unwrap());
    server.post(&path, events).await;
    receiver.wait_for(1).await;
    server.kill();

    let server = Process::serve(&data, &["--config", &config]).await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received[0].id(), received[1].id());
    assert_eq!(received[0].json()["data"], received[1].json()["data"]);
    assert!(received.iter().all(|it| it.is_signed_with(&secret)));
    until("it is sent", async || {
        let list = server.get("/v1/outbox").await;
        (list["data"][0]["status"] == "sent" && list["data"][0]["attempts"] == 2).then_some(())
    })
    .await;
    let log = server.log();
    assert!(log.contains("sending again what an earlier run was sending"), "{log}");
    // Being told to stop does not wait for a receiver that never answers.
    receiver.script([Answer::never()]);
    let test = format!("/v1/agents/{}/callback/test", agent["id"].as_str().unwrap());
    server.post(&test, json!({})).await;
    receiver.wait_for(3).await;
    assert!(server.terminate().await.success());
}

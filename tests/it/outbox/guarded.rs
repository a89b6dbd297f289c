//! Where nothing is sent: private addresses, other places than the one that was named, round in circles.

use std::{net::SocketAddr, sync::Arc};

use bellpull::{
    domain::turn::TurnEnd,
    fetch::{Post, Resolver, is_public},
    outbox::Options,
    trust,
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::{Bench, options};
use crate::{
    support::receiver::{Answer, Receiver},
    web::server::Server,
};

/// Every name is this address's.
struct Leads(SocketAddr);

impl Resolver for Leads {
    fn resolve(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let address = self.0;
        Box::pin(async move { Ok(vec![address]) })
    }
}

/// Sends to `url` where no host near by may be sent to. Answers the message once it is given up.
async fn refused(url: &str, leads_to: SocketAddr) -> Value {
    let bench = Bench::silent(Server::new().await);
    let post = Post::with(Arc::new(Leads(leads_to)), is_public, trust::of([])).unwrap();
    bench.sender("a", Options { allowed_private_hosts: Vec::new(), ..options() }, post);
    bench.agent_callback(json!({"url": url})).await;
    bench.told("x", TurnEnd::EndTurn).await;
    let message = bench.settled().await.remove(0);
    bench.stop().await;
    message
}

#[tokio::test]
async fn no_address_near_by_is_sent_to_unless_the_operator_named_its_host() {
    let receiver = Receiver::new().await;
    let urls = [
        receiver.url("/"),
        format!("https://127.0.0.1:{}/", receiver.address.port()),
        format!("https://0x7f.1:{}/", receiver.address.port()),
        format!("https://[::ffff:127.0.0.1]:{}/", receiver.address.port()),
        "https://169.254.169.254/latest/meta-data/".to_owned(),
        "https://[fd00:ec2::254]/".to_owned(),
        "https://looks-public.example/".to_owned(),
    ];
    for url in urls {
        let message = refused(&url, receiver.address).await;
        assert_eq!(
            (&message["status"], &message["attempts"]),
            (&json!("dead"), &json!(1)),
            "{url}"
        );
        let why = message["last_error"].as_str().unwrap();
        assert!(why.contains("outbox.allowed_private_hosts"), "{url}: {why}");
    }
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_named_host_never_leads_to_the_addresses_of_the_link() {
    let bench = Bench::silent(Server::new().await);
    let metadata = Leads(([169, 254, 169, 254], 80).into());
    let post = Post::with(Arc::new(metadata), is_public, trust::of([])).unwrap();
    let named = vec!["build.internal".to_owned()];
    bench.sender("a", Options { allowed_private_hosts: named, ..options() }, post);
    bench.agent_callback(json!({"url": "https://build.internal/"})).await;
    bench.told("x", TurnEnd::EndTurn).await;
    let message = bench.settled().await.remove(0);
    assert_eq!((&message["status"], &message["attempts"]), (&json!("dead"), &json!(1)));
    bench.stop().await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let bench = Bench::new().await;
    let (receiver, elsewhere) = (Receiver::new().await, Receiver::new().await);
    for status in [301, 302, 307, 308] {
        let to = elsewhere.url("/");
        receiver.script([Answer::status(status).header("location", &to)]);
    }
    bench.call_back(&receiver).await;
    for _ in 0..4 {
        bench.told("x", TurnEnd::EndTurn).await;
    }
    receiver.wait_for(4).await;
    let failed = bench.once("all are put off", |it| it["last_code"] == 308).await;
    assert_eq!(failed["last_error"], "the receiver answered 308: redirects are not followed");
    assert!(elsewhere.received().is_empty());
    bench.stop().await;
}

#[tokio::test]
async fn urls_that_cannot_be_right_are_refused_at_once() {
    let bench = Bench::silent(Server::new().await);
    for (callback, at) in [
        (json!({"url": "http://example.com/"}), "callback.url"),
        (json!({"url": "https://user:pass@example.com/"}), "callback.url"),
        (json!({"url": "nonsense"}), "callback.url"),
        (json!({"format": "slack"}), "callback.url"),
        (json!({"url": "https://example.com/", "format": "xml"}), "callback.format"),
        (json!({"url": "https://example.com/", "events": []}), "callback.events"),
        (json!({"url": "https://example.com/", "events": ["callback.test"]}), "callback.events"),
        (json!({"url": "https://example.com/", "secret_key": "a b"}), "callback.secret_key"),
        (json!({"url": "https://example.com/", "secret": "short"}), "callback.secret"),
        (json!({"url": "https://example.com/", "retries": 1}), "callback.retries"),
        (json!("https://example.com/"), "callback"),
    ] {
        let path = format!("/v1/agents/{}", bench.server.agent);
        let call = bench.server.post(&path).json(json!({"callback": callback}));
        let why = call.error(400, "invalid_request_error").await;
        assert!(why.starts_with(&format!("{at}:")), "{callback}: {why}");
    }
    bench.stop().await;
}

/// The agent's results ring the agent.
#[tokio::test]
async fn a_callback_that_rings_its_own_agent_is_held_before_long() {
    let bench = Bench::new().await;
    // A proxy in front of the server would do the same: here the test carries each message over.
    let receiver = Receiver::new().await;
    let secret = bench.call_back(&receiver).await;
    let source = json!({"name": "own", "preset": "standard-webhooks", "secret": secret});
    bench.server.post("/v1/sources").json(source).ok().await;
    bench.told("first", TurnEnd::EndTurn).await;
    let mut statuses = Vec::new();
    for n in 1..=4 {
        let received = receiver.wait_for(n).await.pop().unwrap();
        assert_eq!(received.header("bellpull-hops"), n.to_string());
        let mut call = bench.server.bare("POST", "/api/webhook/own").body(received.body.clone());
        for (name, value) in &received.headers {
            if name.as_str().starts_with("webhook-") || name == "bellpull-hops" {
                call = call.header(name.as_str(), value.as_bytes());
            }
        }
        let answer = call.status(202).await;
        statuses.push(answer["status"].as_str().unwrap().to_owned());
        if answer["status"] == "held" {
            let id = answer["delivery_id"].as_str().unwrap();
            let delivery = bench.server.get(&format!("/v1/deliveries/{id}")).ok().await;
            let why = delivery["reason"].as_str().unwrap();
            assert!(why.contains("limits.callback_hops_max"), "{why}");
            break;
        }
        let lease = bench.server.work().await;
        bench.server.finish(&lease, TurnEnd::EndTurn).await;
        bench.server.app.signals.outgoing();
    }
    assert_eq!(statuses, ["accepted", "accepted", "accepted", "held"]);
    bench.stop().await;
}

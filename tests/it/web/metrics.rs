//! `/metrics`: who may read it, and that it tells what happened.

use std::{collections::BTreeMap, time::Duration};

use bellpull::{
    domain::turn::TurnEnd,
    id::{EventId, Id},
    ingest,
};
use serde_json::json;

use super::{client::Answer, server::Server};

/// Every sample by its name with labels.
struct Scraped(BTreeMap<String, f64>);

impl Scraped {
    fn of(answer: &Answer) -> Scraped {
        let text = std::str::from_utf8(&answer.body).expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Scraped(
            lines
                .map(|line| {
                    let (name, value) = line.rsplit_once(' ').expect("a value");
                    (name.to_owned(), value.parse().expect("a number"))
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.0.get(&format!("bellpull_{name}")).copied()
    }

    fn requests(&self, kind: &str, source: &str, result: &str) -> Option<f64> {
        self.get(&format!(
            "webhook_requests_total{{kind=\"{kind}\",source=\"{source}\",result=\"{result}\"}}"
        ))
    }
}

async fn scrape(server: &Server) -> Scraped {
    let answer = server.get("/metrics").send().await;
    assert_eq!(answer.status, 200);
    Scraped::of(&answer)
}

async fn shop(server: &Server) -> &'static str {
    let token = "token-of-the-shop-0123456789";
    server.secret("SHOP", token).await;
    let source = json!({"name": "shop", "preset": "bearer", "secret_key": "SHOP"});
    server.post("/v1/sources").json(source).ok().await;
    token
}

#[tokio::test]
async fn numbers_are_for_those_who_may_read() {
    let server = Server::new().await;
    server.bare("GET", "/metrics").status(401).await;
    server.bare("GET", "/metrics").bearer("wrong").status(401).await;
    let key = async |scope: &str| {
        let body = json!({"name": scope, "scopes": [scope]});
        let made = server.post("/v1/api_keys").json(body).ok().await;
        made["key"].as_str().expect("a key").to_owned()
    };
    server.bare("GET", "/metrics").bearer(&key("ingest:shop").await).status(403).await;
    let answer = server.bare("GET", "/metrics").bearer(&key("read").await).send().await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").expect("a type");
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");

    let mut options = server.app.options().as_ref().clone();
    options.metrics_public = true;
    server.app.set_options(options);
    assert_eq!(server.bare("GET", "/metrics").send().await.status, 200);
}

#[tokio::test]
async fn requests_are_counted_by_source_and_result() {
    let server =
        Server::with(ingest::Options { body_bytes_max: 1024, ..ingest::Options::default() }).await;
    let token = shop(&server).await;
    let ring = || server.bare("POST", "/api/webhook/shop").bearer(token);
    ring().header("idempotency-key", "1").body("{}").status(202).await;
    ring().header("idempotency-key", "1").body("{}").status(202).await;
    ring().body("x".repeat(2000)).status(413).await;
    server.bare("POST", "/api/webhook/shop").bearer("wrong").body("{}").status(401).await;
    server.bare("POST", "/api/webhook/made-up").bearer("wrong").body("{}").status(401).await;
    let agent_token = server.token().await;
    server.hook().bearer(agent_token).body("{}").status(202).await;

    let scraped = scrape(&server).await;
    for (kind, source, result, n) in [
        ("named", "shop", "accepted", 1.0),
        ("named", "shop", "duplicate", 1.0),
        ("named", "shop", "too_large", 1.0),
        ("named", "shop", "refused", 1.0),
        ("named", "shop", "held", 0.0),
        ("named", "(unknown)", "refused", 1.0),
        ("agent", &server.agent, "accepted", 1.0),
    ] {
        assert_eq!(scraped.requests(kind, source, result), Some(n), "{kind} {source} {result}");
    }
    assert!(scraped.0.keys().all(|name| !name.contains("made-up")), "{:?}", scraped.0);
    assert_eq!(scraped.get("accept_duration_seconds_count"), Some(3.0));
    assert_eq!(scraped.get("store_commit_accepts_sum"), Some(3.0));
    assert!(scraped.get("store_commit_duration_seconds_count") > Some(3.0));
}

async fn what_waits_is_told_until_a_turn_takes_it(server: Server) {
    let token = shop(&server).await;
    server.bare("POST", "/api/webhook/shop").bearer(token).body("{}").status(202).await;
    server.clock.advance(Duration::from_secs(90));
    server.bare("POST", "/api/webhook/shop").bearer(token).body("{\"n\":2}").status(202).await;
    let scraped = scrape(&server).await;
    assert_eq!(scraped.get("waiting_sessions{kind=\"named\",source=\"shop\"}"), Some(2.0));
    assert_eq!(scraped.get("oldest_waiting_seconds{kind=\"named\",source=\"shop\"}"), Some(90.0));

    for _ in 0..2 {
        let lease = server.work().await;
        let id = EventId::new(server.clock.now());
        server.answer(&lease, id, "done").await;
        server.finish(&lease, TurnEnd::EndTurn).await;
    }
    // A look at the database stands for some seconds.
    server.clock.advance(Duration::from_secs(6));
    let scraped = scrape(&server).await;
    assert_eq!(scraped.get("oldest_waiting_seconds{kind=\"named\",source=\"shop\"}"), Some(0.0));
}

#[tokio::test]
async fn what_waits_is_told_until_a_turn_takes_it_sqlite() {
    what_waits_is_told_until_a_turn_takes_it(Server::new().await).await;
}

#[tokio::test]
async fn what_waits_is_told_until_a_turn_takes_it_postgres() {
    what_waits_is_told_until_a_turn_takes_it(Server::postgres().await).await;
}

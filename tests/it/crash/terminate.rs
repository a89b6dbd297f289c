//! SIGTERM: a stop loses no more than a crash does, ends in time, and leaves no lease behind.

use std::time::Duration;

use bellpull::clock::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Random, World, events,
    load::{Load, TOKEN, ring},
    outcome,
};
use crate::{
    model::story::types,
    support::{
        full,
        model_server::{ModelServer, Reply},
        process::{Process, until},
    },
};

/// What open requests get besides the drain, and what starting and ending a process takes.
const GOODBYE: Duration = Duration::from_secs(5 + 3);

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_keeps_every_promise_on_sqlite() {
    under_load(World::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_keeps_every_promise_on_postgres() {
    under_load(World::postgres()).await;
}

async fn under_load(world: World) {
    let world = world.with("BELLPULL_WORKER__DRAIN_SECONDS", "1");
    let (mut random, load) = (Random::new(), Load::default());
    let n_stops = if full() { 50 } else { 5 };
    for _ in 0..n_stops {
        let server = world.serve().await;
        let senders = load.start(&server);
        load.accepts(1 + random.next(200) as usize).await;
        stopped_within(server, Duration::from_secs(1)).await;
        senders.lose().await;
        assert_eq!(world.n_leases().await, 0);
    }
    let server = world.serve().await;
    load.settle(&server).await;
    assert!(server.terminate().await.success());
    world.has_no_gap().await;
}

async fn stopped_within(server: Process, drain: Duration) {
    let told = Clock::system().monotonic();
    assert!(server.terminate().await.success());
    let took = Clock::system().monotonic() - told;
    assert!(took < drain + GOODBYE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_ends_within_the_drain_is_not_cut_off() {
    let slow = Reply::text(&["one ", "two ", "three"]).slowly(Duration::from_millis(100));
    let models = ModelServer::start([slow]).await;
    let world = World::sqlite().asking(&models).with("BELLPULL_WORKER__DRAIN_SECONDS", "20");
    let server = world.serve().await;
    let rung = ring(&server, "{}").await;
    until("the model is asked", async || (models.requests().len() == 1).then_some(())).await;
    stopped_within(server, Duration::from_secs(20)).await;
    assert_eq!(models.abandoned().len(), 0);
    assert_eq!(world.n_leases().await, 0);

    let server = world.serve().await;
    assert_eq!(outcome(&server, &rung.delivery).await, "succeeded");
    let events = events(&server, &rung.session).await;
    assert_eq!(types(&events), ["running", "user", "ask", "message", "answered", "idle"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_outlasts_the_drain_is_handed_back_on_sqlite() {
    outlasted(World::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_outlasts_the_drain_is_handed_back_on_postgres() {
    outlasted(World::postgres()).await;
}

async fn outlasted(world: World) {
    let stalled = Reply::text(&["never to be seen"]).stall_after(30);
    let models = ModelServer::start([stalled, Reply::text(&["In another life."])]).await;
    let world = world.asking(&models).with("BELLPULL_WORKER__DRAIN_SECONDS", "1");
    let server = world.serve().await;
    let rung = ring(&server, "{}").await;
    until("the model is asked", async || (models.requests().len() == 1).then_some(())).await;
    assert_eq!(world.n_leases().await, 1);
    stopped_within(server, Duration::from_secs(1)).await;
    until("the model is let go", async || (models.abandoned().len() == 1).then_some(())).await;
    assert_eq!(world.n_leases().await, 0);

    let server = world.serve().await;
    assert_eq!(outcome(&server, &rung.delivery).await, "succeeded");
    let events = events(&server, &rung.session).await;
    assert_eq!(
        types(&events),
        ["running", "user", "ask", "failed", "ask", "message", "answered", "idle"]
    );
    assert!(server.terminate().await.success());
    world.has_no_gap().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_half_sent_is_still_taken() {
    let world = World::sqlite();
    let server = world.serve().await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let body = r#"{"type":"load","id":"half"}"#;
    let head = format!(
        "POST /api/webhook/load HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Idempotency-Key: half\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body: from here on the request is under way.
    assert!(read_until(&mut socket, "\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
    socket.write_all(&body.as_bytes()[..10]).await.unwrap();
    server.signal("TERM");
    until("the server stops", async || server.log().contains("stopping").then_some(())).await;
    socket.write_all(&body.as_bytes()[10..]).await.unwrap();
    let answer = read_until(&mut socket, "delivery_id").await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert!(server.ended().await.success());

    let server = world.serve().await;
    let deliveries = server.get("/v1/deliveries").await;
    assert_eq!(deliveries["data"].as_array().unwrap().len(), 1);
    let delivery = deliveries["data"][0]["id"].as_str().unwrap();
    assert_eq!(outcome(&server, delivery).await, "succeeded");
}

async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let reading =
            tokio::time::timeout(crate::support::process::PATIENCE, socket.read(&mut buffer));
        let n = reading.await.expect("an answer comes").unwrap();
        assert!(n > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

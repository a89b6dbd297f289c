//! Callers that have not proved themselves: what they can make the server do before they are
//! refused, and what they cannot.

use std::time::Duration;

use axum::body::Body;
use bellpull::ingest::Options;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use ring::hmac;
use serde_json::json;

use crate::web::{
    client::Call,
    server::{BOX, Server},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn signature(body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, body);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn server(bounds: Options) -> Server {
    let server = Server::with(bounds).await;
    for name in ["one", "two"] {
        let source = json!({"name": name, "preset": "github", "secret": SECRET});
        server.post("/v1/sources").json(source).ok().await;
    }
    server.post("/v1/sources").json(json!({"name": "known"})).ok().await;
    server
}

fn hook(server: &Server, name: &str) -> Call {
    server.bare("POST", &format!("/api/webhook/{name}"))
}

/// What nobody with a secret sent, and looks like it.
fn pretender(server: &Server, name: &str) -> Call {
    hook(server, name).header("x-hub-signature-256", format!("sha256={}", "0".repeat(64)))
}

fn honest(server: &Server, name: &str, body: Vec<u8>) -> Call {
    let signature = format!("sha256={}", signature(&body));
    hook(server, name).header("x-hub-signature-256", signature).body(body)
}

/// So many bytes, and then nothing more, and no end.
fn stuck(bytes: usize) -> Body {
    let piece = Ok::<_, std::io::Error>(Bytes::from(vec![b'a'; bytes]));
    Body::from_stream(stream::iter([piece]).chain(stream::pending()))
}

fn untouchable() -> Body {
    Body::from_stream(stream::poll_fn(|_| -> std::task::Poll<Option<std::io::Result<Bytes>>> {
        panic!("the body was read")
    }))
}

#[tokio::test]
async fn a_body_is_read_only_when_nothing_else_can_decide() {
    let server = server(Options::default()).await;
    let stripe = json!({"name": "shop", "preset": "stripe", "secret": SECRET});
    server.post("/v1/sources").json(stripe).ok().await;
    let now = server.clock.now().0 / 1000;
    let (old, zeros) = (now - 412, "0".repeat(64));
    let calls = [
        hook(&server, "nobody").header("x-hub-signature-256", format!("sha256={zeros}")),
        hook(&server, "one"),
        hook(&server, "one").header("x-hub-signature-256", "sha256=0"),
        hook(&server, "one").header("x-hub-signature-256", format!("sha1={zeros}")),
        hook(&server, "one").header("x-hub-signature", format!("sha256={zeros}")),
        pretender(&server, "one").header("x-hub-signature-256", format!("sha256={zeros}")),
        hook(&server, "shop").header("stripe-signature", format!("t={old},v1={zeros}")),
        hook(&server, "shop").header("stripe-signature", format!("t={now},v0={zeros}")),
        hook(&server, "shop").header("stripe-signature", format!("t={now},t={now},v1={zeros}")),
        hook(&server, "shop").header("stripe-signature", format!("t=+{now},v1={zeros}")),
        hook(&server, "shop").header("stripe-signature", format!("v1={zeros}")),
    ];
    for call in calls {
        call.body(untouchable()).error(401, "authentication_error").await;
    }
}

#[tokio::test]
async fn a_large_body_that_is_refused_leaves_nothing_behind() {
    let server = server(Options::default()).await;
    let body = vec![b'a'; 3 * 1024 * 1024];
    pretender(&server, "one").body(body.clone()).error(401, "authentication_error").await;
    server.clock.advance(Duration::from_secs(7 * 24 * 3600));
    assert_eq!(server.app.store.sweep_orphans().await.expect("it sweeps"), 0);
    let none = server.get("/v1/deliveries").ok().await;
    assert_eq!(none["data"], json!([]));
    honest(&server, "one", body.clone()).status(202).await;
    let kept = server.get("/v1/deliveries").ok().await;
    assert_eq!(kept["data"][0]["body_bytes"], body.len());
}

#[tokio::test]
async fn the_room_of_those_who_prove_themselves_is_not_taken_by_pretenders() {
    const KIB: usize = 1024;
    let bounds = Options {
        body_bytes_max: 400 * KIB,
        in_flight_bytes_max: 4096 * KIB,
        unverified_bytes_max: 2048 * KIB,
        ..Options::default()
    };
    let server = server(bounds).await;
    // Large ones of one source: each keeps what it has sent, whatever it has declared.
    let mut held = Vec::new();
    for _ in 0..2 {
        let call = pretender(&server, "one").header("content-length", "409600");
        let mut call = Box::pin(call.body(stuck(350 * KIB)).send());
        assert!((&mut call).now_or_never().is_none(), "it waits for the rest");
        held.push(call);
    }
    let large = || vec![b'b'; 300 * KIB];
    let answer = honest(&server, "one", large()).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("10")));
    // Small ones of the same source, and anything of others, are let in.
    honest(&server, "one", vec![b'b'; 60 * KIB]).status(202).await;
    honest(&server, "two", large()).status(202).await;
    hook(&server, "known").bearer(BOX).body(large()).status(202).await;

    // Small ones of all sources.
    for (name, n) in [("one", 2), ("two", 4)] {
        for _ in 0..n {
            let mut call = Box::pin(pretender(&server, name).body(stuck(62 * KIB)).send());
            assert!((&mut call).now_or_never().is_none(), "it waits for the rest");
            held.push(call);
        }
    }
    assert_eq!(honest(&server, "two", vec![b'c'; 40 * KIB]).send().await.status, 503);
    hook(&server, "known").bearer(BOX).body(vec![b'c'; 400 * KIB]).status(202).await;

    // Whoever gives up gives back.
    held.clear();
    honest(&server, "one", large()).status(202).await;
    honest(&server, "two", vec![b'c'; 40 * KIB]).status(202).await;
}

#[tokio::test]
async fn a_declared_length_takes_no_room() {
    let bounds =
        Options { in_flight_bytes_max: 25 * 1024 * 1024 + 1024 * 1024, ..Options::default() };
    let server = server(bounds).await;
    let mut held = Vec::new();
    for name in ["one", "two", "one", "two", "one"] {
        let call = pretender(&server, name).header("content-length", "26214400");
        let mut call = Box::pin(call.body(stuck(100)).send());
        assert!((&mut call).now_or_never().is_none(), "it waits for the rest");
        held.push(call);
    }
    hook(&server, "known").bearer(BOX).body(vec![b'a'; 20 * 1024 * 1024]).status(202).await;
}

#[tokio::test]
async fn a_pretender_has_less_time() {
    let bounds = Options { unverified_seconds_max: 0, ..Options::default() };
    let server = server(bounds).await;
    pretender(&server, "one").body(stuck(100)).error(408, "timeout_error").await;
    // A known one has its own.
    let mut call = Box::pin(hook(&server, "known").bearer(BOX).body(stuck(100)).send());
    assert!((&mut call).now_or_never().is_none());
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
}

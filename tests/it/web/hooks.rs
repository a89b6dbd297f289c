//! The webhook routes beyond the contracts: bounds, order of checks, deliveries at the same time.

use axum::body::Body;
use bellpull::{domain::turn::TurnEnd, ingest::Options, signal::Told};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::join_all, stream};
use serde_json::{Value, json};

use super::{
    client::Call,
    server::{BOX, MASTER, Server},
};

/// A body that nobody may ask for.
fn untouchable() -> Body {
    Body::from_stream(stream::poll_fn(|_| -> std::task::Poll<Option<std::io::Result<Bytes>>> {
        panic!("the body was read")
    }))
}

#[tokio::test]
async fn nothing_about_a_name_is_told_before_the_gate() {
    let server = Server::new().await;
    server.token().await;
    let source = json!({"name": "stripe", "preset": "bearer", "secret": "s3cret"});
    server.post("/v1/sources").json(source).ok().await;
    let unset = json!({"name": "unset", "preset": "header", "secret_key": "NOT_THERE"});
    server.post("/v1/sources").json(unset).ok().await;

    let long = "n".repeat(10_000);
    let names = [
        "stripe",
        "unset",
        "nobody",
        "%C3%A9t%C3%A9",
        "%00",
        "%FF%FE",
        "a%2Fb",
        "..",
        "%2e%2e",
        &long,
        "%ED%A0%80",
        "STRIPE",
        "stripe%20",
        "'--",
        "%25s",
    ];
    let mut bodies = std::collections::BTreeSet::new();
    for name in names.iter().copied().chain([server.agent.as_str()]) {
        for path in [format!("/api/webhook/{name}"), format!("/api/agents/{name}/webhook")] {
            let call = |call: Call| async {
                // Neither a length nor a body is looked at.
                let call = call.header("content-length", "999999999999").body(untouchable());
                let answer = call.send().await;
                assert_eq!(answer.status, 401, "{path}");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
                answer.body
            };
            bodies.insert(call(server.bare("POST", &path)).await);
            bodies.insert(call(server.bare("POST", &path).bearer("wrong")).await);
            let doubled =
                server.bare("POST", &path).bearer("a").header("authorization", "Bearer b");
            bodies.insert(call(doubled).await);
            for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
                let answer = server.bare(method, &path).send().await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert_eq!(answer.header("allow"), Some("POST"));
            }
        }
    }
    assert_eq!(bodies.len(), 1, "one body for all of them: {bodies:?}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_to_whoever_may_know_all_names() {
    let server = Server::new().await;
    let nobody = || server.bare("POST", "/api/webhook/nobody");
    nobody().bearer(BOX).error(404, "not_found_error").await;
    nobody().bearer(MASTER).error(404, "not_found_error").await;
    let key = json!({"name": "reader", "scopes": ["read", "ingest:other"]});
    let key = server.post("/v1/api_keys").json(key).ok().await;
    nobody().bearer(key["key"].as_str().expect("a key")).error(401, "authentication_error").await;
}

#[tokio::test]
async fn a_key_for_one_source_passes_that_source_only() {
    let server = Server::new().await;
    for name in ["one", "two"] {
        server.post("/v1/sources").json(json!({"name": name})).ok().await;
    }
    let key = json!({"name": "sender", "scopes": ["ingest:one"]});
    let key = server.post("/v1/api_keys").json(key).ok().await;
    let token = key["key"].as_str().expect("a key");
    let hook = |name: &str| server.bare("POST", &format!("/api/webhook/{name}")).bearer(token);
    hook("one").body("{}").status(202).await;
    hook("two").body("{}").error(401, "authentication_error").await;
    let id = key["id"].as_str().expect("an id");
    server.call("DELETE", &format!("/v1/api_keys/{id}")).ok().await;
    hook("one").body("{}").error(401, "authentication_error").await;
}

#[tokio::test]
async fn the_presets_compare_what_they_say() {
    let server = Server::new().await;
    let make = async |value: Value| server.post("/v1/sources").json(value).ok().await;
    make(json!({"name": "b", "preset": "basic", "username": "u", "secret": "p:w"})).await;
    make(json!({"name": "h", "preset": "header", "header": "X-Token", "secret": "t"})).await;
    make(json!({"name": "v", "verifier": {"type": "header", "header": "x-y"}, "secret": "t"}))
        .await;
    let hook = |name: &str| server.bare("POST", &format!("/api/webhook/{name}")).body("{}");
    let basic = |text: &str| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        hook("b").header("authorization", format!("Basic {}", STANDARD.encode(text)))
    };
    basic("u:p:w").status(202).await;
    basic("u:p").error(401, "authentication_error").await;
    basic("x:p:w").error(401, "authentication_error").await;
    hook("h").header("x-token", "t").status(202).await;
    hook("h")
        .header("x-token", "t")
        .header("x-token", "t")
        .error(401, "authentication_error")
        .await;
    hook("v").header("x-y", "t").status(202).await;
}

#[tokio::test]
async fn every_bound_has_an_answer() {
    let bounds = Options {
        body_bytes_max: 1000,
        in_flight_bytes_max: 64 * 1024,
        body_seconds_max: 0,
        waiting_sessions_max: 3,
        ..Options::default()
    };
    let server = Server::with(bounds).await;
    let token = server.token().await;
    let hook = || server.hook().bearer(token);

    // Known by its length, before a byte of it.
    let answer = hook().header("content-length", "1001").body(untouchable()).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (413, Some("close")));
    assert_eq!(answer.json()["error"]["type"], "request_too_large");
    // Known by its bytes.
    let piece = || Ok::<_, std::io::Error>(Bytes::from_static(&[b'a'; 600]));
    let endless = Body::from_stream(stream::repeat_with(piece));
    hook().body(endless).error(413, "request_too_large").await;
    // A header that lies.
    hook()
        .header("content-length", "3")
        .body("a".repeat(1001))
        .error(413, "request_too_large")
        .await;
    hook().body("a".repeat(1000)).status(202).await;

    // Stops in the middle.
    let slow = stream::iter([piece()]).chain(stream::pending());
    hook().body(Body::from_stream(slow)).error(408, "timeout_error").await;
    let broken = stream::iter([piece(), Err(std::io::Error::other("gone"))]);
    hook().body(Body::from_stream(broken)).error(408, "timeout_error").await;

    // No room for another body.
    let mut all = bellpull::ingest::Permit::default();
    server.app.ingest.bounds.reserve(&mut all, 64 * 1024).expect("nobody else is there");
    let answer = hook().body("a").send().await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("10")));
    assert_eq!(answer.json()["error"]["type"], "overloaded_error");
    let text = answer.json()["error"]["message"].to_string();
    assert!(!text.contains("bodies"), "no word about the inside: {text}");
    drop(all);

    // Too many sessions wait.
    hook().body("b").status(202).await;
    hook().body("c").status(202).await;
    assert_eq!(hook().body("d").send().await.status, 503);

    // The disk is full, for everybody.
    server.app.ingest.bounds.set_free_disk(1);
    assert_eq!(hook().body("e").send().await.status, 503);
}

#[tokio::test]
async fn many_first_requests_at_once_are_one_delivery() {
    many_at_once(Server::new().await).await;
}

#[tokio::test]
async fn many_first_requests_at_once_are_one_delivery_on_postgres() {
    many_at_once(Server::postgres().await).await;
}

async fn many_at_once(mut server: Server) {
    let token = server.token().await;
    while server.told.try_recv().is_ok() {}
    let calls = (0..16).map(|_| {
        server.hook().bearer(token).header("webhook-id", "evt_1").body("{\"n\":1}").status(202)
    });
    let answers = join_all(calls).await;
    let with = |status: &str| answers.iter().filter(|it| it["status"] == status).count();
    assert_eq!((with("accepted"), with("duplicate")), (1, 15));
    for answer in &answers {
        assert_eq!(answer["session_id"], answers[0]["session_id"]);
        assert_eq!(answer["delivery_id"], answers[0]["delivery_id"]);
    }
    let session = answers[0]["session_id"].as_str().expect("a session");
    assert_eq!(server.events(session).await.len(), 1);
    // Whoever works or watches was told once.
    let told: Vec<Told> = std::iter::from_fn(|| server.told.try_recv().ok()).collect();
    assert_eq!(told, [Told::Due, Told::Changed(session.parse().expect("an id"))]);
}

#[tokio::test]
async fn a_failed_delivery_runs_again_where_the_source_says_so() {
    let server = Server::new().await;
    server
        .post("/v1/sources")
        .json(json!({"name": "s", "on_redelivery": "rerun_failed"}))
        .ok()
        .await;
    let hook = || {
        let call = server.bare("POST", "/api/webhook/s").bearer(BOX);
        call.header("idempotency-key", "k").body("{}").status(202)
    };
    let first = hook().await;
    assert_eq!(hook().await["status"], "duplicate", "it is still pending");
    let lease = server.work().await;
    server.finish(&lease, TurnEnd::Failed).await;
    let again = hook().await;
    assert_eq!(
        (&again["status"], &again["session_id"]),
        (&json!("accepted"), &first["session_id"])
    );
    assert_eq!(again["delivery_id"], first["delivery_id"]);
    let events = server.events(first["session_id"].as_str().expect("a session")).await;
    let origin = &events.last().expect("the second message")["origin"];
    assert_eq!((&origin["delivery_id"], &origin["rerun"]), (&first["delivery_id"], &json!(3)));
    let lease = server.work().await;
    server.finish(&lease, TurnEnd::EndTurn).await;
    assert_eq!(hook().await["status"], "duplicate", "it has succeeded");
}

#[tokio::test]
async fn what_comes_for_a_paused_agent_wakes_nobody_until_it_is_resumed() {
    let server = Server::new().await;
    server.post("/v1/sources").json(json!({"name": "s"})).ok().await;
    let agents = server.get("/v1/agents").ok().await;
    let agent = agents["data"][0]["id"].as_str().expect("an agent").to_owned();
    let has_rung = || server.app.signals.wait_due().now_or_never().is_some();
    for (verb, wakes) in [("pause", false), ("resume", true)] {
        server.post(&format!("/api/agents/{agent}/{verb}")).json(json!({})).ok().await;
        assert!(has_rung(), "{verb}");
        let call = server.bare("POST", "/api/webhook/s").bearer(BOX);
        let answer = call.header("idempotency-key", verb).body("{}").status(202).await;
        assert_eq!((&answer["status"], has_rung()), (&json!("accepted"), wakes), "{verb}");
    }
}

#[tokio::test]
async fn what_cannot_be_routed_is_held() {
    let server = Server::new().await;
    let source = json!({"name": "s", "target": {"key": "{{ body.ticket }}"}});
    server.post("/v1/sources").json(source).ok().await;
    let hook = |body: &'static str| server.bare("POST", "/api/webhook/s").bearer(BOX).body(body);
    let first = hook("{\"ticket\":1}").status(202).await;
    let same = hook("{\"ticket\":1,\"n\":2}").status(202).await;
    let other = hook("{\"ticket\":2}").status(202).await;
    assert_eq!(first["session_id"], same["session_id"]);
    assert_ne!(first["session_id"], other["session_id"]);

    let held = hook("{}").status(202).await;
    assert_eq!((&held["status"], &held["session_id"]), (&json!("held"), &Value::Null));
    server.post("/v1/sources/s/pause").ok().await;
    assert_eq!(hook("{\"ticket\":3}").status(202).await["status"], "held");
    server.post("/v1/sources/s/resume").ok().await;
    assert_eq!(hook("{\"ticket\":3}").status(202).await["status"], "accepted");

    let list = server.get("/v1/deliveries?status=held&source=s").ok().await;
    let reasons: Vec<_> =
        list["data"].as_array().expect("a list").iter().map(|it| &it["reason"]).collect();
    assert_eq!(reasons.len(), 2);
    assert!(reasons.contains(&&json!("the source is paused")));
}

#[tokio::test]
async fn bounds_are_spoken_of_behind_the_gate_only() {
    let bounds = Options { waiting_sessions_max: 0, ..Options::default() };
    let server = Server::with(bounds).await;
    server.post("/v1/sources").json(json!({"name": "s"})).ok().await;
    server.token().await;
    let agent = format!("/api/agents/{}/webhook", server.agent);
    for path in ["/api/webhook/s", &agent] {
        let known = server.bare("POST", path).bearer("wrong").body("{}").send().await;
        let nowhere = server.bare("POST", "/api/webhook/nowhere").bearer("wrong").body("{}");
        let unknown = nowhere.send().await;
        assert_eq!((known.status.as_u16(), unknown.status.as_u16()), (401, 401), "{path}");
        assert_eq!(known.json()["error"], unknown.json()["error"]);
    }
    let let_in = server.bare("POST", "/api/webhook/s").bearer(BOX).body("{}");
    let_in.error(503, "overloaded_error").await;
}

#[tokio::test]
async fn a_paused_agent_keeps_accepting() {
    let server = Server::new().await;
    let token = server.token().await;
    server.post(&format!("/api/agents/{}/pause", server.agent)).ok().await;
    assert_eq!(server.hook().bearer(token).body("{}").status(202).await["status"], "accepted");
    // An archived one lets nobody in, and looks like any name that does not exist.
    server.call("DELETE", &format!("/api/agents/{}", server.agent)).ok().await;
    server.hook().bearer(token).body("{}").error(401, "authentication_error").await;
}

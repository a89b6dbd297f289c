//! Turns that somebody stops.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Server, World, calls, text, tool, write};
use crate::{
    sandbox::is_running,
    support::{model_server::Reply, process::until},
};

/// From the request on: a bound of the product, with room for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_model_request_is_stopped_on_sqlite() {
    let (_gate, reply) = Reply::text(&["never"]).held();
    let world = World::sqlite(vec![reply, Reply::text(&["next"])]).await;
    let server = world.serve().await;
    stop_asking(&world, &server, &server).await;
}

/// Said to one server and heard by the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_request_is_stopped_by_another_server_on_postgres() {
    let (_gate, reply) = Reply::text(&["never"]).held();
    let world = World::postgres(vec![reply, Reply::text(&["next"])]).await;
    let server = world.serve().await;
    let agent = server.agent(json!([])).await;
    let session = server.session(&agent).await;
    asked(&world, 1).await;
    // It began when there was no other one.
    let other = world.serve_as("other").await;
    stop(&world, &other, &session).await;
}

async fn stop_asking(world: &World, server: &Server, other: &Server) {
    let agent = server.agent(json!([])).await;
    let session = server.session(&agent).await;
    asked(world, 1).await;
    stop(world, other, &session).await;
}

async fn asked(world: &World, n: usize) {
    until("the model is asked", async || (world.models.requests().len() == n).then_some(())).await;
}

async fn stop(world: &World, server: &Server, session: &str) {
    let begun = Instant::now();
    let (status, sent) = server.say(session, json!({"type": "user.interrupt"})).await;
    assert_eq!((status, &sent["data"][0]["processed_at"]), (200, &json!(null)), "{sent}");
    assert_eq!(server.rest(session).await["type"], "end_turn");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    until("the request is given up", async || (!world.models.abandoned().is_empty()).then_some(()))
        .await;
    let types = server.types(session).await;
    let ends = ["user.interrupt", "span.model_request_end", "session.status_idle"];
    assert_eq!(types[types.len() - 3..], ends);
    let events = server.events(session).await;
    assert_eq!(events[types.len() - 3]["id"], sent["data"][0]["id"]);

    // At rest it stops nothing, and the next message is answered.
    let (_, idle) = server.say(session, json!({"type": "user.interrupt"})).await;
    assert!(idle["data"][0]["processed_at"].is_string(), "{idle}");
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "go on"}]});
    server.say(session, message).await;
    until("the next message is answered", async || {
        let types = server.types(session).await;
        types.contains(&"agent.message".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_stopped_with_everything_that_it_started() {
    let command = "sleep 86431 & setsid sleep 86432 & sleep 86433";
    let world = World::sqlite(vec![calls(&[("bash", json!({"command": command}))])]).await;
    let server = world.serve().await;
    let agent = server.agent(json!([tool("bash", "always_allow")])).await;
    let session = server.session(&agent).await;
    let all = ["sleep 86431", "sleep 86432", "sleep 86433"];
    until("all of it runs", async || all.iter().all(|it| is_running(it)).then_some(())).await;
    let begun = Instant::now();
    let (status, sent) = server.say(&session, json!({"type": "user.interrupt"})).await;
    assert_eq!(status, 200, "{sent}");
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    until("all of it is gone", async || (!all.iter().any(|it| is_running(it))).then_some(())).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let results = server.results(&session).await;
    assert!(results[0].starts_with("interrupted"), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_waits_for_an_answer_is_stopped_on_sqlite() {
    stop_waiting(World::sqlite(vec![calls(&[write("a.txt", "x")])]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_waits_for_an_answer_is_stopped_on_postgres() {
    stop_waiting(World::postgres(vec![calls(&[write("a.txt", "x")])]).await).await;
}

async fn stop_waiting(world: World) {
    let server = world.serve().await;
    let agent = server.agent(json!([tool("write", "always_ask")])).await;
    let session = server.session(&agent).await;
    let reason = server.rest_for(&session, "requires_action").await;
    server.say(&session, json!({"type": "user.interrupt"})).await;
    server.rest_for(&session, "end_turn").await;
    assert!(!world.file(&session, "a.txt").exists());
    let results = server.results(&session).await;
    assert_eq!(results, ["this was not carried out: the turn ended before."]);
    let call = text(&reason["event_ids"][0]);
    let (status, late) = server.say(&session, super::allow(&json!(call))).await;
    assert_eq!(status, 409, "{late}");
}

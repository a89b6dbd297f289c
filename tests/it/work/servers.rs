//! MCP servers that misbehave: the turn goes on, and the ledger says what is known.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Server, World, calls, text};
use crate::support::{mcp_server::McpServer, model_server::Reply, process::until};

async fn world(script: Vec<Reply>, postgres: bool) -> World {
    let world = match postgres {
        true => World::postgres(script).await,
        false => World::sqlite(script).await,
    };
    world
        .with("BELLPULL_MCP__ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
        .with("BELLPULL_MCP__CALL_SECONDS_MAX", "1")
}

async fn session(server: &Server, odd: &McpServer) -> String {
    let policy = json!({"permission_policy": {"type": "always_allow"}});
    let agent = json!({"name": "caller", "model": "claude-scripted",
        "mcp_servers": [{"type": "url", "name": "odd", "url": odd.url}],
        "tools": [{"type": "mcp_toolset", "mcp_server_name": "odd", "default_config": policy}]});
    let agent = text(&server.post("/v1/agents", agent).await["id"]);
    server.session(&agent).await
}

async fn told(server: &Server, session: &str) -> Vec<(String, bool)> {
    let events = server.events(session).await;
    let results = events.iter().filter(|event| event["type"] == "agent.mcp_tool_result");
    let told = |it: &Value| (text(&it["content"][0]["text"]), it["is_error"] == true);
    results.map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_misbehaves_costs_one_call_on_sqlite() {
    misbehaviour(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_misbehaves_costs_one_call_on_postgres() {
    misbehaviour(true).await;
}

async fn misbehaviour(postgres: bool) {
    let odd = McpServer::start().await;
    let names =
        ["hang", "stall", "wrong-id", "no-id", "twice", "huge", "close", "surrogate", "echo"];
    let offered: Vec<String> = names.iter().map(|name| format!("mcp__odd__{name}")).collect();
    let input = json!({"text": "\u{202e}ring\u{0}\u{7f}\u{feff}"});
    let all: Vec<_> = offered.iter().map(|name| (name.as_str(), input.clone())).collect();
    let world = world(vec![calls(&all), Reply::text(&["Well."])], postgres).await;
    let server = world.serve().await;
    let session = session(&server, &odd).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");

    let told = told(&server, &session).await;
    assert_eq!(told.len(), names.len(), "{told:?}");
    let called: Vec<String> = odd.calls().into_iter().map(|(name, _)| name).collect();
    assert_eq!(called, names, "each was sent once, whatever became of it");
    let ledger = server.get(&format!("/v1/effects?session_id={session}&limit=100")).await;
    let status = |n: usize| {
        let tool = json!(offered[n]);
        let entries = ledger["data"].as_array().unwrap();
        text(&entries.iter().find(|it| it["tool"] == tool).unwrap()["status"])
    };
    for (n, name) in names.iter().enumerate() {
        let (said, is_error) = &told[n];
        if ["twice", "echo"].contains(name) {
            assert_eq!((*is_error, status(n)), (false, "done".to_owned()), "{name}: {said}");
        } else {
            assert_eq!((*is_error, status(n)), (true, "in_doubt".to_owned()), "{name}: {said}");
            assert!(said.contains("may or may not have taken effect"), "{name}: {said}");
        }
    }
    assert!(told[4].0.contains("the first"), "{told:?}");
    assert!(odd.n_bytes() < 32 << 20, "{} bytes were taken", odd.n_bytes());
}

/// From the request on: a bound of the product, with room for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

async fn stop(server: &Server, session: &str) {
    let begun = Instant::now();
    server.say(session, json!({"type": "user.interrupt"})).await;
    assert_eq!(server.rest(session).await["type"], "end_turn");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_stopped_while_its_servers_are_asked_and_called() {
    let (odd, silent) = (McpServer::start().await, McpServer::silent().await);
    let world = world(Vec::new(), false).await.with("BELLPULL_MCP__CALL_SECONDS_MAX", "3600");
    let server = world.with("BELLPULL_MCP__CONNECT_SECONDS", "600");
    let (world, server) = (&server, server.serve().await);
    let waits = session(&server, &silent).await;
    until("it is asked", async || (silent.n_asked() > 0).then_some(())).await;
    stop(&server, &waits).await;
    assert!(world.models.requests().is_empty(), "nobody was asked anything");

    world.models.then(calls(&[("mcp__odd__hang", json!({}))]));
    let called = session(&server, &odd).await;
    until("it is called", async || (!odd.calls().is_empty()).then_some(())).await;
    stop(&server, &called).await;
    let ledger = server.get(&format!("/v1/effects?session_id={called}")).await;
    assert_eq!(ledger["data"][0]["status"], "in_doubt", "{ledger}");
    let told = told(&server, &called).await;
    assert!(told[0].0.contains("may or may not have taken effect"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_say_nothing_cost_the_time_of_one() {
    let silent = McpServer::silent().await;
    let world = world(vec![Reply::text(&["Without them."])], false).await;
    let world = world.with("BELLPULL_MCP__CONNECT_SECONDS", "2");
    let server = world.serve().await;
    let names: Vec<String> = (0..10).map(|n| format!("silent{n}")).collect();
    let servers = names.iter().map(|name| json!({"type": "url", "name": name, "url": silent.url}));
    let sets = names.iter().map(|name| json!({"type": "mcp_toolset", "mcp_server_name": name}));
    let agent = json!({"name": "caller", "model": "claude-scripted",
        "mcp_servers": servers.collect::<Vec<_>>(), "tools": sets.collect::<Vec<_>>()});
    let agent = text(&server.post("/v1/agents", agent).await["id"]);
    let begun = Instant::now();
    let session = server.session(&agent).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let types = server.types(&session).await;
    assert_eq!(types.iter().filter(|it| *it == "session.error").count(), 10, "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_offers_in_vain_is_said_once() {
    let odd = McpServer::start().await;
    let world = world(vec![Reply::text(&["One."]), Reply::text(&["Two."])], false).await;
    let server = world.serve().await;
    let session = session(&server, &odd).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    let again = json!({"type": "user.message", "content": [{"type": "text", "text": "again"}]});
    server.say(&session, again).await;
    until("it answers again", async || (world.models.requests().len() == 2).then_some(())).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    let events = server.events(&session).await;
    let errors: Vec<_> = events.iter().filter(|it| it["type"] == "session.error").collect();
    let [error] = errors[..] else { panic!("one for all three, once: {errors:?}") };
    let said = text(&error["error"]["message"]);
    for part in ["are left out: `` (", "`with space` (", "`ring"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(error["error"]["mcp_server_name"], "odd");
    for request in world.models.requests() {
        assert_eq!(request.tools().len(), 9, "{:?}", request.tools());
    }
}

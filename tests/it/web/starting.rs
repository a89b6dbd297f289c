//! What sessions and deployments start with, and what is refused before a provider would refuse it.

use std::time::Duration;

use serde_json::{Value, json};

use super::server::Server;
use bellpull::ingest;

fn message(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

fn deployment(server: &Server, events: &Value) -> Value {
    json!({"name": "nightly", "agent": server.agent, "environment_id": server.environment,
        "initial_events": events})
}

#[tokio::test]
async fn media_that_no_provider_takes_is_refused_at_once() {
    let server = Server::new().await;
    let session = server.session().await;
    let path = format!("/v1/sessions/{session}/events");
    let image = |media_type: &str, data: &str| {
        json!({"type": "image",
            "source": {"type": "base64", "media_type": media_type, "data": data}})
    };
    for (block, field) in [
        (image("image/png", "no base64!"), "source.data"),
        (image("image/png", "R0lGODlh"), "source.data"),
        (image("text/html", "R0lGODlh"), "source.media_type"),
        (json!({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}), "url"),
        (json!({"type": "image", "source": {"type": "s3", "key": "a"}}), "source.type"),
    ] {
        let event = json!({"type": "user.message", "content": [block]});
        let call = server.post(&path).json(json!({"events": [event]}));
        let said = call.error(400, "invalid_request_error").await;
        assert!(said.contains("events[0].content[0].source") && said.contains(field), "{said}");
    }
    assert!(server.events(&session.to_string()).await.is_empty(), "nothing of it is kept");
    let event = json!({"type": "user.message", "content": [image("image/gif", "R0lGODlh")]});
    server.post(&path).json(json!({"events": [event]})).ok().await;
}

#[tokio::test]
async fn a_page_of_deployments_ends_before_it_is_too_large() {
    let bounds = ingest::Options { body_bytes_max: 10_000, ..ingest::Options::default() };
    let server = Server::with(bounds).await;
    for _ in 0..5 {
        let body = deployment(&server, &json!([message(&"x".repeat(4000))]));
        server.post("/v1/deployments").json(body).ok().await;
    }
    let (mut seen, mut page) = (Vec::new(), String::new());
    for expected in [2, 2, 1] {
        let list = server.get(&format!("/v1/deployments?limit=4{page}")).ok().await;
        let data = list["data"].as_array().expect("a list");
        assert_eq!(data.len(), expected);
        seen.extend(data.iter().map(|it| it["id"].to_string()));
        page = format!("&page={}", list["next_page"].as_str().unwrap_or_default());
    }
    assert_eq!(page, "&page=", "there is no further page");
    let mut unique = seen.clone();
    unique.sort();
    unique.dedup();
    assert_eq!((seen.len(), unique.len()), (5, 5));
    // One that is too large by itself is a page of its own.
    server.clock.advance(Duration::from_secs(1));
    let body = deployment(&server, &json!([message(&"x".repeat(9_000)), message("y")]));
    server.post("/v1/deployments").json(body).ok().await;
    let list = server.get("/v1/deployments?limit=4").ok().await;
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_run_that_an_sdk_repeats_counts_once() {
    let server = Server::new().await;
    let body = deployment(&server, &json!([message("report")]));
    let id = server.id(server.post("/v1/deployments").json(body)).await;
    let run = async |n: &str| {
        let call = server.post(&format!("/v1/deployments/{id}/run"));
        call.header("x-stainless-retry-count", n).ok().await
    };
    let first = run("0").await;
    assert_eq!(run("1").await, first, "the answer is lost, the request comes again");
    assert_eq!(run("2").await, first);
    let other = run("0").await;
    assert_ne!(other["id"], first["id"], "somebody wants another one");
    let runs = server.get(&format!("/v1/deployment_runs?deployment_id={id}")).ok().await;
    assert_eq!(runs["data"].as_array().map(Vec::len), Some(2));
    server.clock.advance(Duration::from_secs(120));
    assert_ne!(run("1").await["id"], other["id"], "so late it is no repetition");
}

#[tokio::test]
async fn an_outcome_that_an_sdk_defines_again_is_one() {
    let server = Server::new().await;
    let session = server.session().await;
    let rubric = json!({"type": "text", "content": "it rhymes"});
    let event = json!({"type": "user.define_outcome", "description": "a poem", "rubric": rubric});
    let define = |n: &str| {
        let call = server.post(&format!("/v1/sessions/{session}/events"));
        call.header("x-stainless-retry-count", n).json(json!({"events": [event]}))
    };
    let first = define("0").ok().await;
    assert_eq!(define("1").ok().await, first, "the answer is lost, the request comes again");
    define("0").error(400, "invalid_request_error").await;
    let shown = server.get(&format!("/v1/sessions/{session}")).ok().await;
    let outcomes = shown["outcome_evaluations"].as_array().expect("a list");
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0]["outcome_id"], first["data"][0]["outcome_id"]);
    assert_eq!(outcomes[0]["result"], "pending", "nobody works here");
    for (types, n) in [("user.define_outcome", 1), ("user.message", 0), ("system.message", 0)] {
        let list = server.get(&format!("/v1/sessions/{session}/events?types={types}")).ok().await;
        assert_eq!(list["data"].as_array().map(Vec::len), Some(n), "{types}");
    }
}

#[tokio::test]
async fn a_deployment_may_start_with_the_operators_word() {
    let server = Server::new().await;
    let system =
        json!({"type": "system.message", "content": [{"type": "text", "text": "Be brief."}]});
    let body = deployment(&server, &json!([system, message("report")]));
    let made = server.post("/v1/deployments").json(body).ok().await;
    assert_eq!(made["initial_events"][0], system);
    let path = format!("/v1/deployments/{}/run", made["id"].as_str().expect("an id"));
    let run = server.post(&path).ok().await;
    let events = server.events(run["session_id"].as_str().expect("a session")).await;
    let kinds: Vec<&Value> = events.iter().map(|it| &it["type"]).collect();
    assert_eq!(kinds, ["system.message", "user.message"]);
    for events in [json!([system]), json!([system, system, message("a")])] {
        let call = server.post("/v1/deployments").json(deployment(&server, &events));
        call.error(400, "invalid_request_error").await;
    }
    let older = json!({"name": "older", "model": "claude-sonnet-4-5"});
    let older = server.id(server.post("/v1/agents").json(older)).await;
    let mut body = deployment(&server, &json!([system, message("report")]));
    body["agent"] = older.as_str().into();
    let refused = server.post("/v1/deployments").json(body).status(400).await;
    let code = &refused["error"]["details"]["error_code"];
    assert_eq!(code, "model_does_not_support_mid_conversation_system");
    // Nor can a deployment come to it by a change of its agent.
    let path = format!("/v1/deployments/{}", made["id"].as_str().expect("an id"));
    server.post(&path).json(json!({"agent": older})).status(400).await;
}

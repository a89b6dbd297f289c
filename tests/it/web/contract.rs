//! The two public contracts, word for word, on both databases.

use bellpull::domain::turn::TurnEnd;
use serde_json::{Value, json};

use super::server::{BOX, MASTER, Server};

#[tokio::test]
async fn the_agent_endpoint() {
    agent_endpoint(Server::new().await).await;
}

#[tokio::test]
async fn the_agent_endpoint_on_postgres() {
    agent_endpoint(Server::postgres().await).await;
}

#[tokio::test]
async fn the_source_endpoint() {
    source_endpoint(Server::new().await).await;
}

#[tokio::test]
async fn the_source_endpoint_on_postgres() {
    source_endpoint(Server::postgres().await).await;
}

/// The text of the only message of a session.
async fn message(server: &Server, session: &Value) -> String {
    let events = server.events(session.as_str().expect("a session")).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["type"], "user.message");
    events[0]["content"][0]["text"].as_str().expect("a text").to_owned()
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

async fn agent_endpoint(server: Server) {
    let agent = &server.agent;
    let described = server.get(&format!("/api/agents/{agent}")).ok().await;
    let webhook = json!({
        "url": format!("https://bell.example/api/agents/{agent}/webhook"),
        "secret_key": format!("WEBHOOK_{agent}_SECRET"),
        "token_set": false,
    });
    assert_eq!((&described["webhook"], &described["config"]["webhook"]), (&webhook, &webhook));

    let body = r#"{"ticket": {"id": 7, "a": [1, 2.50]}, "action": "created"}"#;
    let hook = || server.hook().header("x-zendesk-webhook-invocation-id", "call-1").body(body);
    hook().bearer("anything").error(401, "authentication_error").await;
    let token = server.token().await;
    hook().bearer(MASTER).error(401, "authentication_error").await;
    hook().bearer(BOX).error(401, "authentication_error").await;

    let answer = hook().bearer(token).send().await;
    assert_eq!(answer.status, 202);
    let first = answer.json();
    let names = ["status", "agent_id", "session_id", "delivery_id", "request_id"];
    assert_eq!(keys(&first), names);
    assert_eq!((&first["status"], &first["agent_id"]), (&json!("accepted"), &json!(agent)));
    assert_eq!(answer.header("request-id"), first["request_id"].as_str());
    assert!(first["request_id"].as_str().expect("a text").starts_with("webhook_"));
    let wanted = "{\n  \"ticket\": {\n    \"id\": 7,\n    \"a\": [\n      1,\n      2.50\n    ]\n  },\n  \
                  \"action\": \"created\"\n}";
    assert_eq!(message(&server, &first["session_id"]).await, wanted);

    let again = hook().bearer(token).status(202).await;
    assert_eq!(keys(&again), names);
    assert_eq!(again["status"], "duplicate");
    assert_eq!(again["session_id"], first["session_id"]);
    assert_eq!(again["delivery_id"], first["delivery_id"]);
    assert_ne!(again["request_id"], first["request_id"]);
    assert_eq!(message(&server, &first["session_id"]).await, wanted, "nothing was started");

    // The name of the secret changes by PATCH, and takes effect with the answer.
    server.secret("OTHER", "another token").await;
    let path = format!("/api/agents/{agent}");
    let patch = json!({"config": {"webhook": {"secret_key": "OTHER"}}});
    let patched = server.call("PATCH", &path).json(patch).ok().await;
    assert_eq!(patched["webhook"]["secret_key"], "OTHER");
    assert_eq!((&patched["webhook"]["token_set"], &patched["version"]), (&json!(true), &json!(1)));
    hook().bearer(token).error(401, "authentication_error").await;
    assert_eq!(hook().bearer("another token").status(202).await["status"], "duplicate");

    // The turn's end is the delivery's outcome.
    let lease = server.work().await;
    server.finish(&lease, TurnEnd::EndTurn).await;
    let id = first["delivery_id"].as_str().expect("an id");
    let delivery = server.get(&format!("/v1/deliveries/{id}")).ok().await;
    assert_eq!((&delivery["outcome"], &delivery["attempts"]), (&json!("succeeded"), &json!(3)));
}

async fn source_endpoint(server: Server) {
    let project = server.projects.join("billing");
    std::fs::create_dir(&project).expect("a new directory");
    let lucy = json!({"name": "lucy", "model": "rehearsal"});
    let lucy = server.id(server.post("/v1/agents").json(lucy)).await;
    let stripe = json!({
        "name": "stripe", "project": project.to_str(), "agent": "lucy", "target": "new_session",
    });
    let stripe = server.post("/v1/sources").json(stripe).ok().await;
    assert_eq!(stripe["url"], "https://bell.example/api/webhook/stripe");
    assert_eq!((&stripe["kind"], &stripe["broken"]), (&json!("named"), &Value::Null));

    let hook = || server.bare("POST", "/api/webhook/stripe");
    let long = format!("{{\"note\":\"{}\"}}", "é".repeat(3000));
    let answer = hook().bearer(BOX).body(long.clone()).status(202).await;
    assert_eq!((&answer["status"], &answer["agent_id"]), (&json!("accepted"), &json!(lucy)));
    let text = message(&server, &answer["session_id"]).await;
    let payload: String = long.chars().take(2000).collect();
    let rest =
        text.strip_prefix(&format!("Webhook from stripe:\n{payload}")).expect("the cut text");
    assert!(rest.starts_with("\n[cut: 2000 of 3011 characters;"), "{rest}");

    let short = hook().bearer(BOX).body("{\"a\":1}").status(202).await;
    assert_ne!(short["session_id"], answer["session_id"], "each its own session");
    assert_eq!(message(&server, &short["session_id"]).await, "Webhook from stripe:\n{\"a\":1}");

    hook().error(401, "authentication_error").await;
    hook().bearer("wrong").error(401, "authentication_error").await;
    hook().bearer(MASTER).error(401, "authentication_error").await;
    let unknown = || server.bare("POST", "/api/webhook/paypal");
    unknown().bearer(BOX).error(404, "not_found_error").await;
    unknown().bearer("wrong").error(401, "authentication_error").await;

    // `secret` is enforced, beside the key.
    let secret = json!({"name": "stripe", "secret": "s3cret"});
    server.post("/v1/sources").json(secret).ok().await;
    hook().bearer(BOX).error(401, "authentication_error").await;
    hook().bearer(BOX).header("x-webhook-secret", "other").error(401, "authentication_error").await;
    hook().bearer(BOX).header("x-webhook-secret", "s3cret").status(202).await;
    hook().header("x-webhook-secret", "s3cret").error(401, "authentication_error").await;
}

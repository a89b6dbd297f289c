//! Conversations that grow too long for the model.

use serde_json::json;

use super::{World, calls, text, tool};
use crate::support::model_server::{Reply, Tokens};

#[tokio::test(flavor = "multi_thread")]
async fn a_long_conversation_goes_on_from_its_summary_on_sqlite() {
    summary(World::sqlite(script()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_conversation_goes_on_from_its_summary_on_postgres() {
    summary(World::postgres(script()).await).await;
}

fn script() -> Vec<Reply> {
    let read = |name: &str| calls(&[("read", json!({"file_path": name}))]);
    let long = Tokens { input: 900, cached: 100, output: 50 };
    vec![
        read("first.txt").tokens(long),
        Reply::text(&["The task is ", "to read two files; the first is missing."]),
        read("second.txt"),
        Reply::text(&["both are missing"]),
    ]
}

async fn summary(world: World) {
    let world = world.with("BELLPULL_TURNS__CONTEXT_TOKENS_MAX", "1000");
    let server = world.serve().await;
    let agent = server.agent(json!([tool("read", "always_allow")])).await;
    let session = server.session(&agent).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    let types = server.types(&session).await;
    let at = types.iter().position(|it| it == "agent.thread_context_compacted").unwrap();
    assert_eq!(types[at - 2..at], ["span.model_request_start", "span.model_request_end"]);
    let requests = world.models.requests();
    assert!(requests[1].said().contains("Write a summary"), "{}", requests[1].said());
    let said = requests[2].said();
    assert!(said.contains("the first is missing") && !said.contains("first.txt"), "{said}");
    let events = server.events(&session).await;
    let shown = events.iter().any(|event| event.to_string().contains("The task is"));
    assert!(!shown, "the summary is the model's own");
    let message = events.iter().find(|event| event["type"] == "agent.message").unwrap();
    assert_eq!(text(&message["content"][0]["text"]), "both are missing");
}

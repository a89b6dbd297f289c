//! Tools that the client has: their calls wait, through everything, for what the client says.

use serde_json::{Value, json};

use super::{Server, World, allow, calls, text, tool, write};
use crate::support::{model_server::Reply, process::until};

const LOOK: (&str, &str) = ("look", "Looks out of the window.");

fn look(at: &str) -> (&'static str, Value) {
    (LOOK.0, json!({"at": at}))
}

fn answer(call: &Value, said: &str) -> Value {
    json!({"type": "user.custom_tool_result", "custom_tool_use_id": call,
        "content": [{"type": "text", "text": said}]})
}

impl Server {
    /// An agent with these built-in tools, and one that its client has.
    async fn agent_with_custom(&self, configs: Value) -> String {
        let set = json!({"type": "agent_toolset_20260401", "default_config": {"enabled": false},
            "configs": configs});
        let schema = json!({"type": "object", "properties": {"at": {"type": "string"}}});
        let custom = json!({"type": "custom", "name": LOOK.0, "description": LOOK.1,
            "input_schema": schema});
        let agent = json!({"name": "guard", "model": "claude-scripted", "tools": [set, custom]});
        text(&self.post("/v1/agents", agent).await["id"])
    }
}

fn waiting_script() -> Vec<Reply> {
    let both = [look("north"), write("a.txt", "x"), look("south")];
    vec![calls(&both), Reply::text(&["all is quiet"])]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_waited_for_through_kill_9_on_sqlite() {
    waiting(World::sqlite(waiting_script()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_waited_for_through_kill_9_on_postgres() {
    waiting(World::postgres(waiting_script()).await).await;
}

async fn waiting(world: World) {
    let server = world.serve().await;
    let agent = server.agent_with_custom(json!([tool("write", "always_ask")])).await;
    let session = server.session(&agent).await;
    let reason = server.rest_for(&session, "requires_action").await;
    let ids = reason["event_ids"].as_array().unwrap().clone();
    assert_eq!(ids.len(), 3, "{reason}");
    assert_eq!(world.models.requests()[0].tools(), ["write", LOOK.0]);
    let before = server.types(&session).await;
    assert_eq!(server.get(&format!("/v1/sessions/{session}")).await["status"], "idle");

    // Nobody has it when the first answer comes, nor when it is to be told.
    server.0.kill();
    let server = world.serve().await;
    assert_eq!(server.types(&session).await, before);
    let (status, sent) = server.say(&session, answer(&ids[2], "fog")).await;
    assert_eq!(status, 200, "{sent}");
    server.0.kill();
    let server = world.serve().await;
    until("it waits for the others", async || {
        let last = server.events(&session).await.pop()?;
        (last["stop_reason"]["event_ids"] == json!([ids[0], ids[1]])).then_some(())
    })
    .await;
    let (status, again) = server.say(&session, answer(&ids[2], "sun")).await;
    assert_eq!(status, 400, "{again}");
    assert!(text(&again["error"]["message"]).contains("was answered before"), "{again}");

    // Both at once, in the order in which they are said.
    let path = format!("/v1/sessions/{session}/events");
    let events = json!({"events": [answer(&ids[0], "rain"), allow(&ids[1])]});
    server.post(&path, events).await;
    server.rest_for(&session, "end_turn").await;
    let after = server.types(&session).await.split_off(before.len());
    let wanted = [
        "user.custom_tool_result",
        "session.status_idle",
        "user.custom_tool_result",
        "user.tool_confirmation",
        "session.status_running",
        "agent.tool_result",
        "span.model_request_start",
        "agent.message",
        "span.model_request_end",
        "session.status_idle",
    ];
    assert_eq!(after, wanted);
    let events = server.events(&session).await;
    let told = &events[before.len()];
    assert_eq!((&told["id"], &told["is_error"]), (&sent["data"][0]["id"], &json!(false)));
    assert_eq!(told["content"], json!([{"type": "text", "text": "fog"}]));
    assert_eq!(world.models.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_tells_has_an_error_for_a_result_on_sqlite() {
    expiry(World::sqlite(expiry_script()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_tells_has_an_error_for_a_result_on_postgres() {
    expiry(World::postgres(expiry_script()).await).await;
}

fn expiry_script() -> Vec<Reply> {
    vec![calls(&[look("north")]), Reply::text(&["then not"])]
}

async fn expiry(world: World) {
    let world = world.with("BELLPULL_TURNS__APPROVAL_SECONDS_MAX", "1");
    let server = world.serve().await;
    let agent = server.agent_with_custom(json!([])).await;
    let session = server.session(&agent).await;
    server.rest_for(&session, "end_turn").await;
    let events = server.events(&session).await;
    let call = events.iter().find(|event| event["type"] == "agent.custom_tool_use").unwrap();
    let told = events.iter().find(|event| event["type"] == "user.custom_tool_result").unwrap();
    assert_eq!((&told["custom_tool_use_id"], &told["is_error"]), (&call["id"], &json!(true)));
    assert_eq!(told["content"][0]["text"], "nobody answered in time");
    let (status, late) = server.say(&session, answer(&call["id"], "fog")).await;
    assert_eq!(status, 400, "{late}");
    assert!(text(&late["error"]["message"]).contains("in time"), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_speaks_with_a_result_on_sqlite() {
    speaking(World::sqlite(expiry_script()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_speaks_with_a_result_on_postgres() {
    speaking(World::postgres(expiry_script()).await).await;
}

async fn speaking(world: World) {
    let server = world.serve().await;
    let agent = server.agent_with_custom(json!([])).await;
    let agent = server.get(&format!("/v1/agents/{agent}")).await;
    let session = server.session(&text(&agent["id"])).await;
    let reason = server.rest_for(&session, "requires_action").await;
    let system = json!({"type": "system.message",
        "content": [{"type": "text", "text": "Speak in riddles."}]});
    let events = json!({"events": [answer(&reason["event_ids"][0], "fog"), system]});
    let sent = server.post(&format!("/v1/sessions/{session}/events"), events).await;
    assert!(sent["data"].as_array().unwrap().iter().all(|it| it["processed_at"].is_string()));
    server.rest_for(&session, "end_turn").await;
    let events = server.events(&session).await;
    let at = events.iter().position(|it| it["type"] == "user.custom_tool_result").unwrap();
    assert_eq!(
        [&events[at]["id"], &events[at + 1]["id"]],
        [&sent["data"][0]["id"], &sent["data"][1]["id"]]
    );
    assert_eq!(events[at + 1]["type"], "system.message");
}

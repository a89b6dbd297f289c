//! Calls with texts that no decent model would write.

use serde_json::json;

use super::{World, allow, calls, text, tool};
use crate::support::model_server::Reply;

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_in_calls_are_data_on_sqlite() {
    odd_texts(World::sqlite(Vec::new()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_in_calls_are_data_on_postgres() {
    odd_texts(World::postgres(Vec::new()).await).await;
}

async fn odd_texts(world: World) {
    let odd = "x\u{0}y\u{202e}\u{feff}\u{7f}\u{ffff}\u{1f514}\r\u{85}";
    let long = "n".repeat(10_000);
    world.models.then(calls(&[
        ("write", json!({"file_path": "a\u{0}b.txt", "content": "x"})),
        ("write", json!({"file_path": "odd.txt", "content": odd})),
        ("read", json!({"file_path": "odd.txt"})),
        ("wri\u{0}te", json!({"\u{0}": odd})),
        ("\u{202e}etirw\u{1f514}", json!({})),
        ("", json!({})),
        (&long, json!({})),
        ("edit", json!({"file_path": "odd.txt", "old_string": "x", "new_string": odd})),
    ]));
    world.models.then(Reply::text(&[odd]));
    world.models.then(Reply::text(&["still here"]));
    let server = world.serve().await;
    let tools = json!([
        tool("write", "always_allow"),
        tool("read", "always_allow"),
        tool("edit", "always_ask"),
    ]);
    let agent = server.agent(tools).await;
    let session = server.session(&agent).await;
    let reason = server.rest_for(&session, "requires_action").await;
    let (status, sent) = server.say(&session, allow(&reason["event_ids"][0])).await;
    assert_eq!(status, 200, "{sent}");
    server.rest_for(&session, "end_turn").await;
    let results = server.results(&session).await;
    assert_eq!(results.len(), 8, "{results:?}");
    for (n, name) in [(3, "wri_te"), (4, "_etirw_"), (5, "unnamed"), (6, &long[..128])] {
        assert_eq!(results[n], format!("this agent has no tool `{name}`"));
    }
    assert!(!results.iter().any(|it| it.contains('\0')), "{results:?}");
    let file = std::fs::read_to_string(world.file(&session, "odd.txt")).unwrap();
    assert!(file.starts_with("x") && file.matches('\u{1f514}').count() == 2, "{file:?}");

    // The conversation goes on, in words that a provider takes.
    let again = json!({"type": "user.message", "content": [{"type": "text", "text": "again"}]});
    server.say(&session, again).await;
    crate::support::process::until("it answers", async || {
        let events = server.events(&session).await;
        events.iter().any(|it| it["content"][0]["text"] == "still here").then_some(())
    })
    .await;
    let request = world.models.requests().pop().unwrap();
    for message in request.body["messages"].as_array().unwrap() {
        let blocks = message["content"].as_array().into_iter().flatten();
        for block in blocks.filter(|it| it["type"] == "tool_use") {
            let name = text(&block["name"]);
            let is_plain = |it: char| it.is_ascii_alphanumeric() || "_-".contains(it);
            assert!((1..=128).contains(&name.len()) && name.chars().all(is_plain), "{name:?}");
        }
    }
}

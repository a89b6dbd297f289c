//! Tools in whole turns, from a webhook to files in the session's workspace.

use serde_json::{Value, json};

use crate::{
    model::story::{Story, find, types},
    support::model_server::{Format, Reply},
};

/// A story whose agent has the toolset.
async fn with_tools(script: impl IntoIterator<Item = Reply>) -> Story {
    with_config("", script).await
}

/// The same, with more sections of the config file.
pub(super) async fn with_config(sections: &str, script: impl IntoIterator<Item = Reply>) -> Story {
    let story = Story::begin(Format::Anthropic, "", script).await;
    story.configure(|text| {
        let set = "tools = [{ type = \"agent_toolset_20260401\" }]\n";
        text.replace("[webhooks.shop]", &format!("{set}{sections}[webhooks.shop]"))
    });
    story.restart().await
}

/// What the tools answered, and whether it was an error.
pub(super) fn results(events: &[Value]) -> Vec<(String, bool)> {
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    let told = |event: &Value| {
        let text = event["content"][0]["text"].as_str().expect("a text").to_owned();
        (text, event["is_error"] == true)
    };
    results.map(told).collect()
}

#[tokio::test]
async fn an_agent_works_on_files_of_its_own() {
    let script = [
        Reply::text(&[]).and_calls(&[
            ("write", json!({"file_path": "notes/a.txt", "content": "one\u{0}"})),
            ("read", json!({"file_path": "/workspace/notes/a.txt"})),
            ("read", json!({"file_path": "/etc/passwd"})),
        ]),
        Reply::text(&["Done."]),
    ];
    let story = with_tools(script).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let events = story.events(&rung).await;
    let told = |text: &str, is_error| (text.to_owned(), is_error);
    assert_eq!(
        results(&events),
        [
            told("wrote `/workspace/notes/a.txt`, 4 bytes", false),
            told("`/workspace/notes/a.txt` is no text; it was read for 4 bytes", true),
            told("`/etc/passwd` lies outside of the workspace, which is `/workspace`", true),
        ]
    );
    let asked = story.models.requests().remove(0);
    assert_eq!(asked.tools()[..3], ["delivery", "read", "write"]);
    let own = story.database().with_file_name("workspaces").join(&rung.session);
    assert_eq!(std::fs::read(own.join("work/notes/a.txt")).unwrap(), b"one\0");
}

#[tokio::test]
async fn a_tool_that_is_not_offered_is_none() {
    let call = ("write", json!({"file_path": "a.txt", "content": "x"}));
    let script = [Reply::text(&[]).and_calls(&[call]), Reply::text(&["Well."])];
    let story = Story::begin(Format::Anthropic, "", script).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let events = story.events(&rung).await;
    assert!(types(&events).contains(&"result"));
    assert_eq!(find(&events, "result")["content"][0]["text"], "this agent has no tool `write`");
    let own = story.database().with_file_name("workspaces").join(&rung.session);
    assert!(!own.join("work").exists());
}

#[tokio::test]
async fn a_session_that_a_source_began_has_no_network() {
    let fetch = ("web_fetch", json!({"url": "https://example.com/"}));
    let script = [Reply::text(&[]).and_calls(&[fetch]), Reply::text(&["No."])];
    let story = with_tools(script).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let results = results(&story.events(&rung).await);
    let told = "it was not fetched: this session has no network".to_owned();
    assert_eq!(results, [(told, true)]);
}

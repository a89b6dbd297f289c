//! `bash` in whole turns, from a webhook to the session's workspace.

use serde_json::json;

use super::is_running;
use crate::{
    model::story::{Rung, Story},
    support::{
        model_server::{Format, Reply},
        process::until,
    },
};

async fn with_tools(settings: &str, script: impl IntoIterator<Item = Reply>) -> Story {
    let story = Story::begin(Format::Anthropic, "", script).await;
    story.configure(|text| {
        let set = "tools = [{ type = \"agent_toolset_20260401\" }]\n[webhooks.shop]";
        text.replace("[webhooks.shop]", set) + settings
    });
    story.restart().await
}

/// What the calls of a session were answered, and whether as errors.
async fn answers(story: &Story, rung: &Rung) -> Vec<(String, bool)> {
    let events = story.events(rung).await;
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    let told = |event: &serde_json::Value| {
        let text = event["content"][0]["text"].as_str().unwrap().to_owned();
        (text, event["is_error"].as_bool().unwrap())
    };
    results.map(told).collect()
}

#[tokio::test]
async fn an_agent_works_in_one_shell_for_turns() {
    let bash = |command: &str| ("bash", json!({"command": command}));
    let script = [
        Reply::text(&[]).and_calls(&[
            bash("mkdir a && cd a && x=1 && echo made > b && pwd; env | grep -ci -e key -e token"),
            bash("pwd; echo $x; (sleep 86411 &); exit_code() { return 3; }; exit_code"),
            ("read", json!({"file_path": "a/b"})),
        ]),
        Reply::text(&["Done."]),
        Reply::text(&[]).and_calls(&[bash(
            "pwd; cat b; timeout 3 bash -c '</dev/tcp/1.1.1.1/443' 2>&1 | grep -o unreachable | head -1",
        )]),
        Reply::text(&["Done again."]),
        Reply::text(&[]).and_calls(&[bash("pwd; ls")]),
        Reply::text(&["Done once more."]),
    ];
    let story = with_tools("", script).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let told = answers(&story, &rung).await;
    assert_eq!(told[0], ("/workspace/a\n0\n[exit status 1]".to_owned(), false));
    assert_eq!(told[1], ("/workspace/a\n1\n[exit status 3]".to_owned(), false));
    assert!(told[2].0.contains("made"), "{told:?}");
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let told = answers(&story, &rung).await;
    assert_eq!(
        told[3],
        ("/workspace/a\nmade\nunreachable".to_owned(), false),
        "a webhook opens no network"
    );
    // Everything ends with the server, and the next life says so.
    until("it runs", async || is_running("sleep 86411").then_some(())).await;
    let story = story.restart().await;
    until("it is gone", async || (!is_running("sleep 86411")).then_some(())).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let told = answers(&story, &rung).await;
    let (anew, is_error) = &told[4];
    assert!(anew.starts_with("[this is a new shell") && !is_error, "{anew}");
    assert!(anew.ends_with("/workspace\na"), "{anew}");
}

#[tokio::test]
async fn kill_9_of_the_server_ends_what_it_ran() {
    let call = ("bash", json!({"command": "setsid sleep 86412 & sleep 86413"}));
    let script = [Reply::text(&[]).and_calls(&[call])];
    let story = with_tools("", script).await;
    story.ring("{}").await;
    until("both run", async || {
        (is_running("sleep 86412") && is_running("sleep 86413")).then_some(())
    })
    .await;
    story.server.kill();
    until("both are gone", async || {
        (!is_running("sleep 86412") && !is_running("sleep 86413")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_sandbox_programs_run_only_when_the_operator_says_so() {
    let call = || ("bash", json!({"command": "pwd; id -u"}));
    let script = [Reply::text(&[]).and_calls(&[call()]), Reply::text(&["Done."])];
    let story = with_tools("[sandbox]\nmode = \"none\"\n", script).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let (said, _) = answers(&story, &rung).await.remove(0);
    let own = story.database().with_file_name("workspaces").join(&rung.session);
    let user = rustix::process::geteuid().as_raw();
    assert_eq!(said, format!("{}\n{user}", own.join("work").display()));
}

//! The ledger of effects, through kill -9.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Server, World, calls, edit, text, tool, write};
use crate::support::{full, model_server::Reply, process::until};

#[tokio::test(flavor = "multi_thread")]
async fn no_effect_is_done_twice_or_lost_silently_on_sqlite() {
    kill_story(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_effect_is_done_twice_or_lost_silently_on_postgres() {
    kill_story(true).await;
}

/// Calls that one turn makes, each of which adds a line to a file.
const LINES: usize = 12;

async fn kill_story(postgres: bool) {
    let n_kills = if full() { 100 } else { 20 };
    let mut seed = u64::from(std::process::id());
    println!("seed {seed}");
    let (mut killed, mut n_doubts) = (0, 0);
    while killed < n_kills {
        let world = match postgres {
            true => World::postgres(Vec::new()).await,
            false => World::sqlite(Vec::new()).await,
        };
        world.models.then(calls(&[write("lines.txt", "END")]));
        for n in 0..LINES {
            let line = edit("lines.txt", "END", &format!("line {n}\nEND"));
            world.models.then(calls(&[line]));
        }
        // An answer that a server died with is asked for again: one for each death, and the last one.
        for _ in 0..=n_kills {
            world.models.then(Reply::text(&["done"]));
        }
        let mut server = world.serve().await;
        let agent = server
            .agent(json!([tool("write", "always_allow"), tool("edit", "always_allow")]))
            .await;
        let session = server.session(&agent).await;
        while killed < n_kills && !is_over(&server, &session).await {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Not a wait for anything: the moment itself is the test.
            tokio::time::sleep(Duration::from_millis((seed >> 33) % 60)).await;
            server.0.kill();
            killed += 1;
            server = world.serve().await;
        }
        until("the turn ends", async || is_over(&server, &session).await.then_some(())).await;
        n_doubts += account(&world, &server, &session).await;
        world.models.forget();
    }
    println!("{killed} kills, {n_doubts} effects in doubt");
}

async fn is_over(server: &Server, session: &str) -> bool {
    let last = server.events(session).await.pop();
    last.is_some_and(|last| last["type"] == "session.status_idle")
}

/// Compares what was done with what is said to have been done. Answers how many are in doubt.
async fn account(world: &World, server: &Server, session: &str) -> usize {
    let events = server.events(session).await;
    let edits: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "agent.tool_use" && event["name"] == "edit")
        .collect();
    let done = std::fs::read_to_string(world.file(session, "lines.txt")).unwrap_or_default();
    let ledger = server.get(&format!("/v1/effects?session_id={session}&limit=100")).await;
    let ledger = ledger["data"].as_array().unwrap();
    let mut n_doubts = 0;
    for edit in edits {
        let line = text(&edit["input"]["new_string"]);
        let line = line.lines().next().unwrap();
        let n_done = done.lines().filter(|it| *it == line).count();
        let n_calls = events
            .iter()
            .filter(|event| event["input"]["new_string"] == edit["input"]["new_string"])
            .count();
        assert!(n_done <= n_calls, "{line} was done {n_done} times for {n_calls} calls:\n{done}");
        let results =
            events.iter().filter(|event| event["tool_use_id"] == edit["id"]).collect::<Vec<_>>();
        assert_eq!(results.len(), 1, "{edit} has {} results", results.len());
        let entry = ledger.iter().find(|entry| entry["id"] == edit["id"]);
        let status = entry.map(|entry| text(&entry["status"]));
        match status.as_deref() {
            Some("done") => assert!(n_done >= 1, "{line} is said to be done:\n{done}"),
            Some("in_doubt") => {
                n_doubts += 1;
                let told = results[0]["content"][0]["text"].as_str().unwrap();
                assert!(told.contains("may or may not have taken effect"), "{told}");
            }
            Some("failed") => assert!(results[0]["is_error"] == true),
            other => panic!("{line}: {other:?} in the ledger"),
        }
    }
    n_doubts
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_looks_and_settles_what_is_in_doubt_on_sqlite() {
    settle_story(World::sqlite(Vec::new()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_looks_and_settles_what_is_in_doubt_on_postgres() {
    settle_story(World::postgres(Vec::new()).await).await;
}

const SOURCE: &str = "[agents.worker]\nmodel = \"claude-scripted\"\n\
    tools = [{ type = \"agent_toolset_20260401\" }]\n\
    [webhooks.shop]\npreset = \"bearer\"\nagent = \"worker\"\nsecret = \"token-of-the-shop\"\n";

/// Tools that the model was told of in its last request.
fn offered(world: &World) -> bool {
    world.models.requests().last().unwrap().tools().contains(&"settle_effect")
}

async fn settle_story(world: World) {
    world.configure(SOURCE);
    let command = "echo made > made.txt; sleep 86421";
    world.models.then(calls(&[("bash", json!({ "command": command }))]));
    let server = world.serve().await;
    let rung = ring(&server).await;
    let session = text(&rung["session_id"]);
    let made = world.file(&session, "made.txt");
    until("the call is carried out", async || made.exists().then_some(())).await;
    assert!(!offered(&world), "nothing is in doubt yet");
    let ledger = server.get(&format!("/v1/effects?session_id={session}")).await;
    let effect = text(&ledger["data"][0]["id"]);
    assert_eq!(ledger["data"][0]["status"], "intended");

    // Another session has an effect in doubt too, which is none of this one's business.
    world.models.then(calls(&[("bash", json!({ "command": command }))]));
    let other = text(&ring(&server).await["session_id"]);
    let made = world.file(&other, "made.txt");
    until("it is carried out as well", async || made.exists().then_some(())).await;
    let ledger = server.get(&format!("/v1/effects?session_id={other}")).await;
    let others = text(&ledger["data"][0]["id"]);
    server.0.kill();

    let settle = |effect: &str, outcome: &str| {
        let note = "made.txt is there";
        calls(&[("settle_effect", json!({"effect": effect, "outcome": outcome, "note": note}))])
    };
    // Of both, whichever session is asked first: its own is settled and the other's is refused.
    let both = [
        ("settle_effect", json!({"effect": effect, "outcome": "happened", "note": "made.txt"})),
        ("settle_effect", json!({"effect": others, "outcome": "happened", "note": "made.txt"})),
    ];
    for _ in 0..2 {
        world.models.then(calls(&[
            ("read", json!({"file_path": "made.txt"})),
            both[0].clone(),
            both[1].clone(),
        ]));
    }
    for _ in 0..2 {
        world.models.then(Reply::text(&["It was done."]));
    }
    let server = world.serve().await;
    for session in [&session, &other] {
        assert_eq!(server.rest(session).await["type"], "end_turn");
        let told = server.results(session).await;
        assert!(told[0].contains("may or may not have taken effect"), "{told:?}");
        assert!(told[0].contains(if session == &other { &others } else { &effect }), "{told:?}");
        assert!(told[1].contains("made"), "it looked: {told:?}");
        let own = usize::from(session == &other);
        assert!(told[2 + own].contains("is settled: done"), "{told:?}");
        assert!(told[3 - own].contains("is not in doubt in this session"), "{told:?}");
    }
    assert!(offered(&world), "what a session is offered does not come and go");
    for id in [&effect, &others] {
        let settled = server.get(&format!("/v1/effects/{id}")).await;
        assert_eq!((&settled["status"], &settled["note"]), (&json!("done"), &json!("made.txt")));
        assert_eq!(settled["settled_by"], settled["agent_id"]);
    }
    let delivery = text(&rung["delivery_id"]);
    let delivery = server.get(&format!("/v1/deliveries/{delivery}")).await;
    assert_eq!(delivery["outcome"], "succeeded");
    let audit = server.get("/v1/audit?limit=50").await;
    let said = audit["data"].as_array().unwrap().iter().find(|it| it["target"] == effect.as_str());
    let said = said.expect("it is in the audit log");
    assert_eq!(said["action"], "effect.settle");
    assert!(text(&said["actor"]).starts_with("agent agent_"), "{said}");

    // A person knows better, and has the last word.
    let path = format!("/v1/effects/{effect}/settle");
    let corrected = server.post(&path, json!({"status": "failed", "note": "an old file"})).await;
    assert_eq!(
        (&corrected["status"], &corrected["settled_by"]),
        (&json!("failed"), &json!("master key"))
    );
    let again = server.call(reqwest::Method::POST, &path, Some(json!({"status": "done"}))).await;
    assert_eq!(again.0, 409, "{}", again.1);

    nothing_is_left(&world, &server, &session, settle(&effect, "happened")).await;
}

async fn nothing_is_left(world: &World, server: &Server, session: &str, settles: Reply) {
    // Nothing is in doubt any more, and its provider's cache holds: the tools are those of before.
    world.models.then(settles);
    world.models.then(Reply::text(&["So be it."]));
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "again"}]});
    server.say(session, message).await;
    let told = until("it is answered", async || server.results(session).await.get(4).cloned());
    let told = told.await;
    assert!(told.contains("is not in doubt in this session. Nothing is in doubt."), "{told}");
    assert_eq!(server.rest(session).await["type"], "end_turn");
    let requests = world.models.requests();
    let with = requests.iter().filter(|it| it.tools().contains(&"settle_effect"));
    let lists: std::collections::BTreeSet<_> =
        with.map(|it| it.body["tools"].to_string()).collect();
    assert_eq!(lists.len(), 1, "the list of tools changed: {lists:?}");
}

async fn ring(server: &Server) -> Value {
    let url = format!("{}/api/webhook/shop", server.0.url);
    let request = server.0.http.post(url).bearer_auth("token-of-the-shop").body("{}");
    let answer = request.send().await.unwrap().text().await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

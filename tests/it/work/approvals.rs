//! Calls that are not made by themselves: not listed, asked about, made too often.

use serde_json::json;

use super::{World, allow, calls, edit, text, tool, write};
use crate::support::{
    model_server::Reply,
    process::{command, until},
    raw,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_listed_is_never_run_on_sqlite() {
    unlisted(World::sqlite(unlisted_script()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_listed_is_never_run_on_postgres() {
    unlisted(World::postgres(unlisted_script()).await).await;
}

fn unlisted_script() -> Vec<Reply> {
    let nonsense = ("nonsense", json!({"a": 1}));
    vec![calls(&[write("a.txt", "forbidden"), nonsense]), Reply::text(&["understood"])]
}

async fn unlisted(world: World) {
    let server = world.serve().await;
    let agent = server.agent(json!([tool("read", "always_allow"), {"name": "write"}])).await;
    let session = server.session(&agent).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    assert_eq!(world.models.requests()[0].tools(), ["read"]);
    assert!(!world.file(&session, "a.txt").exists());
    let results = server.results(&session).await;
    assert_eq!(results, ["this agent has no tool `write`", "this agent has no tool `nonsense`"]);
    let events = server.events(&session).await;
    let call = events.iter().find(|event| event["type"] == "agent.tool_use").unwrap();
    assert_eq!(call["evaluated_permission"], "deny");
    assert!(call.get("evaluation").is_none(), "no policy applied: {call}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_waited_for_through_kill_9_on_sqlite() {
    approval(World::sqlite(approval_script()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_waited_for_through_kill_9_on_postgres() {
    approval(World::postgres(approval_script()).await).await;
}

fn approval_script() -> Vec<Reply> {
    let both = [write("a.txt", "one END"), edit("a.txt", "END", "two"), edit("a.txt", "one", "1")];
    vec![calls(&both), Reply::text(&["done"])]
}

async fn approval(world: World) {
    let server = world.serve().await;
    let tools = json!([tool("write", "always_allow"), tool("edit", "always_ask")]);
    let agent = server.agent(tools).await;
    let source = json!({"name": "shop", "verifier": {"type": "bearer"}, "secret": "a-token-of-the-shop",
        "agent": agent});
    server.post("/v1/sources", source).await;
    // Nobody can be reached there, so what it should hear stays to be looked at.
    let callback =
        json!({"url": "https://callback.invalid/", "events": ["session.needs_approval"]});
    server.post(&format!("/v1/agents/{agent}"), json!({"callback": callback})).await;
    let sent = server.0.http.post(format!("{}/api/webhook/shop", server.0.url));
    let sent = sent.bearer_auth("a-token-of-the-shop").body("{\"n\":1}").send().await.unwrap();
    let sent: serde_json::Value = serde_json::from_str(&sent.text().await.unwrap()).unwrap();
    let (session, delivery) = (text(&sent["session_id"]), text(&sent["delivery_id"]));

    let reason = server.rest_for(&session, "requires_action").await;
    let ids = reason["event_ids"].as_array().unwrap().clone();
    assert_eq!(ids.len(), 2, "what needs nobody is done first: {reason}");
    assert_eq!(std::fs::read_to_string(world.file(&session, "a.txt")).unwrap(), "one END");
    let state = server.get(&format!("/v1/deliveries/{delivery}")).await;
    assert_eq!(state["outcome"], "waiting");
    assert_eq!(server.get(&format!("/v1/sessions/{session}")).await["status"], "idle");
    let before = server.types(&session).await;

    server.0.kill();
    let server = world.serve().await;
    assert_eq!(server.types(&session).await, before, "it waits, whatever becomes of the server");
    // One answer: it waits for the other one, and says so.
    let (status, sent) = server.say(&session, allow(&ids[0])).await;
    assert_eq!(status, 200, "{sent}");
    until("it waits for the other one", async || {
        let last = server.events(&session).await.pop()?;
        (last["stop_reason"]["event_ids"] == json!([ids[1]])).then_some(())
    })
    .await;
    let (status, again) = server.say(&session, allow(&ids[0])).await;
    assert_eq!(status, 409, "{again}");
    assert_eq!(std::fs::read_to_string(world.file(&session, "a.txt")).unwrap(), "one END");
    let told = server.get(&format!("/v1/outbox?session_id={session}")).await;
    let told =
        told["data"].as_array().unwrap().iter().map(|it| it["body"]["data"]["event_ids"].clone());
    let told: Vec<_> = told.collect();
    assert_eq!(told, [json!([ids[1]]), json!(ids)], "each time that it asks is told, once");

    let call = text(&ids[1]);
    let denied = command()
        .args(["deny", &session, &call, "--message", "leave the first word", "--json"])
        .env("BELLPULL_URL", &server.0.url)
        .env("BELLPULL_API_KEY", super::KEY)
        .output()
        .unwrap();
    assert!(denied.status.success(), "{denied:?}");
    server.rest_for(&session, "end_turn").await;
    assert_eq!(std::fs::read_to_string(world.file(&session, "a.txt")).unwrap(), "one two");
    let results = server.results(&session).await;
    assert!(results[2].ends_with("not carried out: leave the first word"), "{results:?}");
    let after = server.types(&session).await.split_off(before.len());
    let wanted = [
        "user.tool_confirmation",
        "session.status_idle",
        "user.tool_confirmation",
        "session.status_running",
        "agent.tool_result",
        "agent.tool_result",
        "span.model_request_start",
        "agent.message",
        "span.model_request_end",
        "session.status_idle",
    ];
    assert_eq!(after, wanted);
    let state = server.get(&format!("/v1/deliveries/{delivery}")).await;
    assert_eq!(state["outcome"], "succeeded");
    let audit = server.get("/v1/audit").await;
    let audit = audit["data"].as_array().unwrap();
    for (action, call) in [("approval.allow", &ids[0]), ("approval.deny", &ids[1])] {
        let entry = audit.iter().find(|entry| entry["action"] == action).unwrap();
        assert_eq!((&entry["target"], &entry["actor"]), (call, &json!("master key")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answers_is_denied_on_sqlite() {
    expiry(World::sqlite(expiry_script()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answers_is_denied_on_postgres() {
    expiry(World::postgres(expiry_script()).await).await;
}

fn expiry_script() -> Vec<Reply> {
    vec![calls(&[write("a.txt", "x")]), Reply::text(&["then not"])]
}

async fn expiry(world: World) {
    let world = world.with("BELLPULL_TURNS__APPROVAL_SECONDS_MAX", "1");
    let server = world.serve().await;
    let agent = server.agent(json!([tool("write", "always_ask")])).await;
    let session = server.session(&agent).await;
    server.rest_for(&session, "end_turn").await;
    assert!(!world.file(&session, "a.txt").exists());
    let results = server.results(&session).await;
    assert!(results[0].contains("nobody answered in time"), "{results:?}");
    let events = server.events(&session).await;
    let call = events.iter().find(|event| event["type"] == "agent.tool_use").unwrap();
    let (status, late) = server.say(&session, allow(&call["id"])).await;
    assert_eq!(status, 409, "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_while_no_server_runs_is_denied_on_sqlite() {
    expired_meanwhile(World::sqlite(expiry_script()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_while_no_server_runs_is_denied_on_postgres() {
    expired_meanwhile(World::postgres(expiry_script()).await).await;
}

async fn expired_meanwhile(world: World) {
    let server = world.serve().await;
    let agent = server.agent(json!([tool("write", "always_ask")])).await;
    let session = server.session(&agent).await;
    let reason = server.rest_for(&session, "requires_action").await;
    server.0.kill();
    // As long as that takes: nobody is there to see it.
    let location = world.location();
    raw::sql(&location, "update approvals set asked_at = 1, expires_at = 2").await;
    raw::sql(
        &location,
        "update sessions set next_at = 2 where turn_id is not null and lease_owner is null",
    )
    .await;
    let server = world.serve().await;
    // Whether the turn goes on first or not.
    let (status, late) = server.say(&session, allow(&reason["event_ids"][0])).await;
    assert_eq!(status, 409, "{late}");
    server.rest_for(&session, "end_turn").await;
    assert!(!world.file(&session, "a.txt").exists());
    let results = server.results(&session).await;
    assert_eq!(results.len(), 1, "{results:?}");
    assert!(results[0].contains("nobody answered in time"), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_answers_for_one_call_one_counts_on_sqlite() {
    two_answers(World::sqlite(Vec::new()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_answers_for_one_call_one_counts_on_postgres() {
    two_answers(World::postgres(Vec::new()).await).await;
}

async fn two_answers(world: World) {
    let server = world.serve().await;
    let agent = server.agent(json!([tool("write", "always_ask")])).await;
    for n in 0..5 {
        world.models.then(calls(&[write("a.txt", "x")]));
        world.models.then(Reply::text(&["so be it"]));
        let session = server.session(&agent).await;
        let reason = server.rest_for(&session, "requires_action").await;
        let call = &reason["event_ids"][0];
        let deny = json!({"type": "user.tool_confirmation", "tool_use_id": call, "result": "deny"});
        // In one request neither is taken, as both cannot be.
        let path = format!("/v1/sessions/{session}/events");
        let both = json!({"events": [allow(call), deny.clone()]});
        let (status, refused) = server.call(reqwest::Method::POST, &path, Some(both)).await;
        assert_eq!(status, 409, "{refused}");
        assert_eq!(server.rest(&session).await["type"], "requires_action");
        let answers = [server.say(&session, allow(call)), server.say(&session, deny.clone())];
        let answers = futures_util::future::join_all(answers).await;
        let statuses: Vec<_> = answers.iter().map(|(status, _)| *status).collect();
        assert!([[200, 409], [409, 200]].iter().any(|it| *it == statuses[..]), "{answers:?}");
        server.rest_for(&session, "end_turn").await;
        let is_allowed = statuses[0] == 200;
        assert_eq!(world.file(&session, "a.txt").exists(), is_allowed, "the {n}th time");
        let types = server.types(&session).await;
        let n_answers = types.iter().filter(|it| *it == "user.tool_confirmation").count();
        assert_eq!(n_answers, 1, "{types:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_call_over_and_over_ends_the_turn() {
    let again = || calls(&[write("a.txt", "x")]);
    let world = World::sqlite(vec![again(), again(), again(), again()]).await;
    let server = world.serve().await;
    let agent = server.agent(json!([tool("write", "always_allow")])).await;
    let session = server.session(&agent).await;
    assert_eq!(server.rest(&session).await["type"], "retries_exhausted");
    let events = server.events(&session).await;
    let results: Vec<_> =
        events.iter().filter(|event| event["type"] == "agent.tool_result").collect();
    let is_warned = |n: usize| results[n]["content"].to_string().contains("several times in a row");
    assert_eq!((0..4).map(is_warned).collect::<Vec<_>>(), [false, false, true, false]);
    let error = events.iter().find(|event| event["type"] == "session.error").unwrap();
    assert_eq!(error["error"]["type"], "tool_use_limit_reached_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_shows_what_it_could_do_with_what_it_is_told() {
    let world = World::sqlite(Vec::new()).await;
    let server = world.serve().await;
    let tools = json!([tool("read", "always_allow"), tool("web_fetch", "always_allow")]);
    let agent = server.agent(tools).await;
    let agent = server.get(&format!("/v1/agents/{agent}")).await;
    let exposure = json!({"untrusted_input": true, "private_data": true, "outside_effect": true,
        "asks": ["web_fetch"]});
    assert_eq!(agent["exposure"], exposure);
}

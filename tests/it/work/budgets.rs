//! Budgets that stop a turn in the middle.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Server, World, calls, text, tool};
use crate::support::model_server::{Reply, Tokens};

/// The model goes on for ever, each time with another call.
fn going_on(n: usize, tokens: u64) -> Reply {
    let call = ("read", json!({"file_path": format!("file-{n}.txt")}));
    calls(&[call]).tokens(Tokens { input: tokens / 2, cached: 0, output: tokens - tokens / 2 })
}

const PRICED: &str = "[models.prices.claude-scripted]\ninput_per_mtok = 1\noutput_per_mtok = 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_budget_stops_the_turn_on_sqlite() {
    each_kind(World::sqlite(Vec::new()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_budget_stops_the_turn_on_postgres() {
    each_kind(World::postgres(Vec::new()).await).await;
}

async fn each_kind(world: World) {
    world.configure(PRICED);
    let server = world.serve().await;
    for (limit, n_requests) in [
        (json!({"turn": {"model_calls": 3}}), 3),
        // With the calls used up it may still say something.
        (json!({"turn": {"tool_calls": 3}}), 4),
        (json!({"turn": {"tokens": 250}}), 3),
        // A request of 100 tokens costs a ten thousandth.
        (json!({"session": {"cost_usd": "0.00025"}}), 3),
        (json!({"day": {"tokens": 200}}), 2),
        (json!({"day": {"model_calls": 0}}), 0),
        // Nothing at all is a limit like any other.
        (json!({"turn": {"tokens": 0}}), 0),
        (json!({"turn": {"seconds": 0}}), 0),
        (json!({"session": {"cost_usd": "0"}}), 0),
        (json!({"turn": {"tool_calls": 0}}), 1),
    ] {
        let agent = server.agent(json!([tool("read", "always_allow")])).await;
        server.post(&format!("/v1/budgets/{agent}"), limit.clone()).await;
        let before = world.models.requests().len();
        (0..n_requests).for_each(|n| world.models.then(going_on(n, 100)));
        let session = server.session(&agent).await;
        assert_eq!(server.rest(&session).await["type"], "budget_reached", "{limit}");
        assert_eq!(world.models.requests().len() - before, n_requests, "{limit}");
        let events = server.events(&session).await;
        let results = events.iter().filter(|event| event["type"] == "agent.tool_result").count();
        let uses = events.iter().filter(|event| event["type"] == "agent.tool_use").count();
        assert_eq!(results, uses, "{limit}");
    }
    let audit = server.get("/v1/audit").await;
    assert_eq!(audit["data"][0]["action"], "budgets.set");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_turn_ends_a_request_that_is_under_way() {
    let (_gate, held) = Reply::text(&["never"]).held();
    let world = World::sqlite(vec![held]).await.with("BELLPULL_BUDGETS__TURN_SECONDS", "1");
    let server = world.serve().await;
    let agent = server.agent(json!([])).await;
    let begun = Instant::now();
    let session = server.session(&agent).await;
    assert_eq!(server.rest(&session).await["type"], "budget_reached");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_the_budget_of_the_api_and_an_unpriced_model_none() {
    let world = World::sqlite(Vec::new()).await;
    let server = world.serve().await;
    let agent = server.agent(json!([])).await;
    let budget = json!({"type": "limit", "max_list_cost": {"amount": "200", "currency": "USD"}});
    // Without a price only our own limits can be given, and nobody is asked.
    let session = server.session_with(&agent, json!({"limits": {"cost_usd": "2"}})).await;
    assert_eq!(server.get(&format!("/v1/sessions/{session}")).await["budget"], budget);
    assert_eq!(server.rest(&session).await["type"], "retries_exhausted");
    let events = server.events(&session).await;
    let error = events.iter().find(|event| event["type"] == "session.error").unwrap();
    assert!(text(&error["error"]["message"]).contains("has no price"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_runs_overspend_by_one_request_at_most_on_sqlite() {
    random_runs(World::sqlite(Vec::new()).await, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_runs_overspend_by_one_request_at_most_on_postgres() {
    random_runs(World::postgres(Vec::new()).await, 30).await;
}

const TOKENS_MAX: u64 = 400;

async fn random_runs(world: World, n_runs: usize) {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    (0..n_runs * 40).for_each(|n| world.models.then(going_on(n, 20 + random(TOKENS_MAX - 20))));
    let world = world.with("BELLPULL_MODELS__MAX_TOKENS", "1000");
    let server = world.serve().await;
    let runs = (0..n_runs).map(|_| run(&server, 1 + random(3000), 1 + random(3)));
    let runs: Vec<_> = runs.collect();
    for (limit, spent) in join_all(runs).await {
        assert!(spent >= limit, "{spent} of {limit}: it was stopped too early");
        assert!(spent < limit + TOKENS_MAX, "{spent} of {limit}");
    }
    world.models.forget();
}

/// Sessions of one agent that share a budget. Answers limit and tokens.
async fn run(server: &Server, limit: u64, n_sessions: u64) -> (u64, u64) {
    let agent = server.agent(json!([tool("read", "always_allow")])).await;
    server.post(&format!("/v1/budgets/{agent}"), json!({"day": {"tokens": limit}})).await;
    let begun = join_all((0..n_sessions).map(|_| server.session(&agent))).await;
    let mut spent = 0;
    for session in begun {
        assert_eq!(server.rest(&session).await["type"], "budget_reached");
        let usage = server.get(&format!("/v1/sessions/{session}")).await["usage"].clone();
        let count = |name: &str| usage[name].as_u64().unwrap();
        spent += count("input_tokens") + count("output_tokens");
    }
    (limit, spent)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_worker_reserved_is_free_with_the_next_claim() {
    let (_gate, held) = Reply::text(&["never"]).held();
    let world = World::sqlite(vec![held, Reply::text(&["done"])]).await;
    let server = world.serve().await;
    let agent = server.agent(json!([])).await;
    // What is reserved is more than all of it.
    let limits: Value = json!({"day": {"tokens": 100}});
    server.post(&format!("/v1/budgets/{agent}"), limits).await;
    let session = server.session(&agent).await;
    crate::support::process::until("the model is asked", async || {
        (world.models.requests().len() == 1).then_some(())
    })
    .await;
    server.0.kill();
    let server = world.serve().await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_says_what_an_agent_and_a_source_may_use() {
    let declared = |limits: &str| {
        format!(
            "[agents.bob]\nmodel = \"claude-scripted\"\n\
             tools = [{{ type = \"agent_toolset_20260401\" }}]\n{limits}\n\
             [webhooks.shop]\npreset = \"bearer\"\nsecret = \"a-token-of-the-shop\"\nagent = \"bob\"\n\
             budgets = {{ day = {{ tokens = 250 }} }}\n"
        )
    };
    let world = World::sqlite((0..2).map(|n| going_on(n, 100)).collect()).await;
    world.configure(&declared("budgets = { turn = { model_calls = 2 } }"));
    let server = world.serve().await;
    let agents = server.get("/v1/agents").await;
    let bob = agents["data"].as_array().unwrap().iter().find(|it| it["name"] == "bob").unwrap();
    let bob = bob["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/budgets/{bob}");
    assert_eq!(server.get(&path).await["turn"], json!({"model_calls": 2}));
    assert_eq!(server.get("/v1/budgets/shop").await["day"], json!({"tokens": 250}));
    let session = server.session(&bob).await;
    assert_eq!(server.rest(&session).await["type"], "budget_reached");
    assert_eq!(world.models.requests().len(), 2);
    let refused = server.call(reqwest::Method::POST, &path, Some(json!({}))).await;
    assert_eq!(refused.0, 409, "{}", refused.1);
    assert!(refused.1.to_string().contains("declared in the config file"), "{}", refused.1);

    // What leaves the file is gone with the next start.
    server.0.terminate().await;
    world.configure(&declared(""));
    let server = world.serve().await;
    assert_eq!(server.get(&path).await["turn"], json!({}));
}

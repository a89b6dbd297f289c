//! Outcomes: what a session is to reach, and a grader that says whether it has.

use serde_json::{Value, json};

use super::{Server, World, text, tool};
use crate::support::{
    model_server::{Reply, Tokens},
    process::until,
};

fn outcome(more: Value) -> Value {
    let rubric = json!({"type": "text", "content": "- the second line rhymes"});
    let mut event = json!({"type": "user.define_outcome", "description": "Write a poem.",
        "rubric": rubric});
    for (key, value) in more.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

fn says(verdict: &str, explanation: &str) -> Reply {
    let answer = json!({"verdict": verdict, "explanation": explanation}).to_string();
    let (head, tail) = answer.split_at(answer.len() / 2);
    Reply::text(&[head, tail])
}

/// A session that begins with an outcome.
async fn aimed(server: &Server, more: Value) -> String {
    let agent = server.agent(json!([tool("read", "always_allow")])).await;
    server.session_with(&agent, json!({"initial_events": [outcome(more)]})).await
}

async fn evaluations(server: &Server, session: &str) -> Value {
    server.get(&format!("/v1/sessions/{session}")).await["outcome_evaluations"].clone()
}

/// Events of outcomes, in their order.
async fn spans(server: &Server, session: &str) -> Vec<Value> {
    let events = server.events(session).await;
    let is_one = |event: &Value| event["type"].as_str().unwrap_or_default().contains("outcome");
    events.into_iter().filter(is_one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_revised_until_it_is_reached_on_sqlite() {
    revise(World::sqlite(revised()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_revised_until_it_is_reached_on_postgres() {
    revise(World::postgres(revised()).await).await;
}

fn revised() -> Vec<Reply> {
    vec![
        Reply::text(&["roses are red"]),
        says("needs_revision", "the second line is missing"),
        Reply::text(&["roses are red, and so is my bed"]),
        says("satisfied", "it rhymes").tokens(Tokens { input: 900, cached: 100, output: 50 }),
    ]
}

async fn revise(world: World) {
    let server = world.serve().await;
    let session = aimed(&server, json!({})).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    let requests = world.models.requests();
    assert!(requests[0].said().contains("Write a poem.") && !requests[0].said().contains("rhymes"));
    let asked = requests[1].said();
    for part in ["Write a poem.", "the second line rhymes", "roses are red", "<work-sevt_"] {
        assert!(asked.contains(part), "{asked}");
    }
    assert_eq!(requests[1].tools(), Vec::<&str>::new(), "a grader has no tools");
    assert_eq!(requests[1].model(), requests[0].model());
    assert!(requests[2].said().contains("the second line is missing"), "{}", requests[2].said());
    let types = server.types(&session).await;
    assert_eq!(
        types,
        [
            "session.status_running",
            "user.define_outcome",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "span.outcome_evaluation_start",
            "span.model_request_start",
            "span.model_request_end",
            "span.outcome_evaluation_end",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "span.outcome_evaluation_start",
            "span.model_request_start",
            "span.model_request_end",
            "span.outcome_evaluation_end",
            "session.status_idle",
        ]
    );
    let spans = spans(&server, &session).await;
    let id = &spans[0]["outcome_id"];
    assert!(text(id).starts_with("outc_"));
    assert_eq!(
        (&spans[0]["max_iterations"], spans[0]["rubric"]["type"].as_str()),
        (&json!(null), Some("text"))
    );
    for (n, result) in [(2, "needs_revision"), (4, "satisfied")] {
        let (start, end) = (&spans[n - 1], &spans[n]);
        assert_eq!((&end["outcome_id"], &end["result"]), (id, &json!(result)));
        assert_eq!(end["outcome_evaluation_start_id"], start["id"]);
        assert_eq!(
            (&start["iteration"], &end["iteration"]),
            (&json!(n / 2 - 1), &json!(n / 2 - 1))
        );
    }
    let usage = json!({"input_tokens": 900, "output_tokens": 50, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 100});
    assert_eq!(spans[4]["usage"], usage);
    let shown = evaluations(&server, &session).await;
    assert!(shown[0]["completed_at"].is_string(), "{shown}");
    let mut expected = json!([{"type": "outcome_evaluation", "outcome_id": id,
        "description": "Write a poem.", "result": "satisfied", "iteration": 1,
        "explanation": "it rhymes"}]);
    expected[0]["completed_at"] = shown[0]["completed_at"].clone();
    assert_eq!(shown, expected);
    let session = server.get(&format!("/v1/sessions/{session}")).await;
    let spent = &session["usage"]["input_tokens"];
    assert_eq!(spent, &json!(10 + 10 + 10 + 900), "the grader's tokens are the session's");
}

#[tokio::test(flavor = "multi_thread")]
async fn iterations_end_with_the_agents_last_word() {
    let script = vec![
        Reply::text(&["roses"]),
        says("needs_revision", "no rhyme"),
        Reply::text(&["I cannot rhyme."]),
        // What is defined later is another outcome.
        Reply::text(&["violets"]),
        Reply::text(&["I think that this is very nice."]),
    ];
    let world = World::sqlite(script).await;
    let server = world.serve().await;
    let session = aimed(&server, json!({"max_iterations": 1})).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    assert!(world.models.requests()[2].said().contains("the last evaluation"));
    let (status, sent) = server.say(&session, outcome(json!({}))).await;
    assert_eq!(status, 200, "{sent}");
    assert!(sent["data"][0]["processed_at"].is_string(), "{sent}");
    until("both outcomes have ended", async || {
        let shown = evaluations(&server, &session).await;
        let results = [&shown[0]["result"], &shown[1]["result"]];
        (results == [&json!("max_iterations_reached"), &json!("failed")]).then_some(())
    })
    .await;
    let shown = evaluations(&server, &session).await;
    assert_eq!(shown[1]["outcome_id"], sent["data"][0]["outcome_id"]);
    assert!(text(&shown[1]["explanation"]).contains("no verdict"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grader_is_stopped_by_an_interrupt_on_sqlite() {
    let (_gate, held) = says("satisfied", "too late").held();
    stop(World::sqlite(vec![Reply::text(&["roses"]), held]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grader_is_stopped_by_an_interrupt_on_postgres() {
    let (_gate, held) = says("satisfied", "too late").held();
    stop(World::postgres(vec![Reply::text(&["roses"]), held]).await).await;
}

async fn asked(world: &World, n: usize) {
    until("the model is asked", async || (world.models.requests().len() == n).then_some(())).await;
}

async fn stop(world: World) {
    let server = world.serve().await;
    let session = aimed(&server, json!({})).await;
    asked(&world, 2).await;
    assert_eq!(evaluations(&server, &session).await[0]["result"], "evaluating");
    // There is one at a time.
    let (status, refused) = server.say(&session, outcome(json!({}))).await;
    assert_eq!((status, &refused["error"]["type"]), (400, &json!("invalid_request_error")));
    assert!(text(&refused["error"]["message"]).contains("one at a time"), "{refused}");
    server.say(&session, json!({"type": "user.interrupt"})).await;
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    let types = server.types(&session).await;
    let ends = [
        "user.interrupt",
        "span.model_request_end",
        "span.outcome_evaluation_end",
        "session.status_idle",
    ];
    assert_eq!(types[types.len() - 4..], ends);
    let spans = spans(&server, &session).await;
    assert_eq!((spans.len(), &spans[2]["result"]), (3, &json!("interrupted")));
    assert_eq!(spans[2]["outcome_evaluation_start_id"], spans[1]["id"]);
    assert_eq!(evaluations(&server, &session).await[0]["result"], "interrupted");
    // The next one is as good as the first.
    world.models.then(Reply::text(&["violets"]));
    world.models.then(says("satisfied", "fine"));
    let (status, sent) = server.say(&session, outcome(json!({}))).await;
    assert_eq!(status, 200, "{sent}");
    until("the next outcome is reached", async || {
        let shown = evaluations(&server, &session).await;
        (shown[1]["result"] == "satisfied").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_at_work_on_an_outcome_is_stopped_by_an_interrupt() {
    let (_gate, held) = Reply::text(&["never"]).held();
    let world = World::sqlite(vec![held]).await;
    let server = world.serve().await;
    let session = aimed(&server, json!({})).await;
    asked(&world, 1).await;
    server.say(&session, json!({"type": "user.interrupt"})).await;
    server.rest(&session).await;
    let spans = spans(&server, &session).await;
    assert_eq!((spans.len(), &spans[1]["result"]), (2, &json!("interrupted")));
    assert_eq!(spans[1]["outcome_evaluation_start_id"], "", "no evaluation had begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn grading_goes_on_after_kill_9_on_sqlite() {
    killed(World::sqlite(Vec::new()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grading_goes_on_after_kill_9_on_postgres() {
    killed(World::postgres(Vec::new()).await).await;
}

/// The server dies while a grader is asked, twice, and while the agent revises.
async fn killed(world: World) {
    let held = |reply: Reply| {
        let (gate, reply) = reply.held();
        world.models.then(reply);
        gate
    };
    world.models.then(Reply::text(&["roses"]));
    let (_first, _second) = (held(says("satisfied", "lost")), held(says("satisfied", "lost too")));
    world.models.then(says("needs_revision", "no rhyme"));
    let _third = held(Reply::text(&["lost"]));
    world.models.then(Reply::text(&["roses, noses"]));
    world.models.then(says("satisfied", "it rhymes"));
    let server = world.serve().await;
    let session = aimed(&server, json!({})).await;
    let mut server = server;
    for n in [2, 3, 5] {
        asked(&world, n).await;
        server.0.kill();
        server = world.serve().await;
    }
    assert_eq!(server.rest(&session).await["type"], "end_turn");
    let spans = spans(&server, &session).await;
    let told = spans.iter().map(|span| (text(&span["type"]), span["iteration"].as_i64()));
    let told: Vec<_> = told.filter(|(kind, _)| kind.starts_with("span")).collect();
    let span = |kind: &str, n| (format!("span.outcome_evaluation_{kind}"), Some(n));
    assert_eq!(told, [span("start", 0), span("end", 0), span("start", 1), span("end", 1)]);
    let events = server.events(&session).await;
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!(of("span.model_request_start"), of("span.model_request_end"));
    let shown = evaluations(&server, &session).await;
    assert_eq!((&shown[0]["result"], &shown[0]["iteration"]), (&json!("satisfied"), &json!(1)));
    let tokens =
        server.get(&format!("/v1/sessions/{session}")).await["usage"]["input_tokens"].clone();
    assert_eq!(tokens, 40, "what was answered is counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_ends_the_outcome_and_is_overspent_by_no_grader() {
    let world = World::sqlite(vec![Reply::text(&["roses"])]).await;
    let server = world.serve().await;
    let agent = server.agent(json!([])).await;
    server.post(&format!("/v1/budgets/{agent}"), json!({"turn": {"model_calls": 1}})).await;
    let aim = json!({"initial_events": [outcome(json!({}))]});
    let session = server.session_with(&agent, aim).await;
    assert_eq!(server.rest(&session).await["type"], "budget_reached");
    assert_eq!(world.models.requests().len(), 1, "no grader was asked");
    let types = server.types(&session).await;
    let ends = [
        "span.outcome_evaluation_end",
        "session.error",
        "session.thread_status_idle",
        "session.usage",
        "session.status_idle",
    ];
    assert_eq!(types[types.len() - 5..], ends);
    let shown = evaluations(&server, &session).await;
    assert_eq!(shown[0]["result"], "failed");
    assert!(text(&shown[0]["explanation"]).contains("budget"), "{shown}");
    // And the session takes the next one.
    let (status, sent) = server.say(&session, outcome(json!({}))).await;
    assert_eq!(status, 200, "{sent}");
    world.models.forget();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grader_that_cannot_be_reached_is_asked_again() {
    let script = vec![
        Reply::text(&["roses"]),
        Reply::status(529, "overloaded_error", "busy"),
        says("satisfied", "fine"),
    ];
    let world = World::sqlite(script).await.with("BELLPULL_MODELS__RETRY_FIRST_MS", "1");
    let server = world.serve().await;
    let session = aimed(&server, json!({})).await;
    until("the outcome is reached", async || {
        let shown = evaluations(&server, &session).await;
        (shown[0]["result"] == "satisfied").then_some(())
    })
    .await;
    let spans = spans(&server, &session).await;
    assert_eq!(spans.len(), 3, "one evaluation: {spans:?}");
}

/// What is said meanwhile is said to the work that is graded.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_joins_the_work_on_an_outcome() {
    let (gate, held) = says("needs_revision", "no rhyme").held();
    let script = vec![
        Reply::text(&["roses"]),
        held,
        Reply::text(&["violets, with no lets"]),
        says("satisfied", "fine"),
    ];
    let world = World::sqlite(script).await;
    let server = world.serve().await;
    let session = aimed(&server, json!({})).await;
    asked(&world, 2).await;
    let content = json!([{"type": "text", "text": "Let it be about violets."}]);
    let (status, sent) =
        server.say(&session, json!({"type": "user.message", "content": content})).await;
    assert_eq!(status, 200, "{sent}");
    gate.open();
    server.rest(&session).await;
    let said = world.models.requests()[2].said();
    assert!(said.contains("no rhyme") && said.contains("about violets"), "{said}");
    let types = server.types(&session).await;
    assert_eq!(types.iter().filter(|kind| *kind == "session.status_idle").count(), 1, "one turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_outcomes_at_once_one_is_taken_on_sqlite() {
    at_once(World::sqlite(Vec::new()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_outcomes_at_once_one_is_taken_on_postgres() {
    at_once(World::postgres(Vec::new()).await).await;
}

async fn at_once(world: World) {
    let (_gate, held) = Reply::text(&["never"]).held();
    world.models.then(held);
    let server = world.serve().await;
    let agent = server.agent(json!([])).await;
    let session = server.session_with(&agent, json!({"initial_events": []})).await;
    let tries = (0..8).map(|_| server.say(&session, outcome(json!({}))));
    let answers = futures_util::future::join_all(tries).await;
    let mut statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400, 400, 400, 400, 400, 400, 400]);
    asked(&world, 1).await;
    assert_eq!(evaluations(&server, &session).await.as_array().map(Vec::len), Some(1));
}

/// A turn that waits for somebody ends with its session, and so does what it worked towards.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_ends_with_its_session() {
    let world = World::sqlite(vec![super::calls(&[super::write("a.txt", "x")])]).await;
    let server = world.serve().await;
    let agent = server.agent(json!([tool("write", "always_ask")])).await;
    let aim = json!({"initial_events": [outcome(json!({}))]});
    let session = server.session_with(&agent, aim).await;
    server.rest_for(&session, "requires_action").await;
    assert_eq!(evaluations(&server, &session).await[0]["result"], "running");
    server.post(&format!("/v1/sessions/{session}/archive"), json!({})).await;
    let types = server.types(&session).await;
    let ends = ["span.outcome_evaluation_end", "session.status_terminated"];
    assert_eq!(types[types.len() - 2..], ends);
    assert_eq!(evaluations(&server, &session).await[0]["result"], "interrupted");
}

//! Whole turns: from a webhook to the end of its delivery, with a model that does as it is told.

use std::time::Duration;

use bellpull::clock::Clock;
use serde_json::{Value, json};

use super::story::{KEY, Story, TOKEN, find, types};
use crate::support::{
    model_server::{End, Format, Reply, Tokens},
    process::until,
};

on_all!(
    a_payload_is_answered,
    a_tool_goes_round_and_what_was_thought_goes_back,
    a_rate_limit_is_waited_for_as_long_as_it_says,
    an_overload_that_stays_ends_the_turn,
    tries_that_take_too_long_end_the_turn,
    half_an_answer_is_void_and_asked_for_again,
    a_model_that_falls_silent_is_asked_again,
    a_turn_that_is_told_to_stop_lets_go_of_the_model_at_once,
    tokens_cost_what_the_config_says,
    an_answer_that_is_no_success_does_not_pass_for_one,
    keys_are_nowhere,
);

async fn a_payload_is_answered(format: Format) {
    let story = Story::begin(format, "", [Reply::text(&["Noted: ", "größe 42."])]).await;
    let rung = story.ring(r#"{"type":"invoice.paid","amount":42}"#).await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let events = story.events(&rung).await;
    assert_eq!(types(&events), ["running", "user", "ask", "message", "answered", "idle"]);
    assert_eq!(
        find(&events, "message")["content"],
        json!([{"type": "text", "text": "Noted: größe 42."}])
    );
    assert_eq!(find(&events, "idle")["stop_reason"]["type"], "end_turn");

    let request = story.models.requests().remove(0);
    assert_eq!((request.format, request.model()), (format, story.model()));
    assert!(request.system().starts_with("You answer the bell."));
    assert!(request.system().contains("is data sent by outside systems"));
    assert_eq!(request.tools(), ["delivery"]);
    let said = request.said();
    assert!(said.contains("<event-") && said.contains(r#""amount":42"#), "{said}");
    assert!(request.header("user-agent").unwrap().starts_with("bellpull/"));

    // The provider's own answer is in the journal, and for nobody else.
    let shown = story.server.get(&format!("/v1/sessions/{}/events", rung.session)).await;
    assert!(!shown.to_string().contains("_scripted"), "{shown}");
    let database = story.database();
    assert!(story.server.terminate().await.success());
    let database = rusqlite::Connection::open(database).unwrap();
    let sql = "select private from events where type = 'span.model_request_end'";
    let private: String = database.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(private.contains("scripted") && private.contains("größe"), "{private}");
}

async fn a_tool_goes_round_and_what_was_thought_goes_back(format: Format) {
    let call = json!({"pointer": "/items/1999"});
    let story = Story::begin(
        format,
        "",
        [
            Reply::text(&["I shall look."]).thinking().and_calls(&[("delivery", call)]),
            Reply::text(&[]).thinking().and_calls(&[
                ("delivery", json!({"pointer": "/nowhere"})),
                ("nonsense", json!({})),
            ]),
            Reply::text(&["It is the last one."]).thinking(),
            Reply::text(&["And again."]),
        ],
    )
    .await;
    let items: Vec<String> = (0..2000).map(|n| format!("item {n}")).collect();
    let rung = story.ring(&json!({"items": items}).to_string()).await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let events = story.events(&rung).await;
    assert_eq!(
        types(&events),
        [
            "running", "user", //
            "ask", "thinking", "message", "answered", "call", "result", //
            "ask", "thinking", "answered", "call", "call", "result", "result", //
            "ask", "thinking", "message", "answered", "idle",
        ]
    );
    assert_eq!(find(&events, "result")["content"][0]["text"], "\"item 1999\"");
    let requests = story.models.requests();
    assert!(!requests[0].said().contains("item 1999"), "the message holds only a part");
    assert!(requests[1].said().contains("item 1999"));
    assert!(requests[2].said().contains("this agent has no tool `nonsense`"));
    // What was thought goes back, sealed as it was; the scripted server looks at it, too.
    let sealed = |n: usize| {
        let body = requests[n].body.to_string();
        match format {
            Format::Anthropic => body.matches("c2lnbmVk").count(),
            Format::Chat => body.matches("\"reasoning_content\":\"Let me see.\"").count(),
            Format::Responses => body.matches("c2VhbGVk").count(),
        }
    };
    assert_eq!([sealed(0), sealed(1), sealed(2)], [0, 1, 2]);

    // The next turn of the same session.
    let again = story.ring("{}").await;
    assert_eq!(again.session, rung.session);
    assert_eq!(story.outcome(&again).await, "succeeded");
    let last = story.models.requests().pop().unwrap();
    assert!(last.said().contains("item 1999"), "the conversation goes on");
}

async fn a_rate_limit_is_waited_for_as_long_as_it_says(format: Format) {
    let busy = Reply::status(429, "rate_limit_error", "slow down").header("retry-after", "1");
    let story = Story::begin(format, "", [busy, Reply::text(&["Now."])]).await;
    let rung = story.ring("{}").await;
    story.waits(&rung).await;
    // What comes meanwhile waits as well, and is for the next turn.
    story.models.then(Reply::text(&["And you."]));
    let second = story.ring(r#"{"second":true}"#).await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    assert_eq!(story.outcome(&second).await, "succeeded");
    let events = story.events(&rung).await;
    assert_eq!(
        types(&events),
        [
            "running",
            "user",
            "ask",
            "failed",
            "retrying",
            "rescheduled", //
            "running",
            "ask",
            "message",
            "answered",
            "idle", //
            "running",
            "user",
            "ask",
            "message",
            "answered",
            "idle",
        ]
    );
    let error = &find(&events, "retrying")["error"];
    assert_eq!(error["type"], "model_rate_limited_error");
    let message = "the model server answered 429 (rate_limit_error): slow down";
    assert_eq!(error["message"], message);
    let requests = story.models.requests();
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= Duration::from_secs(1) && pause < Duration::from_secs(10), "{pause:?}");
    assert!(!requests[1].said().contains("second") && requests[2].said().contains("second"));
}

async fn an_overload_that_stays_ends_the_turn(format: Format) {
    let overloaded = || Reply::status(529, "overloaded_error", "Overloaded");
    let script = [overloaded(), overloaded(), overloaded(), Reply::text(&["Back."])];
    let story = Story::begin(format, "retries_max = 2", script).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "failed");
    let events = story.events(&rung).await;
    let failure = ["ask", "failed", "retrying", "rescheduled", "running"];
    let mut expected = vec!["running", "user"];
    expected.extend(failure);
    expected.extend(failure);
    expected.extend(["ask", "failed", "exhausted", "idle"]);
    assert_eq!(types(&events), expected);
    assert_eq!(find(&events, "exhausted")["error"]["type"], "model_overloaded_error");
    assert_eq!(find(&events, "idle")["stop_reason"]["type"], "retries_exhausted");
    // Failures are counted anew in the next turn.
    let again = story.ring("{}").await;
    assert_eq!(story.outcome(&again).await, "succeeded");
}

async fn tries_that_take_too_long_end_the_turn(format: Format) {
    let busy = || Reply::status(429, "rate_limit_error", "slow down").header("retry-after", "1");
    let settings = "retries_max = 1000\nretry_total_seconds_max = 2";
    let story = Story::begin(format, settings, [busy(), busy()]).await;
    let rung = story.ring("{}").await;
    story.waits(&rung).await;
    // Another life gives no new time.
    let story = story.restart().await;
    assert_eq!(story.outcome(&rung).await, "failed");
    // A pause is 1 second and up to a fifth more: one of them fits, a second one does not.
    let events = story.events(&rung).await;
    assert_eq!(
        types(&events),
        [
            "running",
            "user",
            "ask",
            "failed",
            "retrying",
            "rescheduled", //
            "running",
            "ask",
            "failed",
            "exhausted",
            "idle",
        ]
    );
    let error = &find(&events, "exhausted")["error"];
    assert_eq!(error["type"], "model_rate_limited_error");
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("the model server answered 429"), "{message}");
    assert!(message.contains("`models.retry_total_seconds_max`"), "{message}");
    assert_eq!(find(&events, "idle")["stop_reason"]["type"], "retries_exhausted");
    let shown = Value::from(events).to_string();
    assert!(!shown.contains("lost_ms"), "{shown}");
    // The next turn has all of its time again.
    story.models.then(busy());
    story.models.then(Reply::text(&["Back."]));
    let again = story.ring("{}").await;
    assert_eq!(story.outcome(&again).await, "succeeded");
}

async fn half_an_answer_is_void_and_asked_for_again(format: Format) {
    let half = Reply::text(&["This is ", "the half ", "of it, and nobody needs it."]);
    let n_bytes = half.n_bytes(format);
    let story = Story::begin(
        format,
        "",
        [
            half.clone().cut_after(0),
            half.clone().cut_after(n_bytes / 2),
            half.breaking_off("api_error"),
            Reply::bytes("text/event-stream", b"data: <<<garbage>>>\n\n"),
            Reply::text(&["The whole."]),
        ],
    )
    .await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let events = story.events(&rung).await;
    let count = |wanted: &str| types(&events).iter().filter(|it| **it == wanted).count();
    assert_eq!((count("ask"), count("failed"), count("message")), (5, 4, 1));
    assert_eq!(find(&events, "message")["content"][0]["text"], "The whole.");
    assert_eq!(find(&events, "retrying")["error"]["type"], "model_request_failed_error");
    let bodies: Vec<Value> = story.models.requests().into_iter().map(|it| it.body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "the same request each time");
}

async fn a_model_that_falls_silent_is_asked_again(format: Format) {
    let whole = Reply::text(&["one ", "two ", "three"]);
    let stalled = whole.clone().stall_after(whole.n_bytes(format) * 2 / 3);
    let settings = "idle_seconds = 1\nfirst_seconds = 20";
    let story = Story::begin(format, settings, [stalled, whole]).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let events = story.events(&rung).await;
    let error = &find(&events, "retrying")["error"];
    assert_eq!(error["message"], "the model server sent nothing for 1 seconds");
    assert_eq!(story.models.abandoned().len(), 1, "the silent one was hung up on");
}

async fn a_turn_that_is_told_to_stop_lets_go_of_the_model_at_once(format: Format) {
    let stalled = Reply::text(&["never to be seen"]).stall_after(30);
    let story = Story::begin(format, "", [stalled, Reply::text(&["In another life."])]).await;
    let rung = story.ring("{}").await;
    until("the model is asked", async || (story.models.requests().len() == 1).then_some(())).await;
    let told = Clock::system().monotonic();
    story.server.signal("TERM");
    let closed = until("the connection is closed", async || story.models.abandoned().pop()).await;
    assert!(closed - told < Duration::from_secs(1), "{:?}", closed - told);

    let story = story.restart().await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let events = story.events(&rung).await;
    assert_eq!(
        types(&events),
        ["running", "user", "ask", "failed", "ask", "message", "answered", "idle"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_survives_a_restart_and_holds_no_worker() {
    let busy = Reply::status(503, "x", "not now").header("retry-after", "2");
    let script = [busy, Reply::text(&["Here I am."])];
    let story = Story::begin(Format::Anthropic, "", script).await;
    let rung = story.ring("{}").await;
    story.waits(&rung).await;
    let story = story.restart().await;
    assert_eq!(story.session(&rung).await["status"], "rescheduling");
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let requests = story.models.requests();
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_lets_go_of_the_model_too() {
    let stalled = Reply::text(&["never to be seen"]).stall_after(30);
    let story = Story::begin(Format::Anthropic, "", [stalled]).await;
    let rung = story.ring("{}").await;
    until("the model is asked", async || (story.models.requests().len() == 1).then_some(())).await;
    // Somebody else claims the session, for an hour.
    let database = rusqlite::Connection::open(story.database()).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let sql = "update sessions set epoch = epoch + 1, lease_owner = 'node:2', \
               lease_until = lease_until + 3600000, next_at = next_at + 3600000 where id = $1";
    assert_eq!(database.execute(sql, [&rung.session]).unwrap(), 1);
    let stolen = Clock::system().monotonic();
    let closed = until("the connection is closed", async || story.models.abandoned().pop()).await;
    // A lease of 5 seconds is renewed each third of that.
    assert!(closed - stolen < Duration::from_millis(1_667 + 1_000), "{:?}", closed - stolen);
    let types_now = story.events(&rung).await;
    assert_eq!(types(&types_now), ["running", "user", "ask"], "and writes nothing more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_has_a_fence_of_its_own() {
    let script = [Reply::text(&["One."]), Reply::text(&["Two."])];
    let story = Story::begin(Format::Anthropic, "", script).await;
    for body in ["{\"n\":1}", "{\"n\":2}"] {
        let rung = story.ring(body).await;
        assert_eq!(story.outcome(&rung).await, "succeeded");
    }
    let said = story.models.requests().remove(1).said();
    let openings = said.match_indices("\n<event-").map(|(at, tag)| &said[at + tag.len()..]);
    let nonces: Vec<_> = openings.filter_map(|rest| rest.split(' ').next()).collect();
    assert_eq!(nonces.len(), 2, "{said}");
    assert_ne!(nonces[0], nonces[1]);
    for nonce in nonces {
        // 64 bits that nobody outside has seen.
        assert!(nonce.len() >= 16 && nonce.bytes().all(|it| it.is_ascii_hexdigit()), "{nonce}");
        assert_eq!(said.matches(&format!("\n</event-{nonce}>")).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_turns_run_at_once_than_may() {
    let whole = Reply::text(&["At last."]);
    let stalled = whole.clone().stall_after(whole.n_bytes(Format::Anthropic) * 2 / 3);
    let script = [stalled, whole.clone(), whole];
    let story =
        Story::begin(Format::Anthropic, "idle_seconds = 1\nfirst_seconds = 20", script).await;
    story.configure(|text| {
        let text = text.replace("{ key = \"one\" }", "\"new_session\"");
        text.replace("[worker]\n", "[worker]\nturns_max = 1\n")
    });
    let story = story.restart().await;
    let rungs = [story.ring("1").await, story.ring("2").await];
    for rung in &rungs {
        assert_eq!(story.outcome(rung).await, "succeeded");
    }
    let (requests, let_go) = (story.models.requests(), story.models.abandoned());
    assert!(requests[1].at >= let_go[0], "the second one waited for the first one's end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_price_needs_no_restart() {
    let replies = std::iter::repeat_n(Reply::text(&["x"]), 2);
    let story = Story::begin(Format::Chat, "", replies).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    story.configure(|text| {
        text + "[models.prices.scripted]\ninput_per_mtok = 1\noutput_per_mtok = 2\n"
    });
    until("the file is read again", async || {
        story.server.log().contains("the configuration was read again").then_some(())
    })
    .await;
    let again = story.ring("{}").await;
    assert_eq!(story.outcome(&again).await, "succeeded");
    let ends: Vec<Value> = story
        .events(&again)
        .await
        .into_iter()
        .filter(|event| event["type"] == "span.model_request_end")
        .map(|event| event["cost_usd"].clone())
        .collect();
    assert_eq!(ends, [Value::Null, json!("0.000020")]);
}

async fn tokens_cost_what_the_config_says(format: Format) {
    let tokens = Tokens { input: 1_000_000, cached: 200_000, output: 100_000 };
    let name = match format {
        Format::Anthropic => "claude-scripted",
        Format::Chat | Format::Responses => "scripted",
    };
    let prices = format!(
        "[models.prices.\"{name}\"]\ninput_per_mtok = 3\noutput_per_mtok = \"15.00\"\n\
         cache_read_per_mtok = 0.3"
    );
    let failed = Reply::text(&["x"]).tokens(tokens).breaking_off("api_error");
    let whole = Reply::text(&["x"]).tokens(tokens);
    let story = Story::begin(format, &prices, [failed, whole]).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let events = story.events(&rung).await;
    let end = find(&events, "answered");
    assert_eq!(
        end["model_usage"],
        json!({"input_tokens": 1_000_000, "output_tokens": 100_000,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 200_000})
    );
    assert_eq!(end["cost_usd"], "4.560000");
    let usage = &story.session(&rung).await["usage"];
    // Only one format tells what it counted before it breaks off.
    let (amount, cost, input) = match format {
        Format::Anthropic => ("762", "7.620015", 2_000_000),
        Format::Chat | Format::Responses => ("456", "4.560000", 1_000_000),
    };
    assert_eq!(usage["list_cost"], json!({"amount": amount, "currency": "USD"}));
    assert_eq!((&usage["cost_usd"], &usage["input_tokens"]), (&json!(cost), &json!(input)));
    assert_eq!(usage["unpriced_requests"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_without_a_price_counts_tokens_and_says_so() {
    let story = Story::begin(Format::Chat, "", [Reply::text(&["x"])]).await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "succeeded");
    let usage = story.session(&rung).await["usage"].clone();
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(10), &json!(5)));
    assert!(usage["list_cost"].is_null() && usage["cost_usd"].is_null(), "{usage}");
    assert_eq!(usage["unpriced_requests"], 1);
    assert!(find(&story.events(&rung).await, "answered")["cost_usd"].is_null());
}

async fn an_answer_that_is_no_success_does_not_pass_for_one(format: Format) {
    let call = json!({"pointer": ""});
    let story = Story::begin(
        format,
        "",
        [
            Reply::text(&["I will not."]).ending(End::Refused),
            Reply::text(&["Half of "]).and_calls(&[("delivery", call)]).ending(End::Cut),
            Reply::bytes("text/html", b"<html>"),
        ],
    )
    .await;
    let rung = story.ring("{}").await;
    assert_eq!(story.outcome(&rung).await, "failed");
    let events = story.events(&rung).await;
    let idle = find(&events, "idle");
    assert_eq!(idle["stop_reason"]["type"], "refusal");
    let (category, explanation) = match format {
        Format::Anthropic => (json!("cyber"), json!("No.")),
        Format::Chat | Format::Responses => (Value::Null, Value::Null),
    };
    assert_eq!(
        idle["stop_details"],
        json!({"type": "refusal", "category": category, "explanation": explanation})
    );

    let cut = story.ring("{}").await;
    assert_eq!(story.outcome(&cut).await, "failed");
    let events = story.events(&cut).await;
    assert!(!types(&events).contains(&"call"), "half a call is not made");
    let error = &find(&events, "exhausted")["error"]["message"];
    assert!(error.as_str().unwrap().contains("`models.max_tokens`"), "{error}");

    let page = story.ring("{}").await;
    assert_eq!(story.outcome(&page).await, "failed");
    let events = story.events(&page).await;
    assert!(!types(&events).contains(&"retrying"), "a wrong URL does not get better");
}

async fn keys_are_nowhere(format: Format) {
    let message = format!("Incorrect API key provided: {KEY}");
    let script = [
        Reply::status(401, "authentication_error", &message),
        Reply::status(500, "api_error", &message),
        Reply::text(&["x"]),
    ];
    let story = Story::begin(format, "", script).await;
    for outcome in ["failed", "succeeded"] {
        let rung = story.ring("{}").await;
        assert_eq!(story.outcome(&rung).await, outcome);
        let events = Value::from(story.events(&rung).await).to_string();
        assert!(events.contains("Incorrect API key provided: ***"), "{events}");
        assert!(!events.contains(KEY));
    }
    let wrong = "token-of-somebody-else-0123456789";
    let request = story.server.http.post(format!("{}/api/webhook/shop?a={KEY}", story.server.url));
    let refused = request.bearer_auth(wrong).body("{}").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let list = until("the refusal is written down", async || {
        let list = story.server.get("/v1/sources/shop/refusals").await.to_string();
        list.contains("\"refusal\"").then_some(list)
    });
    let list = list.await;
    let database = story.database();
    let log = story.server.log();
    assert!(log.contains("a model request failed"));
    assert!(story.server.terminate().await.success());
    let bytes = std::fs::read(database).unwrap();
    for secret in [KEY, TOKEN, wrong] {
        assert!(!log.contains(secret), "{secret} in {log}");
        assert!(!list.contains(secret), "{secret} in {list}");
        assert!(!bytes.windows(secret.len()).any(|it| it == secret.as_bytes()), "{secret}");
    }
}

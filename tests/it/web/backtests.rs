//! A changed source tried on the deliveries that came.

use std::time::Duration;

use serde_json::{Value, json};

use super::server::{BOX, Server};

async fn ring(server: &Server, kind: &str, body: &Value) -> Value {
    server.clock.advance(Duration::from_secs(1));
    let call = server.bare("POST", "/api/webhook/code").bearer(BOX).header("x-event-type", kind);
    call.body(body.to_string()).status(202).await
}

#[tokio::test]
async fn a_change_is_tried_on_what_came() {
    backtest(Server::new().await).await;
}

#[tokio::test]
async fn a_change_is_tried_on_what_came_on_postgres() {
    backtest(Server::postgres().await).await;
}

async fn backtest(server: Server) {
    let reviewer = json!({"name": "reviewer", "model": "rehearsal"});
    let reviewer = server.id(server.post("/v1/agents").json(reviewer)).await;
    server.post("/v1/sources").json(json!({"name": "code"})).ok().await;
    let mut ids = Vec::new();
    for n in 0..250 {
        let kind = ["push", "pull_request"][n % 2];
        let answer = ring(&server, kind, &json!({"n": n / 10, "who": "me"})).await;
        ids.push(answer["delivery_id"].clone());
    }
    // One too large for a row, one that nobody can read any more.
    let large = json!({"n": 1000, "text": "x".repeat(300_000)});
    ids.push(ring(&server, "push", &large).await["delivery_id"].clone());
    let gone = ring(&server, "push", &json!({"n": 1})).await;
    let path = format!("/v1/deliveries/{}", gone["delivery_id"].as_str().expect("an id"));
    server.call("DELETE", &path).ok().await;
    server.clock.advance(Duration::from_secs(1));

    let try_out =
        async |body: Value| server.post("/v1/sources/code/backtest").json(body).ok().await;
    let as_it_was = try_out(json!({})).await;
    assert_eq!(as_it_was["deliveries"], 252);
    assert_eq!(as_it_was["without_body"], 1);
    assert_eq!(as_it_was["happened"], json!({"accepted": 251, "filtered": 0, "held": 0}));
    assert_eq!(as_it_was["would"], as_it_was["happened"]);
    assert_eq!((&as_it_was["different"], &as_it_was["turns"]), (&json!(0), &json!(251)));
    assert_eq!(as_it_was["agents"][0]["deliveries"], 251);

    let changed = json!({
        "filter": "body.n < 1000",
        "rules": [
            {"when": "event_type == 'pull_request' && body.n == 7", "verdict": "held", "reason": "seven"},
            {"when": "event_type == 'pull_request'", "agent": "reviewer",
             "target": {"key": "pr {{ body.n }}"}},
        ],
    });
    let report = try_out(json!({"source": changed, "differences": 3})).await;
    assert_eq!(report["would"], json!({"accepted": 245, "filtered": 1, "held": 5}));
    assert_eq!(
        report["agents"],
        json!([
            {"agent_id": server.agent, "name": "default", "deliveries": 125},
            {"agent_id": reviewer, "name": "reviewer", "deliveries": 120},
        ])
    );
    assert_eq!(report["keys"]["distinct"], 24);
    assert_eq!(report["keys"]["top"][0], json!({"key": "pr 0", "deliveries": 5}));
    assert_eq!(
        report["reasons"],
        json!([
            {"status": "held", "reason": "seven", "deliveries": 5},
            {"status": "filtered", "reason": "the source's filter does not want it", "deliveries": 1},
        ])
    );
    assert_eq!((&report["different"], &report["complete"]), (&json!(126), &json!(true)));
    let differences = report["differences"].as_array().expect("a list");
    assert_eq!(differences.len(), 3);
    assert_eq!(differences[0]["delivery_id"], ids[1]);
    assert_eq!(differences[0]["happened"]["agent_id"], json!(server.agent));
    assert_eq!(
        differences[0]["would"],
        json!({"status": "accepted", "agent_id": reviewer,
        "target": {"key": "pr 0"}})
    );

    // Deliveries to one key come every two seconds, ten of them; then nothing of it.
    let keyed = json!({"target": {"key": "{{ body.n }}"}, "filter": "body.n < 1000"});
    let debounced = |quiet: u32, longest: u32| {
        let mut source = keyed.clone();
        source["debounce_seconds"] = quiet.into();
        source["debounce_seconds_max"] = longest.into();
        try_out(json!({ "source": source }))
    };
    assert_eq!(debounced(30, 60).await["turns"], 25);
    assert_eq!(debounced(5, 5).await["turns"], 50);
    let by_body = try_out(json!({"source": {"identity": ["/n"]}})).await;
    assert_eq!((&by_body["duplicates"], &by_body["turns"]), (&json!(225), &json!(26)));

    assert_eq!(server.get("/v1/sources/code").ok().await["rules"], json!([]), "nothing is written");
}

#[tokio::test]
async fn what_is_wrong_with_a_change_is_said() {
    let server = Server::new().await;
    server.post("/v1/sources").json(json!({"name": "code"})).ok().await;
    let wrong = |body: Value| server.post("/v1/sources/code/backtest").json(body);
    let problem =
        wrong(json!({"source": {"filter": "x"}})).error(400, "invalid_request_error").await;
    assert!(problem.starts_with("source.filter: line 1, column 1: `x` is not known"), "{problem}");
    let impatient = json!({"source": {"debounce_seconds": 30, "debounce_seconds_max": 20}});
    let problem = wrong(impatient).error(400, "invalid_request_error").await;
    assert!(problem.starts_with("source.debounce_seconds_max: must not be less"), "{problem}");
    wrong(json!({"since": "yesterday"})).error(400, "invalid_request_error").await;
    wrong(json!({"source": {"secret": "x"}})).error(400, "invalid_request_error").await;
    server.post("/v1/sources/none/backtest").json(json!({})).error(404, "not_found_error").await;
}

#[tokio::test]
async fn a_stream_tells_how_far_a_backtest_is() {
    let server = Server::new().await;
    server.post("/v1/sources").json(json!({"name": "code"})).ok().await;
    for n in 0..150 {
        ring(&server, "push", &json!({"n": n})).await;
    }
    server.clock.advance(Duration::from_secs(1));
    let call = server.post("/v1/sources/code/backtest").json(json!({"stream": true}));
    let answer = call.send().await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let text = String::from_utf8(answer.body.to_vec()).expect("UTF-8");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|it| serde_json::from_str(it).expect("JSON")).collect();
    assert_eq!(events[0], json!({"type": "backtest.progress", "done": 100, "of": 150}));
    assert_eq!((&events[1]["type"], &events[1]["turns"]), (&json!("backtest"), &json!(150)));
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn headers_that_were_kept_decide_again() {
    let server = Server::new().await;
    server.post("/v1/sources").json(json!({"name": "code"})).ok().await;
    ring(&server, "push", &json!({})).await;
    server.clock.advance(Duration::from_secs(1));
    let source = json!({"filter": "event_type == 'push' && headers['x-event-type'] == 'push' && \
        !('authorization' in headers)"});
    let body = json!({"source": source});
    let report = server.post("/v1/sources/code/backtest").json(body).ok().await;
    assert_eq!(report["would"]["accepted"], 1, "{report:#}");
}

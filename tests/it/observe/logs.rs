//! The log: one trace from the sender to the model, ids on every line, no secret on any.

use std::path::Path;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    observe::{TOKEN, directory, serve},
    support::{
        model_server::{ModelServer, Reply},
        postgres::TestDatabase,
        process::{Process, until},
    },
};

const SENDER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const IDS: [&str; 3] = ["request_id", "delivery_id", "session_id"];

/// With the model server, and everything said as JSON.
fn environment(models: &ModelServer) -> [(&str, &str); 4] {
    [
        ("ANTHROPIC_BASE_URL", models.url.as_str()),
        ("ANTHROPIC_API_KEY", "key-of-the-model"),
        ("BELLPULL_LOG__FORMAT", "json"),
        ("BELLPULL_LOG__FILTER", "info,bellpull=debug"),
    ]
}

fn shop(server: &Process) -> RequestBuilder {
    server.http.post(format!("{}/api/webhook/shop", server.url)).bearer_auth(TOKEN).body("{}")
}

async fn accepted(request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 202, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Every line of a log of JSON, which has nothing else in it.
fn lines(server: &Process) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    server.log().lines().map(parse).collect()
}

/// Waits for so many lines of a message.
async fn said(server: &Process, message: &str, n: usize) -> Vec<Value> {
    until(message, async || {
        let mut found = lines(server);
        found.retain(|line| line["message"] == message);
        (found.len() >= n).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_sender_to_the_model() {
    let models = ModelServer::start([Reply::text(&["Done."])]).await;
    let directory = directory("");
    let server = serve(&directory, &environment(&models)).await;
    let answer = accepted(shop(&server).header("traceparent", SENDER)).await;
    let turn = &said(&server, "the turn ended", 1).await[0]["turn_id"];
    assert!(turn.as_str().unwrap().starts_with("turn_"));
    for message in ["a webhook was called", "a turn begins", "a model was asked", "the turn ended"]
    {
        let line = &said(&server, message, 1).await[0];
        for id in IDS {
            assert_eq!(line[id], answer[id], "{line}");
        }
        assert_eq!(line["trace_id"], TRACE, "{line}");
        let is_of_a_turn = message != "a webhook was called";
        assert_eq!(line.get("turn_id"), is_of_a_turn.then_some(turn), "{line}");
        for name in ["timestamp", "level", "target"] {
            assert!(line[name].is_string(), "{line}");
        }
    }
    assert_eq!(said(&server, "a webhook was called", 1).await[0]["source"], "shop");
    let asked = models.requests().remove(0);
    let parent = asked.header("traceparent").unwrap();
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"), "{parent}");
    assert_ne!(parent, SENDER, "the request to the model is a step of its own");
    let path = format!("/v1/deliveries/{}", answer["delivery_id"].as_str().unwrap());
    assert_eq!(server.get(&path).await["trace_id"], TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_outlives_the_server_that_began_it() {
    let stalled = Reply::text(&["never to be seen"]).stall_after(30);
    let models = ModelServer::start([stalled, Reply::text(&["In another life."])]).await;
    let directory = directory("");
    let server = serve(&directory, &environment(&models)).await;
    let answer = accepted(shop(&server).header("traceparent", SENDER)).await;
    until("the model is asked", async || (models.requests().len() == 1).then_some(())).await;
    server.kill();
    let server = serve(&directory, &environment(&models)).await;
    let ended = &said(&server, "the turn ended", 1).await[0];
    for id in IDS {
        assert_eq!(ended[id], answer[id], "{ended}");
    }
    for request in models.requests() {
        assert!(request.header("traceparent").unwrap().contains(TRACE), "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_of_our_own_begins_where_the_sender_names_none() {
    let directory = directory("");
    let environment = [("BELLPULL_LOG__FORMAT", "json"), ("BELLPULL_LOG__FILTER", "debug")];
    let server = serve(&directory, &environment).await;
    accepted(shop(&server)).await;
    accepted(shop(&server).header("traceparent", SENDER.to_uppercase())).await;
    let twice = shop(&server).header("traceparent", SENDER).header("traceparent", SENDER);
    accepted(twice).await;
    let ended = said(&server, "the turn ended", 3).await;
    let mut traces: Vec<&str> =
        ended.iter().map(|line| line["trace_id"].as_str().unwrap()).collect();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 3, "{traces:?}");
    assert!(traces.iter().all(|trace| trace.len() == 32 && *trace != TRACE), "{traces:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_in_words_has_the_ids_and_nobody_can_forge_one() {
    let forged = "no\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m\r\u{202e}";
    let refusal = Reply::status(400, "invalid_request_error", forged);
    let models = ModelServer::start([refusal]).await;
    let directory = directory("");
    let environment = [environment(&models)[0], environment(&models)[1]];
    let server = serve(&directory, &environment).await;
    let answer = accepted(shop(&server).header("traceparent", SENDER)).await;
    let odd = format!("{}/api/webhook/%0A%1B[31mforged%FF", server.url);
    assert_eq!(server.http.post(odd).send().await.unwrap().status(), 401);
    let ended = until("the turn ended", async || {
        let log = server.log();
        log.lines().find(|line| line.contains("the turn ended")).map(str::to_owned)
    })
    .await;
    for id in IDS {
        let shown = format!("{id}={}", answer[id].as_str().unwrap());
        assert!(ended.contains(&shown), "{shown}: {ended}");
    }
    assert!(ended.contains(&format!("trace_id={TRACE}")), "{ended}");
    let log = server.log();
    assert!(log.contains("forged"), "the reason is said: {log}");
    for line in log.lines() {
        assert!(!line.starts_with("2026-01-01"), "{line}");
        assert!(!line.chars().any(|char| char.is_control() || char == '\u{202e}'), "{line:?}");
    }
}

/// Every secret that a server meets has this in it.
const MARK: &str = "s3cr3t";

const MODEL_KEY: &str = "sk-s3cr3t-model-key-0123456789";

/// Callers who guess.
async fn strangers(server: &Process) {
    let post = |path: &str| server.http.post(server.url.clone() + path);
    for wrong in [
        post("/api/webhook/api?token=s3cr3t-query").bearer_auth("s3cr3t-guess"),
        post("/api/webhook/git").header("x-hub-signature-256", "sha256=s3cr3t-signature"),
        post("/api/webhook/api").basic_auth("user", Some("s3cr3t-basic")),
        post("/api/webhook/nobody").header("x-webhook-secret", "s3cr3t-header"),
        post("/v1/agents").header("x-api-key", "s3cr3t-api-key").body("{}"),
        post("/v1/agents?api_key=s3cr3t-query").header("cookie", "session=s3cr3t-cookie"),
    ] {
        assert_eq!(wrong.body("s3cr3t-body").send().await.unwrap().status(), 401);
    }
}

/// Changed configurations with a mistake right beside a secret.
async fn mistakes(server: &Process, path: &Path) {
    let good = std::fs::read_to_string(path).unwrap();
    for (n, wrong) in [
        "[webhooks.x]\nsecret = \"s3cr3t-without-an-end\n",
        "[webhooks.x]\nsecrte = \"s3cr3t-under-a-wrong-name\"\n",
        "[webhooks.x]\nsecret = [\"s3cr3t-in-a-list\"]\n",
        "apiKey = { s3cr3t-key = 1 }\n",
        "database_url = \"mysql://u:s3cr3t-password@h/d\"\n",
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(path, format!("{wrong}{good}")).unwrap();
        server.signal("HUP");
        until("the change is refused", async || {
            let n_refused = server.log().matches("the changed configuration was refused").count();
            (n_refused > n).then_some(())
        })
        .await;
    }
}

/// Secrets in every place: of the operator, of senders, of callers who guess, of the model's server
/// and in a config file with mistakes. The log says everything it can.
async fn no_secret_is_in_the_log(format: &str, database: Option<TestDatabase>) {
    let refusal = Reply::status(401, "authentication_error", &format!("invalid: {MODEL_KEY}"));
    let models = ModelServer::start([refusal, Reply::text(&["s3cr3t-answer"])]).await;
    let config = "[webhooks.git]\npreset = \"github\"\nsecret = \"s3cr3t-of-the-forge-0123\"\n\
                  [webhooks.api]\npreset = \"bearer\"\nsecret = \"s3cr3t-of-the-api-012345\"\n";
    let directory = directory(config);
    let url = database.as_ref().map(|it| it.url().replacen("@", ":s3cr3t-database@", 1));
    let mut environment = vec![
        ("ANTHROPIC_BASE_URL", models.url.as_str()),
        ("ANTHROPIC_API_KEY", MODEL_KEY),
        ("HTTPS_PROXY", "http://proxy:s3cr3t-proxy@127.0.0.1:9"),
        ("BELLPULL_VAULT_KEY", "s3cr3tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("BELLPULL_LOG__FORMAT", format),
        ("BELLPULL_LOG__FILTER", "trace"),
    ];
    environment.extend(url.iter().map(|url| ("BELLPULL_DATABASE_URL", url.as_str())));
    let server = serve(&directory, &environment).await;
    let (post, admin) =
        (|path: &str| server.http.post(server.url.clone() + path), server.admin_key());

    // Senders, right and wrong.
    let api =
        || post("/api/webhook/api?token=s3cr3t-query&x=1").bearer_auth("s3cr3t-of-the-api-012345");
    let failing = accepted(api().body(r#"{"note": "s3cr3t-payload"}"#)).await;
    let outcome = async |answer: &Value, wanted: &str| {
        let path = format!("/v1/deliveries/{}", answer["delivery_id"].as_str().unwrap());
        until("the delivery has its outcome", async || {
            (server.get(&path).await["outcome"] == wanted).then_some(())
        })
        .await;
    };
    outcome(&failing, "failed").await;
    outcome(&accepted(api().body("s3cr3t-text")).await, "succeeded").await;
    strangers(&server).await;

    // Secrets that are set and made, and a body that is not what it should be.
    server.post("/v1/secrets", json!({"name": "A", "value": "s3cr3t-value"})).await;
    let body = r#"{"name": "A", "value": "s3cr3t-cut"#;
    let broken = post("/v1/secrets").bearer_auth(&admin).body(body).send().await.unwrap();
    assert_eq!(broken.status(), 400);
    let made = server.post("/v1/api_keys", json!({"name": "ci", "scopes": ["read"]})).await;
    let key = made["key"].as_str().unwrap().to_owned();
    let agents = server.http.get(format!("{}/v1/agents", server.url)).bearer_auth(&key);
    assert_eq!(agents.send().await.unwrap().status(), 200);
    for key in ["s3cr3t-sign-in", &admin] {
        let form = post("/sign-in").header("content-type", "application/x-www-form-urlencoded");
        let _ = form.body(format!("key={key}")).send().await.unwrap();
    }

    mistakes(&server, &directory.path().join("bellpull.toml")).await;
    let session = failing["session_id"].as_str().unwrap();
    let events = server.get(&format!("/v1/sessions/{session}/events")).await.to_string();
    assert!(
        events.contains("invalid: ***"),
        "the key is taken out of what the model said: {events}"
    );
    assert!(!events.contains(MODEL_KEY));

    server.signal("TERM");
    let log = server.log();
    assert!(log.lines().count() > 50, "it is a chatty log: {log}");
    for secret in [MARK, &admin, &key, "dXNlcjpzM2NyM3QtYmFzaWM"] {
        let found: Vec<&str> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(found.is_empty(), "{secret}: {found:#?}");
    }
    assert!(server.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_a_log_in_words() {
    no_secret_is_in_the_log("text", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_a_log_of_json_on_postgres() {
    no_secret_is_in_the_log("json", Some(TestDatabase::create())).await;
}

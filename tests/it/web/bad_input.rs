//! What people and scanners send instead of what was meant. Nothing of it is a 5xx, nothing of it
//! breaks what comes after.

use serde_json::{Value, json};

use super::server::Server;

#[tokio::test]
async fn a_webhook_takes_any_bytes() {
    any_bytes(Server::new().await).await;
}

#[tokio::test]
async fn a_webhook_takes_any_bytes_on_postgres() {
    any_bytes(Server::postgres().await).await;
}

async fn any_bytes(server: Server) {
    let token = server.token().await;
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let gzip: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV*I-.Q\xb2\x02\x00";
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(700_000));
    let bodies: Vec<(&[u8], &str)> = vec![
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"null", "text/plain"),
        (b"\xff\xfe\x00\x00", "application/json"),
        (b"{\"a\":\"\\ud800\"}", "application/json"),
        (b"{\"a\":\"\\u0000 \x00\"}", "application/json"),
        (b"\xef\xbb\xbf{\"a\":1}", "application/json; charset=utf-8"),
        (b"payload=%7B%7D&payload=2", "application/x-www-form-urlencoded"),
        (b"a\0b", "text/plain"),
        (deep.as_bytes(), "application/json"),
        (large.as_bytes(), "application/json"),
        (gzip, "application/json"),
    ];
    for (body, kind) in bodies {
        let call = server.hook().bearer(token).header("content-type", kind);
        let call = call.header("content-encoding", "gzip").body(body.to_vec());
        let answer = call.status(202).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]);
        assert_eq!(answer["status"], "accepted", "{shown}");
        let session = answer["session_id"].as_str().expect("a session");
        assert_eq!(server.events(session).await.len(), 1, "{shown}");
        let id = answer["delivery_id"].as_str().expect("an id");
        let stored = server.get(&format!("/v1/deliveries/{id}/body")).send().await;
        assert!(stored.body == body, "the bytes are as they came: {shown}");
        let disposition = format!("attachment; filename=\"{id}\"");
        assert_eq!(stored.header("content-disposition"), Some(disposition.as_str()));
        let is_text = std::str::from_utf8(body).is_ok() && !kind.contains("form");
        let wanted = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
        assert_eq!(stored.header("content-type"), Some(wanted), "{shown}");
    }
}

#[tokio::test]
async fn identities_may_be_anything() {
    identities(Server::new().await).await;
}

#[tokio::test]
async fn identities_may_be_anything_on_postgres() {
    identities(Server::postgres().await).await;
}

async fn identities(server: Server) {
    let token = server.token().await;
    let long = "i".repeat(10_000);
    let ids: [&[u8]; 4] = [b"plain", "sch\u{f6}n".as_bytes(), b"\xff\xfe", long.as_bytes()];
    for id in ids {
        let hook = || server.hook().bearer(token).header("webhook-id", id).body("{}").status(202);
        let (first, second) = (hook().await, hook().await);
        assert_eq!(
            (&first["status"], &second["status"]),
            (&json!("accepted"), &json!("duplicate"))
        );
        assert_eq!(first["delivery_id"], second["delivery_id"]);
    }
    // Doubled, it is one list: it cannot hide behind its first value.
    let hook = |a: &str, b: &str| {
        let call = server.hook().bearer(token).header("webhook-id", a).header("webhook-id", b);
        call.body("{}").status(202)
    };
    assert_eq!(hook("plain", "other").await["status"], "accepted");
    assert_eq!(hook("plain", "other").await["status"], "duplicate");
    // What it says is shown without the byte that cannot be stored.
    let call = server.hook().bearer(token).header("x-event-type", "a\tb").body("{}").status(202);
    call.await;
    let call = server.hook().bearer(token).body("{\"type\":\"n\\u0000ul\"}").status(202);
    let id = call.await["delivery_id"].as_str().expect("an id").to_owned();
    assert_eq!(server.get(&format!("/v1/deliveries/{id}")).ok().await["event_type"], "nul");
    let list = server.get("/v1/deliveries?event_type=n%00ul").ok().await;
    assert_eq!(list["data"].as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn a_bad_body_says_what_is_wrong_with_it() {
    let server = Server::new().await;
    let session = server.session().await;
    let events = format!("/v1/sessions/{session}/events");
    let message =
        |content: Value| json!({"events": [{"type": "user.message", "content": content}]});
    let deep = "[".repeat(1000);
    let table: Vec<(&str, String, &str)> = vec![
        (
            "/v1/agents",
            "{".to_owned(),
            "not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        ("/v1/agents", "[]".to_owned(), "must be a JSON object"),
        ("/v1/agents", deep, "recursion limit"),
        ("/v1/agents", "{\"name\":\"\\ud800\"}".to_owned(), "line 1 column"),
        ("/v1/agents", String::new(), "name: is required"),
        ("/v1/agents", json!({"name": "n"}).to_string(), "model: is required"),
        ("/v1/agents", json!({"name": "n", "model": "m", "tol": 1}).to_string(), "`tol`"),
        ("/v1/agents", json!({"name": "n", "model": "m", "version": 1}).to_string(), "version"),
        ("/v1/agents", json!({"name": "n".repeat(257), "model": "m"}).to_string(), "name"),
        ("/v1/environments", json!({"name": "n", "x": 1}).to_string(), "x: is not a field"),
        ("/v1/environments", json!({"config": {"type": "cloud"}}).to_string(), "name: is required"),
        (
            "/v1/environments",
            json!({"name": "n", "config": {"type": "self_hosted"}}).to_string(),
            "not supported",
        ),
        (
            "/v1/environments",
            json!({"name": "n", "config": {"type": "local", "project": "/etc"}}).to_string(),
            "projects.roots",
        ),
        ("/v1/environments", json!({"name": "n", "metadata": {"a": 1}}).to_string(), "metadata"),
        ("/v1/sessions", json!({"environment_id": "env_1"}).to_string(), "agent: is required"),
        (
            "/v1/sessions",
            json!({"agent": "agent_1", "environment_id": "env_1", "vault_ids": ["v"]}).to_string(),
            "vault_ids: is not supported",
        ),
        (
            "/v1/sessions",
            json!({"agent": "a", "environment_id": "env_1"}).to_string(),
            "agent.id: is not a valid id",
        ),
        (
            "/v1/sessions",
            json!({"agent": {"type": "x", "id": "agent_1"}, "environment_id": "env_1"}).to_string(),
            "agent.type",
        ),
        ("/v1/sources", json!({"name": "A"}).to_string(), "name: must be"),
        (
            "/v1/sources",
            json!({"name": "a", "preset": "magic"}).to_string(),
            "preset: must be one of",
        ),
        (
            "/v1/sources",
            json!({"name": "a", "username": "u"}).to_string(),
            "username: is not a field",
        ),
        (
            "/v1/sources",
            json!({"name": "a", "preset": "basic"}).to_string(),
            "username: is required",
        ),
        (
            "/v1/sources",
            json!({"name": "a", "preset": "header", "header": "a b"}).to_string(),
            "header",
        ),
        (
            "/v1/sources",
            json!({"name": "a", "verifier": {"type": "bearer", "x": 1}}).to_string(),
            "verifier.x",
        ),
        ("/v1/sources", json!({"name": "a", "target": "sometimes"}).to_string(), "target: must be"),
        ("/v1/sources", json!({"name": "a", "target": {"key": "{{ x"}}).to_string(), "target.key"),
        ("/v1/sources", json!({"name": "a", "identity": ["a b"]}).to_string(), "identity[0]"),
        (
            "/v1/sources",
            json!({"name": "a", "agent": "nobody"}).to_string(),
            "there is no agent `nobody`",
        ),
        (
            "/v1/sources",
            json!({"name": "a", "environment_id": "env_1"}).to_string(),
            "environment_id",
        ),
        ("/v1/sources", json!({"name": "a", "project": "/etc"}).to_string(), "projects.roots"),
        (
            "/v1/sources",
            json!({"name": "a", "secret": "s", "secret_key": "k"}).to_string(),
            "keep one",
        ),
        ("/v1/sources", json!({"name": "a", "secret_key": "a b"}).to_string(), "secret_key"),
        (
            "/v1/sources",
            json!({"name": "a", "message_chars_max": 0}).to_string(),
            "message_chars_max",
        ),
        ("/v1/secrets", json!({"name": "a\u{0}b c"}).to_string(), "name"),
        ("/v1/secrets", json!({"name": "a"}).to_string(), "value: is required"),
        ("/v1/secrets", json!({"name": "a", "value": ""}).to_string(), "value: must be"),
        (
            "/v1/secrets",
            json!({"name": "a", "value": "v", "generate": true}).to_string(),
            "generate",
        ),
        (
            "/v1/secrets",
            json!({"name": "a", "value": "x".repeat(65 * 1024)}).to_string(),
            "65536 bytes",
        ),
        (
            "/v1/secrets",
            json!({"name": "a", "value": "v", "overlap_seconds": -1}).to_string(),
            "overlap_seconds",
        ),
        ("/v1/api_keys", json!({"name": "a"}).to_string(), "scopes: must be"),
        ("/v1/api_keys", json!({"name": "a", "scopes": ["all"]}).to_string(), "scopes[0]: must be"),
        ("/v1/api_keys", json!({"name": "Master Key", "scopes": ["read"]}).to_string(), "name"),
        (&events, json!({}).to_string(), "events: must be"),
        (
            &events,
            json!({"events": [{"type": "user.interrupt"}]}).to_string(),
            "events[0].type: `user.interrupt` is not supported",
        ),
        (
            &events,
            json!({"events": [{"type": "agent.message"}]}).to_string(),
            "must be `user.message`",
        ),
        (&events, message(json!([])).to_string(), "events[0].content"),
        (&events, message(json!([{"type": "redacted"}])).to_string(), "events[0].content[0].type"),
        (
            &events,
            json!({"events": [{"type": "user.message", "content": [], "x": 1}]}).to_string(),
            "events[0].content",
        ),
        (
            "/api/agents",
            json!({"name": "n", "model": "m", "webhook": {"token": 1}}).to_string(),
            "webhook.token",
        ),
        (
            "/api/agents",
            json!({"name": "n", "model": "m", "config": {"tools": []}}).to_string(),
            "config.tools",
        ),
        (
            "/api/agents",
            json!({"name": "n", "model": "m", "webhook": {"secret_key": "a b"}}).to_string(),
            "webhook.secret_key",
        ),
    ];
    for (path, body, wanted) in table {
        let message =
            server.post(path).body(body.clone()).error(400, "invalid_request_error").await;
        assert!(message.contains(wanted), "{path} {body:.200}: {message}");
    }
    // Invalid UTF-8 is no JSON either.
    server
        .post("/v1/agents")
        .body(&b"{\"name\":\"\xff\"}"[..])
        .error(400, "invalid_request_error")
        .await;
    assert_eq!(server.events(session.to_string().as_str()).await.len(), 0, "all or nothing");
}

#[tokio::test]
async fn a_bad_query_says_what_is_wrong_with_it() {
    let server = Server::new().await;
    let session = server.session().await;
    for query in [
        "/v1/agents?limit=0",
        "/v1/agents?limit=101",
        "/v1/agents?limit=-1",
        "/v1/agents?limit=ten",
        "/v1/agents?page=zzz",
        "/v1/agents?created_at[gte]=yesterday",
        "/v1/agents?include_archived=yes",
        "/v1/sessions?order=up",
        "/v1/sessions?statuses[]=asleep",
        "/v1/sessions?agent_id=env_1",
        "/v1/deliveries?status=lost",
        "/v1/deliveries?outcome=fine",
        "/v1/deliveries?source=nobody",
        "/v1/deliveries?session_id=x",
        "/v1/sources?kind=other",
        &format!("/v1/agents/{}?version=0", server.agent),
        &format!("/v1/sessions/{session}/events?limit=1001"),
        &format!("/v1/sessions/{session}/events?page=MQ"),
        &format!("/v1/sessions/{session}/events/stream?event_deltas[]=agent.thinking"),
    ] {
        server.get(query).error(400, "invalid_request_error").await;
    }
    // What it does not know it passes over, as older SDKs need it.
    server.get("/v1/agents?beta=true&%ff=%zz&=&&limit=1").ok().await;
}

#[tokio::test]
async fn an_id_of_another_kind_is_not_found() {
    let server = Server::new().await;
    let long = "a".repeat(10_000);
    for id in ["env_1", "agent_", "agent_%00", "%FF", "%zz", "..", "agent_\u{e9}", "0", &long] {
        for path in ["/v1/agents", "/v1/sessions", "/v1/deliveries", "/api/agents", "/v1/sources"] {
            let path = format!("{path}/{id}");
            if path.starts_with("/v1/agents") || !path.contains("env_") {
                server.get(&path).error(404, "not_found_error").await;
            }
        }
    }
}

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

/// Each body is refused, in words that contain these.
async fn refused(server: &Server, path: &str, table: impl IntoIterator<Item = (Value, &str)>) {
    for (body, wanted) in table {
        let message =
            server.post(path).json(body.clone()).error(400, "invalid_request_error").await;
        assert!(message.contains(wanted), "{path} {body:.200}: {message}");
    }
}

#[tokio::test]
async fn what_is_not_json_is_refused_with_its_place() {
    let server = Server::new().await;
    let deep = "[".repeat(1000);
    let table: [(&[u8], &str); 6] = [
        (b"{", "not valid JSON: EOF while parsing an object at line 1 column 1"),
        (b"[]", "must be a JSON object"),
        (deep.as_bytes(), "recursion limit"),
        (b"{\"name\":\"\\ud800\"}", "line 1 column"),
        (b"{\"name\":\"\xff\"}", "line 1 column"),
        (b" \n", "name: is required"),
    ];
    for (body, wanted) in table {
        let call = server.post("/v1/agents").body(body.to_vec());
        let message = call.error(400, "invalid_request_error").await;
        assert!(message.contains(wanted), "{message}");
    }
}

#[tokio::test]
async fn bad_agents_and_environments_are_refused() {
    let server = Server::new().await;
    let with = |key: &str, value: Value| {
        let mut agent = json!({"name": "n", "model": "rehearsal"});
        agent[key] = value;
        agent
    };
    let table = [
        (json!({"name": "n"}), "model: is required"),
        (with("tol", json!(1)), "`tol`"),
        (with("version", json!(1)), "version"),
        (with("name", json!("n".repeat(257))), "name"),
        (with("metadata", json!({"a": 1})), "expected a string"),
    ];
    refused(&server, "/v1/agents", table).await;
    let table = [
        (with("webhook", json!({"token": 1})), "webhook.token"),
        (with("webhook", json!("x")), "webhook: must be an object"),
        (with("config", json!({"tools": []})), "config.tools"),
        (with("webhook", json!({"secret_key": "a b"})), "webhook.secret_key"),
    ];
    refused(&server, "/api/agents", table).await;
    let table = [
        (json!({"name": "n", "x": 1}), "x: is not a field"),
        (json!({"config": {"type": "cloud"}}), "name: is required"),
        (json!({"name": "n", "config": {"type": "elsewhere"}}), "config.type: must be"),
        (json!({"name": "n", "config": {"type": "local", "project": "/etc"}}), "projects.roots"),
        (json!({"name": "n", "metadata": {"a": 1}}), "metadata"),
        (json!({"name": "n", "scope": "galaxy"}), "scope"),
    ];
    refused(&server, "/v1/environments", table).await;
}

#[tokio::test]
async fn bad_sessions_and_events_are_refused() {
    let server = Server::new().await;
    let with = |key: &str, value: Value| {
        let mut body = json!({"agent": server.agent, "environment_id": server.environment});
        body[key] = value;
        body
    };
    let table = [
        (with("agent", Value::Null), "agent: is required"),
        (with("agent", json!("a")), "agent.id: is not a valid id"),
        (with("agent", json!({"type": "x", "id": "agent_1"})), "agent.type"),
        (with("agent", json!({"type": "agent"})), "agent.id: is required"),
        (with("environment_id", Value::Null), "environment_id: is required"),
        (with("environment_id", json!("default")), "environment_id: is not a valid id"),
        (with("vault_ids", json!([7])), "vault_ids[0]: must be a text"),
        (with("resources", json!([{"type": "file"}])), "resources[0].file_id: is required"),
        (with("budget", json!({"type": "limit"})), "budget: must be"),
        (with("titel", json!("t")), "titel: is not a field"),
        (with("metadata", json!({"k": "v".repeat(513)})), "metadata.k"),
    ];
    refused(&server, "/v1/sessions", table).await;

    let session = server.session().await;
    let send = |event: Value| json!({"events": [event]});
    let message = |content: Value| send(json!({"type": "user.message", "content": content}));
    let table = [
        (json!({}), "events: must be"),
        (json!({"events": {}}), "events: must be a list"),
        (json!({"events": [1]}), "events[0]: must be an object"),
        (send(json!({"type": "user.define_outcome"})), "events[0].description: is required"),
        (send(json!({"type": "user.tool_result"})), "events[0].tool_use_id: is required"),
        (send(json!({"type": "user.interrupt", "x": 1})), "events[0].x"),
        (send(json!({"type": "user.tool_confirmation", "result": "allow"})), "tool_use_id"),
        (
            send(json!({"type": "user.tool_confirmation", "result": "allow",
                "tool_use_id": "sevt_0"})),
            "events[0].tool_use_id: names no call of this session that waits",
        ),
        (
            send(json!({"type": "user.tool_confirmation", "result": "maybe",
                "tool_use_id": "sevt_0"})),
            "events[0].result: must be `allow` or `deny`",
        ),
        (send(json!({"type": "agent.message"})), "must be one of user.message"),
        (message(json!([])), "events[0].content"),
        (message(json!([{"type": "redacted"}])), "events[0].content[0].type"),
        (send(json!({"type": "user.message", "content": "a", "x": 1})), "events[0].x"),
    ];
    refused(&server, &format!("/v1/sessions/{session}/events"), table).await;
    let text = json!({"type": "user.message", "content": "fine"});
    let mixed = json!({"events": [text, {"type": "user.define_outcome"}]});
    let path = format!("/v1/sessions/{session}/events");
    refused(&server, &path, [(mixed, "events[1].description")]).await;
    assert_eq!(server.events(session.to_string().as_str()).await.len(), 0, "all or nothing");
}

#[tokio::test]
async fn bad_outcomes_are_refused() {
    let server = Server::new().await;
    let session = server.session().await;
    let send = |event: Value| json!({"events": [event]});
    let define = |rubric: Value, more: Value| {
        let mut event = json!({"type": "user.define_outcome", "description": "a poem"});
        event["rubric"] = rubric;
        for (key, value) in more.as_object().expect("an object") {
            event[key] = value.clone();
        }
        send(event)
    };
    let rubric = json!({"type": "text", "content": "it rhymes"});
    let none = json!({});
    let missing = "file_01a01a01a01a01a01a01a01a01";
    let table = [
        (define(Value::Null, none.clone()), "events[0].rubric: is required"),
        (define(json!("it rhymes"), none.clone()), "events[0].rubric: must be an object"),
        (define(json!({"type": "url"}), none.clone()), "events[0].rubric.type: must be"),
        (define(json!({"type": "text"}), none.clone()), "events[0].rubric.content: is required"),
        (define(json!({"type": "text", "content": " "}), none.clone()), "must say something"),
        (define(json!({"type": "text", "content": 1}), none.clone()), "must be a text"),
        (
            define(json!({"type": "text", "content": "a", "file_id": missing}), none.clone()),
            "events[0].rubric.file_id: is not a field",
        ),
        (
            define(json!({"type": "text", "content": "x".repeat(262_145)}), none.clone()),
            "events[0].rubric.content: is longer than 262144 characters",
        ),
        (define(json!({"type": "file"}), none.clone()), "events[0].rubric.file_id: is required"),
        (define(json!({"type": "file", "file_id": "x"}), none), "events[0].rubric.file_id: is"),
        (
            define(json!({"type": "file", "file_id": missing}), json!({})),
            "events[0].rubric.file_id: there is no file",
        ),
        (define(rubric.clone(), json!({"description": " "})), "description: must say something"),
        (define(rubric.clone(), json!({"description": "x".repeat(32_769)})), "is longer than"),
        (define(rubric.clone(), json!({"max_iterations": 0})), "max_iterations: must be a whole"),
        (
            define(rubric.clone(), json!({"max_iterations": 21})),
            "must be a whole number from 1 to 20",
        ),
        (define(rubric.clone(), json!({"max_iterations": "3"})), "events[0].max_iterations"),
        (define(rubric.clone(), json!({"outcome_id": "outc_1"})), "events[0].outcome_id: is not"),
        (
            json!({"events": [define(rubric.clone(), json!({}))["events"][0],
                define(rubric, json!({}))["events"][0]]}),
            "events[1].type: defines an outcome while outc_",
        ),
    ];
    refused(&server, &format!("/v1/sessions/{session}/events"), table).await;
    assert_eq!(server.events(session.to_string().as_str()).await.len(), 0, "all or nothing");
}

#[tokio::test]
async fn bad_sources_are_refused() {
    let server = Server::new().await;
    let with = |key: &str, value: Value| {
        let mut body = json!({"name": "a"});
        body[key] = value;
        body
    };
    let table = [
        (json!({"name": "A"}), "name: must be"),
        (with("preset", json!("magic")), "preset: is not a known sender"),
        (with("preset", json!("basic")), "username: is required"),
        (with("username", json!("u")), "username: is not a field"),
        (json!({"name": "a", "preset": "header", "header": "a b"}), "header"),
        (json!({"name": "a", "preset": "stripe", "verifier": {"x": 1}}), "verifier.x"),
        (with("verifier", json!({"type": "bearer", "x": 1})), "verifier.x"),
        (with("verifier", json!({"type": "magic"})), "verifier"),
        (with("target", json!("sometimes")), "target: must be"),
        (with("target", json!({"key": "{{ x"})), "target.key"),
        (with("identity", json!(["a b"])), "identity[0]"),
        (with("agent", json!("nobody")), "there is no agent `nobody`"),
        (with("environment_id", json!("env_1")), "environment_id"),
        (with("project", json!("/etc")), "projects.roots"),
        (json!({"name": "a", "secret": "s", "secret_key": "k"}), "keep one"),
        (with("secret_key", json!("a b")), "secret_key"),
        (with("message_chars_max", json!(0)), "message_chars_max"),
        (with("on_redelivery", json!("never")), "on_redelivery"),
        (with("body_hash_window_seconds", json!(1e9)), "body_hash_window_seconds"),
        (with("turns_per_key_per_hour_max", json!(0)), "turns_per_key_per_hour_max"),
        (with("turns_at_once_max", json!(0)), "turns_at_once_max"),
        (with("turns_per_minute_max", json!(10_001)), "turns_per_minute_max"),
        (
            json!({"name": "a", "debounce_seconds": 30, "debounce_seconds_max": 20}),
            "debounce_seconds_max: must not be less than `debounce_seconds`, which is 30",
        ),
    ];
    refused(&server, "/v1/sources", table).await;
    server.get("/v1/sources/a").error(404, "not_found_error").await;
    assert_eq!(server.get("/v1/secrets").ok().await["data"], json!([]), "nothing was kept");
}

#[tokio::test]
async fn bad_secrets_and_keys_are_refused() {
    let server = Server::new().await;
    let with = |key: &str, value: Value| {
        let mut body = json!({"name": "a", "value": "v"});
        body[key] = value;
        body
    };
    let table = [
        (with("name", json!("a\u{0}b c")), "name: must be"),
        (json!({"name": "a"}), "value: is required"),
        (with("value", json!("")), "value: must be"),
        (with("value", json!("x".repeat(65 * 1024))), "65536 bytes"),
        (with("generate", json!(true)), "generate"),
        (with("overlap_seconds", json!(-1)), "overlap_seconds"),
        (with("overlap_seconds", json!(1.5)), "overlap_seconds"),
    ];
    refused(&server, "/v1/secrets", table).await;
    let key = |name: &str, scopes: Value| json!({"name": name, "scopes": scopes});
    let table = [
        (json!({"name": "a"}), "scopes: must be"),
        (key("a", json!([])), "scopes: must be"),
        (key("a", json!(["all"])), "scopes[0]: must be"),
        (key("a", json!(["read", "ingest:A"])), "scopes[1]: must be"),
        (key("Master Key", json!(["read"])), "name"),
        (key(" a", json!(["read"])), "name"),
    ];
    refused(&server, "/v1/api_keys", table).await;
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
        &format!("/v1/sessions/{session}/events/stream?event_deltas[]=agent.tool_use"),
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

//! Who may do what on /v1 and /api, and what is never shown to anybody.

use serde_json::json;

use super::{
    frame::routes,
    server::{BOX, MASTER, Server},
};

#[tokio::test]
async fn scopes_are_kept() {
    let server = Server::new().await;
    let make = async |name: &str, scopes: &[&str]| {
        let body = json!({"name": name, "scopes": scopes});
        let key = server.post("/v1/api_keys").json(body).ok().await;
        key["key"].as_str().expect("a key").to_owned()
    };
    let admin = make("admin", &["admin"]).await;
    let read = make("read", &["read"]).await;
    let ingest = make("ingest", &["ingest:stripe"]).await;
    assert!(admin.starts_with("bpk_"));
    for path in ["/v1/agents", "/api/agents", "/v1/audit", "/v1/secrets", "/v1/nothing"] {
        let found = if path == "/v1/nothing" { 404 } else { 200 };
        for (token, get, post) in [
            (MASTER, found, None),
            (admin.as_str(), found, None),
            (read.as_str(), found, Some(403)),
            (ingest.as_str(), 403, Some(403)),
            (BOX, 403, Some(403)),
            ("unknown", 401, Some(401)),
        ] {
            let answer = server.bare("GET", path).bearer(token).send().await;
            assert_eq!(answer.status, get, "GET {path} {token}");
            if let Some(post) = post {
                let answer = server.bare("POST", path).bearer(token).body("{").send().await;
                assert_eq!(answer.status, post, "POST {path} {token}");
            }
        }
    }
    // Both headers of the official SDKs, by version; two of one are nobody's.
    let get = || server.bare("GET", "/v1/agents");
    get().header("x-api-key", &read).ok().await;
    get().header("authorization", format!("bearer {read}")).ok().await;
    get().error(401, "authentication_error").await;
    get()
        .header("x-api-key", &read)
        .header("x-api-key", &read)
        .error(401, "authentication_error")
        .await;
    get()
        .bearer(&read)
        .header("authorization", format!("Bearer {read}"))
        .error(401, "authentication_error")
        .await;
    get().header("authorization", format!("Basic {read}")).error(401, "authentication_error").await;
    // And what they send beside it.
    let call = get().header("x-api-key", &read).header("anthropic-version", "2023-06-01");
    call.header("anthropic-beta", "managed-agents-2026-04-01").ok().await;
}

#[tokio::test]
async fn nothing_is_told_to_whoever_is_not_known() {
    let server = Server::new().await;
    let mut bodies = std::collections::BTreeSet::new();
    for path in ["/v1/agents", "/v1/agents/nobody", "/v1/nothing", "/v1/deliveries/dlv_1/body"] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let answer = server.bare(method, path).body("not JSON").send().await;
            assert_eq!(answer.status, 401, "{method} {path}");
            let mut body = answer.json();
            body["request_id"] = json!(null);
            bodies.insert(body.to_string());
        }
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
}

#[tokio::test]
async fn a_revoked_key_is_nobodys() {
    let server = Server::new().await;
    let key = json!({"name": "k", "scopes": ["admin"]});
    let key = server.post("/v1/api_keys").json(key.clone()).ok().await;
    let (id, token) = (key["id"].as_str().expect("an id"), key["key"].as_str().expect("a key"));
    let taken = json!({"name": "k", "scopes": ["read"]});
    server.post("/v1/api_keys").json(taken.clone()).error(409, "invalid_request_error").await;
    let revoked =
        server.bare("POST", &format!("/v1/api_keys/{id}/revoke")).bearer(token).ok().await;
    assert!(revoked["revoked_at"].is_string() && revoked.get("key").is_none());
    server.bare("GET", "/v1/agents").bearer(token).error(401, "authentication_error").await;
    server.post("/v1/api_keys").json(taken).ok().await;
    // Who did it is in the log, by name.
    let audit = server.get("/v1/audit").ok().await;
    let entries = audit["data"].as_array().expect("a list");
    let entry = entries.iter().find(|it| it["action"] == "api_key.revoke").expect("it is there");
    assert_eq!((&entry["actor"], &entry["target"]), (&json!("k"), &json!(id)));
    assert!(entries.iter().any(|it| it["actor"] == "master key"));
}

/// Set in every way there is, and then looked for in every answer there is.
#[tokio::test]
async fn secrets_are_in_no_answer() {
    let server = Server::new().await;
    let token = server.token().await;
    let secret = "p4ssw0rd-of-the-source";
    let source = json!({"name": "s", "preset": "basic", "username": "u", "secret": secret});
    server.post("/v1/sources").json(source).ok().await;
    server.secret("NAMED", "value-of-the-named-one").await;
    let made =
        server.post("/v1/secrets").json(json!({"name": "MADE", "generate": true})).ok().await;
    let made = made["value"].as_str().expect("shown once").to_owned();
    let key = json!({"name": "k", "scopes": ["read"]});
    let key = server.post("/v1/api_keys").json(key).ok().await;
    let key_token = key["key"].as_str().expect("a key").to_owned();
    let call = server.hook().bearer(token).header("x-my-api-key", secret).header("cookie", secret);
    let delivery = call.body("{}").status(202).await;

    let secrets = [token, secret, "value-of-the-named-one", &made, &key_token, MASTER, BOX]
        .map(str::to_owned);
    let ids = [
        server.agent.clone(),
        server.environment.clone(),
        delivery["session_id"].as_str().expect("an id").to_owned(),
        delivery["delivery_id"].as_str().expect("an id").to_owned(),
        key["id"].as_str().expect("an id").to_owned(),
        "s".to_owned(),
    ];
    let mut n_shown = 0;
    for route in routes(&server).await {
        for id in &ids {
            let path = route.replace("{id}", id).replace("{source}", id);
            if path.ends_with("/stream") {
                continue;
            }
            let answer = server.get(&format!("{path}?kind=all")).send().await;
            n_shown += usize::from(answer.status == 200);
            let text = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.body));
            for secret in &secrets {
                assert!(!text.contains(secret.as_str()), "{path} shows {secret}");
            }
        }
    }
    assert!(n_shown > 20, "{n_shown}");
    // Nor in the answer to a body that has one in the wrong place.
    for body in [
        json!({"name": "a", "value": secret, "overlap_seconds": secret}),
        json!({"name": "a", "value": [secret]}),
        json!({"name": "a", "value": secret, "generate": secret}),
    ] {
        let message =
            server.post("/v1/secrets").json(body).error(400, "invalid_request_error").await;
        assert!(!message.contains(secret), "{message}");
    }
}

//! Test deliveries: signed by the server as the sender would, and through the front door.

use std::collections::BTreeSet;

use bellpull::{clock::Timestamp, ingest::presets};
use serde_json::{Value, json};

use super::cases::{Cases, cases};
use crate::web::server::{BOX, Server};

/// Whose public key a source has, and so nothing to sign with.
fn is_public(source: &Value) -> bool {
    let text = source["verifier"].to_string();
    ["ed25519", "ecdsa_p256", "certificate"].iter().any(|kind| text.contains(kind))
        && !text.contains("hmac")
}

#[tokio::test]
async fn every_sender_that_shares_a_secret_can_be_tried_out() {
    let Cases { now, cases } = cases();
    let server = Server::since(Timestamp(now * 1000)).await;
    let (mut tried, mut not) = (BTreeSet::new(), BTreeSet::new());
    for case in &cases {
        case.make(&server).await;
        let name = &case.preset;
        let source = server.get(&format!("/v1/sources/{name}")).ok().await;
        let test = || server.post(&format!("/v1/sources/{name}/test"));
        if is_public(&source) || case.secret.starts_with("whpk_") {
            let error = test().error(409, "invalid_request_error").await;
            assert!(error.to_string().contains("public key"), "{name}: {error}");
            not.insert(name.as_str());
            continue;
        }
        // Each has an id of its own.
        for _ in 0..2 {
            let done = test().ok().await;
            let about = format!("{name}: {done:#}");
            // Some senders insist on another success.
            let status = done["status"].as_u64().expect("a status");
            assert!((200..300).contains(&status), "{about}");
            assert_eq!(done["answer"]["status"], "accepted", "{about}");
            assert!(!done.to_string().contains(&case.secret), "{about}");
            let id = done["answer"]["delivery_id"].as_str().expect("an id");
            let delivery = server.get(&format!("/v1/deliveries/{id}")).ok().await;
            let has_type = case.event_type.is_some();
            assert_eq!(delivery["event_type"].is_string(), has_type, "{name}: {delivery:#}");
            let made_up = ["none", "body_hash"]
                .contains(&delivery["identity"]["field"].as_str().expect("a field"));
            assert!(!made_up || name == "dropbox", "{name}: {delivery:#}");
        }
        tried.insert(name.as_str());
    }
    assert_eq!(
        not,
        BTreeSet::from(["discord", "hmac", "paypal", "sendgrid", "sns", "standard-webhooks"])
    );
    assert_eq!(tried.len(), 54);
}

/// Those whose samples are about another thing each time.
const FRESH_KEYS: [&str; 3] = ["alertmanager", "grafana", "zoom"];

#[tokio::test]
async fn every_key_of_the_table_makes_a_session_of_its_senders_sample() {
    let Cases { now, cases } = cases();
    let server = Server::since(Timestamp(now * 1000)).await;
    let mut tried = BTreeSet::new();
    for case in &cases {
        let preset = presets().iter().find(|preset| preset.id == case.preset).expect("is known");
        case.make(&server).await;
        let path = format!("/v1/sources/{}", case.preset);
        let with_key = server.post(&path).json(json!({"target": "key"}));
        if preset.key.is_none() {
            let problem = with_key.error(400, "invalid_request_error").await;
            assert!(problem.starts_with("target: "), "{problem}");
            continue;
        }
        assert_eq!(with_key.ok().await["target"], "key");
        let mut sessions = BTreeSet::new();
        for _ in 0..2 {
            let done = server.post(&format!("{path}/test")).ok().await;
            let session = done["answer"]["session_id"].as_str().map(str::to_owned);
            sessions.insert(session.unwrap_or_else(|| panic!("{}: {done:#}", case.preset)));
        }
        let is_fresh = FRESH_KEYS.contains(&case.preset.as_str());
        assert_eq!(sessions.len(), if is_fresh { 2 } else { 1 }, "{}", case.preset);
        tried.insert(&case.preset);
    }
    assert_eq!(tried.len(), presets().iter().filter(|preset| preset.key.is_some()).count());
}

#[tokio::test]
async fn a_body_of_ones_own_goes_as_it_is() {
    let server = Server::new().await;
    let source = json!({"name": "code", "preset": "github", "secret": "It's a secret"});
    server.post("/v1/sources").json(source).ok().await;
    let test = || server.post("/v1/sources/code/test");
    let body = "{ \"action\" : \"closed\" }\n";
    let done = test().json(json!({"body": body, "headers": {"X-GitHub-Event": "pull_request"}}));
    let done = done.ok().await;
    let sent = &done["sent"];
    assert_eq!((&sent["body"], &sent["body_cut"]), (&json!(body), &json!(false)));
    assert_eq!(sent["method"], "POST");
    assert_eq!(sent["url"], "https://bell.example/api/webhook/code");
    assert_eq!(sent["headers"]["x-hub-signature-256"], json!(["sha256=[signature]"]));
    let id = done["answer"]["delivery_id"].as_str().expect("an id");
    let delivery = server.get(&format!("/v1/deliveries/{id}")).ok().await;
    assert_eq!(delivery["event_type"], "pull_request.closed");
    let stored = server.get(&format!("/v1/deliveries/{id}/body")).send().await;
    assert_eq!(stored.body, body);

    // An id of one's own is the same delivery twice.
    for expected in ["accepted", "duplicate"] {
        let done = test().json(json!({"id": "one", "body_base64": "e30="})).ok().await;
        assert_eq!(done["answer"]["status"], expected);
    }
    for wrong in [
        json!({"body": "{}", "body_base64": "e30="}),
        json!({"body_base64": "?"}),
        json!({"headers": {"a b": "c"}}),
        json!({"headers": {"a": 1}}),
        json!({"headers": {"a": "b\nc"}}),
        json!({"headers": []}),
        json!({"id": "a\nb"}),
        json!({"boby": "{}"}),
    ] {
        test().json(wrong).error(400, "invalid_request_error").await;
    }
    server.post("/v1/sources/nobody/test").error(404, "not_found_error").await;
}

#[tokio::test]
async fn sources_without_a_preset_are_tried_out_with_what_their_callers_hold() {
    let server = Server::new().await;
    let test = async |name: &str| {
        let done = server.post(&format!("/v1/sources/{name}/test")).ok().await;
        assert_eq!(done["answer"]["status"], "accepted", "{done:#}");
        assert!(!done.to_string().contains(BOX), "{done:#}");
        assert!(!done.to_string().contains("s3cret"), "{done:#}");
        done
    };
    server.post("/v1/sources").json(json!({"name": "open"})).ok().await;
    test("open").await;
    server.post("/v1/sources").json(json!({"name": "both", "secret": "s3cret"})).ok().await;
    let done = test("both").await;
    assert_eq!(done["sent"]["headers"]["x-webhook-secret"], json!(["[redacted]"]));
    let url = json!({"name": "url", "secret": "s3cret",
        "verifier": {"type": "query", "parameter": "key"}});
    server.post("/v1/sources").json(url).ok().await;
    let done = test("url").await;
    assert_eq!(done["sent"]["url"], "https://bell.example/api/webhook/url?key=[redacted]");
    let agent = server.agent.clone();
    let path = format!("/v1/sources/{agent}/test");
    server.post(&path).error(409, "invalid_request_error").await;
    server.token().await;
    test(&agent).await;
    // It runs like any other, and needs no less than an admin's key.
    server.bare("POST", &path).bearer(BOX).error(403, "permission_error").await;
}

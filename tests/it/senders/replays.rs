//! What a delivery says about its sender's proof: which secret it was, and whether the same body
//! came before.

use std::time::Duration;

use bellpull::clock::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

use super::cases::{Cases, cases};
use crate::web::server::Server;

async fn deliver(server: &Server, secret: &str, id: &str, body: &str) -> Value {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let call = server.bare("POST", "/api/webhook/code");
    let call = call.header("x-hub-signature-256", format!("sha256={signature}"));
    let answer = call.header("x-github-delivery", id).body(body.to_owned()).send().await;
    if answer.status != 202 {
        return Value::Null;
    }
    let id = answer.json()["delivery_id"].as_str().expect("an id").to_owned();
    server.get(&format!("/v1/deliveries/{id}")).ok().await
}

#[tokio::test]
async fn a_delivery_says_which_secret_let_it_in() {
    let server = Server::new().await;
    let source = json!({"name": "code", "preset": "github", "secret_key": "CODE"});
    server.post("/v1/sources").json(source).ok().await;
    let put = async |value: &str, overlap: u64| {
        let body = json!({"name": "CODE", "value": value, "overlap_seconds": overlap});
        server.post("/v1/secrets").json(body).ok().await
    };
    put("one", 0).await;
    put("two", 600).await;
    put("three", 3600).await;
    for (n, secret) in ["one", "two", "three"].into_iter().enumerate() {
        let delivery = deliver(&server, secret, secret, "{}").await;
        assert_eq!(delivery["secret"], json!({"name": "CODE", "version": n + 1}));
        assert!(!delivery.to_string().contains("three") || secret == "three");
    }
    let live = async || server.get("/v1/sources/code").ok().await["secrets"].clone();
    let now = server.clock.now();
    let at = |seconds: u64| Timestamp(now.0).plus(Duration::from_secs(seconds));
    let expected = json!([
        {"name": "CODE", "version": 3, "until": null},
        {"name": "CODE", "version": 2, "until": at(3600)},
        {"name": "CODE", "version": 1, "until": at(600)},
    ]);
    assert_eq!(live().await, expected);
    // Each has its own end.
    server.clock.advance(Duration::from_secs(600));
    assert_eq!(deliver(&server, "one", "4", "{}").await, Value::Null);
    assert_eq!(deliver(&server, "two", "5", "{}").await["secret"]["version"], 2);
    assert_eq!(live().await.as_array().expect("a list").len(), 2);
    // A short overlap ends the old ones with it, and none ends them at once.
    put("four", 60).await;
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(live().await, json!([{"name": "CODE", "version": 4, "until": null}]));
    put("five", 3600).await;
    put("six", 0).await;
    assert_eq!(live().await, json!([{"name": "CODE", "version": 6, "until": null}]));
    // A key of this server is no secret of the source.
    server.post("/v1/sources").json(json!({"name": "open"})).ok().await;
    let tested = server.post("/v1/sources/open/test").ok().await;
    let id = tested["answer"]["delivery_id"].as_str().expect("an id");
    assert_eq!(server.get(&format!("/v1/deliveries/{id}")).ok().await["secret"], Value::Null);
}

#[tokio::test]
async fn the_same_body_under_another_id_is_a_possible_replay() {
    let server = Server::new().await;
    let put = async |fields: Value| {
        let mut source = json!({"name": "code", "preset": "github", "secret": "s"});
        source.as_object_mut().expect("an object").extend(fields.as_object().expect("one").clone());
        server.post("/v1/sources").json(source).ok().await
    };
    assert_eq!(put(json!({})).await["on_possible_replay"], "accept");
    let first = deliver(&server, "s", "one", "{\"a\":1}").await;
    assert_eq!(first["possible_replay_of"], Value::Null);
    let again = deliver(&server, "s", "two", "{\"a\":1}").await;
    assert_eq!(
        (&again["status"], &again["possible_replay_of"]),
        (&json!("accepted"), &first["id"])
    );
    assert_eq!(put(json!({"on_possible_replay": "hold"})).await["on_possible_replay"], "hold");
    let held = deliver(&server, "s", "three", "{\"a\":1}").await;
    assert_eq!((&held["status"], &held["session_id"]), (&json!("held"), &Value::Null));
    assert!(held["reason"].as_str().expect("one").contains("had the same body"), "{held:#}");
    let other = deliver(&server, "s", "four", "{\"a\":2}").await;
    assert_eq!(other["possible_replay_of"], Value::Null);
    let wrong = json!({"on_possible_replay": "perhaps"});
    server.post("/v1/sources/code").json(wrong).error(400, "invalid_request_error").await;
    // It is seen where the owner looks.
    let list = server.get("/v1/deliveries?source=code&status=held").ok().await;
    assert_eq!(list["data"][0]["possible_replay_of"], first["id"]);
}

/// Nobody is suspected whose sender gives no reason: an honest second event is never marked.
#[tokio::test]
async fn senders_that_sign_id_or_time_are_not_suspected() {
    let Cases { now, cases } = cases();
    let server = Server::since(Timestamp(now * 1000)).await;
    for preset in ["svix", "stripe", "slack", "twitch", "telegram", "linear", "notion"] {
        let case = cases.iter().find(|case| case.preset == preset).expect("a case");
        case.make(&server).await;
        for _ in 0..2 {
            let body = json!({"body": "{\"event\":{\"type\":\"a\"}}"});
            let done = server.post(&format!("/v1/sources/{preset}/test")).json(body).ok().await;
            let id = done["answer"]["delivery_id"].as_str().expect("an id");
            let delivery = server.get(&format!("/v1/deliveries/{id}")).ok().await;
            let is_unnamed = delivery["identity"]["field"] == "none" && preset == "notion";
            assert!(
                is_unnamed || delivery["possible_replay_of"].is_null(),
                "{preset}: {delivery:#}"
            );
        }
    }
}

//! Signatures that the senders' own documentation, SDKs and tests publish, through the front door.

use std::time::Duration;

use bellpull::clock::Timestamp;
use serde_json::{Value, json};

use crate::web::server::Server;

/// Collected from public documents and tests; each says where it is from. What cannot be computed
/// again from its own words is not in it.
const PUBLISHED: &str = include_str!("published.json");

/// The preset of a vector, and what differs from it: senders of the same shape under other names,
/// and HubSpot's older signatures.
fn preset(vector: &Value) -> (&str, Value) {
    let scheme = vector["scheme"].as_str().expect("a scheme");
    match vector["provider"].as_str().expect("a provider") {
        "bitbucket-server" => ("bitbucket-dc", json!({})),
        "gogs" => ("hmac", json!({"header": "X-Gogs-Signature"})),
        "generic-hmac" => {
            let encoding = if scheme.contains("base64") { "base64" } else { "hex" };
            let header = "X-Convoy-Signature";
            ("hmac", json!({"header": header, "algorithm": "sha512", "encoding": encoding}))
        }
        "hubspot" => {
            let template = if scheme.starts_with("v2") { "{method}{url}{body}" } else { "{body}" };
            let header = "X-HubSpot-Signature";
            let older = json!({"header": header, "keyed": "prefix", "encoding": "hex",
                "template": template, "timestamp": null});
            ("hubspot", older)
        }
        provider => (provider, json!({})),
    }
}

/// HTTP message signatures are no shape of the gate: no sender of the table uses them, and the
/// examples of the RFC do not cover the body, which a gate must insist on.
const OTHER_SHAPES: [&str; 1] = ["rfc9421"];

#[tokio::test]
async fn what_senders_publish_is_let_in_and_what_they_call_wrong_is_not() {
    let vectors: Vec<Value> = serde_json::from_str(PUBLISHED).expect("it is JSON");
    let start = 1_500_000_000;
    let time = |vector: &Value| vector["now"].as_i64().unwrap_or(start);
    let mut vectors: Vec<(usize, &Value)> = vectors.iter().enumerate().collect();
    vectors.sort_by_key(|(_, vector)| time(vector));
    let server = Server::since(Timestamp(start * 1000)).await;
    let mut n_tried = 0;
    for (n, vector) in vectors {
        if OTHER_SHAPES.contains(&vector["provider"].as_str().expect("a provider")) {
            continue;
        }
        let (preset, mut verifier) = preset(vector);
        if let Some(url) = vector["url"].as_str() {
            verifier["url"] = json!(url);
        }
        let ahead = time(vector) * 1000 - server.clock.now().0;
        server.clock.advance(Duration::from_millis(ahead.unsigned_abs()));
        let name = format!("v{n}");
        let source = json!({"name": name, "preset": preset, "verifier": verifier,
            "secret": vector["secret"]});
        server.post("/v1/sources").json(source).ok().await;
        let mut call = server.bare("POST", &format!("/api/webhook/{name}"));
        for (name, value) in vector["headers"].as_object().expect("headers") {
            call = call.header(name, value.as_str().expect("a text"));
        }
        let body = vector["body"].as_str().expect("a body").to_owned();
        let answer = call.body(body).send().await;
        let source = &vector["source"];
        let about = format!("vector {n} of {preset}, from {source}: {}", answer.status);
        assert!(answer.status == 401 || answer.status.is_success(), "{about}");
        assert_eq!(answer.status.is_success(), vector["expected"] == "ok", "{about}");
        n_tried += 1;
    }
    assert_eq!(n_tried, 60);
}

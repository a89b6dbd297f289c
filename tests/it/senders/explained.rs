//! Why a request is let in or not: told by the gate itself, to its owner, and to nobody else.

use base64::{Engine, engine::general_purpose::STANDARD};
use bellpull::clock::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

use super::cases::{Cases, cases};
use crate::web::server::Server;

const SECRET: &str = "It's a Secret to Everybody";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signature(secret: &[u8], body: &[u8]) -> String {
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body).as_ref())
}

async fn server() -> Server {
    let server = Server::new().await;
    let source = json!({"name": "code", "preset": "github", "secret": SECRET});
    server.post("/v1/sources").json(source).ok().await;
    server
}

/// The answer for a request to the source `code` with this signature.
async fn verified(server: &Server, signature: &str, body: &[u8]) -> Value {
    let request = json!({"headers": {"X-Hub-Signature-256": format!("sha256={signature}"),
        "X-GitHub-Delivery": "d1", "X-GitHub-Event": "push"}, "body_base64": STANDARD.encode(body)});
    server.post("/v1/sources/code/verify").json(request).ok().await
}

fn hints(found: &Value) -> String {
    assert_eq!(found["passes"], false, "{found:#}");
    let hints = found["hints"].as_array().expect("a list").iter();
    hints.map(|hint| hint.as_str().expect("a text")).collect::<Vec<_>>().join("\n")
}

/// The gate at the door and the one that explains are of one mind about every sender, and what is
/// told holds neither the secret nor a signature that it would take.
#[tokio::test]
async fn what_is_explained_is_what_happens() {
    let Cases { now, cases } = cases();
    let server = Server::since(Timestamp(now * 1000)).await;
    for case in &cases {
        case.make(&server).await;
        let about = format!("{} {}", case.preset, case.query);
        let path = format!("/v1/sources/{}/verify", case.preset);
        let url = format!("/api/webhook/{}{}", case.preset, case.query);
        let ask = async |body: &str, at: Value| {
            let request = json!({"headers": case.headers, "body": body, "url": url, "at": at});
            server.post(&path).json(request).ok().await
        };
        let found = ask(&case.body, Value::Null).await;
        assert_eq!(found["passes"], true, "{about}: {found:#}");
        assert_eq!(found["destination"]["status"], "accepted", "{about}: {found:#}");
        let later = Timestamp((now + 3600) * 1000);
        let found_later = ask(&case.body, json!(later)).await;
        assert_eq!(found_later["passes"], !case.stale, "{about}: {found_later:#}");
        let reason = found_later["reason"].as_str().unwrap_or("not old");
        assert!(reason.contains(" old") || reason.contains(" ago"), "{about}: {reason}");
        let foreign = ask("{\"another\":1}", Value::Null).await;
        assert!(!case.body_is_signed || foreign["passes"] == false, "{about}: {foreign:#}");
        for found in [&found, &found_later, &foreign] {
            assert!(
                !found["steps"].to_string().contains(&case.secret)
                    || case.body.contains(&case.secret),
                "{about}: {found:#}"
            );
        }
        // Nothing came of it.
        let none = server.get(&format!("/v1/deliveries?source={}", case.preset)).ok().await;
        assert_eq!(none["data"], json!([]), "{about}");
        let none = server.get(&format!("/v1/sources/{}/refusals", case.preset)).ok().await;
        assert_eq!(none["data"], json!([]), "{about}");
    }
}

#[tokio::test]
async fn each_step_is_told() {
    let server = server().await;
    let body = b"{\"action\":\"opened\"}";
    let right = signature(SECRET.as_bytes(), body);
    let found = verified(&server, &right, body).await;
    assert_eq!(found["passes"], true);
    assert_eq!(found["secret"], json!({"name": "SOURCE_code_SECRET", "version": 1}));
    assert_eq!(found["identity"]["key"], "x-github-delivery:d1");
    assert_eq!(found["event_type"], "push.opened");
    assert_eq!(found["destination"]["target"], "new_session");
    assert_eq!(found["hints"], json!([]));

    let found = verified(&server, &"0".repeat(64), body).await;
    let expected = "signature mismatch (tried SOURCE_code_SECRET version 1)";
    assert_eq!((&found["passes"], &found["reason"]), (&json!(false), &json!(expected)));
    let steps: Vec<(&str, bool)> = found["steps"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|step| (step["step"].as_str().expect("a text"), step["ok"] == true))
        .collect();
    let expected = [
        ("source", true),
        ("header", true),
        ("text", true),
        ("text", true),
        ("secret", false),
        ("secret", false),
    ];
    assert_eq!(steps, expected, "{found:#}");
    let text = found["steps"][3]["detail"].as_str().expect("a text");
    let hash = hex(ring::digest::digest(&ring::digest::SHA256, body).as_ref());
    let expected =
        format!("signed is `{{body}}`, 19 bytes, SHA-256 {hash}: {:?}", "{\"action\":\"opened\"}");
    assert_eq!(text, expected);
    assert!(!found.to_string().contains(&right) && !found.to_string().contains(SECRET));

    let reasons = [
        (json!({}), "no `X-Hub-Signature-256` header"),
        (
            json!({"x-hub-signature-256": "sha256=zz"}),
            "the signature in `X-Hub-Signature-256` is not hexadecimal",
        ),
        (
            json!({"x-hub-signature-256": ["sha256=00", "sha256=00"]}),
            "the `X-Hub-Signature-256` header is there more than once",
        ),
    ];
    for (headers, reason) in reasons {
        let request = json!({"headers": headers, "body": "{}"});
        let found = server.post("/v1/sources/code/verify").json(request).ok().await;
        assert_eq!(found["reason"], reason);
    }
    for wrong in [json!({"at": "yesterday"}), json!({"method": "a b"}), json!({"header": {}})] {
        server
            .post("/v1/sources/code/verify")
            .json(wrong)
            .error(400, "invalid_request_error")
            .await;
    }
    server.post("/v1/sources/nobody/verify").error(404, "not_found_error").await;
}

#[tokio::test]
async fn the_usual_mistakes_are_found() {
    let server = server().await;
    let (key, body) = (SECRET.as_bytes(), &b"{\"a\":1,\"b\":[\"x\",2]}"[..]);
    let check = async |signed: &[u8], came: &[u8], expected: &str| {
        let found = verified(&server, &signature(key, signed), came).await;
        let hints = hints(&found);
        assert!(hints.contains(expected), "{expected}: {hints}");
        assert_eq!(hints.lines().count(), 1, "{hints}");
    };
    check(body, &[body, b"\n"].concat(), "has a line break at its end").await;
    check(body, &[body, b"\r\n"].concat(), "has a line break at its end").await;
    check(&[body, b"\n"].concat(), body, "lacks the line break at its end").await;
    check(body, b"{ \"a\": 1, \"b\": [\"x\", 2] }", "signed without white space").await;
    check(b"{\"a\": 1, \"b\": [\"x\", 2]}", body, "as Python writes it").await;
    check(b"{\n  \"a\": 1\n}", b"{\"a\":1}", "with an indent of 2").await;
    check(b"a\nb", b"a\r\nb", "LF when it was signed, and are CR LF").await;
    check(b"a\r\nb", b"a\nb", "CR LF when it was signed, and are LF").await;

    // Of the secret.
    let secret = async |stored: &str, used: &str, expected: &str| {
        let source = json!({"name": "code", "preset": "github", "secret": stored});
        server.post("/v1/sources").json(source).ok().await;
        let hints = hints(&verified(&server, &signature(used.as_bytes(), body), body).await);
        assert!(hints.contains(expected), "{expected}: {hints}");
        assert!(!hints.contains(used), "{hints}");
    };
    secret("  pasted-secret", "pasted-secret", "without the white space around it").await;
    secret("whsec_abcd", "abcd", "without its `whsec_`").await;
    secret("abcd", "whsec_abcd", "with `whsec_` before it").await;
    secret("\"quoted-secret\"", "quoted-secret", "without the quotes around it").await;
    secret("6d792d6b6579", "my-key", "`secret_encoding` hex").await;
    secret("bXkta2V5", "my-key", "`secret_encoding` base64").await;
    let source = json!({"name": "live", "preset": "github", "secret": "of-live-mode"});
    server.post("/v1/sources").json(source).ok().await;
    secret("of-test-mode", "of-live-mode", "the secret of the source `live`").await;
    secret("one", "another", "the secret is not the one it signs with").await;

    // Of the source's own words about the signature.
    let verifier = async |verifier: Value, header: &str, value: String, expected: &str| {
        let source =
            json!({"name": "own", "preset": "hmac", "verifier": verifier, "secret": SECRET});
        server.post("/v1/sources").json(source).ok().await;
        let request = json!({"headers": {header: value}, "body": String::from_utf8_lossy(body)});
        let found = server.post("/v1/sources/own/verify").json(request).ok().await;
        let hints = hints(&found);
        assert!(hints.contains(expected), "{expected}: {hints}");
    };
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), body);
    verifier(json!({}), "X-Signature", STANDARD.encode(tag.as_ref()), "`encoding` base64").await;
    let sha1 = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key), body);
    verifier(json!({}), "X-Signature", hex(sha1.as_ref()), "`algorithm` sha1").await;
    let prefixed = format!("sha256={}", hex(tag.as_ref()));
    verifier(json!({}), "X-Signature", prefixed, "`prefix` \"sha256=\"").await;
    let plain = hex(tag.as_ref());
    verifier(json!({"template": "{url}{body}"}), "X-Signature", plain, "`template` \"{body}\"")
        .await;
    let redacted = "[redacted]".to_owned();
    verifier(json!({"type": "bearer"}), "Authorization", redacted, "was redacted").await;
}

/// A key that may only read may not ask which secret made a signature, and the sender is told
/// nothing of all this.
#[tokio::test]
async fn only_the_owner_is_told() {
    let mut server = server().await;
    let key = json!({"name": "reader", "scopes": ["read"]});
    let key = server.post("/v1/api_keys").json(key).ok().await;
    let key = key["key"].as_str().expect("shown once").to_owned();
    for path in ["verify", "test"] {
        let call = server.bare("POST", &format!("/v1/sources/code/{path}"));
        call.bearer(&key).error(403, "permission_error").await;
    }
    let call = server.bare("POST", "/api/webhook/code");
    let call = call.header("x-hub-signature-256", format!("sha256={}", "0".repeat(64)));
    let message = call.error(401, "authentication_error").await;
    assert!(!message.contains("mismatch") && !message.contains("SOURCE_code"), "{message}");
    server.note_refusals().await;
    let list = server.get("/v1/sources/code/refusals").ok().await;
    let reason = "signature mismatch (tried SOURCE_code_SECRET version 1)";
    assert_eq!(list["data"][0]["reason"], reason);
}

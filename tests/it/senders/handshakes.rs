//! Handshakes through the front door: each as its sender asks and as it wants to be answered, and
//! what nobody is answered. Signatures are made here, with nothing of the gate.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{hmac, rand::SystemRandom, signature::Ed25519KeyPair, signature::KeyPair};
use serde_json::{Value, json};

use crate::web::{
    client::{Answer, Call},
    server::Server,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn mac(text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request that asks, as data: what is sent, and what has to come back.
struct Ask {
    preset: &'static str,
    method: &'static str,
    query: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
    status: u16,
    /// The body and its type.
    answer: Option<(&'static str, &'static str)>,
    /// Further headers of the answer.
    also: &'static [(&'static str, &'static str)],
}

impl Ask {
    fn new(preset: &'static str, method: &'static str, query: &'static str) -> Ask {
        let (headers, body) = (Vec::new(), String::new());
        Ask { preset, method, query, headers, body, status: 200, answer: None, also: &[] }
    }

    fn post(preset: &'static str, body: &Value) -> Ask {
        Ask { body: body.to_string(), ..Ask::new(preset, "POST", "") }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Ask {
        self.headers.push((name, value.into()));
        self
    }

    fn text(self, text: &'static str) -> Ask {
        Ask { answer: Some(("text/plain; charset=utf-8", text)), ..self }
    }

    fn json(self, text: &'static str) -> Ask {
        Ask { answer: Some(("application/json", text)), ..self }
    }

    fn call(&self, server: &Server) -> Call {
        let path = format!("/api/webhook/{}{}", self.preset, self.query);
        let call = server.bare(self.method, &path).body(self.body.clone());
        self.headers.iter().fold(call, |call, (name, value)| call.header(name, value))
    }

    async fn check(&self, server: &Server) {
        let (about, answer) =
            (format!("{} {}", self.preset, self.method), self.call(server).send());
        let answer = answer.await;
        assert_eq!(answer.status.as_u16(), self.status, "{about}: {answer:?}");
        let body = String::from_utf8(answer.body.to_vec()).expect("a text");
        let (kind, text) = self.answer.unzip();
        assert_eq!(body, text.unwrap_or_default(), "{about}");
        assert_eq!(answer.header("content-type"), kind, "{about}");
        for (name, value) in self.also {
            assert_eq!(answer.header(name), Some(*value), "{about}: {name}");
        }
    }
}

/// What senders ask without proving anything.
fn unsigned() -> Vec<Ask> {
    const ALLOWED: &[(&str, &str)] =
        &[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "*"), ("allow", "POST")];
    let graph = "?validationToken=Validation%3A+Testing%20client.+Request-Id%3A+4ab6a4e3-0d7a";
    let validation = "Validation: Testing client. Request-Id: 4ab6a4e3-0d7a";
    let challenge = "X-Okta-Verification-Challenge";
    vec![
        Ask::new("dropbox", "GET", "?challenge=dBZ2D-_9").text("dBZ2D-_9"),
        Ask::new("microsoft-graph", "POST", graph).text(validation),
        Ask::new("okta", "GET", "").with(challenge, "6a5s").json(r#"{"verification":"6a5s"}"#),
        Ask::post("monday", &json!({"challenge": "3eZbrw1a"})).json(r#"{"challenge":"3eZbrw1a"}"#),
        Ask::new("trello", "HEAD", ""),
        Ask::new("intercom", "HEAD", ""),
        Ask {
            also: ALLOWED,
            ..Ask::new("cloudevents", "OPTIONS", "").with("WebHook-Request-Origin", "a.example")
        },
        // The key and the text of the HMAC are the ones above; the value is Python's.
        Ask::new("x", "GET", "?crc_token=9b4507b3-9040&nonce=x")
            .json(r#"{"response_token":"sha256=O/+1GE9tsE/Dms7rV57SvVl327txRB/HVRal0pDxTV4="}"#),
    ]
}

/// What senders ask with the proof that their deliveries have.
fn signed(now: i64, discord: &Ed25519KeyPair) -> Vec<Ask> {
    let hub = |ask: Ask, name, prefix: &str| {
        let signature = format!("{prefix}{}", hex(&mac(&ask.body)));
        ask.with(name, signature)
    };
    let timed = |ask: Ask, names: [&'static str; 2]| {
        let signature = format!("v0={}", hex(&mac(&format!("v0:{now}:{}", ask.body))));
        ask.with(names[0], now.to_string()).with(names[1], signature)
    };
    let slack = json!({"type": "url_verification", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY"});
    let zoom = json!({"event": "endpoint.url_validation", "payload": {"plainToken": "qgg8vlvZ"}});
    let twitch = json!({"challenge": "pogchamp-kappa-360noscope-vohiyo", "subscription": {}});
    let date = "2027-01-15T08:00:00Z";
    let signature = mac(&format!("id-1{date}{twitch}"));
    let discord = |body: Value| {
        let ask = Ask::post("discord", &body);
        let signature = discord.sign(format!("{now}{}", ask.body).as_bytes());
        ask.with("X-Signature-Timestamp", now.to_string())
            .with("X-Signature-Ed25519", hex(signature.as_ref()))
    };
    let grid = json!([{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6-c7b8"}}]);
    let heartbeat = json!({"events": []});
    let line = Ask::post("line", &json!({"destination": "U1", "events": []}));
    let line_signature = STANDARD.encode(mac(&line.body));
    vec![
        timed(Ask::post("slack", &slack), ["X-Slack-Request-Timestamp", "X-Slack-Signature"])
            .text("3eZbrw1aBm2rZgRNFdxV2595E9CY"),
        timed(Ask::post("zoom", &zoom), ["x-zm-request-timestamp", "x-zm-signature"])
            .json(r#"{"plainToken":"qgg8vlvZ","encryptedToken":"f2fadb3bf951b4fb2c43c2a0f3786b14c9bd810f7a17dc6f191d01e38da7bcbb"}"#),
        Ask::post("twitch", &twitch)
            .with("Twitch-Eventsub-Message-Type", "webhook_callback_verification")
            .with("Twitch-Eventsub-Message-Id", "id-1")
            .with("Twitch-Eventsub-Message-Timestamp", date)
            .with("Twitch-Eventsub-Message-Signature", format!("sha256={}", hex(&signature)))
            .text("pogchamp-kappa-360noscope-vohiyo"),
        discord(json!({"type": 1, "application_id": "1"})).json(r#"{"type":1}"#),
        Ask { status: 204, ..discord(json!({"version": 1, "type": 0})) },
        Ask { query: "?code=0123456789abcdef0123456789abcdef", ..Ask::post("event-grid", &grid) }
            .with("aeg-event-type", "SubscriptionValidation")
            .json(r#"{"validationResponse":"512d38b6-c7b8"}"#),
        Ask::new("event-grid", "OPTIONS", "?code=0123456789abcdef0123456789abcdef")
            .with("WebHook-Request-Origin", "eventgrid.azure.net"),
        hub(Ask::post("github", &json!({"zen": "x"})), "X-Hub-Signature-256", "sha256=")
            .with("X-GitHub-Event", "ping"),
        hub(Ask::post("bitbucket-dc", &json!({"test": true})), "X-Hub-Signature", "sha256=")
            .with("X-Event-Key", "diagnostics:ping"),
        hub(
            Ask::post("pagerduty", &json!({"event": {"event_type": "pagey.ping"}})),
            "X-PagerDuty-Signature",
            "v1=",
        ),
        hub(Ask::post("asana", &heartbeat), "X-Hook-Signature", ""),
        line.with("X-Line-Signature", line_signature),
    ]
}

fn discord() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key")
}

async fn make(server: &Server, preset: &str, secret: &str) -> Value {
    let source = json!({"name": preset, "preset": preset, "secret": secret});
    server.post("/v1/sources").json(source).ok().await
}

async fn no_deliveries(server: &Server) {
    assert_eq!(server.get("/v1/deliveries").ok().await["data"], json!([]));
    assert_eq!(server.get("/v1/sessions").ok().await["data"], json!([]));
}

#[tokio::test]
async fn every_sender_is_answered_as_it_wants_and_nothing_is_stored() {
    let (server, discord) = (Server::new().await, discord());
    let now = server.clock.now().0 / 1000;
    for ask in unsigned().into_iter().chain(signed(now, &discord)) {
        let secret = match ask.preset {
            "discord" => hex(discord.public_key().as_ref()),
            _ => SECRET.to_owned(),
        };
        make(&server, ask.preset, &secret).await;
        ask.check(&server).await;
        let shown = server.get(&format!("/v1/sources/{}", ask.preset)).ok().await;
        assert!(shown["last_handshake_at"].is_string(), "{shown}");
    }
    no_deliveries(&server).await;
    let metrics = server.get("/metrics").send().await;
    let metrics = String::from_utf8(metrics.body.to_vec()).expect("a text");
    let line = r#"{kind="named",source="okta",result="handshake"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn what_comes_after_the_gate_is_not_answered_without_it() {
    let (mut server, discord) = (Server::new().await, discord());
    let now = server.clock.now().0 / 1000;
    for mut ask in signed(now, &discord) {
        // The right key of somebody else.
        let secret = match ask.preset {
            "discord" => hex(self::discord().public_key().as_ref()),
            _ => "another-secret-of-somebody-else".to_owned(),
        };
        make(&server, ask.preset, &secret).await;
        let refused = |ask: &Ask| if ask.method == "POST" { 401 } else { 405 };
        assert_eq!(ask.call(&server).send().await.status, refused(&ask), "{}", ask.preset);
        ask.headers.retain(|(name, _)| !name.to_ascii_lowercase().contains("signature"));
        ask.query = "";
        assert_eq!(ask.call(&server).send().await.status, refused(&ask), "{}", ask.preset);
    }
    no_deliveries(&server).await;
    server.note_refusals().await;
    let refusals = server.get("/v1/sources/zoom/refusals").ok().await;
    let mut reasons = refusals["data"].as_array().expect("a list").iter().map(|it| &it["reason"]);
    let is_mismatch =
        |it: &Value| it.as_str().is_some_and(|it| it.starts_with("signature mismatch"));
    assert!(reasons.any(is_mismatch), "{refusals}");
}

#[tokio::test]
async fn hostile_challenges_are_not_repeated() {
    let server = Server::new().await;
    let long = "a".repeat(10_000);
    let hostile = [
        "<script>alert(1)</script>",
        "a\r\nSet-Cookie: a=b",
        "a\"onload=\"x",
        "{challenge}",
        "\u{202e}a",
        "a&#60;",
        "",
        long.as_str(),
    ];
    for ask in unsigned().into_iter().filter(|ask| !["HEAD", "OPTIONS"].contains(&ask.method)) {
        make(&server, ask.preset, SECRET).await;
        ask.call(&server).send().await;
        for text in hostile {
            let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            let name = ask.query.trim_start_matches('?').split('=').next().expect("a name");
            let path = match name {
                "" => format!("/api/webhook/{}", ask.preset),
                name => format!("/api/webhook/{}?{name}={encoded}", ask.preset),
            };
            let mut call = server.bare(ask.method, &path);
            if ask.preset == "okta" {
                // A line break cannot stand in a header at all.
                call = call.header("X-Okta-Verification-Challenge", text.replace("\r\n", " "));
            }
            if ask.preset == "monday" {
                call = call.json(json!({"challenge": text}));
            }
            let answer = call.send().await;
            let expected = if ask.method == "POST" { 401 } else { 405 };
            assert_eq!(answer.status, expected, "{} {text}: {answer:?}", ask.preset);
            let body = String::from_utf8_lossy(&answer.body);
            assert!(text.len() < 8 || !body.contains(text), "{body}");
        }
    }
    // A challenge that is there twice is nobody's, and one in a large body is not looked for.
    let twice = server.bare("GET", "/api/webhook/dropbox?challenge=a&challenge=b").send().await;
    assert_eq!(twice.status, 405);
    let large = json!({"challenge": "abc", "padding": "x".repeat(17 * 1024)});
    server.bare("POST", "/api/webhook/monday").json(large).error(401, "authentication_error").await;
    no_deliveries(&server).await;
}

/// Everything that a caller can tell answers apart by.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| *name != "request-id");
    let headers = headers.map(|(name, value)| (name.to_string(), format!("{value:?}")));
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    (answer.status.as_u16(), headers.collect(), body)
}

#[tokio::test]
async fn a_source_without_handshakes_looks_like_none() {
    let server = Server::new().await;
    for preset in ["github", "stripe", "notion", "asana", "slack", "event-grid", "meta", "okta"] {
        make(&server, preset, SECRET).await;
    }
    server.post("/v1/sources").json(json!({"name": "plain"})).ok().await;
    let agent = format!("/api/agents/{}/webhook", server.agent);
    let query = "?challenge=abc&hub.mode=subscribe&hub.challenge=1&hub.verify_token=x";
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "POST"] {
        let ask = |path: &str| {
            let call = server.bare(method, &format!("{path}{query}"));
            call.header("X-Hook-Secret", "abc")
                .header("WebHook-Request-Origin", "a.example")
                .json(json!({"verification_token": "secret_x", "challenge": "abc", "events": []}))
        };
        let nobody = seen(&ask("/api/webhook/nobody").send().await);
        assert_eq!(nobody.0, if method == "POST" { 401 } else { 405 });
        for name in
            ["github", "stripe", "notion", "asana", "slack", "event-grid", "meta", "okta", "plain"]
        {
            let known = seen(&ask(&format!("/api/webhook/{name}")).send().await);
            assert_eq!(known, nobody, "{method} {name}");
        }
        assert_eq!(seen(&ask(&agent).send().await), nobody, "{method} of an agent");
    }
    no_deliveries(&server).await;
}

#[tokio::test]
async fn meta_is_answered_when_it_holds_the_token_that_is_shown() {
    let server = Server::new().await;
    let made = make(&server, "meta", SECRET).await;
    let token = made["verify_token"].as_str().expect("a token").to_owned();
    assert!(!made.to_string().contains(SECRET));
    let ask = |mode: &str, token: &str| {
        let query = format!("?hub.mode={mode}&hub.verify_token={token}&hub.challenge=1158201444");
        server.bare("GET", &format!("/api/webhook/meta{query}"))
    };
    let answer = ask("subscribe", &token).send().await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"1158201444"[..]));
    for (mode, token) in [("subscribe", SECRET), ("subscribe", ""), ("unsubscribe", &token)] {
        assert_eq!(ask(mode, token).send().await.status, 405, "{mode} {token}");
    }
    // It belongs to the secret: a new one has another.
    let made = make(&server, "meta", "another-secret").await;
    assert_ne!(made["verify_token"], token.as_str());
    assert_eq!(ask("subscribe", &token).send().await.status, 405);
}

#[tokio::test]
async fn what_strangers_have_signed_passes_as_no_delivery() {
    let server = Server::new().await;
    make(&server, "x", SECRET).await;
    let answer = server.bare("GET", "/api/webhook/x?crc_token=do-as-I-say").ok().await;
    let signature = answer["response_token"].as_str().expect("a token").to_owned();
    let deliver = |body: &str, signature: &str| {
        let call = server.bare("POST", "/api/webhook/x");
        call.header("x-twitter-webhooks-signature", signature).body(body.to_owned())
    };
    deliver("do-as-I-say", &signature).error(401, "authentication_error").await;
    let body = r#"{"for_user_id":"1","tweet_create_events":[]}"#;
    let signature = format!("sha256={}", STANDARD.encode(mac(body)));
    deliver(body, &signature).status(200).await;
}

async fn window(server: Server) {
    for preset in ["asana", "notion"] {
        server.post("/v1/sources").json(json!({"name": preset, "preset": preset})).ok().await;
    }
    let ask = |secret: &str| {
        let call = server.bare("POST", "/api/webhook/asana").header("X-Hook-Secret", secret);
        call.json(json!({}))
    };
    let open = |minutes: Value| {
        server.post("/v1/sources/asana/handshake").json(json!({"minutes": minutes}))
    };
    ask("early").error(401, "authentication_error").await;
    // One that is over, and one that is closed by hand.
    open(json!(5)).ok().await;
    server.clock.advance(Duration::from_secs(301));
    ask("late").error(401, "authentication_error").await;
    assert!(open(json!(5)).ok().await["open_until"].is_string());
    assert!(open(json!(0)).ok().await["open_until"].is_null());
    ask("closed").error(401, "authentication_error").await;

    let opened = server.post("/v1/sources/asana/handshake").json(json!({})).ok().await;
    assert_eq!((&opened["secret_set"], opened["open_until"].is_string()), (&json!(false), true));
    ask("a b").error(401, "authentication_error").await;
    ask(&"a".repeat(129)).error(401, "authentication_error").await;
    let answer = ask(SECRET).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-hook-secret")), (200, Some(SECRET)));
    assert!(answer.body.is_empty());
    ask("the-second-one").error(401, "authentication_error").await;

    // From now on it is the source's secret, and it is shown nowhere.
    let body = json!({"events": [{"action": "added", "resource": {"gid": "1"}}]}).to_string();
    let signature = hex(&mac(&body));
    let call = server.bare("POST", "/api/webhook/asana").header("X-Hook-Signature", signature);
    call.body(body).status(202).await;
    let shown = server.get("/v1/sources/asana").ok().await;
    assert_eq!((&shown["secret_set"], &shown["open_until"]), (&json!(true), &Value::Null));
    let secret = server.post("/v1/sources/asana/handshake/secret");
    secret.error(409, "invalid_request_error").await;
    let audit = server.get("/v1/audit").ok().await;
    let of_sender = audit["data"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|it| it["action"] == "secret.received");
    assert_eq!(of_sender.expect("it is noted")["target"], "SOURCE_asana_SECRET");
    for list in [audit, shown, server.get("/v1/secrets").ok().await] {
        assert!(!list.to_string().contains(SECRET), "{list}");
    }

    // Notion wants it typed in by hand: it is shown once, to an admin.
    server.post("/v1/sources/notion/handshake").json(json!({})).ok().await;
    let token = "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl";
    let ask = || {
        let call = server.bare("POST", "/api/webhook/notion");
        call.json(json!({"verification_token": token}))
    };
    assert_eq!(ask().send().await.status, 200);
    ask().error(401, "authentication_error").await;
    let secret = || server.post("/v1/sources/notion/handshake/secret");
    let shown = secret().ok().await;
    assert_eq!((&shown["name"], &shown["value"]), (&json!("notion"), &json!(token)));
    secret().error(409, "invalid_request_error").await;
}

#[tokio::test]
async fn a_window_takes_one_secret() {
    window(Server::new().await).await;
}

#[tokio::test]
async fn a_window_takes_one_secret_on_postgres() {
    window(Server::postgres().await).await;
}

#[tokio::test]
async fn only_what_needs_a_window_has_one() {
    let server = Server::new().await;
    make(&server, "github", SECRET).await;
    let named = json!({"name": "named", "preset": "asana", "secret_key": "SHARED"});
    server.post("/v1/sources").json(named).ok().await;
    for name in ["github", "named"] {
        let call = server.post(&format!("/v1/sources/{name}/handshake")).json(json!({}));
        call.error(409, "invalid_request_error").await;
    }
    server.post("/v1/sources").json(json!({"name": "asana", "preset": "asana"})).ok().await;
    for minutes in [json!(61), json!(-1), json!("5")] {
        let call = server.post("/v1/sources/asana/handshake").json(json!({"minutes": minutes}));
        call.error(400, "invalid_request_error").await;
    }
    server.post("/v1/sources/nobody/handshake").json(json!({})).error(404, "not_found_error").await;
}

#[tokio::test]
async fn a_source_has_handshakes_of_its_own() {
    let server = Server::new().await;
    let own = |handshakes: Value| {
        json!({"name": "own", "verifier": {"type": "hmac", "header": "X-Signature"},
            "secret": SECRET, "handshakes": handshakes})
    };
    let handshakes = json!([{"method": "GET", "answered": "before", "challenge": "?check",
        "reply": {"json": {"echo": ["{challenge}", 1]}, "status": 201}}]);
    let made = server.post("/v1/sources").json(own(handshakes.clone())).ok().await;
    assert_eq!(made["handshakes"], handshakes);
    let answer = server.bare("GET", "/api/webhook/own?check=abc").status(201).await;
    assert_eq!(answer, json!({"echo": ["abc", 1]}));
    for (handshakes, field) in [
        (
            json!([{"method": "GET", "challenge": "?c", "also": "<", "reply": {}}]),
            "handshakes[0].also",
        ),
        (json!([{"reply": {}}]), "handshakes[0].when"),
        (json!([{"method": "PUT", "reply": {}}]), "handshakes"),
        (json!({}), "handshakes"),
    ] {
        let call = server.post("/v1/sources").json(own(handshakes));
        let message = call.error(400, "invalid_request_error").await;
        assert!(message.starts_with(field), "{message}");
    }
    // Back to none.
    server.post("/v1/sources/own").json(json!({"handshakes": null})).ok().await;
    assert_eq!(server.bare("GET", "/api/webhook/own?check=abc").send().await.status, 405);
    // An agent's own endpoint has none, whatever is written there.
    let path = format!("/v1/sources/{}", server.agent);
    server.post(&path).json(json!({"handshakes": handshakes})).send().await;
    let path = format!("/api/agents/{}/webhook?check=abc", server.agent);
    assert_eq!(server.bare("GET", &path).send().await.status, 405);
}

#[tokio::test]
async fn answers_are_what_the_sender_insists_on() {
    let (server, discord) = (Server::new().await, discord());
    let now = server.clock.now().0 / 1000;
    let timed = |text: &str| format!("v0={}", hex(&mac(&format!("v0:{now}:{text}"))));
    make(&server, "slack", SECRET).await;
    make(&server, "discord", &hex(discord.public_key().as_ref())).await;
    make(&server, "zoom", SECRET).await;
    let body = r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"message"}}"#;
    let slack = || {
        let call = server.bare("POST", "/api/webhook/slack").body(body);
        call.header("X-Slack-Request-Timestamp", now.to_string())
            .header("X-Slack-Signature", timed(body))
    };
    // Also when it is there already.
    for _ in 0..2 {
        let answer = slack().send().await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    }
    let body = r#"{"version":1,"type":1,"event":{"type":"ENTITLEMENT_CREATE"}}"#;
    let signature = discord.sign(format!("{now}{body}").as_bytes());
    let call = server.bare("POST", "/api/webhook/discord").body(body);
    let call = call.header("X-Signature-Timestamp", now.to_string());
    let answer = call.header("X-Signature-Ed25519", hex(signature.as_ref())).send().await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    let body = r#"{"event":"meeting.started","event_ts":1,"payload":{"object":{"uuid":"u"}}}"#;
    let call = server.bare("POST", "/api/webhook/zoom").body(body);
    let call = call.header("x-zm-request-timestamp", now.to_string());
    let answer = call.header("x-zm-signature", timed(body)).status(200).await;
    assert_eq!(answer["status"], "accepted");
    let deliveries = server.get("/v1/deliveries").ok().await;
    assert_eq!(deliveries["data"].as_array().expect("a list").len(), 3);
}

//! The pages, as a browser asks for them: signing in, what a visitor may see and do, and that text
//! from outside stays text.

mod access;
pub(super) mod browser;
mod forms;
mod live;
mod needs;
mod prefix;
mod replays;

use std::time::Duration;

use serde_json::{Value, json};

use self::browser::{Browser, Page};
use super::{
    client::Call,
    server::{BOX, MASTER, Server},
};

#[tokio::test]
async fn signing_in_and_out() {
    let server = Server::new().await;
    let mut browser = Browser::new(&server);
    let page = browser.get("/").await;
    assert_eq!((page.status, page.header("location")), (303, Some("/sign-in")));
    let page = browser.get("/sessions?agent=a").await;
    assert_eq!(page.header("location"), Some("/sign-in?next=%2Fsessions%3Fagent%3Da"));

    let page = browser.sign_in("not-a-key").await;
    assert_eq!(page.status, 401);
    assert!(page.text.contains("not a key of this server"), "{}", page.text);
    assert!(!page.text.contains("not-a-key"), "what was typed is not sent back");
    assert_eq!(browser.sign_in(BOX).await.status, 401);

    let page = browser.sign_in(MASTER).await;
    assert_eq!((page.status, page.header("location")), (303, Some("/")));
    let cookie = page.header("set-cookie").expect("a cookie").to_owned();
    for part in ["Path=/;", "HttpOnly", "SameSite=Strict", "Secure", "Max-Age=604800"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(cookie.starts_with("__Host-bellpull-4100=") && !cookie.contains(MASTER), "{cookie}");

    assert_eq!(browser.get("/").await.status, 200);
    let page = browser.get("/agents").await;
    assert_eq!(page.status, 200);
    for part in ["default", "rehearsal - no AI", "Webhook of default", "master key", "none yet"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    // Signed in, nobody needs the form.
    assert_eq!(browser.post("/sign-out", &[]).await.status, 403, "without the token");
    assert_eq!(browser.get("/agents").await.status, 200);
    let page = browser.submit("/sign-out", &[]).await;
    assert_eq!((page.status, page.header("location")), (303, Some("/sign-in")));
    assert_eq!(browser.get("/agents").await.status, 303);
    browser.set_cookie(cookie.split(';').next().unwrap());
    assert_eq!(browser.get("/agents").await.status, 303, "the old cookie is worth nothing");
}

#[tokio::test]
async fn a_plain_address_gets_a_plain_cookie() {
    let server = Server::new().await;
    let mut options = (*server.app.options()).clone();
    options.public_url = None;
    server.app.set_options(options);
    let mut browser = Browser::new(&server);
    browser.host = "127.0.0.1:4100".to_owned();
    let page = browser.sign_in(MASTER).await;
    let cookie = page.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("bellpull-4100=") && !cookie.contains("Secure"), "{cookie}");
    let page = browser.get("/agents").await;
    let url = format!("http://127.0.0.1:4100/api/agents/{}/webhook", server.agent);
    assert_eq!(page.status, 200);
    let page = browser.get(&format!("/agents/{}/webhook", server.agent)).await;
    assert!(page.text.contains(&url), "{}", page.text);
    // A proxy in front says that it was https.
    let mut behind = Browser::new(&server);
    behind.host = "localhost".to_owned();
    behind.also = Some(("x-forwarded-proto", "https"));
    let page = behind.sign_in(MASTER).await;
    assert!(page.header("set-cookie").expect("a cookie").contains("; Secure"));
}

#[tokio::test]
async fn the_cookie_opens_pages_and_nothing_else() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    for path in ["/v1/agents", "/api/agents", "/v1/secrets", "/v1/audit"] {
        assert_eq!(browser.get(path).await.status, 401, "{path}");
    }
    let body = json!({"name": "a", "model": "rehearsal"}).to_string();
    let call = browser.call("POST", "/v1/agents").header("content-type", "application/json");
    assert_eq!(call.body(body).open().await.status(), 401);
    let hook = format!("/api/agents/{}/webhook", server.agent);
    assert_eq!(browser.post(&hook, &[]).await.status, 401);
    // And a key in a header opens no page.
    let call = server.get("/agents").header("host", "bell.example");
    assert_eq!(call.open().await.status(), 303);
}

#[tokio::test]
async fn a_form_of_somebody_else_changes_nothing() {
    let server = Server::new().await;
    let mut browser = Browser::signed_in(&server, MASTER).await;
    let other = Browser::signed_in(&server, MASTER).await;
    let (path, generate) = (browser.webhook(), [("action", "generate")]);
    assert_eq!(browser.post(&path, &generate).await.status, 403, "no token");
    let wrong = [("action", "generate"), ("csrf", "wrong")];
    assert_eq!(browser.post(&path, &wrong).await.status, 403, "a wrong token");
    let csrf = other.csrf().await;
    let theirs = [("action", "generate"), ("csrf", csrf.as_str())];
    assert_eq!(browser.post(&path, &theirs).await.status, 403, "another visitor's token");
    browser.also = Some(("sec-fetch-site", "cross-site"));
    assert_eq!(browser.submit(&path, &generate).await.status, 403, "another site's page");
    browser.also = Some(("sec-fetch-site", "same-site"));
    assert_eq!(browser.submit(&path, &generate).await.status, 403, "a neighbour's page");
    assert_eq!(server.get("/v1/secrets").ok().await["data"], json!([]));

    browser.also = Some(("sec-fetch-site", "same-origin"));
    let csrf = browser.csrf().await;
    let call = browser.form("POST", &path, &generate).header("x-csrf-token", csrf);
    assert_eq!(call.open().await.status(), 303, "the token may come in a header");

    // Nobody is signed in by a page of somebody else either.
    let mut stranger = Browser::new(&server);
    let page = stranger.post("/sign-in", &[("key", MASTER), ("csrf", "")]).await;
    assert_eq!(page.status, 403);
    let page = stranger.get("/sign-in").await;
    let (token, key) = (page.field("csrf"), [("key", MASTER)]);
    stranger.forget_cookies();
    let page = stranger.post("/sign-in", &[key[0], ("csrf", token.as_str())]).await;
    assert_eq!(page.status, 403, "the token belongs to a cookie");
}

#[tokio::test]
async fn only_our_own_names_are_answered() {
    let server = Server::new().await;
    let mut browser = Browser::signed_in(&server, MASTER).await;
    let asset = browser.get("/agents").await.between("stylesheet\" href=\"", "/bellpull.css");
    for host in ["evil.example", "evil.example:4100", "bell.example.evil.example", "192.0.2.1"] {
        browser.host = host.to_owned();
        let style = format!("{asset}/bellpull.css");
        for path in ["/agents", "/sign-in", "/sessions", "/", "/nothing", style.as_str()] {
            let page = browser.get(path).await;
            assert_eq!(page.status, 421, "{host} {path}");
            assert!(page.text.contains("public_url") && !page.text.contains("default</"));
        }
        assert_eq!(browser.post("/sign-in", &[("key", MASTER)]).await.status, 421);
    }
    for host in ["bell.example", "bell.example:8443", "localhost:4100", "127.0.0.1", "[::1]:4100"] {
        browser.host = host.to_owned();
        assert_eq!(browser.get("/agents").await.status, 200, "{host}");
    }
    // Senders may use any name.
    let call = server.hook().bearer(server.token().await).header("host", "evil.example");
    assert_eq!(call.body("{}").open().await.status(), 202);
}

#[tokio::test]
async fn pages_go_out_compressed_and_nothing_else_does() {
    let server = Server::new().await;
    let token = server.token().await;
    let answer = server.hook().bearer(token).body(r#"{"n":1}"#).open().await;
    assert_eq!(answer.status(), 202);
    let session = server.get("/v1/sessions").ok().await["data"][0]["id"].clone();
    let browser = Browser::signed_in(&server, MASTER).await;
    let encoding = async |call: Call| {
        let answer = call.header("accept-encoding", "gzip, br").open().await;
        assert_eq!(answer.status(), 200);
        answer.headers().get("content-encoding").map(|it| it.to_str().expect("ASCII").to_owned())
    };
    let asset = browser.get("/agents").await.between("stylesheet\" href=\"", "\"");
    for path in ["/agents", "/settings", "/reference", asset.as_str()] {
        assert_eq!(encoding(browser.call("GET", path)).await.as_deref(), Some("gzip"), "{path}");
    }
    assert_eq!(browser.get("/agents").await.header("content-encoding"), None, "nobody asked");
    for kind in ["json", "md"] {
        let path = format!("/sessions/{}/transcript.{kind}", session.as_str().expect("an id"));
        assert_eq!(encoding(browser.call("GET", &path)).await, None, "{path}");
    }
    // A frame of a stream arrives when it is sent.
    let live = format!("/sessions/{}/live", session.as_str().expect("an id"));
    assert_eq!(encoding(browser.call("GET", &live)).await, None);
    assert_eq!(encoding(server.get("/openapi.json")).await, None);
}

#[tokio::test]
async fn wrong_keys_are_slowed_down() {
    let server = Server::new().await;
    let mut browser = Browser::new(&server);
    for n in 0..10 {
        assert_eq!(browser.sign_in(&format!("wrong-{n}")).await.status, 401);
    }
    let page = browser.sign_in(MASTER).await;
    assert_eq!((page.status, page.header("retry-after")), (429, Some("60")));
    assert!(page.text.contains("Too many wrong keys"), "{}", page.text);
    server.clock.advance(Duration::from_secs(61));
    assert_eq!(browser.sign_in(MASTER).await.status, 303);
}

#[tokio::test]
async fn a_visitor_is_gone_with_the_key_and_with_time() {
    let server = Server::new().await;
    let body = json!({"name": "duty phone", "scopes": ["read"]});
    let key = server.post("/v1/api_keys").json(body).ok().await;
    let browser = Browser::signed_in(&server, key["key"].as_str().unwrap()).await;
    assert!(browser.get("/agents").await.text.contains("duty phone"));
    let path = format!("/v1/api_keys/{}", key["id"].as_str().unwrap());
    server.call("DELETE", &path).ok().await;
    assert_eq!(browser.get("/agents").await.status, 303, "the key is revoked");

    let browser = Browser::signed_in(&server, MASTER).await;
    server.clock.advance(Duration::from_secs(11 * 3600));
    assert_eq!(browser.get("/agents").await.status, 200);
    // What a page looks up by itself is nobody being there.
    server.clock.advance(Duration::from_secs(11 * 3600));
    assert_eq!(browser.get("/agents?part=live").await.status, 200);
    server.clock.advance(Duration::from_secs(3600));
    assert_eq!(browser.get("/agents").await.status, 303);
}

#[tokio::test]
async fn a_key_that_may_only_read_is_shown_no_way_to_change() {
    let server = Server::new().await;
    let body = json!({"name": "looker", "scopes": ["read"]});
    let key = server.post("/v1/api_keys").json(body).ok().await["key"].clone();
    let browser = Browser::signed_in(&server, key.as_str().unwrap()).await;
    let page = browser.get(&browser.webhook()).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("read only") && page.text.contains("None yet"), "{}", page.text);
    assert!(!page.text.contains("Generate") && !page.text.contains("name=\"token\""));
    let page = browser.submit(&browser.webhook(), &[("action", "generate")]).await;
    assert_eq!(page.status, 403);
    assert_eq!(server.get("/v1/secrets").ok().await["data"], json!([]));
    assert_eq!(browser.submit("/sign-out", &[]).await.status, 303, "but may go");
}

#[tokio::test]
async fn tokens_are_made_stored_and_shown_once() {
    let server = Server::new().await;
    let body = json!({"name": "ops", "scopes": ["admin"]});
    let key = server.post("/v1/api_keys").json(body).ok().await["key"].clone();
    let browser = Browser::signed_in(&server, key.as_str().unwrap()).await;
    let name = format!("WEBHOOK_{}_SECRET", server.agent);
    let page = browser.get(&browser.webhook()).await;
    assert!(page.text.contains(&name) && page.text.contains("nobody can ring"), "{}", page.text);

    let page = browser.carry_out(&browser.webhook(), &[("action", "generate")]).await;
    assert_eq!(page.status, 200);
    let first = page.between("id=\"made-token\">", "<");
    assert!(first.starts_with("bps_") && first.len() > 40, "{first}");
    let ring = async |token: &str| {
        server.hook().bearer(token).body("{\"event\": \"hello\"}").open().await.status().as_u16()
    };
    assert_eq!(ring(&first).await, 202);
    let page = browser.get(&browser.webhook()).await;
    assert!(!page.text.contains(&first), "it is not shown again");
    assert!(page.text.contains("version 1") && page.text.contains("hello"), "{}", page.text);

    let overlap = [("action", "store"), ("token", " pasted-by-hand "), ("overlap", "3600")];
    let page = browser.carry_out(&browser.webhook(), &overlap).await;
    assert!(page.text.contains("The token is stored") && page.text.contains("in 1 h"));
    assert!(!page.text.contains("pasted-by-hand"));
    assert_eq!((ring(&first).await, ring("pasted-by-hand").await), (202, 202));
    server.clock.advance(Duration::from_secs(3601));
    assert_eq!((ring(&first).await, ring("pasted-by-hand").await), (401, 202));

    for (token, overlap) in [("", "0"), ("two words", "0"), ("\u{e4}", "0"), ("fine", "61")] {
        let form = [("action", "store"), ("token", token), ("overlap", overlap)];
        let page = browser.submit(&browser.webhook(), &form).await;
        assert!(page.status == 422 || page.status == 400, "{token} {}", page.status);
    }
    let audit = server.get("/v1/audit").ok().await;
    let entries: Vec<&Value> = audit["data"].as_array().unwrap().iter().collect();
    let entries: Vec<_> = entries.iter().filter(|it| it["action"] == "secret.set").collect();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!((&entry["actor"], &entry["target"]), (&json!("ops"), &json!(name)));
        assert!(!entry.to_string().contains("pasted-by-hand"));
    }
}

#[tokio::test]
async fn an_archived_agent_takes_no_token() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    server.post(&format!("/v1/agents/{}/archive", server.agent)).json(json!({})).ok().await;
    let page = browser.get("/agents").await;
    assert!(page.text.contains("There is no agent yet"), "{}", page.text);
    assert!(browser.get("/agents?archived=1").await.text.contains("archived"));
    let page = browser.get(&browser.webhook()).await;
    assert!(page.text.contains("lets nobody in") && !page.text.contains("Generate"));
    let page = browser.submit(&browser.webhook(), &[("action", "generate")]).await;
    assert_eq!(page.status, 400);
}

#[tokio::test]
async fn text_from_outside_stays_text() {
    let server = Server::new().await;
    let script = "<script>alert('x')</script>";
    let name = format!("{script}<img src=x onerror=alert(1)>\" onmouseover=\"x");
    let body = json!({"name": name, "model": "rehearsal", "description": script});
    let agent = server.id(server.post("/v1/agents").json(body)).await;
    server.secret(&format!("WEBHOOK_{agent}_SECRET"), "t").await;
    let payload = json!({"event": format!("\"><b>{script}"), "text": script, "turn": "\u{202e}x"});
    let path = format!("/api/agents/{agent}/webhook");
    let call = server.bare("POST", &path).bearer("t").json(payload);
    let delivered = call.status(202).await;
    let session = delivered["session_id"].as_str().unwrap().to_owned();
    let browser = Browser::signed_in(&server, MASTER).await;

    let check = |page: &Page, at: &str| {
        let text = &page.text;
        assert_eq!(page.status, 200, "{at}");
        let own = page.text.matches("<script src=\"/assets/").count()
            + page.text.matches("<script type=\"module\" src=\"/assets/").count();
        assert_eq!(text.matches("<script").count(), own, "{at}: {text}");
        assert!(!text.contains("<img") && !text.contains("\" onmouseover"), "{at}: {text}");
        assert!(!text.contains('\u{202e}'), "{at}");
    };
    // Later, so that the worker takes the first one first.
    server.clock.advance(Duration::from_millis(1));
    // One that is no JSON, and so is shown in one piece.
    let text = format!("{script}<img src=x onerror=alert(1)>\u{202e}");
    let plain = server.bare("POST", &path).bearer("t").body(text).status(202).await;
    let plain = format!("/sessions/{}", plain["session_id"].as_str().unwrap());
    let transcript = format!("/sessions/{session}");
    let webhook = format!("/agents/{agent}/webhook");
    for path in ["/agents", "/sessions", &transcript, &plain, &webhook] {
        check(&browser.get(path).await, path);
    }
    assert!(browser.get(&transcript).await.text.contains("waiting"), "nobody took it yet");
    let lease = server.work().await;
    let event = bellpull::id::Id::new(server.clock.now());
    let answer = format!("**bold** {script} [a](javascript:alert(1)) <i>i</i>\n\n{script}");
    server.answer(&lease, event, &answer).await;
    let page = browser.get(&transcript).await;
    check(&page, "the transcript");
    // Two ways to write the same reference.
    let text = page.text.replace("&#60;", "&lt;").replace("&#62;", "&gt;");
    for shown in ["&lt;script&gt;", "<strong>bold</strong>", "\\u{202e}", "&lt;i&gt;"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert!(!text.contains("href=\"javascript:"), "{text}");
}

#[tokio::test]
async fn a_named_source_has_a_page_with_what_came_and_why_nobody_got_it() {
    let server = Server::new().await;
    let source = json!({"name": "code", "preset": "github", "secret": "s", "filter": "body.n > 0"});
    server.post("/v1/sources").json(source).ok().await;
    let mut deliveries = Vec::new();
    for body in [json!({"n": 0}), json!({"n": 1}), json!({"n": 1}), json!({})] {
        server.clock.advance(Duration::from_secs(1));
        let test = server.post("/v1/sources/code/test").json(json!({ "body": body }));
        deliveries.push(test.ok().await["answer"]["delivery_id"].as_str().unwrap().to_owned());
    }
    let browser = Browser::signed_in(&server, MASTER).await;
    let board = browser.get("/").await.text;
    assert!(board.contains("href=\"/sources/code\""), "{board}");
    assert!(board.contains("rings"), "{board}");
    server.clock.advance(Duration::from_secs(60));
    assert!(browser.get("/").await.text.contains("has a delivery that is held"));
    let page = browser.get("/sources/code").await;
    let row = |n: usize| {
        let begin = format!("<li id=\"{}\">", deliveries[n]);
        let text = page.text.replace("&#39;", "'");
        let row = text.split_once(&begin).map(|(_, row)| row.to_owned());
        row.unwrap_or_else(|| panic!("{begin}: {text}")).split("</li>").next().unwrap().to_owned()
    };
    assert!(row(0).contains("filtered") && row(0).contains("the source's filter does not want it"));
    assert!(!row(1).contains("possible replay") && row(1).contains("href=\"/sessions/sesn_"));
    let mark = format!("{} had the same body under another id", deliveries[1]);
    assert!(row(2).contains("possible replay") && row(2).contains(&mark), "{}", row(2));
    assert!(
        row(3).contains("held") && row(3).contains("there is no field <code>n</code>"),
        "{}",
        row(3)
    );
    let part = browser.get("/sources/code?part=deliveries").await.text;
    assert!(part.contains(&deliveries[3]) && !part.contains("Endpoint"), "{part}");
    let sessions = browser.get("/sessions").await.text;
    assert!(sessions.contains("href=\"/sources/code\""), "{sessions}");

    server.post("/v1/sources").json(json!({"name": "shop", "preset": "shopify"})).ok().await;
    let page = browser.get("/sources/shop").await.text;
    assert!(page.contains("Shopify") && page.contains("nobody can ring this bell"), "{page}");
    assert!(browser.get("/").await.text.contains("has no secret yet"));
    server.call("DELETE", "/v1/sources/code").ok().await;
    assert_eq!(browser.get("/sources/code").await.status, 404);
    assert!(!browser.get("/sessions").await.text.contains("href=\"/sources/code\""));
}

#[tokio::test]
async fn every_page_is_locked_down() {
    let server = Server::new().await;
    let browser = Browser::signed_in(&server, MASTER).await;
    for path in [
        "/agents",
        "/sign-in",
        "/sessions",
        "/nothing",
        "/sessions/sesn_0",
        "/agents/x/webhook",
        "/sources/x",
    ] {
        let page = browser.get(path).await;
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(page.header("cache-control"), Some("no-store"), "{path}");
        assert!(page.header("request-id").is_some_and(|it| it.starts_with("req_")), "{path}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert!(!page.text.contains(" style=") && !page.text.contains(" onclick="), "{path}");
        let expected = if path.len() < 10 && path != "/nothing" { 200 } else { 404 };
        assert_eq!(page.status, expected, "{path}");
    }
    // What is no page is answered as before.
    assert_eq!(server.get("/nothing").send().await.status, 404);
}

#[tokio::test]
async fn assets_are_kept_under_their_hash_only() {
    let server = Server::new().await;
    let browser = Browser::new(&server);
    let sign_in = browser.get("/sign-in").await;
    let base = sign_in.between("stylesheet\" href=\"", "/bellpull.css");
    for (name, kind) in [
        ("bellpull.css", "text/css; charset=utf-8"),
        ("app.mjs", "text/javascript; charset=utf-8"),
        ("vendor/htmx-4.0.1.min.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let file = browser.get(&format!("{base}/{name}")).await;
        assert_eq!((file.status, file.header("content-type")), (200, Some(kind)), "{name}");
        assert!(file.header("cache-control").unwrap().contains("immutable"), "{name}");
        let file = browser.get(&format!("/assets/older/{name}")).await;
        assert_eq!((file.status, file.header("cache-control")), (200, Some("no-store")), "{name}");
    }
    for name in ["nothing", "../Cargo.toml", "%2e%2e/Cargo.toml"] {
        assert_eq!(browser.get(&format!("{base}/{name}")).await.status, 404, "{name}");
    }
}

/// Other people's scripts are those that were looked at.
#[test]
fn vendored_scripts_are_pinned() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/vendor");
    let sums = std::fs::read_to_string(place.join("SHA256SUMS")).expect("there are sums");
    let mut n_scripts = 0;
    for entry in std::fs::read_dir(&place).expect("it is there") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        if !name.ends_with(".js") {
            continue;
        }
        n_scripts += 1;
        let bytes = std::fs::read(place.join(&name)).expect("a file");
        let sum = bellpull::vault::hex(&bellpull::vault::hash(&bytes));
        assert!(sums.contains(&format!("{sum}  {name}\n")), "{name} has another hash: {sum}");
    }
    assert_eq!(n_scripts, sums.lines().count());
}

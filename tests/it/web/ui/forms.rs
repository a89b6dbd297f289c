//! Forms: what was done is not done again by a reload, and what was refused says so beside its field.

use serde_json::json;

use super::browser::{Browser, Page};
use crate::web::server::{MASTER, Server};

async fn browser(server: &Server) -> Browser<'_> {
    let source = json!({"name": "code", "preset": "github", "secret": "s"});
    server.post("/v1/sources").json(source).ok().await;
    Browser::signed_in(server, MASTER).await
}

async fn n_deliveries(server: &Server) -> usize {
    server.get("/v1/deliveries").ok().await["data"].as_array().unwrap().len()
}

/// The page that a form led to, and the same loaded again.
async fn twice(browser: &Browser<'_>, path: &str, fields: &[(&str, &str)]) -> (Page, Page) {
    let page = browser.submit(path, fields).await;
    assert_eq!(page.status, 303, "{path}: {}", page.text);
    let place = page.header("location").unwrap().to_owned();
    let (first, again) = (browser.get(&place).await, browser.get(&place).await);
    assert_eq!((first.status, again.status), (200, 200), "{place}");
    (first, again)
}

#[tokio::test]
async fn a_reload_repeats_nothing_and_shows_no_secret_twice() {
    let server = Server::new().await;
    let browser = browser(&server).await;
    let (page, again) = twice(&browser, "/sources/code/test", &[]).await;
    assert!(page.text.contains("was sent and answered with 202: accepted"), "{}", page.text);
    assert!(!again.text.contains("answered with 202"));
    assert_eq!(n_deliveries(&server).await, 1);

    let generate = [("action", "generate"), ("overlap", "3600")];
    let (page, again) = twice(&browser, "/sources/code/secret", &generate).await;
    let made = page.between("id=\"made-secret\">", "<");
    assert!(made.starts_with("bps_") && !again.text.contains(&made), "{made}");
    let (page, again) = twice(&browser, &browser.webhook(), &[("action", "generate")]).await;
    let made = page.between("id=\"made-token\">", "<");
    assert!(made.starts_with("bps_") && !again.text.contains(&made), "{made}");
    let secret = [("name", "A_KEY"), ("action", "generate")];
    let (page, again) = twice(&browser, "/secrets", &secret).await;
    let made = page.between("id=\"made-secret\">", "<");
    assert!(made.starts_with("bps_") && !again.text.contains(&made), "{made}");
    let (page, again) = twice(&browser, "/keys", &[("name", "ops"), ("scope", "read")]).await;
    assert!(page.text.contains("This is the only time"), "{}", page.text);
    assert!(!again.text.contains("This is the only time"), "{}", again.text);

    let source = server.get("/v1/sources/code").ok().await["id"].as_str().unwrap().to_owned();
    server.clock.advance(std::time::Duration::from_millis(5));
    let fields = [("source", source.as_str()), ("status", "accepted")];
    let (page, again) = twice(&browser, "/deliveries/replay", &fields).await;
    assert!(page.text.contains("1 deliveries were replayed"), "{}", page.text);
    assert!(!again.text.contains("were replayed") && n_deliveries(&server).await == 2);
    let fields = [("filter", "event_type == \"never\""), ("try", "1")];
    let (page, again) = twice(&browser, "/sources/code/settings", &fields).await;
    assert!(page.text.contains("deliveries of the last seven days"), "{}", page.text);
    assert!(page.text.contains("event_type == &#34;never&#34;"), "what was tried is still there");
    assert!(!again.text.contains("deliveries of the last seven days"));
    let id = server.get("/v1/deliveries").ok().await["data"][0]["id"].as_str().unwrap().to_owned();
    let (page, _) = twice(&browser, &format!("/deliveries/{id}/replay"), &[("dry_run", "1")]).await;
    assert!(page.text.contains("It would go to"), "{}", page.text);
    assert_eq!(n_deliveries(&server).await, 2);

    // What waits to be shown is one visitor's own.
    let page = browser.submit("/sources/code/test", &[]).await;
    let place = page.header("location").unwrap().to_owned();
    let other = Browser::signed_in(&server, MASTER).await;
    assert!(!other.get(&place).await.text.contains("answered with 202"));
    assert!(browser.get(&place).await.text.contains("answered with 202"));
}

#[tokio::test]
async fn a_refused_form_says_it_beside_the_field_and_keeps_the_rest() {
    let server = Server::new().await;
    let browser = browser(&server).await;
    let vault = server.id(server.post("/v1/vaults").json(json!({"display_name": "tools"}))).await;
    let check = async |path: &str, fields: &[(&str, &str)], field: &str, kept: &str| {
        let page = browser.submit(path, fields).await;
        assert_eq!(page.status, 422, "{path}: {}", page.text);
        let (before, beside) = page
            .text
            .split_once("<p class=\"wrong\" id=\"wrong\">")
            .unwrap_or_else(|| panic!("{path}: nothing is beside a field in {}", page.text));
        let tag = before.rfind("aria-invalid=\"true\"").expect("a field is marked");
        assert!(
            before[tag..].contains(&format!(" name=\"{field}\"")),
            "{path}: {}",
            &before[tag..]
        );
        assert!(!beside.starts_with("</p>") && page.text.contains("role=\"alert\""), "{path}");
        assert!(page.text.contains(kept), "{path} lost {kept}: {}", page.text);
        assert!(!page.text.contains("shh-secret"), "{path}");
    };
    let agent = [("name", "front"), ("model", "rehearsal"), ("system", "Be kind."), ("tools", "[")];
    check("/new-agent", &agent, "tools", "Be kind.").await;
    let path = format!("/agents/{}", server.agent);
    check(
        &path,
        &[("name", ""), ("model", "rehearsal"), ("system", "Be kind.")],
        "name",
        "Be kind.",
    )
    .await;
    let source =
        [("name", "code"), ("preset", "github"), ("secret", "shh-secret"), ("project", "/x")];
    check("/new-source", &source, "name", "value=\"/x\"").await;
    let settings = [("filter", "body.("), ("message", "keep me")];
    check("/sources/code/settings", &settings, "filter", "keep me").await;
    let settings = [("turns_at_once_max", "many"), ("message", "keep me")];
    check("/sources/code/settings", &settings, "turns_at_once_max", "keep me").await;
    check("/sources/code/remove", &[("name", "cod")], "name", "Source code").await;
    check("/sources/code/secret", &[("secret", "")], "secret", "Source code").await;
    check(&browser.webhook(), &[("token", "two words")], "token", "Webhook of").await;
    check(
        "/environments",
        &[("name", "default"), ("kind", "cloud"), ("network", "none"), ("setup", "make")],
        "name",
        "make",
    )
    .await;
    let variable =
        [("name", "x"), ("kind", "cloud"), ("network", "none"), ("variables", "NOVALUE")];
    check("/environments", &variable, "variables", "NOVALUE").await;
    let secret = [("name", "a b"), ("value", "shh-secret"), ("action", "store")];
    check("/secrets", &secret, "name", "value=\"a b\"").await;
    check("/keys", &[("name", "ops"), ("scope", "ingest"), ("source", "nobody")], "scope", "ops")
        .await;
    let path = format!("/vaults/{vault}/credentials");
    let credential =
        [("kind", "static_bearer"), ("mcp_server_url", "nowhere"), ("value", "shh-secret")];
    check(&path, &credential, "mcp_server_url", "nowhere").await;
    let budgets = [("edit", "all"), ("day.tokens", "many")];
    check("/usage/budgets", &budgets, "day.tokens", "many").await;
}

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
    assert!(page.text.contains("1 delivery was replayed:"), "{}", page.text);
    assert!(!again.text.contains("was replayed:") && n_deliveries(&server).await == 2);
    let fields = [("filter", "event_type == \"never\""), ("try", "1")];
    let (page, again) = twice(&browser, "/sources/code/settings", &fields).await;
    assert!(page.text.contains("Of 1 delivery of the last seven days"), "{}", page.text);
    assert!(page.text.contains("event_type == &#34;never&#34;"), "what was tried is still there");
    assert!(!again.text.contains("of the last seven days"));
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
    let variable =
        [("name", "x"), ("kind", "cloud"), ("network", "none"), ("variables", "NOVALUE")];
    check("/environments", &variable, "variables", "NOVALUE").await;
    let secret = [("name", "a b"), ("value", "shh-secret"), ("action", "store")];
    check("/secrets", &secret, "name", "value=\"a b\"").await;
    let vault = server.id(server.post("/v1/vaults").json(json!({"display_name": "tools"}))).await;
    let path = format!("/vaults/{vault}/credentials");
    let credential =
        [("kind", "static_bearer"), ("mcp_server_url", "nowhere"), ("value", "shh-secret")];
    check(&path, &credential, "mcp_server_url", "nowhere").await;
    let budgets = [("edit", "all"), ("day.tokens", "many")];
    check("/usage/budgets", &budgets, "day.tokens", "many").await;
}

#[tokio::test]
async fn a_deployment_is_changed_after_a_look_at_its_times() {
    let server = Server::new().await;
    let browser = browser(&server).await;
    let content = json!([{"type": "text", "text": "Look after <it>."}]);
    let deployment = json!({
        "name": "round",
        "agent": server.agent,
        "environment_id": server.environment,
        "initial_events": [{"type": "user.message", "content": content}],
        "schedule": {"type": "cron", "expression": "0 9 * * *", "timezone": "Europe/Berlin"},
    });
    let id = server.id(server.post("/v1/deployments").json(deployment)).await;
    let path = format!("/deployments/{id}/edit");
    let page = browser.get(&path).await;
    for part in
        ["value=\"0 9 * * *\"", "value=\"Europe/Berlin\"", "Look after &#60;it&#62;.", "as it is"]
    {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    let environment = server.environment.clone();
    let form = |expression: &'static str, more: &'static str| {
        [
            ("name", "evening round".to_owned()),
            ("environment_id", environment.clone()),
            ("message", "Look again.\r\nAnd again.".to_owned()),
            ("expression", expression.to_owned()),
            ("timezone", "Europe/Berlin".to_owned()),
            (more, "1".to_owned()),
        ]
    };
    let send = async |expression, more| {
        let form = form(expression, more);
        let fields: Vec<(&str, &str)> =
            form.iter().map(|(name, it)| (*name, it.as_str())).collect();
        browser.carry_out(&path, &fields).await
    };
    let stored = async || server.get(&format!("/v1/deployments/{id}")).ok().await;
    for more in ["preview", "save"] {
        let page = send("0 9 * *", more).await;
        assert_eq!(page.status, 422);
        let field = page.between("name=\"expression\"", "</div>");
        assert!(field.contains("id=\"wrong\"") && page.text.contains("evening round"), "{field}");
    }
    let page = send("30 18 * * 5", "preview").await;
    assert!(page.text.contains("the next 5 runs would be"), "{}", page.text);
    assert_eq!(page.text.matches("18:30").count(), 6, "in words, and five times: {}", page.text);
    assert!(page.text.contains("evening round") && page.text.contains("And again."));
    assert_eq!(stored().await["name"], "round", "nothing is saved yet");

    let page = send("30 18 * * 5", "save").await;
    assert!(page.text.contains("The change is saved"), "{}", page.text);
    let saved = stored().await;
    assert_eq!(saved["name"], "evening round");
    assert_eq!(saved["schedule"]["expression"], "30 18 * * 5");
    assert_eq!(saved["initial_events"][0]["content"][0]["text"], "Look again.\nAnd again.");
    assert_eq!(saved["agent"]["id"], json!(server.agent), "its agent is as it was");
    // Without a schedule it runs by hand.
    send("", "save").await;
    assert_eq!(stored().await["schedule"], json!(null));
    server.post(&format!("/v1/deployments/{id}/archive")).json(json!({})).ok().await;
    assert_eq!(browser.get(&path).await.status, 400);
}

#[tokio::test]
async fn tools_are_chosen_in_a_table_and_the_rest_is_kept() {
    let server = Server::new().await;
    let browser = browser(&server).await;
    let tools = json!([
        {"type": "agent_toolset_20260401", "configs": [{"name": "web_fetch", "allowed_domains": ["a.example"]}]},
        {"type": "custom", "name": "desk", "description": "Asks.", "input_schema": {"type": "object"}},
    ]);
    let body = json!({"name": "porter", "model": "rehearsal", "tools": tools});
    let id = server.id(server.post("/v1/agents").json(body)).await;
    let path = format!("/agents/{id}");
    let page = browser.get(&path).await;
    let bash = page.between("name=\"tool.bash\"", "</select>");
    assert!(bash.contains("value=\"allow\" selected"), "{bash}");
    let json = page.between("name=\"tools\"", "</textarea>");
    let json = json.split_once('>').unwrap().1.replace("&#34;", "\"");
    let fields = [
        ("name", "porter"),
        ("model", "rehearsal"),
        ("version", "1"),
        ("tools", json.as_str()),
        ("was.tool.bash", "allow"),
        ("tool.bash", "ask"),
        ("was.tool.write", "allow"),
        ("tool.write", "off"),
        ("was.tool.web_fetch", "allow"),
        ("tool.web_fetch", "allow"),
    ];
    let page = browser.carry_out(&path, &fields).await;
    assert!(page.text.contains("version 2"), "{}", page.text);
    let saved = server.get(&format!("/v1/agents/{id}")).ok().await["tools"].clone();
    let configs = saved[0]["configs"].as_array().unwrap();
    let config = |name: &str| configs.iter().find(|it| it["name"] == name).unwrap();
    assert_eq!(config("bash")["permission_policy"]["type"], "always_ask");
    assert_eq!(config("write")["enabled"], false);
    assert_eq!(config("web_fetch")["allowed_domains"], json!(["a.example"]));
    assert_eq!(saved[1]["name"], "desk");
}

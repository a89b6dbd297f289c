//! Below a path of a proxy: every place that a page names is below it, and works with the path taken
//! off by the proxy and without.

use std::collections::{BTreeSet, VecDeque};

use serde_json::json;

use super::browser::{Browser, Page};
use crate::web::server::{MASTER, Server};

async fn below(prefix: &str) -> Server {
    let server = Server::new().await;
    let mut options = (*server.app.options()).clone();
    options.public_url = Some(format!("https://bell.example{prefix}"));
    server.app.set_options(options);
    server
}

/// What the tags of a page name.
fn places(page: &Page) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for tag in page.text.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        for (at, _) in tag.match_indices("=\"/") {
            let name = tag[..at].rsplit(' ').next().unwrap().to_owned();
            let place = tag[at + 2..].split('"').next().unwrap();
            found.push((name, place.replace("&#38;", "&").replace("&amp;", "&")));
        }
    }
    found
}

#[tokio::test]
async fn no_page_names_a_place_outside_of_the_path() {
    let server = below("/bellpull").await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let token = server.token().await;
    server
        .post("/v1/sources")
        .json(json!({"name": "code", "secret": "s", "preset": "github"}))
        .ok()
        .await;
    server.post("/v1/sources/code/test").json(json!({})).ok().await;
    server.post("/v1/vaults").json(json!({"display_name": "tools"})).ok().await;
    let content = json!([{"type": "text", "text": "look"}]);
    let deployment = json!({
        "name": "nightly",
        "agent": server.agent,
        "environment_id": server.environment,
        "initial_events": [{"type": "user.message", "content": content}],
    });
    server.post("/v1/deployments").json(deployment).ok().await;
    let hook = format!("/bellpull/api/agents/{}/webhook", server.agent);
    let answer = server.bare("POST", &hook).bearer(token).body("{}").open().await;
    assert_eq!(answer.status(), 202, "a sender whose proxy leaves the path on");

    let mut seen = BTreeSet::new();
    let mut open = VecDeque::from(["/bellpull/".to_owned()]);
    while let Some(place) = open.pop_front() {
        let page = browser.get(&place).await;
        assert!(matches!(page.status, 200 | 303), "{place}: {}", page.status);
        if let Some(location) = page.header("location") {
            assert!(location.starts_with("/bellpull/"), "{place} leads to {location}");
        }
        if !page.header("content-type").is_some_and(|it| it.starts_with("text/html")) {
            continue;
        }
        for (name, found) in places(&page) {
            if name == "placeholder" {
                continue;
            }
            if name == "value" {
                // Where a form comes back to is of this server's own, and gets the path on its way out.
                assert!(!found.starts_with("/bellpull"), "{place}: {found}");
                continue;
            }
            assert!(found.starts_with("/bellpull/"), "{place} names {found} in {name}");
            let bare = found.split('#').next().unwrap().to_owned();
            let wanted = matches!(name.as_str(), "href" | "src" | "hx-get");
            if wanted && !bare.contains("/live") && seen.len() < 150 && seen.insert(bare.clone()) {
                open.push_back(bare);
            }
        }
    }
    for page in ["agents", "needs", "sources/code", "new-source", "vaults", "usage", "settings"] {
        assert!(seen.contains(&format!("/bellpull/{page}")), "{page} was not met: {seen:?}");
    }
    let source = server.get("/v1/sources/code").ok().await;
    assert_eq!(source["url"], "https://bell.example/bellpull/api/webhook/code");
}

#[tokio::test]
async fn forms_cookies_and_ways_back_keep_to_the_path() {
    let server = below("/tools/bell").await;
    let mut browser = Browser::new(&server);
    let page = browser.get("/tools/bell/sessions?agent=a").await;
    let place = "/tools/bell/sign-in?next=%2Fsessions%3Fagent%3Da";
    assert_eq!((page.status, page.header("location")), (303, Some(place)));
    // The proxy took the path off here.
    let page = browser.sign_in(MASTER).await;
    assert_eq!((page.status, page.header("location")), (303, Some("/tools/bell/")));
    let cookie = page.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("__Secure-bellpull-4100="), "{cookie}");
    assert!(cookie.contains("; Path=/tools/bell;"), "{cookie}");
    for place in ["/tools/bell", "/tools/bell/", "/", "/tools/bell/agents", "/agents"] {
        assert_eq!(browser.get(place).await.status, 200, "{place}");
    }
    let page = browser.submit("/tools/bell/theme", &[("theme", "dark"), ("back", "/agents")]).await;
    assert_eq!((page.status, page.header("location")), (303, Some("/tools/bell/agents")));
    assert!(page.header("set-cookie").expect("a cookie").contains("Path=/tools/bell;"));
    let page = browser.get("/tools/bell/nothing").await;
    assert!(page.status == 404 && page.text.contains("href=\"/tools/bell/\""), "{}", page.text);
    assert_eq!(browser.get("/tools/bellows/agents").await.status, 404, "another one's path");

    // A part that is asked for by a page of somebody who is signed out.
    let stranger = Browser::new(&server);
    let call = stranger.call("GET", "/tools/bell/sessions?part=live").header("hx-request", "true");
    let call = call.header("hx-current-url", "https://bell.example/tools/bell/sessions");
    let answer = call.open().await;
    let place = "/tools/bell/sign-in?next=%2Fsessions";
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["hx-redirect"]),
        (401, &place.parse().unwrap())
    );
}

#[tokio::test]
async fn what_a_sender_wrote_is_shown_as_it_is() {
    let server = below("/bellpull").await;
    let token = server.token().await;
    let body = r#"{"text": "<a href=\"/x\" action='/y'> href=\"/z\""}"#;
    let sent = server.hook().bearer(token).body(body).status(202).await;
    let browser = Browser::signed_in(&server, MASTER).await;
    let page = browser.get(&format!("/sessions/{}", sent["session_id"].as_str().unwrap())).await;
    let text = page.text.replace("&#34;", "\"").replace("&#60;", "<").replace("&#62;", ">");
    assert!(text.contains(r#"<a href=\"/x\" action="#), "{text}");
    assert!(text.contains(r#"href=\"/z\""#), "{text}");
}

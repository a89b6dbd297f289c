//! A key that may only read changes nothing, whatever form it finds.

use serde_json::json;

use super::browser::Browser;
use crate::web::server::Server;

/// Every path that takes a form, as the two tables of routes have them.
fn forms() -> Vec<String> {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/ui");
    let mut found = Vec::new();
    for file in ["mod.rs", "manage/mod.rs"] {
        let text = std::fs::read_to_string(place.join(file)).expect("a source file");
        for route in text.split(".route(").skip(1) {
            let path = route.split('"').nth(1).expect("a path");
            if route.contains("post(") {
                found.push(path.to_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn no_form_takes_a_key_that_may_only_read() {
    let server = Server::new().await;
    let body = json!({"name": "looker", "scopes": ["read"]});
    let key = server.post("/v1/api_keys").json(body).ok().await["key"].clone();
    let browser = Browser::signed_in(&server, key.as_str().unwrap()).await;
    let forms = forms();
    assert!(forms.len() > 40, "{forms:?}");
    for path in &forms {
        // Signing in and out, and the light, are for everybody.
        if ["/sign-in", "/sign-out", "/theme"].contains(&path.as_str()) {
            continue;
        }
        let place = path.replace("{id}", "x").replace("{name}", "x").replace("{credential}", "x");
        let page = browser.submit(&place, &[("name", "x")]).await;
        assert_eq!(page.status, 403, "{path}");
        assert!(page.text.contains("This key may only read"), "{path}: {}", page.text);
    }
}

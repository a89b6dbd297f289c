//! How the server stands: in the API, and at the top of every page where the sandbox does not work.

use bellpull::{
    preview::Previews,
    web::{App, Http, Sandbox, SandboxStanding},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    server::{MASTER, Server},
    ui::browser::Browser,
};

/// A server that found this out about its sandbox.
async fn with(standing: SandboxStanding, message: &str) -> Server {
    let mut server = Server::new().await;
    let (old, options) = (&server.app, (*server.app.options()).clone());
    let (store, ingest, signals) = (old.store.clone(), old.ingest.clone(), old.signals.clone());
    let stop = CancellationToken::new();
    let app = App::new(store, ingest, signals, Previews::default(), options, stop);
    let app = app.with_sandbox(Sandbox { standing, message: message.to_owned() });
    server.http = Http::new(app.clone());
    server.app = app;
    server
}

async fn status(server: &Server) -> Value {
    let answer = server.get("/v1/status").send().await;
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn a_sandbox_that_is_refused_is_said_in_the_api_and_on_every_page() {
    let server = with(SandboxStanding::Refused, "no <namespaces> here").await;
    let shown = status(&server).await;
    assert_eq!(shown["sandbox"]["status"], "refused");
    assert_eq!(shown["sandbox"]["message"], "no <namespaces> here");
    assert!(shown["sandbox"]["hint"].as_str().unwrap().contains("bellpull check"), "{shown}");
    assert_eq!(shown["store"]["status"], "works");
    assert_eq!(shown["outbox"]["waiting"], 0);
    assert_eq!(shown["models"]["status"], "works");
    assert_eq!(server.get("/v1/status").bearer("nobody").send().await.status, 401);

    let mut browser = Browser::new(&server);
    let page = browser.get("/sign-in").await;
    assert!(!page.text.contains("sandbox"), "strangers are told nothing: {}", page.text);
    browser.sign_in(MASTER).await;
    for path in ["/agents", "/sessions", &browser.webhook()] {
        let page = browser.get(path).await;
        assert!(page.text.contains("The sandbox does not work: no "), "{path}: {}", page.text);
        assert!(!page.text.contains("<namespaces>"), "{path}");
        assert!(page.text.contains("<code>bellpull check</code> tries it anew"), "{path}");
    }
}

#[tokio::test]
async fn what_is_switched_off_by_name_is_said_and_what_works_is_no_news() {
    let server = with(SandboxStanding::Off, "is switched off").await;
    assert_eq!(status(&server).await["sandbox"]["status"], "off");
    let mut browser = Browser::new(&server);
    browser.sign_in(MASTER).await;
    assert!(browser.get("/agents").await.text.contains("The sandbox is switched off."));

    let server = with(SandboxStanding::Works, "works").await;
    let shown = status(&server).await;
    assert_eq!(
        (&shown["sandbox"]["status"], &shown["sandbox"]["hint"]),
        (&json!("works"), &json!(null))
    );
    let mut browser = Browser::new(&server);
    browser.sign_in(MASTER).await;
    assert!(!browser.get("/agents").await.text.contains("class=\"trouble\""));
}

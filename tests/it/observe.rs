//! What a running server says about itself: numbers, logs, its health.

mod health;
mod logs;

use serde_json::json;

use crate::support::process::{Process, until};

const TOKEN: &str = "token-of-the-shop-0123456789";

/// Where a server of these stories is: its data, and a config file with one source.
fn directory(settings: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let source = format!("[webhooks.shop]\npreset = \"bearer\"\nsecret = \"{TOKEN}\"\n");
    std::fs::write(directory.path().join("bellpull.toml"), source + settings).unwrap();
    directory
}

async fn serve(directory: &tempfile::TempDir, environment: &[(&str, &str)]) -> Process {
    let config = directory.path().join("bellpull.toml");
    let arguments = ["--config", config.to_str().unwrap()];
    Process::serve_with(&directory.path().join("data"), &arguments, environment).await
}

/// Rings at the shop, which must accept.
async fn ring(server: &Process, body: &str) {
    let request = server.http.post(format!("{}/api/webhook/shop", server.url));
    let response = request.bearer_auth(TOKEN).body(body.to_owned()).send().await.unwrap();
    assert_eq!(response.status(), 202);
}

/// The value of a metric, by its name with labels.
async fn metric(server: &Process, name: &str) -> Option<f64> {
    let request = server.http.get(format!("{}/metrics", server.url));
    let response = request.bearer_auth(server.admin_key()).send().await.ok()?;
    let text = response.text().await.ok()?;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.and_then(|value| value.parse().ok())
}

#[tokio::test]
async fn what_waited_before_a_restart_is_counted_after_it() {
    let directory = directory("");
    let server = serve(&directory, &[]).await;
    let agents = server.get("/v1/agents").await;
    let agent = agents["data"][0]["id"].as_str().unwrap();
    server.post(&format!("/api/agents/{agent}/pause"), json!({})).await;
    for n in 0..3 {
        ring(&server, &format!("{{\"n\":{n}}}")).await;
    }
    assert!(server.terminate().await.success());
    let server = serve(&directory, &[]).await;
    until("the waiting sessions are counted", async || {
        let name = "bellpull_waiting_sessions{kind=\"named\",source=\"shop\"}";
        (metric(&server, name).await == Some(3.0)).then_some(())
    })
    .await;
    let oldest = "bellpull_oldest_waiting_seconds{kind=\"named\",source=\"shop\"}";
    assert!(metric(&server, oldest).await > Some(0.0));
}

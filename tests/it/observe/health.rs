//! `/healthz` and `/readyz` while a server starts and while it stops. An outage in between is a story
//! of `crash`.

use std::time::Duration;

use crate::{
    observe::{directory, ring, serve},
    support::{
        model_server::{ModelServer, Reply},
        process::{Process, until},
    },
};

/// Nobody listens there.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn status(server: &Process, path: &str) -> Option<u16> {
    let answer = server.http.get(format!("{}{path}", server.url)).send().await.ok()?;
    Some(answer.status().as_u16())
}

#[tokio::test]
async fn a_server_that_waits_for_its_database_lives_and_is_not_ready() {
    let data = tempfile::tempdir().unwrap();
    let url = format!("postgres://bell:s3cr3t-database@{}/bell", free_address());
    let environment = [
        ("BELLPULL_DATABASE_URL", url.as_str()),
        ("BELLPULL_VAULT_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ];
    let server = Process::starting(data.path(), &free_address(), &environment);
    until("it lives", async || (status(&server, "/healthz").await == Some(200)).then_some(()))
        .await;
    for path in ["/readyz", "/v1/agents", "/api/webhook/shop", "/"] {
        let answer = server.http.get(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), 503, "{path}");
        assert!(answer.headers().contains_key("retry-after"), "{path}");
    }
    until("it says what it waits for", async || {
        server.log().contains("waiting for the database").then_some(())
    })
    .await;
    assert!(!server.log().contains("s3cr3t"), "{}", server.log());
    // It may be told to stop meanwhile, and does not wait for the last of its tries.
    server.signal("TERM");
    let log = server.log();
    assert!(!log.contains("waiting for the database tries=29"), "{log}");
    assert!(server.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_takes_no_request_and_ends_its_turns() {
    let (gate, held) = Reply::text(&["Done."]).held();
    let models = ModelServer::start([held]).await;
    let directory = directory("[worker]\ndrain_seconds = 60\n");
    let environment =
        [("ANTHROPIC_BASE_URL", models.url.as_str()), ("ANTHROPIC_API_KEY", "key-of-the-model")];
    let mut server = serve(&directory, &environment).await;
    assert_eq!(status(&server, "/readyz").await, Some(200));
    ring(&server, "{}").await;
    until("the model is asked", async || (models.requests().len() == 1).then_some(())).await;
    server.signal("TERM");
    // A connection that is still open would be answered: each look makes one of its own.
    server.http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    for path in ["/healthz", "/readyz"] {
        until("the socket is closed", async || status(&server, path).await.is_none().then_some(()))
            .await;
    }
    gate.open();
    let ended = tokio::time::timeout(Duration::from_secs(30), server.ended()).await;
    assert!(ended.unwrap().success());
    assert_eq!(models.abandoned().len(), 0, "the turn was let end");
}

//! What every answer has in common.

use std::path::Path;

use super::server::Server;

/// Every path that the source of the library gives to a router: those of the table, which the document
/// has, and the pages.
pub async fn routes(server: &Server) -> Vec<String> {
    let document = server.bare("GET", "/openapi.json").ok().await;
    let mut routes: Vec<String> =
        document["paths"].as_object().expect("paths").keys().cloned().collect();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/ui/mod.rs");
    let text = std::fs::read_to_string(pages).expect("the source is text");
    let path =
        |text: &str| text.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned);
    routes.extend(text.split(".route(").skip(1).filter_map(path));
    assert!(routes.len() > 90, "{routes:?}");
    routes
}

/// `Call::send` looks at the headers and envelopes of all of these.
#[tokio::test]
async fn every_route_and_every_other_path_answers_in_form() {
    let server = Server::new().await;
    let others =
        ["/", "/v1", "/v1/", "/v1/nothing", "/api/", "/api/nothing", "/nothing", "/%ff", "//"];
    let paths = routes(&server).await.into_iter().chain(others.map(str::to_owned));
    for path in paths {
        let path = path.replace("{id}", "agent_1").replace("{source}", "stripe");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"] {
            for call in [server.call(method, &path), server.bare(method, &path)] {
                let answer = call.body("{}").send().await;
                assert!(answer.status.as_u16() < 500, "{method} {path}: {}", answer.status);
                if answer.status == 405 {
                    assert!(answer.header("allow").is_some_and(|it| !it.is_empty()), "{path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn health_is_for_everybody() {
    let server = Server::new().await;
    let answer = server.bare("GET", "/healthz").send().await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]));
    assert_eq!(server.bare("GET", "/readyz").send().await.status, 200);
}

#[tokio::test]
async fn a_store_that_is_gone_is_a_503_without_words_from_inside() {
    let server = Server::new().await;
    let token = server.token().await;
    server.app.store.close().await;
    for call in [
        server.get("/v1/agents"),
        server.get("/api/agents"),
        server.bare("GET", "/readyz"),
        server.hook().bearer(token).body("{}"),
    ] {
        let answer = call.send().await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("2")));
        let body = answer.json();
        assert_eq!(body["error"]["type"], "api_error");
        let text = body.to_string();
        assert!(!text.contains("store") && !text.contains("closed"), "{text}");
    }
    // It still lives.
    assert_eq!(server.bare("GET", "/healthz").send().await.status, 200);
}

#[tokio::test]
async fn a_panic_is_a_500_without_words_from_inside() {
    let server = Server::new().await;
    let body = || {
        axum::body::Body::from_stream(futures_util::stream::poll_fn(
            |_| -> std::task::Poll<Option<std::io::Result<bytes::Bytes>>> { panic!("inside") },
        ))
    };
    let token = server.token().await;
    for call in [server.post("/v1/agents"), server.post("/api/agents"), server.hook().bearer(token)]
    {
        let answer = call.body(body()).send().await;
        assert_eq!(answer.status, 500);
        let body = answer.json();
        assert_eq!(body["error"]["type"], "api_error");
        assert!(!body.to_string().contains("inside"), "{body}");
    }
    server.get("/v1/agents").ok().await;
}

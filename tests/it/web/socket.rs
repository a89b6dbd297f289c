//! Over a real socket: what only a connection can do.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::server::{MASTER, SOON, Server};

struct Served {
    server: Server,
    address: std::net::SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends with the test")]
async fn serve(server: Server) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let http = server.http.clone();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let http = http.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let http = http.clone();
                async move { Ok::<_, Infallible>(http.answer(request.map(Body::new)).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connections.spawn(connection);
        }
    });
    Served { server, address, task }
}

impl Served {
    /// Sends bytes and reads until `end` is in what came, or the other side closes.
    async fn talk(&self, pieces: &[&str], end: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.expect("it listens");
        for piece in pieces {
            socket.write_all(piece.as_bytes()).await.expect("it reads");
            socket.flush().await.expect("it reads");
        }
        let mut text = Vec::new();
        let read = async {
            let mut buffer = [0; 4096];
            loop {
                let n = socket.read(&mut buffer).await.unwrap_or(0);
                text.extend_from_slice(&buffer[..n]);
                if n == 0 || String::from_utf8_lossy(&text).contains(end) {
                    break;
                }
            }
        };
        tokio::time::timeout(SOON, read).await.expect("in time");
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[tokio::test]
async fn a_body_may_come_in_pieces() {
    let served = serve(Server::new().await).await;
    let token = served.server.token().await;
    let agent = &served.server.agent;
    let head = format!(
        "POST /api/agents/{agent}/webhook HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    let text =
        served.talk(&[&head, "3\r\n{\"a\r\n", "4\r\n\":1}\r\n", "0\r\n\r\n"], "webhook_").await;
    assert!(text.starts_with("HTTP/1.1 202 Accepted\r\n"), "{text}");
    assert!(text.contains("\"status\":\"accepted\""), "{text}");
}

#[tokio::test]
async fn who_does_not_pass_is_answered_before_the_body_comes() {
    let served = serve(Server::new().await).await;
    let head = "POST /api/webhook/nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 26214400\r\n\r\n{";
    let text = served.talk(&[head], "authentication_error").await;
    assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{text}");
    let token = served.server.token().await;
    let agent = &served.server.agent;
    let head = format!(
        "POST /api/agents/{agent}/webhook HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 26214401\r\n\r\n{{"
    );
    let text = served.talk(&[&head], "request_too_large").await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

#[tokio::test]
async fn a_sender_that_hangs_up_leaves_no_room_taken() {
    let served = serve(Server::new().await).await;
    let token = served.server.token().await;
    let agent = &served.server.agent;
    let head = format!(
        "POST /api/agents/{agent}/webhook HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 20000000\r\n\r\n{{"
    );
    let mut socket = TcpStream::connect(served.address).await.expect("it listens");
    socket.write_all(head.as_bytes()).await.expect("it reads");
    let bounds = &served.server.app.ingest.bounds;
    let free = |bytes: usize| {
        let mut permit = bellpull::ingest::Permit::default();
        bounds.reserve(&mut permit, bytes).is_ok()
    };
    let all = bounds.options().in_flight_bytes_max;
    until(|| !free(all)).await;
    drop(socket);
    until(|| free(all)).await;
    let list = served.server.get("/v1/deliveries").ok().await;
    assert_eq!(list["data"].as_array().expect("a list").len(), 0);
}

#[tokio::test]
async fn a_stream_has_its_headers_at_once() {
    let served = serve(Server::new().await).await;
    let session = served.server.session().await;
    let head = format!(
        "GET /v1/sessions/{session}/events/stream HTTP/1.1\r\nHost: x\r\nX-Api-Key: {MASTER}\r\n\
         Accept-Encoding: gzip\r\n\r\n"
    );
    let text = served.talk(&[&head], ": open").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(!text.contains("content-encoding"), "{text}");
}

/// Waits for a state that comes by itself.
async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it comes");
}

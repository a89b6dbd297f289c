//! A receiver of callbacks: an HTTP server on loopback that answers by a script and writes down what
//! came, and an implementation of Standard Webhooks that shares no code with the product.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use super::process::until;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Whether one of the signatures was made with this secret.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("whsec_")).expect("base64");
        let mut text = format!("{}.{}.", self.id(), self.header("webhook-timestamp")).into_bytes();
        text.extend_from_slice(&self.body);
        let wanted = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &text)));
        self.header("webhook-signature").split(' ').any(|signature| signature == wanted)
    }
}

/// RFC 2104, on top of a plain hash.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let hash = |parts: &[&[u8]]| {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        context.finish().as_ref().to_vec()
    };
    let mut block = [0_u8; 64];
    let key = if key.len() > 64 { hash(&[key]) } else { key.to_vec() };
    block[..key.len()].copy_from_slice(&key);
    let padded = |with: u8| block.map(|byte| byte ^ with);
    hash(&[&padded(0x5c), &hash(&[&padded(0x36), text])])
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    /// Never.
    hangs: bool,
}

impl Answer {
    pub fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), hangs: false }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Answer {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn never() -> Answer {
        Answer { hangs: true, ..Answer::status(200) }
    }
}

#[derive(Debug, Default)]
struct Book {
    received: Vec<Received>,
    script: VecDeque<Answer>,
    /// When the script is at its end.
    otherwise: Option<Answer>,
}

pub struct Receiver {
    pub address: SocketAddr,
    book: Arc<Mutex<Book>>,
    serving: JoinHandle<()>,
}

impl Receiver {
    /// One that takes everything.
    pub async fn new() -> Receiver {
        Receiver::at(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn at(address: SocketAddr) -> Receiver {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let book: Arc<Mutex<Book>> = Arc::default();
        let app = Router::new().fallback(take).with_state(book.clone());
        let serving = tokio::spawn(async move {
            // Connections end with the task.
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let service = hyper_util::service::TowerToHyperService::new(app.clone());
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .keep_alive(false)
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        Receiver { address, book, serving }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Nobody listens on its port any more.
    pub async fn stop(mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// What the next requests get.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.book.lock().expect("not poisoned").script.extend(answers);
    }

    /// What all requests get that no script is for.
    pub fn otherwise(&self, answer: Answer) {
        self.book.lock().expect("not poisoned").otherwise = Some(answer);
    }

    pub fn received(&self) -> Vec<Received> {
        self.book.lock().expect("not poisoned").received.clone()
    }

    /// All requests, once there are so many.
    pub async fn wait_for(&self, n: usize) -> Vec<Received> {
        until(&format!("{n} messages came"), async || {
            let received = self.received();
            (received.len() >= n).then_some(received)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(book): State<Arc<Mutex<Book>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("the body ends").to_bytes();
    let (path, headers) = (parts.uri.to_string(), parts.headers);
    let answer = {
        let mut book = book.lock().expect("not poisoned");
        book.received.push(Received { path, headers, body });
        let next = book.script.pop_front().or_else(|| book.otherwise.clone());
        next.unwrap_or_else(|| Answer::status(204))
    };
    if answer.hangs {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("text"));
    }
    (StatusCode::from_u16(answer.status).expect("a status"), headers).into_response()
}

//! Requests as callers make them, and answers with what every answer must have.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri},
};
use bellpull::web::Http;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::openapi::Contract;

/// The same for every server.
static CONTRACT: OnceCell<Contract> = OnceCell::const_new();

pub struct Call {
    http: Http,
    method: String,
    path: Vec<u8>,
    headers: HeaderMap,
    body: Body,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn new(http: Http, method: &str, path: &str) -> Call {
        Call {
            http,
            method: method.to_owned(),
            path: path.as_bytes().to_owned(),
            headers: HeaderMap::new(),
            body: Body::empty(),
        }
    }

    /// Adds a header; a second one of the name stays beside the first.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Call {
        let name: HeaderName = name.parse().expect("a header's name");
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header's value");
        self.headers.append(name, value);
        self
    }

    pub fn bearer(mut self, token: &str) -> Call {
        self.headers.remove("authorization");
        self.header("authorization", format!("Bearer {token}"))
    }

    pub fn body(mut self, body: impl Into<Body>) -> Call {
        self.body = body.into();
        self
    }

    pub fn json(self, value: Value) -> Call {
        self.body(value.to_string())
    }

    /// The answer with its body still to come.
    pub async fn open(self) -> http::Response<Body> {
        let uri = Uri::from_maybe_shared(Bytes::from(self.path)).expect("a path");
        let mut request = Request::builder().method(self.method.as_str()).uri(uri);
        *request.headers_mut().expect("a request") = self.headers;
        let request = request.body(self.body).expect("a request");
        self.http.answer(request).await
    }

    pub async fn send(self) -> Answer {
        let (method, path) =
            (self.method.clone(), String::from_utf8_lossy(&self.path).into_owned());
        let http = self.http.clone();
        let answer = Answer::of(self.open().await).await;
        answer.check(&method, &path);
        CONTRACT.get_or_init(|| contract(http)).await.check(&method, &path, &answer);
        answer
    }

    /// The object of an answer that must be 200.
    pub async fn ok(self) -> Value {
        self.status(200).await
    }

    /// The object of an answer that must have this status.
    pub async fn status(self, status: u16) -> Value {
        let answer = self.send().await;
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status.as_u16(), status, "{text}");
        answer.json()
    }

    /// The message of an answer that must be this error.
    pub async fn error(self, status: u16, kind: &str) -> String {
        let body = self.status(status).await;
        assert_eq!(body["error"]["type"], kind, "{body}");
        body["error"]["message"].as_str().expect("a message").to_owned()
    }
}

/// What the document of the API says of answers.
async fn contract(http: Http) -> Contract {
    let call = Call::new(http, "GET", "/openapi.json");
    Contract::of(&Answer::of(call.open().await).await.json())
}

impl Answer {
    async fn of(response: http::Response<Body>) -> Answer {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the body ends").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// What every answer has, whatever it is.
    fn check(&self, method: &str, path: &str) {
        let at = format!("{method} {path}: {} {:?}", self.status, self.headers);
        let id = self.header("request-id").unwrap_or_else(|| panic!("no request-id: {at}"));
        assert!(id.starts_with("req_") || id.starts_with("webhook_"), "{at}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{at}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{at}");
        // A page says it in words.
        let is_page = self.header("content-type").is_some_and(|it| it.starts_with("text/html"));
        let is_api = ["/v1", "/api"].iter().any(|api| path.starts_with(api));
        assert!(!(is_page && is_api), "{at}");
        if self.status.is_client_error() && method != "HEAD" && !is_page {
            let body = self.json();
            assert!(body["error"]["type"].is_string(), "{at}: {body}");
            assert!(body["error"]["message"].is_string(), "{at}: {body}");
            if path == "/v1" || path.starts_with("/v1/") {
                assert_eq!((&body["type"], &body["request_id"]), (&"error".into(), &id.into()));
            } else {
                assert_eq!(body.as_object().expect("an object").len(), 1, "{at}: {body}");
            }
        }
    }
}

//! HTTP calls of the server's own API, and its answers as values or failures.
//!
//! Every call has a timeout but streams, every answer a size; nothing is retried here, because only
//! the caller knows whether that is safe. Proxies are taken from nowhere: the server is usually on
//! this machine, and its key goes to it alone.

use std::{error::Error as _, time::Duration};

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{
    connection::Connection,
    failure::{Failure, Result},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A page of events may hold a hundred payloads.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What the server gives at most per page, everywhere.
pub(super) const PAGE_MAX: usize = 100;

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    connection: Connection,
}

/// A page of a list, or several that were put together.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) data: Vec<Value>,
    pub(super) next_page: Option<String>,
}

impl Listing {
    pub(super) fn to_json(&self) -> Value {
        serde_json::json!({"data": self.data, "next_page": self.next_page})
    }
}

impl Client {
    pub(super) fn new(connection: Connection) -> Result<Client> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("bellpull/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        // One provider for the process; whoever comes second finds the same one there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if connection.base.scheme() == "http" {
            // Without TLS the machine's certificates are not needed, nor need there be any.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build();
        let http = http.map_err(|error| Failure::new("prepare the connection", cause(&error)))?;
        Ok(Client { http, connection })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The address of a route, each segment escaped.
    pub(super) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url> {
        if path.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
            return Err(Failure::wrong("a name or an id is missing"));
        }
        let mut url = self.connection.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// An address that the server gave, which may lack scheme and host.
    pub(super) fn absolute(&self, url: &str) -> String {
        match url.strip_prefix('/') {
            Some(path) => {
                let segments: Vec<&str> = path.split('/').collect();
                self.url(&segments, &[]).map_or_else(|_| url.to_owned(), String::from)
            }
            None => url.to_owned(),
        }
    }

    pub(super) async fn get(
        &self,
        what: &str,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value> {
        self.call(what, Method::GET, path, query, None).await
    }

    pub(super) async fn post(&self, what: &str, path: &[&str], body: &Value) -> Result<Value> {
        self.call(what, Method::POST, path, &[], Some(body)).await
    }

    pub(super) async fn patch(&self, what: &str, path: &[&str], body: &Value) -> Result<Value> {
        self.call(what, Method::PATCH, path, &[], Some(body)).await
    }

    pub(super) async fn delete(&self, what: &str, path: &[&str]) -> Result<Value> {
        self.call(what, Method::DELETE, path, &[], None).await
    }

    /// The first `n_max` entries from `page` on, in as many calls as that takes.
    pub(super) async fn list(
        &self,
        what: &str,
        path: &[&str],
        query: &[(&str, &str)],
        page: Option<String>,
        n_max: usize,
    ) -> Result<Listing> {
        let mut listing = Listing { data: Vec::new(), next_page: page };
        loop {
            let limit = (n_max - listing.data.len()).min(PAGE_MAX);
            let page = self.page(what, path, query, listing.next_page.as_deref(), limit).await?;
            listing.data.extend(page.data);
            listing.next_page = page.next_page;
            if listing.next_page.is_none() || listing.data.len() >= n_max {
                return Ok(listing);
            }
        }
    }

    /// One page of a list.
    pub(super) async fn page(
        &self,
        what: &str,
        path: &[&str],
        query: &[(&str, &str)],
        page: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        let limit = limit.to_string();
        let mut query = query.to_vec();
        query.push(("limit", &limit));
        query.extend(page.map(|page| ("page", page)));
        let mut answer = self.get(what, path, &query).await?;
        let Value::Array(data) = answer["data"].take() else {
            return Err(Failure::new(what, "the answer has no `data`").hint(STRANGER));
        };
        let next_page = answer["next_page"].as_str().map(str::to_owned);
        Ok(Listing { data, next_page })
    }

    async fn call(
        &self,
        what: &str,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value> {
        let mut request = self.http.request(method, self.url(path, query)?).timeout(ANSWER_TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = self.authorized(request).send().await;
        let answer = answer.map_err(|error| self.unreachable(what, &error))?;
        let answer = self.checked(what, answer).await?;
        let bytes = read(what, answer).await?;
        let value = serde_json::from_slice(&bytes);
        value.map_err(|_| Failure::new(what, "the answer is not JSON").hint(STRANGER))
    }

    /// An answer whose body the caller reads: a stream, or raw bytes. No timeout.
    pub(super) async fn open(
        &self,
        what: &str,
        url: Url,
        headers: &[(&str, &str)],
    ) -> Result<Response> {
        let mut request = self.http.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.authorized(request).send().await;
        let answer = answer.map_err(|error| self.unreachable(what, &error))?;
        self.checked(what, answer).await
    }

    /// A call whose answer comes in pieces. No timeout.
    pub(super) async fn open_post(
        &self,
        what: &str,
        path: &[&str],
        body: &Value,
    ) -> Result<Response> {
        let request = self.http.post(self.url(path, &[])?).json(body);
        let answer = self.authorized(request).send().await;
        let answer = answer.map_err(|error| self.unreachable(what, &error))?;
        self.checked(what, answer).await
    }

    /// A call without the key of the API, as a sender makes it: status, request id and JSON body.
    pub(super) async fn deliver(
        &self,
        what: &str,
        url: Url,
        headers: header::HeaderMap,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Option<String>, Value)> {
        let request = self.http.post(url).timeout(ANSWER_TIMEOUT).headers(headers).body(body);
        let answer = request.send().await.map_err(|error| self.unreachable(what, &error))?;
        let (status, request_id) = (answer.status(), request_id(&answer));
        let bytes = read(what, answer).await?;
        Ok((status, request_id, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.connection.key {
            Some(key) => bearer(request, key),
            None => request,
        }
    }

    /// The answer, if it is a success; else what the server says is wrong.
    async fn checked(&self, what: &str, answer: Response) -> Result<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let from_header = request_id(&answer);
        let header = |name| answer.headers().get(name).and_then(|it| it.to_str().ok());
        let retry_after = header(header::RETRY_AFTER).map(str::to_owned);
        let location = header(header::LOCATION).map(str::to_owned);
        let body: Value = serde_json::from_slice(&read(what, answer).await?).unwrap_or(Value::Null);
        let id = body["request_id"].as_str().map(str::to_owned).or(from_header);
        let is_ours = body["error"]["message"].is_string();
        let mut failure =
            Failure::new(what, message(status, &body)).status(status.as_u16()).request_id(id);
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            failure = failure.passing();
        }
        Err(match (status, location, retry_after) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, ..) => {
                failure.hint(self.connection.key_from.hint())
            }
            (status, Some(location), _) if status.is_redirection() => {
                failure.hint(format!("it points to {location}; give that server to `--url`"))
            }
            (_, _, Some(seconds)) => failure.hint(format!("try again in {seconds} s")),
            _ if !is_ours => failure.hint(STRANGER),
            _ => failure,
        })
    }

    fn unreachable(&self, what: &str, error: &reqwest::Error) -> Failure {
        let origin = self.connection.base.origin().ascii_serialization();
        let message = match error {
            _ if error.is_timeout() && error.is_connect() => {
                format!("{origin} cannot be reached within {} s", CONNECT_TIMEOUT.as_secs())
            }
            _ if error.is_timeout() => {
                format!("{origin} did not answer within {} s", ANSWER_TIMEOUT.as_secs())
            }
            _ if error.is_connect() => format!("{origin} cannot be reached: {}", cause(error)),
            _ => format!("{origin} broke off: {}", cause(error)),
        };
        let failure = Failure::new(what, message).passing();
        match self.connection.base.scheme() {
            _ if !error.is_connect() => failure,
            "https" => failure.hint("where the server speaks plain HTTP, `--url` says http://"),
            _ => failure.hint(
                "start the server with `bellpull serve`, or name another one with `--url` or \
                 BELLPULL_URL",
            ),
        }
    }
}

const STRANGER: &str =
    "that does not sound like a Bellpull server; `--url` or BELLPULL_URL names it";

pub(super) fn bearer(request: RequestBuilder, key: &SecretString) -> RequestBuilder {
    request.bearer_auth(key.expose_secret())
}

fn message(status: StatusCode, body: &Value) -> String {
    match body["error"]["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("the server answered {status}"),
    }
}

fn request_id(answer: &Response) -> Option<String> {
    answer.headers().get("request-id").and_then(|id| id.to_str().ok()).map(str::to_owned)
}

/// All of an answer.
pub(super) async fn read(what: &str, mut answer: Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let chunk = answer.chunk().await.map_err(|error| {
            Failure::new(what, format!("the answer broke off: {}", cause(&error))).passing()
        })?;
        let Some(chunk) = chunk else {
            return Ok(bytes);
        };
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            let message = format!("the answer is larger than {ANSWER_BYTES_MAX} bytes");
            return Err(Failure::new(what, message).hint("a smaller `--limit` makes it shorter"));
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// The innermost cause: what the outer ones say is where, and the caller says that.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.source().is_none() { error.to_string() } else { cause.to_string() }
}

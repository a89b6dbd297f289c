//! One request over HTTP, from its headers to the last event of its answer.
//!
//! Invariants: silence has a bound, and so have the whole request and the size of its answer; a key
//! goes into a header and nowhere else, and is taken out of whatever a server says; dropping the
//! future closes the connection. Redirects are not followed: they would carry the key elsewhere.

use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use reqwest::{Client, Request, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    Error, OnText, Options,
    error::Retry,
    retry,
    sse::{Broken, Decoder},
    wire::{Fold, cut},
};
use crate::{
    clock::Clock,
    domain::{conversation::Completion, cost::Spent},
    trust,
};

/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(15);

/// Bytes of an answer at most; the longest real ones are far below.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes that are read of an answer that is an error.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// How long the end of a connection is waited for once the answer is complete, so that the
/// connection can be used again.
const DRAIN: Duration = Duration::from_millis(200);

/// The way to model servers. A [`Client`] is one; another one may play back what was recorded.
pub trait Carrier: Send + Sync {
    /// Sends a request and answers when the head of the response is there.
    fn carry(&self, request: Request) -> BoxFuture<'_, reqwest::Result<Response>>;
}

impl Carrier for Client {
    fn carry(&self, request: Request) -> BoxFuture<'_, reqwest::Result<Response>> {
        Box::pin(self.execute(request))
    }
}

/// The client of all requests. It reads no environment: a proxy is an option.
pub(super) fn client(options: &Options) -> reqwest::Result<Client> {
    let mut client = Client::builder()
        .tls_backend_preconfigured(tls())
        .user_agent(concat!("bellpull/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .tcp_keepalive(Duration::from_secs(30))
        .no_proxy();
    if let Some(proxy) = &options.https_proxy {
        let except = options.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        let proxy = reqwest::Proxy::https(proxy.expose_secret())?.no_proxy(except);
        client = client.proxy(proxy);
    }
    client.build()
}

/// With the machine's certificates. A machine without any can still reach a model server by plain HTTP,
/// so that is no error before TLS is needed.
fn tls() -> rustls::ClientConfig {
    let roots = trust::machine();
    if roots.is_empty() {
        tracing::warn!("no CA certificates were found: model servers cannot be reached by https");
    }
    trust::tls(roots)
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    /// What must not be repeated if the server says it.
    pub(super) key: Option<SecretString>,
}

impl Call {
    pub(super) fn request(&self) -> Result<Request, Error> {
        let url = Url::parse(&self.url).map_err(|error| {
            // Its path may hold what is secret.
            let origin = origin(&self.url);
            Error::never(format!("the model server's URL begins with `{origin}`: {error}"))
        })?;
        let mut request = Request::new(Method::POST, url);
        request.headers_mut().extend(self.headers.clone());
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        *request.body_mut() = Some(self.body.to_string().into());
        Ok(request)
    }
}

/// Asks once. The error tells what the provider had counted until then.
pub(super) async fn ask(
    carrier: &dyn Carrier,
    call: Call,
    answer: &mut dyn Fold,
    on_text: &mut dyn OnText,
    options: &Options,
    clock: &Clock,
) -> Result<Completion, Error> {
    let key = call.key.clone();
    let asking = exchange(carrier, call, &mut *answer, on_text, options, clock);
    let whole = Duration::from_secs(options.timeout_seconds);
    let result = match clock.timeout(whole, asking).await {
        Ok(Ok(())) => answer.finish(),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let n = options.timeout_seconds;
            Err(Error::passing(format!("the model's answer took longer than {n} seconds")))
        }
    };
    result.map_err(|error| Error {
        spent: Spent::from(answer.usage()),
        message: without_key(error.message, key.as_ref()),
        ..error
    })
}

async fn exchange(
    carrier: &dyn Carrier,
    call: Call,
    answer: &mut dyn Fold,
    on_text: &mut dyn OnText,
    options: &Options,
    clock: &Clock,
) -> Result<(), Error> {
    let first = Duration::from_secs(options.first_seconds);
    let idle = Duration::from_secs(options.idle_seconds);
    let request = call.request()?;
    let response = match clock.timeout(first, carrier.carry(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(unreachable(&call.url, &error)),
        Err(_) => return Err(silence(options.first_seconds)),
    };
    if response.status() != http::StatusCode::OK {
        return Err(refusal(response, &call.url, idle, clock).await);
    }
    if let Some(error) = not_a_stream(&response) {
        let body = read_error(response, idle, clock).await;
        return Err(match serde_json::from_str::<Value>(&body) {
            Ok(body) if body.get("error").is_some() => Error::in_stream(&body),
            _ => error,
        });
    }
    read(response, answer, on_text, options, clock).await
}

async fn read(
    mut response: Response,
    answer: &mut dyn Fold,
    on_text: &mut dyn OnText,
    options: &Options,
    clock: &Clock,
) -> Result<(), Error> {
    let (mut decoder, mut n_bytes) = (Decoder::default(), 0);
    loop {
        // A model may be loaded, and may think, before the first piece of its answer.
        let seconds = if answer.has_begun() { options.idle_seconds } else { options.first_seconds };
        let chunk = clock.timeout(Duration::from_secs(seconds), response.chunk()).await;
        let chunk = match chunk {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => {
                if let Some(data) = decoder.finish().map_err(broken)? {
                    answer.take(&data, on_text)?;
                }
                return Ok(());
            }
            Ok(Err(_)) => return Err(cut()),
            Err(_) => return Err(silence(seconds)),
        };
        n_bytes += chunk.len();
        if n_bytes > ANSWER_BYTES_MAX {
            return Err(Error::never(format!(
                "the model's answer is longer than {ANSWER_BYTES_MAX} bytes"
            )));
        }
        for data in decoder.push(&chunk).map_err(broken)? {
            answer.take(&data, on_text)?;
        }
        if answer.is_done() {
            let _ = clock.timeout(DRAIN, response.chunk()).await;
            return Ok(());
        }
    }
}

fn broken(broken: Broken) -> Error {
    Error::passing(match broken {
        Broken::NotUtf8 => "the model server sent text that is no UTF-8",
        Broken::TooLong => "the model server sent an event without an end",
    })
}

fn silence(seconds: u64) -> Error {
    Error::passing(format!("the model server sent nothing for {seconds} seconds"))
}

fn unreachable(url: &str, error: &reqwest::Error) -> Error {
    // reqwest's own text holds the whole URL; the causes say what happened.
    let mut message = format!("the model server at {} could not be reached", origin(url));
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(&format!(": {text}"));
        }
        source = cause.source();
    }
    Error::passing(message)
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[after_scheme..].find('/').map_or(url.len(), |at| after_scheme + at);
    &url[..end]
}

/// Why the server did not even begin to answer.
async fn refusal(response: Response, url: &str, idle: Duration, clock: &Clock) -> Error {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut error = Error::of_status(status.as_u16(), &read_error(response, idle, clock).await);
    if let Some(again) = retry::should_retry(&headers) {
        error.retry = if again { Retry::Later(None) } else { Retry::Never };
    }
    if let Retry::Later(named) = &mut error.retry {
        *named = retry::named_pause(&headers, clock.now());
    }
    if status.is_redirection() {
        let to = headers.get(http::header::LOCATION).and_then(|to| to.to_str().ok());
        let to = to.unwrap_or("another place");
        error
            .message
            .push_str(&format!(", a redirect to {to}; {} is not the right URL", origin(url)));
    }
    error
}

async fn read_error(mut response: Response, idle: Duration, clock: &Clock) -> String {
    let mut body = Vec::new();
    while body.len() < ERROR_BYTES_MAX
        && let Ok(Ok(Some(chunk))) = clock.timeout(idle, response.chunk()).await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(ERROR_BYTES_MAX);
    String::from_utf8_lossy(&body).into_owned()
}

/// Status 200 with something else than events. Servers name events in more than one way, so only
/// what is certainly something else counts.
fn not_a_stream(response: &Response) -> Option<Error> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok())?;
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_other = ["text/html", "application/json"].contains(&kind.as_str());
    is_other.then(|| {
        Error::never(format!(
            "the model server answered with {kind} in the place of a stream: is the base URL right?"
        ))
    })
}

/// There are servers that repeat the key that they refuse.
fn without_key(message: String, key: Option<&SecretString>) -> String {
    match key.map(ExposeSecret::expose_secret) {
        Some(key) if !key.is_empty() => message.replace(key, "***"),
        _ => message,
    }
}

/// A header's value that is never shown.
pub(super) fn secret_header(value: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        Error::never("the model server's key has characters that no header may have")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

//! What every answer has in common: an id, an envelope if it is an error, and headers.

use std::{convert::Infallible, panic::AssertUnwindSafe};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use futures_util::FutureExt;
use tracing::Instrument;

use super::{
    App,
    error::{self, Error, Kind},
    hooks, prefix,
};
use crate::{
    domain::text::first_chars,
    id::{Id, RequestId, WebhookRequestId},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Characters of a path that a line of the log shows.
const PATH_CHARS_MAX: usize = 200;

/// Around all routes, the fallback and panics included.
pub(super) async fn around<F>(
    app: &App,
    mut request: Request,
    route: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Result<Response, Infallible>>,
{
    let (clock, method) = (app.store.clock().clone(), request.method().clone());
    let (now, started) = (clock.now(), clock.monotonic());
    let path = request.uri().path().to_owned();
    let id = if hooks::is_webhook(&path) || is_webhook_below(app, &path) {
        name(&mut request, WebhookRequestId::new(now))
    } else {
        name(&mut request, RequestId::new(now))
    };
    // Whatever is said until the answer is said with the request's id; hence a level that no filter
    // leaves out.
    let span = tracing::error_span!("request", request_id = %id);
    let answering = async {
        let mut response = match AssertUnwindSafe(route(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Err(panic) => error::panicked(&*panic),
        };
        finish(&mut response, &method, &path, &id);
        let (shown, _) = first_chars(&path, PATH_CHARS_MAX);
        let (status, took) = (response.status().as_u16(), clock.monotonic() - started);
        let took_ms = took.as_secs_f64() * 1e3;
        tracing::debug!(%method, path = shown, status, took_ms, "answered");
        response
    };
    answering.instrument(span).await
}

/// What an answer lacks so far: its id, and its body where it is an error.
fn finish(response: &mut Response, method: &Method, path: &str, id: &str) {
    let value = HeaderValue::from_str(id).expect("an id is ASCII");
    response.headers_mut().insert(REQUEST_ID, value);
    let error = match response.extensions_mut().remove::<Error>() {
        None if is_bare_405(response) => Some(Error::new(
            Kind::MethodNotAllowed,
            format!("{method} is not possible here; the `allow` header says what is"),
        )),
        error => error,
    };
    if let Some(error) = error {
        write_error(&error, method, path, id, response);
    }
    complete(response.headers_mut());
}

/// Whether it is one behind a proxy that leaves the prefix on.
fn is_webhook_below(app: &App, path: &str) -> bool {
    prefix::without(path, app.options().prefix()).is_some_and(hooks::is_webhook)
}

/// Gives a request its id, for whoever shows it elsewhere than in the header.
fn name<T: Id + Clone + Send + Sync + 'static>(request: &mut Request, id: T) -> String {
    let text = id.as_str().to_owned();
    request.extensions_mut().insert(id);
    text
}

/// The id that [`around`] gave.
pub(super) fn id_of<T: Clone + Send + Sync + 'static>(request: &mut Request) -> T {
    request.extensions_mut().remove().expect("the frame is around all routes")
}

/// What the router answers by itself.
fn is_bare_405(response: &Response) -> bool {
    response.status() == StatusCode::METHOD_NOT_ALLOWED
        && !response.headers().contains_key(header::CONTENT_TYPE)
}

fn write_error(error: &Error, method: &Method, path: &str, id: &str, response: &mut Response) {
    if let Some(detail) = &error.detail {
        let (status, (path, _)) = (error.kind.status().as_u16(), first_chars(path, PATH_CHARS_MAX));
        if error.kind == Kind::Overloaded {
            tracing::warn!(%method, path, status, detail, "request turned away");
        } else {
            tracing::error!(%method, path, status, detail, "request failed");
        }
    }
    let headers = response.headers_mut();
    error.headers(headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(error.body(path, id).to_string());
}

/// Answers are nobody else's: not a cache's, and not a page's that guesses types.
fn complete(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
}

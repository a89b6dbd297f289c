//! What every answer has in common: an id, an envelope if it is an error, and headers.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::{
    App,
    error::{Error, Kind},
};
use crate::id::{Id, RequestId};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Around all routes, the fallback and panics included.
pub(super) async fn frame(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = RequestId::new(app.store.clock().now());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    // The webhook routes have given one of their own.
    if !response.headers().contains_key(REQUEST_ID) {
        let id = HeaderValue::from_str(id.as_str()).expect("an id is ASCII");
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let error = match response.extensions_mut().remove::<Error>() {
        None if is_bare_405(&response) => Some(Error::new(
            Kind::MethodNotAllowed,
            format!("{method} is not possible here; the `allow` header says what is"),
        )),
        error => error,
    };
    if let Some(error) = error {
        write_error(&error, &method, &path, &mut response);
    }
    complete(response.headers_mut());
    response
}

/// What the router answers by itself.
fn is_bare_405(response: &Response) -> bool {
    response.status() == StatusCode::METHOD_NOT_ALLOWED
        && !response.headers().contains_key(header::CONTENT_TYPE)
}

fn write_error(error: &Error, method: &Method, path: &str, response: &mut Response) {
    let id = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = id.unwrap_or_default().to_owned();
    if let Some(detail) = &error.detail {
        let status = error.kind.status().as_u16();
        if error.kind == Kind::Overloaded {
            tracing::warn!(request_id = id, %method, path, status, detail, "request turned away");
        } else {
            tracing::error!(request_id = id, %method, path, status, detail, "request failed");
        }
    }
    let headers = response.headers_mut();
    error.headers(headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(error.body(path, &id).to_string());
}

/// Answers are nobody else's: not a cache's, and not a page's that guesses types.
fn complete(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
}

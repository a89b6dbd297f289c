//! What went wrong, as a page.
//!
//! A handler fails with a [`Fault`]; the guard around all pages writes it. Invariant: what `detail`
//! says goes to the log, under the request id that the page shows, and never into the page.

use askama::Template;
use axum::{
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::super::error;
use crate::{
    id::{Id, RequestId},
    store,
};

#[derive(Clone, Debug)]
pub(super) struct Fault {
    status: StatusCode,
    title: &'static str,
    message: String,
    detail: Option<String>,
    retry_seconds: Option<u32>,
}

#[derive(Template)]
#[template(path = "fault.html")]
struct Page<'a> {
    title: &'a str,
    message: &'a str,
    request_id: Option<&'a str>,
}

impl Fault {
    fn new(status: StatusCode, title: &'static str, message: impl Into<String>) -> Fault {
        Fault { status, title, message: message.into(), detail: None, retry_seconds: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, "That cannot be done", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, "Nothing here", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::FORBIDDEN, "Not allowed", message)
    }

    pub(super) fn stale_form() -> Fault {
        let message = "This form is out of date, as after signing in again in another window. \
            Go back, reload the page and try once more.";
        Fault::new(StatusCode::FORBIDDEN, "Out of date", message)
    }

    pub(super) fn misdirected() -> Fault {
        let message = "This server does not go by the name in the address bar. Use the host of its \
            `public_url`, or `localhost` on the machine itself.";
        Fault::new(StatusCode::MISDIRECTED_REQUEST, "Wrong address", message)
    }

    pub(super) fn internal(detail: impl Into<String>) -> Fault {
        let message = "Something went wrong on the server. Its log knows more under this id:";
        let fault = Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong", message);
        Fault { detail: Some(detail.into()), ..fault }
    }

    fn unavailable(detail: String) -> Fault {
        let message = "The server cannot answer this now; nothing was changed. Try again in a \
            moment. Its log knows more under this id:";
        let fault = Fault::new(StatusCode::SERVICE_UNAVAILABLE, "Not now", message);
        Fault { detail: Some(detail), retry_seconds: Some(2), ..fault }
    }

    /// A bound was reached; the text says which, and what helps.
    pub(super) fn full(message: impl Into<String>) -> Fault {
        let fault = Fault::new(StatusCode::SERVICE_UNAVAILABLE, "Not now", message);
        Fault { retry_seconds: Some(10), ..fault }
    }

    /// Writes the page, and the log's line about it.
    pub(super) fn answer(&self, id: &RequestId, method: &Method, path: &str) -> Response {
        let request_id = self.detail.is_some().then(|| id.as_str());
        if let Some(detail) = &self.detail {
            let status = self.status.as_u16();
            tracing::error!(%method, path, status, detail, "page failed");
        }
        let page = Page { title: self.title, message: &self.message, request_id };
        let html = page.render().unwrap_or_else(|_| self.title.to_owned());
        let mut response = (self.status, html).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // htmx asked for a part of a page and swaps in no error: a script says it instead.
        let notice = serde_json::json!({"bellpull:notice": {"text": self.message}}).to_string();
        if let Ok(notice) = HeaderValue::from_str(&notice) {
            headers.insert(HeaderName::from_static("hx-trigger"), notice);
        }
        response
    }
}

impl IntoResponse for Fault {
    /// Only a mark: the guard writes the page.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<error::Error> for Fault {
    fn from(error: error::Error) -> Fault {
        match error.kind {
            error::Kind::NotFound => Fault::not_found("There is no such thing, or not any more."),
            error::Kind::Unavailable | error::Kind::Overloaded | error::Kind::Timeout => {
                Fault::unavailable(error.detail.unwrap_or_default())
            }
            error::Kind::Internal => Fault::internal(error.detail.unwrap_or_default()),
            _ => Fault::invalid(error.message().to_owned()),
        }
    }
}

impl From<store::Error> for Fault {
    fn from(error: store::Error) -> Fault {
        match error {
            store::Error::NotFound => Fault::not_found("There is no such thing, or not any more."),
            store::Error::Invalid(problem) => Fault::invalid(problem.to_string()),
            store::Error::Conflict(text) | store::Error::Full(text) => Fault::invalid(text),
            store::Error::Unavailable(_) | store::Error::CommitUnknown(_) => {
                Fault::unavailable(error.detail())
            }
            store::Error::Fenced
            | store::Error::Constraint(_)
            | store::Error::Corrupt(_)
            | store::Error::Bug(_) => Fault::internal(error.detail()),
        }
    }
}

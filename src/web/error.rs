//! Errors at the edge: a closed list of types, each with its status, in the envelope of the route.
//!
//! A handler fails with an [`Error`]; the frame around all routes turns it into a body, because only
//! there the request's id and the envelope are known. Invariant: what `detail` says goes to the log
//! and never into an answer.

use std::{any::Any, borrow::Cow};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{domain::Problem, ingest::Reject, store};

/// What went wrong, by who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    InvalidRequest,
    Authentication,
    Permission,
    NotFound,
    MethodNotAllowed,
    Timeout,
    /// The state of the thing forbids it: the same request again fails again.
    Conflict,
    TooLarge,
    Internal,
    /// Nothing was changed, it may work later.
    Unavailable,
    /// A bound of this server was reached, it may work later.
    Overloaded,
    /// A bound of the thing itself was reached, it may work later.
    RateLimit,
}

impl Kind {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Kind::InvalidRequest => StatusCode::BAD_REQUEST,
            Kind::Authentication => StatusCode::UNAUTHORIZED,
            Kind::Permission => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Timeout => StatusCode::REQUEST_TIMEOUT,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Unavailable | Kind::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Kind::RateLimit => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The name that both envelopes use, from the Managed Agents API.
    fn name(self) -> &'static str {
        match self {
            Kind::InvalidRequest | Kind::MethodNotAllowed | Kind::Conflict => {
                "invalid_request_error"
            }
            Kind::Authentication => "authentication_error",
            Kind::Permission => "permission_error",
            Kind::NotFound => "not_found_error",
            Kind::Timeout => "timeout_error",
            Kind::TooLarge => "request_too_large",
            Kind::Internal | Kind::Unavailable => "api_error",
            Kind::Overloaded => "overloaded_error",
            Kind::RateLimit => "rate_limit_error",
        }
    }

    /// Seconds after which the same request is worth another try.
    fn retry_after(self) -> Option<&'static str> {
        match self {
            Kind::Unavailable => Some("2"),
            Kind::Overloaded | Kind::RateLimit => Some("10"),
            Kind::InvalidRequest
            | Kind::Authentication
            | Kind::Permission
            | Kind::NotFound
            | Kind::MethodNotAllowed
            | Kind::Timeout
            | Kind::Conflict
            | Kind::TooLarge
            | Kind::Internal => None,
        }
    }
}

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(super) struct Error {
    pub(super) kind: Kind,
    message: Cow<'static, str>,
    /// Picks a finer class in the official SDKs.
    code: Option<&'static str>,
    /// For the log.
    pub(super) detail: Option<String>,
}

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, message: message.into(), code: None, detail: None }
    }

    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::InvalidRequest, message)
    }

    pub(super) fn not_found(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::NotFound, message)
    }

    pub(super) fn conflict(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Conflict, message)
    }

    /// A failure that is no fault of the caller. The detail is for the operator.
    pub(super) fn failed(kind: Kind, detail: impl Into<String>) -> Error {
        let message = match kind {
            Kind::Unavailable => "The server cannot do this now; try again in a moment.",
            Kind::Overloaded => "The server has too much to do; try again later.",
            _ => "Something went wrong on the server; its log knows more under this request id.",
        };
        Error { detail: Some(detail.into()), ..Error::new(kind, message) }
    }

    /// For what a path or body names by its id.
    pub(super) fn missing(noun: &'static str) -> impl Fn(store::Error) -> Error {
        move |error| match error {
            store::Error::NotFound => Error::not_found(format!("there is no such {noun}")),
            other => other.into(),
        }
    }

    /// Whether it is the caller who can do something about it, with another request.
    pub(super) fn is_of_caller(&self) -> bool {
        matches!(
            self.kind,
            Kind::InvalidRequest | Kind::Conflict | Kind::TooLarge | Kind::RateLimit
        )
    }

    /// What the caller is told.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn with_code(mut self, code: &'static str) -> Error {
        self.code = Some(code);
        self
    }

    /// The body for a path.
    pub(super) fn body(&self, path: &str, request_id: &str) -> Value {
        let mut error = json!({"type": self.kind.name(), "message": self.message});
        if let Some(code) = self.code {
            error["details"] = json!({"error_code": code});
        }
        if super::is_below(path, "/v1") {
            json!({"type": "error", "error": error, "request_id": request_id})
        } else {
            json!({"error": error})
        }
    }

    /// Headers that tell the caller what to do next.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        if let Some(seconds) = self.kind.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        match self.kind {
            Kind::Authentication => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // The official SDKs repeat a 409 by themselves unless told not to.
            Kind::Conflict => {
                let name = HeaderName::from_static("x-should-retry");
                headers.insert(name, HeaderValue::from_static("false"));
            }
            // The rest of the body was not read, so the connection is of no further use.
            Kind::TooLarge | Kind::Timeout => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Kind::InvalidRequest
            | Kind::Permission
            | Kind::NotFound
            | Kind::MethodNotAllowed
            | Kind::Internal
            | Kind::Unavailable
            | Kind::Overloaded
            | Kind::RateLimit => {}
        }
    }
}

impl IntoResponse for Error {
    /// Only a mark: the frame writes the body.
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error { code: problem.code, ..Error::invalid(problem.to_string()) }
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Error {
        match error.downcast::<store::Error>() {
            Ok(error) => error.into(),
            Err(error) => Error::failed(Kind::Internal, format!("{error:#}")),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::NotFound => Error::not_found("there is no such thing"),
            store::Error::Invalid(problem) => problem.into(),
            store::Error::Conflict(text) => Error::conflict(text),
            store::Error::Full(text) => Error::new(Kind::RateLimit, text),
            store::Error::Unavailable(_) | store::Error::CommitUnknown(_) => {
                Error::failed(Kind::Unavailable, error.detail())
            }
            store::Error::Fenced
            | store::Error::Constraint(_)
            | store::Error::Corrupt(_)
            | store::Error::Bug(_) => Error::failed(Kind::Internal, error.detail()),
        }
    }
}

/// Why a body or a whole request was not taken.
impl From<Reject> for Error {
    fn from(reject: Reject) -> Error {
        match reject {
            Reject::Unauthorized => {
                Error::new(Kind::Authentication, "these credentials do not pass")
            }
            Reject::UnknownName => Error::not_found("there is no source or agent of this name"),
            Reject::Method => Error::new(Kind::MethodNotAllowed, "only POST is possible here"),
            Reject::TooLarge { bytes_max } => {
                Error::new(Kind::TooLarge, format!("the body is larger than {bytes_max} bytes"))
            }
            Reject::BodyIncomplete(reason) => Error::new(Kind::Timeout, reason),
            Reject::Busy(reason) => Error::failed(Kind::Overloaded, reason),
            Reject::Processing => {
                Error::failed(Kind::Unavailable, "the result of the commit is unknown")
            }
            Reject::Failed(error @ store::Error::Unavailable(_)) => {
                Error::failed(Kind::Unavailable, error.detail())
            }
            Reject::Failed(error) => Error::failed(Kind::Internal, error.detail()),
        }
    }
}

/// The answer of a handler that panicked, which is a bug.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let detail = format!("panic: {}", text.unwrap_or("without a text"));
    Error::failed(Kind::Internal, detail).into_response()
}

//! Why there is no answer, and whether to ask again.
//!
//! Providers say what went wrong in three ways: by status, by a word in the body of the answer, and
//! by a word in the middle of a stream. All of them end here as one [`Error`].

use std::time::Duration;

use serde_json::Value;

use crate::domain::{
    cost::Spent,
    text::{first_chars, printable},
};

/// The error types of the Managed Agents API that are about models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Overloaded,
    RateLimited,
    RequestFailed,
    Billing,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Overloaded => "model_overloaded_error",
            Kind::RateLimited => "model_rate_limited_error",
            Kind::RequestFailed => "model_request_failed_error",
            Kind::Billing => "billing_error",
        }
    }
}

/// Whether the same request may be answered another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// Not before the provider's own time, if it said one.
    Later(Option<Duration>),
}

/// Why there is no answer. The text is for people and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub retry: Retry,
    /// What the provider had counted by then.
    pub spent: Spent,
}

/// Characters of what a provider said that are kept.
const SAID_CHARS_MAX: usize = 500;

impl Error {
    pub(super) fn new(kind: Kind, retry: Retry, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), retry, spent: Spent::default() }
    }

    /// Asking again would not help.
    pub(super) fn never(message: impl Into<String>) -> Error {
        Error::new(Kind::RequestFailed, Retry::Never, message)
    }

    /// The connection, or what came over it, was at fault.
    pub(super) fn passing(message: impl Into<String>) -> Error {
        Error::new(Kind::RequestFailed, Retry::Later(None), message)
    }

    /// An answer with another status than 200.
    pub(super) fn of_status(status: u16, body: &str) -> Error {
        let said = Said::parse(body);
        let (kind, again) = classify(Some(status), &said);
        let retry = if again { Retry::Later(None) } else { Retry::Never };
        Error::new(kind, retry, format!("the model server answered {status}{}", said.tail()))
    }

    /// An error in the middle of a stream, or in a body of status 200.
    pub(super) fn in_stream(body: &Value) -> Error {
        let said = Said::of(body);
        let (kind, again) = classify(said.status(), &said);
        let retry = if again { Retry::Later(None) } else { Retry::Never };
        Error::new(kind, retry, format!("the model server broke off its answer{}", said.tail()))
    }
}

/// What a provider said about an error, in whichever of the usual shapes.
#[derive(Debug, Default)]
struct Said {
    /// `error.type` and `error.code`, as far as there.
    words: Vec<String>,
    message: String,
}

impl Said {
    fn parse(body: &str) -> Said {
        match serde_json::from_str::<Value>(body) {
            Ok(body) => Said::of(&body),
            Err(_) => Said { words: Vec::new(), message: body.trim().to_owned() },
        }
    }

    /// `{"error": {"type", "code", "message"}}`, `{"error": "…"}`, or the same without `error`.
    fn of(body: &Value) -> Said {
        let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
        let text = |value: &Value| match value {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let words = ["type", "code"].iter().filter_map(|key| error.get(key).and_then(text));
        let message = ["message", "detail"].iter().find_map(|key| error.get(key).and_then(text));
        Said {
            words: words.filter(|word| word != "error").collect(),
            message: message.or_else(|| text(error)).unwrap_or_default(),
        }
    }

    /// Gateways put the status of the server behind them into `code`.
    fn status(&self) -> Option<u16> {
        let mut numbers = self.words.iter().filter_map(|word| word.parse().ok());
        numbers.find(|status| (400..600).contains(status))
    }

    /// ` (overloaded_error): Overloaded`
    fn tail(&self) -> String {
        let mut tail = String::new();
        if let Some(word) = self.words.first() {
            let (word, _) = first_chars(word, 60);
            tail.push_str(&format!(" ({})", printable(word)));
        }
        let (message, cut) = first_chars(self.message.trim(), SAID_CHARS_MAX);
        if !message.is_empty() {
            let dots = if cut { "…" } else { "" };
            tail.push_str(&format!(": {}{dots}", printable(message)));
        }
        tail
    }
}

/// Kind and whether to ask again, by status and by what was said.
fn classify(status: Option<u16>, said: &Said) -> (Kind, bool) {
    let says = |words: &[&str]| said.words.iter().any(|word| words.contains(&word.as_str()));
    let no_money = ["insufficient_quota", "billing_error", "billing_not_active", "402"];
    let broke = said.message.contains("credit balance is too low");
    if status == Some(402) || says(&no_money) || broke {
        return (Kind::Billing, false);
    }
    if status == Some(429) || says(&["rate_limit_error", "rate_limit_exceeded"]) {
        return (Kind::RateLimited, true);
    }
    let overloaded = ["overloaded_error", "server_is_overloaded", "slow_down"];
    if matches!(status, Some(503 | 529)) || says(&overloaded) {
        return (Kind::Overloaded, true);
    }
    let ours = [
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "context_length_exceeded",
        "invalid_api_key",
    ];
    let again = match status {
        Some(status) => matches!(status, 408 | 409 | 425 | 500..),
        None => !says(&ours),
    };
    (Kind::RequestFailed, again)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_have_classes() {
        let check = |status: u16, body: &str, kind: Kind, again: bool| {
            let error = Error::of_status(status, body);
            let expected = if again { Retry::Later(None) } else { Retry::Never };
            assert_eq!((error.kind, error.retry), (kind, expected), "{status} {body}");
        };
        for status in [400, 401, 403, 404, 413, 422] {
            check(status, "", Kind::RequestFailed, false);
        }
        for status in [408, 409, 425, 500, 502, 504, 520] {
            check(status, "<html>", Kind::RequestFailed, true);
        }
        check(503, "", Kind::Overloaded, true);
        check(529, r#"{"error":{"type":"overloaded_error"}}"#, Kind::Overloaded, true);
        check(429, r#"{"error":{"type":"rate_limit_error"}}"#, Kind::RateLimited, true);
        check(429, r#"{"error":{"type":"insufficient_quota"}}"#, Kind::Billing, false);
        check(402, "", Kind::Billing, false);
        let poor = "Your credit balance is too low to access the API.";
        let body = json!({"error": {"type": "invalid_request_error", "message": poor}});
        check(400, &body.to_string(), Kind::Billing, false);
    }

    #[test]
    fn errors_inside_a_stream_have_classes_too() {
        let check = |body: Value, kind: Kind, again: bool| {
            let error = Error::in_stream(&body);
            let expected = if again { Retry::Later(None) } else { Retry::Never };
            assert_eq!((error.kind, error.retry), (kind, expected), "{body}");
        };
        check(json!({"error": {"type": "overloaded_error"}}), Kind::Overloaded, true);
        check(json!({"error": {"type": "api_error"}}), Kind::RequestFailed, true);
        check(json!({"error": {"type": "invalid_request_error"}}), Kind::RequestFailed, false);
        check(json!({"error": {"code": 429}}), Kind::RateLimited, true);
        check(json!({"error": {"code": "400", "type": "BadRequest"}}), Kind::RequestFailed, false);
        check(json!({"code": "insufficient_quota", "message": "x"}), Kind::Billing, false);
        check(json!({"error": "something"}), Kind::RequestFailed, true);
    }

    #[test]
    fn messages_are_short_and_printable() {
        let body = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
        assert_eq!(
            Error::of_status(529, &body.to_string()).message,
            "the model server answered 529 (overloaded_error): Overloaded"
        );
        let long = Error::of_status(500, &format!("\u{1b}[31m{}", "x".repeat(9000))).message;
        assert!(long.len() < 700 && !long.contains('\u{1b}'), "{long}");
        assert_eq!(Error::of_status(500, "").message, "the model server answered 500");
    }
}

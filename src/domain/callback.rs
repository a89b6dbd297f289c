//! A callback: where the results of sessions are sent, and what is sent.
//!
//! An agent has one, or a source has, and then the source's counts for the sessions that it made. The
//! whole URL often is a secret itself (Slack's are), so it lies in the vault like the signing secret;
//! what is here are the names of both, and the URL as it may be shown. Left out: sending.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Problem, cost::Cost, event::Usage, secret, text::first_chars, turn::TurnEnd};
use crate::{
    clock::Timestamp,
    id::{AgentId, DeliveryId, EventId, SessionId, TurnId},
};

/// Says through how many callbacks a message has come. A delivery with more than the bound is held.
pub const HOPS_HEADER: &str = "bellpull-hops";

/// Longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 2048;

/// What a message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    #[serde(rename = "session.idle")]
    Idle,
    #[serde(rename = "session.failed")]
    Failed,
    #[serde(rename = "session.needs_approval")]
    NeedsApproval,
    #[serde(rename = "session.budget_reached")]
    BudgetReached,
    /// Somebody wants to see one come.
    #[serde(rename = "callback.test")]
    Test,
}

impl Kind {
    /// Those that a callback can be asked for, by their names.
    pub const WANTED: [(&str, Kind); 4] = [
        ("session.idle", Kind::Idle),
        ("session.failed", Kind::Failed),
        ("session.needs_approval", Kind::NeedsApproval),
        ("session.budget_reached", Kind::BudgetReached),
    ];

    pub fn as_str(self) -> &'static str {
        let named = Kind::WANTED.iter().find(|(_, kind)| *kind == self);
        named.map_or("callback.test", |(name, _)| name)
    }

    pub fn parse(text: &str) -> Option<Kind> {
        let named = Kind::WANTED.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
        named.or_else(|| (text == Kind::Test.as_str()).then_some(Kind::Test))
    }

    pub fn all() -> Vec<Kind> {
        Kind::WANTED.iter().map(|(_, kind)| *kind).collect()
    }
}

impl From<TurnEnd> for Kind {
    fn from(end: TurnEnd) -> Kind {
        match end {
            TurnEnd::EndTurn | TurnEnd::Interrupted => Kind::Idle,
            TurnEnd::BudgetReached => Kind::BudgetReached,
            TurnEnd::RetriesExhausted | TurnEnd::Refusal | TurnEnd::Failed => Kind::Failed,
        }
    }
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `{"type", "timestamp", "data"}`, signed as Standard Webhooks says.
    #[default]
    Standard,
    /// `{"text"}`, as incoming webhooks of Slack, Mattermost and others take it; nothing is signed,
    /// the URL is the secret.
    Slack,
}

impl Format {
    pub const NAMES: [(&str, Format); 2] =
        [("standard", Format::Standard), ("slack", Format::Slack)];

    /// What a receiver takes, as far as its URL tells.
    pub fn of(url: &Url) -> Format {
        match url.host_str() {
            Some("hooks.slack.com" | "hooks.slack-gov.com") => Format::Slack,
            _ => Format::Standard,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// As it may be shown.
    pub url: String,
    pub events: Vec<Kind>,
    pub format: Format,
    /// Name of the secret that messages are signed with.
    pub secret_key: String,
    /// Name of the secret that is the whole URL.
    pub url_key: String,
}

impl Callback {
    /// A new one of an agent (by its id) or a source (by its name): all events, as the URL tells.
    pub fn new(owner: &str, url: &Url) -> Callback {
        let format = Format::of(url);
        Callback {
            url: shown(url, format),
            events: Kind::all(),
            format,
            secret_key: secret::callback_key(owner),
            url_key: secret::callback_url_key(owner),
        }
    }

    pub fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Test || self.events.contains(&kind)
    }

    pub fn to_json(&self, off_since: Option<Timestamp>) -> Value {
        json!({
            "url": self.url,
            "events": self.events,
            "format": self.format,
            "secret_key": (self.format == Format::Standard).then_some(&self.secret_key),
            "url_key": self.url_key,
            "off_since": off_since,
        })
    }
}

/// A URL that something may be sent to. Plain HTTP only to hosts that the operator named, because they
/// are near; that the address may be gone to is looked at when it is.
pub fn check_url(text: &str, near: &[String]) -> Result<Url, Problem> {
    let wrong = |message: &str| Problem::new("url", message);
    if text.len() > URL_BYTES_MAX {
        return Err(wrong("is longer than 2048 bytes"));
    }
    let odd = text.bytes().any(|byte| !byte.is_ascii_graphic() || b"\\#".contains(&byte));
    let url = Url::parse(text).ok().filter(|_| !odd);
    let url =
        url.ok_or_else(|| wrong("must be a plain URL such as `https://example.com/results`"))?;
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(wrong("has no host"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not hold a user or a password"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_near(host, near) => Ok(url),
        "http" => Err(wrong(
            "must begin with `https://`; plain HTTP is for hosts that \
             `outbox.allowed_private_hosts` names",
        )),
        _ => Err(wrong("must begin with `https://`")),
    }
}

/// A signing secret in the form of Standard Webhooks: `whsec_` and the key in base64.
pub fn check_secret(secret: &str) -> Result<(), Problem> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret));
    match key {
        Ok(key) if (16..=64).contains(&key.len()) => Ok(()),
        _ => Err(Problem::new("secret", "must be `whsec_` and 16 to 64 bytes in base64")),
    }
}

/// Whether the operator named this host.
pub fn is_near(host: &str, near: &[String]) -> bool {
    near.iter().any(|it| it.eq_ignore_ascii_case(host))
}

/// What may be shown of a URL: no query, and of one that is a secret only where it leads.
pub fn shown(url: &Url, format: Format) -> String {
    let origin = url.origin().ascii_serialization();
    match format {
        Format::Slack => format!("{origin}/…"),
        Format::Standard if url.query().is_some() => format!("{origin}{}?…", url.path()),
        Format::Standard => format!("{origin}{}", url.path()),
    }
}

/// Through how many callbacks a delivery has come, by its headers as they are kept. What is no small
/// number is many.
pub fn hops_of(headers: &str) -> i64 {
    let headers: BTreeMap<String, Vec<String>> = serde_json::from_str(headers).unwrap_or_default();
    let values = headers.get(HOPS_HEADER).into_iter().flatten();
    values.map(|value| hops(value)).max().unwrap_or(0)
}

const HOPS_UNKNOWN: i64 = 1000;

/// The value of [`HOPS_HEADER`].
pub fn hops(value: &str) -> i64 {
    let number = value.trim().parse::<u16>().ok().map(i64::from);
    number.filter(|n| *n <= HOPS_UNKNOWN).unwrap_or(HOPS_UNKNOWN)
}

/// Characters of the agent's last message that are sent.
const MESSAGE_CHARS_MAX: usize = 20_000;

/// What is told of a session.
#[derive(Clone, Debug)]
pub struct Report {
    pub session_id: SessionId,
    pub title: Option<String>,
    pub agent_id: AgentId,
    pub agent_name: String,
    pub agent_version: i64,
    pub source: Option<String>,
    pub turn_id: TurnId,
    /// Those that the turn answers, and how many more there are.
    pub deliveries: (Vec<DeliveryId>, usize),
    /// How the turn ended, or `requires_action`.
    pub stop_reason: &'static str,
    /// The calls that wait for somebody.
    pub waiting_for: Vec<EventId>,
    /// The agent's last words in this turn.
    pub message: Option<String>,
    /// What went wrong last.
    pub error: Option<String>,
    /// Of the session so far.
    pub usage: Usage,
    pub cost: Cost,
}

/// A message as it is kept until it is sent, and written down for those who look.
pub fn body(kind: Kind, report: &Report, at: Timestamp) -> Value {
    let message = report.message.as_deref().map(|text| first_chars(text, MESSAGE_CHARS_MAX));
    let mut body = json!({
        "type": kind,
        "timestamp": at,
        "data": {
            "session_id": report.session_id,
            "title": report.title,
            "agent_id": report.agent_id,
            "agent_name": report.agent_name,
            "agent_version": report.agent_version,
            "source": report.source,
            "turn_id": report.turn_id,
            "delivery_ids": report.deliveries.0,
            "further_deliveries": report.deliveries.1,
            "stop_reason": report.stop_reason,
            "message": message.map(|(text, _)| text),
            "message_cut": message.is_some_and(|(_, cut)| cut),
            "error": report.error,
            "usage": report.usage,
            "cost_usd": report.cost.total(),
            "unpriced_requests": report.cost.n_unpriced,
        },
    });
    if kind == Kind::NeedsApproval {
        body["data"]["event_ids"] = json!(report.waiting_for);
    }
    body
}

/// A message that tells nothing.
pub fn test_body(owner: &str, at: Timestamp) -> Value {
    json!({
        "type": Kind::Test,
        "timestamp": at,
        "data": {"owner": owner, "message": "This is a test of the callback."},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_are_called_back() {
        let near = ["build.internal".to_owned(), "[::1]".to_owned()];
        for url in [
            "https://example.com/a?b=c",
            "https://example.com:8443/",
            "http://build.internal:9000/x",
            "http://BUILD.internal/",
            "http://[::1]:80/",
        ] {
            assert!(check_url(url, &near).is_ok(), "{url}");
        }
        for url in [
            "http://example.com/",
            "http://build.internal.example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https://user@example.com/",
            "https://:password@example.com/",
            "https://example.com/#x",
            "https://example.com\\@evil.example/",
            " https://example.com/",
            "https:///",
            "example.com",
            "",
        ] {
            assert!(check_url(url, &near).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_secret_of_a_url_is_not_shown() {
        let check = |url: &str, expected: &str| {
            let url = Url::parse(url).unwrap();
            assert_eq!(Callback::new("shop", &url).url, expected);
        };
        check("https://hooks.slack.com/services/T/B/secret", "https://hooks.slack.com/…");
        check("https://a.example/x?sig=secret", "https://a.example/x?…");
        check("https://a.example:8443/x", "https://a.example:8443/x");
    }

    #[test]
    fn hops_are_read_as_they_are_kept() {
        let check = |headers: &str, expected: i64| assert_eq!(hops_of(headers), expected);
        check(r#"{"a":["1"]}"#, 0);
        check(r#"{"a":["1"],"bellpull-hops":["2"]}"#, 2);
        check(r#"{"bellpull-hops":["1","3"]}"#, 3);
        check(r#"{"bellpull-hops":["many"]}"#, HOPS_UNKNOWN);
        check(r#"{"bellpull-hops":["-1"]}"#, HOPS_UNKNOWN);
        check("{}", 0);
    }

    #[test]
    fn every_end_of_a_turn_is_told() {
        for end in TurnEnd::ALL {
            assert!(Kind::all().contains(&Kind::from(end)), "{end:?}");
        }
        for kind in Kind::all().into_iter().chain([Kind::Test]) {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
            assert_eq!(json!(kind), kind.as_str());
        }
    }
}

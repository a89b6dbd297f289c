//! What a message looks like when it leaves.
//!
//! Pure. Invariant: text of an agent in a chat's shape mentions nobody: it may repeat what a stranger
//! wrote.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::sign;
use crate::{
    clock::Timestamp,
    domain::{
        callback::{Format, HOPS_HEADER, Kind},
        text::first_chars,
    },
    id::Id,
    store::ClaimedMessage,
};

/// Characters of an agent's message in a chat; Slack recommends no more than 4,000 for all.
const CHAT_CHARS_MAX: usize = 3000;

/// Body and headers of a message. `secrets` are those that sign, newest first.
pub(super) fn write(
    message: &ClaimedMessage,
    public_url: Option<&str>,
    secrets: &[SecretString],
    at: Timestamp,
) -> Result<(HeaderMap, String), String> {
    let mut stored: Value = serde_json::from_str(&message.body)
        .map_err(|_| "the stored message cannot be read".to_owned())?;
    let link = public_url.zip(message.session_id.as_ref());
    let link = link.map(|(origin, session)| format!("{origin}/sessions/{session}"));
    if let Some(link) = &link {
        stored["data"]["session_url"] = json!(link);
    }
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).map_err(|_| format!("`{name}` is no header"))?;
        headers.insert(HeaderName::from_static(name), value);
        Ok::<_, String>(())
    };
    put(HOPS_HEADER, &(message.hops + 1).to_string())?;
    put("webhook-id", message.id.as_str())?;
    put("idempotency-key", message.id.as_str())?;
    let body = match message.callback.format {
        Format::Slack => json!({"text": chat(&stored, link.as_deref())}).to_string(),
        Format::Standard => {
            let body = stored.to_string();
            let (timestamp, signature) = sign::sign(secrets, message.id.as_str(), at, &body)?;
            put("webhook-timestamp", &timestamp)?;
            put("webhook-signature", &signature)?;
            body
        }
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((headers, body))
}

/// The message in words.
fn chat(stored: &Value, link: Option<&str>) -> String {
    let data = &stored["data"];
    let text = |key: &str| data[key].as_str().unwrap_or_default();
    let what = match stored["type"].as_str().and_then(Kind::parse) {
        Some(Kind::Idle) => "is done",
        Some(Kind::NeedsApproval) => "needs an approval",
        Some(Kind::BudgetReached) => "has reached its budget",
        Some(Kind::Test) => return harmless(text("message")),
        Some(Kind::Failed) | None => "has failed",
    };
    let mut out = format!("*{}* {what}", harmless(text("agent_name")));
    if !text("title").is_empty() {
        out.push_str(&format!(" ({})", harmless(text("title"))));
    }
    for part in [text("error"), text("message")].into_iter().filter(|part| !part.is_empty()) {
        let (part, cut) = first_chars(part, CHAT_CHARS_MAX);
        out.push_str(&format!("\n{}{}", harmless(part), if cut { "…" } else { "" }));
    }
    if let Some(link) = link {
        out.push_str(&format!("\n{link}"));
    }
    out
}

/// Words that call everybody, where they stand behind an `@`.
const EVERYBODY: [&str; 4] = ["all", "channel", "everyone", "here"];

/// Text that a chat shows as it is: no links under other words, and nobody is called.
fn harmless(text: &str) -> String {
    let mut out = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    for word in EVERYBODY {
        out = out.replace(&format!("@{word}"), &format!("@\u{200b}{word}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, data: Value) -> String {
        chat(&json!({"type": kind, "data": data}), Some("https://bell.example/sessions/s"))
    }

    #[test]
    fn a_chat_reads_what_happened() {
        let data = json!({"agent_name": "concierge", "title": "shop: paid", "message": "Done."});
        assert_eq!(
            told("session.idle", data.clone()),
            "*concierge* is done (shop: paid)\nDone.\nhttps://bell.example/sessions/s"
        );
        let failed = json!({"agent_name": "a", "title": null, "message": null, "error": "no key"});
        assert_eq!(
            told("session.failed", failed),
            "*a* has failed\nno key\nhttps://bell.example/sessions/s"
        );
        assert!(told("session.needs_approval", data.clone()).contains("needs an approval"));
        assert!(told("session.budget_reached", data).contains("has reached its budget"));
    }

    #[test]
    fn a_chat_calls_nobody() {
        let message = "<!channel> @everyone <https://evil.example|our bank> @here & co";
        let told = told("session.idle", json!({"agent_name": "a", "message": message}));
        assert!(!told.contains('<') && !told.contains("@everyone") && !told.contains("@here"));
        assert!(told.contains("&lt;!channel&gt;") && told.contains("&amp; co"), "{told}");
    }
}

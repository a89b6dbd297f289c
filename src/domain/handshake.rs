//! What a sender asks before it delivers, and what it is answered: a shape of requests and a shape
//! of answers, both of them data.
//!
//! A preset and a source describe one in the same words. Invariants of a handshake that passed
//! [`Handshake::check`]: what a stranger can have repeated is short and made of characters that mean
//! nothing to a browser; the source's secret is taken from a request in no other way than in a
//! window; one that says nothing about when it is answered is answered after the gate. Left out: how
//! a request is recognised and answered, which is `ingest::handshake`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Problem,
    field::{Place, Pointer, is_header_name},
    is_default,
    origin::Origin,
};

/// A request that is no delivery, and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    #[serde(default, skip_serializing_if = "is_default")]
    pub method: Method,
    /// What the request says at these places.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when: BTreeMap<Place, String>,
    /// Places that it does not have.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lacks: Vec<Place>,
    /// Places of the body at which there is a list with nothing in it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub empty: Vec<Pointer>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub answered: Answered,
    /// Where the text stands that the sender wants to see again; in a window it is the secret.
    #[serde(default, skip_serializing_if = "is_default")]
    pub challenge: Option<Place>,
    /// Characters that this sender's challenges have beside letters, digits, `_` and `-`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub also: String,
    /// A place that must hold the source's verify token, which is made of its secret.
    #[serde(default, skip_serializing_if = "is_default")]
    pub token: Option<Place>,
    /// Whether the secret that came in a window is shown once, because the sender wants it back by
    /// hand.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shown: bool,
    /// A URL that is called before the answer: so the sender knows that we want what it sends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub visit: Option<Visit>,
    pub reply: Reply,
}

/// Where the URL stands, and what it must look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Visit {
    pub url: Place,
    pub from: Origin,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Head,
    Options,
    #[default]
    Post,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Post => "POST",
        }
    }
}

/// Who is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// Anybody: the sender does not sign this request.
    Before,
    /// Whoever passed the gate.
    #[default]
    After,
    /// Anybody, once, while the operator waits for it: the sender hands over its secret.
    Window,
}

/// What is answered. In its texts `{challenge}` stands for the challenge, `{hmac_hex}` and
/// `{hmac_base64}` for its HMAC as the source's gate makes one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    #[serde(default = "ok", skip_serializing_if = "is_ok")]
    pub status: u16,
    /// The body, as plain text.
    #[serde(default, skip_serializing_if = "is_default")]
    pub text: Option<String>,
    /// The body, as JSON.
    #[serde(default, skip_serializing_if = "is_default")]
    pub json: Option<Value>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: BTreeMap<String, String>,
}

fn ok() -> u16 {
    200
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_ok(status: &u16) -> bool {
    *status == 200
}

pub const CHALLENGE: &str = "{challenge}";
pub const HMAC_HEX: &str = "{hmac_hex}";
pub const HMAC_BASE64: &str = "{hmac_base64}";

/// Characters of a challenge that anybody may send.
pub const STRANGER_CHARS_MAX: usize = 128;

/// Characters of a challenge that says in `also` that it is a longer text.
const LONG_CHARS_MAX: usize = 512;

/// Characters of a challenge that came through the gate.
const KNOWN_CHARS_MAX: usize = 4096;

/// What `also` may name: nothing that begins a tag, an attribute, an entity or a line.
const HARMLESS: &str = " .:/+=~,";

/// Handshakes of one source.
const HANDSHAKES_MAX: usize = 8;

/// Places that one looks at, and headers of its answer.
const PLACES_MAX: usize = 8;

impl Handshake {
    /// What the types do not say, of all handshakes of a source. `has_hmac`: the source's gate can
    /// make one.
    pub fn check_all(handshakes: &[Handshake], has_hmac: bool) -> Result<(), Problem> {
        if handshakes.len() > HANDSHAKES_MAX {
            let message = format!("are more than {HANDSHAKES_MAX}");
            return Err(Problem::new("handshakes", message));
        }
        for (n, handshake) in handshakes.iter().enumerate() {
            handshake.check(has_hmac).map_err(|problem| {
                Problem::new(format!("handshakes[{n}].{}", problem.field), problem.message)
            })?;
        }
        Ok(())
    }

    fn check(&self, has_hmac: bool) -> Result<(), Problem> {
        if self.when.len() + self.lacks.len() + self.empty.len() > PLACES_MAX {
            return Err(Problem::new("when", format!("has more than {PLACES_MAX} places")));
        }
        let is_deliveries = self.method == Method::Post;
        let says_nothing = self.when.is_empty() && self.empty.is_empty();
        if is_deliveries && says_nothing && self.challenge.is_none() {
            let message = "is required, or a `challenge`: every delivery would be a handshake";
            return Err(Problem::new("when", message));
        }
        if !is_deliveries && self.reads_body() {
            return Err(Problem::new("method", "has no body: a place in it is never found"));
        }
        if !self.also.chars().all(|char| HARMLESS.contains(char)) {
            return Err(Problem::new("also", format!("may have no other than `{HARMLESS}`")));
        }
        if self.answered == Answered::Window && self.challenge.is_none() {
            return Err(Problem::new("challenge", "is required: in a window it is the secret"));
        }
        if self.shown && self.answered != Answered::Window {
            return Err(Problem::new(
                "shown",
                "belongs to a handshake that is answered in a window",
            ));
        }
        if let Some(visit) = &self.visit {
            if self.answered != Answered::After {
                let message = "belongs to a handshake that is answered after the gate";
                return Err(Problem::new("visit", message));
            }
            visit.from.check().map_err(|problem| {
                Problem::new(format!("visit.from.{}", problem.field), problem.message)
            })?;
        }
        if self.token.is_some() && self.answered != Answered::Before {
            return Err(Problem::new("token", "belongs to a handshake that is answered before"));
        }
        self.reply.check(self.challenge.is_some(), has_hmac)
    }

    /// Whether it cannot be recognised by the request's head.
    pub fn reads_body(&self) -> bool {
        let mut places =
            self.when.keys().chain(&self.lacks).chain(&self.challenge).chain(&self.token);
        !self.empty.is_empty() || places.any(|place| matches!(place, Place::Pointer(_)))
    }

    /// Whether a text can be a challenge of this handshake.
    pub fn admits(&self, text: &[u8]) -> bool {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
        match self.answered {
            Answered::After => {
                let is_shown = text.iter().all(|byte| (b' '..=b'~').contains(byte));
                (1..=KNOWN_CHARS_MAX).contains(&text.len()) && is_shown
            }
            Answered::Before | Answered::Window => {
                let is_long = !self.also.is_empty();
                let max = if is_long { LONG_CHARS_MAX } else { STRANGER_CHARS_MAX };
                let known = |byte: &u8| is_plain(byte) || self.also.as_bytes().contains(byte);
                (1..=max).contains(&text.len()) && text.iter().all(known)
            }
        }
    }

    /// Whether a stranger can have this text signed with the source's secret.
    pub fn signs_for_strangers(&self, text: &[u8]) -> bool {
        self.answered != Answered::After && self.reply.has_hmac() && self.admits(text)
    }
}

impl Reply {
    fn check(&self, has_challenge: bool, has_hmac: bool) -> Result<(), Problem> {
        if !(200..=299).contains(&self.status) {
            return Err(Problem::new("reply.status", "must be from 200 to 299"));
        }
        if self.text.is_some() && self.json.is_some() {
            return Err(Problem::new("reply.json", "is given beside `text`: keep one of them"));
        }
        if self.headers.len() > PLACES_MAX {
            return Err(Problem::new("reply.headers", format!("are more than {PLACES_MAX}")));
        }
        for (name, value) in &self.headers {
            if !is_header_name(name) || SET_ELSEWHERE.contains(&&*name.to_ascii_lowercase()) {
                return Err(Problem::new("reply.headers", "has a name that cannot stand here"));
            }
            if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                return Err(Problem::new("reply.headers", "has a value that is no plain text"));
            }
        }
        let mut problem = None;
        self.each_text(&mut |text| {
            if text.contains(CHALLENGE) && !has_challenge {
                problem = Some("has `{challenge}`, and the handshake has none");
            }
            if (text.contains(HMAC_HEX) || text.contains(HMAC_BASE64))
                && !(has_challenge && has_hmac)
            {
                problem = Some("has an HMAC, for which there must be a `challenge`, and a gate of the type `hmac` that signs the body");
            }
        });
        problem.map_or(Ok(()), |message| Err(Problem::new("reply", message)))
    }

    pub fn has_hmac(&self) -> bool {
        let mut found = false;
        self.each_text(&mut |text| found |= text.contains(HMAC_HEX) || text.contains(HMAC_BASE64));
        found
    }

    fn each_text(&self, look: &mut dyn FnMut(&str)) {
        fn walk(value: &Value, look: &mut dyn FnMut(&str)) {
            match value {
                Value::String(text) => look(text),
                Value::Array(list) => list.iter().for_each(|value| walk(value, look)),
                Value::Object(map) => map.values().for_each(|value| walk(value, look)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        self.text.iter().chain(self.headers.values()).for_each(|text| look(text));
        self.json.iter().for_each(|value| walk(value, look));
    }
}

/// Headers of an answer that are not a handshake's to say.
const SET_ELSEWHERE: [&str; 9] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "set-cookie",
    "location",
    "request-id",
    "x-content-type-options",
    "cache-control",
];

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn read(given: Value) -> Result<Handshake, String> {
        let handshake: Handshake = serde_json::from_value(given).map_err(|it| it.to_string())?;
        Handshake::check_all(std::slice::from_ref(&handshake), true)
            .map(|()| handshake)
            .map_err(|problem| problem.to_string())
    }

    #[test]
    fn what_would_be_unsafe_or_useless_is_refused() {
        let wrong = [
            json!({"reply": {"text": "x"}}),
            json!({"method": "GET", "challenge": "/x", "reply": {}}),
            json!({"method": "GET", "challenge": "?x", "also": "<", "reply": {}}),
            json!({"answered": "window", "when": {"/a": "b"}, "reply": {}}),
            json!({"when": {"/a": "b"}, "shown": true, "reply": {}}),
            json!({"when": {"/a": "b"}, "token": "?t", "reply": {}}),
            json!({"when": {"/a": "b"}, "reply": {"status": 302}}),
            json!({"when": {"/a": "b"}, "reply": {"text": "a", "json": {}}}),
            json!({"when": {"/a": "b"}, "reply": {"headers": {"Location": "x"}}}),
            json!({"when": {"/a": "b"}, "reply": {"headers": {"X": "a\r\nb"}}}),
            json!({"when": {"/a": "b"}, "reply": {"json": [{"a": "{challenge}"}]}}),
            json!({"when": {"/a": "b"}, "reply": {"text": "{hmac_hex}"}}),
        ];
        let found = wrong.map(|given| read(given).unwrap_err()).join("\n");
        expect![[r#"
            handshakes[0].when: is required, or a `challenge`: every delivery would be a handshake
            handshakes[0].method: has no body: a place in it is never found
            handshakes[0].also: may have no other than ` .:/+=~,`
            handshakes[0].challenge: is required: in a window it is the secret
            handshakes[0].shown: belongs to a handshake that is answered in a window
            handshakes[0].token: belongs to a handshake that is answered before
            handshakes[0].reply.status: must be from 200 to 299
            handshakes[0].reply.json: is given beside `text`: keep one of them
            handshakes[0].reply.headers: has a name that cannot stand here
            handshakes[0].reply.headers: has a value that is no plain text
            handshakes[0].reply: has `{challenge}`, and the handshake has none
            handshakes[0].reply: has an HMAC, for which there must be a `challenge`, and a gate of the type `hmac` that signs the body"#]].assert_eq(&found);
    }

    #[test]
    fn strangers_have_only_harmless_texts_repeated() {
        let handshake = |answered: &str, also: &str| {
            read(json!({"method": "GET", "challenge": "?c", "answered": answered, "also": also,
                "reply": {"text": "{challenge}"}}))
            .unwrap()
        };
        let strict = handshake("before", "");
        assert!(strict.admits(b"aZ09_-"));
        assert!(strict.admits(&[b'a'; 128]));
        for text in ["", "a b", "<script>", "a\r\nb", "a\0", "\u{e4}", "a=", "%3c", "a.b"] {
            assert!(!strict.admits(text.as_bytes()), "{text}");
        }
        assert!(!strict.admits(&[b'a'; 129]));
        let wide = handshake("before", " .:");
        assert!(wide.admits(b"Validation: Testing client. Request-Id: 4ab6a4e3"));
        assert!(!wide.admits(b"a<b") && !wide.admits(b"a\nb") && !wide.admits(&[b'a'; 513]));
        let known = handshake("after", "");
        assert!(known.admits(b"3eZbr+/=.<>") && !known.admits(b"a\nb"));
        assert!(!known.admits(&[b'a'; 4097]));
    }
}

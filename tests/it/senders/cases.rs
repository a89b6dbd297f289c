//! Every preset with deliveries that are shaped as its sender sends them and that `cases.py` signed:
//! let in as they are, with the right identity and event type; refused when anything that proves
//! them is changed, taken away, or old.

use std::{collections::BTreeSet, time::Duration};

use bellpull::{clock::Timestamp, ingest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::web::{client::Call, server::Server};

#[derive(Debug, Deserialize)]
pub struct Cases {
    pub now: i64,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub preset: String,
    pub secret: String,
    verifier: Option<Value>,
    pub query: String,
    pub headers: Map<String, Value>,
    pub body: String,
    /// The key, or how it begins.
    identity: String,
    pub event_type: Option<String>,
    /// Whether it is refused an hour later.
    #[serde(default)]
    pub stale: bool,
    /// Whether any change of the body is noticed.
    #[serde(default = "yes")]
    pub body_is_signed: bool,
}

fn yes() -> bool {
    true
}

pub fn cases() -> Cases {
    serde_json::from_str(include_str!("cases.json")).expect("cases.py writes it")
}

impl Case {
    pub async fn make(&self, server: &Server) {
        let source = json!({"name": self.preset, "preset": self.preset, "secret": self.secret,
            "verifier": self.verifier});
        server.post("/v1/sources").json(source).ok().await;
    }

    pub fn call(&self, server: &Server) -> Call {
        let path = format!("/api/webhook/{}{}", self.preset, self.query);
        let mut call = server.bare("POST", &path).body(self.body.clone());
        for (name, value) in &self.headers {
            call = call.header(name, value.as_str().expect("a text"));
        }
        call
    }

    pub async fn is_refused(&self, server: &Server) -> bool {
        let status = self.call(server).send().await.status;
        assert!(status == 401 || status.is_success(), "{status}");
        status == 401
    }

    /// The same with one header's value changed in the middle.
    fn with_header(&self, name: &str) -> Case {
        let mut changed = self.clone();
        let value = changed.headers[name].as_str().expect("a text").to_owned();
        changed.headers[name] = json!(flipped(&value, value.len() / 2));
        changed
    }
}

/// The text with one letter or digit changed, at this place or behind it.
fn flipped(text: &str, from: usize) -> String {
    let at =
        text.bytes().enumerate().position(|(at, byte)| at >= from && byte.is_ascii_alphanumeric());
    let at = at.or_else(|| text.bytes().position(|byte| byte.is_ascii_alphanumeric()));
    let at = at.expect("there is a letter or a digit");
    let other = match text.as_bytes()[at] {
        b'0'..=b'8' => char::from(text.as_bytes()[at] + 1),
        b'9' => '0',
        b'a' | b'A' => 'c',
        _ => 'a',
    };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

#[tokio::test]
async fn every_preset_lets_its_sender_in_and_nobody_else() {
    let Cases { now, cases } = cases();
    let server = Server::since(Timestamp(now * 1000)).await;
    let mut seen = BTreeSet::new();
    for case in &cases {
        let about = format!("{} {}", case.preset, case.identity);
        case.make(&server).await;
        let answer = case.call(&server).send().await;
        assert!(answer.status.is_success(), "{about}: {answer:?}");
        let list = server.get(&format!("/v1/deliveries?source={}", case.preset)).ok().await;
        let found = list["data"].as_array().expect("a list").iter().find(|delivery| {
            delivery["identity"]["key"].as_str().is_some_and(|key| key.starts_with(&case.identity))
        });
        let found = found.unwrap_or_else(|| panic!("{about}: not among {list}"));
        assert_eq!(found["event_type"].as_str(), case.event_type.as_deref(), "{about}");
        // The sender's retry is the same delivery.
        let id = found["id"].as_str().expect("an id");
        let attempts = async || {
            let list = server.get(&format!("/v1/deliveries/{id}/attempts")).ok().await;
            list["data"].as_array().expect("a list").len()
        };
        let n_attempts = attempts().await;
        let again = case.call(&server).send().await;
        assert_eq!(again.status, answer.status, "{about}");
        assert_eq!(attempts().await, n_attempts + 1, "{about}");

        // Nothing is let in by a changed proof.
        let mut n_refused = 0;
        for name in case.headers.keys() {
            n_refused += usize::from(case.with_header(name).is_refused(&server).await);
            let mut without = case.clone();
            without.headers.remove(name);
            n_refused += usize::from(without.is_refused(&server).await);
        }
        if case.body_is_signed {
            let body = flipped(&case.body, case.body.len() / 2);
            let changed = Case { body, ..case.clone() };
            assert!(changed.is_refused(&server).await, "{about}: the body was changed");
        }
        let foreign = Case {
            body: case.body.replace(&case.secret, "another"),
            query: case.query.replace(&case.secret, "another"),
            ..case.clone()
        };
        if foreign.body != case.body || foreign.query != case.query {
            n_refused += usize::from(foreign.is_refused(&server).await);
        }
        let unsigned = Case { body: "{}".to_owned(), ..case.clone() };
        if n_refused == 0 {
            n_refused += usize::from(unsigned.is_refused(&server).await);
        }
        assert!(n_refused > 0, "{about}: nothing proves it");
        seen.insert(case.preset.as_str());
    }
    let known: BTreeSet<&str> = ingest::presets().iter().map(|it| it.id.as_str()).collect();
    assert_eq!(seen, known, "every preset has a case");

    // What has a time of its own is refused when that is over.
    server.clock.advance(Duration::from_secs(3600));
    for case in &cases {
        case.make(&server).await;
        assert_eq!(case.is_refused(&server).await, case.stale, "{} an hour later", case.preset);
    }
}

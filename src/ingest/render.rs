//! The text of the message that a delivery becomes: the public contract's text and nothing more.
//!
//! Agent endpoint: the payload, JSON pretty-printed in the sender's key order, other bodies as they
//! are. Named source: `Webhook from <source>:`, then the payload's first characters and, when there
//! is more, a marker that says so. A template of the source's own takes the place of both. Where it
//! came from is data beside the text; the fence is put around it only when a model request is built.

use std::borrow::Cow;

use super::{Payload, wording::Written};
use crate::{
    domain::{
        framed::Shows,
        source::{Source, SourceKind},
        text::first_chars,
    },
    store::Store,
};

/// A message's text, and whether the payload holds more than it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: Text,
    pub(super) cut: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Written(String),
    /// A beginning and then the whole payload, which nobody writes out before it is read.
    Payload {
        lead: String,
        shows: Shows,
    },
}

pub(super) fn render(source: &Source, payload: &Payload) -> Rendered {
    match &source.kind {
        SourceKind::Agent(_) => {
            let json = payload.utf8().filter(|_| payload.is_json());
            let ((text, cut), shows) = match json {
                Some(json) => ((Cow::from(json), false), Shows::Indented),
                None => (plain(payload), Shows::AsItIs),
            };
            Rendered { text: Text::of(String::new(), &text, shows, payload), cut }
        }
        SourceKind::Named => {
            let (text, replaced) = plain(payload);
            let chars_max = source.definition.message_chars_max;
            let (shown, cut) = first_chars(&text, chars_max);
            let lead = ["Webhook from ", &source.name, ":\n"].concat();
            if !cut {
                let text = Text::of(lead, &text, Shows::AsItIs, payload);
                return Rendered { text, cut: replaced };
            }
            let marker = marker(chars_max, text.chars().count());
            Rendered { text: Text::Written(format!("{lead}{shown}{marker}")), cut }
        }
    }
}

impl Text {
    /// A beginning, and what is said of the payload. Where that is all of it, and does not become large,
    /// its place is enough.
    fn of(lead: String, said: &str, shows: Shows, payload: &Payload) -> Text {
        let is_all = said.as_bytes() == &payload.bytes[..];
        if is_all && !Store::is_large(shows.bytes_max(said)) {
            return Text::Payload { lead, shows };
        }
        Text::Written(shows.behind(lead, said))
    }

    /// All of it, written out.
    pub(super) fn whole(self, payload: &Payload) -> String {
        match self {
            Text::Written(text) => text,
            Text::Payload { lead, shows } => shows.behind(lead, &payload.text()),
        }
    }
}

/// What a template wrote. It need not hold all of the payload, so the agent may read the rest.
pub(super) fn cut(written: Written) -> Rendered {
    let mut text = written.text;
    let n_shown = text.chars().count();
    if n_shown < written.n_chars {
        text.push_str(&marker(n_shown, written.n_chars));
    }
    Rendered { text: Text::Written(text), cut: true }
}

fn marker(n_shown: usize, n_chars: usize) -> String {
    format!("\n[cut: {n_shown} of {n_chars} characters; the `delivery` tool reads the rest]")
}

/// A body as it is; what is not text is described. Tells whether the text lacks something.
fn plain(payload: &Payload) -> (Cow<'_, str>, bool) {
    if payload.bytes.is_empty() {
        return ("(empty body)".into(), false);
    }
    if payload.is_binary() {
        let kind = payload.content_type.as_deref().unwrap_or("unknown type");
        return (format!("(binary body, {} bytes, {kind})", payload.bytes.len()).into(), true);
    }
    let text = payload.text();
    let complete = text.len() == payload.bytes.len();
    (text, !complete && payload.utf8().is_none())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        clock::Timestamp,
        domain::{ManagedBy, indent::indented, source::SourceDefinition},
        id::{AgentId, Id, SourceId},
    };

    fn source(kind: SourceKind) -> Source {
        Source {
            id: SourceId::new(Timestamp(0)),
            name: "stripe".to_owned(),
            kind,
            definition: SourceDefinition::default(),
            paused: false,
            managed_by: ManagedBy::Api,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            retired_at: None,
        }
    }

    /// What the message says in the end, whether it was cut, and whether the payload was left out.
    fn said(kind: SourceKind, body: &[u8]) -> (String, bool, bool) {
        let payload = Payload::of(None, Bytes::copy_from_slice(body));
        let Rendered { text, cut } = render(&source(kind), &payload);
        match text {
            Text::Written(text) => (text, cut, false),
            Text::Payload { lead, shows } => {
                let payload = payload.utf8().expect("what is shown whole is text");
                let payload = match shows {
                    Shows::AsItIs => payload.to_owned(),
                    Shows::Indented => indented(payload),
                };
                (lead + &payload, cut, true)
            }
        }
    }

    fn agent(body: &[u8]) -> (String, bool, bool) {
        said(SourceKind::Agent(AgentId::new(Timestamp(0))), body)
    }

    fn named(body: &str) -> (String, bool, bool) {
        said(SourceKind::Named, body.as_bytes())
    }

    #[test]
    fn json_is_indented_and_otherwise_left_alone() {
        let body = br#" {"z":1.0,"a":[1,2,{}],"t":"a\"{,}\u0000\ud800","z":[ ],"n":1e400} "#;
        let wanted = "{\n  \"z\": 1.0,\n  \"a\": [\n    1,\n    2,\n    {}\n  ],\n  \
            \"t\": \"a\\\"{,}\\u0000\\ud800\",\n  \"z\": [],\n  \"n\": 1e400\n}";
        assert_eq!(agent(body), (wanted.to_owned(), false, true));
        let marked = [b"\xef\xbb\xbf", &body[..]].concat();
        assert_eq!(agent(&marked), (wanted.to_owned(), false, false), "its mark is left out");
    }

    #[test]
    fn other_bodies_are_as_they_are() {
        for (body, text, cut, leaves_out) in [
            (&b"a=1&b=2"[..], "a=1&b=2", false, true),
            (b"", "(empty body)", false, false),
            (b"\xff\xfe\x00\x01\x02", "(binary body, 5 bytes, unknown type)", true, false),
            (
                b"caf\xe9 au lait, s'il vous plait",
                "caf\u{fffd} au lait, s'il vous plait",
                true,
                false,
            ),
            (b"a long text with one NUL\0", "a long text with one NUL", false, false),
        ] {
            assert_eq!(agent(body), (text.to_owned(), cut, leaves_out));
        }
    }

    #[test]
    fn what_could_become_large_is_written_out() {
        for (n, leaves_out) in [(1_000, true), (100_000, false)] {
            let (text, cut, left_out) = agent("a".repeat(n).as_bytes());
            assert_eq!((text.len(), cut, left_out), (n, false, leaves_out));
        }
        let nested = "[".repeat(3_000) + &"]".repeat(3_000);
        assert_eq!(agent(nested.as_bytes()), (indented(&nested), false, false));
    }

    #[test]
    fn a_named_source_is_cut_with_a_marker() {
        let (text, cut, left_out) = named(&"ä".repeat(2001));
        assert!(cut && !left_out && text.starts_with("Webhook from stripe:\nää"));
        assert!(
            text.ends_with("\n[cut: 2000 of 2001 characters; the `delivery` tool reads the rest]")
        );
        let whole = "Webhook from stripe:\n{\"b\":1}".to_owned();
        assert_eq!(named("{\"b\":1}"), (whole, false, true));
        assert!(!named(&"a".repeat(2000)).1);
    }
}

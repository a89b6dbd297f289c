//! The text of the message that a delivery becomes: the public contract's text and nothing more.
//!
//! Agent endpoint: the payload, JSON pretty-printed in the sender's key order, other bodies as they
//! are. Named source: `Webhook from <source>:`, then the payload's first characters and, when there
//! is more, a marker that says so. A template of the source's own takes the place of both. Where it
//! came from is data beside the text; the fence is put around it only when a model request is built.

use super::{Payload, wording::Written};
use crate::domain::{
    source::{Source, SourceKind},
    text::first_chars,
};

/// Beyond this depth values stay on one line: the indentation of hostile nesting would be larger
/// than the payload by orders of magnitude.
const INDENTED_DEPTH_MAX: usize = 64;

/// A message's text, and whether the payload holds more than it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) cut: bool,
}

pub(super) fn render(source: &Source, payload: &Payload) -> Rendered {
    match &source.kind {
        SourceKind::Agent(_) => {
            let json = payload.utf8().filter(|_| payload.is_json());
            let (text, cut) = match json {
                Some(json) => (pretty_json(json), false),
                None => plain(payload),
            };
            Rendered { text, cut }
        }
        SourceKind::Named => {
            let (text, replaced) = plain(payload);
            let chars_max = source.definition.message_chars_max;
            let (shown, cut) = first_chars(&text, chars_max);
            let mut message = format!("Webhook from {}:\n{shown}", source.name);
            if cut {
                message.push_str(&marker(chars_max, text.chars().count()));
            }
            Rendered { text: message, cut: cut || replaced }
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
    Rendered { text, cut: true }
}

fn marker(n_shown: usize, n_chars: usize) -> String {
    format!("\n[cut: {n_shown} of {n_chars} characters; the `delivery` tool reads the rest]")
}

/// A body as it is; what is not text is described. Tells whether the text lacks something.
fn plain(payload: &Payload) -> (String, bool) {
    if payload.bytes.is_empty() {
        return ("(empty body)".to_owned(), false);
    }
    if payload.is_binary() {
        let kind = payload.content_type.as_deref().unwrap_or("unknown type");
        return (format!("(binary body, {} bytes, {kind})", payload.bytes.len()), true);
    }
    let text = payload.text().into_owned();
    let complete = text.len() == payload.bytes.len();
    (text, !complete && payload.utf8().is_none())
}

/// Indents valid JSON by two spaces. Keys, numbers and texts stay as the sender wrote them,
/// to the letter: nothing is decoded, rounded, sorted or merged.
pub fn pretty_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 3 / 2);
    let mut depth = 0_usize;
    let mut rest = json.trim_matches([' ', '\t', '\r', '\n']).char_indices().peekable();
    let json = json.trim_matches([' ', '\t', '\r', '\n']);
    while let Some((at, char)) = rest.next() {
        match char {
            ' ' | '\t' | '\r' | '\n' => {}
            '"' => {
                let mut end = at + 1;
                while let Some((at, char)) = rest.next() {
                    end = at + char.len_utf8();
                    match char {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                out.push_str(&json[at..end]);
            }
            '{' | '[' => {
                out.push(char);
                depth += 1;
                while rest.next_if(|(_, char)| matches!(char, ' ' | '\t' | '\r' | '\n')).is_some() {
                }
                if let Some((_, close)) = rest.next_if(|(_, char)| matches!(char, '}' | ']')) {
                    out.push(close);
                    depth -= 1;
                } else {
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => out.push(other),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    if depth <= INDENTED_DEPTH_MAX {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        clock::Timestamp,
        domain::{ManagedBy, source::SourceDefinition},
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

    fn agent(body: &'static [u8]) -> Rendered {
        let kind = SourceKind::Agent(AgentId::new(Timestamp(0)));
        render(&source(kind), &Payload::of(None, Bytes::from_static(body)))
    }

    fn named(body: &str) -> Rendered {
        render(&source(SourceKind::Named), &Payload::of(None, body.to_owned().into()))
    }

    #[test]
    fn json_is_indented_and_otherwise_left_alone() {
        let body = br#" {"z":1.0,"a":[1,2,{}],"t":"a\"{,}\u0000\ud800","z":[ ],"n":1e400} "#;
        let wanted = "{\n  \"z\": 1.0,\n  \"a\": [\n    1,\n    2,\n    {}\n  ],\n  \
            \"t\": \"a\\\"{,}\\u0000\\ud800\",\n  \"z\": [],\n  \"n\": 1e400\n}";
        assert_eq!(agent(body), Rendered { text: wanted.to_owned(), cut: false });
    }

    #[test]
    fn pretty_printing_agrees_with_serde_on_ordinary_json() {
        let value =
            serde_json::json!({"b": [1, {"x": null, "y": [[], {}]}], "a": "ü\n", "c": -0.5});
        assert_eq!(pretty_json(&value.to_string()), serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn hostile_nesting_stays_small() {
        let body = "[".repeat(100_000) + &"]".repeat(100_000);
        let payload = Payload::of(None, body.clone().into());
        assert!(payload.is_json() && payload.tree().is_none());
        assert!(pretty_json(&body).len() < 2 * body.len());
    }

    #[test]
    fn other_bodies_are_as_they_are() {
        assert_eq!(agent(b"a=1&b=2").text, "a=1&b=2");
        assert_eq!(agent(b"").text, "(empty body)");
        assert_eq!(agent(b"\xff\xfe\x00\x01\x02").text, "(binary body, 5 bytes, unknown type)");
        assert_eq!(
            agent(b"caf\xe9 au lait, s'il vous plait").text,
            "caf\u{fffd} au lait, s'il vous plait"
        );
        assert!(agent(b"caf\xe9 au lait, s'il vous plait").cut);
    }

    #[test]
    fn a_named_source_is_cut_with_a_marker() {
        let long = "ä".repeat(2001);
        let rendered = named(&long);
        assert!(rendered.cut && rendered.text.starts_with("Webhook from stripe:\nää"));
        assert!(
            rendered
                .text
                .ends_with("\n[cut: 2000 of 2001 characters; the `delivery` tool reads the rest]")
        );
        assert_eq!(named("{\"b\":1}").text, "Webhook from stripe:\n{\"b\":1}");
        assert!(!named(&"a".repeat(2000)).cut);
    }
}

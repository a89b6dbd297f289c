//! A text made of a delivery: a session's key, or the message to the agent.
//!
//! A template in Jinja's language that is read once, with its source. Invariants: writing ends within
//! [`STEPS_MAX`] and [`BYTES_MAX`]; what is missing is an error and never an empty place in a text.
//! Left out: what the text is good for; the words of a message are payload like any other, and stay
//! behind its fence.

use std::{
    fmt,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

use minijinja::{Environment, ErrorKind, UndefinedBehavior, escape_formatter};

use super::Facts;
use crate::domain::text::{clean, first_chars, printable};

/// Longer templates are refused.
const TEMPLATE_BYTES_MAX: usize = 65_536;

/// Steps of the template's own instructions: enough for a page about a payload, not for all of it.
const STEPS_MAX: u64 = 10_000;

/// What a template may write, most of which is cut.
const BYTES_MAX: usize = 32 * 1024 * 1024;

pub(super) struct Wording(Environment<'static>);

impl fmt::Debug for Wording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wording")
    }
}

/// The beginning of a text, and how many characters all of it has.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) n_chars: usize,
}

const NULL_IN_KEY: &str = "a value is null";

const NAME: &str = "template";

impl Wording {
    /// Of a session's key: nothing but what is there may be a part of it, or unrelated deliveries
    /// would share a session named after nothing.
    pub(super) fn of_key(text: &str) -> Result<Wording, String> {
        let mut wording = Wording::of_message(text)?;
        wording.0.set_formatter(|out, state, value| match value.is_none() {
            true => Err(minijinja::Error::new(ErrorKind::InvalidOperation, NULL_IN_KEY)),
            false => escape_formatter(out, state, value),
        });
        Ok(wording)
    }

    pub(super) fn of_message(text: &str) -> Result<Wording, String> {
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("is longer than {TEMPLATE_BYTES_MAX} bytes"));
        }
        let read = || {
            let mut environment = Environment::new();
            environment.set_undefined_behavior(UndefinedBehavior::Strict);
            environment.set_fuel(Some(STEPS_MAX));
            environment
                .add_template_owned(NAME, text.to_owned())
                .map_err(|error| in_words(&error))?;
            Ok(Wording(environment))
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("cannot be read".to_owned()))
    }

    /// The text for a delivery, up to so many characters of it.
    pub(super) fn write(&self, facts: &Facts<'_>, chars_max: usize) -> Result<Written, String> {
        let mut page = Page { text: Vec::new(), bytes_max: chars_max * 4, n_chars: 0, n_bytes: 0 };
        let write = || {
            let template = self.0.get_template(NAME).map_err(|error| in_words(&error))?;
            let written = template.render_captured_to(facts.context(), &mut page);
            match written {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::WriteFailure => {
                    Err(format!("the text is longer than {BYTES_MAX} bytes"))
                }
                Err(error) => Err(in_words(&error)),
            }
        };
        catch_unwind(AssertUnwindSafe(write))
            .unwrap_or_else(|_| Err("it cannot be worked out for this delivery".to_owned()))?;
        let text = String::from_utf8_lossy(&page.text);
        let text = clean(first_chars(&text, chars_max).0).into_owned();
        Ok(Written { text, n_chars: page.n_chars })
    }
}

/// Keeps the beginning of what is written to it, and counts the rest.
struct Page {
    text: Vec<u8>,
    bytes_max: usize,
    n_chars: usize,
    n_bytes: usize,
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.n_bytes += bytes.len();
        if self.n_bytes > BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // Every character has one byte that does not continue another.
        self.n_chars += bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        let room = (self.bytes_max - self.text.len()).min(bytes.len());
        self.text.extend_from_slice(&bytes[..room]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The library's words, with the line and without the name that nobody gave the template.
fn in_words(error: &minijinja::Error) -> String {
    let words = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("it takes more than {STEPS_MAX} steps"),
        (ErrorKind::UndefinedError, None) => {
            "it uses a field that is not there; say what to write instead with `default(…)`"
                .to_owned()
        }
        (kind, None) => kind.to_string(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
    };
    let words = printable(first_chars(&words, WORDS_CHARS_MAX).0);
    match error.line() {
        Some(line) => format!("line {line}: {words}"),
        None => words,
    }
}

const WORDS_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        clock::Timestamp,
        domain::source::SourceDefinition,
        id::{DeliveryId, Id},
        ingest::{Head, Payload, Sender},
    };

    fn write(template: &str, body: &[u8], chars_max: usize) -> Result<(String, usize), String> {
        let payload = Payload::of(None, body.to_vec().into());
        let sender = Sender::defined(&SourceDefinition::default()).unwrap();
        let (id, at, head) = (DeliveryId::new(Timestamp(0)), Timestamp(0), Head::of_nobody());
        let facts = Facts::new(&id, ("code", &sender), Some("push"), &head, &payload, at);
        let written = Wording::of_message(template)?.write(&facts, chars_max)?;
        Ok((written.text, written.n_chars))
    }

    #[test]
    fn templates_write_texts() {
        let body = json!({"n": 7, "t": "<ü>\u{0}", "l": ["a", "b"], "none": null}).to_string();
        let check = |template: &str, expected: &str| {
            let (text, _) = write(template, body.as_bytes(), 100).expect(template);
            assert_eq!(text, expected, "{template}");
        };
        check("{{ source }}/{{ event_type }} #{{ body.n }} {{ body.t }}", "code/push #7 <ü>");
        check("{% for x in body.l %}- {{ x }}\n{% endfor %}", "- a\n- b\n");
        check("{{ body.other | default('nothing') }}", "nothing");
        check("{% if body.none %}x{% else %}y{% endif %}", "y");
        check("{{ (body.other | default(body)).n }}", "7");
        check("{{ received_at }} {{ content_type }}", "1970-01-01T00:00:00.000Z None");
        assert_eq!(write("{{ body }}", b"plain", 3), Ok(("pla".to_owned(), 5)));
        assert_eq!(write("{{ body.t }}ü", body.as_bytes(), 2), Ok(("<ü".to_owned(), 5)));
    }

    #[test]
    fn what_cannot_be_written_has_a_reason() {
        let check = |template: &str, expected: &str| {
            let body = json!({"n": 7, "s": "secret words", "l": vec!["a"; 10_000]}).to_string();
            let reason = write(template, body.as_bytes(), 10).expect_err(template);
            assert_eq!(reason, expected, "{template}");
        };
        let missing = "line 1: it uses a field that is not there; say what to write instead with \
                       `default(…)`";
        check("{{ body.other }}", missing);
        check("{{ body.other.more }}", missing);
        check("\n{{ body.other or 1 }}", &missing.replace('1', "2"));
        check("{% for x in body.l %}{{ x }}{% endfor %}", "line 1: it takes more than 10000 steps");
        check("", "is empty");
        check(
            "{{ body",
            "line 1: syntax error: unexpected end of input, expected end of variable block",
        );
        check("{{ body | nothing }}", "line 1: unknown filter: filter nothing is unknown");
        check(
            "{{ body.s + 1 }}",
            "line 1: invalid operation: tried to use + operator on unsupported types string and number",
        );
        check(
            "{% for x in range(2000) %}{{ body.l }}{% endfor %}",
            "the text is longer than 33554432 bytes",
        );
    }
}

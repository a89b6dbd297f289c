//! A body that was let in: raw bytes, and what they turn out to be when somebody asks.

use std::{borrow::Cow, cell::OnceCell};

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::pointer;
use crate::domain::text::{clean, first_chars};

/// Raw bytes with lazy views on them. Nothing here can fail: a body that is not JSON is welcome.
#[derive(Debug)]
pub struct Payload {
    pub bytes: Bytes,
    pub content_type: Option<String>,
    tree: OnceCell<Option<Value>>,
    is_json: OnceCell<bool>,
}

/// Values of one tree. Each takes 72 bytes and more, and two bytes of a body make one.
const VALUES_MAX: usize = 1_000_000;

const BYTE_ORDER_MARK: &str = "\u{feff}";

impl Payload {
    pub fn new(headers: &HeaderMap, bytes: Bytes) -> Payload {
        let content_type = headers.get(CONTENT_TYPE).map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            first_chars(&clean(&text), 200).0.to_owned()
        });
        Payload::of(content_type, bytes)
    }

    pub fn of(content_type: Option<String>, bytes: Bytes) -> Payload {
        Payload { bytes, content_type, tree: OnceCell::new(), is_json: OnceCell::new() }
    }

    /// What is kept of it; what it turned out to be is not.
    pub fn into_parts(self) -> (Bytes, Option<String>) {
        (self.bytes, self.content_type)
    }

    /// The body as text when it is valid UTF-8, without a byte order mark.
    pub fn utf8(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        Some(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
    }

    /// The body as text, whatever it is: broken UTF-8 is replaced, NUL removed.
    pub fn text(&self) -> Cow<'_, str> {
        match self.utf8() {
            Some(text) => clean(text),
            None => {
                let text = String::from_utf8_lossy(&self.bytes);
                Cow::Owned(clean(&text).into_owned())
            }
        }
    }

    /// Whether most of the body is not text, so that showing it as text helps nobody.
    pub fn is_binary(&self) -> bool {
        // What was read as JSON has no byte that this would count.
        if self.is_json.get() == Some(&true) {
            return false;
        }
        let sample = &self.bytes[..self.bytes.len().min(4096)];
        let control = |bytes: &[u8]| {
            // Few enough for a count in one byte, with which many are looked at in one step.
            let odd = bytes.iter().map(|byte| u8::from(matches!(byte, 0..=8 | 14..=26 | 28..=31)));
            usize::from(odd.sum::<u8>())
        };
        let odd: usize = sample.chunks(255).map(control).sum();
        let broken = match std::str::from_utf8(sample) {
            Ok(_) => 0,
            Err(_) => sample.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count(),
        };
        (odd + broken) * 10 > sample.len()
    }

    /// Whether the body is one JSON value. However deeply it is nested, this does not recurse.
    pub fn is_json(&self) -> bool {
        *self.is_json.get_or_init(|| {
            self.utf8().is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
        })
    }

    /// The body as a tree, for pointers and templates: JSON, or the fields of a form, whose field
    /// `payload` is the tree when it holds JSON, as GitHub and Slack send it. `None` when it is
    /// neither, is nested more than 128 deep, has texts that are not Unicode, or more values than
    /// anybody should hold in memory.
    pub fn tree(&self) -> Option<&Value> {
        let parse = || match self.is_form() {
            true => form(&self.bytes),
            false if self.has_too_many_values() => None,
            false => self.utf8().and_then(|text| serde_json::from_str(text).ok()),
        };
        self.tree.get_or_init(parse).as_ref()
    }

    /// Commas and brackets within texts count as well: it is a bound, not a count.
    fn has_too_many_values(&self) -> bool {
        let marks = || self.bytes.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
        self.bytes.len() > VALUES_MAX && marks() > VALUES_MAX
    }

    fn is_form(&self) -> bool {
        let kind = self.content_type.as_deref().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }

    /// The scalar at a JSON pointer, as text. Where the pointer has a `*` for every element of a
    /// list: all of them, as a JSON list of texts.
    pub fn at(&self, pointer: &str) -> Option<String> {
        if self.tree.get().is_none() && !self.is_form() && !pointer.contains('*') {
            // One value needs no tree of all the others.
            let found = pointer::find(self.utf8()?, pointer).ok()?;
            // The reader came to the end, so nobody has to go there again to know that it is JSON.
            let _ = self.is_json.set(true);
            return scalar(&found?);
        }
        let tree = self.tree()?;
        let found = find(tree, pointer);
        if pointer.contains('*') && tree.pointer(pointer).is_none() {
            let texts: Vec<String> = found.into_iter().filter_map(scalar).collect();
            return (!texts.is_empty()).then(|| Value::from(texts).to_string());
        }
        found.first().and_then(|value| scalar(value))
    }
}

/// The values at a JSON pointer, in which `*` stands for every element of a list.
pub(super) fn find<'a>(tree: &'a Value, pointer: &str) -> Vec<&'a Value> {
    let mut found = vec![tree];
    for word in pointer.split('/').skip(1) {
        let word = pointer::word(word);
        let mut below = Vec::new();
        for value in found {
            match value {
                Value::Array(list) if word == "*" => below.extend(list),
                Value::Array(list) => {
                    let at = pointer::index(&word).and_then(|n| list.get(n));
                    below.extend(at);
                }
                Value::Object(map) => below.extend(map.get(&*word)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        found = below;
    }
    found
}

/// [`find`], to change what is found.
pub(super) fn find_mut<'a>(tree: &'a mut Value, pointer: &str) -> Vec<&'a mut Value> {
    let mut found = vec![tree];
    for word in pointer.split('/').skip(1) {
        let word = pointer::word(word);
        let mut below = Vec::new();
        for value in found {
            match value {
                Value::Array(list) => match pointer::index(&word) {
                    _ if word == "*" => below.extend(list),
                    at => below.extend(at.and_then(|at| list.get_mut(at))),
                },
                Value::Object(map) => below.extend(map.get_mut(&*word)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        found = below;
    }
    found
}

/// The text of a value that is one.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(clean(text).into_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Fields of a form that are looked at; senders have some dozens.
const FORM_FIELDS_MAX: usize = 1000;

/// A form as an object; a field that is there more than once is a list.
fn form(bytes: &[u8]) -> Option<Value> {
    let mut fields = serde_json::Map::new();
    for (name, value) in form_urlencoded::parse(bytes).take(FORM_FIELDS_MAX) {
        let value = Value::from(value.into_owned());
        match fields.get_mut(&*name) {
            None => drop(fields.insert(name.into_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::from(vec![first.take(), value]),
        }
    }
    let inner = fields.get("payload").and_then(Value::as_str).filter(|text| text.starts_with('{'));
    let inner = inner.and_then(|text| serde_json::from_str(text).ok());
    inner.or(Some(Value::Object(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_json_and_in_forms() {
        let check = |kind: Option<&str>, body: &str, pointer: &str, expected: Option<&str>| {
            let payload = Payload::of(kind.map(str::to_owned), body.to_owned().into());
            assert_eq!(payload.at(pointer).as_deref(), expected, "{body} at {pointer}");
        };
        let json = r#"{"a":{"b/c":[1,"x",null]},"*":"star","l":[{"id":1},{"id":"2"},{}],"t":true}"#;
        check(None, json, "/a/b~1c/1", Some("x"));
        check(None, json, "/a/b~1c/0", Some("1"));
        check(None, json, "/a/b~1c/2", None);
        check(None, json, "/a", None);
        check(None, json, "/t", Some("true"));
        check(None, json, "/*", Some("star"));
        check(None, json, "/l/*/id", Some(r#"["1","2"]"#));
        check(None, json, "/l/*/no", None);
        check(None, json, "/l/9/id", None);
        check(None, r#"[{"e":"a\"b"}]"#, "/*/e", Some(r#"["a\"b"]"#));
        check(None, "7", "", Some("7"));
        let kind = Some("application/x-www-form-urlencoded; charset=utf-8");
        check(kind, "MessageSid=SM1&a=%C3%BC+1&a=2", "/MessageSid", Some("SM1"));
        check(kind, "MessageSid=SM1&a=%C3%BC+1&a=2", "/a/*", Some(r#"["ü 1","2"]"#));
        check(kind, "payload=%7B%22action%22%3A%22opened%22%7D&x=1", "/action", Some("opened"));
        check(kind, "payload=plain&x=1", "/x", Some("1"));
        check(Some("text/plain"), "a=1", "/a", None);
    }
}

//! A body that was let in: raw bytes, and what they turn out to be when somebody asks.

use std::{borrow::Cow, cell::OnceCell};

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::domain::text::{clean, first_chars};

/// Raw bytes with lazy views on them. Nothing here can fail: a body that is not JSON is welcome.
#[derive(Debug)]
pub struct Payload {
    pub bytes: Bytes,
    pub content_type: Option<String>,
    tree: OnceCell<Option<Value>>,
    is_json: OnceCell<bool>,
}

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
        let sample = &self.bytes[..self.bytes.len().min(4096)];
        let odd = sample.iter().filter(|byte| matches!(byte, 0..=8 | 14..=26 | 28..=31)).count();
        let broken = String::from_utf8_lossy(sample).matches('\u{fffd}').count();
        (odd + broken) * 10 > sample.len()
    }

    /// Whether the body is one JSON value. However deeply it is nested, this does not recurse.
    pub fn is_json(&self) -> bool {
        *self.is_json.get_or_init(|| {
            self.utf8().is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
        })
    }

    /// The body as a tree, for pointers and templates. `None` when it is not JSON, is nested more
    /// than 128 deep, or has texts that are not Unicode.
    pub fn tree(&self) -> Option<&Value> {
        let parse = || self.utf8().and_then(|text| serde_json::from_str(text).ok());
        self.tree.get_or_init(parse).as_ref()
    }

    /// The scalar at a JSON pointer, as text.
    pub fn at(&self, pointer: &str) -> Option<String> {
        match self.tree()?.pointer(pointer)? {
            Value::String(text) => Some(clean(text).into_owned()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

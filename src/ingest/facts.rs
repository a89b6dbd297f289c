//! What a source's filter, rules and templates may know of a delivery.
//!
//! Invariant: headers that carry a secret are not among it. Everything is made when it is asked for
//! first, so that a source that asks for nothing pays nothing. The names that people write for these
//! are the same in conditions and in templates.

use std::cell::OnceCell;

use http::HeaderMap;
use serde_json::{Map, Value};

use super::{Payload, Sender, identify};
use crate::{
    clock::Timestamp,
    id::{DeliveryId, Id},
};

pub(super) struct Facts<'a> {
    pub(super) delivery: &'a DeliveryId,
    pub(super) source: &'a str,
    pub(super) event_type: Option<&'a str>,
    pub(super) payload: &'a Payload,
    pub(super) at: Timestamp,
    sender: &'a Sender,
    all_headers: &'a HeaderMap,
    headers: OnceCell<Value>,
    body: OnceCell<Option<Value>>,
    received_at: OnceCell<String>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        delivery: &'a DeliveryId,
        (source, sender): (&'a str, &'a Sender),
        event_type: Option<&'a str>,
        headers: &'a HeaderMap,
        payload: &'a Payload,
        at: Timestamp,
    ) -> Facts<'a> {
        Facts {
            delivery,
            source,
            event_type,
            payload,
            at,
            sender,
            all_headers: headers,
            headers: OnceCell::new(),
            body: OnceCell::new(),
            received_at: OnceCell::new(),
        }
    }

    /// JSON and forms as a tree, other text as text, else null.
    pub(super) fn body(&self) -> &Value {
        if let Some(tree) = self.payload.tree() {
            return tree;
        }
        let text = || {
            let is_text = !self.payload.is_json() && !self.payload.is_binary();
            let text = is_text.then(|| self.payload.utf8()).flatten()?;
            (!text.is_empty()).then(|| Value::from(crate::domain::text::clean(text)))
        };
        self.body.get_or_init(text).as_ref().unwrap_or(&Value::Null)
    }

    /// By lower-case name, without those that carry a secret.
    pub(super) fn headers(&self) -> &Value {
        self.headers.get_or_init(|| {
            let shown =
                self.all_headers.keys().filter(|it| !identify::is_sensitive(self.sender, it));
            let shown = shown.filter_map(|name| {
                let value = identify::header(self.all_headers, name.as_str())?;
                Some((name.as_str().to_owned(), Value::from(value)))
            });
            Value::Object(shown.collect::<Map<_, _>>())
        })
    }

    pub(super) fn content_type(&self) -> Option<&str> {
        self.payload.content_type.as_deref()
    }

    pub(super) fn delivery_id(&self) -> &str {
        self.delivery.as_str()
    }

    pub(super) fn received_at(&self) -> &str {
        self.received_at.get_or_init(|| self.at.to_string())
    }
}

//! What a source's filter, rules and templates may know of a delivery.
//!
//! Invariant: headers that carry a secret are not among it. Everything is made when it is asked for
//! first, so that a source that asks for nothing pays nothing. The names that people write for these
//! are the same in conditions and in templates.

use std::cell::OnceCell;

use minijinja::{context, value::Serde};
use serde_json::{Map, Value};

use super::{Head, Payload, Sender, identify};
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
    pub(super) sender: &'a Sender,
    pub(super) head: &'a Head,
    headers: OnceCell<Value>,
    body: OnceCell<Option<Value>>,
    received_at: OnceCell<String>,
    context: OnceCell<minijinja::Value>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        delivery: &'a DeliveryId,
        (source, sender): (&'a str, &'a Sender),
        event_type: Option<&'a str>,
        head: &'a Head,
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
            head,
            headers: OnceCell::new(),
            body: OnceCell::new(),
            received_at: OnceCell::new(),
            context: OnceCell::new(),
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
            let all = &self.head.headers;
            let shown = all.keys().filter(|name| !identify::is_sensitive(self.sender, name));
            let shown = shown.filter_map(|name| {
                let value = identify::header(all, name.as_str())?;
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

    /// All of it for templates.
    pub(super) fn context(&self) -> minijinja::Value {
        let make = || {
            let value = |value: &Value| minijinja::Value::from(Serde(value));
            context! {
                body => value(self.body()),
                headers => value(self.headers()),
                event_type => self.event_type,
                source => self.source,
                content_type => self.content_type(),
                delivery_id => self.delivery_id(),
                received_at => self.received_at(),
            }
        };
        self.context.get_or_init(make).clone()
    }

    pub(super) fn received_at(&self) -> &str {
        self.received_at.get_or_init(|| self.at.to_string())
    }
}

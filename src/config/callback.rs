//! Reads `callback` of an agent or a source: where results are sent.

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    reader::Entry,
    source::{refuse_unknown, secret_name},
    value,
};
use crate::domain::callback::{Callback, Format, Kind, check_secret, check_url, shown};

/// A callback as the file declares it.
#[derive(Clone, Debug)]
pub struct DeclaredCallback {
    pub url: SecretString,
    parsed: Url,
    events: Vec<Kind>,
    format: Option<Format>,
    secret_key: Option<String>,
    /// The value of the signing secret, if the file gives it; else it is in the vault, or made.
    pub secret: Option<SecretString>,
}

const KEYS: [&str; 5] = ["events", "format", "secret", "secret_key", "url"];

/// The URL may be a text, `{ file = … }` or `{ env = … }`, as it often is a secret itself.
pub(super) fn read(entry: &mut Entry<'_, '_>, near: &[String]) -> Option<DeclaredCallback> {
    let Value::Object(values) = entry.raw("callback")? else {
        entry.problem("callback", "must be a table");
        return None;
    };
    let at = entry.at("callback");
    refuse_unknown(entry.reader, &at, values, &KEYS);
    let mut entry = Entry { reader: entry.reader, at, values };
    let url = match entry.raw("url") {
        None => {
            entry.problem("url", "is required");
            None
        }
        Some(given) => {
            let at = entry.at("url");
            entry.reader.secret(&at, given)
        }
    };
    let parsed = url.as_ref().map(|url| check_url(url.expose_secret(), near));
    let parsed = match parsed {
        Some(Err(problem)) => {
            entry.problem("url", problem.message);
            None
        }
        parsed => parsed.and_then(Result::ok),
    };
    let events = entry
        .get("events", value::list(Kind::WANTED.len(), value::choice(&Kind::WANTED)))
        .unwrap_or_else(Kind::all);
    if events.is_empty() {
        entry.problem("events", "must name one or more, or be left out");
    }
    let format = entry.get("format", value::choice(&Format::NAMES));
    let secret_key = entry.get("secret_key", secret_name);
    let secret = entry.raw("secret").and_then(|given| {
        let at = entry.at("secret");
        entry.reader.secret(&at, given)
    });
    if let Some(Err(problem)) = secret.as_ref().map(|it| check_secret(it.expose_secret())) {
        entry.problem("secret", problem.message);
    }
    let (url, parsed) = url.zip(parsed)?;
    Some(DeclaredCallback { url, parsed, events, format, secret_key, secret })
}

impl DeclaredCallback {
    /// Of an agent (by its id) or a source (by its name).
    pub fn of(&self, owner: &str) -> Callback {
        let mut callback = Callback::new(owner, &self.parsed);
        callback.events.clone_from(&self.events);
        callback.events.sort_unstable();
        callback.events.dedup();
        if let Some(format) = self.format {
            callback.format = format;
            callback.url = shown(&self.parsed, format);
        }
        if let Some(name) = &self.secret_key {
            callback.secret_key.clone_from(name);
        }
        callback
    }
}

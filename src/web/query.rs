//! The query of a request, and the pages of a list.
//!
//! Lists and ranges come in brackets (`types[]=a`, `created_at[gt]=…`), as the official SDKs send
//! them. Unknown names are passed over: older SDKs add `beta=true` to everything. A cursor is opaque
//! and carries the list and order that it belongs to, so that it cannot be used for another one.

use std::{str::FromStr, time::Duration};

use axum::{Json, extract::FromRequestParts, http::request::Parts};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    App,
    error::{Error, Result},
};
use crate::{
    clock::Timestamp,
    domain::{Problem, text::clean},
    store::Page,
};

/// Names and values in order. The first of several with one name counts, but in lists.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl FromRequestParts<App> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Query> {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let pairs = form_urlencoded::parse(query);
        Ok(Query(pairs.map(|(key, value)| (key.into(), clean(&value).into_owned())).collect()))
    }
}

/// The least resolution of a time: what lies strictly after one is at least this much later.
const TICK: Duration = Duration::from_millis(1);

/// First and last moment of a range, both included.
pub(super) type Range = (Option<Timestamp>, Option<Timestamp>);

impl Query {
    /// A value that is there and not empty.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let value = self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// A value of a type that reads itself.
    pub(super) fn get<T: FromStr>(&self, key: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let read = |text: &str| {
            text.parse().map_err(|error| Problem::new(key, format!("is {error}")).into())
        };
        self.text(key).map(read).transpose()
    }

    /// All values of a list, with or without brackets.
    pub(super) fn list(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, _)| name.strip_suffix("[]").unwrap_or(name) == key)
            .map(|(_, value)| value.as_str())
    }

    /// One word of a closed list.
    pub(super) fn word<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
    ) -> Result<Option<T>> {
        let read = |text| parse(text).ok_or_else(|| wrong_word(key, wanted));
        self.text(key).map(read).transpose()
    }

    pub(super) fn words<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
    ) -> Result<Vec<T>> {
        let read = |text| parse(text).ok_or_else(|| wrong_word(key, wanted));
        self.list(key).map(read).collect()
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        let parse = |text: &str| text.parse().ok();
        Ok(self.word(key, parse, "`true` or `false`")?.unwrap_or(false))
    }

    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize> {
        let Some(text) = self.text("limit") else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=max).contains(limit));
        let wanted = || Problem::new("limit", format!("must be a whole number from 1 to {max}"));
        limit.ok_or_else(|| wanted().into())
    }

    /// Whether the newest come first.
    pub(super) fn newest_first(&self, default: bool) -> Result<bool> {
        let parse = |text: &str| match text {
            "desc" => Some(true),
            "asc" => Some(false),
            _ => None,
        };
        Ok(self.word("order", parse, "`asc` or `desc`")?.unwrap_or(default))
    }

    /// `key[gt|gte|lt|lte]`.
    pub(super) fn range(&self, key: &str) -> Result<Range> {
        let at = |bound: &str| -> Result<Option<Timestamp>> {
            let name = format!("{key}[{bound}]");
            let parse = |text: &str| text.parse::<Timestamp>().ok();
            self.word(&name, parse, "a time such as `2026-01-31T12:00:00Z`")
        };
        let first = at("gte")?.max(at("gt")?.map(|time| time.plus(TICK)));
        let before = at("lt")?.map(|time| time.minus(TICK));
        let last = match (at("lte")?, before) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok((first, last))
    }

    /// Where the page begins, as the store said it.
    pub(super) fn page<T: FromStr>(&self, list: &str) -> Result<Option<T>> {
        Ok(self.text("page").map(|text| place(list, text)).transpose()?)
    }
}

/// The place that a cursor of a list says.
pub(super) fn place<T: FromStr>(list: &str, text: &str) -> Result<T, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let cursor = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let cursor = cursor.as_deref().and_then(|text| text.split_once(':'));
    let place = cursor.filter(|(of, _)| *of == list).and_then(|(_, place)| place.parse().ok());
    place.ok_or_else(|| Problem::new("page", "is not a page of this list in this order"))
}

fn wrong_word(key: &str, wanted: &str) -> Error {
    Problem::new(key, format!("must be {wanted}")).into()
}

/// Where the next page of a list begins.
pub(super) fn cursor(list: &str, place: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{place}"))
}

/// A page as every list answers it.
pub(super) fn page<T>(list: &str, page: Page<T>, show: impl Fn(&T) -> Value) -> Json<Value> {
    let next = page.next.map(|place| cursor(list, &place));
    let data: Vec<Value> = page.data.iter().map(show).collect();
    Json(json!({"data": data, "next_page": next}))
}

/// A list that fits on one page.
pub(super) fn whole(data: Vec<Value>) -> Json<Value> {
    Json(json!({"data": data, "next_page": null}))
}

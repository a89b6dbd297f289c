//! What a request says: the fields of its JSON body, its query, the id in its path.
//!
//! Invariant: a field that nobody asked for is refused with its name, so that a misspelt one is not
//! a silent default. A body may come without a content type and, where every field is optional, may
//! be empty. Texts pass through [`clean`] here, the domain's door.

use std::{collections::BTreeMap, ops::RangeInclusive};

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::request::Parts,
};
use serde_json::{Map, Value};

use super::{
    App,
    error::{Error, Result},
    intake,
};
use crate::{
    clock::Timestamp,
    domain::{Metadata, Problem, check_metadata, text::clean, turn::TURN_LIMIT_MAX},
    ingest::Permit,
};

/// The fields of a JSON object. Each is taken out when it is read; what is left in the end is
/// unknown.
#[derive(Debug, Default)]
pub(super) struct Fields {
    map: Map<String, Value>,
    _permit: Permit,
}

impl FromRequest<App> for Fields {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Fields> {
        let (parts, body) = request.into_parts();
        let declared = intake::declared(&parts.headers);
        let (bytes, permit) =
            intake::read(&app.ingest.bounds, declared, body, Permit::default()).await?;
        let map = if bytes.iter().all(u8::is_ascii_whitespace) {
            Map::new()
        } else {
            match serde_json::from_slice(&bytes) {
                Ok(Value::Object(map)) => map,
                Ok(_) => return Err(Error::invalid("the body must be a JSON object")),
                Err(error) => {
                    return Err(Error::invalid(format!("the body is not valid JSON: {error}")));
                }
            }
        };
        Ok(Fields { map, _permit: permit })
    }
}

impl Fields {
    /// From a value inside another body.
    pub(super) fn of(value: Value, at: &str) -> Result<Fields, Problem> {
        match value {
            Value::Object(map) => Ok(Fields { map, _permit: Permit::default() }),
            _ => Err(Problem::new(at, "must be an object")),
        }
    }

    /// A field as it is, null included.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        // Keeps the order of the rest, so that the first unknown one is what the sender wrote first.
        self.map.shift_remove(key)
    }

    /// Whether a field is there, null included.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A field that is there and not null.
    pub(super) fn value(&mut self, key: &str) -> Option<Value> {
        self.take(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str, chars_max: usize) -> Result<Option<String>, Problem> {
        self.value(key).map(|value| text(key, &value, chars_max)).transpose()
    }

    /// A text of a change: nothing where the field is left out, and nothing in its place where it is
    /// null.
    pub(super) fn clearable(
        &mut self,
        key: &str,
        chars_max: usize,
    ) -> Result<Option<Option<String>>, Problem> {
        let Some(given) = self.take(key) else { return Ok(None) };
        let given = Some(given).filter(|it| !it.is_null());
        given.map(|given| text(key, &given, chars_max)).transpose().map(Some)
    }

    /// A text that must be there and not be empty.
    pub(super) fn required(&mut self, key: &str, chars_max: usize) -> Result<String, Problem> {
        let text = self.text(key, chars_max)?;
        text.filter(|text| !text.is_empty()).ok_or_else(|| Problem::new(key, "is required"))
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Problem> {
        self.value(key).map(|value| number(key, &value, range)).transpose()
    }

    pub(super) fn time(&mut self, key: &str) -> Result<Option<Timestamp>, Problem> {
        let wrong = || Problem::new(key, "must be a time of RFC 3339");
        let text = self.text(key, 64)?;
        text.map(|text| text.parse().map_err(|_| wrong())).transpose()
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<bool, Problem> {
        match self.value(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(Problem::new(key, "must be true or false")),
        }
    }

    pub(super) fn list(&mut self, key: &str) -> Result<Vec<Value>, Problem> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(Problem::new(key, "must be a list")),
        }
    }

    pub(super) fn metadata(&mut self) -> Result<Metadata, Problem> {
        let wrong = || Problem::new("metadata", "must be an object of texts");
        let map = match self.value("metadata") {
            None => return Ok(Metadata::new()),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(wrong()),
        };
        let pairs = map.into_iter().map(|(key, value)| match value {
            Value::String(value) => Ok((clean(&key).into_owned(), clean(&value).into_owned())),
            _ => Err(wrong()),
        });
        let metadata = pairs.collect::<Result<BTreeMap<_, _>, Problem>>()?;
        check_metadata(&metadata)?;
        Ok(metadata)
    }

    /// A change of metadata: a text upserts, null deletes. Nothing where the field is not there.
    pub(super) fn metadata_patch(&mut self) -> Result<BTreeMap<String, Option<String>>, Problem> {
        let wrong = || Problem::new("metadata", "must be an object of texts and nulls");
        let map = match self.value("metadata") {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(wrong()),
        };
        let pairs = map.into_iter().map(|(key, value)| match value {
            Value::Null => Ok((clean(&key).into_owned(), None)),
            Value::String(value) => {
                Ok((clean(&key).into_owned(), Some(clean(&value).into_owned())))
            }
            _ => Err(wrong()),
        });
        pairs.collect()
    }

    /// Texts in a list, each of 1 to so many characters.
    pub(super) fn texts(&mut self, key: &str, chars_max: usize) -> Result<Vec<String>, Problem> {
        let read = |(n, value): (usize, Value)| {
            let at = format!("{key}[{n}]");
            let text = text(&at, &value, chars_max)?;
            if text.is_empty() {
                return Err(Problem::new(at, "must not be empty"));
            }
            Ok(text)
        };
        self.list(key)?.into_iter().enumerate().map(read).collect()
    }

    /// Everything that was not taken, for a type that refuses what it does not know.
    pub(super) fn rest(self) -> Value {
        Value::Object(self.map)
    }

    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => Err(Problem::new(clean(key), "is not a field of this request")),
        }
    }
}

pub(super) fn text(at: &str, value: &Value, chars_max: usize) -> Result<String, Problem> {
    match value {
        Value::String(text) if text.chars().count() <= chars_max => Ok(clean(text).into_owned()),
        Value::String(_) => Err(Problem::new(at, format!("is longer than {chars_max} characters"))),
        _ => Err(Problem::new(at, "must be a text")),
    }
}

pub(super) fn number(at: &str, value: &Value, range: RangeInclusive<u64>) -> Result<u64, Problem> {
    value.as_u64().filter(|number| range.contains(number)).ok_or_else(|| {
        Problem::new(
            at,
            format!("must be a whole number from {} to {}", range.start(), range.end()),
        )
    })
}

/// A number, or null for the default.
pub(super) fn or_default<T: TryFrom<u64>>(
    at: &str,
    value: &Value,
    range: RangeInclusive<u32>,
) -> Result<Option<T>, Problem> {
    let range = u64::from(*range.start())..=u64::from(*range.end());
    match value {
        Value::Null => Ok(None),
        value => number(at, value, range).map(|number| T::try_from(number).ok()),
    }
}

/// Turns that an agent or a source may have; null for any number.
pub(super) fn turns(at: &str, value: &Value) -> Result<Option<u32>, Problem> {
    or_default(at, value, 1..=TURN_LIMIT_MAX)
}

/// The id in a path. One of another kind is nobody's: 404.
pub(super) struct At<T>(pub(super) T);

impl<T: std::str::FromStr> FromRequestParts<App> for At<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<At<T>> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        // Nothing is stored under a name with NUL, and it is no other name without it.
        let text = path.ok().map(|Path(text)| text).filter(|text| !text.contains('\0'));
        let id = text.and_then(|text| text.parse().ok());
        id.map(At).ok_or_else(|| Error::not_found("there is nothing with this id"))
    }
}

/// The ids of a thing and of one within it, in a path.
pub(super) struct Within<A, B>(pub(super) A, pub(super) B);

impl<A: std::str::FromStr, B: std::str::FromStr> FromRequestParts<App> for Within<A, B> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Within<A, B>> {
        let path = Path::<(String, String)>::from_request_parts(parts, app).await;
        let texts = path.ok().map(|Path(texts)| texts);
        let texts = texts.filter(|(a, b)| !a.contains('\0') && !b.contains('\0'));
        let ids = texts.and_then(|(a, b)| a.parse().ok().zip(b.parse().ok()));
        let (outer, inner) =
            ids.ok_or_else(|| Error::not_found("there is nothing with this id"))?;
        Ok(Within(outer, inner))
    }
}

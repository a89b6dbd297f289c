//! From the bytes of a file to one JSON value: TOML or JSON, whichever the name or the first
//! character says.
//!
//! Invariant: a message about a syntax error says where, and never quotes the line: it may hold a
//! secret. A key that is there twice is refused in both formats; in JSON the last one would win
//! silently otherwise.

use std::{fmt, path::Path};

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::problem::{Problem, join};

/// A file as it was read.
#[derive(Clone)]
pub struct FileText {
    pub path: std::path::PathBuf,
    /// Not a `String`: that the file is no UTF-8 is a problem like any other.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for FileText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileText")
            .field("path", &self.path)
            .field("n_bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// The table that a file holds, or everything that is wrong with its syntax.
pub(super) fn parse(file: &FileText) -> Result<Map<String, Value>, Vec<Problem>> {
    let name = file.path.display().to_string();
    let bytes = file.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&file.bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        vec![Problem::new(name.as_str(), format!("line {line} is not valid UTF-8"))]
    })?;
    if is_json(&file.path, text) { parse_json(&name, text) } else { parse_toml(&name, text) }
}

fn is_json(path: &Path, text: &str) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) if extension.eq_ignore_ascii_case("json") => true,
        Some(extension) if extension.eq_ignore_ascii_case("toml") => false,
        _ => text.trim_start().starts_with('{'),
    }
}

fn parse_toml(name: &str, text: &str) -> Result<Map<String, Value>, Vec<Problem>> {
    if let Ok(table) = text.parse::<toml::Table>() {
        return Ok(table.into_iter().map(|(key, value)| (key, from_toml(value))).collect());
    }
    let (_, mut errors) = toml::de::DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    let mut problems = errors.iter().map(|error| {
        let place = error.span().map_or_else(String::new, |span| place(text, span.start));
        Problem::new(name, format!("{place}{}", error.message()))
    });
    let first = problems.next().unwrap_or_else(|| Problem::new(name, "is not valid TOML"));
    Err(std::iter::once(first).chain(problems).collect())
}

/// `line 3, column 5: ` for an offset into a text.
fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    format!("line {line}, column {column}: ")
}

fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        // Not a number and infinity do not exist in JSON; as texts they are refused where a number
        // is wanted.
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .map_or_else(|| Value::String(number.to_string()), Value::Number),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(datetime) => Value::String(datetime.to_string()),
        toml::Value::Array(list) => list.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, from_toml(value))).collect())
        }
    }
}

fn parse_json(name: &str, text: &str) -> Result<Map<String, Value>, Vec<Problem>> {
    let mut twice = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { path: String::new(), twice: &mut twice }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Err(error) => {
            // What serde_json says about syntax is a fixed text; it does not quote the input.
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            let (line, column) = (error.line(), error.column());
            Err(vec![Problem::new(name, format!("line {line}, column {column}: {what}"))])
        }
        Ok(_) if !twice.is_empty() => {
            Err(twice.into_iter().map(|key| Problem::new(key, "is there twice")).collect())
        }
        Ok(Value::Object(table)) => Ok(table),
        Ok(_) => Err(vec![Problem::new(name, "must be one JSON object")]),
    }
}

/// Reads a JSON value and notes the keys that an object has twice.
struct Strict<'a> {
    path: String,
    twice: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(number);
        number.map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, values.len());
            match list.next_element_seed(Strict { path, twice: self.twice })? {
                Some(value) => values.push(value),
                None => return Ok(values.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = table.next_key::<String>()? {
            let path = join(&self.path, &key);
            if values.contains_key(&key) {
                self.twice.push(path.clone());
            }
            let value = table.next_value_seed(Strict { path, twice: self.twice })?;
            values.insert(key, value);
        }
        Ok(values.into())
    }
}

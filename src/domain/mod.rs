//! The nouns of Bellpull, their states and their legal transitions.
//!
//! One word per thing, the same in code, tables, JSON and docs. Nothing in here does IO, asks the
//! time or knows how it is stored or served; the types that are stored or answered as JSON say so
//! by deriving serde, and their field names are a promise to clients.

/// Writes a type in JSON as the text that its `Display` writes and its `FromStr` reads.
macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = String::deserialize(deserializer)?;
                let wrong = |problem: Problem| serde::de::Error::custom(problem.message);
                text.parse().map_err(wrong)
            }
        }
    )+};
}

pub mod access;
pub mod address;
pub mod agent;
pub mod budget;
pub mod callback;
pub mod certified;
pub mod coalesce;
pub mod content;
pub mod conversation;
pub mod cost;
pub mod credential;
pub mod delivery;
pub mod deployment;
pub mod effect;
pub mod environment;
pub mod event;
pub mod exposure;
pub mod field;
pub mod file;
pub mod framed;
pub mod handshake;
pub mod indent;
pub mod key;
pub mod model;
pub mod nearest;
pub mod object;
pub mod origin;
pub mod outcome;
pub mod redact;
pub mod resource;
pub mod secret;
pub mod session;
pub mod source;
pub mod template;
pub mod text;
pub mod toolset;
pub mod trace;
pub mod turn;
pub mod verifier;

use std::fmt;

/// Who manages a resource: the config file (read-only elsewhere) or the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagedBy {
    Api,
    File,
}

impl ManagedBy {
    pub fn as_str(self) -> &'static str {
        match self {
            ManagedBy::Api => "api",
            ManagedBy::File => "file",
        }
    }

    pub fn parse(text: &str) -> ManagedBy {
        if text == "file" { ManagedBy::File } else { ManagedBy::Api }
    }
}

/// What is wrong with a value that somebody gave us, in words that say what to change.
///
/// `field` is a path such as `tools[2].name`; the edge turns this into a 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub field: String,
    pub message: String,
    /// A word for programs, where the API has one for exactly this.
    pub code: Option<&'static str>,
}

impl Problem {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { field: field.into(), message: message.into(), code: None }
    }

    pub fn with_code(self, code: &'static str) -> Problem {
        Problem { code: Some(code), ..self }
    }

    /// The same about a field that is within another one.
    pub fn within(self, outer: &str) -> Problem {
        Problem { field: format!("{outer}.{}", self.field), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for Problem {}

/// Whether a field needs not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Free-form labels. At most 16 pairs, keys up to 64 and values up to 512 characters, as in the
/// Managed Agents API.
pub type Metadata = std::collections::BTreeMap<String, String>;

pub fn check_metadata(metadata: &Metadata) -> Result<(), Problem> {
    if metadata.len() > 16 {
        return Err(Problem::new("metadata", "has more than 16 pairs"));
    }
    for (key, value) in metadata {
        if key.is_empty() || key.chars().count() > 64 {
            return Err(Problem::new("metadata", "keys have 1 to 64 characters"));
        }
        if value.chars().count() > 512 {
            return Err(Problem::new(format!("metadata.{key}"), "is longer than 512 characters"));
        }
    }
    Ok(())
}

/// Applies a metadata patch: a text upserts, null deletes (Managed Agents API, everywhere).
pub fn patch_metadata(
    metadata: &mut Metadata,
    patch: std::collections::BTreeMap<String, Option<String>>,
) {
    for (key, value) in patch {
        match value {
            Some(value) => {
                metadata.insert(key, value);
            }
            None => {
                metadata.remove(&key);
            }
        }
    }
}

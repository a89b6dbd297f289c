//! What is wrong with a configuration, in words that say what to change.
//!
//! Invariant: a text in here names keys, ranges and paths, never the value of a key that could hold
//! a secret, so problems may be printed, logged and shown to anybody who may see the configuration.

use std::fmt;

use crate::domain::text::printable;

/// One thing that is wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key (`limits.body_bytes_max`), the variable or the flag that it came from.
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, wrong: impl Into<Wrong>) -> Problem {
        let Wrong { message, hint } = wrong.into();
        Problem { key: key.into(), message, hint }
    }
}

impl fmt::Display for Problem {
    /// One line, and an indented one for the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", printable(&self.key), printable(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {}", printable(hint)),
            None => Ok(()),
        }
    }
}

/// A problem before it is known at which key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Wrong {
        self.hint = Some(hint.into());
        self
    }
}

impl<T: Into<String>> From<T> for Wrong {
    fn from(message: T) -> Wrong {
        Wrong { message: message.into(), hint: None }
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has 1 problem")?,
            n => write!(f, "the configuration has {n} problems")?,
        }
        for problem in &self.0 {
            write!(f, "\n{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The path of a key inside a table, quoted where a plain one would be ambiguous.
pub(super) fn join(table: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-'));
    let key = if plain { key.to_owned() } else { format!("{key:?}") };
    if table.is_empty() { key } else { format!("{table}.{key}") }
}

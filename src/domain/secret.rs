//! Secrets and their names. The values live sealed in the vault; this is what may be said aloud.

use std::fmt;

use serde_json::{Value, json};

use super::Problem;
use crate::id::AgentId;

/// Which secret it was, said aloud: its name and the version of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    pub name: String,
    pub version: i64,
}

impl SecretName {
    /// As it is kept with a delivery. No name has an `@`.
    pub fn to_text(&self) -> String {
        [&self.name, "@", &self.version.to_string()].concat()
    }

    /// What [`SecretName::to_text`] wrote.
    pub fn parse(text: &str) -> Option<SecretName> {
        let (name, version) = text.rsplit_once('@')?;
        Some(SecretName { name: name.to_owned(), version: version.parse().ok()? })
    }

    pub fn to_json(&self) -> Value {
        json!({"name": self.name, "version": self.version})
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}

/// Where an agent's webhook token is kept unless the agent says otherwise. The name is part of the
/// public contract of the agent endpoint.
pub fn webhook_key(agent: &AgentId) -> String {
    format!("WEBHOOK_{agent}_SECRET")
}

/// Where a source's secret is kept when it was given inline.
pub fn source_key(source_name: &str) -> String {
    format!("SOURCE_{source_name}_SECRET")
}

/// Where the secret is kept that messages of an agent's or a source's callback are signed with.
pub fn callback_key(owner: &str) -> String {
    format!("CALLBACK_{owner}_SECRET")
}

/// Where the URL of that callback is kept.
pub fn callback_url_key(owner: &str) -> String {
    format!("CALLBACK_{owner}_URL")
}

/// Longest secret value, in bytes. Room for a PEM chain, not for a file.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Names are 1 to 128 of letters, digits, `_`, `-` and `.`.
pub fn check_name(name: &str) -> Result<(), Problem> {
    let valid = (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        // Such a one would be a way through the directories of a URL.
        && !name.bytes().all(|byte| byte == b'.');
    if valid {
        Ok(())
    } else {
        Err(Problem::new(
            "name",
            "must be 1 to 128 letters, digits, `_`, `-` or `.`, and not dots alone",
        ))
    }
}

//! The table of senders: what is known about each, as data.
//!
//! An entry says how the sender proves itself, what tells its deliveries apart and what kind they
//! are, in the words that a source of the config file uses. A source that names a preset takes
//! everything from it that it does not say itself, each time it is read, so that an improved table
//! reaches it. Adding a sender is one entry here and its vectors in `tests/it/senders`.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    Problem,
    field::Field,
    handshake::Handshake,
    nearest::nearest,
    source::{Source, SourceDefinition, SourceKind},
    verifier::Verifier,
};

/// The files of the table, in the order in which they are shown.
const FILES: [&str; 9] = [
    include_str!("code.toml"),
    include_str!("work.toml"),
    include_str!("messages.toml"),
    include_str!("operations.toml"),
    include_str!("payments.toml"),
    include_str!("shops.toml"),
    include_str!("clouds.toml"),
    include_str!("standard.toml"),
    include_str!("plain.toml"),
];

/// What is known about a sender.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    #[serde(skip)]
    pub id: String,
    pub title: String,
    /// As in a source; some leave a field to the source.
    pub verifier: Value,
    #[serde(default)]
    pub identity: Vec<Field>,
    #[serde(default)]
    pub body_hash_window_seconds: u32,
    #[serde(default)]
    pub event_type: Vec<Field>,
    /// A template of what makes a delivery's session: its ticket, pull request or incident.
    pub key: Option<String>,
    /// Who did it; several may be named.
    #[serde(default)]
    pub actor: Vec<Field>,
    #[serde(default)]
    pub handshakes: Vec<Handshake>,
    /// Where the sender wants another answer than everybody.
    pub answer: Option<Demanded>,
    /// Where to click at the sender.
    pub setup: String,
    /// The answer that the sender wants, and how fast.
    pub expects: Option<String>,
    pub retries: Option<String>,
    pub notes: Option<String>,
    /// What the entry rests on; absent where there is no one sender.
    pub evidence: Option<Evidence>,
    /// What of it was not found in any document, only in memory.
    #[serde(default)]
    pub unverified: Vec<Fact>,
}

/// The answer that a sender insists on, to a delivery that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Demanded {
    pub status: u16,
    /// Absent: the body of everybody. A status that has none has none.
    pub body: Option<String>,
    pub content_type: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The sender's own documentation, SDK or tests.
    Vendor,
    /// Documents of others that quote it.
    Others,
}

impl Evidence {
    pub fn text(self) -> &'static str {
        match self {
            Evidence::Vendor => "the sender's own documents or code",
            Evidence::Others => "documents of others",
        }
    }
}

/// A part of an entry that evidence is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    Gate,
    Identity,
    #[serde(rename = "event type")]
    EventType,
    Key,
    Actor,
    Handshake,
    Expects,
    Retries,
}

impl Fact {
    pub fn name(self) -> &'static str {
        match self {
            Fact::Gate => "gate",
            Fact::Identity => "identity",
            Fact::EventType => "event type",
            Fact::Key => "key",
            Fact::Actor => "actor",
            Fact::Handshake => "handshake",
            Fact::Expects => "expects",
            Fact::Retries => "retries",
        }
    }
}

/// Every preset, by family.
pub fn all() -> &'static [Preset] {
    static TABLE: LazyLock<Vec<Preset>> = LazyLock::new(|| {
        let read = |file: &str| {
            let table: toml::Table = toml::from_str(file).expect("the table of senders is TOML");
            table.into_iter().map(|(id, entry)| {
                let preset: Preset = entry.try_into().expect("every entry of the table is whole");
                Preset { id, ..preset }
            })
        };
        FILES.into_iter().flat_map(read).collect()
    });
    &TABLE
}

fn find(id: &str) -> Result<&'static Preset, Problem> {
    let ids = || all().iter().map(|preset| preset.id.as_str());
    all().iter().find(|preset| preset.id == id).ok_or_else(|| {
        let hint = match nearest(id, ids()) {
            Some(near) => format!(": did you mean `{near}`?"),
            None => "; `bellpull sources presets` lists them".to_owned(),
        };
        Problem::new("preset", format!("is not a known sender{hint}"))
    })
}

/// How the sender of a source behaves: what its preset says, and what the source says against it.
#[derive(Clone, Debug)]
pub struct Sender {
    pub preset: Option<&'static Preset>,
    pub verifier: Verifier,
    /// Empty: the usual headers.
    pub identity: Vec<Field>,
    pub body_hash_window_seconds: u32,
    /// Empty: the usual places.
    pub event_type: Vec<Field>,
    /// Empty: nobody knows who did it.
    pub actor: Vec<Field>,
    pub handshakes: Vec<Handshake>,
}

impl Sender {
    pub fn of(source: &Source) -> Result<Sender, Problem> {
        match source.kind {
            SourceKind::Named => Sender::defined(&source.definition),
            // The public contract of the agent endpoint: its token, whatever anybody wrote.
            SourceKind::Agent(_) => {
                let (verifier, handshakes) = (Verifier::Bearer {}, Vec::new());
                Ok(Sender { verifier, handshakes, ..Sender::defined(&source.definition)? })
            }
        }
    }

    /// Problems are at `preset`, `verifier` or a place below it.
    pub fn defined(definition: &SourceDefinition) -> Result<Sender, Problem> {
        let preset = definition.preset.as_deref().map(find).transpose()?;
        let verifier = match (preset, &definition.verifier) {
            (None, None) => Verifier::Box {},
            (None, Some(own)) => read(own)?,
            (Some(preset), None) => read(&preset.verifier)?,
            (Some(preset), Some(own)) => read(&laid_over(&preset.verifier, own))?,
        };
        let known = |own: &[Field], preset: Option<&[Field]>| match preset {
            Some(preset) if own.is_empty() => preset.to_vec(),
            Some(_) | None => own.to_vec(),
        };
        let window = definition.body_hash_window_seconds;
        let handshakes = match preset {
            Some(preset) if definition.handshakes.is_empty() => preset.handshakes.clone(),
            Some(_) | None => definition.handshakes.clone(),
        };
        Handshake::check_all(&handshakes, verifier.makes_macs())?;
        Ok(Sender {
            preset,
            verifier,
            identity: known(&definition.identity, preset.map(|it| &it.identity[..])),
            body_hash_window_seconds: window
                .or(preset.map(|it| it.body_hash_window_seconds))
                .unwrap_or_default(),
            event_type: known(&definition.event_type, preset.map(|it| &it.event_type[..])),
            actor: known(&definition.actor, preset.map(|it| &it.actor[..])),
            handshakes,
        })
    }
}

fn read(verifier: &Value) -> Result<Verifier, Problem> {
    Verifier::read(verifier).map_err(|problem| {
        let at = match problem.field.as_str() {
            "" => "verifier".to_owned(),
            field => format!("verifier.{field}"),
        };
        Problem::new(at, problem.message)
    })
}

/// The preset's verifier with the fields that the source says. One of another type replaces it.
fn laid_over(preset: &Value, own: &Value) -> Value {
    let Value::Object(fields) = own else { return own.clone() };
    match (preset, fields.get("type")) {
        (Value::Object(_), Some(kind)) if *kind != preset["type"] => own.clone(),
        (Value::Object(preset), _) => {
            let mut out = preset.clone();
            for (key, value) in fields {
                match (out.get(key), value) {
                    (_, Value::Null) => drop(out.shift_remove(key)),
                    (Some(known @ Value::Object(_)), Value::Object(_)) => {
                        let value = laid_over(known, value);
                        out.insert(key.clone(), value);
                    }
                    _ => drop(out.insert(key.clone(), value.clone())),
                }
            }
            Value::Object(out)
        }
        _ => own.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_entry_is_whole() {
        let mut ids = BTreeSet::new();
        for preset in all() {
            assert!(ids.insert(&preset.id), "{} is there twice", preset.id);
            let definition = SourceDefinition {
                preset: Some(preset.id.clone()),
                verifier: (preset.id == "basic").then(|| json!({"username": "u"})),
                ..SourceDefinition::default()
            };
            let sender = Sender::defined(&definition);
            assert!(sender.is_ok(), "{}: {:?}", preset.id, sender);
        }
    }

    #[test]
    fn a_source_says_what_differs() {
        let sender = |preset: &str, verifier: Value| {
            let definition = SourceDefinition {
                preset: Some(preset.to_owned()),
                verifier: Some(verifier),
                ..SourceDefinition::default()
            };
            Sender::defined(&definition)
        };
        let verifier = json!(sender("stripe", json!({})).unwrap().verifier);
        let own = json!({"timestamp": {"tolerance_seconds": 60}, "encoding": "base64"});
        let mut expected = verifier.clone();
        expected["timestamp"]["tolerance_seconds"] = json!(60);
        expected["encoding"] = json!("base64");
        assert_eq!(json!(sender("stripe", own).unwrap().verifier), expected);
        // Another kind of gate is not mixed with the preset's.
        let other = sender("stripe", json!({"type": "bearer"})).unwrap();
        assert_eq!(other.verifier, Verifier::Bearer {});
        assert_eq!(other.identity, ["/id".parse().unwrap()]);
        // Null is the default of the shape.
        let loose = json!({"timestamp": {"tolerance_seconds": null}});
        let loose = json!(sender("stripe", loose).unwrap().verifier);
        assert_eq!(loose["timestamp"], json!({"entry": "t"}));
        let problem = sender("stripe", json!({"haeder": "X"})).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "verifier.haeder: is not a field of this verifier: did you mean `header`?"
        );
        let problem = sender("strip", json!({})).unwrap_err();
        assert_eq!(problem.to_string(), "preset: is not a known sender: did you mean `stripe`?");
    }
}

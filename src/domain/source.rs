//! A source: a system that is allowed to call in. How to verify it, how to tell its deliveries
//! apart, and where they go.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use serde_json::{Value, json};

use super::{
    ManagedBy, Problem,
    access::{ALL_HOSTS, is_host},
    callback::Callback,
    field::Field,
    handshake::Handshake,
    is_default,
    turn::TurnLimits,
    verifier::Verifier,
};
use crate::{
    clock::Timestamp,
    id::{AgentId, EnvironmentId, Id, SessionId, SourceId},
};

/// What stands for everybody where a source can be named.
pub const EVERYBODY: &str = "all";

/// `[a-z0-9][a-z0-9_-]{0,63}`, and not [`EVERYBODY`].
pub fn check_name(name: &str) -> Result<(), Problem> {
    if name == EVERYBODY {
        return Err(Problem::new("name", "must not be `all`, which stands for all of them"));
    }
    let bytes = name.as_bytes();
    let valid = (1..=64).contains(&bytes.len())
        && bytes
            .iter()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"_-".contains(it))
        && bytes[0].is_ascii_alphanumeric();
    if valid {
        Ok(())
    } else {
        Err(Problem::new(
            "name",
            "must be 1 to 64 lower-case letters, digits, `_` or `-`, and begin with a letter or digit",
        ))
    }
}

/// The kinds of source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The one that every agent has, reached at `/api/agents/<id>/webhook`.
    Agent(AgentId),
    /// One with a name, reached at `/api/webhook/<name>`.
    Named,
}

/// Which session a delivery goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    #[default]
    NewSession,
    Session(SessionId),
    /// One session per value of this template.
    Key(String),
    /// One session per value of what the preset says.
    PresetKey,
}

/// What a target may be, for whoever wrote something else.
pub const TARGET_WANTED: &str =
    "must be `new_session`, `key`, a session id or {\"key\": \"<template>\"}";

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Target::NewSession => serializer.serialize_str("new_session"),
            Target::PresetKey => serializer.serialize_str("key"),
            Target::Session(id) => id.serialize(serializer),
            Target::Key(template) => {
                std::collections::BTreeMap::from([("key", template)]).serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Target, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            Text(String),
            Key { key: String },
        }
        let wanted = TARGET_WANTED;
        match Shape::deserialize(deserializer) {
            Ok(Shape::Text(text)) if text == "new_session" => Ok(Target::NewSession),
            Ok(Shape::Text(text)) if text == "key" => Ok(Target::PresetKey),
            Ok(Shape::Text(text)) => {
                text.parse().map(Target::Session).map_err(|_| serde::de::Error::custom(wanted))
            }
            Ok(Shape::Key { key }) => Ok(Target::Key(key)),
            Err(_) => Err(serde::de::Error::custom(wanted)),
        }
    }
}

/// What a message does that comes for a session at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenBusy {
    /// It waits for the next turn.
    #[default]
    Queue,
    /// The turn takes it up before it asks the model again.
    Steer,
    /// The turn is interrupted, and the next one begins with it.
    Supersede,
    /// It is not wanted: its delivery is filtered.
    Skip,
}

impl WhenBusy {
    pub const NAMES: [(&str, WhenBusy); 4] = [
        ("queue", WhenBusy::Queue),
        ("steer", WhenBusy::Steer),
        ("supersede", WhenBusy::Supersede),
        ("skip", WhenBusy::Skip),
    ];
}

/// When a turn begins with a message that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    pub debounce: Option<Debounce>,
    pub when_busy: WhenBusy,
    /// Turns that a session may begin within an hour before what comes for it is held.
    pub turns_per_hour_max: Option<u32>,
}

/// A session's next turn waits for quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// How long no message must have come.
    pub quiet: Duration,
    /// How long the first message waits at most, however many more come.
    pub longest: Duration,
}

/// An hour: a storm that lasts longer is taken up in parts.
pub const DEBOUNCE_SECONDS_MAX: u32 = 3600;

/// How many times its quiet a message waits at most, unless told otherwise.
const DEBOUNCE_LONGEST: u32 = 10;

/// What a source does differently with some of its deliveries: those that fulfil a condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRule {
    /// A condition in CEL; the first rule whose condition is fulfilled counts, and no other.
    pub when: String,
    /// Nobody gets the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<RuleVerdict>,
    /// Why nobody does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    // What is absent here is the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_id: Option<EnvironmentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a rule can decide instead of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleVerdict {
    Filtered,
    Held,
}

/// What happens when the same delivery comes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRedelivery {
    /// It is a duplicate, whatever became of the first.
    #[default]
    Duplicate,
    /// When the first one's outcome is failed, the agent gets the message again.
    RerunFailed,
}

/// What happens when a body comes again under another id, where the sender signs neither the id nor
/// a time that is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPossibleReplay {
    /// It is marked and goes its way: equal bodies may be honest, and a sender that is held up
    /// does not send again.
    #[default]
    Accept,
    /// It is held.
    Hold,
}

/// What becomes of tools that do more than read, in sessions that have anything from a source. The
/// strictest of their sources counts, above the policies of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookTools {
    /// The agent's policies say it.
    #[default]
    AsUsual,
    /// Somebody is asked about every call.
    Ask,
    /// There are none.
    ReadOnly,
}

impl WebhookTools {
    pub const NAMES: [(&'static str, WebhookTools); 3] = [
        ("as_usual", WebhookTools::AsUsual),
        ("ask", WebhookTools::Ask),
        ("read_only", WebhookTools::ReadOnly),
    ];
}

/// Everything about a source that its owner decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceDefinition {
    /// The entry of the table of senders that says how the sender behaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// A verifier as it was written; with a preset, what is laid over the preset's own. Neither of
    /// the two: the box key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<Value>,
    /// Name of the secret that the verifier compares with or that signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
    /// Id or name; the agent named `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_id: Option<EnvironmentId>,
    /// A directory under `projects.roots`; its environment is made when needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default)]
    pub target: Target,
    /// A condition in CEL; a delivery that does not fulfil it is stored and reaches nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// A template of the message; absent: the public contract's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<SourceRule>,
    /// Whoever is at [`SourceDefinition::actor`] and named here is one of ours: what they do wakes
    /// no agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore_actors: Vec<String>,
    /// Where the sender says who did it. Empty: what the preset says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actor: Vec<Field>,
    /// Empty: what the preset says, else a header that senders use for it.
    #[serde(default)]
    pub identity: Vec<Field>,
    /// Without an id, equal bodies within this many seconds are one delivery. 0: each is its own.
    /// Absent: what the preset says, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_hash_window_seconds: Option<u32>,
    /// Empty: what the preset says, else where senders say it.
    #[serde(default)]
    pub event_type: Vec<Field>,
    /// Empty: what the preset says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handshakes: Vec<Handshake>,
    #[serde(default)]
    pub on_redelivery: OnRedelivery,
    #[serde(default)]
    pub on_possible_replay: OnPossibleReplay,
    /// Characters of the payload that the message holds.
    #[serde(default = "message_chars_default")]
    pub message_chars_max: usize,
    /// Seconds without a further message before a turn begins. 0: it begins at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub debounce_seconds: u32,
    /// Seconds that the first message waits at most. Absent: ten times `debounce_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debounce_seconds_max: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub when_busy: WhenBusy,
    /// Turns that the session of a key, or the one session that all go to, may begin within an hour:
    /// what comes beyond is held, because it may be the agent's own doing. Absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_per_key_per_hour_max: Option<u32>,
    /// Turns of sessions that this source made: what comes beyond waits. Absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_at_once_max: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_per_minute_max: Option<u32>,
    /// Where the results of its sessions are sent, in the place of the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
    /// Hosts that its sessions reach where their environment is unrestricted; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub webhook_tools: WebhookTools,
}

/// Hosts of one source.
pub const HOSTS_MAX: usize = 100;

/// Reads the hosts that sessions of a source may reach.
pub fn check_hosts(hosts: &[String]) -> Result<(), Problem> {
    let is_one = |host: &String| host == ALL_HOSTS || is_host(host);
    match hosts.iter().find(|host| !is_one(host)) {
        Some(host) => {
            let host = super::text::one_line(host);
            let wanted =
                format!("`{host}` is neither the name of a host, nor `*.<domain>`, nor `*`");
            Err(Problem::new("allowed_hosts", wanted))
        }
        None => Ok(()),
    }
}

/// More than one a second, hour after hour, is no bound on a loop.
pub const TURNS_PER_KEY_PER_HOUR_MAX: u32 = 3600;

/// The public contract's cut.
pub const MESSAGE_CHARS_DEFAULT: usize = 2000;

pub const MESSAGE_CHARS_MAX: u32 = 1_000_000;

/// Fields that are tried in turn.
pub const FIELDS_MAX: usize = 32;

/// 30 days: as long as identities are kept unless told otherwise.
pub const BODY_HASH_WINDOW_SECONDS_MAX: u32 = 30 * 24 * 3600;

/// Characters of a condition or a template; each kind has a narrower bound of its own.
pub const POLICY_CHARS_MAX: usize = 65_536;

/// Characters of why nobody gets a delivery.
pub const REASON_CHARS_MAX: usize = 500;

fn message_chars_default() -> usize {
    MESSAGE_CHARS_DEFAULT
}

impl SourceDefinition {
    pub fn new(verifier: &Verifier) -> SourceDefinition {
        SourceDefinition { verifier: Some(json!(verifier)), ..SourceDefinition::default() }
    }

    /// Whether a first message may wait as long as the quiet takes.
    pub fn check_pace(&self) -> Result<(), Problem> {
        match self.debounce_seconds_max {
            Some(longest) if longest < self.debounce_seconds => Err(Problem::new(
                "debounce_seconds_max",
                format!(
                    "must not be less than `debounce_seconds`, which is {}",
                    self.debounce_seconds
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    pub fn turn_limits(&self) -> TurnLimits {
        TurnLimits {
            at_once_max: self.turns_at_once_max,
            per_minute_max: self.turns_per_minute_max,
        }
    }

    pub fn pace(&self) -> Pace {
        let quiet = self.debounce_seconds;
        let longest = quiet.saturating_mul(DEBOUNCE_LONGEST).min(DEBOUNCE_SECONDS_MAX);
        let longest = self.debounce_seconds_max.unwrap_or(longest);
        let seconds = |n: u32| Duration::from_secs(n.into());
        let debounce = Debounce { quiet: seconds(quiet), longest: seconds(longest) };
        Pace {
            debounce: (quiet > 0).then_some(debounce),
            when_busy: self.when_busy,
            turns_per_hour_max: self.turns_per_key_per_hour_max,
        }
    }
}

impl Default for SourceDefinition {
    /// Passed by the box key; everything else as it is for anybody.
    fn default() -> SourceDefinition {
        SourceDefinition {
            preset: None,
            verifier: None,
            secret_key: None,
            agent: None,
            environment_id: None,
            project: None,
            target: Target::NewSession,
            filter: None,
            message: None,
            rules: Vec::new(),
            ignore_actors: Vec::new(),
            actor: Vec::new(),
            identity: Vec::new(),
            body_hash_window_seconds: None,
            event_type: Vec::new(),
            handshakes: Vec::new(),
            on_redelivery: OnRedelivery::Duplicate,
            on_possible_replay: OnPossibleReplay::Accept,
            message_chars_max: MESSAGE_CHARS_DEFAULT,
            debounce_seconds: 0,
            debounce_seconds_max: None,
            when_busy: WhenBusy::Queue,
            turns_per_key_per_hour_max: None,
            turns_at_once_max: None,
            turns_per_minute_max: None,
            callback: None,
            allowed_hosts: Vec::new(),
            webhook_tools: WebhookTools::AsUsual,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub id: SourceId,
    pub kind: SourceKind,
    /// An agent's own source carries the agent's id as its name.
    pub name: String,
    pub definition: SourceDefinition,
    pub paused: bool,
    pub managed_by: ManagedBy,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// A retired source lets nobody in and keeps its deliveries and identities.
    pub retired_at: Option<Timestamp>,
}

impl Source {
    /// The source of an agent's own endpoint. Its name is the agent's id, its gate a bearer token.
    pub fn of_agent(
        agent: &AgentId,
        managed_by: ManagedBy,
        secret_key: Option<String>,
        at: Timestamp,
    ) -> Source {
        Source {
            id: SourceId::new(at),
            kind: SourceKind::Agent(agent.clone()),
            name: agent.to_string(),
            definition: SourceDefinition {
                secret_key,
                ..SourceDefinition::new(&Verifier::Bearer {})
            },
            paused: false,
            managed_by,
            created_at: at,
            updated_at: at,
            retired_at: None,
        }
    }

    /// Where senders post to, below the server's own URL.
    pub fn path(&self) -> String {
        match &self.kind {
            SourceKind::Agent(agent) => format!("/api/agents/{agent}/webhook"),
            SourceKind::Named => format!("/api/webhook/{}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_anything_is_looked_up() {
        for name in ["stripe", "a", "0-9_x", &"a".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "_a", "A", "a b", "a/b", "ä", "all", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_definition_round_trips_and_refuses_unknown_fields() {
        let text = r#"{"verifier":{"type":"basic","username":"u"},"target":{"key":"{{ body.id }}"},
            "identity":["X-Id","/data/id"]}"#;
        let definition: SourceDefinition = serde_json::from_str(text).unwrap();
        assert_eq!(definition.identity[0].to_string(), "x-id");
        assert_eq!(definition.target, Target::Key("{{ body.id }}".to_owned()));
        let again = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<SourceDefinition>(&again).unwrap(), definition);
        assert!(
            serde_json::from_str::<SourceDefinition>(r#"{"verifier":{"type":"box"},"x":1}"#)
                .is_err()
        );
        assert!(serde_json::from_str::<Target>("\"sometimes\"").is_err());
        for target in [Target::NewSession, Target::PresetKey, Target::Key("x".to_owned())] {
            let text = serde_json::to_string(&target).unwrap();
            assert_eq!(serde_json::from_str::<Target>(&text).unwrap(), target);
        }
    }
}

//! Ids: a prefix that names the kind, then 26 characters that sort by time of creation.
//!
//! The 26 characters are a UUID version 7 (48 bits of milliseconds, then random bits) in lower-case
//! Crockford base 32, so text order is creation order to the millisecond and nothing can be guessed.
//! Invariant: a value of one of these types has the right prefix; parsing refuses another kind's id.
//! There is no `Deref<str>`: an id is not just any text.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::clock::Timestamp;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: expected `{prefix}…`")]
pub struct Invalid {
    pub prefix: &'static str,
}

/// What all id types have in common.
pub trait Id: Sized + fmt::Display + FromStr<Err = Invalid> {
    /// The prefix with its underscore, e.g. `agent_`.
    const PREFIX: &'static str;

    /// A new id, unique everywhere, that sorts after the ids of earlier milliseconds.
    fn new(now: Timestamp) -> Self;

    /// Sorts before every id that was made at this time or later, and after all earlier ones.
    fn floor(time: Timestamp) -> Self;

    fn as_str(&self) -> &str;
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Longest id accepted from outside. Ours have 26 characters after the prefix; the rest is room for
/// ids that other implementations of the same API made.
const LENGTH_MAX: usize = 64;

fn generate(prefix: &str, now: Timestamp) -> String {
    encode(prefix, random_bits(now))
}

/// The bits of an id without a kind: never zero, and random at the end: 74 of the last 80.
pub(crate) fn random_bits(now: Timestamp) -> u128 {
    let ms = u64::try_from(now.0).unwrap_or(0);
    let timestamp = uuid::Timestamp::from_unix(
        uuid::NoContext,
        ms / 1000,
        u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    );
    Uuid::new_v7(timestamp).as_u128()
}

fn encode(prefix: &str, mut bits: u128) -> String {
    let mut text = [0_u8; 26];
    for slot in text.iter_mut().rev() {
        *slot = ALPHABET[(bits & 31) as usize];
        bits >>= 5;
    }
    let mut id = String::with_capacity(prefix.len() + text.len());
    id.push_str(prefix);
    id.push_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"));
    id
}

fn check(prefix: &'static str, text: &str) -> Result<(), Invalid> {
    let valid = text.len() <= LENGTH_MAX
        && text.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    if valid { Ok(()) } else { Err(Invalid { prefix }) }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;

            fn new(now: Timestamp) -> $name {
                $name(generate($prefix, now))
            }

            fn floor(time: Timestamp) -> $name {
                let ms = u128::from(u64::try_from(time.0).unwrap_or(0));
                $name(encode($prefix, ms << 80))
            }

            fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<$name, Invalid> {
                check($prefix, text)?;
                Ok($name(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

// Alphabetical by type. A prefix, once released, never changes: it is stored and shown.
ids! {
    /// A versioned persona.
    AgentId = "agent_";
    /// A further API key (not the key itself).
    ApiKeyId = "apikey_";
    /// An entry of the audit log.
    AuditId = "audit_";
    /// A credential of a vault.
    CredentialId = "vcrd_";
    /// One event sent by a source.
    DeliveryId = "dlv_";
    /// A schedule that starts sessions.
    DeploymentId = "depl_";
    /// One time that a deployment started a session, or could not.
    DeploymentRunId = "drun_";
    /// Where tools run.
    EnvironmentId = "env_";
    /// One entry of a session's log, and the id of a tool call.
    EventId = "sevt_";
    /// A file that was uploaded, or that a session has.
    FileId = "file_";
    /// Something that a session shall reach.
    OutcomeId = "outc_";
    /// A message that leaves: the `webhook-id` of a callback.
    OutgoingId = "msg_";
    /// A refused attempt to call in.
    RefusalId = "rfsl_";
    /// An HTTP request to the API.
    RequestId = "req_";
    /// Something that is mounted into a session.
    ResourceId = "sesrsc_";
    /// One conversation of an agent in an environment.
    SessionId = "sesn_";
    /// One line of work in a session. There is one of each session, named after it.
    ThreadId = "sthr_";
    /// A system that is allowed to call in.
    SourceId = "src_";
    /// One stretch of agent work on a session.
    TurnId = "turn_";
    /// A vault: credentials that sessions are given.
    VaultId = "vlt_";
    /// An HTTP request to one of the webhook routes.
    WebhookRequestId = "webhook_";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_creation_and_parse_back() {
        let early = SessionId::new(Timestamp(1_000));
        let late = SessionId::new(Timestamp(2_000));
        assert!(early < late, "{early} {late}");
        let floor = SessionId::floor(Timestamp(2_000));
        assert!(early < floor && floor < late, "{early} {floor} {late}");
        assert_eq!(early.as_str().len(), "sesn_".len() + 26);
        assert_eq!(early.to_string().parse::<SessionId>(), Ok(early.clone()));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let delivery = DeliveryId::new(Timestamp(1_000)).to_string();
        assert_eq!(delivery.parse::<SessionId>(), Err(Invalid { prefix: "sesn_" }));
        for text in
            ["sesn_", "sesn", "", "sesn_a/b", "sesn_\0", &format!("sesn_{}", "a".repeat(80))]
        {
            assert!(text.parse::<SessionId>().is_err(), "{text:?}");
        }
    }
}

//! An effect: a call that changes the outside, in the ledger of what was done.

use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    id::{AgentId, EventId, SessionId, TurnId},
};

/// Characters of what somebody says about an effect.
pub const NOTE_CHARS_MAX: usize = 2000;

/// `intended` before it is carried out, then what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectStatus {
    Intended,
    Done,
    Failed,
    /// Nobody knows whether it was carried out, or how far.
    InDoubt,
}

impl EffectStatus {
    pub const ALL: [EffectStatus; 4] =
        [EffectStatus::Intended, EffectStatus::Done, EffectStatus::Failed, EffectStatus::InDoubt];

    pub fn as_str(self) -> &'static str {
        match self {
            EffectStatus::Intended => "intended",
            EffectStatus::Done => "done",
            EffectStatus::Failed => "failed",
            EffectStatus::InDoubt => "in_doubt",
        }
    }

    pub fn parse(text: &str) -> Option<EffectStatus> {
        EffectStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// An effect as stored. Its id is the event of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub id: EventId,
    pub session_id: SessionId,
    pub turn_id: TurnId,
    pub agent_id: AgentId,
    pub tool: String,
    /// The beginning of the call's input.
    pub input: String,
    pub status: EffectStatus,
    pub intended_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Who found out what became of it: a person's key by name, or the agent by its id.
    pub settled_by: Option<String>,
    pub note: Option<String>,
}

impl Effect {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "type": "effect",
            "status": self.status.as_str(),
            "tool": self.tool,
            "input": self.input,
            "session_id": self.session_id,
            "turn_id": self.turn_id,
            "agent_id": self.agent_id,
            "intended_at": self.intended_at,
            "ended_at": self.ended_at,
            "settled_by": self.settled_by,
            "note": self.note,
        })
    }
}

//! A turn: one stretch of agent work on a session, from pending input to idle. A crash does not end
//! it: the next worker that claims the session goes on with the same turn.

use serde_json::{Value, json};

use crate::{clock::Timestamp, domain::delivery::Outcome, id::TurnId};

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    EndTurn,
    RetriesExhausted,
    BudgetReached,
    Refusal,
    Interrupted,
    Failed,
}

impl TurnEnd {
    pub const ALL: [TurnEnd; 6] = [
        TurnEnd::EndTurn,
        TurnEnd::RetriesExhausted,
        TurnEnd::BudgetReached,
        TurnEnd::Refusal,
        TurnEnd::Interrupted,
        TurnEnd::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            TurnEnd::EndTurn => "end_turn",
            TurnEnd::RetriesExhausted => "retries_exhausted",
            TurnEnd::BudgetReached => "budget_reached",
            TurnEnd::Refusal => "refusal",
            TurnEnd::Interrupted => "interrupted",
            TurnEnd::Failed => "failed",
        }
    }

    pub fn parse(text: &str) -> Option<TurnEnd> {
        TurnEnd::ALL.into_iter().find(|end| end.as_str() == text)
    }

    /// What the deliveries that this turn answered came to.
    pub fn outcome(self) -> Outcome {
        match self {
            TurnEnd::EndTurn => Outcome::Succeeded,
            TurnEnd::Interrupted => Outcome::Cancelled,
            TurnEnd::RetriesExhausted
            | TurnEnd::BudgetReached
            | TurnEnd::Refusal
            | TurnEnd::Failed => Outcome::Failed,
        }
    }
}

/// A turn as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub id: TurnId,
    /// Whether it stands still until somebody answers.
    pub is_waiting: bool,
    pub started_at: Timestamp,
    /// How it ended, and when.
    pub end: Option<(TurnEnd, Timestamp)>,
}

/// How many turns of an agent or of a source there may be. None: any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnLimits {
    pub at_once_max: Option<u32>,
    /// Of those that begin within any 60 seconds.
    pub per_minute_max: Option<u32>,
}

impl TurnLimits {
    pub fn to_json(self) -> Value {
        json!({
            "turns_at_once_max": self.at_once_max,
            "turns_per_minute_max": self.per_minute_max,
        })
    }
}

/// More are no limit.
pub const TURN_LIMIT_MAX: u32 = 10_000;

/// A change of limits: what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnLimitsChange {
    pub at_once_max: Option<Option<u32>>,
    pub per_minute_max: Option<Option<u32>>,
}

impl TurnLimitsChange {
    pub fn apply(self, before: TurnLimits) -> TurnLimits {
        TurnLimits {
            at_once_max: self.at_once_max.unwrap_or(before.at_once_max),
            per_minute_max: self.per_minute_max.unwrap_or(before.per_minute_max),
        }
    }
}

impl From<TurnLimits> for TurnLimitsChange {
    fn from(all: TurnLimits) -> TurnLimitsChange {
        TurnLimitsChange {
            at_once_max: Some(all.at_once_max),
            per_minute_max: Some(all.per_minute_max),
        }
    }
}

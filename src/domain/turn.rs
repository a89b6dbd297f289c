//! A turn: one stretch of agent work on a session, from pending input to idle. A crash does not end
//! it: the next worker that claims the session goes on with the same turn.

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
    /// `running`, `waiting` or `done`.
    pub status: String,
    pub end: Option<String>,
    pub resumes: i64,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

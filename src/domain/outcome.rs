//! Outcomes: what a session shall reach, and how far it is with that.
//!
//! Whoever defines one says what shall be there and by which rubric it is judged. The agent works
//! towards it, a grader looks at the work, and what it says goes back to the agent, until it is
//! satisfied or the iterations are used up. Invariant: a session has at most one that is open. Left
//! out: the grader, which is `agent::grading`'s, and the loop, which is `agent::step`'s.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    id::{EventId, FileId, Id, OutcomeId},
};

/// Of what shall be reached.
pub const DESCRIPTION_CHARS_MAX: usize = 32_768;
/// Of a rubric, as the API has it.
pub const RUBRIC_CHARS_MAX: usize = 262_144;
/// Evaluations of one outcome, where nobody said how many.
pub const ITERATIONS_DEFAULT: u32 = 3;
pub const ITERATIONS_MAX: u32 = 20;
/// Outcomes that one session is given in its life: its object lists all of them.
pub const OUTCOMES_MAX: i64 = 200;

/// What the work is judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Rubric {
    Text {
        content: String,
    },
    /// A file with the text, which was read when the outcome was defined.
    File {
        file_id: FileId,
    },
}

/// How an evaluation came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Satisfied,
    /// Not yet: the agent goes on, and is evaluated again.
    NeedsRevision,
    /// Not yet, and there is no further evaluation.
    MaxIterationsReached,
    /// It cannot be judged, or the turn came to a bad end before it was.
    Failed,
    /// Somebody stopped it.
    Interrupted,
}

impl Verdict {
    pub const ALL: [Verdict; 5] = [
        Verdict::Satisfied,
        Verdict::NeedsRevision,
        Verdict::MaxIterationsReached,
        Verdict::Failed,
        Verdict::Interrupted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Satisfied => "satisfied",
            Verdict::NeedsRevision => "needs_revision",
            Verdict::MaxIterationsReached => "max_iterations_reached",
            Verdict::Failed => "failed",
            Verdict::Interrupted => "interrupted",
        }
    }

    /// Whether no evaluation follows.
    pub fn is_last(self) -> bool {
        self != Verdict::NeedsRevision
    }
}

/// The `OutcomeEvaluationResource` of the Managed Agents API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub id: OutcomeId,
    pub description: String,
    /// `pending`, `running`, `evaluating`, or the last verdict.
    pub result: String,
    /// Revisions so far.
    pub iteration: i64,
    /// What the grader said last.
    pub explanation: Option<String>,
    pub completed_at: Option<Timestamp>,
}

impl Outcome {
    pub fn to_json(&self) -> Value {
        json!({
            "type": "outcome_evaluation",
            "outcome_id": self.id,
            "description": self.description,
            "result": self.result,
            "iteration": self.iteration,
            "explanation": self.explanation,
            "completed_at": self.completed_at,
        })
    }
}

/// The id of the outcome that an event defines: it follows from the event's own, so that a request
/// that comes again is answered with the same one.
pub fn outcome_of(event: &EventId) -> OutcomeId {
    let suffix = event.as_str().strip_prefix(EventId::PREFIX).unwrap_or_default();
    format!("{}{suffix}", OutcomeId::PREFIX).parse().expect("made of an id")
}

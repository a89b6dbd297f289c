//! The agent's mind: pure functions from a log to the next command.
//!
//! [`Transcript`] folds events into what matters for deciding; [`step`] decides. Invariant: nothing
//! in here is async, does IO or asks the time, so the same log always leads to the same command, on
//! any node, after any crash. Left out: doing what was decided.

mod fence;
mod grading;
pub mod permission;
mod step;
mod transcript;

pub use fence::fence;
pub use grading::{Goal, grading, verdict};
pub use permission::{Permission, ServerTool, Setting};
pub use step::{Command, Limits, NOT_RUN, REPEATED, ToolKind, interrupted, step};
pub use transcript::{CallAnswer, OpenTool, Remote, Transcript};

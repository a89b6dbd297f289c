//! The agent's mind: pure functions from a log to the next command.
//!
//! [`Transcript`] folds events into what matters for deciding; [`step`] decides. Invariant: nothing
//! in here is async, does IO or asks the time, so the same log always leads to the same command, on
//! any node, after any crash. Left out: doing what was decided.

mod fence;
mod step;
mod transcript;

pub use fence::fence;
pub use step::{Command, INTERRUPTED, Limits, ToolKind, step};
pub use transcript::{OpenTool, Transcript};

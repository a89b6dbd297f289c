//! What the operator decides.

pub mod watch;
